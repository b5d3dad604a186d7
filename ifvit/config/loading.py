"""From a recipe file and command-line overrides to a validated Recipe."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from ifvit.config.data_section import IMAGE_SOURCES
from ifvit.config.errors import UserError
from ifvit.config.problems import recipe_problems
from ifvit.config.schema import Recipe

REQUIRED = "???"  # stands in a recipe for a value that the command line must give


class RecipeLoader(yaml.SafeLoader):
    """YAML's safe subset, in which a key that stands twice in one mapping is an error instead of a silent choice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key}' stands twice in one section", key_node.start_mark
                )
            seen.add(key if isinstance(key, str) else id(key_node))
        return super().construct_mapping(node, deep)


def load_recipe(path: str | Path, overrides: Sequence[str] = (), unused: tuple[str, ...] = ()) -> Recipe:
    """The recipe in `path` (with what it `extends`), changed by `overrides` of the form "a.b=c", checked.

    Fields that begin with one of `unused` may stay as they are where the recipe leaves them to the command line.
    Raises UserError with one line per problem.
    """
    return validate_recipe(merged(read_with_parent(Path(path)), parse_overrides(overrides)), str(path), unused)


def validate_recipe(values: Mapping[str, Any], source: str, unused: tuple[str, ...] = ()) -> Recipe:
    """`values` as a Recipe; `source` is named where the command line must still give a value, but for `unused`."""
    values = with_one_source(values)
    required = [dotted for dotted, value in leaves(values) if value == REQUIRED and not dotted.startswith(unused)]
    if required:
        raise UserError(
            *(f"{dotted}: {source} leaves it to you, give it with --set {dotted}=..." for dotted in required)
        )
    try:
        # Through JSON, where strict mode still takes a list for a tuple.
        return Recipe.model_validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        raise UserError(*recipe_problems(error, Recipe)) from error


def with_one_source(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """`values` where images come from a source that is given: without those that the recipe leaves to the user."""
    data = values.get("data")
    if not isinstance(data, Mapping) or all(data.get(name) in (None, REQUIRED) for name in IMAGE_SOURCES):
        return values
    used = {name: value for name, value in data.items() if name not in IMAGE_SOURCES or value != REQUIRED}
    return {**values, "data": used}


def resolved_yaml(recipe: Recipe) -> str:
    """Every field with its value, as YAML that `load_recipe` reads back to the same recipe."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def read_with_parent(path: Path) -> dict[str, Any]:
    values = read_yaml(path)
    if "extends" not in values:
        return values
    parent = path.parent / str(values.pop("extends"))
    parent_values = read_yaml(parent)
    if "extends" in parent_values:
        raise UserError(f"{parent}: extends another recipe itself; only one level is allowed, extend that one directly")
    return merged(parent_values, values)


def read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), RecipeLoader)
    except FileNotFoundError:
        raise UserError(f"{path}: no such recipe") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{path}: not a valid recipe: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: must be a mapping of sections (name, data, model, ...)")
    return values


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """`["a.b=c", ...]` as nested sections; values are read as YAML. Of two for one field, the later stands."""
    tree: dict[str, Any] = {}
    for override in overrides:
        dotted, equals, text = override.partition("=")
        keys = dotted.strip().split(".")
        if not equals or not all(keys):
            raise UserError(f"--set {override}: must have the form section.field=value")
        try:
            value = yaml.load(text, RecipeLoader)
        except yaml.YAMLError as error:
            raise UserError(f"--set {override}: not a valid value: {' '.join(str(error).split())}") from error
        branch: dict[str, Any] = {}
        nested = branch
        for key in keys[:-1]:
            nested[key] = nested = {}
        nested[keys[-1]] = value
        tree = merged(tree, branch)
    return tree


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the fields of `over`. A section whose `schedule` changes is replaced: its fields were another's."""
    if "schedule" in base and over.get("schedule", base["schedule"]) != base["schedule"]:
        return dict(over)
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        result[key] = merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return result


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted path, value) of every field below `values`; lists count as values."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
