"""The job type ``data_processing``: read a dataset, and keep a summary as the result.

A dataset is a file of rows, CSV with a header or JSON, in ``data/`` of the working folder, at a
path, or one that ships with the service. Files of other kinds are not read, whoever names them.
Files are read row by row (``.json`` as a whole, so only small ones), and the summary has a bounded
size however large they are.
"""

from __future__ import annotations

import codecs
import csv
import itertools
import json
import math
import os
import re
import time
from typing import TYPE_CHECKING, Any, Final

from job_scheduler.job import Job
from job_scheduler.texts import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

SUFFIXES: Final = (".csv", ".jsonl", ".ndjson", ".json")
SHIPPED: Final = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "data")

_FOLDER: Final = "data"
_DELIMITERS: Final = ",;\t|"
_LARGEST_ARRAY: Final = 100 * 1024 * 1024
"""Bytes of a file that has to be read as a whole."""

_MOST_COLUMNS: Final = 100
_MOST_DISTINCT: Final = 1_000
_MOST_GROUPS: Final = 10_000
_MOST_LISTED: Final = 20
_MOST_FREQUENT: Final = 5
_GROUPS_SHOWN: Final = 100
_LONGEST_VALUE: Final = 100
_LARGEST: Final = 1e100

_NUMBER: Final = re.compile(r"[+-]?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]{1,2})?")
"""Not those that begin with zeros, which are codes, and none too large for a float."""

_UNKEEPABLE: Final = re.compile("[\0\ud800-\udfff]")


class DataProcessing(Job):
    """Reads a dataset of rows, CSV or JSON, and returns a summary of each column.

    Args:
        dataset: a name in data/ of the working folder, such as user_events, or the path of a file
            (.csv, .jsonl, .ndjson, .json).
        group_by: a column; how many rows each of its values has is counted too.
        others: taken, and not used.
    """

    def process(
        self, *, dataset: str | None = None, group_by: str | None = None, **others: Any
    ) -> dict[str, Any]:
        path = find_dataset(dataset)
        if group_by is not None and not isinstance(group_by, str):
            raise ValueError(f"group_by is {_shown(group_by)}; it must be the name of a column")
        began = time.perf_counter()
        summary = Summary(group_by)
        read(path, summary)
        result = {"dataset": dataset, "file": path, **summary.as_json()}
        seconds = time.perf_counter() - began
        count = f"{summary.rows:,} row{'' if summary.rows == 1 else 's'}"
        columns = f"{len(summary.columns)} column{'' if len(summary.columns) == 1 else 's'}"
        print(f"{one_line(path)}: {count}, {columns}, in {seconds:.3f} s\n", end="", flush=True)
        return result


def find_dataset(dataset: object) -> str:
    """The path of the file that is meant; raises ``ValueError`` with what is wrong."""
    if dataset is None or dataset == "":
        raise ValueError("dataset is missing: give it, as in {'dataset': 'user_events'}")
    if not isinstance(dataset, str) or not dataset.isprintable():
        raise ValueError(f"dataset is {_shown(dataset)}; it must be a name in data/, or a path")
    suffix = os.path.splitext(dataset)[1].lower()
    is_path = os.path.basename(dataset) != dataset
    if suffix not in SUFFIXES and (is_path or suffix):
        raise ValueError(
            f"dataset is {_shown(dataset)}; only files that end with {', '.join(SUFFIXES)} are read"
        )
    names = [dataset] if suffix in SUFFIXES else [dataset + each for each in SUFFIXES]
    folders = ["", _FOLDER] if is_path else ["", _FOLDER, SHIPPED]
    if suffix not in SUFFIXES:
        del folders[0]  # a bare name is none of the working folder itself
    for folder in folders:
        for name in names:
            path = os.path.join(folder, name)
            if os.path.isfile(path):
                return path
    raise ValueError(_describe_missing(dataset))


def _describe_missing(dataset: str) -> str:
    here = _listed(_FOLDER)
    among = f"in {os.path.abspath(_FOLDER)} there is {here}" if here else "there is no data/ here"
    return f"there is no dataset {_shown(dataset)}: {among}; {_listed(SHIPPED)} ships with it"


