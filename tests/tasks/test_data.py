"""tasks/data.py: files and their broken rows, the hub (its two functions replaced by local files), order."""

import base64
import json
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from tasks import data

ROOT = Path(__file__).parents[2]
SHARED = Path(__file__).parents[3] / "shared" / "data"
GOOD = {"problem": "1+1=?", "answer": "2"}


def write(path, *rows):
    """Lines of JSONL: text and bytes as they are, anything else as JSON. -> the path, as text"""
    lines = [row if isinstance(row, bytes) else row.encode() if isinstance(row, str) else None for row in rows]
    lines = [json.dumps(row).encode() if line is None else line for line, row in zip(lines, rows, strict=True)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return str(path)


def load_one(tmp_path, row, **options):
    """The only row of a file with this one row."""
    (loaded,), skipped = data.load(write(tmp_path / "one.jsonl", row), **options)
    assert skipped == 0
    return loaded


def one_line(caught) -> str:
    """The message of a caught error, which has no second line."""
    message = str(caught.value)
    assert "\n" not in message
    return message


# ---------------------------------------------------------------------------------------------------------------- rows


def test_a_row_keeps_every_column(tmp_path):
    row = {"question": "1+1=?", "target": 2, "level": 0.5, "parts": [1, 1], "prompt_id": None, "nested": {"a": [1]}}
    assert load_one(tmp_path, row) == {**row, "problem": "1+1=?", "answer": "2"}


@pytest.mark.parametrize("field", ["problem", "question", "prompt", "input", "query"])
def test_the_problem_is_found_by_its_usual_names(tmp_path, field):
    assert load_one(tmp_path, {field: "1+1=?", "answer": "2"})["problem"] == "1+1=?"


@pytest.mark.parametrize("field", ["answer", "final_answer", "solution", "ground_truth", "target", "label"])
def test_the_answer_is_found_by_its_usual_names(tmp_path, field):
    assert load_one(tmp_path, {"problem": "1+1=?", field: "2"})["answer"] == "2"


def test_the_first_usual_name_wins_and_a_solution_is_the_last_resort(tmp_path):
    row = {"solution": "so \\boxed{2}", "target": "t", "answer": "a", "query": "q", "question": "Q"}
    assert [load_one(tmp_path, row)[name] for name in ("problem", "answer", "solution")] == ["Q", "a", "so \\boxed{2}"]
    nested = {"problem": "p", "solution": "long", "extra_info": {"answer": "a"}}
    assert load_one(tmp_path, nested)["answer"] == "a"
    assert load_one(tmp_path, {"problem": "p", "solution": "so \\boxed{2}\n"})["answer"] == "so \\boxed{2}\n"


@pytest.mark.parametrize("field", ["prompt", "messages"])
def test_the_problem_of_a_chat_is_its_last_user_message(tmp_path, field):
    chat = [("system", "be good"), ("user", "old"), ("assistant", "hm"), ("user", "1+1=?"), ("assistant", "2")]
    row = {field: [{"role": role, "content": content} for role, content in chat], "answer": "2"}
    loaded = load_one(tmp_path, row)
    assert loaded["problem"] == "1+1=?"
    assert loaded[field] == row[field]


def test_dapo_rows_are_read_and_their_instructions_left_alone(tmp_path):
    text = 'Solve the following math problem step by step.\n\nFind x.\n\nRemember to put your answer after "Answer:".'
    prompt = [{"role": "user", "content": text}]
    row = {"prompt": prompt, "reward_model": {"ground_truth": "34", "style": "rule"}, "extra_info": {"index": "9a"}}
    loaded = load_one(tmp_path, row)
    assert (loaded["problem"], loaded["answer"], loaded["extra_info"]) == (text, "34", {"index": "9a"})


def test_a_list_with_one_element_is_unwrapped(tmp_path):
    loaded = load_one(tmp_path, {"problem": "p", "final_answer": ["$\\frac{1}{2}$"]})
    assert loaded["answer"] == "$\\frac{1}{2}$"
    assert loaded["final_answer"] == ["$\\frac{1}{2}$"]
    assert load_one(tmp_path, '{"problem": "p", "answer": [[0.50]]}')["answer"] == "0.50"


@pytest.mark.parametrize("ending", [".jsonl", ".json"])
@pytest.mark.parametrize("number", ["72", "-3", "0.10", "1e-7", "3.14159265358979323846", "12345678901234567890123"])
def test_a_number_keeps_the_spelling_of_the_file(tmp_path, ending, number):
    line = f'{{"problem": "p", "answer": {number}, "level": 0.10}}'
    path = tmp_path / f"numbers{ending}"
    path.write_text(line if ending == ".jsonl" else f"[{line}]")
    (row,), _ = data.load(str(path))
    assert row["answer"] == number
    assert row["level"] == 0.1 and isinstance(row["level"], float)  # other columns stay numbers


def test_gsm8k_answers_are_unwrapped(tmp_path):
    worked = "He has 1,000 + 125 = <<1000+125=1125>>1,125 books.\n#### 1,125"
    row = load_one(tmp_path, {"question": "How many?", "answer": worked})
    assert row == {"question": "How many?", "problem": "How many?", "answer": "1125", "solution": worked}
    assert load_one(tmp_path, {"question": "q", "answer": worked, "solution": "mine"})["solution"] == "mine"
    assert load_one(tmp_path, {"question": "q", "solution": worked + "\n"})["answer"] == "1125"
    # only thousands lose their commas; only the last line counts
    assert load_one(tmp_path, {"question": "q", "answer": "a\n#### (1,2)"})["answer"] == "(1,2)"
    unusual = "#### 5\nis a heading"
    assert load_one(tmp_path, {"question": "q", "answer": unusual}) == {
        "question": "q",
        "problem": "q",
        "answer": unusual,
    }


def test_explicit_fields_win_and_may_be_nested_or_dotted(tmp_path):
    row = {"problem": "p", "answer": "a", "raw": {"deep": {"text": "P"}}, "meta.gold": "A"}
    loaded = load_one(tmp_path, row, problem_field="raw.deep.text", answer_field="meta.gold")
    assert loaded == {**row, "problem": "P", "answer": "A"}


@pytest.mark.parametrize("field", ["gold", "answer.gold", "nested.gold"])
def test_an_absent_explicit_field_names_the_columns_that_there_are(tmp_path, field):
    with pytest.raises(ValueError) as caught:
        load_one(tmp_path, {**GOOD, "nested": {"a": 1}}, answer_field=field)
    assert f"no column '{field}'; the columns are problem, answer, nested" in one_line(caught)


def test_columns_that_would_collide_with_the_arguments_of_a_reward_are_renamed(tmp_path):
    row = load_one(tmp_path, {**GOOD, "prompts": 1, "completions": 2, "completion_ids": 3})
    assert row == {**GOOD, "prompts_": 1, "completions_": 2, "completion_ids_": 3}


# ---------------------------------------------------------------------------------------------------------- broken rows

BROKEN = {
    "cut off": ('{"problem": "p", "answ', "not JSON"),
    "two objects": ('{"problem": "p", "answer": "a"} {}', "not JSON"),
    "nested too deep": ("[" * 100_000, "nested too deep"),
    "not UTF-8": (b'{"problem": "\xff", "answer": "a"}', "not UTF-8"),
    "half a character": ('{"problem": "\\ud83d", "answer": "a"}', "problem holds half"),
    "a list": ([1, 2], "a row is an object of columns, not [1, 2]"),
    "null": (None, "a row is an object of columns, not None"),
    "no problem": ({"answer": "a", "level": 1}, "no problem (looked for problem, question"),
    "no answer": ({"problem": "p", "level": 1}, "--answer-field names another); the columns are problem, level"),
    "no column": ({}, "the columns are none"),
    "empty problem": ({"problem": " \n", "answer": "a"}, "problem is empty"),
    "empty answer, solution there": ({"problem": "p", "answer": "", "solution": "s"}, "answer is empty"),
    "null answer": ({"problem": "p", "answer": None}, "answer is None, not text"),
    "true": ({"problem": "p", "answer": True}, "answer is True, not text"),
    "nan": ('{"problem": "p", "answer": NaN}', "answer is nan, not text"),
    "infinity": ('{"problem": "p", "answer": Infinity}', "answer is inf, not text"),
    "two texts": ({"problem": "p", "answer": ["the left", "right"]}, "all of them, or any one?"),
    "no answers": ({"problem": "p", "answer": []}, "answer is [], not text"),
    "a number for a problem": ({"problem": 5, "answer": "a"}, "problem is 5, not text"),
    "a chat without a user": ({"prompt": [{"role": "system", "content": "s"}], "answer": "a"}, "prompt is [{"),
    "a picture": ({"prompt": [{"role": "user", "content": [{}]}], "answer": "a"}, "prompt is [{}], not text"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_row_is_an_error_that_names_the_line_or_is_counted(tmp_path, name):
    row, wanted = BROKEN[name]
    source = write(tmp_path / "rows.jsonl", GOOD, "", "  ", row if row is not None else "null", GOOD)
    with pytest.raises(ValueError) as caught:
        data.load(source)
    message = one_line(caught)  # blank lines are no rows, but lines: the fourth line is the broken one
    assert message.startswith(f"{source}, line 4: ") and wanted in message and "--skip-bad-rows" in message
    assert len(message) < 500
    assert data.load(source, skip_bad_rows=True) == ([GOOD, GOOD], 1)


def test_bad_rows_are_counted_over_all_files(tmp_path):
    first, second = write(tmp_path / "a.jsonl", GOOD, "x", "y"), write(tmp_path / "b.jsonl", "z", GOOD)
    assert data.load(f"{first},{second}", skip_bad_rows=True) == ([GOOD, GOOD], 3)


def test_no_rows_is_an_error_that_says_what_was_wrong_with_the_bad_ones(tmp_path):
    empty, good = write(tmp_path / "empty.jsonl", "", ""), write(tmp_path / "good.jsonl", GOOD)
    for source in (empty, f"{good},{empty}"):
        with pytest.raises(ValueError, match=r"empty\.jsonl: no rows"):
            data.load(source)
    with pytest.raises(ValueError) as caught:
        data.load(write(tmp_path / "bad.jsonl", GOOD, GOOD), answer_field="gold", skip_bad_rows=True)
    assert "no rows, but 2 bad ones; the first" in one_line(caught)
    assert "line 1: no column 'gold'; the columns are problem, answer" in one_line(caught)


# ------------------------------------------------------------------------------------------------------------ pictures

PNG = base64.b64decode(  # one white pixel
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAsp2wUwAAAABJRU5ErkJggg=="
)


@pytest.fixture
def folder(tmp_path):
    """A folder with the pictures i/a.png and b.png."""
    pytest.importorskip("PIL")
    (tmp_path / "i").mkdir()
    for name in ("i/a.png", "b.png"):
        (tmp_path / name).write_bytes(PNG)
    return tmp_path


@pytest.mark.parametrize("field", ["images", "image", "image_path"])
@pytest.mark.parametrize("many", [False, True])
def test_a_picture_may_be_a_path_bytes_or_base64_in_any_usual_column(folder, field, many):
    text = base64.b64encode(PNG).decode()
    for value, expected in (
        ("i/a.png", str(folder / "i" / "a.png")),
        (str(folder / "b.png"), str(folder / "b.png")),
        (text, PNG),
        (f"data:image/png;base64,{text}", PNG),
        ({"bytes": text, "path": "x.png"}, PNG),
        ({"bytes": None, "path": "b.png"}, str(folder / "b.png")),
    ):
        row = load_one(folder, {**GOOD, field: [value] if many else value, "level": 1})
        assert row == {"problem": "<image>1+1=?", "answer": "2", "level": 1, "images": [expected]}


def test_parquet_holds_pictures_as_bytes_or_names_their_files(folder):
    """As hub data sets write them; where a column is empty in a row, another may hold its picture."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    inside, named = {"bytes": PNG, "path": "a.png"}, {"bytes": None, "path": "b.png"}
    rows = [{**GOOD, "image": inside, "images": []}, {**GOOD, "image": None, "images": [named, inside]}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "rows.parquet")
    one, two = data.load(str(folder / "rows.parquet"))[0]
    assert one["images"] == [PNG] and one["problem"] == "<image>1+1=?"
    assert two["images"] == [str(folder / "b.png"), PNG] and two["problem"] == "<image><image>1+1=?"
    broken = [{**GOOD, "image": {"bytes": PNG[:40], "path": "a.png"}, "images": []}]
    parquet.write_table(pyarrow.Table.from_pylist(broken), folder / "broken.parquet")
    with pytest.raises(ValueError, match="row 1: picture 1: picture of 40 bytes"):
        data.load(str(folder / "broken.parquet"))


def test_marks_are_the_places_of_pictures_and_without_marks_they_come_first(folder):
    a, b = str(folder / "i" / "a.png"), str(folder / "b.png")
    for problem, marked in (
        ("p", "<image><image>p"),
        ("<image>\n<image>p", "<image>\n<image>p"),
        ("p <image> or\n\n<image>", "p <image> or\n\n<image>"),
    ):
        row = load_one(folder, {"problem": problem, "answer": "1", "images": ["i/a.png", "b.png"]})
        assert (row["problem"], row["images"]) == (marked, [a, b])
    assert load_one(folder, {**GOOD, "images": ["b.png"] * 3})["images"] == [b] * 3


def chat(*parts, **columns):
    """A row with a chat in parts: a text, or else the keys of a picture."""
    parts = [{"type": "text", "text": p} if isinstance(p, str) else {"type": "image", **p} for p in parts]
    return {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": parts}], **columns}


def test_a_chat_in_parts(folder):
    a, b = str(folder / "i" / "a.png"), str(folder / "b.png")
    where = {"image": "i/a.png"}, {"path": "b.png"}
    row = load_one(folder, chat("see ", where[0], "and ", where[1], "\np", answer="1"))
    turns = [{"role": "system", "content": "s"}]
    assert row == {"problem": "see <image>and <image>\np", "answer": "1", "images": [a, b], "turns": turns}
    row = load_one(folder, chat({}, "p", {"image": None}, answer="1", images=["b.png", "i/a.png"]))
    assert (row["problem"], row["images"], len(row["messages"])) == ("<image>p<image>", [b, a], 2)
    url = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(PNG).decode()}"}}
    read = load_one(folder, chat(url, "p", answer="1"))
    assert read == {"problem": "<image>p", "answer": "1", "images": [PNG], "turns": turns}
    assert load_one(folder, chat("1+", "1=?", answer="2"))["problem"] == "1+1=?"
    with pytest.raises(ValueError, match="<image> is 2 times in messages, but there are 1 pictures"):
        load_one(folder, chat({"image": "b.png"}, "p", {}, answer="1"))


def test_rows_without_pictures_have_no_images(folder):
    source = write(folder / "rows.jsonl", {**GOOD, "images": []}, {**GOOD, "images": None}, {**GOOD, "image": ""}, GOOD)
    assert data.load(source)[0] == [GOOD, GOOD, {**GOOD, "image": ""}, GOOD]


WRONG = {
    "missing": ({**GOOD, "image": "absent.png"}, "picture 1: '", "absent.png': no such file"),
    "the second missing": ({**GOOD, "images": ["b.png", "i/c.png"]}, "picture 2: '", "no such file"),
    "no picture": ({**GOOD, "image": "rows.jsonl"}, "picture 1: '", "not a picture (JPEG, PNG"),
    "text as bytes": ({**GOOD, "image": {"bytes": "data:image/png;base64," + "QUFB" * 20}}, "picture of 60 bytes", ""),
    "on the web": ({**GOOD, "image": "https://x.org/a.png"}, "a picture is 'https://x.org/a.png'", "download it first"),
    "a number": ({**GOOD, "image": 5}, "a picture is 5, neither", ""),
    "null in a list": ({**GOOD, "images": [None]}, "a picture is None, neither", ""),
    "a mark too many": (
        {**GOOD, "problem": "<image><image>p", "image": "b.png"},
        "<image> is 2 times in problem, but there are 1 pictures",
        "",
    ),
    "a mark too few": (
        {**GOOD, "problem": "<image>p", "images": ["b.png"] * 2},
        "<image> is 1 times in problem, but there are 2 pictures",
        "",
    ),
    "a mark, no picture": ({**GOOD, "problem": "<image>p", "images": []}, "but there are 0 pictures", ""),
    "a mark, no column": ({**GOOD, "problem": "<image>p"}, "<image> is 1 times in problem", "there are 0 pictures"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_picture_is_an_error_that_names_the_line_or_is_counted(folder, name):
    row, *wanted = WRONG[name]
    good = {**GOOD, "image": "b.png"}
    source = write(folder / "rows.jsonl", good, "", row, good)
    with pytest.raises(ValueError) as caught:
        data.load(source)
    message = one_line(caught)
    assert message.startswith(f"{source}, line 3: ") and all(part in message for part in wanted)
    assert len(message) < 500 + len(str(folder)) and "--skip-bad-rows" in message
    rows, skipped = data.load(source, skip_bad_rows=True)
    assert (len(rows), skipped) == (2, 1) and all(row["images"] == [str(folder / "b.png")] for row in rows)


FORMS = {  # file in ../shared/formats: a row in its form with a picture that is there -> problem, answer
    "sat": (
        {
            "messages": [
                {"role": "user", "content": "<image>Left or right?"},
                {"role": "assistant", "content": "left"},
            ],
            "images": ["b.png"],
        },
        "<image>Left or right?",
        "left",
    ),
    "geoqa_r1v": (
        {"image": "b.png", "problem": "angle 2 is ()", "solution": "<answer> 65° </answer>"},
        "<image>angle 2 is ()",
        "<answer> 65° </answer>",
    ),
    "r1v_clevr": (
        {"image": "i/a.png", "problem": "How many?", "solution": "<answer> 3 </answer>"},
        "<image>How many?",
        "<answer> 3 </answer>",
    ),
    "swift_clevr": (
        {
            "images": ["b.png"],
            "messages": [{"role": "user", "content": "How many?"}],
            "solution": "<answer> 3 </answer>",
        },
        "<image>How many?",
        "<answer> 3 </answer>",
    ),
    "visual_rft": (
        {"image": "b.png", "problem": "Detect 'truck'", "solution": "<answer> [{'Position': [3, 2, 9, 8]}] </answer>"},
        "<image>Detect 'truck'",
        "<answer> [{'Position': [3, 2, 9, 8]}] </answer>",
    ),
    "vlm_r1_grounding": (
        {"image": "b.png", "problem": "the man", "solution": [100.0, 20.50, 300, 410.2]},
        "<image>the man",
        "[100.0, 20.5, 300, 410.2]",
    ),
    "LISA": (
        {
            "messages": [
                {"role": "user", "content": "the cat <image>"},
                {"role": "assistant", "content": "(1,2),(3,4)"},
            ],
            "images": ["b.png"],
        },
        "the cat <image>",
        "(1,2),(3,4)",
    ),
    "EasyR1": (
        {"images": [{"bytes": None, "path": "b.png"}], "problem": "<image>Find x.", "answer": "3"},
        "<image>Find x.",
        "3",
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_public_data_sets_with_pictures(folder, form):
    row, problem, answer = FORMS[form]
    loaded = load_one(folder, row)
    assert (loaded["problem"], loaded["answer"], len(loaded["images"])) == (problem, answer, 1)
    theirs = SHARED.parent / "formats" / f"{form}.jsonl"
    if theirs.exists():  # without its pictures
        assert json.loads(theirs.read_text().splitlines()[0]).keys() >= row.keys()
        with pytest.raises(ValueError, match=r"line 1: picture 1: .*: no such file"):
            data.load(str(theirs))


def test_only_rows_with_pictures_take_four_numbers_as_a_box(folder):
    turns = [{"role": "user", "content": "p"}, {"role": "assistant", "content": "a"}]
    assert load_one(folder, {"problem": "p", "answer": [1, 2, 3, 4]})["answer"] == "1, 2, 3, 4"
    boxes = {"problem": "p", "image": "b.png"}
    assert load_one(folder, {**boxes, "answer": [[1, 2, 3, 4]]})["answer"] == "[1, 2, 3, 4]"
    for wrong in ([1, 2, 3], ["a", "b", "c", "d"], [None] * 4, [[1, 2, 3, 4]] * 2):
        with pytest.raises(ValueError, match="not text|all of them, or any one"):
            load_one(folder, {**boxes, "answer": wrong})
    assert load_one(folder, {"messages": turns, "image": "b.png", "answer": "b"})["answer"] == "b"


# --------------------------------------------------------------------------------------------------------------- files


def test_jsonl_may_have_a_byte_order_mark_windows_line_ends_and_odd_separators_in_text(tmp_path):
    path = tmp_path / "odd.jsonl"
    row = {"problem": "one\u2028two\x85é", "answer": "2"}
    path.write_bytes(
        b"\xef\xbb\xbf" + json.dumps(row, ensure_ascii=False).encode() + b"\r\n\r\n" + json.dumps(GOOD).encode()
    )
    assert data.load(str(path)) == ([row, GOOD], 0)


@pytest.mark.parametrize("document", [[GOOD, GOOD], {"version": 1, "data": [GOOD, GOOD]}])
def test_json_is_a_list_or_an_object_with_one_list(tmp_path, document):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(document, indent=1))
    assert data.load(str(path)) == ([GOOD, GOOD], 0)


def test_jsonl_that_is_called_json_is_read(tmp_path):
    source = write(tmp_path / "rows.json", GOOD, "", GOOD, "x")
    assert data.load(source, skip_bad_rows=True) == ([GOOD, GOOD], 1)
    with pytest.raises(ValueError, match="line 4: not JSON"):
        data.load(source)


@pytest.mark.parametrize(
    "text", ['{"a": [{"problem": "p", "answer": "a"}], "b": []}', '{"a": 1}', "5", '"x"', "[1, ", "", "[" * 100_000]
)
def test_other_json_is_an_error_that_names_the_file(tmp_path, text):
    path = tmp_path / "rows.json"
    path.write_text(text)
    with pytest.raises(ValueError) as caught:
        data.load(str(path), skip_bad_rows=True)  # not a row that could be skipped
    assert one_line(caught).startswith(f"{path}: ")


def test_a_broken_row_of_json_is_named_by_its_number(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([GOOD, {"problem": "p"}]))
    with pytest.raises(ValueError, match=r"rows\.json, row 2: no answer .*--skip-bad-rows"):
        data.load(str(path))
    assert data.load(str(path), skip_bad_rows=True) == ([GOOD], 1)


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ValueError) as caught:
        data.load(write(tmp_path / "rows.parquet", ""))
    assert "pip install pyarrow" in one_line(caught)


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [
        {"prompt": [{"role": "user", "content": "p"}], "reward_model": {"ground_truth": "34"}, "level": 1.5},
        {"prompt": [{"role": "user", "content": "q"}], "reward_model": {"ground_truth": None}, "level": 2.5},
    ]
    path = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    assert data.load(f"{path}[:1]") == ([{**rows[0], "problem": "p", "answer": "34"}], 0)
    assert data.load(str(path), skip_bad_rows=True)[1] == 1
    with pytest.raises(ValueError, match="row 2: reward_model.ground_truth is None, not text"):
        data.load(str(path))

    numbers = [{"problem": "p", "answer": Decimal("0.10"), "target": 0.1, "label": 7}]
    parquet.write_table(pyarrow.Table.from_pylist(numbers), path)
    answers = [data.load(str(path), answer_field=field)[0][0]["answer"] for field in ("answer", "target", "label")]
    assert answers == ["0.10", "0.1", "7"]

    path.write_bytes(b"no parquet")
    with pytest.raises(ValueError, match="not a parquet file") as caught:
        data.load(str(path))
    one_line(caught)


def test_parts_are_joined_and_each_may_be_cut(tmp_path):
    rows = [{"problem": f"p{i}", "answer": str(i)} for i in range(6)]
    first, second = write(tmp_path / "a.jsonl", *rows[:3]), write(tmp_path / "b.JSONL", *rows[3:])
    assert data.load(f"{first},{second}")[0] == rows
    assert data.load(f"{first}[:2], {second}[:1]")[0] == [rows[0], rows[1], rows[3]]
    assert data.load(f"{first}[:99]")[0] == rows[:3]


def test_a_cut_counts_good_and_bad_rows_but_not_blank_lines_and_reads_no_further(tmp_path):
    source = write(tmp_path / "a.jsonl", GOOD, "", "bad", GOOD, "bad")
    assert data.load(source + "[:1]") == ([GOOD], 0)
    assert data.load(source + "[:3]", skip_bad_rows=True) == ([GOOD, GOOD], 1)
    with pytest.raises(ValueError, match="no rows"):
        data.load(source + "[:0]")


@pytest.mark.parametrize(
    "name", ["absent.jsonl", "data/absent.jsonl", "a/b/c", "word", "", "x.jsonl[3:5]", "absent.parquet"]
)
def test_a_missing_file_is_one_clear_line(name, monkeypatch):
    hub(monkeypatch, {})  # which must not be asked
    with pytest.raises(ValueError) as caught:
        data.load(name)
    assert f"{name!r}: no such file" in one_line(caught) and "owner/name" in one_line(caught)


def test_a_folder_or_a_file_of_another_kind_says_what_can_be_read(tmp_path):
    with pytest.raises(ValueError, match="a folder; name a file in it"):
        data.load(str(tmp_path))
    with pytest.raises(ValueError, match=r"rows\.csv: can't read .*\.jsonl, \.json, \.parquet"):
        data.load(write(tmp_path / "rows.csv", "a,b"))


# ----------------------------------------------------------------------------------------------------------------- hub


def hub(monkeypatch, files):
    """Puts {path in the data set: local path} in the place of owner/name on the hub. -> the list of what is fetched"""
    fetched = []

    def list_repo_files(repo, *, repo_type):
        assert (repo, repo_type) == ("owner/name", "dataset")
        return ["README.md", ".gitattributes", "dataset_infos.json", *files]

    def hf_hub_download(repo, file, *, repo_type):
        assert (repo, repo_type) == ("owner/name", "dataset")
        fetched.append(file)
        return files[file]

    monkeypatch.setattr("huggingface_hub.list_repo_files", list_repo_files)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", hf_hub_download)
    return fetched


def test_a_data_set_of_the_hub_is_read_shard_by_shard(tmp_path, monkeypatch):
    rows = [{"problem": f"p{i}", "answer": str(i)} for i in range(5)]
    names = [f"main/train-0000{i}-of-00002.jsonl" for i in (1, 0)] + ["main/test-00000-of-00001.jsonl"]
    parts = (rows[2:4], rows[:2], rows[4:])
    fetched = hub(monkeypatch, {name: write(tmp_path / name, *part) for name, part in zip(names, parts, strict=True)})
    assert data.load("owner/name")[0] == rows[:4]  # in the order of the shards
    assert fetched == [names[1], names[0]]
    assert data.load("owner/name", split="test")[0] == rows[4:]
    assert data.load("owner/name[:3],owner/name:main/test-00000-of-00001.jsonl[:1]")[0] == rows[:3] + rows[4:]
    fetched.clear()
    assert data.load("owner/name[:1]")[0] == rows[:1]
    assert fetched == [names[1]]  # what is cut off is not fetched


@pytest.mark.parametrize(("there", "missing", "rows"), [("0", 1, 1), ("02", 1, 1), ("12", 3, 2), ("01", 2, 2)])
def test_a_cache_that_holds_a_part_of_a_data_set_is_not_taken_for_all_of_it(
    tmp_path, monkeypatch, there, missing, rows
):
    names = [f"data/train-0000{i}-of-00003.jsonl" for i in there]
    hub(monkeypatch, {name: write(tmp_path / name, GOOD) for name in names})
    with pytest.raises(ValueError, match=f"owner/name: part {missing} of 00003 is missing"):
        data.load("owner/name")
    assert len(data.load(f"owner/name[:{rows}]")[0]) == rows  # as far as it goes


def test_shards_may_count_from_one_and_those_of_two_splittings_are_not_mixed(tmp_path, monkeypatch):
    names = [f"train-0000{i}-of-00002.jsonl" for i in (1, 2)]
    hub(monkeypatch, {name: write(tmp_path / name, GOOD) for name in names})
    assert len(data.load("owner/name")[0]) == 2
    with pytest.raises(ValueError, match="several choices of files"):
        data.pick_files("owner/name", [*names, "train-00000-of-00001.jsonl"], "train")


def test_an_error_in_a_file_of_the_hub_names_it_there(tmp_path, monkeypatch):
    hub(monkeypatch, {"train.jsonl": write(tmp_path / "x.jsonl", GOOD, "bad")})
    with pytest.raises(ValueError, match=r"^owner/name:train\.jsonl, line 2: not JSON"):
        data.load("owner/name")


SHARDS = "data/train-00000-of-00002-ab12.parquet data/train-00001-of-00002-cd34.parquet"
CONVERTED = "default/train/0000.parquet default/train/0001.parquet"


@pytest.mark.parametrize(
    ("split", "picked", "others"),
    [
        ("train", "main/train-00000-of-00001.parquet", "socratic/train-00000-of-00001.parquet"),
        ("test", "data/test-00000-of-00001-cd34.parquet", SHARDS),
        ("train", SHARDS, "data/test-00000-of-00001-cd34.parquet"),
        ("train", CONVERTED, "default/test/0000.parquet"),
        ("validation", "val.jsonl", "train.jsonl"),
        ("train", "gsm8k_train.jsonl", "gsm8k_test.jsonl"),
        ("train", "train.jsonl", "constrained.jsonl"),  # a split is a word, not a part of one
        ("test", "train_test/test.jsonl", "train_test/train.jsonl"),  # names before folders
        (
            "train",
            "all.jsonl",
            "README.md .cache/x.json dataset_info.json dataset_infos.json",
        ),  # no split
        ("train", "all-00000-of-00002.jsonl all-00001-of-00002.jsonl", "test.jsonl"),
        ("train", "Train.JSONL", "Test.JSONL"),
        ("train", "training.jsonl", "dev.jsonl all.jsonl"),
        ("train", "default/train/0000.parquet", "en/train/0000.parquet"),
        ("train", "train.jsonl", "en/train.jsonl"),
        ("train", "default/train.jsonl", "data/train.jsonl"),
    ],
)
def test_the_files_of_a_split_are_picked_by_their_names(split, picked, others):
    files = others.split() + picked.split()[::-1]
    assert data.pick_files("owner/name", files, split) == picked.split()


@pytest.mark.parametrize(
    ("split", "files"),
    [
        ("train", "en/train.parquet cn/train.parquet"),
        ("train", "main/train_easy.jsonl main/train_hard.jsonl"),
        ("train", "train.jsonl train.parquet"),
        ("train", "train.parquet train-00000-of-00001.parquet"),  # the same rows twice, most likely
        ("train", "a.jsonl b.jsonl"),
        ("test", "all.jsonl"),  # else the training problems would be the test
        ("test", "train.jsonl"),
        ("train", "test.jsonl"),
    ],
)
def test_an_ambiguous_split_lists_the_choice(split, files):
    with pytest.raises(ValueError) as caught:
        data.pick_files("owner/name", files.split(), split)
    message = one_line(caught)
    assert all(file in message for file in files.split()) and f"'{split}'" in message and "owner/name:FILE" in message


def test_a_data_set_without_readable_files_says_so(monkeypatch):
    fetched = hub(monkeypatch, {"pictures.tar": ""})
    with pytest.raises(ValueError, match=r"owner/name: no file for 'train'.*no \.jsonl, \.json or \.parquet at all"):
        data.load("owner/name")
    with pytest.raises(ValueError, match=r"pictures\.tar: can't read"):
        data.load("owner/name:pictures.tar")
    assert fetched == []


def test_a_local_file_goes_before_the_hub(tmp_path, monkeypatch):
    hub(monkeypatch, {})
    write(tmp_path / "owner" / "name.jsonl", GOOD)
    monkeypatch.chdir(tmp_path)
    assert data.load("owner/name.jsonl") == ([GOOD], 0)
    os.mkdir("owner/name")
    with pytest.raises(ValueError, match="a folder"):
        data.load("owner/name")


@pytest.mark.parametrize("source", ["openai/gsm8k", "openai/gsm8k:main/train-00000-of-00001.parquet"])
def test_a_failure_of_the_hub_is_one_clear_line(monkeypatch, source):
    def fail(*_, **__):
        raise RuntimeError("404 Client Error.\n\nRepository Not Found")

    monkeypatch.setattr("huggingface_hub.list_repo_files", fail)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    with pytest.raises(ValueError) as caught:
        data.load(source)
    assert one_line(caught).startswith(f"{source}: ")
    assert "RuntimeError: 404 Client Error." in one_line(caught) and "a local file works too" in one_line(caught)


def test_the_real_hub_failing_is_one_clear_line(tmp_path):
    program = "from tasks import data\ntry: data.load('openai/gsm8k')\nexcept ValueError as error: print(error)"
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=env, check=True)
    (line,) = run.stdout.splitlines()
    assert (
        line.startswith("openai/gsm8k: ")
        and "hub can't be reached, and its cache lacks it" in line
        and "a local file works too" in line
    )


def test_without_a_network_the_cache_is_read_at_once(tmp_path, monkeypatch):
    """A hub at a closed port: no retry is waited for, neither for what the cache holds nor for what it lacks."""
    monkeypatch.setattr(data.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(data.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(data.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("waits for a hub that can't be reached"))
    data.seek_hub.cache_clear()
    commit = "0" * 40
    held = tmp_path / "datasets--owner--name"
    (held / "snapshots" / commit / "main").mkdir(parents=True)
    (held / "refs").mkdir()
    (held / "refs" / "main").write_text(commit)
    for split in ("train", "test"):
        row = json.dumps({"problem": split, "answer": "1"})
        (held / "snapshots" / commit / "main" / f"{split}.jsonl").write_text(row + "\n")
    assert data.load("owner/name", split="test")[0] == [{"problem": "test", "answer": "1"}]
    assert data.load("owner/name:main/train.jsonl")[0][0]["problem"] == "train"
    with pytest.raises(
        ValueError, match="owner/other: no local file, and the hub can't be reached, and its cache lacks"
    ):
        data.load("owner/other")
    data.seek_hub.cache_clear()


# --------------------------------------------------------------------------------------------------------------- order


@pytest.mark.parametrize("size", [1, 2, 7, 64])
@pytest.mark.parametrize("seed", [0, 1, 2, 2**32 - 1, 2**63])
def test_T4_each_epoch_is_a_permutation_of_all_problems(size, seed):
    stream = data.order(size, seed, 0, 5 * size)
    assert all(type(index) is int for index in stream)
    for epoch in range(5):
        assert sorted(stream[epoch * size : (epoch + 1) * size]) == list(range(size))


@pytest.mark.parametrize("size", [1, 3, 7, 10])
def test_R2_any_cut_of_the_stream_gives_the_same_problems(size):
    for seed in range(5):
        stream = data.order(size, seed, 0, 40)
        for batch in (1, 2, 3, 7, 8, 40):  # batches that end within, at and beyond epochs
            cut = [
                index
                for start in range(0, 40, batch)
                for index in data.order(size, seed, start, min(batch, 40 - start))
            ]
            assert cut == stream
        assert all(data.order(size, seed, start, 40 - start) == stream[start:] for start in range(41))  # any resume


def test_seeds_and_epochs_differ():
    # 64 problems: two of the 64! orders are equal with odds of 1e-89
    orders = [tuple(data.order(64, seed, 64 * epoch, 64)) for seed in range(20) for epoch in range(20)]
    assert len(set(orders)) == len(orders)


def test_the_order_is_random():
    # each of 5 problems comes first in about 200 of 1000 epochs; std sqrt(1000 * 0.2 * 0.8) = 12.6; five of it is 63
    firsts = data.order(5, 3, 0, 5000)[::5]
    assert all(abs(firsts.count(index) - 200) < 63 for index in range(5))


def test_the_order_leaves_the_global_generator_alone_and_stays_as_it_is():
    state = np.random.get_state()[1].tolist()
    # fixed: a resumed run of an older checkout must see the same problems
    assert data.order(5, 0, 0, 10) == [2, 4, 3, 0, 1, 1, 4, 3, 0, 2]
    assert np.random.get_state()[1].tolist() == state


# ---------------------------------------------------------------------------------------------------------- real files

needs_files = pytest.mark.skipif(not (SHARED / "MANIFEST.json").exists(), reason="the real files are not here")


@needs_files
def test_every_real_file_loads():
    files = json.loads((SHARED / "MANIFEST.json").read_text())
    assert len(files) >= 14
    for name, about in files.items():
        bad = about["empty_answers"] + (name == "asdiv")  # whose -(1/3) was cut into "-" and a unit "1/3"
        rows, skipped = data.load(str(SHARED / about["file"]), skip_bad_rows=bad > 0)
        assert (len(rows), skipped) == (about["rows"] - bad, bad), name
        assert set(about["fields"]) <= set().union(*rows), name
        assert len({row["problem"] for row in rows}) >= about["unique_problems"] - skipped, name


@needs_files
def test_the_empty_answers_of_math_are_named():
    source = str(SHARED / "math_train.jsonl")
    with pytest.raises(ValueError, match=r"math_train\.jsonl, line 5342: answer is empty; --skip-bad-rows"):
        data.load(source)
    rows, skipped = data.load(source, skip_bad_rows=True)
    assert (len(rows), skipped) == (7498, 2)


@needs_files
@pytest.mark.parametrize("name", ["gsm8k_train", "gsm8k_test"])
def test_gsm8ks_worked_answers_end_in_its_answers(name):
    source = str(SHARED / f"{name}.jsonl")
    assert data.load(source, answer_field="solution") == data.load(source)


@needs_files
def test_a_real_file_without_its_answer_column_is_read_by_its_other_one():
    rows, _ = data.load(str(SHARED / "olympiadbench.jsonl"), answer_field="final_answer")
    assert [row["answer"] for row in rows] == [row["final_answer"][0] for row in rows]
