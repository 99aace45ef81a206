"""Tests run on one thread a process and import the project from its root."""

import gc
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["HF_HUB_OFFLINE"] = "1"  # no test may depend on a network, nor wait for one
ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import pytest  # noqa: E402

# a random model is never right, so these rewards look at the text only: groups of all kinds come out
REWARDS = """
def length(completions, **_):
    return [float(len(c) % 2) for c in completions]

def easy(completions, **_):
    return [1.0 for _ in completions]

def none_for_short(completions, **_):
    return [None if len(c) < 4 else float(len(c) % 2) for c in completions]

def nan(completions, **_):
    return [float("nan") for _ in completions]

def raises(completions, **_):
    raise RuntimeError("no luck")
"""


def pytest_collection_finish():
    """What is imported and collected stays; the garbage collector need not look at it again and again."""
    gc.freeze()


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """A folder with a random model, problems and rewards -> the flags of a run of a few seconds on them."""
    import torch

    from tasks import addition

    folder = tmp_path_factory.mktemp("world")
    tokenizer = addition.make_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        addition.make_model(tokenizer).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    for split in ("train", "test"):
        rows = addition.problems(split)[:12]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "rewards.py").write_text(REWARDS)
    flags = {
        "model": folder / "model",
        "data": folder / "train.jsonl",
        "eval-data": folder / "test.jsonl",
        "rewards": f"{folder / 'rewards.py'}:length",
        "steps": 3,
        "prompts-per-step": 5,
        "group-size": 4,
        "max-prompt-tokens": 40,
        "max-new-tokens": 8,
        "lr": 1e-3,
        "beta-th": 0,
        "dtype": "float64",
    }

    def command(out, **changes):
        """The command line of a run in the folder `out`, with some flags changed; True: a switch, None: left out."""
        chosen = flags | {"out": out} | {name.replace("_", "-"): value for name, value in changes.items()}
        words = []
        for name, value in chosen.items():
            words += [] if value is None else [f"--{name}"] if value is True else [f"--{name}", str(value)]
        return words

    command.folder = folder
    return command
