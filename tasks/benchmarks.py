"""The benchmarks: where each is found, how many problems it has, and a check that its answers can be graded."""

import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from grader.boxes import find_box
from grader.equality import is_equiv, is_parsed
from grader.extraction import extract_answer
from tasks import data
from tasks.built_in import BENCHES
from tasks.prompts import THINK
from tasks.rows import IMAGE_FIELDS


@dataclass(frozen=True)
class Benchmark:
    """The defaults are those of the user's own problems."""

    size: int | None = None  # number of problems; None: any
    file: str = ""  # in --data-dir
    hub: str = ""  # public data set; "": none that can be read as it is
    split: str = "test"
    ask: Callable[[dict], dict] | None = None  # columns of a file -> of a problem with a picture; None: no picture
    grade: str = "accuracy"  # the function in rewards.py that grades a completion
    system_prompt: str = "none"  # that of training, as the template; flags replace them
    template: str = "none"


def option(row: dict) -> dict:
    """CV-Bench, whose prompt lists the choices: the gold is a letter, and the text of that option."""
    letter, choices = row["answer"].strip("()"), dict(zip("ABCDEFGHIJ", row["choices"], strict=False))
    return {"problem": row["prompt"], "answer": f"({letter}) {choices[letter]}", "choices": None}


def boxed(row: dict) -> dict:
    """ReasonSeg as the released gen_box_ann.py writes it: the first instruction and the first box, in pixels."""
    question = f"Output the bounding box in the image corresponding to the instruction: {row['instruction'][0]}"
    return {"problem": question, "answer": row["boxes"][0]}


def named(what: str, kind: str) -> Callable[[dict], dict]:
    """The question of the released code for pictures of one of many classes."""
    question = f"This is an image containing {what}. Please identify the {kind} based on the image.\n"
    question += f"{THINK}final answer in <answer> </answer> tags.The output answer format should be as follows:\n"
    question += "<think> ... </think> <answer>species name</answer>\nPlease strictly follow the format."
    return lambda _: {"problem": question}


CV_BENCH = "nyu-visionx/CV-Bench:test_2d.parquet,nyu-visionx/CV-Bench:test_3d.parquet"
BENCHMARKS = {
    "aime24": Benchmark(30, "aime24.jsonl", "HuggingFaceH4/aime_2024", "train"),
    "math500": Benchmark(500, "math500.jsonl", "HuggingFaceH4/MATH-500"),
    "amc23": Benchmark(40, "amc23.jsonl", "math-ai/amc23"),
    "minerva": Benchmark(272, "minerva_math.jsonl", "math-ai/minervamath"),
    "olympiadbench": Benchmark(675, "olympiadbench.jsonl", "zwhe99/simplerl-OlympiadBench"),
    "gsm8k": Benchmark(1319, "gsm8k_test.jsonl", "openai/gsm8k"),
    "addition": Benchmark(300),  # the built-in tasks, made by the files of these names
    "shapes": Benchmark(200, grade="iou_or_name"),
    "cvbench": Benchmark(2638, "cvbench.jsonl", CV_BENCH, ask=option, grade="choice_or_name", template="sat"),
    "geoqa": Benchmark(754, "geoqa_test_prompts.jsonl", ask=dict, system_prompt="geoqa"),
    "lisa": Benchmark(779, "lisa_test.json", ask=boxed, grade="iou", system_prompt="lisa"),
    "lisa-val": Benchmark(200, "lisa_val.json", ask=boxed, grade="iou", system_prompt="lisa"),
    "flowers102": Benchmark(6149, "flowers102.jsonl", ask=named("a plant", "species of the plant"), grade="class_name"),
    "pets37": Benchmark(3669, "pets37.jsonl", ask=named("a pet", "species of the pet"), grade="class_name"),
    "fgvc": Benchmark(3333, "fgvc.jsonl", ask=named("an aircraft", "model of the aircraft"), grade="class_name"),
    "cars196": Benchmark(8041, "cars196.jsonl", ask=named("a car", "model of the car"), grade="class_name"),
}


