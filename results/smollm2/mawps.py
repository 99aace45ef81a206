"""Writes a part of MAWPS as mawps_train.jsonl and mawps_test.jsonl, the same each time.

    python results/smollm2/mawps.py mawps.jsonl FOLDER

From mawps.jsonl (2,065 rows with problem, answer, type) it takes the types addsub and singleop with an integer answer,
without duplicates (up to space and case). 320 of them are held out.
"""

import json
import random
import sys
from pathlib import Path

TYPES = ("addsub", "singleop")
HELD_OUT = 320  # problems


def main(source: str, folder: str) -> None:
    rows = [json.loads(line) for line in Path(source).read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if row["type"] in TYPES and row["answer"].isdigit()]
    rows = list({"".join(row["problem"].lower().split()): row for row in rows}.values())
    random.Random(0).shuffle(rows)
    for name, part in (("test", rows[:HELD_OUT]), ("train", rows[HELD_OUT:])):
        lines = [json.dumps({"problem": row["problem"], "answer": row["answer"]}) for row in part]
        path = Path(folder, f"mawps_{name}.jsonl")
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(f"{path}: {len(part)} problems")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
