"""Reads problems from files and the hub, and shuffles them for training.

    rows, skipped = load("openai/gsm8k")                                   the hub: its files of the split "train"
    rows, skipped = load("openai/gsm8k:main/test-00000-of-00001.parquet")  one of its files
    rows, skipped = load("aime.jsonl,more.json[:100],big.parquet")         local files, joined; 100 rows of one

A row is a dict: "problem" and "answer", both non-empty text, and every column of the file under its own name. If it
has pictures, "images" takes the place of the column that held them: see tasks/pictures.py.
"""

import itertools
import json
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import lru_cache
from pathlib import Path

import huggingface_hub
import numpy as np
from huggingface_hub import constants, utils
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

from tasks.pictures import MARK, check_pictures, picture_of

# Columns that may hold the problem and its answer; the first that a row has is used, a dot goes into a nested column.
# A worked solution is the last resort.
PROBLEM_FIELDS = ("problem", "question", "prompt", "input", "query", "messages")
ANSWER_FIELDS = ("answer", "final_answer", "ground_truth", "target", "label", "reward_model.ground_truth")
ANSWER_FIELDS += ("extra_info.answer", "extra_info.ground_truth", "solution")

IMAGE_FIELDS = ("images", "image", "image_path")  # one picture or a list; see picture_of
REPLY = "the assistant's message"  # the answer of a row with pictures that is a chat and has no other

RESERVED = ("prompts", "completions", "completion_ids")  # a reward's own arguments; columns get a "_": "prompts_"
GSM8K_ANSWER = re.compile(r"^#### *(\S.*?)\s*\Z", re.MULTILINE)  # the last line of a worked answer
THOUSANDS_COMMA = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
HUB_CONFIGS = ("main", "default", "data", "")  # folders, in order of preference
HUB_SPLITS = {"train": "train|training", "validation": "validation|valid|val|dev", "test": "test"}  # in file names
HUB_OTHER = re.compile(r"(^|/)(\.|dataset_infos?\.)")  # files without problems
HUB_SHARD = re.compile(r"-\d+-of-\d+(-[0-9a-f]+)?(?=\.)|^\d+(?=\.)")  # train-00000-of-00002.parquet, 0001.parquet


def load(
    source: str,
    *,
    split: str = "train",
    problem_field: str | None = None,
    answer_field: str | None = None,
    ask: Callable[[dict], dict] | None = None,
    skip_bad_rows: bool = False,
) -> tuple[list[dict], int]:
    """Reads problems -> (rows, number of bad rows left out, 0 unless skip_bad_rows).

    source: one or several, separated by commas, of: a file .jsonl, .json (a list, or an object with one list) or
    .parquet; a data set of the hub, `owner/name` (the files of the split, found by their names); one of its files,
    `owner/name:path/of/file`. A final [:N] takes its first N rows, good or bad. split matters for the hub only.
    problem_field, answer_field: columns; default: the first of PROBLEM_FIELDS and of ANSWER_FIELDS that a row has.
    ask: makes the columns of a problem of those of the file; ValueError: it can't.

    The problem of a chat is its last user message. A number as answer keeps the file's spelling, and a list of one
    stands for its element. If the answer ends in GSM8K's line "#### 1,234", it becomes "1234", and its text the column
    "solution" if there is none. Pictures are those in the chat, or else of IMAGE_FIELDS; an <image> in the problem
    is the place of one, else they come before it. Four numbers as the answer of a row with pictures are a box, as text.
    ValueError: an unreadable file or data set, one without a good row, a bad row."""
    rows, bad = [], []

    def leave_out(place: str, error: object) -> None:
        bad.append(f"{place}: {error}")
        if not skip_bad_rows:
            raise ValueError(f"{bad[0]}; --skip-bad-rows leaves such rows out") from None

    for part in (part.strip() for part in source.split(",")):
        num_rows, num_bad, marked = len(rows), len(bad), {}
        for place, folder, record in records(part, split):
            try:
                columns, exact = parse_line(record) if isinstance(record, bytes) else record
                columns, exact = (ask(columns), ask(exact)) if ask else (columns, exact)
                row = to_row(columns, exact, problem_field, answer_field, folder)
                check_pictures(row)
            except ValueError as error:
                leave_out(place, error)
                continue
            if MARK in row["problem"] and "images" not in row:
                marked[len(rows)] = place
            rows.append(row)
        if any("images" in row for row in rows[num_rows:]):  # among text alone the mark is text
            for place in marked.values():
                leave_out(place, f"{MARK} in the problem, but no picture")
            rows = [row for i, row in enumerate(rows) if i not in marked]
        if len(rows) == num_rows:
            bad_ones = bad[num_bad:]
            raise ValueError(
                f"{part}: no rows" + (f", but {len(bad_ones)} bad ones; the first: {bad_ones[0]}" if bad_ones else "")
            )
    return rows, len(bad)


