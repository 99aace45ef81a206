"""The samples of a step in one file, from which its update can be repeated: a bug report is one file.

--record writes it, --replay repeats the update. A tensor RANK/NAME is what a rank brought to the update: token ids,
masks, log-probabilities, rewards; RANK/beside/NAME is what a compared method needs per token, RANK/pictures/... an
encoded picture. The header holds config.json, the step, and a digest of all bytes. On as many ranks as recorded it, an
update has the same bits; on others each takes the share of several, or none.
"""

import hashlib
import json
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from rollout import Pictures, Rollout, cat
from run import checkpoint

ROLLOUT = [field.name for field in fields(Rollout) if field.name != "images"]
EXTRAS = "beside/"  # the prefix of Batch.extras in a file
PICTURES = "pictures/"  # that of encoded pictures: pictures/PROMPT/PATCHES/NUMBER


def write(batch, args, state) -> None:
    """Writes OUT/rollouts/step-N.safetensors by rank 0, if --record names the step; OSError if it can't. Collective."""
    step, ranks = state.step + 1, dist.get_world_size()
    if not args.record or step % args.record:
        return
    mine = {name: getattr(batch.rollout, name) for name in ROLLOUT}
    mine |= {"rewards": batch.rewards, "loss_mask": batch.loss_mask}
    mine |= {f"{EXTRAS}{name}": x for name, x in batch.extras.items()}
    for p, pictures in enumerate(batch.rollout.images):
        for i, each in enumerate(pictures.encoded):
            mine[f"{PICTURES}{p}/{pictures.patches}/{i}"] = torch.frombuffer(bytearray(each), dtype=torch.uint8)
    if batch.advantages is not None:
        mine["advantages"] = batch.advantages.expand(batch.loss_mask.shape)
    # masks are most of the file: as bytes
    mine = {name: (x.bool() if name.endswith("mask") else x).cpu().contiguous() for name, x in mine.items()}
    parts = [None] * ranks if dist.get_rank() == 0 else None
    dist.gather_object(mine, parts)
    if parts:
        tensors = {f"{rank}/{name}": x for rank, part in enumerate(parts) for name, x in part.items()}
        config = Path(args.out, "config.json").read_text(encoding="utf-8")
        facts = {"step": step, "ranks": ranks, "num_valid": batch.num_valid, "rounds": batch.rounds}
        header = {"config": config, "facts": json.dumps(facts)}
        header["sha256"] = digest(tensors, header)
        checkpoint.write(Path(args.out, "rollouts", f"step-{step:06}.safetensors"), save(tensors, header))


def load(file: str, device: torch.device) -> tuple[dict, int, bool]:
    """What this rank brings to the update, by the names of Batch; the number of the step; and whether any rank's
    prompts have pictures. ValueError as `read`."""
    facts, _, tensors = read(file)
    mine, parts = [str(k) for k in range(facts["ranks"]) if k % dist.get_world_size() == dist.get_rank()], {}
    for name in dict.fromkeys(key.partition("/")[2] for key in tensors if f"/{PICTURES}" not in key):
        pieces = [tensors[f"{k}/{name}"] for k in mine] or [tensors[f"0/{name}"][:0]]
        x = cat(pieces, left=name.startswith("prompt")).to(device)
        parts[name] = x.long() if name.endswith("mask") else x
    images = [each for k in mine for each in pictures_of(tensors, k, len(tensors[f"{k}/truncated"]))]
    images = tuple(images) if any(pictures.encoded for pictures in images) else ()
    rollout = Rollout(**{name: parts.pop(name) for name in ROLLOUT}, images=images)
    extras = {name.removeprefix(EXTRAS): parts.pop(name) for name in list(parts) if name.startswith(EXTRAS)}
    numbers = {name: facts[name] for name in ("num_valid", "rounds")}
    pictured = any(f"/{PICTURES}" in key for key in tensors)
    return {"rollout": rollout, "extras": extras} | parts | numbers, facts["step"], pictured


def pictures_of(tensors: dict[str, torch.Tensor], rank: str, count: int) -> list[Pictures]:
    """What each of a rank's prompts shows."""
    images, mark = [Pictures()] * count, f"{rank}/{PICTURES}"
    found = {tuple(map(int, key[len(mark) :].split("/"))): x for key, x in tensors.items() if key.startswith(mark)}
    for (p, patches, _), x in sorted(found.items()):
        images[p] = Pictures((*images[p].encoded, x.numpy().tobytes()), patches)
    return images


def flags_of(file: str) -> dict:
    """The flags of the run that recorded a file, with --model as its step began; None if that checkpoint is gone."""
    facts, config, _ = read(file)
    before = Path(file).absolute().parent.parent / f"checkpoint-{facts['step'] - 1}"
    model = config["model"] if facts["step"] == 1 else str(before) if before.exists() else None
    return config | {"template": None, "system_prompt": "none", "model": model}  # prompts are in the file


def read(file: str) -> tuple[dict, dict, dict[str, torch.Tensor]]:
    """Facts, config.json and tensors. ValueError, in one line: not a file that --record wrote, or damaged since."""
    try:
        with safe_open(file, "pt") as opened:
            header = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}
    except (OSError, SafetensorError) as error:
        raise ValueError(f"--replay {file}: can't be read ({error}); give a file that --record wrote") from None
    if not {"config", "facts", "sha256"} <= header.keys():
        raise ValueError(f"--replay {file}: holds tensors, but not those of a run; give a file that --record wrote")
    if digest(tensors, header) != header["sha256"]:
        raise ValueError(f"--replay {file}: is damaged: its bytes are not those that --record wrote")
    return json.loads(header["facts"]), json.loads(header["config"]), tensors


def digest(tensors: dict[str, torch.Tensor], header: dict[str, str]) -> str:
    """SHA-256 of header and tensors."""
    found = hashlib.sha256((header["config"] + header["facts"]).encode())
    for name, x in sorted(tensors.items()):
        found.update(name.encode() + x.numpy().tobytes())
    return found.hexdigest()


def cut_back(out: Path, step: int) -> None:
    """Deletes the records of later steps, and the folder if nothing is left in it."""
    folder = out / "rollouts"
    numbers = {file: file.stem.removeprefix("step-") for file in folder.glob("step-*.safetensors")}
    later = [file for file, number in numbers.items() if number.isdecimal() and int(number) > step]
    for file in [*later, *folder.glob(".step-*.tmp")]:  # the last of a kill
        file.unlink()
    with suppress(OSError):  # not empty, or not there
        folder.rmdir()
