"""Prints the README's table of planned memory, none of it measured on a GPU."""

import argparse

from run import memory

# Qwen2.5: parameters, layers, hidden, feed-forward, query and key widths, vocabulary
MODELS = {
    "1.5B": memory.Shape(1_543_714_304, 28, 1536, 8960, 1536, 256, 151936),
    "7B": memory.Shape(7_615_616_512, 28, 3584, 18944, 3584, 512, 152064),
    "32B": memory.Shape(32_763_876_352, 64, 5120, 27648, 5120, 1024, 152064),
}
PROMPT, COMPLETION, GROUP = 1024, 3072, 8  # tokens, as in config/dapo-7b.args
PROMPTS, TOKENS = 144, PROMPT + GROUP * COMPLETION  # TOKENS of a group


def main() -> None:
    argparse.ArgumentParser(prog="python -m tools.plan", description=__doc__).parse_args()
    print("| model | GPUs of 80 GB | DDP | FSDP |\n|:--|--:|--:|--:|")
    for name, shape in MODELS.items():
        for gpus in (1, 8, 16):
            options = {"width": PROMPT + COMPLETION, "rows": 32, "samples": -(-PROMPTS // gpus) * GROUP}
            options |= {"completion_share": GROUP * COMPLETION / TOKENS, "prefix_share": GROUP * PROMPT / TOKENS}
            options |= {"tokens": 16384, "trained": PROMPTS * GROUP, "base": memory.DEVICE_BASE}
            cells = []
            for shards in (1, gpus):
                load = memory.Load(shards=shards, dtype="bfloat16", checkpointing=True, **options)
                moment, size = memory.peak(shape, load)
                cells.append(f"{size / memory.GIB:.0f} ({moment}){'' if size <= 80e9 else ', does not fit'}")
            print(f"| {name} | {gpus} | {cells[0]} | {'as DDP' if gpus == 1 else cells[1]} |")


if __name__ == "__main__":
    main()
