"""The benchmarks: where each is found, how many problems it has, and a check that its answers can be graded."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from grader.equality import is_equiv, is_parsed
from grader.extraction import extract_answer
from tasks import addition, data


@dataclass(frozen=True)
class Benchmark:
    file: str  # in --data-dir
    hub: str  # public data set
    split: str
    size: int  # number of problems


BENCHMARKS = {
    "aime24": Benchmark("aime24.jsonl", "HuggingFaceH4/aime_2024", "train", 30),
    "math500": Benchmark("math500.jsonl", "HuggingFaceH4/MATH-500", "test", 500),
    "amc23": Benchmark("amc23.jsonl", "math-ai/amc23", "test", 40),
    "minerva": Benchmark("minerva_math.jsonl", "math-ai/minervamath", "test", 272),
    "olympiadbench": Benchmark("olympiadbench.jsonl", "zwhe99/simplerl-OlympiadBench", "test", 675),
    "gsm8k": Benchmark("gsm8k_test.jsonl", "openai/gsm8k", "test", 1319),
    "addition": Benchmark("", "", "test", addition.SIZES["test"]),  # the built-in task, made by tasks/addition.py
}


@dataclass(frozen=True)
class ProblemSet:
    rows: list[dict]  # "problem", "answer" and other columns
    source: str
    bad: int  # broken rows, left out
    expected: int | None = None  # how many rows there should be; None: any number
    size: int | None = None  # of the benchmark
    unequal: int = 0  # rows left out because the grader does not find their answer equal to itself
    unparsed: tuple[str, ...] = ()  # answers that the grader can only compare as text

    @property
    def whole(self) -> bool:
        """Are these all problems of a benchmark?"""
        return len(self.rows) == self.size


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
        if name == "addition":
            rows, bad, source = addition.problems("test")[:limit], 0, "the built-in task"
        else:
            if folder and not Path(folder, benchmark.file).is_file():
                raise ValueError(f"--data-dir {folder}: has no file {benchmark.file}, from which {name} is read")
            source = str(Path(folder, benchmark.file)) if folder else benchmark.hub
            source += f"[:{limit}]" if limit else ""
            rows, bad = data.load(source, split=benchmark.split, skip_bad_rows=skip_bad_rows)
        expected = min(benchmark.size, limit or benchmark.size)
        sets[name] = check_golds(name, ProblemSet(rows, source, bad, expected, benchmark.size), skip_bad_rows)
    return sets


def check_golds(name: str, problem_set: ProblemSet, skip_bad_rows: bool) -> ProblemSet:
    """The set without the rows whose gold answer does not equal itself: no completion could be right on them.
    ValueError: there are such rows, and skip_bad_rows is not set."""
    rows = problem_set.rows
    golds = [extract_answer(row["answer"]) or row["answer"] for row in rows]  # a worked solution submits its gold
    equal = [is_equiv(gold, gold) for gold in golds]
    if not all(equal) and not skip_bad_rows:
        i = equal.index(False)
        wrong = f"{equal.count(False)} answers do not equal themselves; the first is problem {i}'s, {golds[i]!r:.80}"
        raise ValueError(f"{name}: {wrong}; --skip-bad-rows leaves such problems out")
    return replace(
        problem_set,
        rows=[row for row, same in zip(rows, equal, strict=True) if same],
        unequal=equal.count(False),
        unparsed=tuple(gold for gold in golds if not is_parsed(gold)),
    )
