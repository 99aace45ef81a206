"""Group Policy Gradient, the loop: collect, weigh, backpropagate, step, log, save. Read it from top to bottom.

    python train.py                                              the built-in model and task: a laptop, minutes
    torchrun train.py --model Qwen/Qwen2.5-1.5B --data openai/gsm8k --eval-data openai/gsm8k --out runs/gsm8k
    torchrun --nproc_per_node 8 train.py @config/math-7b-gpg.args --out runs/math
    torchrun --nproc_per_node 8 train.py --out runs/math --resume     on from the newest checkpoint, to the same bits

A process is a rank, and one process a world of size 1, not a path of its own. Letters: P prompts a step over all
ranks, G samples of each, S groups that a rank sampled in all rounds of a step, T completion tokens, N rows at once.
"""

import gc
import json
import math
import os
import random
import shlex
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import huggingface_hub
import torch
import torch.distributed as dist
import transformers
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from engine import lora
from engine.balance import share_out
from engine.methods import Critic, demonstrations, overlong_penalty
from engine.parallel import autocast, cut_state, plain, spread, whole, whole_weights
from engine.policy import Policy, keep_float64
from engine.update import backward, fit_critic, look, more_updates, take_step, weigh
from gpg import alpha, global_sum, valid_groups
from rewards import accuracy, compares_answers, num_as_text, parse_rewards, score
from rollout import Rollout, completion_texts, join, rollout
from run import checkpoint, faults, memory, record
from run.faults import stop_signals, uninterrupted
from run.flags import BUILT_IN, fail, parse_args, pretrained, user_input
from run.journal import accuracy_of, global_totals, make_logger, metrics, report, say
from tasks import addition, data
from tasks.prompts import encode_prompt, load_template, system_prompt
from tools import doctor

MAX_SKIPPED_IN_A_ROW = 10  # steps without a finite gradient after which a run gives up


@dataclass(frozen=True)
class Evaluation:
    """Greedy accuracy on all held-out problems, over all ranks, and what this rank's share of them gave."""

    accuracy: float
    standard_error: float
    rows: list[dict]
    completions: list[str]
    right: list[float]


@dataclass(frozen=True)
class State:
    """All that a run remembers beside its weights and its optimizer."""

    step: int = 0
    position: int = 0  # problems taken from the endless stream of data.order
    generated_tokens: int = 0  # completion tokens since the start, over all ranks
    seconds: float = 0.0  # since the start
    skipped: int = 0  # steps left out because loss or gradient was not finite
    skipped_in_a_row: int = 0


@dataclass(frozen=True)
class Batch:
    """What this rank sampled for one step: the groups of all rounds, invalid ones too."""

    rollout: Rollout
    rewards: torch.Tensor  # (S, G) float64
    loss_mask: torch.Tensor  # (S, G, T): completion_mask, empty for samples that are left out of the loss
    num_valid: int  # valid groups, over all ranks
    rounds: int
    sums: dict[str, float]  # this rank's share of the metrics
    seconds: dict[str, float]
    samples: list[dict]  # a few completions, for people to read
    # what only the methods in engine/methods.py have:
    greedy: torch.Tensor | None = None  # (S,), the reward of a prompt's greedy completion
    advantages: torch.Tensor | None = None  # (S, G, T or 1), in place of Eq. 6
    beside: dict[str, torch.Tensor] = field(default_factory=dict)  # (S, G, T) each, see update.look


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    transformers.utils.logging.disable_progress_bar()  # the run has one bar of its own
    huggingface_hub.utils.logging.set_verbosity_error()  # its retries; what fails in the end is said in one line
    device = init_distributed(args)
    try:
        with faults.beating():
            command = replay if args.replay else examine if args.doctor else train
            problem = command(args, device)
    except FloatingPointError as error:
        give_up(str(error))
    except OSError as error:  # a full disk, say; to go on unsaved could cost more than to stop
        standing = checkpoint.latest(Path(args.out))
        give_up(f"{error}; " + (f"{standing} stands, --resume goes on" if standing else "no checkpoint was made yet"))
    except RuntimeError as error:
        if faults.broke_off(error):
            faults.end_without_others(error)
        raise
    finally:
        if dist.get_world_size() > 1:
            gc.collect()  # what spreads a model holds itself in circles: left behind, it could hang as the process ends
        dist.destroy_process_group()
    if problem:
        sys.exit(1)


