"""From flags to a run that can begin: what is wrong is found here, in the order of what it costs to find it."""

from collections.abc import Callable
from typing import NamedTuple

import torch

from rewards import parse_rewards
from run.checkpoint import State
from run.flags import user_input
from run.memory import choose_parallel
from run.models import Trained, load_trained
from run.problems import load_problems, make_scorer
from run.resume import find_checkpoint, is_finished, open_run


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
    trained = load_trained(args, folder, tokenizer, processor, kind, resumed, device)
    state = open_run(args, resumed, trained.optimizer)
    return None if is_finished(args, resumed, state) else Run(trained, problems, held_out, scorer, kind, state)
