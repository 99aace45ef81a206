"""A run on disk: what is saved is whole or absent, and a resumed run continues to the same bits.

    OUT/config.json            the flags, after defaults, and where the run was made
    OUT/metrics.jsonl          a row a step
    OUT/samples.jsonl          some completions a step
    OUT/checkpoint-N/          after step N: a Hugging Face folder, and in it trainer.pt: optimizer and state
    OUT/final/                 the same, after the last step

A folder is written under a temporary name and renamed: a kill at any moment leaves the last whole one. Randomness
needs no saving: a step is a function of (seed, step, position in the data), see rollout.py and data.py.
"""

import json
import os
import shutil
from pathlib import Path

import torch

RUN_FILES = ("config.json", "metrics.jsonl", "samples.jsonl")


def exists(out: Path) -> bool:
    """Whether a run, or part of one, is in the folder."""
    return any((out / name).exists() for name in RUN_FILES) or newest(out) is not None


def save(folder: Path, model, tokenizer, optimizer, state: dict) -> None:
    """Writes the Hugging Face folder and trainer.pt, all or nothing. The folder must not exist yet."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # left behind by a kill
    model.save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    torch.save({"optimizer": optimizer.state_dict(), "state": state}, temporary / "trainer.pt")
    for file in temporary.iterdir():
        with open(file, "rb") as handle:
            os.fsync(handle.fileno())
    temporary.rename(folder)


def newest(out: Path) -> Path | None:
    """The folder to resume from: final, else the checkpoint of the latest step; None where there is none."""
    if (out / "final").exists():
        return out / "final"
    return max(_checkpoints(out), key=_step, default=None)


def restore(folder: Path, optimizer, device) -> dict:
    """Loads trainer.pt into the optimizer and returns the state that was saved beside it."""
    saved = torch.load(folder / "trainer.pt", map_location=device, weights_only=True)
    optimizer.load_state_dict(saved["optimizer"])
    return saved["state"]


def reopen(out: Path, step: int) -> None:
    """Puts the folder back to where it was after a step: later rows go, and final becomes a checkpoint again."""
    for name in ("metrics.jsonl", "samples.jsonl"):
        _trim(out / name, step)
    if (out / "final").exists():
        (out / "final").rename(out / f"checkpoint-{step}")


def prune(out: Path, keep: int) -> None:
    """Deletes all but the latest `keep` checkpoints (0: none is deleted); final is not one of them."""
    for folder in _checkpoints(out)[:-keep]:
        _delete(folder)


def clear(out: Path) -> None:
    """Deletes a run's own files and folders, and nothing else that a user may keep beside them."""
    for folder in [*_checkpoints(out), out / "final"]:
        if folder.exists():
            _delete(folder)
    for name in RUN_FILES:
        (out / name).unlink(missing_ok=True)


def append(file: Path, row: dict) -> None:
    """One line of JSON at the end of a file."""
    with open(file, "a", encoding="utf-8") as handle:
        handle.write(json.dumps(row, ensure_ascii=False) + "\n")


def _trim(file: Path, step: int) -> None:
    """Drops rows of later steps, and a last line that a kill cut short."""
    if not file.exists():
        return
    with open(file, encoding="utf-8", errors="replace") as lines:
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
    temporary = file.with_name(f".{file.name}.tmp")
    temporary.write_text("".join(kept), encoding="utf-8")
    temporary.replace(file)


def _checkpoints(out: Path) -> list[Path]:
    """The checkpoint-N folders, oldest first."""
    return sorted((f for f in out.glob("checkpoint-*") if f.name.removeprefix("checkpoint-").isdecimal()), key=_step)


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("checkpoint-"))


def _delete(folder: Path) -> None:
    """Renamed first: a folder that is half deleted must not pass for a whole one."""
    temporary = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(temporary, ignore_errors=True)
    folder.rename(temporary)
    shutil.rmtree(temporary)
