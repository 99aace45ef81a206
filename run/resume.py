"""Where a run continues: its newest checkpoint, its state, and its folder put back to that step."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import transformers

from engine.parallel import cut_state
from run import checkpoint, record
from run.checkpoint import State
from run.flags import fail, user_input
from run.journal import say


def find_checkpoint(args) -> Path | None:
    """The checkpoint that a resumed run continues from: the newest intact one that rank 0 finds; None: a new run."""
    found = [None, None]
    if args.resume and dist.get_rank() == 0:
        found[0] = user_input(checkpoint.newest, Path(args.out), say)
        if found[0] is None and checkpoint.latest(Path(args.out)):
            found[1] = f"--resume: no checkpoint of {args.out} is intact; --overwrite starts a new run"
    dist.broadcast_object_list(found)
    if found[1]:
        fail(found[1])
    if found[0]:
        say(f"resuming from {found[0]}")
        if not found[0].exists():
            fail(f"--resume: {found[0]} is not on this machine; every node reads the checkpoint", any_rank=True)
    return found[0]


def is_finished(args, resumed: Path | None, state: State) -> bool:
    """Whether nothing is left to do; a run that was stopped after its last step still lacks its final checkpoint."""
    return state.step > args.steps or (state.step == args.steps and resumed.name == "final")


def open_run(args, resumed: Path | None, optimizer: torch.optim.Optimizer) -> State:
    """The state to continue from, after restoring the optimizer; the folder is new, emptied, or cut back to it."""
    out, state = Path(args.out), State()
    if resumed:
        state = State(**user_input(checkpoint.restore, resumed, optimizer, cut_state))
    dist.barrier()  # every rank has read before rank 0 writes
    if is_finished(args, resumed, state):
        say(f"{args.out} has its {state.step} steps; --resume with --steps above that continues it")
    elif dist.get_rank() == 0:
        if args.overwrite:
            checkpoint.clear(out)
        user_input(out.mkdir, parents=True, exist_ok=True)
        checkpoint.reopen(out, state.step, resumed)
        record.cut_back(out, state.step)
        versions = {"torch": torch.__version__, "transformers": transformers.__version__, "commit": commit()}
        origin = {"command": shlex.join(sys.argv), "ranks": dist.get_world_size(), "versions": versions}
        checkpoint.write(out / "config.json", json.dumps(vars(args) | origin, indent=1) + "\n")
    return state


def commit() -> str | None:
    """The commit of this code, marked if the tree has changes; None outside a repository."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
