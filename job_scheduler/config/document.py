"""A YAML file as nodes that know their lines, within limits: nothing is made of them yet."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import yaml
from yaml.constructor import SafeConstructor
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

if TYPE_CHECKING:
    from os import PathLike

    from job_scheduler.config.report import Report

LARGEST: Final = 1_000_000
"""Bytes that a file may have."""

DEEPEST: Final = 50
"""Levels of nesting, where each alias counts as what it stands for."""

MOST_NODES: Final = 100_000
"""Keys, values and collections, where each alias counts as what it stands for."""

NUMBER_TAGS: Final = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")

_LONGEST_NUMBER: Final = 1_000
"""Characters; PyYAML takes the square of the time for those with colons."""

MERGE: Final = "<<"
"""The key of what is merged into a mapping."""

_PLAIN_TAGS: Final = frozenset(tag for tag in SafeConstructor.yaml_constructors if tag) | {
    "tag:yaml.org,2002:merge"
}

_UNQUOTED_CRON: Final = re.compile(r"[\s{,-]*cron:\s*[*@]")


class Document:
    """The nodes of a file, and the keys that stand in it more than once."""

    def __init__(self, root: Node | None, repeated: dict[int, list[ScalarNode]]) -> None:
        self.root = root
        self._repeated = repeated
        self._constructor = SafeConstructor()

    def take_repeated(self, node: MappingNode) -> list[ScalarNode]:
        """The keys that a mapping has a second time; told once."""
        return self._repeated.pop(id(node), [])

    def pairs(self, node: MappingNode) -> list[tuple[Node, Node]]:
        """The keys and values of a mapping, with those it merges in (``<<``) first.

        Raises ``ValueError`` if it merges in what is no mapping.
        """
        try:
            self._constructor.flatten_mapping(node)
        except yaml.MarkedYAMLError as error:
            raise ValueError(str(error.problem)) from error
        pairs: list[tuple[Node, Node]] = node.value
        return pairs


def read_document(path: str | PathLike[str], report: Report) -> Document:
    """Read a file; raises ``ConfigError`` if it is not plain YAML, or beyond the limits."""
    with open(path, "rb") as file:
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        report.add(f"the file has more than {LARGEST:,} bytes, which is the most")
        report.check()
    text = _decode(data, report)
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
    except yaml.reader.ReaderError as error:
        report.add(
            f"the character #x{ord(text[error.position]):04x} is not allowed in YAML",
            line=text.count("\n", 0, error.position) + 1,
        )
    except yaml.MarkedYAMLError as error:
        _add_yaml_error(error, text, report)
    report.check()
    return Document(root, loader.repeated)


def _decode(data: bytes, report: Report) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        report.add("the file is not text in UTF-8", line=line)
        report.check()
        raise


def _add_yaml_error(error: yaml.MarkedYAMLError, text: str, report: Report) -> None:
    mark = error.problem_mark or error.context_mark
    said = ": ".join(part for part in (error.context, error.problem) if part)
    if mark is None:
        report.add(said)
        return
    if not isinstance(error, _LimitError):
        said = f"this is not YAML: {said}"
    lines = text.splitlines()
    if mark.line < len(lines) and _UNQUOTED_CRON.match(lines[mark.line]):
        said += "; put the cron expression in quotes, as in cron: '*/5 * * * *'"
    report.add(said, line=mark.line + 1)


class _LimitError(yaml.MarkedYAMLError):
    """YAML, but more or other than such a file may have."""


class _Loader(yaml.SafeLoader):
    """Composes nodes, counts what they would be with all aliases written out, and stops early."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.repeated: dict[int, list[ScalarNode]] = {}
        self._depth = 0
        self._count = 0
        self._extents: dict[int, tuple[int, int]] = {}
        """Of the finished collections, by id: nodes and levels."""

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        mark = event.start_mark
        self._count += 1
        self._depth += 1
        self._check_extent(self._count, self._depth, mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if node is None:
            return None
        if isinstance(event, yaml.AliasEvent):
            if id(node) not in self._extents and not isinstance(node, ScalarNode):
                raise _LimitError(None, None, f"the alias *{event.anchor} contains itself", mark)
            return node
        if node.tag not in _PLAIN_TAGS:
            raise _LimitError(None, None, f"the tag {_short(node.tag)} is not plain YAML", mark)
        if isinstance(node, MappingNode):
            self._note_repeated(node)
        if node.tag in NUMBER_TAGS and len(node.value) > _LONGEST_NUMBER:
            said = f"a number of more than {_LONGEST_NUMBER:,} characters; put a text in quotes"
            raise _LimitError(None, None, said, mark)
        if not isinstance(node, ScalarNode):
            self._extents[id(node)] = self._extent_of(node)
            self._check_extent(*self._extents[id(node)], mark)
        return node

    def _extent_of(self, node: Node) -> tuple[int, int]:
        children = (
            [child for pair in node.value for child in pair]
            if isinstance(node, MappingNode)
            else node.value
        )
        extents = [self._extents.get(id(child), (1, 1)) for child in children]
        return (
            1 + sum(count for count, _ in extents),
            1 + max((depth for _, depth in extents), default=0),
        )

    def _check_extent(self, count: int, depth: int, mark: yaml.Mark) -> None:
        if count > MOST_NODES:
            said = f"with its aliases written out, this has more than {MOST_NODES:,} values"
        elif depth > DEEPEST:
            said = f"this is nested more than {DEEPEST} levels deep"
        else:
            return
        raise _LimitError(None, None, said, mark)

    def _note_repeated(self, node: MappingNode) -> None:
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if not isinstance(key, ScalarNode):
                said = "a key must be a plain value, not a list or a mapping"
                raise _LimitError(None, None, said, key.start_mark)
            if (key.tag, key.value) in seen:
                self.repeated.setdefault(id(node), []).append(key)
            seen.add((key.tag, key.value))


def _short(tag: str) -> str:
    return repr(tag.replace("tag:yaml.org,2002:", "!!")[:100])


def values_of(node: Node) -> Any:
    """What a node stands for, in the types of YAML; each call makes new objects.

    Raises ``ValueError`` for what only looks like a value, as ``2026-02-31``.
    """
    try:
        return SafeConstructor().construct_object(node, deep=True)
    except yaml.MarkedYAMLError as error:
        raise ValueError(str(error.problem)) from error
    # What PyYAML lets through for a scalar that does not fit its tag.
    except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
        raise ValueError(f"it does not fit its tag {_short(node.tag)}") from error


def mappings_in(node: Node) -> list[MappingNode]:
    """All mappings within a node, each once."""
    found: dict[int, Node] = {}
    left = [node]
    while left:
        each = left.pop()
        if id(each) in found:
            continue
        found[id(each)] = each
        if isinstance(each, MappingNode):
            left += [child for pair in each.value for child in pair]
        elif isinstance(each, SequenceNode):
            left += each.value
    return [each for each in found.values() if isinstance(each, MappingNode)]


def line_of(node: Node) -> int:
    """The line that a node begins on, from 1."""
    line: int = node.start_mark.line
    return line + 1


def kind_of(node: Node) -> str:
    """What a node is, for an error."""
    if isinstance(node, MappingNode):
        return "a mapping"
    if isinstance(node, SequenceNode):
        return "a list"
    return "empty" if is_null(node) else "a plain value"


def is_null(node: Node) -> bool:
    """Whether YAML takes a node for nothing: empty, ``~``, ``null``."""
    return isinstance(node, ScalarNode) and node.tag == "tag:yaml.org,2002:null"
