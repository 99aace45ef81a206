"""What a run reports: the row of a step, the lines on the terminal, and warnings with advice.

metrics.jsonl, samples.jsonl and groups.jsonl are written by rank 0, one step at a time. Letters: P prompts per step,
G samples of each, S groups of all rounds and ranks.
"""

import math
import re
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from tqdm import tqdm

from engine.balance import Share
from engine.batch import Batch, Sums, flatten, unflatten
from engine.optimizer import Gradient
from gpg import alpha, global_sum, valid_groups
from run import checkpoint
from run.checkpoint import State
from run.flags import columns, printable
from tasks.data import order
from tasks.pictures import preview

# on a narrow terminal the last columns are left out
HEAD = """\
                     held-  groups, %                  en-    cut  gradient        tokens/s
step    reward ± se  out %  valid easy hard  alpha   tropy  off %      norm   cos   draw grade train"""
HEAD_EVERY = 25  # lines
BAR: list[tqdm] = []  # that of the present run

PATIENCE = 5  # steps in a row, for a sign that chance alone shows now and then
COLLAPSED = 0.1  # of the first step's entropy; the default job learns its task with a quarter of it left


@dataclass(frozen=True)
class Evaluation:
    """Greedy accuracy on all held-out problems, over all ranks, and this rank's part of them."""

    accuracy: float
    standard_error: float
    by_kind: dict[str, float]  # where problems have a column "kind"
    rows: list[dict]
    completions: list[str]
    right: list[float]


def evaluation(problems: list, mine: list, completions: list[str], right: list[float], device) -> Evaluation:
    """The result of all ranks, from `right`, 0 to 1 each, of this rank's part `mine` of the problems. A collective."""
    counts = Counter(row["kind"] for row in problems if isinstance(row.get("kind"), str))
    sums = [sum(x for x, row in zip(right, mine, strict=True) if row.get("kind") == kind) for kind in sorted(counts)]
    sums = torch.tensor([sum(right), sum(x * x for x in right), *sums], dtype=torch.float64, device=device)
    total, squares, *by_kind = global_sum(sums).tolist()
    mean = total / len(problems)
    variance = mean * (1 - mean) + (squares / len(problems) - mean)  # the second is exactly 0 if all scores are 0 or 1
    means = {kind: x / counts[kind] for kind, x in zip(sorted(counts), by_kind, strict=True)}
    return Evaluation(mean, math.sqrt(max(0.0, variance) / len(problems)), means, mine, completions, right)


class Totals(NamedTuple):
    """A step's counts over all ranks."""

    sums: Sums
    groups: torch.Tensor  # (2, S, G): rewards and lengths, in the order of rounds and of prompts in a round
    loss: float
    gap: float  # the greatest


def global_totals(batch: Batch, gradient: Gradient, num_prompts: int, device: torch.device) -> Totals:
    """The counts of all ranks by one all_reduce, in which each rank has places of its own for its samples and its gap:
    the number of ranks does not change the result. num_prompts: P, over all ranks."""
    rank, ranks, G = dist.get_rank(), dist.get_world_size(), batch.rewards.shape[1]
    groups = torch.zeros((2, batch.rounds, num_prompts, G), dtype=torch.float64, device=device)
    mine = torch.stack([batch.rewards.double(), batch.rollout.completion_mask.sum(dim=2).double()])
    groups[:, :, rank::ranks] = mine.view(2, batch.rounds, len(range(rank, num_prompts, ranks)), G)
    gaps = [gradient.gap if other == rank else 0.0 for other in range(ranks)]
    numbers = torch.tensor([*flatten(batch.sums), gradient.loss, *gaps], dtype=torch.float64, device=device)
    totals = global_sum(torch.cat([numbers, groups.flatten()])).cpu()
    numbers, groups = totals[: len(numbers)].tolist(), totals[len(numbers) :].view(2, -1, G)
    *counts, loss = numbers[:-ranks]
    return Totals(unflatten(batch.sums, counts), groups, loss, max(numbers[-ranks:]))