def train(args, device: torch.device) -> None:
    rewards = user_input(parse_rewards, args.rewards, args.max_new_tokens)
    resumed = find_checkpoint(args)
    kind = choose_parallel(args, resumed, device)
    if args.plan:
        return
    folder, tokenizer, problems, held_out = load_problems(args, resumed)
    grader = make_grader(args, rewards, problems, held_out)
    model = load_trained(args, folder, resumed, device)
    policy = make_policy(model, kind, args)
    reference, critic = make_compared(args, resumed, device)
    optimizer = make_optimizer(model, args, critic)
    state = open_run(args, resumed, optimizer, device)
    if is_finished(args, resumed, state):
        return

    first, logged = state.step, state.step
    after = before = evaluate(policy, tokenizer, held_out, args)
    log = make_logger(args, state, before)
    began = time.perf_counter() - state.seconds
    with stop_signals(at_once=kind == "ddp") as stopped:
        try:
            while state.step < args.steps:
                # Algorithm 1, line 1; look: for the methods that GPG is compared with
                batch = look(collect(policy, tokenizer, problems, grader, args, state), reference, critic, args)
                record.keep(batch, args, state)
                updating = time.perf_counter()
                faults.doing(f"update of step {state.step + 1}")
                share = share_out(batch.rollout, weigh(batch, args), batch.beside)  # Eq. 5 to 8
                grad_norm, loss, gap, noise = backward(policy, share, args, due(args.noise_every, state))  # line 2, 3
                fit_critic(critic, share, args)
                totals, groups, loss, gap = global_totals(batch, loss, gap, args, device)
                with uninterrupted():  # from here a step is made whole: weights, state, row and checkpoint
                    take_step(optimizer, batch, grad_norm, loss, args, state)
                    row = metrics(batch, share, totals, groups, grad_norm, loss, gap, args, state)
                    row |= (
                        noise
                        | more_updates(policy, critic, optimizer, share, batch, args, state)
                        | {"seconds_update": time.perf_counter() - updating}
                    )
                    state = advance(state, batch, totals, math.isfinite(grad_norm + loss), args)
                    check_ranks(model, kind, args, state)
                    if state.step == args.steps or due(args.eval_every, state):
                        after = evaluate(policy, tokenizer, held_out, args)
                        row |= accuracy_of(after)
                    state = replace(state, seconds=time.perf_counter() - began)
                    log(row | {"seconds": state.seconds}, batch.samples, groups)
                    logged = state.step
                    if state.step < args.steps and due(args.save_every, state):
                        save(f"checkpoint-{state.step}", args, model, critic, tokenizer, optimizer, state)
                end_between_steps(kind, stopped, state)
            with uninterrupted():
                save("final", args, model, critic, tokenizer, optimizer, state)
        except BaseException as error:
            if not stopped and not faults.broke_off(error):
                raise
            savable = logged == state.step and (kind == "ddp" or bool(stopped))  # a shard alone is no checkpoint
            end_early(error, stopped, savable, args, model, critic, tokenizer, optimizer, state)
    report(args, first, before, after)


def replay(args, device: torch.device) -> None:
    """The update of a recorded step alone, from the checkpoint before it; printed, by the names of metrics.jsonl."""
    kept, step = user_input(record.load, args.replay, device)
    folder = addition.ensure(args.seed) if args.model == BUILT_IN else Path(args.model)
    resumed = folder if (folder / "trainer.pt").exists() else None
    kind = choose_parallel(args, folder, device)
    model = load_model(args, folder, device)
    batch, state = Batch(**kept, sums={}, seconds={}, samples=[]), State(step=step - 1)
    tokens = torch.cat([batch.rollout.prompt_ids.flatten(), batch.rollout.completion_ids.flatten()])
    if (tokens >= model.get_input_embeddings().num_embeddings).any():
        fail(f"--replay {args.replay}: has tokens that {folder} has not; give its own --model", any_rank=True)
    policy = make_policy(model, kind, args)
    _, critic = make_compared(args, resumed, device)
    optimizer = make_optimizer(model, args, critic)
    if resumed and user_input(checkpoint.restore, resumed, optimizer, device, cut_state)["step"] != state.step:
        say(f"{folder} is not that of step {state.step}, from which step {step} began: this is another update")

    share = share_out(batch.rollout, weigh(batch, args), batch.beside)
    grad_norm, loss, gap, noise = backward(policy, share, args, halves=due(args.noise_every, state))
    fit_critic(critic, share, args)
    loss = float(global_sum(torch.tensor(loss, dtype=torch.float64, device=device)))
    gap = torch.tensor(gap, dtype=torch.float64, device=device)
    dist.all_reduce(gap, dist.ReduceOp.MAX)
    take_step(optimizer, batch, grad_norm, loss, args, state)
    more_updates(policy, critic, optimizer, share, batch, args, state)
    strength = alpha(args.prompts_per_step, batch.num_valid) if batch.num_valid else None
    row = {"step": step, "loss": loss, "grad_norm": grad_norm, "logprob_gap": float(gap)}
    row = {name: x if math.isfinite(x) else None for name, x in row.items()}
    say(json.dumps(row | noise | {"alpha": strength, "valid_groups": batch.num_valid}))


