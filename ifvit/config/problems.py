"""Validation errors of a recipe as lines: the dotted path, what is wrong, and the fix."""

import re
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ifvit.config.fusion import FusionSchedule

TAGS = {
    cls.model_fields["schedule"].default: cls for cls in get_args(get_args(FusionSchedule)[0])
}  # the discriminator's tag, which pydantic puts into error paths


WORDS = {
    "must be an object": "must be a section",
    "must be a string": "must be text (write it in quotes)",
    "must be a integer": "must be an integer",
    "must be a array": "must be a list",
    "must be a tuple": "must be a list",
    "must be a boolean": "must be true or false",
}  # pydantic speaks of JSON, a recipe is YAML


def recipe_problems(error: ValidationError, schema: type[BaseModel]) -> list[str]:
    """One line per problem of `error`, in the order of the schema."""
    problems = error.errors(include_url=False)
    # A list whose items are wrong is also called too short, as if they were not there.
    lists_with_wrong_items = {
        details["loc"][:-1] for details in problems if details["loc"] and isinstance(details["loc"][-1], int)
    }
    return [
        problem_line(details, schema)
        for details in problems
        if details["type"] != "too_short" or details["loc"] not in lists_with_wrong_items
    ]


def problem_line(details: ErrorDetails, schema: type[BaseModel]) -> str:
    path = list(details["loc"])
    # Only right behind `fusion` is it the tag; a field may have the same name.
    tag = path.pop(path.index("fusion") + 1) if "fusion" in path[:-1] else None
    context = details.get("ctx", {})
    if details["type"] == "field":
        path += context["field"].split(".")
    elif details["type"].startswith("union_tag"):
        path.append("schedule")
    elif details["type"] == "missing" and isinstance(path[-1], int):
        path.pop()
        return f"{dotted(path)}: is {describe(details['input'])}, must have more values"
    return f"{dotted(path)}: {explain(details, path, tag, context, schema)}"


def dotted(path: list[Any]) -> str:
    """["optimizer", "adam_betas", 1] as "optimizer.adam_betas[1]"."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


def explain(details: ErrorDetails, path: list[Any], tag: Any, context: dict[str, Any], schema: type[BaseModel]) -> str:
    kind, value = details["type"], details["input"]
    if kind == "field":
        return str(context["problem"])
    if kind == "missing":
        return f"is missing: write it in the recipe or give it with --set {dotted(path)}=..."
    if kind == "extra_forbidden":
        return "unknown field" + suggestion(path, tag, schema)
    if kind == "union_tag_invalid":
        return f"is {describe(context['tag'])}, must be one of {', '.join(sorted(TAGS))}"
    if kind == "union_tag_not_found":
        return f"is missing, must be one of {', '.join(sorted(TAGS))}"
    if kind == "string_pattern_mismatch":
        return (
            f"is {describe(value)}, must be 1 to 100 letters, digits, '.', '_' or '-', and begin with a letter or digit"
        )
    if kind in ("too_short", "too_long"):
        limit = f"at least {context['min_length']}" if kind == "too_short" else f"at most {context['max_length']}"
        return f"is {describe(value)}, must have {limit} value(s)"
    if kind.endswith("_type") and isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value):
        return f"is the text '{value}'; YAML reads {value} as text, write {yaml_number(value, kind == 'int_type')}"
    message = details["msg"].replace("Input should be", "must be").replace("a valid ", "a ")
    for theirs, ours in WORDS.items():
        message = message.replace(theirs, ours)
    return f"is {describe(value)}, {message[0].lower()}{message[1:]}"


def yaml_number(text: str, as_integer: bool) -> str:
    """1e-4 as YAML wants it, 1.0e-4; for a whole number in a field of integers 1e6 as 1000000."""
    if as_integer and float(text).is_integer():
        return str(int(float(text)))
    mantissa, exponent = re.split("[eE]", text)
    mantissa = mantissa if "." in mantissa else mantissa + ".0"
    return f"{mantissa}e{exponent if exponent[0] in '+-' else '+' + exponent}"


def describe(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "empty"
    if isinstance(value, str):
        return f"the text '{value}'"
    if isinstance(value, dict):
        return "a section"
    return f"the list {value}" if isinstance(value, list) else str(value)


def suggestion(path: list[Any], tag: Any, schema: type[BaseModel]) -> str:
    """Where the unknown last part of `path` may belong: a near name beside it, else the same name in any section."""
    *parents, unknown = [str(part) for part in path]
    siblings = fields_of(schema, parents, tag)
    begun = [name for name in siblings if name.startswith(unknown)]
    if near := get_close_matches(unknown, siblings, n=1, cutoff=0.6) or begun:
        return f", did you mean {near[0]}?"
    everywhere = dict(nested_fields(schema))
    if near := get_close_matches(unknown, everywhere, n=1, cutoff=0.8):
        return f", did you mean {everywhere[near[0]]}?"
    if tag is not None:
        return f" (with schedule: {tag})"
    return f"; known here: {', '.join(siblings)}" if siblings else ""


def fields_of(schema: type[BaseModel], parents: list[str], tag: Any) -> list[str]:
    annotation: Any = schema
    for parent in parents:
        if get_origin(annotation) is dict:  # sections by a name of the user's
            annotation = get_args(annotation)[1]
        else:
            annotation = TAGS[tag] if parent == "fusion" else annotation.model_fields[parent].annotation
    return list(annotation.model_fields)


def nested_fields(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    """(name, dotted path) of every field of the sections below `section`, at any depth."""
    for name, info in section.model_fields.items():
        below = info.annotation
        if isinstance(below, type) and issubclass(below, BaseModel):
            path = f"{prefix}{name}."
            yield from ((field, path + field) for field in below.model_fields)
            yield from nested_fields(below, path)
