"""What ``problems`` and ``known_keys`` of a study make of a model of their own."""

from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.study.known_keys import known_keys, without
from pipeline.study.problems import (
    MAX_VALUE_CHARACTERS,
    counted,
    from_validation,
    shown,
    written,
)


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Small(_Model):
    kind: Literal["small"]
    size: float = Field(default=1.0, gt=0.0, description="how small")


class _Large(_Model):
    kind: Literal["large"]
    size: int = Field(lt=100)
    flags: tuple[bool, ...] = ()


class _Top(_Model):
    part: Annotated[_Small | _Large, Field(discriminator="kind")]
    limit: float | None = None
    named: dict[str, _Small] = Field(default_factory=dict)
    label: str = Field(default="", min_length=0)
    count: int = Field(description="how many")


def lines(tree: object) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        _Top.model_validate(tree)
    return from_validation(caught.value, tree, _Top)


UNKNOWN_FLAG = """part.flag=[]: unknown key. Did you mean 'flags'? Known keys of part: flags, \
kind, size. Rename or remove it"""
UNKNOWN_TOP = """zzz=1: unknown key. Known keys of the study: count, label, limit, named, part. \
Rename or remove it"""
UNKNOWN_SICE = """named.a.sice=1: unknown key. Did you mean 'size'? Known keys of named.a: kind, \
size. Rename or remove it"""
MISSING_COUNT = "count=nothing: required, but missing. Add 'count: ...' (how many)"

GOOD = {"part": {"kind": "small"}, "count": 3}


@pytest.mark.parametrize(
    ("tree", "line"),
    [
        (
            {**GOOD, "part": {"kind": "large", "size": 5, "flag": ()}},
            UNKNOWN_FLAG,
        ),
        (
            {**GOOD, "part": {"kind": "small", "flags": ()}},
            "part.flags=[]: unknown key. Known keys of part: kind, size. Rename or remove it",
        ),
        (
            {**GOOD, "zzz": 1},
            UNKNOWN_TOP,
        ),
        ({"part": {"kind": "small"}}, MISSING_COUNT),
        ({**GOOD, "part": {"kind": "large"}},
         "part.size=nothing: required, but missing. Add 'size: ...'"),
        ({**GOOD, "part": {"kind": "small", "size": 0}}, "part.size=0: must be above 0. Raise it"),
        ({**GOOD, "part": {"kind": "large", "size": 100}},
         "part.size=100: must be below 100. Lower it"),
        ({**GOOD, "part": {"kind": "lage", "size": 1}},
         "part.kind=\"lage\": unknown kind. Did you mean 'large'? Choose one of small, large"),
        ({**GOOD, "part": {"size": 1}},
         "part={\"size\": 1}: 'kind' is missing. Add 'kind: ...'"),
        ({**GOOD, "part": 5},
         "part=5: wrong type, must be a section with keys of its own. Write {key: value, ...}"),
        ({**GOOD, "named": {"a": {"kind": "small", "size": "1"}}},
         'named.a.size="1": wrong type, must be a number. Write it without quotes or unit'),
        ({**GOOD, "named": {"a": {"kind": "small", "sice": 1}}},
         UNKNOWN_SICE),
        ({**GOOD, "part": {"kind": "large", "size": 1, "flags": (True, 1)}},
         "part.flags[1]=1: wrong type, must be true or false. Correct it"),
        ({**GOOD, "part": {"kind": "large", "size": 1, "flags": True}},
         "part.flags=true: wrong type, must be a list. Write [a, b, ...]"),
        ({**GOOD, "label": 5}, "label=5: wrong type, must be a text. Put it in quotes"),
        ({**GOOD, "limit": "none"},
         'limit="none": wrong type, must be a number. Write it without quotes or unit'),
        ({**GOOD, "count": 3.0}, "count=3.0: wrong type, must be a whole number. Write 3"),
        ({**GOOD, "count": 3.5}, "count=3.5: wrong type, must be a whole number. Correct it"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)  # fmt: skip
def test_a_line_has_path_value_limit_and_remedy(tree: object, line: str) -> None:
    assert lines(tree) == [line]


def test_a_line_is_bounded_whatever_the_file_holds() -> None:
    tree = {**GOOD, "label": list(range(10_000))}
    (line,) = lines(tree)
    assert len(line) < 200
    assert shown("x" * 1000) == '"' + "x" * (MAX_VALUE_CHARACTERS - 5) + " ..."
    assert shown("ä") == '"ä"'


def test_a_path_is_written_as_in_the_file() -> None:
    assert written(("a", "b", 0, "c")) == "a.b[0].c"
    assert written(()) == ""


def test_known_keys_follow_the_choice_that_was_made() -> None:
    small, large = {"part": {"kind": "small"}}, {"part": {"kind": "large"}}
    assert known_keys(("part",), small, _Top) == {"kind": None, "size": "how small"}
    assert set(known_keys(("part",), large, _Top)) == {"kind", "size", "flags"}
    assert set(known_keys(("named", "a"), {"named": {"a": {}}}, _Top)) == {"kind", "size"}


def test_a_place_that_no_model_describes_has_no_known_keys() -> None:
    assert known_keys(("part", "size"), {"part": {"kind": "small", "size": 1}}, _Top) == {}
    assert known_keys(("nowhere",), {}, _Top) == {}


@pytest.mark.parametrize(
    ("loc", "left"),
    [
        (("a",), {"b": 1}),
        (("a", "c"), {"a": {"d": [1, 2]}, "b": 1}),
        (("a", "some tag", "c"), {"a": {"d": [1, 2]}, "b": 1}),
        (("a", "d", 0), {"a": {"c": 3}, "b": 1}),
        (("nowhere",), {"a": {"c": 3, "d": [1, 2]}, "b": 1}),
        ((), {"a": {"c": 3, "d": [1, 2]}, "b": 1}),
    ],
)
def test_without_takes_out_one_place(loc: tuple[str | int, ...], left: object) -> None:
    tree = {"a": {"c": 3, "d": [1, 2]}, "b": 1}
    assert without(tree, loc) == left
    assert tree == {"a": {"c": 3, "d": [1, 2]}, "b": 1}


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 ranks"), (1, "1 rank"), (2, "2 ranks"), (2000, "2,000 ranks")]
)
def test_one_of_a_thing_is_one(number: int, text: str) -> None:
    assert counted(number, "rank") == text