def examine(args, device: torch.device) -> bool:
    """--doctor: a run's own parts on one small batch, each held against what it must be -> whether one is wrong."""
    rewards = user_input(parse_rewards, args.rewards, args.max_new_tokens)
    resumed = find_checkpoint(args)
    kind, shape, load, limit = planned(args, resumed, device)
    small = doctor.small_batch(args, shape.parameters, device)
    choose_parallel(small, resumed, device)  # ends here if even that does not fit
    folder, tokenizer, problems, held_out = load_problems(args, resumed)
    grader, graded = make_grader(args, rewards, problems, held_out), []
    model = load_trained(args, folder, resumed, device)
    policy = make_policy(model, kind, args)
    checks = user_input(doctor.of_model, args, model, tokenizer, problems)

    def kept(prompts, texts, ids, columns):
        graded.append((texts, columns.get("answer", []), grader(prompts, texts, ids, columns)))
        return graded[-1][-1]

    batch = collect(policy, tokenizer, problems, kept, small, State())
    gap = doctor.logprob_gap(policy, batch.rollout, args)
    checks += doctor.of_batch(args, small, model, tokenizer, batch, graded, gap)
    checks.append(doctor.check_memory(shape, load, limit, args.group_size))
    checks = doctor.findings(checks)
    say(doctor.table(checks))
    return not all(check.ok for check in checks)


def collect(policy, tokenizer, problems: list[dict], grader, args, state: State) -> Batch:
    """Rounds of P prompts until the valid groups of all ranks reach beta_th of P, at most max_rounds of them.

    All ranks decide from one count, so they make the same rounds. Every group of every round is returned: the invalid
    ones count in Eq. 7, though they never meet the model again.
    """
    P, num_valid, graded, baseline, model = args.prompts_per_step, 0, [], [], plain(policy).model
    faults.doing(f"rollout of step {state.step + 1}")
    seconds = {"seconds_rollout": 0.0, "seconds_reward": 0.0}
    for number in range(args.max_rounds):
        began = time.perf_counter()
        chosen = data.order(len(problems), args.seed, state.position + number * P, P)
        places = range(dist.get_rank(), P, dist.get_world_size())  # this rank's places in the round
        rows = [problems[chosen[place]] for place in places]
        with whole_weights(policy), autocast(args, model.device):
            sampled, greedy = sample(model, tokenizer, rows, (args.seed, state.step, number), places, args)
        grading = time.perf_counter()
        graded.append((sampled, *grade(tokenizer, rows, sampled, grader, args, state)))
        if greedy:
            reward, _, counts, _ = grade(tokenizer, rows, greedy, grader, args, state)
            baseline.append(reward.squeeze(1))  # (p,)
            graded[-1][3]["drawn"] += counts["drawn"]
        num_valid += int(global_sum(valid_groups(graded[-1][1]).sum()))
        seconds["seconds_rollout"] += grading - began
        seconds["seconds_reward"] += time.perf_counter() - grading
        if num_valid / P >= args.beta_th:
            break

    rollouts, rewards, left_out, sums, samples = zip(*graded, strict=True)
    whole = join(rollouts)
    return Batch(
        rollout=whole,
        rewards=torch.cat(rewards),
        loss_mask=whole.completion_mask * ~torch.cat(left_out)[:, :, None],
        num_valid=num_valid,
        rounds=len(rollouts),
        sums={name: sum(each[name] for each in sums) for name in sums[0]},
        seconds=seconds,
        samples=samples[0],
        greedy=torch.cat(baseline) if baseline else None,
    )


