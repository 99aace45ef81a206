"""Prints the results of a folder's runs as Markdown: greedy accuracy compared with that before, on the same problems.

    python -m results.smollm2.table FOLDER TASK

FOLDER holds TASK-before.eval.jsonl and, for each run, TASK-METHOD-SEED.eval.jsonl (both by eval.py) and the folder
TASK-METHOD-SEED of train.py. Standard errors are over problems; in the rows of a method, ± is the standard
deviation over its seeds.
"""

import statistics
import sys
from pathlib import Path

from run.checkpoint import read_lines
from run.scores import mean_and_error, read_result


def main(folder: str, task: str) -> None:
    before = verdicts(Path(folder, f"{task}-before.eval.jsonl"))
    methods: dict[str, list[tuple[float, float, int]]] = {}
    print(f"{len(before)} problems; before training: {share(list(before.values()))} %\n")
    print("| run | steps | generated tokens | reward, first 5 | reward, last 5 | after, % | difference, points | z |")
    print("|:--|--:|--:|--:|--:|--:|--:|--:|")
    for path in sorted(Path(folder).glob(f"{task}-*-[0-9].eval.jsonl")):
        name = path.name.removesuffix(".eval.jsonl")
        after, rows = verdicts(path), read_lines(Path(folder, name, "metrics.jsonl"))
        assert after.keys() == before.keys(), f"{path}: other problems than before"
        changes = [after[problem] - before[problem] for problem in before]
        mean, error = mean_and_error(changes)
        reward = [row["reward"] for row in rows]
        first, last, tokens = statistics.fmean(reward[:5]), statistics.fmean(reward[-5:]), rows[-1]["generated_tokens"]
        print(
            f"| {name} | {len(rows)} | {tokens:,} | {first:.2f} | {last:.2f} | {share(list(after.values()))}"
            f" | {100 * mean:+.1f} ± {100 * error:.1f} | {mean / error:.1f} |"
        )
        method = name.removeprefix(f"{task}-").rpartition("-")[0]
        methods.setdefault(method, []).append((100 * statistics.fmean(after.values()), last, tokens))
    print("\n| method | seeds | generated tokens | reward, last 5 | after, % | difference, points |")
    print("|:--|--:|--:|--:|--:|--:|")
    start = 100 * statistics.fmean(before.values())
    for method, seeds in methods.items():
        if len(seeds) > 1:
            accuracy, last, tokens = zip(*seeds, strict=True)
            sd = statistics.stdev(accuracy)
            print(
                f"| {method} | {len(seeds)} | {statistics.fmean(tokens):,.0f}"
                f" | {statistics.fmean(last):.2f} ± {statistics.stdev(last):.2f}"
                f" | {(mean := statistics.fmean(accuracy)):.1f} ± {sd:.1f} | {mean - start:+.1f} ± {sd:.1f} |"
            )


def verdicts(path: Path) -> dict[str, int]:
    """Problem -> whether its greedy completion is right, from a result of eval.py."""
    return {row["problem"]: int(row["greedy"][0]["verdict"]) for row in read_result(path)[1]}


def share(values: list[int]) -> str:
    mean, error = mean_and_error(values)
    return f"{100 * mean:.1f} ± {100 * error:.1f}"


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
