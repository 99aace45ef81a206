"""Reads problems from files and the hub, and shuffles them for training.

    rows, skipped = load("openai/gsm8k")                                   the hub: its files of the split "train"
    rows, skipped = load("openai/gsm8k:main/test-00000-of-00001.parquet")  one of its files
    rows, skipped = load("aime.jsonl,more.json[:100],big.parquet")         local files, joined; 100 rows of one

A row is a dict: "problem" and "answer", both non-empty text, and every column of the file under its own name. If it
has pictures, "images" takes the place of the column that held them (see tasks/pictures.py); "turns" are the messages of
a chat before the problem. `python -m tasks.data SOURCE` prints what would be read of it.
"""

import itertools
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import huggingface_hub
import numpy as np
from huggingface_hub import constants, utils
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

from grader.extraction import extract_gold
from tasks.pictures import check_pictures
from tasks.rows import REST, Spelled, to_row

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
HUB_CONFIGS = ("main", "default", "data", "")  # folders, in order of preference
HUB_SPLITS = {"train": "train|training", "validation": "validation|valid|val|dev", "test": "test"}  # in file names
HUB_OTHER = re.compile(r"(^|/)(\.|dataset_infos?\.)")  # files without problems
HUB_SHARD = re.compile(r"-\d+-of-(\d+)(-[0-9a-f]+)?(?=\.)|^\d+(?=\.)")  # train-00000-of-00002.parquet, 0001.parquet


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

    source: one or several, separated by commas, of: a file .jsonl, .json (a list, or an object with one list, or with
    one by the name of the split) or .parquet; a data set of the hub, `owner/name` (the files of the split, found by
    their names); one of its files, `owner/name:path/of/file`. A final [:N] takes its first N rows, good or bad.
    problem_field, answer_field: columns, in place of the usual ones; the answer is then taken as it is. ask: makes the
    columns of a problem of those of the file; ValueError: it can't.

    Options are put below the problem, and the answer is a letter. A number as answer keeps the file's spelling. If it
    ends in GSM8K's line "#### 1,234", it becomes "1234", and its text the column "solution" if there is none.
    ValueError: an unreadable file or data set, one without a good row, a bad row."""
    rows, num_bad = [], 0
    for part in map(str.strip, source.split(",")):
        good, bad = [], []
        for place, row, found in read(part, split, problem_field, answer_field, ask):
            if row is None and not skip_bad_rows:
                raise ValueError(f"{place}: {found}; --skip-bad-rows leaves such rows out")
            good.append(row) if row else bad.append(f"{place}: {found}")
        if not good:
            raise ValueError(f"{part}: no rows" + (f", but {len(bad)} bad ones; the first: {bad[0]}" if bad else ""))
        rows, num_bad = rows + good, num_bad + len(bad)
    return rows, num_bad


def read(part: str, split: str, problem_field=None, answer_field=None, ask=None) -> Iterator[tuple]:
    """The rows of one part of a source -> (file and line or row number, the row or None, the columns that it was read
    from or what is wrong with it). Arguments as of `load`. ValueError: the source can't be read."""
    limit = re.search(r"\[:(\d+)\]\Z", part)
    files = locate(part[: limit.start()] if limit else part, split)
    records = ((name, path, *found) for name, path in files for found in reader(name)(path, split))
    for name, path, place, record in itertools.islice(records, int(limit[1]) if limit else None):
        try:
            columns = parse_line(record) if isinstance(record, bytes) else record
            columns = ask(columns) if ask else columns
            row, found = to_row(columns, problem_field, answer_field, path.parent)
            check_pictures(row)
        except (ValueError, RecursionError) as error:
            row, found = None, error
        yield f"{name}, {place}", row, found


def reader(name: str) -> Callable[[Path, str], Iterator[tuple[str, object]]]:
    """The function that reads files with this ending: number of a line or row, and a line's bytes or a row."""
    if (suffix := Path(name).suffix.lower()) not in READERS:
        raise ValueError(f"{name}: can't read this type of file; {', '.join(READERS)} can be read")
    return READERS[suffix]


