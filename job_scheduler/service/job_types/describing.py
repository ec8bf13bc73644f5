"""What a job type takes, as a JSON Schema made of the signature of its method."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping, Sequence
from enum import Enum
from types import NoneType, SimpleNamespace, UnionType
from typing import TYPE_CHECKING, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from job_scheduler.job import Job
from job_scheduler.registry import is_celery_task
from job_scheduler.target import Target

if TYPE_CHECKING:
    from collections.abc import Iterator

_TYPES: Final[dict[Any, str]] = {
    NoneType: "null",
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
}

_NAMED: Final = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)

_ARGUMENT: Final = re.compile(r"(\*{0,2}\w+)(?:\s*\([^)]*\))?:\s+(.+)", re.DOTALL)


def describe_job(name: str, job: Any) -> dict[str, Any]:
    """Name, description, parameters and executor of a job class or a function.

    Raises ``InvalidJobError`` or ``InvalidOptionError`` for what cannot be run.
    """
    target = Target.of_anything(job, "schedule")
    function = job if target.method is None else getattr(job, target.method)
    if is_celery_task(job):
        function = job.run
    return {
        "name": name,
        "description": _first_paragraph(_docstring(job) or inspect.getdoc(function)),
        "parameters": _schema(target, inspect.unwrap(function), _arguments_in_words(job, function)),
        "executor": target.place,
    }


def _docstring(job: Any) -> str | None:
    """What the job says of itself, but not what ``Job`` says of all."""
    if not isinstance(job, type):
        return inspect.getdoc(job)
    for base in job.__mro__:
        if base is Job:
            break
        if base.__doc__:
            return inspect.cleandoc(base.__doc__)
    return None


def _first_paragraph(docstring: str | None) -> str | None:
    paragraphs = (docstring or "").split("\n\n")
    return " ".join(paragraphs[0].split()) or None


def _schema(target: Target, function: Any, words: Mapping[str, str]) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    for parameter in target.signature.parameters.values() if target.signature else ():
        if parameter.kind in _NAMED:
            described = _schema_of(_annotation(parameter, function))
            if parameter.default is not parameter.empty:
                described |= _default(parameter.default)
            if parameter.name in words:
                described["description"] = words[parameter.name]
            properties[parameter.name] = described
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name in target.required],
        "additionalProperties": target.takes_any,
    }


def _annotation(parameter: inspect.Parameter, function: Any) -> Any:
    """What the parameter is said to be; of a name that is imported for type checkers, nothing."""
    if parameter.annotation is parameter.empty:
        return Any
    alone = SimpleNamespace(__annotations__={"it": parameter.annotation})
    try:
        return get_type_hints(alone, getattr(function, "__globals__", {}))["it"]
    except Exception:
        return Any


def _default(value: Any) -> dict[str, Any]:
    plain = value.value if isinstance(value, Enum) else value
    try:
        return {"default": json.loads(json.dumps(plain, allow_nan=False))}
    except (TypeError, ValueError):
        return {}


def _schema_of(annotation: Any) -> dict[str, Any]:
    """The schema of a type; nothing for one that JSON has not."""
    origin, arguments = get_origin(annotation) or annotation, get_args(annotation)
    if origin in (Union, UnionType):
        return _any_of([_schema_of(each) for each in arguments])
    if origin is Literal:
        return _one_of(list(arguments))
    if not isinstance(origin, type):
        return {}
    if issubclass(origin, Enum):
        return _one_of([member.value for member in origin])
    if origin in _TYPES:
        return {"type": _TYPES[origin]}
    if issubclass(origin, Mapping):
        return {"type": "object"}
    if issubclass(origin, Sequence) and not issubclass(origin, (str, bytes, bytearray)):
        items = _schema_of(arguments[0]) if arguments else {}
        return {"type": "array", "items": items} if items else {"type": "array"}
    return {}


def _any_of(schemas: list[dict[str, Any]]) -> dict[str, Any]:
    if not all(schemas):
        return {}  # one of them may be anything
    if all(schema.keys() == {"type"} for schema in schemas):
        return {"type": [schema["type"] for schema in schemas]}
    return {"anyOf": schemas}


def _one_of(values: list[Any]) -> dict[str, Any]:
    plain = (str, int, float, bool, NoneType)
    return {"enum": values} if all(isinstance(value, plain) for value in values) else {}


def _arguments_in_words(job: Any, function: Any) -> dict[str, str]:
    """What the ``Args:`` of the docstrings say, of the method's and of the class's."""
    texts = [_docstring(job) or "", inspect.getdoc(function) or ""]
    return {
        match[1].lstrip("*"): " ".join(match[2].split())
        for text in texts
        for entry in _entries_of_arguments(text)
        if (match := _ARGUMENT.fullmatch(entry))
    }


def _entries_of_arguments(docstring: str) -> Iterator[str]:
    """Each argument with the lines that go on with it."""
    _before, _, section = f"\n{docstring}\n".partition("\nArgs:\n")
    section = re.split(r"^\S", section, maxsplit=1, flags=re.MULTILINE)[0]
    lines = inspect.cleandoc("\n" + section).splitlines()
    entry: list[str] = []
    for line in lines:
        if entry and line[:1].strip():
            yield "\n".join(entry)
            entry = []
        if line.strip():
            entry.append(line)
    if entry:
        yield "\n".join(entry)
