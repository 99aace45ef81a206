"""A run on disk: what is saved is complete or absent, and a resumed run continues to the same bits.

OUT/checkpoint-N, after step N, and OUT/final are Hugging Face folders; in them trainer.pt, the optimizer and the state,
and manifest.json, size and SHA-256 of every other file, written last. docs/metrics.md has the other files of OUT.

A folder is written under a temporary name and renamed: a kill at any moment leaves the last complete one. Later damage,
by a disk or an incomplete copy, is found by its manifest. Randomness needs no saving: a step is a function of (seed,
step, position in the data), see rollout.py and tasks/data.py.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ROW_FILES = ("metrics.jsonl", "samples.jsonl", "groups.jsonl")  # every step appends to each
RUN_FILES = ("config.json", *ROW_FILES)
MANIFEST, LOCK = "manifest.json", ".lock"
CRITIC = "critic.safetensors"
ADAPTER = "adapter"  # a folder


@dataclass(frozen=True)
class State:
    """All that a run remembers besides its weights and its optimizer."""

    step: int = 0
    position: int = 0  # problems taken from the endless stream of tasks.data.order
    generated_tokens: int = 0  # completion tokens since the start, over all ranks
    seconds: float = 0.0  # since the start
    skipped: int = 0  # steps left out because loss or gradient was not finite
    skipped_in_a_row: int = 0
    best_step: int = 0  # of the best held-out accuracy, for --keep-best; 0: none yet
    best_accuracy: float = -1.0


def exists(out: Path) -> bool:
    """Whether a run, or part of one, is in the folder."""
    return any((out / name).exists() for name in RUN_FILES) or latest(out) is not None


@contextmanager
def locked(out: Path):
    """The folder is this process's alone until the block, or the process, ends. ValueError: another's."""
    new = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        with locked_file(out / LOCK, out):
            yield
    finally:
        if new:
            with suppress(OSError):  # not empty, unless a mistake was found before anything was written
                out.rmdir()


@contextmanager
def locked_file(path: Path, out: Path):
    """`out` is this process's alone, by a lock on the file `path`. ValueError: another's."""
    path.touch()
    with ExitStack() as stack:
        for mode in "ra":  # NFS locks only what is open for writing; elsewhere that keeps a disk from turning read-only
            file = stack.enter_context(open(path, mode))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(file.fileno()).st_nlink:
                    break
                raise BlockingIOError  # its owner, who has just ended, took it away
            except BlockingIOError:
                raise ValueError(f"--out {out}: another job is writing there; give another") from None
            except OSError:
                pass  # some file systems know no locks
        try:
            yield
        finally:
            with suppress(OSError):
                path.unlink(missing_ok=True)


def save(folder: Path, model, tokenizer, weights: dict, optimizer: dict, state: dict, critic=None, adapter=None):
    """Writes the Hugging Face folder, trainer.pt and the manifest, all or nothing. The folder must not exist yet.

    tokenizer: or the processor that holds it. weights, optimizer, critic: full state_dicts. adapter: writes one into a
    folder. OSError, in one line, if it can't be written: no part of it is left, and earlier checkpoints are untouched.
    """
    import torch  # not above: flags are checked before it is loaded
    from safetensors.torch import save_file

    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # left behind by a kill
    try:
        with _writing(folder):
            model.save_pretrained(temporary, state_dict=weights)
            tokenizer.save_pretrained(temporary)
            with open(temporary / "trainer.pt", "wb") as file:  # given only a name, torch would hide why it can't write
                torch.save({"optimizer": optimizer, "state": state}, file)
            if critic:
                save_file(critic, temporary / CRITIC)
            if adapter:
                adapter(temporary / ADAPTER)
            files = sorted(filter(Path.is_file, temporary.rglob("*")))
            manifest = {str(file.relative_to(temporary)): _fingerprint(file) for file in files}
            (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
            # the files, and the rows up to this step, must be on the disk before the name is
            rows = filter(Path.exists, map(folder.parent.joinpath, RUN_FILES))
            for path in [*temporary.rglob("*"), temporary, *rows]:
                _sync(path)
            temporary.rename(folder)
            _sync(folder.parent)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)  # half of it would take the space that the next try needs
        raise


def latest(out: Path) -> Path | None:
    """The checkpoint of the latest step, final before all others, intact or not; None where there is none."""
    return next(iter(_newest_first(out)), None)


def newest(out: Path, refuse: Callable[[str], None]) -> Path | None:
    """The folder to resume from: the latest intact one, or None where there is none at all. refuse: called with the
    reason for each later one. ValueError: none is intact."""
    for folder in _newest_first(out):
        if (wrong := damage(folder)) is None:
            return folder
        refuse(f"{folder} is refused: {wrong}")
    if latest(out):
        raise ValueError(f"--resume: no checkpoint of {out} is intact; --overwrite starts a new run")
    return None


def damage(folder: Path) -> str | None:
    """What differs between a checkpoint and its manifest; None: every byte is what was saved."""
    try:
        for name, fingerprint in json.loads((folder / MANIFEST).read_text(encoding="utf-8")).items():
            size = (folder / name).stat().st_size
            if size != fingerprint["size"]:
                return f"{name} has {size} bytes, not the {fingerprint['size']} that were saved"
            if _fingerprint(folder / name) != fingerprint:
                return f"the bytes of {name} are not those that were saved"
    except OSError as error:
        why = "is missing" if isinstance(error, FileNotFoundError) else f"can't be read ({error.strerror})"
        return f"{Path(error.filename).name} {why}"
    except (ValueError, TypeError, KeyError, AttributeError):
        return f"{MANIFEST} is damaged"
    return None


def restore(folder: Path, optimizer, cut: Callable[[dict, object], dict]) -> dict:
    """Loads trainer.pt, cut for this rank, into the optimizer, and returns the state that was saved with it."""
    import torch

    # mapped, not read: a rank's device takes no more than its part
    saved = torch.load(folder / "trainer.pt", map_location="cpu", mmap=True, weights_only=True)
    optimizer.load_state_dict(cut(saved["optimizer"], optimizer))
    return saved["state"]


def reopen(out: Path, step: int, taken: Path | None) -> None:
    """Puts the folder back to where it was after a step: drops later rows, and final becomes a checkpoint again. taken:
    the checkpoint of that step. Later ones were refused; renamed NAME.damaged, they no longer count."""
    for leftover in [*out.glob(".*.tmp"), *out.glob(".*.old")]:  # of a kill
        if leftover.name[1:].startswith(("checkpoint-", "final.")):
            _remove(leftover)
    for file in filter(Path.exists, map(out.joinpath, ROW_FILES)):
        write(file, as_lines(row for row in read_lines(file) if _step_of(row, file) <= step))
    folders = _newest_first(out)
    refused = folders[: folders.index(taken) if taken in folders else None]
    moves = {folder: folder.with_name(f"{folder.name}.damaged") for folder in refused}
    if taken == out / "final":
        moves[taken] = out / f"checkpoint-{step}"
    for folder, target in moves.items():
        if target.exists():
            _delete(target)
        folder.rename(target)


def _step_of(row: dict, file: Path) -> int:
    if not isinstance(row.get("step"), int):
        raise ValueError(f"{file}: not the rows of a run; restore or remove it")
    return row["step"]


def prune(out: Path, keep: int, best: int = 0) -> None:
    """Deletes all but the latest `keep` checkpoints (0: none is deleted) and that of step `best`; final is not one."""
    for folder in _checkpoints(out)[:-keep]:
        if folder.name != f"checkpoint-{best}":
            _delete(folder)


def clear(out: Path) -> None:
    """Deletes a run's own files and folders, and nothing else that a user may keep in the same place."""
    for folder in [*_newest_first(out), *out.glob("checkpoint-*.damaged"), *out.glob("final.damaged")]:
        _delete(folder)
    for name in (*RUN_FILES, "controls.json"):
        (out / name).unlink(missing_ok=True)