def to_row(columns: object, exact: object, problem_field: str | None, answer_field: str | None, folder: Path) -> dict:
    """A row as `load` returns it. exact: the same columns with decimals as text, as the file spells them. folder: where
    its pictures' paths begin. ValueError: what is wrong with the row."""
    if not isinstance(columns, dict):
        raise ValueError(f"a row is an object of columns, not {columns!r:.60}")
    name, chat = find(columns, problem_field, PROBLEM_FIELDS, "problem")
    problem, in_chat = flattened(last_message(chat, "user"))
    problem = checked_text(name, problem)
    held = name if in_chat else next((name for name in IMAGE_FIELDS if columns.get(name)), "images")
    values = columns.get(held) or []
    pictures = [picture_of(value, folder) for value in in_chat or (values if isinstance(values, list) else [values])]
    if MARK not in problem:
        problem = MARK * len(pictures) + problem
    if problem.count(MARK) != len(pictures) and (pictures or any(name in columns for name in IMAGE_FIELDS)):
        raise ValueError(f"{MARK} is {problem.count(MARK)} times in {name}, but there are {len(pictures)} pictures")

    fields = ANSWER_FIELDS
    if pictures and (reply := last_message(chat, "assistant")) is not chat:
        exact, fields = exact | {REPLY: flattened(reply)[0]}, (*fields, REPLY)
    name, value = find(exact, answer_field, fields, "answer")
    answer = checked_text(name, box_as_text(spelled(value)) if pictures else spelled(value))

    row = {name + "_" if name in RESERVED else name: value for name, value in columns.items()}
    if worked := GSM8K_ANSWER.search(answer):
        row.setdefault("solution", answer)
        answer = THOUSANDS_COMMA.sub("", worked[1])
    row.pop(held, None)
    if pictures:
        row["images"] = pictures
    return row | {"problem": problem, "answer": answer}


def find(columns: dict, field: str | None, usual: tuple[str, ...], what: str) -> tuple[str, object]:
    """The given column, or else the first usual one that exists, even if empty -> (name, value)."""
    for name in (field,) if field else usual:
        value = columns
        try:
            for key in (name,) if name in columns else name.split("."):
                value = value[key]
        except (KeyError, TypeError):
            continue
        return name, value
    missing = (
        f"no column {field!r}" if field else f"no {what} (looked for {', '.join(usual)}; --{what}-field names another)"
    )
    raise ValueError(f"{missing}; the columns are {', '.join(columns) or 'none'}")


def last_message(value: object, role: str) -> object:
    """The content of a chat's last message of this role; any other value is unchanged."""
    turns = value if isinstance(value, list) else []
    contents = [turn.get("content") for turn in turns if isinstance(turn, dict) and turn.get("role") == role]
    return contents[-1] if contents else value


def flattened(content: object) -> tuple[object, list]:
    """A chat's content in parts, text or pictures -> (its text, with marks; its pictures, as far as they are in it).
    Any other value is unchanged."""
    parts = content if isinstance(content, list) and all(isinstance(part, dict) for part in content) else []
    texts = [MARK if part.get("type") in ("image", "image_url") else part.get("text") for part in parts]
    if not parts or not all(isinstance(text, str) for text in texts):
        return content, []
    keys = ("image", "image_url", "url", "path", "base64")
    found = [next(filter(None, map(part.get, keys)), None) for part in parts if not isinstance(part.get("text"), str)]
    return "".join(texts), [picture for picture in found if picture]


def box_as_text(value: object) -> object:
    """A list of four numbers as text, [x1, y1, x2, y2]; any other value is unchanged."""
    try:
        is_box = isinstance(value, list) and len([float(number) for number in value]) == 4
    except (TypeError, ValueError):
        is_box = False
    return f"[{', '.join(map(str, value))}]" if is_box else value