def sample(model, tokenizer, rows: list[dict], key: tuple[int, ...], places, args) -> tuple[Rollout, Rollout | None]:
    """The groups of these problems; and a greedy completion of each, where that is the baseline."""
    prompts = [row["prompt_ids"] for row in rows]
    if args.algo == "sft":
        return demonstrations(model, tokenizer, prompts, [row["solution_ids"] for row in rows]), None
    draw = partial(
        rollout, model, tokenizer, prompts, max_new_tokens=args.max_new_tokens, cache_tokens=args.cache_tokens
    )
    options = {"temperature": args.temperature, "top_p": args.top_p, "top_k": args.top_k}
    sampled = draw(group_size=args.group_size, key=key, indices=places, **options)
    return sampled, draw(group_size=1, temperature=0.0) if args.baseline == "greedy" else None


def grade(tokenizer, rows: list[dict], sampled: Rollout, grader, args, state: State):
    """Rewards (p, G), who is left out of the loss (p, G), sums for the metrics, and two samples for people to read.

    A sample that a reward could not score (None), or a truncated one under --mask-truncated, moves neither the loss nor
    the baseline of its siblings: its tokens leave the loss, and it takes the mean reward of the others of its group.
    """
    (p, G), device = sampled.truncated.shape, sampled.truncated.device
    faults.doing(f"rewards of step {state.step + 1}")
    repeated = [row for row in rows for _ in range(G)]
    texts = completion_texts(tokenizer, sampled)
    lengths = sampled.completion_mask.sum(dim=2).flatten().tolist()
    ids = [row[:n] for row, n in zip(sampled.completion_ids.flatten(0, 1).tolist(), lengths, strict=True)]
    columns = {name: [row.get(name) for row in repeated] for name in {name: None for row in rows for name in row}}
    try:
        result = grader([row["problem"] for row in repeated], texts, ids, columns)
    except ValueError as error:  # which the other ranks need not meet: they are told
        faults.ends(str(error))
        fail(str(error), any_rank=True)

    scores = [math.nan if reward is None else reward for reward in result["total"]]
    # all of this on the CPU: what is counted here needs no wait for the device
    rewards, truncated = torch.tensor(scores, dtype=torch.float64).view(p, G), sampled.truncated.cpu()  # (p, G)
    if args.overlong_buffer:
        rewards = rewards + overlong_penalty(
            torch.tensor(lengths).view(p, G), args.max_new_tokens, args.overlong_buffer
        )
    left_out = rewards.isnan() | (truncated & args.mask_truncated)  # (p, G)
    rewards = fill_left_out(rewards, left_out)

    valid, mean = valid_groups(rewards), rewards.mean(dim=1)
    sums = {
        "samples": rewards.numel(),
        "groups": p,
        "valid": valid.sum(),
        "easy": (~valid & (mean > 0)).sum(),
        "hard": (~valid & (mean <= 0)).sum(),
        "reward": rewards.sum(),
        "reward_std": rewards.std(dim=1, correction=min(1, G - 1)).sum(),
        "tokens": sum(lengths),
        "drawn": sum(lengths),  # with those of greedy completions, which no other metric counts
        "surprise": -sampled.logprobs.double().sum(),
        "truncated": truncated.sum(),
        "left_out": left_out.sum(),
        "reward_errors": result["errors"],
    }
    for name, values in result["by_name"].items():
        known = [value for value in values if value is not None]
        sums |= {f"total {name}": sum(known), f"count {name}": len(known)}
    sums |= {f"graded {key}": count for key, count in result["counts"].items()}
    samples = [
        {
            "step": state.step + 1,
            "problem": row["problem"],
            "answer": row["answer"],
            "completion": text,
            "reward": reward,
        }
        for row, text, reward in zip(repeated[:2], texts[:2], result["total"][:2], strict=True)
    ]
    return rewards.to(device), left_out.to(device), {name: float(value) for name, value in sums.items()}, samples


