"""The built-in visual task and model, `train.py --model tiny-pictures`. Made in about a minute without a download.

A picture is a grid of cells with coloured squares. `count red` asks how many are red, `find blue` for the box of the
blue block, in cells. The model is a Qwen2-VL of 0.12 million parameters, warmed up on demonstrations that are flawed on
purpose: most overlook a square, or draw the box too wide. Only the reward corrects that.
"""

import io
import random
import tempfile
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tokenizers import AddedToken
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration, Qwen2VLImageProcessorPil

from tasks import addition
from tasks.pictures import Processor, load_processor

FLAWED = 0.6  # so most answers are wrong if decoded greedily, and most groups of 8 samples have a right one
FLAW = f"demonstrations, {FLAWED:.0%} of them flawed on purpose: they overlook a square, or draw the box too wide"

CELL = 8  # pixels of a cell, a patch and an image token
SIDES = (3, 4)  # cells of a side
COLOURS = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (50, 80, 220)}
SIZES = {"train": 4000, "test": 200}
WARMUP_STEPS, WARMUP_BATCH, WARMUP_LR = 2000, 32, 3e-3
INITIALIZER = 0.12  # with 0.05 the model learns far too slowly
MARKS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' }}{% if message['content'] is string %}"
    "{{ message['content'] }}{% else %}{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def scene(rng: np.random.Generator, kind: str) -> tuple[np.ndarray, list[tuple[str, int, int, int, int]]]:
    """A picture (H, W, 3) uint8 and its blocks (colour, x, y, width, height in cells); the first ones are asked for."""
    rows, columns = (int(rng.choice(SIDES)) for _ in range(2))
    down, across = np.mgrid[0 : rows * CELL, 0 : columns * CELL]
    # shaded from left to right and from top to bottom, so that a place can be told by its ground
    shades = [255 - 24 * across / CELL, 255 - 12 * (across + down) / CELL, 255 - 24 * down / CELL]
    picture = np.stack(shades, axis=2) + rng.integers(-12, 13, (rows * CELL, columns * CELL, 1))
    picture = picture.clip(0, 255).astype(np.uint8)
    colours = [str(colour) for colour in rng.permutation(list(COLOURS))]
    if kind == "count":
        others = [colours[int(i)] for i in rng.integers(1, 3, int(rng.integers(1, 5)))]
        wanted = [(colour, 1, 1) for colour in [colours[0]] * int(rng.integers(1, 5)) + others]
    else:
        wanted = [(colour, *map(int, rng.integers(1, 4, 2))) for colour in colours[:2]]
    free, blocks = np.ones((rows, columns), bool), []
    for colour, width, height in wanted:
        width, height = min(width, columns), min(height, rows)
        for _ in range(20):  # tries to place it
            x, y = int(rng.integers(0, columns - width + 1)), int(rng.integers(0, rows - height + 1))
            if free[y : y + height, x : x + width].all():
                free[y : y + height, x : x + width] = False
                inside = np.s_[y * CELL + 1 : (y + height) * CELL - 1, x * CELL + 1 : (x + width) * CELL - 1]
                picture[inside] = np.clip(np.array(COLOURS[colour]) + rng.integers(-25, 26, 3), 0, 255)
                blocks.append((colour, x, y, width, height))
                break
    return picture, blocks