def _listed(folder: str) -> str:
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return ""
    found = [one_line(name) for name in names if name.lower().endswith(SUFFIXES)]
    more = f" and {len(found) - _MOST_LISTED:,} more" if len(found) > _MOST_LISTED else ""
    return (", ".join(found[:_MOST_LISTED]) or "nothing") + more


def read(path: str, summary: Summary) -> None:
    """Add all rows of a file; raises ``ValueError`` with the line that is wrong."""
    add = {".csv": _add_csv, ".json": _add_array}.get(os.path.splitext(path)[1].lower(), _add_lines)
    try:
        add(path, summary)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    if not summary.columns:
        raise ValueError(f"{path} is empty: there must be rows in it")
    if summary.group_by is not None and not summary.has_groups:
        listed = ", ".join(list(summary.columns)[:_MOST_LISTED])
        raise ValueError(f"group_by is {_shown(summary.group_by)}; the columns are {listed}")


def _lines(path: str) -> Iterator[str]:
    """The lines of a text in UTF-8, each with its end."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            try:
                yield line.decode("utf-8")
            except UnicodeDecodeError:
                raise ValueError(f"{path}, line {number}: it must be text in UTF-8") from None


def _add_csv(path: str, summary: Summary) -> None:
    lines = _lines(path)
    first = next(lines, "")
    delimiter = max(
        _DELIMITERS, key=lambda each: len(next(csv.reader([first], delimiter=each), ()))
    )
    reader = csv.reader(itertools.chain([first], lines), delimiter=delimiter, strict=True)
    try:
        header = next(filter(None, reader), [])
        columns = [name.strip() or f"column {at}" for at, name in enumerate(header, 1)]
        summary.expect(columns)
        if len(set(columns)) < len(columns):
            twice = next(name for name in columns if columns.count(name) > 1)
            raise ValueError(f"{path}: two columns are called {_shown(twice)}")
        for row in filter(None, reader):
            if len(row) != len(columns):
                raise ValueError(
                    f"{path}, line {reader.line_num}: the row has {len(row)} fields, and the "
                    f"header has {len(columns)}"
                )
            summary.add(zip(columns, row, strict=True), number_in_text)
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}") from None


def _add_lines(path: str, summary: Summary) -> None:
    for number, line in enumerate(_lines(path), 1):
        if line.strip():
            summary.add(_parse(line, dict, f"{path}, line {number}").items(), number_in_json)


def _add_array(path: str, summary: Summary) -> None:
    if os.path.getsize(path) > _LARGEST_ARRAY:
        raise ValueError(
            f"{path} has more than {_LARGEST_ARRAY // 1024**2} MB, too much for a file that is "
            f"read as a whole: write one row on each line, in a .jsonl"
        )
    text = "".join(_lines(path))
    if not text.strip():
        return
    for at, row in enumerate(_parse(text, list, path), 1):
        if not isinstance(row, dict):
            raise ValueError(f"{path}: row {at} is {_shown(row)}; it must be an object")
        summary.add(row.items(), number_in_json)


def _parse(text: str, kind: type, place: str) -> Any:
    try:
        value = json.loads(text, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        line = f", line {error.lineno}" if kind is list else ""
        raise ValueError(f"{place}{line}: {error.msg}, at character {error.colno}") from None
    except (ValueError, RecursionError) as error:  # a number of too many digits, say
        raise ValueError(f"{place}: {error}") from None
    if not isinstance(value, kind):
        needed = "an object, as in {...}" if kind is dict else "a list of rows, as in [{...}]"
        raise ValueError(f"{place}: it must be {needed}, not {_shown(value)}")
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number that JSON has")


def number_in_text(value: Any) -> float | None:
    """The number that a field of a CSV is; None if it is a text."""
    text = value.strip()
    if len(text) > _LONGEST_VALUE or not _NUMBER.fullmatch(text):
        return None
    return int(text) if text.lstrip("+-").isdigit() else float(text)


def number_in_json(value: Any) -> float | None:
    """The value, if it is a number that has a mean."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if is_number and -_LARGEST < value < _LARGEST else None


