"""From flags to a run that can begin, new or resumed: what is wrong is found in the order of what it costs to find."""

import hashlib
import json
import shlex
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
import transformers

from engine.parallel import cut_state
from rewards import parse_rewards, source_of
from run import checkpoint, record
from run.checkpoint import State
from run.flags import OF_COMMAND, absolute_paths, config_of_run, fail, user_input
from run.journal import say, start_bar
from run.memory import choose_parallel
from run.models import Trained, load_trained
from run.problems import fingerprint, load_problems, make_scorer, read_problems


@contextmanager
def held(args) -> Iterator[None]:
    """The run's folder is this job's alone until the block ends, or the process of rank 0. For what writes there."""
    with ExitStack() as stack:
        if not (args.plan or args.doctor or args.replay):
            of_rank_0(lambda: stack.enter_context(checkpoint.locked(Path(args.out))))
        yield


def of_rank_0(find: Callable):
    """What a function returns on rank 0, on all ranks; what it complains of ends them all in one line. A collective."""
    found = [None, None]
    if dist.get_rank() == 0:
        try:
            found[0] = find()
        except (ValueError, OSError) as error:
            found[1] = str(error)
    dist.broadcast_object_list(found)
    if found[1]:
        fail(found[1])
    return found[0]


def set_up(args, device: torch.device) -> tuple[Trained, list[dict], list[dict], Callable, str, State] | None:
    """The run, new or resumed: models, problems to train on and held out, make_scorer's function, "ddp" or "fsdp", and
    the state to continue from. None where nothing is to be done: --plan, or all --steps are made."""
    rewards = user_input(parse_rewards, args.rewards, args.max_new_tokens)
    resumed = find_checkpoint(args)
    found = None if args.plan else read_problems(args, resumed)
    kind = choose_parallel(args, resumed, device)
    if args.plan:
        return None
    folder, tokenizer, processor, problems, held_out = load_problems(args, resumed, found, rewards)
    scorer = make_scorer(args, rewards, problems, held_out)
    before = config_of_run(Path(args.out) / "config.json") if resumed else {}
    made_of = {"problems": fingerprint(problems)} | ({"held-out problems": fingerprint(held_out)} if held_out else {})
    made_of |= {file: hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in files_of(rewards)}
    say_changed_flags(args, before)
    refuse_changes(args, before, made_of)
    trained = load_trained(args, folder, tokenizer, processor, problems, kind, resumed, device)
    frozen = {"frozen weights": trained.frozen} if trained.frozen else {}
    refuse_changes(args, before, frozen)
    if args.wandb:
        args.wandb_id = before.get("wandb_id") or uuid.uuid4().hex[:8]
    state = open_run(args, resumed, trained.optimizer, made_of | frozen)
    return (trained, problems, held_out, scorer, kind, state) if state else None


def files_of(rewards: list) -> set[str]:
    """The user's files that rewards are in, and what these have imported from the same folders."""
    files = {source_of(function) for _, function, _ in rewards} - {source_of(parse_rewards), None}
    folders = {Path(file).parent for file in files} - {Path(source_of(parse_rewards)).parent}
    loaded = [str(getattr(module, "__file__", "")) for module in list(sys.modules.values())]
    return files | {file for file in loaded if file.endswith(".py") and Path(file).parent in folders}


def find_checkpoint(args) -> Path | None:
    """The checkpoint that a resumed run continues from: the newest intact one that rank 0 finds; None: a new run."""
    folder = of_rank_0(lambda: checkpoint.newest(Path(args.out), say)) if args.resume else None
    if folder:
        say(f"resuming from {folder}")
        if not folder.exists():
            fail(f"--resume: {folder} is not on this machine; every node reads the checkpoint", any_rank=True)
    return folder


def say_changed_flags(args, before: dict) -> None:
    """Says which flags a resumed run changes. before: what is in config.json."""
    old, new = (json.loads(json.dumps(absolute_paths(flags))) for flags in (before, vars(args)))
    names = [name for name in new if name not in OF_COMMAND and old.get(name, new[name]) != new[name]]
    for name in {"optimizer", "baseline"} & {*names}:
        if name == "optimizer" or "critic" in (old[name], new[name]):
            fail(f"--{name} {new[name]}: the checkpoint is of {old[name]}; leave the flag out")
    if names:
        changes = (f"--{name.replace('_', '-')} from {old[name]} to {new[name]}" for name in names)
        stretched = "; the cosine is stretched to the new end" * (args.schedule == "cosine" and "steps" in names)
        say(f"--resume changes {', '.join(changes)}{stretched}")


def refuse_changes(args, before: dict, made_of: dict[str, str]) -> None:
    """Ends a resumed run whose prompts, frozen weights or reward files are not as before, unless that is allowed."""
    old = before.get("made_of", {})  # a run of before has none
    if changed := ", ".join(name for name in made_of if old.get(name, made_of[name]) != made_of[name]):
        if not args.allow_changes:
            fail(f"--resume: {changed}: not what {args.out} was trained with; restore it, or give --allow-changes")
        say(f"--allow-changes: {changed}: not what the steps before were made with")


def open_run(args, resumed: Path | None, optimizer, made_of: dict[str, str]) -> State | None:
    """The state to continue from, after restoring the optimizer; the folder is new, emptied, or cut back to it. None if
    nothing is left to do: a run that was stopped after its last step still lacks its final checkpoint."""
    out, state = Path(args.out), State()
    if resumed:
        state = State(**user_input(checkpoint.restore, resumed, optimizer, cut_state))
    dist.barrier()  # every rank has read before rank 0 writes
    if state.step > args.steps or (state.step == args.steps and resumed.name == "final"):
        say(f"{args.out} has its {state.step} steps; --resume with --steps above that continues it")
        return None
    start_bar(args.steps, state.step, desc="GPG")
    if dist.get_rank() == 0:
        if args.overwrite:
            checkpoint.clear(out)
        user_input(out.mkdir, parents=True, exist_ok=True)
        user_input(checkpoint.reopen, out, state.step, resumed)
        record.cut_back(out, state.step)
        versions = {"torch": torch.__version__, "transformers": transformers.__version__, "commit": commit()}
        origin = {"command": shlex.join(sys.argv), "ranks": dist.get_world_size(), "versions": versions}
        origin["made_of"] = made_of
        checkpoint.write(out / "config.json", json.dumps(absolute_paths(vars(args)) | origin, indent=1) + "\n")
    return state


def commit() -> str | None:
    """The commit of this code, marked if the tree has changes; None outside a repository."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