def read_jsonl(path: Path, _split: str) -> Iterator[tuple[str, object]]:
    """One row per line; blank lines are skipped, but counted in line numbers."""
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield f"line {number}", line


def parse_line(line: bytes) -> object:
    """A JSON value, whose decimals are Spelled."""
    try:
        return json.loads(line.decode("utf-8-sig"), parse_float=Spelled)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg} at character {error.pos + 1})") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 (byte {error.start + 1})") from None
    except RecursionError:
        raise ValueError("not JSON (nested too deep)") from None


def read_json(path: Path, split: str) -> Iterator[tuple[str, object]]:
    """A list of rows; an object with one list, or one by the name of the split; or, as in some files of the hub, JSONL
    despite the ending."""
    try:
        rows = parse_line(path.read_bytes())
    except ValueError as error:
        if "Extra data" not in str(error):
            raise ValueError(f"{path}: {error}") from None
        yield from read_jsonl(path, split)
        return
    if isinstance(rows, dict):
        lists = {name: value for name, value in rows.items() if isinstance(value, list)}
        named = [value for name, value in lists.items() if re.fullmatch(HUB_SPLITS.get(split, split), name, re.I)]
        found = named or list(lists.values())
        rows = found[0] if len(found) == 1 else rows
    if not isinstance(rows, list):
        raise ValueError(f"{path}: {rows!r:.60} is neither a list of rows nor an object with one list, or a {split}")
    yield from ((f"row {number}", row) for number, row in enumerate(rows, 1))


def read_parquet(path: Path, _split: str) -> Iterator[tuple[str, object]]:
    """Needs pyarrow."""
    try:
        import pyarrow.parquet
    except ImportError:
        raise ValueError(f"{path}: parquet files need pyarrow; pip install pyarrow, or use a .jsonl") from None
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            rows = (row for batch in file.iter_batches(256) for row in batch.to_pylist())
            yield from ((f"row {number}", row) for number, row in enumerate(rows, 1))
    except pyarrow.ArrowException as error:
        raise ValueError(f"{path}: not a parquet file ({str(error).partition(chr(10))[0]})") from None


READERS = {".jsonl": read_jsonl, ".json": read_json, ".parquet": read_parquet}


def locate(name: str, split: str) -> Iterator[tuple[str, Path]]:
    """One part of a source -> its files: (name for messages, path). The hub's are fetched one by one, as used."""
    path = Path(os.path.expanduser(name))
    repo, _, file = name.partition(":")
    if path.is_file():
        yield name, path
        return
    if name and path.is_dir():
        raise ValueError(f"{name}: is a folder; name a file in it")
    if path.suffix.lower() in READERS and not file or not HUB_NAME.fullmatch(repo):
        raise ValueError(f"{name!r}: no such file, nor a data set of the hub, owner/name[:path/of/file]")
    seek_hub()
    for chosen in [file] if file else all_shards(repo, pick_files(repo, ask_hub(repo), split)):
        reader(chosen)  # fails for an unknown file type before the download
        yield f"{repo}:{chosen}", Path(ask_hub(repo, chosen))


@lru_cache(1)
def seek_hub() -> None:
    """If the hub can't be reached, its cache is all there is: read at once, not after half a minute of retries."""
    utils.logging.set_verbosity_error()  # not of its retries; a final failure is one line of ours
    try:
        utils.get_session().head(constants.ENDPOINT, timeout=5)
    except Exception:  # of the http library: no route, no name, no answer, or offline mode
        constants.HF_HUB_OFFLINE = True