def fill_left_out(rewards: torch.Tensor, left_out: torch.Tensor) -> torch.Tensor:
    """(P, G), (P, G) bool -> (P, G): those left out take the mean of the others, which leaves that mean as it was.

    Clamped to the others' range: rounding must not make equal rewards unequal, and so their group valid. 0 if all are.
    """
    kept = ~left_out
    mean = rewards.where(kept, 0.0).sum(dim=1) / kept.sum(dim=1)  # (P,)
    low, high = rewards.where(kept, math.inf).amin(dim=1), rewards.where(kept, -math.inf).amax(dim=1)
    mean = mean.clamp(low, high).where(kept.any(dim=1), 0.0)
    return rewards.where(kept, mean[:, None])


def advance(state: State, batch: Batch, totals: dict[str, float], finite: bool, args) -> State:
    return replace(
        state,
        step=state.step + 1,
        position=state.position + batch.rounds * args.prompts_per_step,
        generated_tokens=state.generated_tokens + int(totals["drawn"]),
        skipped=state.skipped + (not finite),
        skipped_in_a_row=0 if finite else state.skipped_in_a_row + 1,
    )


def due(every: int, state: State) -> bool:
    return every > 0 and state.step % every == 0


def evaluate(policy, tokenizer, problems: list[dict], args) -> Evaluation | None:
    """Greedy decoding of all held-out problems, shared out over the ranks; None if there are none."""
    if not problems:
        return None
    faults.doing("evaluation")
    model = plain(policy).model
    mine = problems[dist.get_rank() :: dist.get_world_size()]
    prompts = [row["prompt_ids"] for row in mine]
    with whole_weights(policy), autocast(args, model.device):
        options = {"temperature": 0.0, "cache_tokens": args.cache_tokens}
        sampled = rollout(model, tokenizer, prompts, 1, args.max_new_tokens, **options)
    texts = completion_texts(tokenizer, sampled)
    right = [accuracy(text, row["answer"]) for text, row in zip(texts, mine, strict=True)]
    share = float(global_sum(torch.tensor(sum(right), dtype=torch.float64, device=model.device))) / len(problems)
    return Evaluation(share, math.sqrt(share * (1 - share) / len(problems)), mine, texts, right)


def make_grader(args, rewards: list, problems: list[dict], held_out: list[dict]):
    """The function that scores completions by all of --rewards, none of which may take for ever; and a line on each
    thing about scoring that one should know: sampling that is not what is scored, answers that can't be parsed."""
    if args.top_p < 1 or args.top_k:
        say("--top-p, --top-k: drawn from a part of the distribution, but scored under the whole, as the released code")
    for flag, rows in (("--data", problems if compares_answers(rewards) else []), ("--eval-data", held_out)):
        if num := num_as_text([row["answer"] for row in rows]):
            say(f"{num} of {len(rows)} answers of {flag} can't be parsed: they are compared as text only")
    bounded = []
    for name, reward, weight in rewards:
        if not compares_answers([(name, reward, weight)]):  # the grader bounds itself
            reward = faults.limited(name, reward, args.reward_timeout)
        bounded.append((name, reward, weight))
    return partial(score, bounded, shown=set())


def init_distributed(args) -> torch.device:
    """Joins torchrun's process group, or makes one of a single process. The one place that names a device."""
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    options = {"backend": "nccl" if cuda else "gloo", "timeout": timedelta(seconds=args.rank_timeout)}
    if "RANK" in os.environ:
        dist.init_process_group(**options)
    else:
        dist.init_process_group(**options, store=dist.HashStore(), rank=0, world_size=1)
    return device


def find_checkpoint(args) -> Path | None:
    """The checkpoint that a resumed run goes on from: the newest whole one that rank 0 finds; None: from the start."""
    found = [None, None]
    if args.resume and dist.get_rank() == 0:
        found[0] = user_input(checkpoint.newest, Path(args.out), say)
        if found[0] is None and checkpoint.latest(Path(args.out)):
            found[1] = f"--resume: no checkpoint of {args.out} is whole; --overwrite starts anew"
    dist.broadcast_object_list(found)
    if found[1]:
        fail(found[1])
    if found[0]:
        say(f"going on from {found[0]}")
        if not found[0].exists():
            fail(f"--resume: {found[0]} is not on this machine; every node reads the checkpoint", any_rank=True)
    return found[0]


