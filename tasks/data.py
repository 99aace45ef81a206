"""Where problems come from, how a problem becomes a prompt, and in which order problems are taken.

    rows, skipped = load("openai/gsm8k")                                   the hub: its files of the split "train"
    rows, skipped = load("openai/gsm8k:main/test-00000-of-00001.parquet")  one of them
    rows, skipped = load("aime.jsonl,more.json[:100],big.parquet")         local files, joined; 100 rows of one

A row is a dict: "problem" and "answer", both non-empty text, beside every column of the file under its own name.
"""

import itertools
import json
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import numpy as np

# Where a problem and its answer are looked for, the first that a row has; a dot goes into a nested column. A worked
# solution is the answer of last resort.
PROBLEM_FIELDS = ("problem", "question", "prompt", "input", "query", "messages")
ANSWER_FIELDS = ("answer", "final_answer", "ground_truth", "target", "label", "reward_model.ground_truth")
ANSWER_FIELDS += ("extra_info.answer", "extra_info.ground_truth", "solution")

RESERVED = ("prompts", "completions", "completion_ids")  # arguments of a reward; such a column is renamed: "prompts_"
GSM8K_ANSWER = re.compile(r"^#### *(\S.*?)\s*\Z", re.MULTILINE)  # the last line of a worked answer
THOUSANDS_COMMA = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
HUB_CONFIGS = ("main", "default", "data", "")  # folders, the preferred first, where a data set has several of them
HUB_SPLITS = {"train": "train|training", "validation": "validation|valid|val|dev", "test": "test"}  # in file names
HUB_OTHER = re.compile(r"(^|/)(\.|dataset_infos?\.)")  # files without problems
HUB_SHARD = re.compile(r"-\d+-of-\d+(-[0-9a-f]+)?(?=\.)|^\d+(?=\.)")  # train-00000-of-00002.parquet, 0001.parquet

CONVERSATION = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The assistant "
    "first thinks about the reasoning process in the mind and then provides the user with the answer"
)
MONOLOGUE = (
    "You are a helpful AI Assistant, designed to provided well-reasoned and detailed responses. You FIRST think about "
    "the reasoning process as an internal monologue and then provide the user with the answer. "
)
IN_A_BOX = "Please reason step by step, and put your final answer within \\boxed{}."

# Name -> (system message, what follows the problem in the user's message).
SYSTEM_PROMPTS: dict[str, tuple[str, str]] = {
    "none": ("", ""),
    # paper B.3, Qwen 7B: the example without its chat markers, and with the "\boxed{}" that its typesetting lost
    "qwen-7b": ("You are a helpful assistant.", "\n" + IN_A_BOX),
    # paper B.3, 1.5B
    "1.5b": (
        CONVERSATION + ". The reasoning process and answer are enclosed within <think> </think> and <answer> </answer> "
        "tags, respectively, i.e., <think> reasoning process here </think><answer> answer here </answer>",
        "",
    ),
    # released code, open-rs/recipes/gpg.yaml: what the 1.5B runs were given; the doubled braces are the recipe's
    "open-rs": (
        CONVERSATION + ", and put your final answer within \\boxed{{}} . The reasoning process and answer are enclosed "
        "within <think> </think> and <answer> </answer> tags, respectively, i.e., <think> reasoning process here "
        "</think> <answer> answer here </answer>. Note that respond by English, NOT use other languages.",
        "",
    ),
    # released code, open-r1/recipes: MATH-lighteval, 7B; and config_simple_rl_gpg.yaml, which asks for a box instead
    "math-lighteval": (MONOLOGUE + "The reasoning process MUST BE enclosed within <think> and </think> tags.", ""),
    "math-lighteval-boxed": (MONOLOGUE + IN_A_BOX, ""),
}