def spelled(value: object) -> object:
    """A number as text, a list of one as its element; any other value is unchanged."""
    if isinstance(value, list) and len(value) == 1:
        return spelled(value[0])
    is_number = isinstance(value, int | float | Decimal) and not isinstance(value, bool)
    return str(value) if is_number and value - value == 0 else value  # inf - inf and nan - nan are nan


def checked_text(name: str, value: object) -> str:
    """The value, if it is a text that is not blank. ValueError: it isn't."""
    if not isinstance(value, str):
        raise ValueError(f"{name} is {value!r:.60}, not text")
    if not value.strip():
        raise ValueError(f"{name} is empty")
    if re.search("[\ud800-\udfff]", value):  # JSON can spell half a character, which no tokenizer accepts
        raise ValueError(f"{name} holds half a UTF-16 character")
    return value


def records(part: str, split: str) -> Iterator[tuple[str, Path, object]]:
    """The rows of one part of a source -> (file and line or row number, the file's folder, line as bytes or pair as
    from parse_line)."""
    limit = re.search(r"\[:(\d+)\]\Z", part)
    files = locate(part[: limit.start()] if limit else part, split)
    rows = ((f"{name}, {place}", path.parent, record) for name, path in files for place, record in reader(name)(path))
    return itertools.islice(rows, int(limit[1]) if limit else None)


def reader(name: str) -> Callable[[Path], Iterator[tuple[str, object]]]:
    """The function that reads files with this ending."""
    if (suffix := Path(name).suffix.lower()) not in READERS:
        raise ValueError(f"{name}: can't read this type of file; {', '.join(READERS)} can be read")
    return READERS[suffix]


def read_jsonl(path: Path) -> Iterator[tuple[str, object]]:
    """One row per line; blank lines are skipped, but counted in line numbers."""
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield f"line {number}", line


def parse_line(line: bytes) -> tuple[object, object]:
    """JSON -> (value, the same with decimals as text)."""
    try:
        text = line.decode("utf-8-sig")
        return json.loads(text), json.loads(text, parse_float=str)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg} at character {error.pos + 1})") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 (byte {error.start + 1})") from None
    except RecursionError:
        raise ValueError("not JSON (nested too deep)") from None


def read_json(path: Path) -> Iterator[tuple[str, object]]:
    """A list of rows, an object with one list of rows, or, as in some files of the hub, JSONL despite the ending."""
    try:
        pair = parse_line(path.read_bytes())
    except ValueError as error:
        if "Extra data" not in str(error):
            raise ValueError(f"{path}: {error}") from None
        yield from read_jsonl(path)
        return
    if isinstance(pair[0], dict):
        lists = [name for name, value in pair[0].items() if isinstance(value, list)]
        pair = tuple(value[lists[0]] for value in pair) if len(lists) == 1 else pair
    if not isinstance(pair[0], list):
        raise ValueError(f"{path}: {pair[0]!r:.60} is neither a list of rows nor an object with one list")
    yield from ((f"row {number}", row) for number, row in enumerate(zip(*pair, strict=True), 1))


def read_parquet(path: Path) -> Iterator[tuple[str, object]]:
    """Needs pyarrow."""
    try:
        import pyarrow.parquet
    except ImportError:
        raise ValueError(f"{path}: parquet files need pyarrow; pip install pyarrow, or use a .jsonl") from None
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            rows = (row for batch in file.iter_batches(256) for row in batch.to_pylist())
            yield from ((f"row {number}", (row, row)) for number, row in enumerate(rows, 1))
    except pyarrow.ArrowException as error:
        raise ValueError(f"{path}: not a parquet file ({str(error).partition(chr(10))[0]})") from None


READERS = {".jsonl": read_jsonl, ".json": read_json, ".parquet": read_parquet}


def locate(name: str, split: str) -> Iterator[tuple[str, Path]]:
    """One part of a source -> its files: (name for messages, path). The hub's are fetched one by one, as used."""
    path = Path(name).expanduser()
    repo, _, file = name.partition(":")
    if path.is_file():
        yield name, path
        return
    if name and path.is_dir():
        raise ValueError(f"{name}: is a folder; name a file in it")
    if path.suffix.lower() in READERS and not file or not HUB_NAME.fullmatch(repo):
        raise ValueError(f"{name!r}: no such file, nor a data set of the hub, owner/name[:path/of/file]")
    seek_hub()
    files = [file] if file else pick_files(repo, ask_hub(list_files, repo), split)
    for file in files:
        reader(file)  # fails for an unknown file type before the download
        yield f"{repo}:{file}", Path(ask_hub(huggingface_hub.hf_hub_download, repo, file))