class Column:
    """What is known of the values of one column so far."""

    def __init__(self) -> None:
        self.present = 0
        self.is_numeric = True
        self.least: float = math.inf
        self.most: float = -math.inf
        self.mean = 0.0
        self.counts: dict[str, int] = {}
        """Of the first distinct values, how often each was there."""
        self.has_more = False

    def add(self, value: Any, number: float | None) -> None:
        """Count a value; ``number`` is None if it is none."""
        self.present += 1
        if number is None:
            self.is_numeric = False
        elif self.is_numeric:
            self.least = min(self.least, number)
            self.most = max(self.most, number)
            self.mean += (number - self.mean) / self.present
        self.has_more |= not count(self.counts, text_of(value), _MOST_DISTINCT)

    def as_json(self, rows: int) -> dict[str, Any]:
        """``distinct`` is the least that there are if ``more_distinct`` says so."""
        known: dict[str, Any] = {
            "missing": rows - self.present,
            "distinct": len(self.counts),
            "more_distinct": self.has_more,
        }
        if self.is_numeric and self.present:
            return known | {"min": self.least, "max": self.most, "mean": self.mean}
        return known | {
            "most_frequent": [
                {"value": value, "count": number}
                for value, number in most_frequent(self.counts, _MOST_FREQUENT)
            ]
        }


class Summary:
    """What is known of the rows so far.

    Args:
        group_by: the column whose values are counted apart.
    """

    def __init__(self, group_by: str | None = None) -> None:
        self.rows = 0
        self.columns: dict[str, Column] = {}
        self.has_more_columns = False
        self.group_by = group_by
        self.has_groups = False
        self.groups: dict[str, int] = {}

    def expect(self, names: Iterable[str]) -> None:
        """Know columns, also if there are no rows."""
        for name in names:
            self._column(name)

    def _column(self, name: str) -> Column | None:
        self.has_groups |= name == self.group_by
        column = self.columns.get(name)
        if column is None and len(self.columns) < _MOST_COLUMNS:
            column = self.columns[name] = Column()
        self.has_more_columns |= column is None
        return column

    def add(self, row: Iterable[tuple[str, Any]], number_in: Callable[[Any], float | None]) -> None:
        """Count a row; ``number_in`` tells which number a value is."""
        self.rows += 1
        group = None
        for name, value in row:
            column = self._column(name)
            is_missing = value is None or (isinstance(value, str) and not value.strip())
            if name == self.group_by and not is_missing:
                group = value
            if column is not None and not is_missing:
                column.add(value, number_in(value))
        if self.group_by is not None:
            count(self.groups, "" if group is None else text_of(group), _MOST_GROUPS)

    def as_json(self) -> dict[str, Any]:
        """The summary; what is missing in a row is the group ``""``."""
        summary: dict[str, Any] = {
            "rows": self.rows,
            "columns": {
                text_of(name): column.as_json(self.rows) for name, column in self.columns.items()
            },
            "more_columns": self.has_more_columns,
        }
        if self.group_by is not None:
            shown = dict(most_frequent(self.groups, _GROUPS_SHOWN))
            summary["group_by"] = self.group_by
            summary["groups"] = shown
            summary["rows_of_other_groups"] = self.rows - sum(shown.values())
        return summary


def count(counts: dict[str, int], key: str, most: int) -> bool:
    """Count what is known, or new while there is room; tells whether it was counted."""
    if key not in counts and len(counts) >= most:
        return False
    counts[key] = counts.get(key, 0) + 1
    return True


def most_frequent(counts: dict[str, int], most: int) -> list[tuple[str, int]]:
    """The first in the order of how often, and then of the text."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:most]


def text_of(value: Any) -> str:
    """A value as a text that a store can keep; long ones that begin alike count as one."""
    text = value.strip() if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if len(text) > _LONGEST_VALUE:
        text = text[: _LONGEST_VALUE - 3] + "..."
    return _UNKEEPABLE.sub("\ufffd", text)


def _shown(value: object) -> str:
    return one_line(repr(value), _LONGEST_VALUE)