def choose_parallel(args, resumed: Path | None, device: torch.device) -> str:
    """ddp or fsdp, as --parallel says, or as the memory of the ranks allows. Prints the plan if --plan asks for it; a
    run that takes more than there is is a user's mistake."""
    kind, shape, load, limit = planned(args, resumed, device)
    if args.plan:
        say(memory.describe(shape, load, limit))
        return kind
    moment, size = memory.peak(shape, load)
    if size > limit:
        way = memory.remedy(shape, load, limit, args.group_size)
        way = f"{way} would fit" if way else "no flag would make it fit; take a smaller model, or larger devices"
        wanted = f"the {moment} takes up to {size / memory.GIB:.1f} GiB a rank, and there are {limit / memory.GIB:.1f}"
        fail(f"memory: {wanted}; {way} (see --plan)")
    return kind


def planned(args, resumed: Path | None, device: torch.device) -> tuple[str, memory.Shape, memory.Load, int]:
    """ddp or fsdp, the model's sizes, what a rank will hold, and the bytes that each rank can have at the most."""
    make = args.model == BUILT_IN and not resumed
    config = addition.make_config(addition.make_tokenizer()) if make else pretrained(AutoConfig, resumed or args.model)
    shape, (limit, base) = memory.shape_of(config), memory.room(device)
    least = torch.tensor(limit, device=device)
    dist.all_reduce(least, dist.ReduceOp.MIN)  # ranks of one mind
    limit, ranks = int(least), dist.get_world_size()
    loads = {"ddp": memory.load_of(args, ranks, base), "fsdp": memory.load_of(args, ranks, base, shards=ranks)}
    kind, (moment, size) = args.parallel, memory.peak(shape, loads["ddp"])
    if kind == "auto":
        kind = "ddp" if size <= limit else "fsdp"
        takes = f"whole on each rank it takes {size / memory.GIB:.1f} GiB of {limit / memory.GIB:.1f}"
        say(f"--parallel auto: {kind}, as {takes} in the {moment}")
    return kind, shape, loads[kind], limit


def load_problems(args, resumed: Path | None):
    """Finds what is wrong with data, prompts or model before anything slow -> the model's folder, the tokenizer, and
    the problems for training and evaluation, each with its "prompt_ids"."""
    if args.model == BUILT_IN:
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(1)  # its matrices are so small that a second thread costs more than it brings
        say("flags that the built-in model sets: " + json.dumps(addition.DEFAULTS))
        say(
            f"it was shown sums that forget {addition.FORGET:.0%} of the carries, on purpose; the reward alone repairs it"
        )
        rows, held_out = addition.problems("train"), addition.problems("test")
    else:
        load = partial(data.load, problem_field=args.problem_field, answer_field=args.answer_field)
        load = partial(user_input, load, skip_bad_rows=args.skip_bad_rows)
        rows, bad = load(args.data, split="train")
        held_out, bad_held_out = load(args.eval_data, split="test") if args.eval_data else ([], 0)
        say(f"{len(rows)} problems to train on, {len(held_out)} held out; bad rows skipped: {bad} and {bad_held_out}")
        shared = {row["problem"] for row in rows} & {row["problem"] for row in held_out}
        if shared:
            say(f"warning: {len(shared)} problems of --eval-data are in --data too; accuracy on them is not held out")

    folder, make = resumed or args.model, args.model == BUILT_IN and not resumed
    tokenizer = addition.make_tokenizer() if make else pretrained(AutoTokenizer, folder)
    config = addition.make_config(tokenizer) if make else pretrained(AutoConfig, folder).get_text_config()
    positions = getattr(config, "max_position_embeddings", None) or math.inf
    if args.max_prompt_tokens + args.max_new_tokens > positions:
        fail(f"--max-prompt-tokens + --max-new-tokens is above the {positions} positions of {args.model}")
    problems, held_out = with_prompts(rows, tokenizer, args), with_prompts(held_out, tokenizer, args)
    if args.algo == "sft":
        if args.model == BUILT_IN:  # which forgets no carry, other than what the model was shown
            solve = partial(addition.demonstration, forget=0.0, rng=random.Random(0))
            problems = [row | {args.solution_field: solve(row["problem"])} for row in problems]
        problems = with_solutions(problems, tokenizer, args)
    if make:
        if int(os.environ.get("LOCAL_RANK", 0)) == 0:
            addition.ensure(args.seed)
        dist.barrier()  # the other ranks of the machine find what the first one made
        folder = addition.ensure(args.seed)
        tokenizer = pretrained(AutoTokenizer, folder)
    return folder, tokenizer, problems, held_out


