"""The entries of a file of jobs: found, named and checked, each with its line."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from job_scheduler.config.classes import check_params, import_job_class, target_of
from job_scheduler.config.document import (
    MERGE,
    Document,
    is_null,
    kind_of,
    line_of,
    mappings_in,
    read_document,
    values_of,
)
from job_scheduler.config.fields import (
    POLICIES,
    is_left_out,
    is_none,
    read_delay,
    read_frequency,
    read_text,
)
from job_scheduler.config.report import Report, nearest
from job_scheduler.durations import describe_duration
from job_scheduler.errors import InvalidCronError
from job_scheduler.instants import now
from job_scheduler.planning import policies_of
from job_scheduler.schedule import Schedule
from job_scheduler.triggers import Cron, Interval, Once, Trigger

if TYPE_CHECKING:
    from os import PathLike

    from job_scheduler.job import Job

_LONGEST_NAME: Final = 1_000

_TIMES: Final = ("initial_delay", "frequency")
_FIELDS: Final = ("name", "handler", *_TIMES, "cron", "timezone", *POLICIES)


@dataclass(frozen=True, slots=True)
class Entry:
    """One job of a file, checked: what runs, when, and by which policies."""

    name: str
    file: str
    line: int
    """The line that its handler's class stands on."""
    job_class: type[Job]
    params: dict[str, Any]
    """Keywords of the constructor."""
    initial_delay: timedelta
    frequency: timedelta | None
    """None is once."""
    cron: Cron | None
    """In place of the two times."""
    policies: dict[str, Any]
    """Those that the file names, as keywords of the scheduler."""

    @property
    def timezone(self) -> str | None:
        """The timezone that ``cron`` is read in."""
        return self.cron.timezone if self.cron else None

    def describe(self) -> str:
        """When it runs, in plain English."""
        if self.cron is not None:
            return self.cron.describe()
        delay = describe_duration(self.initial_delay)
        if self.frequency is None:
            return f"once, after {delay}" if self.initial_delay else "once, at startup"
        first = f"after {delay}" if self.initial_delay else "at startup"
        every = describe_duration(self.frequency)
        return f"every {every}, counted from the end of a run, first {first}"

    @property
    def has_ended(self) -> bool:
        """Whether nothing is left to run before its end."""
        if self.cron is not None:
            return not self.preview(1)
        end = self.policies.get("end")
        return end is not None and bool(end < now() + self.initial_delay)

    def check(self) -> None:
        """Raise the ``ValueError`` that the scheduler would, if the policies do not fit."""
        target = target_of(self.job_class)
        trigger: Trigger = self.cron or Once(now() + self.initial_delay)
        if self.frequency is not None:
            trigger = Interval(self.frequency)
        policies = policies_of(self.policies, target)
        Schedule(id=self.name, job=target.name, trigger=trigger, **policies)

    def preview(self, count: int = 3) -> list[datetime]:
        """The next instants of a cron expression, between the entry's start and end."""
        if self.cron is None:
            return []
        after = now()
        if "start" in self.policies:
            after = max(after, self.policies["start"] - datetime.resolution)
        end = self.policies.get("end", datetime.max.replace(tzinfo=UTC))
        return [instant for instant in self.cron.preview(count, after) if instant <= end]


def read_entries(path: str | PathLike[str]) -> list[Entry]:
    """Read and check a file; raises ``ConfigError`` with all that is wrong."""
    report = Report(os.fspath(path))
    document = read_document(path, report)
    jobs = _find_jobs(document, report)
    report.check()
    entries = [
        _EntryReader(document, report, name, node).read()
        for name, node in _name_entries(document, report, jobs)
    ]
    report.check()
    return [entry for entry in entries if entry is not None]


class _Section:
    """A mapping of the file: its fields, and what is wrong with them."""

    def __init__(self, document: Document, report: Report, entry: str | None = None) -> None:
        self.document = document
        self.report = report
        self.entry = entry
        self.is_good = True

    def complain(
        self, node: Node, said: str, field: str | None = None, cause: BaseException | None = None
    ) -> None:
        self.is_good = False
        self.report.add(said, line=line_of(node), entry=self.entry, field=field, cause=cause)

    def pairs(self, node: MappingNode) -> list[tuple[ScalarNode, Node]]:
        """The keys and values of a mapping; tells keys that stand there twice."""
        self.complain_of_repeated(node)
        try:
            pairs = self.document.pairs(node)
        except ValueError as error:
            self.complain(node, str(error), MERGE)
            return []
        return [(key, value) for key, value in pairs if isinstance(key, ScalarNode)]

    def complain_of_repeated(self, node: MappingNode) -> None:
        for key in self.document.take_repeated(node):
            self.complain(key, f"{key.value!r} stands there twice; remove one", key.value)

    def fields(self, node: MappingNode, what: str, known: tuple[str, ...]) -> dict[str, Node]:
        """The fields of a mapping by name; tells unknown ones with the nearest known."""
        fields = {}
        for key, value in self.pairs(node):
            if key.value in known:
                fields[key.value] = value
            else:
                said = f"{key.value[:100]!r} is no field of {what}; {nearest(key.value, known)}"
                self.complain(key, said, key.value)
        return fields


