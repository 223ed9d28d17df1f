"""Which keys may stand at a place of a study: read from the models, so that no list is kept twice.

Invariants (``tests/unit/pipeline/study/test_problems.py``):

1. The choice of a union is followed as the file makes it: by ``kind``, or by the key it uses.
2. A place that no model describes has no known keys, and is no error here.
"""

import types
import typing
from collections.abc import Iterator, Mapping

from pydantic import BaseModel

Place = tuple[str | int, ...]

MISSING = object()


def child(node: object, element: str | int) -> object:
    """What lies under a key or index; ``MISSING`` when there is none."""
    if isinstance(node, Mapping):
        return node.get(element, MISSING)
    if isinstance(node, list | tuple) and isinstance(element, int) and element < len(node):
        return node[element]
    return MISSING


def node_at(place: Place, tree: object) -> object:
    """What lies at a place of the tree; ``MISSING`` when there is nothing."""
    for element in place:
        tree = child(tree, element)
    return tree


def without(tree: object, loc: Place) -> object:
    """A copy of a tree without the key that ``loc`` leads to; tags of unions in it are passed over.

    A list is taken out whole: without one of its items it would be another value.
    """
    if not isinstance(tree, Mapping) or not loc:
        return tree
    key, inner = loc[0], loc[1:]
    if key not in tree:
        return without(tree, inner)
    if not inner or not isinstance(tree[key], Mapping):
        return {other: value for other, value in tree.items() if other != key}
    return {**tree, key: without(tree[key], inner)}


def known_keys(place: Place, tree: object, model: type[BaseModel]) -> dict[str | int, str | None]:
    """Keys that may stand at a place of a tree that is meant for ``model``, with what each is."""
    annotations: list[object] = [model]
    for depth, element in enumerate(place):
        node = node_at(place[:depth], tree)
        annotations = [inner for outer in annotations for inner in _inside(outer, element, node)]
    node = node_at(place, tree)
    return {
        field.alias or name: field.description
        for annotation in annotations
        for candidate in _models(annotation, node)
        for name, field in candidate.model_fields.items()
    }


def _inside(annotation: object, element: str | int, node: object) -> Iterator[object]:
    """Annotations of what lies under ``element`` of something annotated so."""
    for candidate in _models(annotation, node):
        if element in candidate.model_fields:
            yield candidate.model_fields[str(element)].annotation
    for choice in _choices(annotation):
        if typing.get_origin(choice) is dict:
            yield typing.get_args(choice)[1]
        elif typing.get_origin(choice) is tuple:
            yield typing.get_args(choice)[0]


def _models(annotation: object, node: object) -> Iterator[type[BaseModel]]:
    """The models among the alternatives that fit what was written."""
    for choice in _choices(annotation):
        if isinstance(choice, type) and issubclass(choice, BaseModel) and _fits(choice, node):
            yield choice


def _choices(annotation: object) -> Iterator[object]:
    """The alternatives of a union, without ``Annotated`` around them."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        yield from _choices(typing.get_args(annotation)[0])
    elif origin in (typing.Union, types.UnionType):
        for choice in typing.get_args(annotation):
            yield from _choices(choice)
    else:
        yield annotation


def _fits(model: type[BaseModel], node: object) -> bool:
    """Whether ``node`` may have chosen this alternative: by its ``kind``, or by its only key."""
    if not isinstance(node, Mapping):
        return False
    fields = model.model_fields
    if "kind" in fields:
        return "kind" not in node or node["kind"] in typing.get_args(fields["kind"].annotation)
    return len(fields) != 1 or next(iter(fields)) in node