@dataclass(frozen=True)
class ProblemSet:
    rows: list[dict]  # "problem", "answer" and other columns
    source: str
    bad: int  # broken rows, left out
    benchmark: Benchmark = Benchmark()
    expected: int | None = None  # how many rows there should be; None: any number
    unequal: int = 0  # rows left out because the grader does not find their answer equal to itself
    unparsed: tuple[str, ...] = ()  # answers that the grader can only compare as text

    @property
    def whole(self) -> bool:
        """Are these all problems of a benchmark?"""
        return len(self.rows) == self.benchmark.size


def parse_benches(text: str) -> dict[str, int | None]:
    """`aime24,math500[:40]` -> how many problems of each benchmark to take, None for all."""
    chosen = {}
    for part in map(str.strip, text.split(",")):
        name, limit = re.fullmatch(r"(.*?)(?:\[:([1-9]\d*)\])?", part, re.DOTALL).groups()
        if name not in BENCHMARKS or name in chosen:
            wrong = "is given twice" if name in chosen else "is no benchmark"
            names = ", ".join(BENCHMARKS)
            raise ValueError(f"--bench: {part!r} {wrong}; there are {names}; NAME[:N] takes the first N")
        chosen[name] = limit and int(limit)
    return chosen


def load_sets(benches: str, folder: str | None, *, skip_bad_rows: bool) -> dict[str, ProblemSet]:
    """The chosen benchmarks by name, from files in the folder or else from the hub. ValueError: one can't be used."""
    sets = {}
    for name, limit in parse_benches(benches).items():
        benchmark = BENCHMARKS[name]
        if name in BENCHES.values():
            rows, bad, source = importlib.import_module(f"tasks.{name}").problems("test"), 0, "the built-in task"
            rows = [row | {"task": row["kind"]} if "kind" in row else row for row in rows]
        else:
            if folder and not Path(folder, benchmark.file).is_file():
                raise ValueError(f"--data-dir {folder}: has no file {benchmark.file}, from which {name} is read")
            if not folder and not benchmark.hub:
                raise ValueError(f"{name}: not on the hub in a readable form; --data-dir must hold {benchmark.file}")
            source = str(Path(folder, benchmark.file)) if folder else benchmark.hub
            source = ",".join(part + f"[:{limit}]" * bool(limit) for part in source.split(","))
            ask = partial(as_asked, name) if benchmark.ask else None
            rows, bad = data.load(source, split=benchmark.split, ask=ask, skip_bad_rows=skip_bad_rows)
        rows = rows[:limit]
        expected = min(benchmark.size, limit or benchmark.size)
        sets[name] = check_golds(name, ProblemSet(rows, source, bad, benchmark, expected), skip_bad_rows)
    return sets


def as_asked(name: str, columns: dict) -> dict:
    """The columns of a row of a file, as the benchmark asks it. ValueError: it is no such row, or has no picture."""
    try:
        asked = columns | BENCHMARKS[name].ask(columns)
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise ValueError(f"not a row of {name} ({type(error).__name__}: {error})") from None
    if not any(asked.get(field) for field in IMAGE_FIELDS[:3]):
        raise ValueError(f"no picture (looked for {', '.join(IMAGE_FIELDS[:3])})")
    return asked


def check_golds(name: str, problem_set: ProblemSet, skip_bad_rows: bool) -> ProblemSet:
    """The set without the rows whose gold answer does not equal itself: no completion could be right on them.
    ValueError: there are such rows, and skip_bad_rows is not set."""
    rows, grade = problem_set.rows, problem_set.benchmark.grade
    golds = [extract_answer(row["answer"]) or row["answer"] for row in rows]  # a worked solution submits its gold
    checks = {"accuracy": lambda gold: is_equiv(gold, gold), "iou": lambda gold: bool(find_box(gold)[1])}
    equal = [checks[grade](gold) if grade in checks else True for gold in golds]
    if not all(equal) and not skip_bad_rows:
        i = equal.index(False)
        wrong = f"{equal.count(False)} answers do not equal themselves; the first is problem {i}'s, {golds[i]!r:.80}"
        raise ValueError(f"{name}: {wrong}; --skip-bad-rows leaves such problems out")
    return replace(
        problem_set,
        rows=[row for row, same in zip(rows, equal, strict=True) if same],
        unequal=equal.count(False),
        unparsed=tuple(gold for gold in golds if grade == "accuracy" and not is_parsed(gold)),
    )
