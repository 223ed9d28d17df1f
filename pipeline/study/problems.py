"""Turns what is wrong with a study into lines a person can act on: path, value, limit, remedy.

Invariants (``tests/unit/pipeline/study/test_problems.py``):

1. Every line starts with the path as it is written in the file, and with the value found there.
2. An unknown key names the nearest known one, and all that are known at that place.
3. A line is bounded in length, whatever the file holds.
"""

import difflib
import json
from collections.abc import Sequence

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pipeline.study.distributions import KEYS, SYNTAX
from pipeline.study.known_keys import MISSING, Place, child, known_keys, node_at

MAX_VALUE_CHARACTERS = 60


def from_validation(error: ValidationError, tree: object, model: type[BaseModel]) -> list[str]:
    """One line per error of a failed validation.

    Args:
        error: What pydantic found.
        tree: What was validated, as plain dicts and lists.
        model: What it was validated against.
    """
    lines = [_line(details, tree, model) for details in error.errors(include_url=False)]
    return list(dict.fromkeys(lines))


def problem(path: str, value: object, text: str) -> str:
    """``path=value: text``, with a long value cut."""
    return f"{path}={shown(value)}: {text}"


def counted(number: int, noun: str, several: str | None = None) -> str:
    """``1 rank``, ``2,000 ranks``; ``several`` where that is more than an s."""
    return f"{number:,} {noun if number == 1 else several or noun + 's'}"


def shown(value: object) -> str:
    """A value as YAML's flow style has it, cut to ``MAX_VALUE_CHARACTERS``."""
    text = json.dumps(value, ensure_ascii=False, default=_plain)
    if len(text) <= MAX_VALUE_CHARACTERS:
        return text
    return text[: MAX_VALUE_CHARACTERS - 4] + " ..."


def _plain(value: object) -> object:
    return value.model_dump() if isinstance(value, BaseModel) else str(value)


def written(path: Place) -> str:
    """``("a", "b", 0)`` -> ``a.b[0]``."""
    text = ""
    for element in path:
        if isinstance(element, int):
            text += f"[{element}]"
        else:
            text += f".{element}" if text else element
    return text


def nearest(name: str, known: Sequence[str]) -> str:
    """``Did you mean 'x'? `` or nothing."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {close[0]!r}? " if close else ""


def _line(details: ErrorDetails, tree: object, model: type[BaseModel]) -> str:
    path = _path_in_file(details, tree)
    kind = details["type"]
    if kind == "missing":
        return _missing(path, tree, model)
    if kind == "extra_forbidden":
        known = sorted(map(str, known_keys(path[:-1], tree, model)))
        where = written(path[:-1]) or "the study"
        return problem(
            written(path),
            details["input"],
            f"unknown key. {nearest(str(path[-1]), known)}"
            f"Known keys of {where}: {', '.join(known)}. Rename or remove it",
        )
    if kind == "union_tag_invalid" and isinstance(details.get("ctx", {}).get("tag"), str):
        path = (*path, str(details["ctx"]["discriminator"]).strip("'"))
    value = node_at(path, tree)
    return problem(written(path), details["input"] if value is MISSING else value, _limit(details))


def _path_in_file(details: ErrorDetails, tree: object) -> Place:
    """``loc`` without what pydantic puts in between: the tag of the union's choice."""
    path: list[str | int] = []
    node = tree
    for index, element in enumerate(details["loc"]):
        inner = child(node, element)
        absent = index == len(details["loc"]) - 1 and details["type"] == "missing"
        if inner is not MISSING:
            node = inner
        elif not absent:
            continue
        path.append(element)
    return tuple(path)


def _missing(path: Place, tree: object, model: type[BaseModel]) -> str:
    if isinstance(path[-1], int):
        node = node_at(path[:-1], tree)
        return problem(
            written(path[:-1]), node, f"too short, item {path[-1] + 1} is missing. Add it"
        )
    what = known_keys(path[:-1], tree, model).get(path[-1])
    return (
        f"{written(path)}=nothing: required, but missing. "
        f"Add '{path[-1]}: ...'{f' ({what})' if what else ''}"
    )


def _limit(details: ErrorDetails) -> str:
    """What is allowed instead, and what to do."""
    kind, context, value = details["type"], details.get("ctx", {}), details["input"]
    if kind in _COMPARISONS:
        words, key, direction = _COMPARISONS[kind]
        limit = context[key]
        return f"must be {words} {limit:g}. {direction} it"
    if kind in _TYPES:
        return f"wrong type, must be {_TYPES[kind]}. {_type_hint(kind, value)}"
    if kind == "literal_error":
        options = str(context["expected"])
        return f"must be {options}. {nearest(str(value), _quoted(options))}Choose one of them"
    if kind in ("union_tag_not_found", "union_tag_invalid"):
        return _union(details)
    if kind == "too_long":
        limit, actual = context["max_length"], context["actual_length"]
        return f"must have at most {counted(limit, 'item')}, not {actual}. Remove {actual - limit}"
    if kind == "too_short":
        limit, actual = context["min_length"], context["actual_length"]
        return f"must have at least {counted(limit, 'item')}, not {actual}. Add {limit - actual}"
    if kind == "string_pattern_mismatch":
        return f"must match {context['pattern']}. Use only letters, digits, '.', '_' and '-'"
    if kind in ("string_too_long", "string_too_short"):
        limit = context.get("max_length", context.get("min_length", 0))
        return f"the limit is {counted(limit, 'character')}. Give it another length"
    if kind == "value_error":
        return str(context["error"])
    return f"{details['msg']}. Correct it"


_COMPARISONS = {
    "greater_than_equal": ("at least", "ge", "Raise"),
    "greater_than": ("above", "gt", "Raise"),
    "less_than_equal": ("at most", "le", "Lower"),
    "less_than": ("below", "lt", "Lower"),
}
_TYPES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "string_type": "a text",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a section with keys of its own",
    "model_type": "a section with keys of its own",
    "model_attributes_type": "a section with keys of its own",
    "path_type": "a path",
}


def _type_hint(kind: str, value: object) -> str:
    if kind.startswith("int") and isinstance(value, float) and value.is_integer():
        return f"Write {int(value)}"
    if isinstance(value, str) and kind.startswith(("int", "float", "finite", "bool")):
        return "Write it without quotes or unit"
    if kind == "string_type":
        return "Put it in quotes"
    if kind in ("tuple_type", "list_type"):
        return "Write [a, b, ...]"
    if kind in ("dict_type", "model_type", "model_attributes_type"):
        return "Write {key: value, ...}"
    return "Correct it"


def _union(details: ErrorDetails) -> str:
    value, context = details["input"], details.get("ctx", {})
    tags = _quoted(str(context.get("expected_tags", "")))
    if details["loc"][0] == "parameters":
        name = next(iter(value), "") if isinstance(value, dict) else ""
        return f"not a distribution. {nearest(str(name), KEYS)}Write {SYNTAX}"
    key = str(context["discriminator"]).strip("'")
    if "tag" not in context:
        return f"{key!r} is missing. Add '{key}: ...'"
    return f"unknown {key}. {nearest(context['tag'], tags)}Choose one of {', '.join(tags)}"


def _quoted(text: str) -> list[str]:
    """``"'a', 'b' or 'c'"`` -> ``["a", "b", "c"]``."""
    return text.split("'")[1::2]