def metrics(batch: Batch, share: Share, totals: Totals, grad_norm: float, lr: float, args, state: State) -> dict:
    """The row of metrics.jsonl, whose columns docs/metrics.md explains."""
    sums, loss = totals.sums, totals.loss
    row = {
        "step": state.step + 1,
        "reward": sums.reward / sums.samples,
        "reward_se": standard_error(totals.groups[0]),
        "reward_std": sums.reward_std / sums.groups,
        "valid_share": sums.valid / sums.groups,
        "easy_share": sums.easy / sums.groups,
        "hard_share": sums.hard / sums.groups,
        "alpha": alpha(args.prompts_per_step, batch.num_valid) if batch.num_valid else None,
        "rounds": batch.rounds,
        "completion_tokens": sums.tokens / sums.samples,
        "truncated_share": sums.truncated / sums.samples,
        "left_out_share": sums.left_out / sums.samples,
        "reward_errors": int(sums.reward_errors),
        "entropy": sums.surprise / sums.tokens,  # its expectation, without --top-p and --top-k; sampling knows log pi
        "loss": loss,
        "grad_norm": grad_norm,
        "logprob_gap": totals.gap,
        "imbalance": share.after,
        "imbalance_sampled": share.before,
        "lr": lr,
        "skipped": state.skipped + (not math.isfinite(grad_norm + loss)),
        "trained_tokens": args.updates * share.tokens,
        "generated_tokens": state.generated_tokens + int(sums.drawn),
    }
    row |= {f"reward/{name}": sums.by_reward[name] / n if n else None for name, n in sums.scored.items()}
    row |= {name: x / max(1, sums.methods["tokens"]) for name, x in sums.methods.items() if name != "tokens"}
    boxes = {key: n for key, n in sums.graded.items() if key.startswith("box/")}
    rules = {f"answer_rule/{key}": n for key, n in sums.graded.items() if key not in boxes and key != "given_up"}
    row |= {"given_up": int(sums.graded["given_up"])} if rules else {}
    for found in (rules, boxes):
        row |= {key: n / max(1, sum(found.values())) for key, n in found.items()}
    row = {name: x if x is None or math.isfinite(x) else None for name, x in row.items()}  # of demonstrations, say
    return row | batch.seconds


def by_kind(problems: list[dict], rewards: torch.Tensor, args, state: State) -> dict[str, float | None]:
    """Columns of each value of a column "kind": reward, valid share and alpha, of rewards (S, G) of all ranks."""
    S, row = len(rewards), {}
    kinds = [problems[i].get("kind") for i in order(len(problems), args.seed, state.position, S)]
    for kind in sorted({kind for kind in kinds if isinstance(kind, str)}):
        of_kind = rewards[[other == kind for other in kinds]]
        num, valid = len(of_kind), int(valid_groups(of_kind).sum())
        row |= {f"reward_of/{kind}": float(of_kind.mean()), f"valid_share/{kind}": valid / num}
        row[f"alpha/{kind}"] = alpha(num * args.prompts_per_step / S, valid) if valid else None
    return row


def standard_error(rewards: torch.Tensor) -> float | None:
    """Of the mean of rewards (S, G), clustered by group, as samples of one prompt are alike; None for one group."""
    means = rewards.mean(dim=1)  # (S,)
    return float(means.std()) / math.sqrt(len(means)) if len(means) > 1 else None


def make_logger(args, state: State, before: Evaluation | None):
    """The function that writes a step's row, samples and groups wherever this run logs; on rank 0 only."""
    if dist.get_rank():
        return lambda *_: None
    out, boards, first = Path(args.out), [], state.step
    if not first:
        say("the loss does not measure progress, only its gradient counts: watch the reward")
    say(fitted(f"{HEAD}\n{step_line({'step': first} | accuracy_of(before), 0)}"))
    watch = make_watch(args, out / "metrics.jsonl")
    if args.tensorboard:
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(str(out / "tensorboard"), purge_step=first + 1)
        boards.append(lambda row: [writer.add_scalar(name, x, row["step"]) for name, x in row.items()])
    if args.wandb:
        import wandb

        run = wandb.init(project=args.wandb, config=vars(args), dir=out, id=args.wandb_id, resume="allow")
        boards.append(lambda row: run.log(row, step=row["step"]))

    def log(row: dict, samples: list[dict], groups: torch.Tensor) -> None:
        if row["step"] == 1 and before:
            row |= {name.replace("accuracy", "accuracy_before"): x for name, x in accuracy_of(before).items()}
        checkpoint.append(out / "metrics.jsonl", row)
        for sample in samples:
            checkpoint.append(out / "samples.jsonl", sample | preview(sample))
        rewards, lengths = groups[0].tolist(), groups[1].long().tolist()
        checkpoint.append(out / "groups.jsonl", {"step": row["step"], "rewards": rewards, "tokens": lengths})
        for board in boards:
            board({name: x for name, x in row.items() if x is not None})
        head = [HEAD] * ((row["step"] - first) % HEAD_EVERY == 0)
        lines = *head, step_line(row, int(groups[1].sum()))
        say("\n".join([*map(fitted, lines), *reward_lines(row), *watch(row)]))
        BAR[0].update()
        if row["step"] == args.steps:
            BAR[0].close()

    return log


