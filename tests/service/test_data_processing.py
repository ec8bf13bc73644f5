"""The job type ``data_processing``: what it reads, what it says of it, what it refuses."""

from __future__ import annotations

import json
import os

import pytest

from job_scheduler import JobScheduler
from job_scheduler.service.job_types import built_in
from job_scheduler.service.job_types.data_processing import DataProcessing
from job_scheduler.stores.payload import encode_result

SALES = "city,amount\nBonn,1\nKöln,2.5\nBonn,\n"


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()


def process(dataset=None, **parameters):
    result = DataProcessing().process(dataset=dataset, **parameters)
    assert json.loads(encode_result(result)) == result
    return result


def write(name, content):
    mode = "wb" if isinstance(content, bytes) else "w"
    with open(name, mode, **({} if mode == "wb" else {"encoding": "utf-8"})) as file:
        file.write(content)


def columns_of(content, name="data/it.csv"):
    write(name, content)
    return process(name)["columns"]


def test_a_summary(capsys):
    write("data/sales.csv", SALES)
    assert process("sales", other=1) == {
        "dataset": "sales",
        "file": "data/sales.csv",
        "rows": 3,
        "columns": {
            "city": {
                "missing": 0,
                "distinct": 2,
                "more_distinct": False,
                "most_frequent": [{"value": "Bonn", "count": 2}, {"value": "Köln", "count": 1}],
            },
            "amount": {
                "missing": 1,
                "distinct": 2,
                "more_distinct": False,
                "min": 1,
                "max": 2.5,
                "mean": 1.75,
            },
        },
        "more_columns": False,
    }
    assert capsys.readouterr().out.startswith("data/sales.csv: 3 rows, 2 columns, in 0.")


def test_the_dataset_that_ships():
    result = process("user_events", group_by="event")
    assert result["rows"] == 200
    assert list(result["columns"]) == ["user", "event", "time", "country", "device", "amount"]
    assert result["columns"]["amount"]["mean"] > 0
    assert sum(result["groups"].values()) == 200
    assert process("user_events.csv")["rows"] == 200


def test_a_dataset_here_comes_before_one_that_ships(tmp_path):
    write("data/user_events.jsonl", '{"a": 1}\n')
    assert process("user_events")["rows"] == 1
    assert process(str(tmp_path / "data" / "user_events.jsonl"))["rows"] == 1
    write("sales.csv", SALES)
    assert process("sales.csv")["file"] == "sales.csv"


def test_json_lines_and_arrays_are_the_same():
    rows = [
        {"city": "Bonn", "amount": 1, "open": True},
        {"city": "7", "amount": 2.5, "tags": ["x", {"y": None}]},
        {"city": None, "amount": 10**400},
    ]
    lines = "\n\n".join(map(json.dumps, rows))
    write("data/a.jsonl", lines)
    write("data/b.NDJSON", "\ufeff" + lines + "\r\n")
    write("data/c.json", json.dumps(rows, indent=2))
    first = process("a")["columns"]
    assert first["city"]["most_frequent"] == [
        {"value": "7", "count": 1}, {"value": "Bonn", "count": 1}
    ]  # fmt: skip
    assert first["city"]["missing"] == 1
    assert first["open"]["most_frequent"] == [{"value": "true", "count": 1}]
    assert first["tags"]["most_frequent"] == [{"value": '["x", {"y": null}]', "count": 1}]
    assert "mean" not in first["amount"]
    assert process("data/b.NDJSON")["columns"] == first
    assert process("c")["columns"] == first


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters_quotes_and_the_mark_of_windows(delimiter):
    text = f'\ufeffname{delimiter}text\r\nAda{delimiter}"a{delimiter}b\r\nc ""d"""\r\n\r\n'
    columns = columns_of(text)
    assert list(columns) == ["name", "text"]
    value = columns["text"]["most_frequent"][0]["value"]
    assert value == f'a{delimiter}b\r\nc "d"'


@pytest.mark.parametrize(
    ("values", "numbers"),
    [
        (["1", " -2.5 ", "+3e2"], (-2.5, 300.0)),
        (["1", "007"], None),
        (["1", "nan"], None),
        (["inf"], None),
        (["1_000"], None),
        (["1e999"], None),
        (["9" * 5_000], None),
        (["9" * 99, "-1"], (-1, int("9" * 99))),
        (["٣"], None),
    ],
)
def test_which_texts_are_numbers(values, numbers):
    column = columns_of("a,b\n" + "".join(f"{value},x\n" for value in values))["a"]
    assert (column.get("min"), column.get("max")) == (numbers or (None, None))


def test_a_header_alone_is_a_dataset_without_rows():
    columns = columns_of("a,,a b\n")
    assert list(columns) == ["a", "column 2", "a b"]
    assert columns["a"] == {
        "missing": 0,
        "distinct": 0,
        "more_distinct": False,
        "most_frequent": [],
    }


def test_the_size_of_the_summary_is_bounded():
    with open("data/large.csv", "w") as file:
        file.write(",".join(f"c{n}" for n in range(150)) + "\n")
        for row in range(3_000):
            file.write(",".join(f"{row}-{'x' * 200}" for _ in range(150)) + "\n")
    result = process("large", group_by="c149")
    assert len(result["columns"]) == 100
    assert result["more_columns"] is True
    column = result["columns"]["c0"]
    assert (column["distinct"], column["more_distinct"]) == (1_000, True)
    assert len(result["groups"]) == 100
    assert result["rows_of_other_groups"] == 2_900
    assert len(json.dumps(result)) < 200_000


