"""Writes sums of two two-digit numbers as sums_train.jsonl and sums_test.jsonl, the same each time.

    python results/smollm2/sums.py FOLDER

400 of the 4,095 unordered pairs are held out; neither they nor their mirror images are trained on.
"""

import json
import random
import sys
from itertools import combinations_with_replacement
from pathlib import Path

HELD_OUT = 400  # sums


def main(folder: str) -> None:
    draw = random.Random(0)
    pairs = list(combinations_with_replacement(range(10, 100), 2))
    draw.shuffle(pairs)
    pairs = [draw.sample(pair, 2) for pair in pairs]  # which of the two comes first
    for name, part in (("test", pairs[:HELD_OUT]), ("train", pairs[HELD_OUT:])):
        rows = [{"problem": f"{a} + {b}", "answer": str(a + b)} for a, b in part]
        path = Path(folder, f"sums_{name}.jsonl")
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        print(f"{path}: {len(rows)} sums")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