def with_prompts(rows: list[dict], tokenizer, args) -> list[dict]:
    """The rows whose prompt has at most max_prompt_tokens tokens, with it. The others are counted, never cut."""
    template = load_template(args.template)
    system, suffix = system_prompt(args.system_prompt)
    encode = partial(encode_prompt, tokenizer, system=system, suffix=suffix, template=template)
    ids = user_input(lambda: [encode(row["problem"]) for row in rows])
    kept = [row | {"prompt_ids": i} for row, i in zip(rows, ids, strict=True) if len(i) <= args.max_prompt_tokens]
    if rows and not kept:
        fail(f"--max-prompt-tokens {args.max_prompt_tokens}: all prompts are longer, from {min(map(len, ids))} up")
    if len(kept) < len(rows):
        say(f"skipped {len(rows) - len(kept)} of {len(rows)} prompts, longer than --max-prompt-tokens")
    return kept


def with_solutions(rows: list[dict], tokenizer, args) -> list[dict]:
    """The rows whose worked solution has at most max_new_tokens tokens, EOS among them, with it."""
    name = args.solution_field
    if missing := [row for row in rows if not isinstance(row.get(name), str)]:
        fail(f"--solution-field {name}: not a text in {len(missing)} of {len(rows)} rows; give the column of solutions")
    ids = [tokenizer(row[name], add_special_tokens=False).input_ids for row in rows]
    kept = [row | {"solution_ids": i} for row, i in zip(rows, ids, strict=True) if len(i) < args.max_new_tokens]
    if not kept:
        fail(f"--max-new-tokens {args.max_new_tokens}: all solutions are longer, from {min(map(len, ids)) + 1} up")
    if len(kept) < len(rows):
        say(f"skipped {len(rows) - len(kept)} of {len(rows)} solutions, longer than --max-new-tokens")
    return kept


def load_trained(args, folder, resumed: Path | None, device: torch.device):
    """The folder's model; with --lora-rank the one that the run began with, and adapters: a checkpoint's, or new."""
    adapter = resumed / checkpoint.ADAPTER if resumed else None
    if not args.lora_rank:
        if resumed and adapter.exists():
            fail(f"--lora-rank 0: {resumed} is of a run that trains adapters; leave the flag out")
        return load_model(args, folder, device)
    model = load_model(args, beginning(args), device)
    lora.add(model, args.lora_rank, args.seed)
    if resumed:
        user_input(lora.load, model, adapter)
    return model


def beginning(args) -> str | Path:
    """The model that the run began with."""
    return addition.ensure(args.seed) if args.model == BUILT_IN else args.model


def load_model(args, folder, device: torch.device):
    """The model in float32 (float64 with --dtype float64), dropout off: with it, another policy would be scored."""
    config = pretrained(AutoConfig, folder).to_dict()
    options = {name: 0.0 for name, value in config.items() if "drop" in name and isinstance(value, float)}
    options["dtype"] = torch.float64 if args.dtype == "float64" else torch.float32
    model = pretrained(AutoModelForCausalLM, folder, output_loading_info=True, **options).to(device)
    if args.dtype == "float64":
        keep_float64(model)
    if args.gradient_checkpointing:
        user_input(model.activation_checkpointing_enable)
    return model.train()


def make_policy(model, kind: str, args) -> torch.nn.Module:
    """What is trained, on all ranks; with a line on each thing that this model can't have fast."""
    policy = Policy(model, args.temperature)
    name = type(model).__name__
    if not policy.sliced:
        say(f"the logits of {name} are more than a linear layer: made whole, not in slices")
    if not policy.shared:
        say(
            f"{name} can't go on from the keys and values of a prompt: a prompt is forwarded once a sample, not a group"
        )
    return spread(policy, kind, args.dtype)


def make_compared(args, resumed: Path | None, device: torch.device) -> tuple[Policy | None, torch.nn.Module | None]:
    """The reference of a KL term, the model as the run began with it; and PPO's critic. None for GPG."""
    reference, critic = None, None
    if args.kl_coef:
        reference = Policy(load_model(args, beginning(args), device).eval(), args.temperature).requires_grad_(False)
    if args.baseline == "critic":
        critic = Critic(load_model(args, beginning(args), device))
        if resumed:
            critic.load_state_dict(load_file(resumed / checkpoint.CRITIC))
        critic = spread(critic, "ddp", args.dtype)
    return reference, critic


