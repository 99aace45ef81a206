"""The update of a recorded step alone, repeated from the checkpoint before it. Nothing is written.

python train.py --replay OUT/rollouts/step-000010.safetensors        or python -m tools.replay FILE
"""

import json
import math
import sys
from pathlib import Path

from run.flags import fail, parse_args, user_input

if __name__ == "__main__":
    words = ["--help"] if {"-h", "--help"} & {*sys.argv} else ["--replay", *sys.argv[1:]]
    parse_args(words)  # what is wrong with a flag is said before torch is loaded

import torch
import torch.distributed as dist

import train
from engine.balance import share_out
from engine.batch import Batch
from engine.parallel import cut_state
from gpg import alpha, global_sum
from run import checkpoint, record
from run.checkpoint import State
from run.journal import say
from run.memory import choose_parallel
from run.models import first_model, load_trained
from run.problems import processor_of


def run(args, device: torch.device) -> None:
    """Repeats the update of --replay's file and prints its numbers, by the names of metrics.jsonl."""
    recorded, step, pictured = user_input(record.load, args.replay, device)
    folder = Path(first_model(args))
    resumed = folder if (folder / "trainer.pt").exists() else None
    kind = choose_parallel(args, folder, device)
    processor = processor_of(args, folder, None, needed=pictured)
    problems = [{"images": ()}] * pictured  # which say whether text alone is trained on
    trained = load_trained(args, folder, None, processor, problems, kind, resumed, device)
    batch, state = Batch(**recorded, sums=None, seconds={}, samples=[]), State(step=step - 1)
    tokens = torch.cat([batch.rollout.prompt_ids.flatten(), batch.rollout.completion_ids.flatten()])
    if (tokens >= trained.model.get_input_embeddings().num_embeddings).any():
        fail(f"--replay {args.replay}: has tokens that {folder} lacks; give its own --model", any_rank=True)
    if resumed:
        found = user_input(checkpoint.restore, resumed, trained.optimizer, cut_state)
        if found["step"] != state.step:
            say(f"{folder} is not the checkpoint of step {state.step}, before step {step}: this is another update")

    share = share_out(batch.rollout, train.weigh(batch, args), batch.extras)
    gradient = train.gradient_of(trained, share, args, halves=train.due(args.noise_every, state))
    loss = float(global_sum(torch.tensor(gradient.loss, dtype=torch.float64, device=device)))
    gap = torch.tensor(gradient.gap, dtype=torch.float64, device=device)
    dist.all_reduce(gap, dist.ReduceOp.MAX)
    lr = train.rate(args, state)
    train.take_step(trained.optimizer, lr, learn=share.count > 0 and gradient._replace(loss=loss).is_finite())
    train.more_updates(trained, share, lr, args)
    strength = alpha(args.prompts_per_step, batch.num_valid) if batch.num_valid else None
    row = {"step": step, "loss": loss, "grad_norm": gradient.norm, "logprob_gap": float(gap)}
    row = {name: x if math.isfinite(x) else None for name, x in row.items()}
    say(json.dumps(row | gradient.noise | {"alpha": strength, "valid_groups": batch.num_valid}))


if __name__ == "__main__":
    train.main(words)