def step_line(row: dict, tokens: int) -> str:
    """A row under HEAD: is it learning? A dash for a missing value. tokens: sampled in the step."""

    def cell(name: str, width: int, form: str, scale: int = 1, missing: str = "-") -> str:
        x = row.get(name)
        return f"{missing if x is None else format(scale * x, form):>{width}}"

    def speed(tokens: int, part: str, width: int) -> str:
        x = tokens / row.get(f"seconds_{part}", math.inf)
        return f"{'-' if not x else f'{x:.0f}' if x < 1e4 else f'{x / 1e3:.0f}k':>{width}}"

    cells = (
        cell("step", 4, "d"),
        cell("reward", 6, ".3f") + " ±" + cell("reward_se", 5, ".3f"),
        cell("accuracy", 5, ".1f", 100, missing=""),
        "".join(cell(f"{kind}_share", 5, ".0f", 100) for kind in ("valid", "easy", "hard")),
        cell("alpha", 5, "#.4g"),
        cell("entropy", 6, ".3f"),
        cell("truncated_share", 5, ".0f", 100),
        cell("grad_norm", 8, "#.3g") + cell("grad_cosine", 6, "+.2f", missing=""),
        speed(tokens, "rollout", 5) + speed(tokens, "reward", 6) + speed(row.get("trained_tokens", 0), "update", 6),
    )
    return "  ".join(cells)


def reward_lines(row: dict) -> list[str]:
    """The mean of each reward, below a step's line and as narrow; nothing if that of their sum says it all."""
    means = {name.partition("/")[2]: x for name, x in row.items() if name.startswith("reward/")}
    shown = [f"{name} {'-' if x is None else f'{x:.3f}'}" for name, x in means.items()]
    if shown == [f"{name} {row['reward']:.3f}" for name in means]:
        return []
    return textwrap.wrap(", ".join(shown), 80, initial_indent=" " * 6, subsequent_indent=" " * 6)


def fitted(lines: str) -> str:
    """Lines of the table, cut behind the last column that the terminal has room for."""
    words, width = re.finditer(r"\S+", HEAD.rpartition("\n")[2]), columns() or math.inf
    ends = [word.end() for word in words if word.end() <= width]
    return "\n".join(line[: ends[-1]] for line in lines.split("\n")) if ends else lines


def start_bar(total: int, first: int = 0, **options) -> tqdm:
    """The progress bar, on a terminal of rank 0. `show` refreshes it between steps, which must not count as speed."""
    options |= {"dynamic_ncols": True, "miniters": 0, "smoothing": 0, "disable": dist.get_rank() > 0 or None}
    BAR[:] = [tqdm(total=total, initial=first, **options)]
    return BAR[0]


def show(what: str, total: int = 0, *done: int) -> None:
    """Writes beside the bar what the step is at; and how much of it is done, at most ten times a second."""
    if BAR and not BAR[0].disable:
        BAR[0].set_postfix_str(f"{what} {sum(done)} of {total}" if total else what, refresh=not total)
        BAR[0].update(0)


def make_watch(args, rows: Path):
    """The function from a step's row to warnings with advice, each once per run. rows: the file of earlier steps."""
    first, in_a_row, warned = next(checkpoint.read_lines(rows), {}), Counter(), set()

    def watch(row: dict) -> list[str]:
        first.update(row if not first else {})
        warnings = []
        for i, (holds, patience, text) in enumerate(signs(row, first, args)):
            in_a_row[i] = in_a_row[i] + 1 if holds else 0
            if in_a_row[i] >= patience and i not in warned:
                warned.add(i)
                warnings.append(f"warning, step {row['step']}: {text}")
        return warnings

    return watch