def make_optimizer(model, args, critic=None) -> torch.optim.Optimizer:
    """AdamW, or SGD without momentum; weight decay on matrices, none on norms and biases. A critic has its own rate.

    What is frozen has no gradient, and an optimizer leaves it alone.
    """
    kind = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[args.optimizer]
    groups = []
    for module, factor in [(model, 1.0), (critic, args.critic_lr_factor)][: 2 if critic else 1]:
        matrices = [p for p in module.parameters() if p.dim() >= 2]
        others = [p for p in module.parameters() if p.dim() < 2]
        groups.append({"params": matrices, "weight_decay": args.weight_decay, "factor": factor})
        groups.append({"params": others, "weight_decay": 0.0, "factor": factor})
    return kind(groups, lr=args.lr)


def is_finished(args, resumed: Path | None, state: State) -> bool:
    """Whether nothing is left to do; a run that was stopped after its last step still lacks its final checkpoint."""
    return state.step > args.steps or (state.step == args.steps and resumed.name == "final")


def open_run(args, resumed: Path | None, optimizer, device: torch.device) -> State:
    """The state to go on from; and the run's folder, made ready for it: new, emptied, or cut back to that state."""
    out, state = Path(args.out), State()
    if resumed:
        state = State(**user_input(checkpoint.restore, resumed, optimizer, device, cut_state))
    dist.barrier()  # every rank has read before rank 0 writes
    if is_finished(args, resumed, state):
        say(f"{args.out} has its {state.step} steps; --resume with --steps above that goes on")
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


def save(name: str, args, model, critic, tokenizer, optimizer, state: State) -> None:
    """A checkpoint, by rank 0; the latest --keep of them stay."""
    folder = Path(args.out) / name
    faults.doing(f"saving {name}")
    weights, moments = whole(model.state_dict(keep_vars=True)), whole(optimizer.state_dict())
    values = plain(critic).state_dict() if critic else None
    if dist.get_rank() == 0 and not folder.exists():
        weights, adapter = lora.split(model, weights, args.model) if args.lora_rank else (weights, None)
        checkpoint.save(folder, model, tokenizer, weights, moments, asdict(state), values, adapter)
        checkpoint.prune(Path(args.out), args.keep)


def check_ranks(model, kind: str, args, state: State) -> None:
    """Every --check-every steps, whether all ranks hold the same bits; under fsdp no parameter is on two ranks."""
    if due(args.check_every, state) and kind == "ddp":
        faults.check_same_parameters(model, state.step)


def end_between_steps(kind: str, stopped: list[int], state: State) -> None:
    """Ends a run whose gradients stay infinite, or, under fsdp, that any rank was told to stop: they save together."""
    if kind == "fsdp":
        faults.stop_together(stopped)
    if state.skipped_in_a_row == MAX_SKIPPED_IN_A_ROW:
        raise FloatingPointError(f"no finite gradient in the last {MAX_SKIPPED_IN_A_ROW} steps; lower --lr?")


def end_early(error, stopped: list[int], savable: bool, args, *saved) -> None:
    """Ends a run that was stopped by a signal, or by another rank that was lost; does not return.

    savable: the last step has its row, so that weights and state are those of a step, and a checkpoint can be made.
    saved: as `save` takes it.
    """
    faults.ignore_signals()  # the agent of torchrun sends one more, which must not break the checkpoint
    state = saved[-1]
    if savable:
        save(f"checkpoint-{state.step}", args, *saved)
    standing = checkpoint.latest(Path(args.out))
    there = f"{standing} stands, --resume goes on" if standing else "no checkpoint was made yet"
    if not stopped:
        faults.end_without_others(error, f"; {there}" if dist.get_rank() == 0 else "")
    faults.ends()
    say(f"\nstopped after step {state.step}: {there}")
    for lost in faults.gone():
        print(f"train.py: rank {dist.get_rank()}: {lost}", file=sys.stderr, flush=True)
    sys.exit(128 + stopped[0])


def give_up(reason: str) -> None:
    """Ends this rank with exit code 1 and a line of its own, below the bar: others may not know the reason."""
    faults.ends(reason)
    rank = f"rank {dist.get_rank()}: " if dist.get_world_size() > 1 else ""
    sys.exit("\n" * (dist.get_rank() == 0) + f"train.py: {rank}{reason}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
