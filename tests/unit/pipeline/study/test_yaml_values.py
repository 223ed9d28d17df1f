import math

import pytest
import yaml

from pipeline.study.yaml_values import YamlProblem, parse_yaml, set_value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1.0e-3", 1e-3),
        ("-2E+5", -2e5),
        (".5", 0.5),
        ("6.", 6.0),
        (".inf", math.inf),
        ("-.inf", -math.inf),
        ("010", 10),
        ("-3", -3),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("~", None),
        ("", None),
        ("'5'", "5"),
        ("1_000", "1_000"),
        ("[1, 2.5, a]", [1, 2.5, "a"]),
        ("{a: {b: 1}}", {"a": {"b": 1}}),
    ],
)
def test_plain_values_are_those_of_yaml_1_2(text: str, value: object) -> None:
    read = parse_yaml(text)
    assert read == value
    assert type(read) is type(value)


def test_not_a_number_is_a_number() -> None:
    value = parse_yaml(".nan")
    assert isinstance(value, float)
    assert math.isnan(value)


def test_pyyaml_itself_stays_as_it_is() -> None:
    assert yaml.safe_load("no") is False


def test_anchors_and_merges_work_and_may_be_overridden() -> None:
    text = "a: &base {x: 1, y: 2}\nb:\n  <<: *base\n  y: 3\n"
    assert parse_yaml(text) == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2\n", ["line 4", "'c'", "twice", "line 3", "Remove"]),
        ("a: 1\na: 2\n", ["line 2", "'a'", "line 1"]),
        ("5: 1\n", ["line 1", "key 5", "quotes"]),
        ("a: [1, 2\nb: 3\n", ["line 2", "Correct"]),
        ("a: \tb: c\n", ["line 1", "Correct"]),
        ("a: !!python/name:os.system x\n", ["line 1", "python/name", "Correct"]),
        ("a: *nobody\n", ["line 1", "nobody", "Correct"]),
        ("a: \x07\n", ["Correct"]),
    ],
)
def test_what_is_no_plain_yaml_is_refused(text: str, words: list[str]) -> None:
    with pytest.raises(YamlProblem) as caught:
        parse_yaml(text)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("a.b=3", {"a": {"b": 3, "l": [1, 2]}, "s": "x"}),
        ("a.l.1=7", {"a": {"b": 1, "l": [1, 7]}, "s": "x"}),
        ("a.l=[5]", {"a": {"b": 1, "l": [5]}, "s": "x"}),
        ("a.b=1e-3", {"a": {"b": 1e-3, "l": [1, 2]}, "s": "x"}),
        ("s=p=q", {"a": {"b": 1, "l": [1, 2]}, "s": "p=q"}),
        ("n.m.k=null", {"a": {"b": 1, "l": [1, 2]}, "s": "x", "n": {"m": {"k": None}}}),
        ("a={c: {d: 1}}", {"a": {"c": {"d": 1}}, "s": "x"}),
    ],
)
def test_an_override_changes_one_place(override: str, expected: dict[str, object]) -> None:
    tree = {"a": {"b": 1, "l": [1, 2]}, "s": "x"}
    set_value(tree, override)
    assert tree == expected


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("a", ["section.key=value", "trainer.batch=20"]),
        ("=3", ["section.key=value"]),
        ("a..b=3", ["section.key=value"]),
        ("s.t=3", ["s is 'x'", "'t'", "Set s as a whole"]),
        ("a.l.2=3", ["a.l", "0 to 1", "'2'"]),
        ("a.l.x=3", ["a.l", "'x'"]),
        ("a.b=[1", ["Correct"]),
    ],
)
def test_an_override_that_fits_nowhere_is_refused(override: str, words: list[str]) -> None:
    tree = {"a": {"b": 1, "l": [1, 2]}, "s": "x"}
    with pytest.raises(YamlProblem) as caught:
        set_value(tree, override)
    for word in words:
        assert word in str(caught.value)