def ask_hub(repo: str, file: str = ""):
    """The path of a file of a data set, fetched if need be; without one the names of its files: those on the hub, or
    without a network those in its cache. ValueError, in one line: any failure, as of the network or of permission."""
    try:
        if file:
            return huggingface_hub.hf_hub_download(repo, file, repo_type="dataset")
        with suppress(OfflineModeIsEnabled):
            return huggingface_hub.list_repo_files(repo, repo_type="dataset")
        folder = Path(huggingface_hub.snapshot_download(repo, repo_type="dataset"))
        return [str(found.relative_to(folder)) for found in sorted(folder.rglob("*")) if found.is_file()]
    except Exception as error:  # hub, http and file errors have no common base class
        what, reason = f"{repo}:{file}".removesuffix(":"), str(error).strip().partition("\n")[0]
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
        groups.setdefault(config, {}).setdefault(HUB_SHARD.sub(r"*\1", Path(file).name), []).append(file)
    configs = [config for config in HUB_CONFIGS if config in groups][:1] or list(groups)
    if len(configs) == 1 and len(groups[configs[0]]) == 1:
        return next(iter(groups[configs[0]].values()))
    problem = f"several choices of files for {split!r}" if chosen else f"no file for {split!r}"
    listed = ", ".join((chosen or data)[:20]) or "no .jsonl, .json or .parquet at all"
    raise ValueError(f"{repo}: {problem}; name one as {repo}:FILE, of {listed}")


def all_shards(repo: str, files: list[str]) -> Iterator[str]:
    """The files, one by one. ValueError once a shard is missing, as in a cache that holds a part of the data set."""
    shards = [re.search(r"-(\d+)-of-(\d+)", Path(file).name) for file in files]
    first = min(1, int(shards[0][1])) if shards[0] else 0  # some count from 1
    for number, (file, shard) in enumerate(zip(files, shards, strict=True)):
        if shard and int(shard[1]) != first + number:
            break
        yield file
    else:
        number += 1
    if shard and number < int(shard[2]):
        raise ValueError(f"{repo}: part {first + number} of {shard[2]} is missing, in the hub's cache or there")


def order(num_problems: int, seed: int, start: int, count: int) -> list[int]:
    """The indices of the problems at positions start ... start + count - 1 of an endless stream of epochs.

    Epoch e, from position e * num_problems on, is a permutation of all problems that depends on (seed, e) alone: none
    comes twice or is left out at its end, and a resumed run needs to know its position only."""
    first, last = start // num_problems, max(start, start + count - 1) // num_problems
    stream = np.concatenate([_epoch(num_problems, seed, epoch) for epoch in range(first, last + 1)])
    offset = start - first * num_problems
    return stream[offset : offset + count].tolist()


@lru_cache(2)  # each step asks several times
def _epoch(num_problems: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng(np.random.SeedSequence((seed, epoch))).permutation(num_problems)


def main(source: str = "", problem_field: str | None = None, answer_field: str | None = None) -> None:
    """Prints what would be read of a source's training split, and what would not."""
    try:
        parts = [part.strip() for part in source.split(",")]
        tried = [each for part in parts for each in read(part, "train", problem_field, answer_field)]
    except (ValueError, OSError) as error:
        sys.exit(f"python -m tasks.data SOURCE [PROBLEM_FIELD [ANSWER_FIELD]]: {error}")
    good, wrong = [each for each in tried if each[1]], [f"  {place}: {error}" for place, row, error in tried if not row]
    kinds, rests = zip(*(each[2].rpartition(REST)[::2] for each in good), strict=True) if good else ((), ())
    print(*(f"{num} rows: {columns}" for columns, num in Counter(kinds).items()), sep="\n")
    rest = dict.fromkeys(name for names in rests for name in names.split(", ") if name)
    print(f"not read: {', '.join(rest)}" if rest else "all columns are read" if good else "no row is read")
    for place, row, _ in good[:3]:
        texts = [(turn["role"], turn["content"]) for turn in row.get("turns", ())]
        texts += [("prompt", row["problem"]), ("gold", extract_gold(row["answer"]))]
        print(f"\n{place}", *(f"{what:9} {text!r}" for what, text in texts), sep="\n  ")
    print(f"\n{len(wrong)} rows skipped" + ", the first of them:" * (len(wrong) > 10), *wrong[:10], sep="\n")


if __name__ == "__main__":
    sys.stdout and sys.stdout.reconfigure(errors="backslashreplace")  # any code page
    main(*sys.argv[1:4])
