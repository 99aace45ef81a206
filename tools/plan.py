"""Prints the README's table of planned memory, none of it measured on a GPU."""

import argparse
from dataclasses import replace

from run import memory
from run.flags import fail

# Qwen2.5: parameters, layers, hidden, feed-forward, query and key widths, vocabulary
MODELS = {
    "1.5B": memory.Shape(1_543_714_304, 28, 1536, 8960, 1536, 256, 151936),
    "7B": memory.Shape(7_615_616_512, 28, 3584, 18944, 3584, 512, 152064),
    "32B": memory.Shape(32_763_876_352, 64, 5120, 27648, 5120, 1024, 152064),
}
PROMPT, COMPLETION, GROUP = 1024, 3072, 8  # tokens, as in config/dapo-7b.args
PROMPTS = 144


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.plan", description=__doc__)
    parser.error = fail
    parser.parse_args()
    print("| model | GPUs of 80 GB | DDP | FSDP |\n|:--|--:|--:|--:|")
    for name, shape in MODELS.items():
        for gpus in (1, 8, 16):
            cells = []
            for shards in (1, gpus):
                load = memory.Load(
                    tokens=16384,
                    completion_share=GROUP * COMPLETION / (PROMPT + GROUP * COMPLETION),
                    prefix_share=GROUP * PROMPT / (PROMPT + GROUP * COMPLETION),
                    width=PROMPT + COMPLETION,
                    rows=32,
                    samples=-(-PROMPTS // gpus) * GROUP,
                    trained=PROMPTS * GROUP,
                    dtype="bfloat16",
                    checkpointing=True,
                    base=memory.DEVICE_BASE,
                )
                moment, size = memory.peak(shape, replace(load, shards=shards))
                cells.append(f"{size / memory.GIB:.0f} ({moment}){'' if size <= 80e9 else ', does not fit'}")
            cells[1] = "as DDP" if gpus == 1 else cells[1]
            print(f"| {name} | {gpus} | {cells[0]} | {cells[1]} |")


if __name__ == "__main__":
    main()