def append(file: Path, row: dict) -> None:
    """One line of JSON at the end of a file. OSError, in one line, if it can't be."""
    with _writing(file), open(file, "a", encoding="utf-8") as handle:
        handle.write(as_lines([row]))


def as_lines(rows: Iterable[dict]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def read_lines(file: Path) -> Iterator[dict]:
    """The objects of a JSONL file, one by one; none if there is no file. A last line without its end is being written,
    or was cut short by a kill, and is left out. ValueError: another line is no object."""
    with open(file if file.is_file() else os.devnull, encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith("\n"):
                return
            row = None
            with suppress(json.JSONDecodeError):
                row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError(f"{file}, line {number}: not an object ({line[:-1][:40]!r}); give an undamaged file")
            yield row


def write(file: Path, content: str | bytes) -> None:
    """All of the content or the previous file, even if killed. OSError, in one line, if it can't be written."""
    file = file.resolve()  # a link stays one
    temporary = file.with_name(f".{file.name}.tmp")
    with _writing(file):
        file.parent.mkdir(exist_ok=True)
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        _sync(temporary)
        temporary.replace(file)


def _newest_first(out: Path) -> list[Path]:
    """final, if there is one, and the checkpoint-N folders, from the latest to the oldest."""
    return [*filter(Path.exists, [out / "final"]), *reversed(_checkpoints(out))]


def _checkpoints(out: Path) -> list[Path]:
    """The checkpoint-N folders, oldest first."""
    steps = {folder: folder.name.removeprefix("checkpoint-") for folder in out.glob("checkpoint-*")}
    return sorted((folder for folder, step in steps.items() if step.isdecimal()), key=lambda folder: int(steps[folder]))


def _delete(folder: Path) -> None:
    """Renamed first: a half-deleted folder must not pass for a complete one."""
    temporary = folder.with_name(f".{folder.name}.old")
    if os.path.lexists(temporary):
        _remove(temporary)
    folder.rename(temporary)
    _remove(temporary)


def _remove(folder: Path) -> None:
    """A link goes, not what it leads to: old checkpoints may have been moved to an archive."""
    folder.unlink() if folder.is_symlink() else shutil.rmtree(folder)


def _fingerprint(file: Path) -> dict:
    """Size in bytes, and SHA-256, which processors have instructions for: faster than most disks."""
    digest = hashlib.sha256()
    with open(file, "rb") as handle:
        while block := handle.read(1 << 22):
            digest.update(block)
    return {"size": file.stat().st_size, "sha256": digest.hexdigest()}


def _sync(path: Path) -> None:
    """Returns once a file, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _writing(path: Path):
    """Turns whatever stops a write into an OSError of one line: safetensors and torch raise errors of their own."""
    try:
        yield
    except Exception as error:
        causes = [error, error.__context__]  # torch raises about its archive while it handles the disk's error
        reason = next(filter(None, (getattr(e, "strerror", None) for e in causes)), str(error).partition("\n")[0])
        raise OSError(f"{path} can't be written: {reason}") from error