def test_groups():
    write("data/sales.csv", SALES)
    result = process("sales", group_by="city")
    assert (result["group_by"], result["groups"]) == ("city", {"Bonn": 2, "Köln": 1})
    write("data/rows.jsonl", '{"a": 1}\n{"a": 1, "b": "x"}\n')
    assert process("rows", group_by="b")["groups"] == {"": 1, "x": 1}
    for name in ("sales", "rows"):
        with pytest.raises(ValueError, match="group_by is 'colour'; the columns are "):
            process(name, group_by="colour")
    with pytest.raises(ValueError, match="group_by is 7; it must be the name of a column"):
        process("sales", group_by=7)


def test_what_a_store_cannot_keep_is_replaced():
    write("data/odd.jsonl", '{"a\\u0000": "x\\u0000\\ud800"}\n')
    assert process("odd")["columns"]["a\ufffd"]["most_frequent"] == [
        {"value": "x\ufffd\ufffd", "count": 1}
    ]


@pytest.mark.parametrize(
    ("dataset", "said"),
    [
        (None, r"dataset is missing: give it, as in \{'dataset': 'user_events'\}"),
        ("", "dataset is missing"),
        (7, "dataset is 7; it must be a name in data/, or a path"),
        (["a.csv"], "it must be a name"),
        ("a\nb.csv", "it must be a name"),
        ("a\0.csv", "it must be a name"),
        ("/etc/passwd", "only files that end with .csv, .jsonl, .ndjson, .json are read"),
        ("../secrets.txt", "only files that end with"),
        ("notes.txt", "only files that end with"),
        ("data", "there is no dataset 'data': in .*/data there is nothing; user_events.csv ships"),
        ("data/x.csv", "there is no dataset 'data/x.csv'"),
        ("x" * 5_000, "there is no dataset 'xxx"),
    ],
)
def test_what_is_no_dataset_is_told_in_a_sentence(dataset, said):
    with pytest.raises(ValueError, match=said) as told:
        process(dataset)
    assert len(str(told.value)) < 500
    assert len(str(told.value).splitlines()) == 1


def test_what_there_is_is_told():
    for number in range(25):
        write(f"data/sales{number:02}.csv", SALES)
    write("data/notes.txt", "x")
    with pytest.raises(ValueError, match=r"there is sales00\.csv, .*sales19\.csv and 5 more;"):
        process("sale")
    os.mkdir("data/folder.csv")
    with pytest.raises(ValueError, match=r"there is no dataset 'folder'"):
        process("folder")


def test_without_a_folder_of_data():
    os.rmdir("data")
    with pytest.raises(ValueError, match=r"there is no data/ here; user_events\.csv ships with it"):
        process("sales")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "", "a.csv is empty: there must be rows in it"),
        ("a.csv", "\n\n", "is empty"),
        ("a.jsonl", "\n \n", "is empty"),
        ("a.json", " ", "is empty"),
        ("a.json", "[]", "is empty"),
        ("a.csv", "a,b\n1,2\n3\n", "line 3: the row has 1 fields, and the header has 2"),
        ("a.csv", 'a,b\n1,2\n\n"x\ny",2,3\n', "line 5: the row has 3 fields"),
        ("a.csv", 'a,b\n1,"2\n', "line 2: unexpected end of data"),
        ("a.csv", 'a,b\n1,"2"x\n', r"line 2: .*expected after"),
        ("a.csv", "a,b\n1," + "x" * 200_000, "line 2: field larger than field limit"),
        ("a.csv", "a,b,a\n", "two columns are called 'a'"),
        ("a.csv", b"a,b\n1,\xff\n", "line 2: it must be text in UTF-8"),
        ("a.jsonl", '{"a": 1}\n\n{"a": \n', "line 3: .*, at character"),
        ("a.jsonl", '{"a": 1}\n[1]\n', r"line 2: it must be an object, as in \{...\}, not \[1\]"),
        ("a.jsonl", '{"a": NaN}\n', "line 1: NaN is no number that JSON has"),
        ("a.jsonl", "[" * 100_000 + "\n", "line 1: "),
        ("a.jsonl", '{"a": ' + "9" * 5_000 + "}\n", "line 1: .*digits"),
        ("a.json", '[{"a": 1},\n 2]', r"row 2 is 2; it must be an object"),
        ("a.json", '{"a": 1}', r"it must be a list of rows, as in \[\{...\}\]"),
        ("a.json", '[{"a": 1}\n{}]', "line 2: .*, at character"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(name, content, said):
    write(f"data/{name}", content)
    with pytest.raises(ValueError, match=said) as told:
        process(name)
    assert str(told.value).startswith(f"data/{name}")
    assert len(str(told.value)) < 400


def test_a_large_file_is_streamed():
    """What is read as a whole has to be small, and the rest is not."""
    with open("data/large.json", "wb") as file:
        file.truncate(100 * 1024 * 1024 + 1)
    with pytest.raises(ValueError, match="more than 100 MB"):
        process("large.json")


def test_it_runs_in_a_process(capfd):
    write("data/sales.csv", SALES)
    with JobScheduler(built_in()) as scheduler:
        run = scheduler.run("data_processing", dataset="sales", notify="me")
        failed = scheduler.run("data_processing")
        assert run.wait(60)
        assert failed.wait(60)
    assert run.state == "completed", run.error
    assert run.result["rows"] == 3
    assert failed.state == "failed"
    assert "ValueError: dataset is missing" in str(failed.error)
    assert "data/sales.csv: 3 rows, 2 columns" in capfd.readouterr().out