def load(
    source: str,
    *,
    split: str = "train",
    problem_field: str | None = None,
    answer_field: str | None = None,
    skip_bad_rows: bool = False,
) -> tuple[list[dict], int]:
    """Reads problems -> (rows, number of bad rows left out, 0 unless skip_bad_rows).

    source: files .jsonl, .json (a list, or an object with one list) or .parquet, or data sets of the hub, `owner/name`
    (the files of the split, found by their names) or `owner/name:path/of/file`; [:N] behind one: only its first N rows,
    good or bad; several are joined by commas. split matters to the hub only. problem_field, answer_field: columns, a
    dot goes into a nested one; default: the first of PROBLEM_FIELDS and of ANSWER_FIELDS that a row has.

    Of a chat, the last user message is the problem. A number as answer keeps the file's spelling, a list of one is its
    element, and of a text that ends in GSM8K's line "#### 1,234" the answer is "1234", and the text becomes the column
    "solution" if there is none. ValueError: an unreadable file or data set, one without a good row, a bad row."""
    rows, num_bad = [], 0
    for part in (part.strip() for part in source.split(",")):
        num_before, bad = len(rows), []
        for place, record in records(part, split):
            try:
                columns, exact = parse_line(record) if isinstance(record, bytes) else record
                rows.append(to_row(columns, exact, problem_field, answer_field))
            except ValueError as error:
                bad.append(f"{place}: {error}")
                if not skip_bad_rows:
                    raise ValueError(f"{bad[0]}; --skip-bad-rows leaves such rows out") from None
        if len(rows) == num_before:
            raise ValueError(f"{part}: no rows" + (f", but {len(bad)} bad ones; the first: {bad[0]}" if bad else ""))
        num_bad += len(bad)
    return rows, num_bad


def to_row(columns: object, exact: object, problem_field: str | None, answer_field: str | None) -> dict:
    """A row of a file -> a row of ours. exact: the same, but with decimals as text, as the file spells them.
    ValueError: what is wrong with it."""
    if not isinstance(columns, dict):
        raise ValueError(f"a row is an object of columns, not {columns!r:.60}")
    name, value = find(columns, problem_field, PROBLEM_FIELDS, "problem")
    problem = checked(name, last_user_message(value))
    name, value = find(exact, answer_field, ANSWER_FIELDS, "answer")
    answer = checked(name, spelled(value))

    row = {name + "_" if name in RESERVED else name: value for name, value in columns.items()}
    if worked := GSM8K_ANSWER.search(answer):
        row.setdefault("solution", answer)
        answer = THOUSANDS_COMMA.sub("", worked[1])
    return row | {"problem": problem, "answer": answer}


def find(columns: dict, field: str | None, usual: tuple[str, ...], what: str) -> tuple[str, object]:
    """The given field, or else the first usual one that is there -> (name, value). An empty one is there too."""
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


def last_user_message(value: object) -> object:
    """The content of a chat's last user message; what is no chat stays as it is."""
    turns = value if isinstance(value, list) else []
    contents = [turn.get("content") for turn in turns if isinstance(turn, dict) and turn.get("role") == "user"]
    return contents[-1] if contents else value


def spelled(value: object) -> object:
    """A number as text, a list of one as its element; anything else stays as it is."""
    if isinstance(value, list) and len(value) == 1:
        return spelled(value[0])
    is_number = isinstance(value, int | float | Decimal) and not isinstance(value, bool)
    return str(value) if is_number and value - value == 0 else value  # inf - inf and nan - nan are nan


def checked(name: str, value: object) -> str:
    """The value, if it is a text that says something. ValueError: it isn't."""
    if not isinstance(value, str):
        raise ValueError(f"{name} is {value!r:.60}, not text")
    if not value.strip():
        raise ValueError(f"{name} is empty")
    if re.search("[\ud800-\udfff]", value):  # JSON can spell half a character; no tokenizer takes it
        raise ValueError(f"{name} holds half a UTF-16 character")
    return value


def records(part: str, split: str) -> Iterator[tuple[str, object]]:
    """The rows of one part of a source -> (file and place in it, line as bytes or pair as of parse_line)."""
    limit = re.search(r"\[:(\d+)\]\Z", part)
    files = locate(part[: limit.start()] if limit else part, split)
    rows = ((f"{name}, {place}", record) for name, path in files for place, record in reader(name)(path))
    return itertools.islice(rows, int(limit[1]) if limit else None)


def reader(name: str) -> Callable[[Path], Iterator[tuple[str, object]]]:
    """The function that reads files of such a name."""
    if (suffix := Path(name).suffix.lower()) not in READERS:
        raise ValueError(f"{name}: can't read a file with such an ending; {', '.join(READERS)} can be read")
    return READERS[suffix]