def _find_jobs(document: Document, report: Report) -> Node | None:
    """The node with the entries: under ``jobs``, with ``core_lib`` around it or without."""
    section = _Section(document, report)
    node = document.root
    if node is None or is_null(node):
        report.add("the file is empty; it needs a mapping with 'jobs'", line=1)
        return None
    what = "the file"
    for known in (("core_lib", "jobs"), ("jobs",)):
        if not isinstance(node, MappingNode):
            section.complain(node, f"{what} is {kind_of(node)}; it must be a mapping with 'jobs'")
            return None
        fields = section.fields(node, what, known)
        if "core_lib" in fields and "jobs" in fields:
            said = "'jobs' stands beside 'core_lib'; put all jobs in one place"
            section.complain(fields["jobs"], said, "jobs")
            return None
        if "jobs" in fields:
            return _check_jobs(section, fields["jobs"])
        if "core_lib" not in fields:
            break
        node, what = fields["core_lib"], "core_lib"
    section.complain(node, f"{what} has no 'jobs'", "jobs")
    return None


def _check_jobs(section: _Section, node: Node) -> Node | None:
    if not isinstance(node, (MappingNode, SequenceNode)) and not is_null(node):
        said = "jobs is a plain value; it must be a list of entries, or map names to entries"
        section.complain(node, said, "jobs")
    elif not node.value:
        section.complain(node, "jobs has no entries", "jobs")
    return node


def _name_entries(
    document: Document, report: Report, jobs: Node | None
) -> list[tuple[str, MappingNode]]:
    """Each entry with its name: the key, the field ``name``, or one made of its class."""
    given: list[tuple[str | None, Node]]
    if isinstance(jobs, MappingNode):
        section = _Section(document, report)
        given = [(key.value, node) for key, node in section.pairs(jobs)]
        for name, node in given:
            inner = _value_of(node, "name")
            if inner is not None:
                said = "the key is the job's name; remove the field 'name'"
                report.add(said, line=line_of(inner), entry=name, field="name")
    else:
        assert isinstance(jobs, SequenceNode)
        given = [(_given_name(report, node, at), node) for at, node in enumerate(jobs.value, 1)]
    taken: dict[str, Node] = {}
    for name, node in given:
        if name in taken:
            said = f"two jobs are named {name!r}, the other on line {line_of(taken[name])}"
            report.add(said, line=line_of(node), entry=name, field="name")
        elif name is not None:
            taken[name] = node
    named = []
    numbers: Counter[str] = Counter()
    for at, (name, node) in enumerate(given, 1):
        if name is None:
            name = _free_name(_class_name(node) or f"#{at}", taken, numbers)
            taken[name] = node
        if not (name.strip() and name.isprintable() and len(name) <= _LONGEST_NAME):
            said = f"{name[:50]!r} is no name of a job; it may have 1 to 1,000 printable characters"
            report.add(said, line=line_of(node), field="name")
        elif isinstance(node, MappingNode):
            named.append((name, node))
        else:
            said = f"it is {kind_of(node)}; it must be a mapping with a 'handler'"
            report.add(said, line=line_of(node), entry=name)
    return named


def _given_name(report: Report, node: Node, at: int) -> str | None:
    """The field ``name`` of an entry of a list, if it has one."""
    name_node = _value_of(node, "name")
    if name_node is None or is_none(name_node):
        return None
    try:
        return read_text("name", name_node)
    except ValueError as error:
        report.add(str(error), line=line_of(name_node), entry=f"#{at}", field="name")
        return None


def _class_name(node: Node) -> str | None:
    handler = _value_of(node, "handler")
    path = _value_of(handler, "class") if handler is not None else None
    return path.value.rpartition(".")[2] or None if isinstance(path, ScalarNode) else None


def _value_of(node: Node, name: str) -> Node | None:
    """The value of a field, if the node is a mapping that has it or merges it in."""
    if isinstance(node, SequenceNode):  # of mappings to be merged: the first one wins
        found = (_value_of(each, name) for each in node.value)
        return next((value for value in found if value is not None), None)
    if not isinstance(node, MappingNode):
        return None
    fields = {key.value: value for key, value in node.value}
    if name in fields or MERGE not in fields:
        return fields.get(name)
    return _value_of(fields[MERGE], name)