def signs(row: dict, first: dict, args) -> Iterator[tuple[object, int, str]]:
    """Of each sign: whether the row shows it, how many steps in a row must, what it means and what may help."""
    helps = "do completions in samples.jsonl end, is their answer found? Then easier problems or graded rewards help"
    if row["easy_share"] > row["hard_share"]:
        helps = "the problems are too easy for this model; give harder ones"
    unscored = ", ".join(name[len("reward/") :] for name, x in row.items() if name.startswith("reward/") and x is None)
    cut, entropy, gap = row["truncated_share"], row["entropy"], row["logprob_gap"] or 0.0
    yield unscored, 1, f"{unscored} returned None for every sample, so none is scored and nothing is learned"
    idle = row["valid_share"] == 0 == row["grad_norm"] and not unscored  # compared methods may learn from any group
    yield idle, PATIENCE, f"no group was valid for {PATIENCE} steps, so nothing is learned: {helps}"
    text = f"{cut:.0%} of the completions hit --max-new-tokens {args.max_new_tokens}: allow more; if texts in "
    yield cut > 0.5, 1, text + "samples.jsonl never end, the template or the end token is not the model's"
    alike = entropy is not None and entropy < COLLAPSED * (first.get("entropy") or 0.0)
    text = f"entropy was below {COLLAPSED:.0%} of the first step's for {PATIENCE} steps: samples become alike. If the "
    yield alike, PATIENCE, text + "reward is high, the run is done; else resume from before it with a lower --lr"
    half = args.dtype == "bfloat16"
    made = "in bfloat16 rounding alone has made 0.25; if more, try float32" if half else "float32 rounding makes 1e-5"
    text = f"logprob_gap is {gap:.2g}: the trained policy is not quite the one that sampled ({made}); see --doctor"
    yield gap > (0.1 if half else 1e-3), 1, text


def accuracy_of(result: Evaluation | None) -> dict[str, float]:
    kinds = {f"accuracy/{kind}": x for kind, x in result.by_kind.items()} if result else {}
    return {"accuracy": result.accuracy, "accuracy_se": result.standard_error} | kinds if result else {}


def report(args, state: State, first: int, before: Evaluation | None, after: Evaluation | None, controls: dict) -> None:
    """Says how accuracy changed, what it is with wrong pictures (the controls), and one completion that changed."""
    if controls and not dist.get_rank():
        scores = {name: accuracy_of(each) for name, each in controls.items()}
        checkpoint.write(Path(args.out, "controls.json"), checkpoint.as_lines([scores]))
    say(f"done: {args.out}/final loads with from_pretrained; see {args.out}/metrics.jsonl")
    if before is None or dist.get_rank():
        return
    results = {"before": before, "after": after, **controls}
    shares = {name: f"{100 * x.accuracy:.1f} ± {100 * x.standard_error:.1f} %" for name, x in results.items()}
    change = f"before (step {first}) {shares['before']}, after (step {args.steps}) {shares['after']}"
    say(f"held-out accuracy, greedy: {change}")
    if args.keep_best:
        say(f"the best of this run: {100 * state.best_accuracy:.1f} %, after step {state.best_step}")
    for name, each in results.items():
        if each.by_kind or name in controls:
            kinds = ", ".join(f"{kind} {100 * share:.1f} %" for kind, share in each.by_kind.items())
            say(f"  {name}: {shares[name]}" + f" ({kinds})" * bool(kinds))
    changed = {i: b - a for i, (a, b) in enumerate(zip(before.right, after.right, strict=True)) if a != b}
    if not changed:
        say("no held-out problem is answered better or worse than before")
        return
    i = max(changed, key=changed.get)
    say(f"one that changed: {before.rows[i]['problem']}")
    for name, evaluation in (("before", before), ("after", after)):
        verdict = {1: "right", 0: "wrong"}.get(evaluation.right[i], f"{evaluation.right[i]:.2f}")
        say(f"--- {name}, {verdict}:\n{evaluation.completions[i]}")


def say(text: str) -> None:
    """Prints lines above the progress bar, from rank 0 only; on a terminal they break between words."""
    if not dist.is_initialized() or dist.get_rank() == 0:
        lines, width = printable(text).split("\n"), columns()
        short = [line if not width or len(line) <= width else textwrap.fill(line, width) for line in lines]
        tqdm.write("\n".join(short))
        sys.stdout.flush()
