"""YAML as people expect it: no repeated key, ``1e-3`` a number, ``no`` a text.

PyYAML follows YAML 1.1, where ``1e-3`` is a text, ``no`` is false, ``010`` is 8 and the second of
two equal keys silently wins. The plain values here are those of YAML 1.2's core schema.

Invariants (``tests/unit/pipeline/study/test_yaml_values.py``):

1. A key that stands twice in a section is an error that says where.
2. Numbers are what JSON and Python take for numbers; only ``true`` and ``false`` are booleans.
3. Nothing but plain dicts, lists, texts, numbers, booleans and None comes out.
"""

import re
from collections.abc import Hashable, Sequence
from typing import Any

import yaml

from pipeline.errors import ConfigError


class YamlProblem(ValueError):
    """A text that is no YAML, or not of the plain kind; the message says where and what to do."""


class _Loader(yaml.SafeLoader):
    """Safe, strict, with YAML 1.2's plain values."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key, line = self.construct_object(key_node, deep=True), key_node.start_mark.line + 1
            if not isinstance(key, str):
                raise YamlProblem(f"line {line}: key {key!r} is no text. Put it in quotes")
            if key in seen:
                raise YamlProblem(
                    f"line {line}: key {key!r} stands twice, first in line {seen[key]}. "
                    "Remove one of them"
                )
            seen[key] = line
        return super().construct_mapping(node, deep)


# What is read as a number here and in CSV files; Python's own float takes 0_5 for 5 as well.
NUMBER = r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"

_PLAIN = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?[0-9]+", list("-+0123456789")),
    "float": (
        rf"{NUMBER}|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+0123456789."),
    ),
    "merge": (r"<<", ["<"]),
}
# A table of its own: the parent's belongs to everybody who uses PyYAML in this process.
_Loader.yaml_implicit_resolvers = {}
for _tag, (_pattern, _first) in _PLAIN.items():
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first
    )


def _decimal(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(str(loader.construct_scalar(node)))  # and 010 is ten, not eight


_Loader.add_constructor("tag:yaml.org,2002:int", _decimal)


def parse_yaml(text: str) -> object:
    """Plain values of a YAML text.

    Raises:
        YamlProblem: With line and column.
    """
    try:
        # A SafeLoader: no tag of it builds anything but plain values.
        value: object = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "
        raise YamlProblem(
            f"{where}{error.problem or error.context}. Correct the YAML there, or just above"
        ) from None
    except yaml.YAMLError as error:
        raise YamlProblem(f"{error}. Correct the YAML") from None
    return value


def set_values(tree: dict[str, Any], overrides: Sequence[str]) -> None:
    """Apply overrides to a study in place, one after the other.

    Raises:
        ConfigError: With every one that cannot be applied.
    """
    found = []
    for override in overrides:
        try:
            set_value(tree, override)
        except YamlProblem as error:
            found.append(f"--set {override}: {error}")
    if found:
        raise ConfigError(found)


def set_value(tree: dict[str, Any], override: str) -> None:
    """Apply ``a.b=c`` to a study in place; ``c`` is read as YAML, a number in the path is an index.

    Raises:
        YamlProblem: The override cannot be applied.
    """
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise YamlProblem("not of the form section.key=value. Write e.g. trainer.batch=20")
    value = parse_yaml(text)
    node: Any = tree
    for place, key in enumerate(keys):
        last = place == len(keys) - 1
        where = ".".join(keys[:place])
        if isinstance(node, list):
            index = _index(key, node, where)
            node[index] = value if last else node[index]
            node = node[index]
        elif isinstance(node, dict):
            if last:
                node[key] = value
            elif node.get(key) is None:
                node[key] = {}
            node = node[key]
        else:
            raise YamlProblem(
                f"{where} is {node!r} and has no {key!r} in it. Set {where} as a whole"
            )


def _index(key: str, items: list[Any], where: str) -> int:
    if not key.isdecimal() or int(key) >= len(items):
        raise YamlProblem(
            f"{where} has the items 0 to {len(items) - 1}, and no {key!r}. Choose one of them"
        )
    return int(key)
