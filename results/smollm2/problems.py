"""Writes NAME_train.jsonl and NAME_test.jsonl of the two tasks, the same ones each time.

    python results/smollm2/problems.py sums FOLDER                  sums of two two-digit numbers
    python results/smollm2/problems.py mawps FOLDER mawps.jsonl     a part of MAWPS

sums: 400 of the 4,095 unordered pairs are held out; neither they nor their mirror images are trained on. mawps: of
2,065 rows with problem, answer and type, those of the types addsub and singleop whose answer is a whole number, each
problem once, whatever its spaces and case; 320 are held out.
"""

import json
import random
import sys
from itertools import combinations_with_replacement
from pathlib import Path


def sums() -> tuple[list[dict], int]:
    draw = random.Random(0)
    pairs = list(combinations_with_replacement(range(10, 100), 2))
    draw.shuffle(pairs)
    pairs = [draw.sample(pair, 2) for pair in pairs]  # which of the two comes first
    return [{"problem": f"{a} + {b}", "answer": str(a + b)} for a, b in pairs], 400


def mawps(source: str) -> tuple[list[dict], int]:
    rows = [json.loads(line) for line in Path(source).read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if row["type"] in ("addsub", "singleop") and row["answer"].isdigit()]
    rows = list({"".join(row["problem"].lower().split()): row for row in rows}.values())
    random.Random(0).shuffle(rows)
    return [{"problem": row["problem"], "answer": row["answer"]} for row in rows], 320


def main(name: str, folder: str, *source: str) -> None:
    rows, held_out = {"sums": sums, "mawps": mawps}[name](*source)
    for split, part in (("test", rows[:held_out]), ("train", rows[held_out:])):
        path = Path(folder, f"{name}_{split}.jsonl")
        path.write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")
        print(f"{path}: {len(part)} problems")


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] not in ("sums", "mawps"):
        sys.exit(__doc__)
    main(*sys.argv[1:])