def read_jsonl(path: Path) -> Iterator[tuple[str, object]]:
    """A line is a row; blank lines are none, but are counted."""
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
    """A list of rows, an object with one list of rows, or, as some files of the hub are, JSONL by another name."""
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
        raise ValueError(f"{path}: {pair[0]!r:.60}; wanted is a list of rows, or an object with one list")
    yield from ((f"row {number}", row) for number, row in enumerate(zip(*pair, strict=True), 1))


def read_parquet(path: Path) -> Iterator[tuple[str, object]]:
    """Needs pyarrow."""
    try:
        import pyarrow.parquet
    except ImportError:
        raise ValueError(f"{path}: parquet files need pyarrow; pip install pyarrow, or bring a .jsonl") from None
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            rows = (row for batch in file.iter_batches() for row in batch.to_pylist())
            yield from ((f"row {number}", (row, row)) for number, row in enumerate(rows, 1))
    except pyarrow.ArrowException as error:
        raise ValueError(f"{path}: not a parquet file ({str(error).partition(chr(10))[0]})") from None


READERS = {".jsonl": read_jsonl, ".json": read_json, ".parquet": read_parquet}


def locate(name: str, split: str) -> Iterator[tuple[str, Path]]:
    """A name of the source grammar -> its files: (name for messages, path). One of the hub is fetched at its turn."""
    path = Path(name).expanduser()
    repo, _, file = name.partition(":")
    if path.is_file():
        yield name, path
        return
    if name and path.is_dir():
        raise ValueError(f"{name}: a folder; name a file in it")
    if path.suffix.lower() in READERS and not file or not HUB_NAME.fullmatch(repo):
        raise ValueError(f"{name!r}: no such file, and not owner/name[:path/of/file], a data set of the hub, either")
    import huggingface_hub

    files = [file] if file else pick_files(repo, ask_hub(huggingface_hub.list_repo_files, repo), split)
    for file in files:
        reader(file)  # a file of a wrong kind need not be fetched
        yield f"{repo}:{file}", Path(ask_hub(huggingface_hub.hf_hub_download, repo, file))


def ask_hub(ask: Callable, repo: str, *arguments: str) -> object:
    """The hub's answer; any failure (no network, no such data set, not allowed) is a ValueError in one line."""
    try:
        return ask(repo, *arguments, repo_type="dataset")
    except Exception as error:  # hub, http and file errors have no ancestor in common
        what, reason = ":".join((repo, *arguments)), str(error).strip().partition("\n")[0]
        failure = f"no local file, and the hub failed ({type(error).__name__}: {reason})"
        raise ValueError(f"{what}: {failure}; a local file works too") from None


def pick_files(repo: str, files: list[str], split: str) -> list[str]:
    """The files of a split: all its shards, in order. Names count before folders, files that name no split are "train",
    and of several configs one in HUB_CONFIGS is taken. ValueError, which lists the files: no choice, or several."""
    data = [file for file in sorted(files) if Path(file).suffix.lower() in READERS and not HUB_OTHER.search(file)]
    word, any_word = (
        re.compile(rf"(?<![^\W_])({spellings})(?![^\W_])", re.IGNORECASE)
        for spellings in (HUB_SPLITS.get(split, re.escape(split)), "|".join(HUB_SPLITS.values()))
    )
    chosen = [file for file in data if word.search(Path(file).name)] or [file for file in data if word.search(file)]
    if split == "train":
        chosen = chosen or [file for file in data if not any_word.search(file)]

    groups: dict[str, dict[str, list[str]]] = {}  # config folder -> name but for the shard's number -> files
    for file in chosen:
        config = "/".join(folder for folder in Path(file).parts[:-1] if not word.fullmatch(folder))
        groups.setdefault(config, {}).setdefault(HUB_SHARD.sub("*", Path(file).name), []).append(file)
    configs = [config for config in HUB_CONFIGS if config in groups][:1] or list(groups)
    if len(configs) == 1 and len(groups[configs[0]]) == 1:
        return next(iter(groups[configs[0]].values()))
    problem = f"several choices of files for {split!r}" if chosen else f"no file for {split!r}"
    listed = ", ".join((chosen or data)[:20]) or "no .jsonl, .json or .parquet at all"
    raise ValueError(f"{repo}: {problem}; name one as {repo}:FILE, of {listed}")