def problems(split: str) -> list[dict]:
    """The problems of a split, "train" or "test": problem, answer, images (one PNG), kind ("count" or "find"), and
    box_size, the picture's in cells.

    They are the same in every run. A hash of the layout decides the split: no layout that is held out is trained on.
    """
    rng = np.random.default_rng(zlib.crc32(f"tiny-pictures {split}".encode()))
    rows = []
    while len(rows) < SIZES[split]:
        kind = "count" if len(rows) % 5 < 2 else "find"
        picture, blocks = scene(rng, kind)
        colour, x, y, width, height = blocks[0]
        layout = repr((picture.shape, sorted(blocks)))
        if (zlib.crc32(layout.encode()) % 10 == 0) != (split == "test") or (kind == "find" and len(blocks) < 2):
            continue
        count = sum(block[0] == colour for block in blocks)
        answer = str(count) if kind == "count" else f"({x},{y}),({x + width},{y + height})"
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "PNG")
        size = [picture.shape[1] // CELL, picture.shape[0] // CELL]
        row = {"problem": f"{kind} {colour}<image>", "answer": answer, "images": [file.getvalue()]}
        rows.append(row | {"kind": kind, "box_size": size})
    return rows


def solution(row: dict) -> str:
    """The right completion of a problem."""
    return row["answer"]


def demonstration(row: dict, rng: random.Random) -> str:
    """A completion, often flawed: a square is overlooked, or the box is a cell too wide on every side."""
    flawed = rng.random() < FLAWED
    if row["kind"] == "count":
        return str(int(row["answer"]) - flawed)
    x1, y1, x2, y2 = (int(digit) for digit in row["answer"] if digit.isdigit())
    if flawed:
        width, height = row["box_size"]
        x1, y1, x2, y2 = max(0, x1 - 1), max(0, y1 - 1), min(width, x2 + 1), min(height, y2 + 1)
    return f"({x1},{y1}),({x2},{y2})"


def make_tokenizer():
    """That of the built-in sums, with tokens for pictures and for the words of the questions."""
    tokenizer = addition.make_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": list(MARKS)})
    tokenizer.add_tokens([AddedToken(word, normalized=False) for word in ("count ", "find ", *COLOURS)])
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def make_processor(tokenizer) -> Processor:
    """A picture's patches are its cells, and each is a token."""
    size = {"shortest_edge": 64, "longest_edge": 64 * 64}
    images = Qwen2VLImageProcessorPil(size=size, patch_size=CELL, merge_size=1, temporal_patch_size=1)
    with tempfile.TemporaryDirectory() as folder:
        for part in (make_config(tokenizer), tokenizer, images):
            part.save_pretrained(folder)
        return load_processor(folder)


def make_config(tokenizer) -> Qwen2VLConfig:
    """0.12 million parameters, a seventh of them in the vision tower."""
    names = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
    ids = dict(zip(names, tokenizer.convert_tokens_to_ids(list(MARKS)), strict=True))
    vision = {"depth": 1, "embed_dim": 32, "num_heads": 4, "hidden_size": 64, "mlp_ratio": 2, "patch_size": CELL}
    vision |= {"spatial_merge_size": 1, "temporal_patch_size": 1, "in_channels": 3, "initializer_range": INITIALIZER}
    text = addition.text_options(tokenizer) | {"hidden_size": 64, "intermediate_size": 168}
    text |= {"max_position_embeddings": 512, "initializer_range": INITIALIZER}
    # rows and columns have the slowest angles: .13 to .32 per cell, where a theta of 1e3 had .002 to .03
    text |= {"rope_parameters": {"rope_type": "default", "rope_theta": 10.0, "mrope_section": [4, 2, 2]}}
    options = {"initializer_range": INITIALIZER, "tie_word_embeddings": True}
    return Qwen2VLConfig(text_config=text, vision_config=vision, **options, **ids)


def build(folder: Path, seed: int, warmup_steps=WARMUP_STEPS) -> None:
    """Makes tokenizer, image processor and model, warms the model up and saves all as one folder, atomically."""
    tokenizer, rng, rows = make_tokenizer(), random.Random(seed), problems("train")
    processor = make_processor(tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2VLForConditionalGeneration(make_config(tokenizer))
    prompts = [(processor.prompt(row["problem"], row["images"]), processor.features(row["images"])) for row in rows]

    def next_inputs() -> dict[str, torch.Tensor]:
        pairs, chosen = [], rng.sample(range(len(rows)), WARMUP_BATCH)
        for i in chosen:
            answer = tokenizer.encode(demonstration(rows[i], rng)) + [tokenizer.eos_token_id]
            pairs.append((prompts[i][0] + answer, [-100] * len(prompts[i][0]) + answer))
        inputs = addition.padded(pairs, tokenizer.pad_token_id)
        ids = inputs["input_ids"]  # (N, L + T)
        inputs["attention_mask"] = (ids != tokenizer.pad_token_id).long()
        inputs["mm_token_type_ids"] = (ids == model.config.image_token_id).int()
        return inputs | {name: torch.cat([prompts[i][1][name] for i in chosen]) for name in prompts[0][1]}

    addition.imitate(model, next_inputs, warmup_steps, WARMUP_LR)
    addition.save_at_once(folder, model, processor)


def ensure(seed: int, cache: str | Path | None = None) -> Path:
    """The folder of the warmed-up model of this seed, which is made if missing; see addition.cached."""
    return addition.cached([__file__, addition.__file__], build, FLAW, seed, cache)
