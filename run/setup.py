"""From flags to a run that can begin, new or resumed: what is wrong is found in the order of what it costs to find."""

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
import transformers

from engine.parallel import cut_state
from rewards import parse_rewards
from run import checkpoint, record
from run.checkpoint import State
from run.flags import fail, user_input
from run.journal import say
from run.memory import choose_parallel
from run.models import Trained, load_trained
from run.problems import load_problems, make_scorer


class Run(NamedTuple):
    trained: Trained
    problems: list[dict]
    held_out: list[dict]
    scorer: Callable  # rewards.score with all of --rewards
    kind: str  # "ddp" or "fsdp"
    state: State  # to continue from


def set_up(args, device: torch.device) -> Run | None:
    """The run, new or resumed. None where nothing is to be done: --plan, or all --steps are made."""
    rewards = user_input(parse_rewards, args.rewards, args.max_new_tokens)
    resumed = find_checkpoint(args)
    kind = choose_parallel(args, resumed, device)
    if args.plan:
        return None
    folder, tokenizer, processor, problems, held_out = load_problems(args, resumed)
    scorer = make_scorer(args, rewards, problems, held_out)
    trained = load_trained(args, folder, tokenizer, processor, problems, kind, resumed, device)
    state = open_run(args, resumed, trained.optimizer)
    return Run(trained, problems, held_out, scorer, kind, state) if state else None


def find_checkpoint(args) -> Path | None:
    """The checkpoint that a resumed run continues from: the newest intact one that rank 0 finds; None: a new run."""
    found = [None, None]
    if args.resume and dist.get_rank() == 0:
        found[0] = user_input(checkpoint.newest, Path(args.out), say)
        if found[0] is None and checkpoint.latest(Path(args.out)):
            found[1] = f"--resume: no checkpoint of {args.out} is intact; --overwrite starts a new run"
    dist.broadcast_object_list(found)
    folder, wrong = found
    if wrong:
        fail(wrong)
    if folder:
        say(f"resuming from {folder}")
        if not folder.exists():
            fail(f"--resume: {folder} is not on this machine; every node reads the checkpoint", any_rank=True)
    return folder


def open_run(args, resumed: Path | None, optimizer: torch.optim.Optimizer) -> State | None:
    """The state to continue from, after restoring the optimizer; the folder is new, emptied, or cut back to it. None if
    nothing is left to do: a run that was stopped after its last step still lacks its final checkpoint."""
    out, state = Path(args.out), State()
    if resumed:
        state = State(**user_input(checkpoint.restore, resumed, optimizer, cut_state))
    dist.barrier()  # every rank has read before rank 0 writes
    if state.step > args.steps or (state.step == args.steps and resumed.name == "final"):
        say(f"{args.out} has its {state.step} steps; --resume with --steps above that continues it")
        return None
    if dist.get_rank() == 0:
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
