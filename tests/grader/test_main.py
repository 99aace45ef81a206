"""Tests of grader/__main__.py, the command: a pair, a file of labelled rows, and mistakes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from grader.__main__ import main

ROOT = Path(__file__).parents[2]


def command(capsys, *argv):
    """The command's exit code, output and complaint."""
    try:
        main(list(argv))
        code = 0
    except SystemExit as stop:
        code = stop.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_command_judges_a_pair(capsys):
    code, out, _ = command(capsys, r"\frac{1}{2}", "0.5")
    assert code == 0 and out.startswith("equal, by") and r"\frac{1}{2}" in out and "0.5" in out
    assert command(capsys, "-5", "5")[1].startswith("not equal, by")
    assert command(capsys, "--", "-x", "-x")[1].startswith("equal, by")
    assert command(capsys, "-x", "-x")[1].startswith("equal, by")


def test_help_tells_what_a_row_is(capsys):
    code, out, _ = command(capsys, "--help")
    assert code == 0 and "--golds: a row is a text" in out and "--file: a row is an object" in out


def lines(tmp_path, *rows):
    path = tmp_path / "cases.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return str(path)


def test_the_command_judges_a_file(tmp_path, capsys):
    path = lines(
        tmp_path,
        {"gold": "42", "answer": "42.0", "expected": True, "kind": "number"},
        {"gold": "42", "answer": "42", "expected": False, "kind": "number"},  # labelled wrongly: a false positive
        "",
        {"gold": "42", "completion": "The answer is 43.", "expected": True, "kind": "text"},  # a false negative
        {"gold": "42", "completion": r"\boxed{42}", "expected": True},
        {"gold": "1", "answer": "9^9^9^9", "expected": False, "kind": "tower"},
    )
    code, out, _ = command(capsys, "--file", path)
    assert code == 0 and out.rstrip().endswith("60.0 % of 5 rows right")  # 3 of 5
    table = {line.split()[3]: line.split()[:3] for line in out.splitlines() if line[:4].strip().isdigit()}
    assert table == {
        "number": ["2", "1", "0"],
        "text": ["1", "0", "1"],
        "rows": ["1", "0", "0"],
        "tower": ["1", "0", "0"],
    }
    assert "line 2: accepts" in out and "line 4: refuses" in out and "slowest: " in out


def test_the_command_lists_how_golds_are_read(tmp_path, capsys):
    rows = ["1/2", {"answer": 5}, {"solution": "We add.\nThe answer is 7."}, {"gold": "proof"}, r"\foo{1}"]
    for path in (lines(tmp_path, *map(json.dumps, rows)), lines(tmp_path, json.dumps(rows))):
        code, out, _ = command(capsys, "--golds", path)
        assert code == 0 and out.rstrip().endswith("5 answers, 1 of them not checkable")
        read = [line[60:].strip() for line in out.splitlines()[:5]]
        assert read[:4] == ["is (1/2)", "is 5", "is 7", "NOT CHECKABLE: no answer"]
        assert read[4].startswith("is only the same text, ")


def test_a_file_of_golds_may_begin_with_a_byte_order_mark(tmp_path, capsys):
    (tmp_path / "golds.jsonl").write_text('\ufeff"42"\n', encoding="utf-8")
    main(["--golds", str(tmp_path / "golds.jsonl")])
    assert "1 answers, 0 of them not checkable" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--golds", "nowhere.jsonl"], "No such file"),
        (["--golds", "x", "--file", "x"], "give a candidate and an answer"),
        ([], "give a candidate and an answer"),
        (["1"], "give a candidate and an answer"),
        (["1", "2", "3"], "give a candidate and an answer"),
        (["1", "2", "--file", "x"], "give a candidate and an answer"),
        (["--file"], "--file"),
        (["--file", "nowhere.jsonl"], "No such file"),
        (["--file", "."], "directory"),
        (["--file", ""], "--file"),
    ],
)
def test_the_command_refuses_in_one_line(argv, message, capsys):
    code, out, err = command(capsys, *argv)
    assert code == 2 and out == "" and err.count("\n") == 1 and message in err


@pytest.mark.parametrize("row", ["{", "[" * 10**5, '{"question": "1"}'])
def test_a_file_of_golds_is_refused_in_one_line(tmp_path, row, capsys):
    code, out, err = command(capsys, "--golds", lines(tmp_path, '"1"', row))
    assert code == 2 and out == "" and err.count("\n") == 1


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "line 2 is not JSON"),
        ("[" * 10**5, "line 2 is not JSON"),
        ("[1]", "line 2 has only no columns"),
        ({"gold": "1", "answer": "1"}, "line 2 has only gold, answer"),
        ({"gold": 1, "answer": "1", "expected": True}, "line 2 has only gold"),
        ({"answer": "1", "expected": True}, "line 2 has only answer"),
        ({"gold": "1", "answer": "1", "expected": "yes"}, "'yes'"),
    ],
)
def test_a_bad_row_is_named(tmp_path, row, message, capsys):
    path = lines(tmp_path, {"gold": "1", "answer": "1", "expected": True}, row)
    code, out, err = command(capsys, "--file", path)
    assert code == 2 and out == "" and err.count("\n") == 1 and message in err and "gold and answer" in err


def test_a_file_without_rows_or_of_bytes_is_refused(tmp_path, capsys):
    assert "no rows" in command(capsys, "--file", lines(tmp_path, ""))[2]
    path = tmp_path / "bytes.jsonl"
    path.write_bytes(b"\xff\xfe")
    assert command(capsys, "--file", str(path))[0] == 2


def test_a_reader_that_has_read_enough_is_no_error(tmp_path):
    """`| head`: the pipe's other end is closed before anything is written."""
    path = lines(tmp_path, {"gold": "1", "answer": "2", "expected": False})
    command_line, pipe = [sys.executable, "-m", "grader", "--file", path], subprocess.PIPE
    with subprocess.Popen(command_line, cwd=ROOT, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            process.stdout.close()
            assert (process.communicate(timeout=60)[1], process.returncode) == ("", 0)
        finally:
            process.kill()


def test_any_code_page_and_no_stdout_at_all():
    words = [sys.executable, "-m", "grader", "√2", "√2"]
    done = subprocess.run(
        words, cwd=ROOT, env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "") and r"\u221a2" in done.stdout
    closed = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", *words], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert (closed.returncode, closed.stderr) == (0, "")