def system_prompt(name_or_text: str) -> tuple[str, str]:
    """A name in SYSTEM_PROMPTS, or else the system message itself -> (system, suffix) for encode_prompt.
    ValueError: a single word that is no name."""
    if name_or_text in SYSTEM_PROMPTS:
        return SYSTEM_PROMPTS[name_or_text]
    if name_or_text.split() == [name_or_text]:
        names = ", ".join(SYSTEM_PROMPTS)
        raise ValueError(f"no system prompt {name_or_text!r}; there are {names}, or else write a text of several words")
    return name_or_text, ""


def load_template(path: str | Path) -> str:
    """A prompt of the user's own: a text with {problem} where the problem goes and, if wanted, {system}. No other brace
    means anything. One newline at the end is the editor's and is dropped. ValueError: no such file, or no {problem}."""
    try:
        template = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a template, a text file with {{problem}} in it ({error})") from None
    if "{problem}" not in template:
        raise ValueError(f"{path}: no {{problem}} in the template; it marks where the problem goes")
    return template.removesuffix("\n")


def encode_prompt(
    tokenizer, problem: str, *, system: str = "", suffix: str = "", template: str | None = None
) -> list[int]:
    """The prompt as the model sees it, as token ids. The user's text is problem + suffix.

    By template, if given; else by the tokenizer's chat template, opened for the assistant; else as plain text: system,
    an empty line, "Question: ...", "Answer:". A chat template that refuses or ignores a system message gets it in front
    of the user's text. A chat template spells its special tokens itself; other text gets those that the tokenizer puts
    in front, not those behind, and no second BOS. ValueError: a system message, and a template without {system}."""
    user = problem + suffix
    if template is None and tokenizer.chat_template:
        return tokenizer.encode(chat_text(tokenizer, user, system), add_special_tokens=False)
    if template is None:
        template = "{system}\n\nQuestion: {problem}\nAnswer:" if system else "Question: {problem}\nAnswer:"
    if system and "{system}" not in template:
        raise ValueError("the template has no {system} for the system prompt; add it, or use --system-prompt none")
    # in one pass, and not by str.format: problems are full of braces
    text = re.sub(r"\{(problem|system)\}", lambda hole: user if hole[1] == "problem" else system, template)

    bare = tokenizer.encode(text, add_special_tokens=False)
    if bare[:1] == [tokenizer.bos_token_id]:  # the template spells it
        return bare
    whole = tokenizer.encode(text)
    start = next((i for i in range(len(whole)) if whole[i : i + len(bare)] == bare), 0)
    return whole[:start] + bare  # what comes behind, an EOS, would end the prompt before its answer


def chat_text(tokenizer, user: str, system: str) -> str:
    """The chat template's text of system and user message, up to where the assistant speaks."""

    def render(*messages: tuple[str, str]) -> str:
        chat = [{"role": role, "content": content} for role, content in messages]
        return tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)

    if not system.strip():
        return render(("user", user))
    try:
        text = render(("system", system), ("user", user))
    except Exception:  # jinja's, which only transformers needs to know; a template that is all broken fails again below
        text = ""
    return text if system.strip() in text else render(("user", f"{system}\n\n{user}"))


def order(num_problems: int, seed: int, start: int, count: int) -> list[int]:
    """The problems (their indices) at positions start ... start + count - 1 of the endless stream.

    Epoch e, positions e * num_problems and on, is a permutation of all problems that depends on (seed, e) alone: no
    problem twice in an epoch, none left out at its end, and a position is all that a resumed run has to know."""
    if num_problems < 1 or min(seed, start, count) < 0:
        raise ValueError(f"order({num_problems}, {seed}, {start}, {count}): wants a problem, and no negative number")
    first, last = start // num_problems, (start + count - 1) // num_problems
    stream: list[int] = []
    for epoch in range(first, last + 1):
        generator = np.random.default_rng(np.random.SeedSequence((seed, epoch)))
        stream += generator.permutation(num_problems).tolist()
    offset = start - first * num_problems
    return stream[offset : offset + count]