@lru_cache(1)
def seek_hub() -> None:
    """If the hub can't be reached, its cache is all there is: read at once, not after half a minute of retries."""
    utils.logging.set_verbosity_error()  # not of its retries; a final failure is one line of ours
    try:
        utils.get_session().head(constants.ENDPOINT, timeout=5)
    except Exception:  # of the http library: no route, no name, no answer, or offline mode
        constants.HF_HUB_OFFLINE = True


def list_files(repo: str, repo_type: str) -> list[str]:
    """The files of a repository: those on the hub, or without a network those in its cache."""
    try:
        return huggingface_hub.list_repo_files(repo, repo_type=repo_type)
    except OfflineModeIsEnabled:
        folder = Path(huggingface_hub.snapshot_download(repo, repo_type=repo_type))
        return [str(file.relative_to(folder)) for file in sorted(folder.rglob("*")) if file.is_file()]


def ask_hub(ask: Callable, repo: str, *arguments: str) -> object:
    """The hub's answer. ValueError, in one line: any failure, such as no network, no such data set or no permission."""
    try:
        return ask(repo, *arguments, repo_type="dataset")
    except Exception as error:  # hub, http and file errors have no common base class
        what, reason = ":".join((repo, *arguments)), str(error).strip().partition("\n")[0]
        failure = f"the hub failed ({type(error).__name__}: {reason})"
        if isinstance(error, LocalEntryNotFoundError | OfflineModeIsEnabled):
            failure = "the hub can't be reached, and its cache lacks it"
        raise ValueError(f"{what}: no local file, and {failure}; a local file works too") from None


def pick_files(repo: str, files: list[str], split: str) -> list[str]:
    """The files of a split: all its shards, in order. File names count before folders, files that name no split are
    "train", and HUB_CONFIGS decides between several configs. ValueError, which lists the files: none, or ambiguous."""
    data = [file for file in sorted(files) if Path(file).suffix.lower() in READERS and not HUB_OTHER.search(file)]
    word, any_word = (
        re.compile(rf"(?<![^\W_])({spellings})(?![^\W_])", re.IGNORECASE)
        for spellings in (HUB_SPLITS.get(split, re.escape(split)), "|".join(HUB_SPLITS.values()))
    )
    chosen = [file for file in data if word.search(Path(file).name)] or [file for file in data if word.search(file)]
    if split == "train":
        chosen = chosen or [file for file in data if not any_word.search(file)]

    groups: dict[str, dict[str, list[str]]] = {}  # config folder -> name without shard number -> files
    for file in chosen:
        config = "/".join(folder for folder in Path(file).parts[:-1] if not word.fullmatch(folder))
        groups.setdefault(config, {}).setdefault(HUB_SHARD.sub("*", Path(file).name), []).append(file)
    configs = [config for config in HUB_CONFIGS if config in groups][:1] or list(groups)
    if len(configs) == 1 and len(groups[configs[0]]) == 1:
        return next(iter(groups[configs[0]].values()))
    problem = f"several choices of files for {split!r}" if chosen else f"no file for {split!r}"
    listed = ", ".join((chosen or data)[:20]) or "no .jsonl, .json or .parquet at all"
    raise ValueError(f"{repo}: {problem}; name one as {repo}:FILE, of {listed}")


def order(num_problems: int, seed: int, start: int, count: int) -> list[int]:
    """The indices of the problems at positions start ... start + count - 1 of an endless stream of epochs.

    Epoch e, from position e * num_problems on, is a permutation of all problems that depends on (seed, e) alone: none
    comes twice or is left out at its end, and a resumed run needs to know its position only."""
    if num_problems < 1 or min(seed, start, count) < 0:
        raise ValueError(f"order({num_problems}, {seed}, {start}, {count}): needs a problem, and no negative number")
    first, last = start // num_problems, (start + count - 1) // num_problems
    stream: list[int] = []
    for epoch in range(first, last + 1):
        generator = np.random.default_rng(np.random.SeedSequence((seed, epoch)))
        stream += generator.permutation(num_problems).tolist()
    offset = start - first * num_problems
    return stream[offset : offset + count]
