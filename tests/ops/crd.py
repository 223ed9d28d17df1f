"""Checks a custom resource against its CustomResourceDefinition, as an API server would.

1. An unknown field is refused; an API server would drop it silently, or refuse it as well.
2. Defaults are filled in first: a field may be both required and defaulted.
3. CEL rules are not evaluated, but a rule that applies to the resource is reported as a problem.
"""

import copy
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import yaml

Schema = dict[str, Any]
Tree = Any  # plain dicts, lists and scalars
# At the top of every resource; a CRD's own schema says nothing of what is in them.
METADATA: Schema = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string"},
        "namespace": {"type": "string"},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}


def load(path: Path) -> dict[str, Any]:
    """A CustomResourceDefinition from a YAML file compressed with xz."""
    with lzma.open(path) as file:
        crd: dict[str, Any] = yaml.load(file, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return crd


def schema_of(crd: dict[str, Any], version: str) -> Schema:
    """The OpenAPI schema of one version."""
    schemas = {one["name"]: one["schema"]["openAPIV3Schema"] for one in crd["spec"]["versions"]}
    schema: Schema = schemas[version]
    return schema


def problems(schema: Schema, resource: dict[str, Any]) -> list[str]:
    """What an API server would refuse, a line each."""
    filled = fill_defaults(schema, copy.deepcopy(resource))
    checked = strict(schema)
    checked["properties"]["metadata"] = METADATA
    errors = jsonschema.Draft4Validator(checked).iter_errors(filled)
    found = [f"{'/'.join(map(str, error.absolute_path))}: {error.message}" for error in errors]
    return found + [f"{path}: has a CEL rule: {rule}" for path, rule in rules(schema, filled)]


def strict(schema: Tree) -> Tree:
    """OpenAPI of a CRD as a JSON schema that refuses what is not listed."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {
        key: {name: strict(one) for name, one in value.items()}
        if key == "properties"
        else strict(value)
        for key, value in schema.items()
        if key not in ("x-kubernetes-validations", "default")
    }
    if made.pop("x-kubernetes-int-or-string", False):
        made.pop("type", None)
        made.setdefault("anyOf", [{"type": "integer"}, {"type": "string"}])
    if made.pop("nullable", False) and isinstance(made.get("type"), str):
        made["type"] = [made["type"], "null"]
    open_ended = made.pop("x-kubernetes-preserve-unknown-fields", False)
    if "properties" in made and "additionalProperties" not in made and not open_ended:
        made["additionalProperties"] = False
    if made.get("format") in ("int32", "int64"):
        made.pop("format")
    return made


def fill_defaults(schema: Schema, node: Tree) -> Tree:
    """``node`` with the schema's defaults where it says nothing."""
    if isinstance(node, dict):
        for name, one in schema.get("properties", {}).items():
            if name not in node and "default" in one:
                node[name] = copy.deepcopy(one["default"])
            if name in node:
                node[name] = fill_defaults(one, node[name])
    elif isinstance(node, list) and isinstance(schema.get("items"), dict):
        node = [fill_defaults(schema["items"], one) for one in node]
    return node


def rules(schema: Schema, node: Tree, path: str = "") -> Iterator[tuple[str, str]]:
    """CEL rules that would be evaluated for ``node``."""
    for rule in schema.get("x-kubernetes-validations", ()):
        yield path, rule["rule"]
    if isinstance(node, dict):
        for name, one in schema.get("properties", {}).items():
            if name in node:
                yield from rules(one, node[name], f"{path}/{name}")
    elif isinstance(node, list) and isinstance(schema.get("items"), dict):
        for index, one in enumerate(node):
            yield from rules(schema["items"], one, f"{path}/{index}")