def _free_name(name: str, taken: dict[str, Node], numbers: Counter[str]) -> str:
    """The name, or the first one that is free with a number behind it."""
    free = name
    while free in taken:
        numbers[name] += 1
        free = f"{name}-{numbers[name] + 1}"
    return free


class _EntryReader(_Section):
    """Reads one entry; all that is wrong with it goes to the report."""

    def __init__(self, document: Document, report: Report, name: str, node: MappingNode) -> None:
        super().__init__(document, report, name)
        self._name = name
        self._node = node
        for mapping in mappings_in(node):  # before they are merged
            self.complain_of_repeated(mapping)
        self._fields = self.fields(node, "a job", _FIELDS)

    def read(self) -> Entry | None:
        """The entry, or None if it has problems that leave nothing to go on with."""
        job_class, params, line = self._read_handler()
        cron = self._read_cron()
        initial_delay = self._read("initial_delay", read_delay, timedelta(0))
        frequency = self._read("frequency", read_frequency, None)
        policies = {
            name: self._read(name, reader, None)
            for name, reader in POLICIES.items()
            if name in self._fields and not is_left_out(name, self._fields[name])
        }
        if job_class is None:
            return None
        entry = Entry(
            self._name,
            self.report.file,
            line,
            job_class,
            params,
            initial_delay,
            frequency,
            cron,
            policies,
        )
        if self.is_good:
            self._check_together(entry)
        return entry

    def _check_together(self, entry: Entry) -> None:
        """Look whether values that are good for themselves fit together."""
        try:
            entry.check()
        except ValueError as error:
            field = str(error).partition(" ")[0]  # these errors begin with the option's name
            self.complain(self._fields.get(field, self._node), str(error), field)

    def _read(self, name: str, reader: Any, default: Any) -> Any:
        """What a reader makes of a field; the default if it is not there, or wrong."""
        node = self._fields.get(name)
        if node is None:
            return default
        try:
            return reader(name, node)
        except ValueError as error:
            self.complain(node, str(error), name)
            return default

    def _read_cron(self) -> Cron | None:
        present = [name for name, node in self._fields.items() if not is_none(node)]
        zone_node = self._fields.get("timezone")
        if "cron" not in present:
            if zone_node is not None and "timezone" in present:
                said = "timezone belongs to cron, which is not there; other times have none"
                self.complain(zone_node, said, "timezone")
            return None
        for name in _TIMES:
            if name in present:
                said = f"{name} stands beside cron; give cron, or initial_delay and frequency"
                self.complain(self._fields[name], said, name)
        expression = self._read("cron", read_text, None)
        timezone = self._read("timezone", read_text, "UTC") if "timezone" in present else "UTC"
        if expression is None:
            return None
        try:
            return Cron(expression, timezone)
        except InvalidCronError as error:
            self.complain(self._fields["cron"], str(error), "cron")
        except ValueError as error:
            self.complain(self._fields["timezone"], str(error), "timezone")
        return None

    def _read_handler(self) -> tuple[type[Job] | None, dict[str, Any], int]:
        handler = self._fields.get("handler")
        if not isinstance(handler, MappingNode):
            node = handler or self._node
            given = f"handler is {kind_of(handler)}" if handler else "handler is missing"
            said = f"{given}; it must be a mapping with 'class' and, if it takes any, 'params'"
            if isinstance(handler, ScalarNode) and handler.value:
                said += f": did you mean {{class: {handler.value[:100]}}}?"
            self.complain(node, said, "handler")
            return None, {}, 0
        fields = self.fields(handler, "handler", ("class", "params"))
        params_node = fields.get("params")
        params = {} if params_node is None else self._read_params(params_node)
        if "class" not in fields:
            said = "handler has no 'class'; give one as in 'some_package.MyJob'"
            self.complain(handler, said, "class")
            return None, {}, 0
        class_node = fields["class"]
        try:
            job_class = import_job_class(read_text("class", class_node))
        except ValueError as error:
            self.complain(class_node, str(error), "class", error.__cause__)
            return None, {}, 0
        if params is not None:
            for said, name in check_params(job_class, params):
                self.complain(params_node or class_node, said, name)
        return job_class, params or {}, line_of(class_node)

    def _read_params(self, node: Node) -> dict[str, Any] | None:
        if is_none(node):
            return {}
        if not isinstance(node, MappingNode):
            said = f"params is {kind_of(node)}; it must map names to values"
            self.complain(node, said, "params")
            return None
        params: dict[str, Any] = {}
        for key, value in self.pairs(node):
            if key.value in params:  # as 1 and "1"
                self.complain(key, f"{key.value!r} stands there twice; remove one", key.value)
            try:
                params[key.value] = values_of(value)
            except ValueError as error:
                self.complain(value, f"param {key.value!r} cannot be read: {error}", key.value)
        return params
