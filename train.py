"""Group Policy Gradient, the loop. Read it from top to bottom beside Algorithm 1 of the paper.

    python train.py                                              the built-in model and task: a laptop, a minute
    torchrun train.py --model Qwen/Qwen2.5-1.5B --data openai/gsm8k --eval-data openai/gsm8k --out runs/gsm8k
    torchrun --nproc_per_node 8 train.py @config/math-7b-gpg.args --out runs/math
    torchrun --nproc_per_node 8 train.py --out runs/math --resume     from the newest checkpoint, to the same bits

    collect      line 1: rounds of sample and grade until alpha <= 1 / beta_th
    weigh        Eq. 5 to 8: rewards to token weights (gpg.py), which share_out distributes over the ranks
    backward     lines 2 and 3: log pi of the completions, and the gradient of -(weights * log pi).sum()
    take_step    the optimizer's

Each process is a rank; a single process is a world of size 1, with no separate code path. Letters: P prompts per step,
p of them on this rank, G samples of each, S groups of all rounds, T completion tokens, M of a micro-batch.
"""

import gc
import importlib
import math
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from run.flags import end_quietly_on_ctrl_c, fail, parse_args

if __name__ == "__main__":
    end_quietly_on_ctrl_c()
    parse_args()  # what is wrong with a flag is said before torch is loaded, which takes seconds

import torch
import torch.distributed as dist
import transformers

from engine import lora, methods
from engine.balance import Share, share_out
from engine.batch import Batch, Sums, count_samples, fill_left_out, join_rounds
from engine.micro_batches import gather_tokens, micro_steps
from engine.optimizer import Gradient, clip_gradient, learning_rate, take_step
from engine.parallel import full_tensors, gathered, unwrapped
from gpg import global_sum, token_scale, token_weights, valid_groups
from rewards import accuracy, iou_or_name
from rollout import Rollout, completion_texts, rollout
from run import checkpoint, faults, journal, record
from run.checkpoint import State
from run.faults import stop_signals, uninterrupted
from run.journal import Evaluation, accuracy_of, global_totals, metrics, say, show
from run.models import Trained
from run.noise import in_halves
from run.problems import features_and_pictures, problems_of_round, read_ahead
from run.ranks import init_distributed, patience
from run.setup import held, set_up
from tasks import pictures

MAX_SKIPPED_IN_A_ROW = 10  # steps without a finite gradient after which a run gives up


def main(argv: list[str] | None = None) -> None:
    """Runs train, or with --doctor or --replay the tool of that name. Expected failures end in one line."""
    faults.keep_streams()
    args = parse_args(argv)
    transformers.utils.logging.disable_progress_bar()  # the run has a bar of its own
    device = init_distributed(args.rank_timeout)
    tool = "replay" if args.replay else "doctor" if args.doctor else None
    try:
        with faults.beating(patience(device, args.rank_timeout)), held(args):
            # by its name, as tools/ imports this file and is not imported by it
            command = importlib.import_module(f"tools.{tool}").run if tool else train
            problem = command(args, device)
    except FloatingPointError as error:
        give_up(str(error))
    except OSError as error:  # a full disk, say; continuing without saves could cost more than stopping
        give_up(f"{error}; {last_checkpoint(args)}")
    except RuntimeError as error:
        if faults.broke_off(error):
            faults.end_without_others(error)
        raise
    finally:
        if dist.get_world_size() > 1:
            gc.collect()  # the wrappers that spread a model hold it in cycles, which could hang the end of the process
        dist.destroy_process_group()
    if problem:
        sys.exit(1)


def train(args, device: torch.device) -> None:
    """Sets up the run, then repeats Algorithm 1 until --steps."""
    run = set_up(args, device)
    if run is None:
        return
    trained, problems, held_out, scorer, kind, state = run

    first, logged, budget = state.step, state.step, args.tokens_per_micro_batch
    after = before = evaluate(trained, held_out, args)
    log = journal.make_logger(args, state, before)
    began = time.perf_counter() - state.seconds
    with stop_signals(at_once=kind == "ddp") as stopped:
        try:
            while state.step < args.steps:
                batch = collect(trained, problems, scorer, args, state)  # line 1
                batch = methods.prepare(batch, trained.method, trained.reference, trained.critic, budget)  # not for GPG
                record.write(batch, args, state)
                updating = time.perf_counter()
                faults.doing(f"update of step {state.step + 1}")
                share = share_out(batch.rollout, weigh(batch, args), batch.extras)  # Eq. 5 to 8
                gradient = gradient_of(trained, share, args, halves=due(args.noise_every, state))  # lines 2 and 3
                totals = global_totals(batch, gradient, args.prompts_per_step, device)
                gradient = gradient._replace(loss=totals.loss)
                with uninterrupted():  # from here on a step is complete: weights, state, row and checkpoint
                    lr, logged = rate(args, state), -1  # until its row is written the step is half done
                    take_step(trained.optimizer, lr, learn=share.count > 0 and gradient.is_finite())
                    row = metrics(batch, share, totals, gradient.norm, lr, args, state) | gradient.noise
                    row |= more_updates(trained, share, lr, args)
                    row |= journal.by_kind(problems, totals.groups[0], args, state)
                    row["seconds_update"] = time.perf_counter() - updating
                    state = advance(state, batch, totals.sums, gradient, args)
                    if kind == "ddp" and due(args.check_every, state):  # under fsdp no parameter is on two ranks
                        faults.check_same_parameters(trained.model, state.step)
                    if state.step == args.steps or due(args.eval_every, state):
                        after = evaluate(trained, held_out, args)
                        row |= accuracy_of(after)
                        if after and after.accuracy > state.best_accuracy:
                            state = replace(state, best_step=state.step, best_accuracy=after.accuracy)
                    state = replace(state, seconds=time.perf_counter() - began)
                    log(row | {"seconds": state.seconds}, batch.samples, totals.groups)
                    logged = state.step
                    if state.step < args.steps and (
                        due(args.save_every, state) or (args.keep_best and state.best_step == state.step)
                    ):
                        save(f"checkpoint-{state.step}", args, trained, state)
                end_between_steps(kind, stopped, state)
            with uninterrupted():
                save("final", args, trained, state)
        except BaseException as error:
            if not stopped and not faults.broke_off(error):
                raise
            savable = logged == state.step and (kind == "ddp" or bool(stopped))  # one rank's shards are no checkpoint
            stop(error, stopped, savable, args, trained, state)
    controls = {name: evaluate(trained, rows, args) for name, rows in pictures.controls(held_out).items()}
    journal.report(args, state, first, before, after, controls)


def collect(trained: Trained, problems: list[dict], scorer: Callable, args, state: State) -> Batch:
    """Algorithm 1, line 1: rounds of P prompts until the valid groups of all ranks reach beta_th of P.

    At most --max-rounds rounds. All ranks decide by one count, so they make the same rounds. Every group is returned.
    Invalid groups affect only the metrics, --norm token and --f-norm batch.
    """
    P, rounds, seconds = args.prompts_per_step, [], Counter()
    faults.doing(f"rollout of step {state.step + 1}")
    for number in range(args.max_rounds):
        rows, reading = problems_of_round(problems, state.position + number * P, args), time.perf_counter()
        images = features_and_pictures(trained.processor, rows)
        began = time.perf_counter()
        sampled, greedy = sample(trained, rows, images, (args.seed, state.step, number), args)
        grading = time.perf_counter()
        rounds.append(grade(trained.tokenizer, rows, sampled, scorer, args, state))
        if greedy:  # only ReMax
            baseline = grade(trained.tokenizer, rows, greedy, scorer, args, state)
            sums = replace(rounds[-1].sums, drawn=rounds[-1].sums.drawn + baseline.sums.drawn)
            scored = baseline.loss_mask.any(dim=2)  # (p, 1); the mean of its samples stands in for one that is not
            greedy = baseline.rewards.where(scored, rounds[-1].rewards.mean(dim=1, keepdim=True)).squeeze(1)  # (p,)
            rounds[-1] = replace(rounds[-1], sums=sums, greedy=greedy)
        seconds.update(seconds_rollout=grading - began, seconds_reward=time.perf_counter() - grading)
        seconds.update({"seconds_pictures": began - reading} if trained.processor else {})
        if sum(batch.num_valid for batch in rounds) / P >= args.beta_th:
            break
    if trained.processor and state.step + 1 < args.steps:  # the next step's pictures, while this one updates
        read_ahead(trained.processor, problems_of_round(problems, state.position + len(rounds) * P, args))
    return join_rounds(rounds, dict(seconds))


def sample(
    trained: Trained, rows: list[dict], images: tuple, key: tuple[int, ...], args
) -> tuple[Rollout, Rollout | None]:
    """The groups of these problems; and a greedy completion of each, if that is the baseline."""
    model, tokenizer, prompts = trained.model, trained.tokenizer, [row["prompt_ids"] for row in rows]
    features, shown = images
    places = range(dist.get_rank(), args.prompts_per_step, dist.get_world_size())  # of the rows in the round
    if args.algo == "sft":
        sampled = methods.demonstrations(model, tokenizer, prompts, [row["solution_ids"] for row in rows])
        return replace(sampled, images=shown), None
    limits = {"max_new_tokens": args.max_new_tokens, "cache_tokens": args.cache_tokens, "stop": args.stop}
    limits |= {"images": features, "decode": trained.decode, "progress": partial(show, "sampling")}
    with gathered(trained.policy) as model:
        options = {"temperature": args.temperature, "top_p": args.top_p, "top_k": args.top_k} | limits
        sampled = rollout(model, tokenizer, prompts, args.group_size, key=key, indices=places, **options)
        greedy = rollout(model, tokenizer, prompts, 1, temperature=0.0, **limits) if args.baseline == "greedy" else None
    return replace(sampled, images=shown), greedy


def grade(tokenizer, rows: list[dict], sampled: Rollout, scorer: Callable, args, state: State) -> Batch:
    """A round of this rank: its rewards (p, G), and who is left out of the loss.

    A sample that a reward could not score (None), or a truncated one under --mask-truncated, affects neither the loss
    nor the baseline of its siblings: its tokens leave the loss, and it takes the mean reward of the rest of its group.
    """
    faults.doing(f"rewards of step {state.step + 1}")
    texts, lengths = completion_texts(tokenizer, sampled), sampled.completion_mask.sum(dim=2).cpu()  # (p, G)
    G = lengths.shape[1]
    repeated = [row for row in rows for _ in range(G)]  # one per sample
    result = score_all(scorer, repeated, texts, sampled, lengths)
    total = [math.nan if reward is None else reward for reward in result["total"]]
    # everything here is on the CPU: what is counted needs no wait for the device
    rewards, truncated = torch.tensor(total, dtype=torch.float64).view(lengths.shape), sampled.truncated.cpu()  # (p, G)
    if args.overlong_buffer:
        rewards = rewards + methods.overlong_penalty(lengths, args.max_new_tokens, args.overlong_buffer)
    left_out = rewards.isnan() | (truncated & args.mask_truncated)  # (p, G)
    rewards = fill_left_out(rewards, left_out)
    sums = count_samples(rewards, left_out, lengths, sampled, result)

    rewards, left_out = rewards.to(sampled.truncated.device), left_out.to(sampled.truncated.device)
    shown = [
        {"step": state.step + 1, "problem": row["problem"], "answer": row["answer"], "completion": text, "reward": r}
        | {name: row[name] for name in ("images", "box_size") if name in row}
        for row, text, r in zip(repeated[:2], texts[:2], result["total"][:2], strict=True)
    ]
    return Batch(
        rollout=sampled,
        rewards=rewards,
        loss_mask=sampled.completion_mask * ~left_out[:, :, None],
        num_valid=int(global_sum(valid_groups(rewards).sum())),
        rounds=1,
        sums=sums,
        seconds={},
        samples=shown,
    )


def score_all(scorer: Callable, rows: list[dict], texts: list[str], sampled: Rollout, lengths: torch.Tensor) -> dict:
    """What rewards.score says of all completions, with a row each; a reward that returns nonsense ends the run."""
    pairs = zip(sampled.completion_ids.flatten(0, 1).tolist(), lengths.flatten().tolist(), strict=True)
    columns = {name: [row.get(name) for row in rows] for name in dict.fromkeys(key for row in rows for key in row)}
    try:
        return scorer([row["problem"] for row in rows], texts, [ids[:n] for ids, n in pairs], columns)
    except ValueError as error:  # the other ranks may not meet it: leave them a note
        faults.ends(str(error))
        fail(str(error), any_rank=True)


def weigh(batch: Batch, args) -> torch.Tensor:
    """Eq. 5 to 8: the weights (S, G, T). The step counts as P groups, or as the valid ones if they are more.

    Advantages of another method (batch.advantages) replace Eq. 6 and use the same counts.
    """
    options = {"age": args.age, "norm": args.norm, "max_len": args.max_new_tokens}
    options["num_groups"] = max(args.prompts_per_step, batch.num_valid)
    if batch.advantages is None:
        return token_weights(batch.rewards, batch.loss_mask, f_norm=args.f_norm, **options)
    return batch.advantages * token_scale(batch.rewards, batch.loss_mask, **options)[:, :, None] * batch.loss_mask


def backward(policy: torch.nn.Module, share: Share, budget: int, grad_clip: float) -> Gradient:
    """Algorithm 1, lines 2 and 3: the gradient of -(weights * log pi).sum() over all ranks, in micro-batches.

    Only samples with a weight meet the model. budget: padded tokens of a forward.
    """
    loss, gap = share.weights.new_zeros(()), share.weights.new_zeros(())
    for micro_batch in micro_steps(policy, share, budget):
        w = gather_tokens(share.weights, micro_batch)  # (M,)
        with micro_batch.context:
            logprobs = policy(*micro_batch.samples, grad=-w)  # (M,), line 2
            part = -(w * logprobs).sum()  # line 3: Eq. 8, this micro-batch's part
            part.backward()
        loss += part.detach()
        if micro_batch.rows is not None:
            gaps = logprobs.detach() - gather_tokens(share.rollout.logprobs, micro_batch)  # (M,)
            gap = torch.maximum(gap, gaps.abs().max())
    norm = clip_gradient(policy, grad_clip).to(loss)
    return Gradient(*torch.stack([norm, loss, gap]).tolist())


def gradient_of(trained: Trained, share: Share, args, halves: bool) -> Gradient:
    """The gradient of the policy by `backward`, or by methods.backward where a loss needs more; and the critic's."""
    if share.count == 0:  # no group is valid on any rank
        return Gradient(0.0, 0.0, 0.0, {"grad_cosine": None} if halves else {})
    update = backward if trained.method.is_linear() else partial(methods.backward, method=trained.method)
    limits = {"budget": args.tokens_per_micro_batch, "grad_clip": args.grad_clip}
    gradient = (partial(in_halves, update) if halves else update)(trained.policy, share, **limits)
    of_critic = methods.fit_critic(trained.critic, share, **limits)
    return gradient if math.isfinite(of_critic) else gradient._replace(norm=of_critic)


def more_updates(trained: Trained, share: Share, lr: float, args) -> dict[str, float]:
    """What other methods do after the first update; nothing for GPG. -> more columns of the row."""
    limits = {"budget": args.tokens_per_micro_batch, "grad_clip": args.grad_clip}
    return methods.more_updates(trained.policy, trained.critic, trained.optimizer, share, trained.method, lr, **limits)


def rate(args, state: State) -> float:
    names = ("lr", "steps", "schedule", "warmup", "lr_floor")
    return learning_rate(state.step, **{name: getattr(args, name) for name in names})


def advance(state: State, batch: Batch, sums: Sums, gradient: Gradient, args) -> State:
    """The state after a step; sums over all ranks."""
    finite = gradient.is_finite()
    return replace(
        state,
        step=state.step + 1,
        position=state.position + batch.rounds * args.prompts_per_step,
        generated_tokens=state.generated_tokens + int(sums.drawn),
        skipped=state.skipped + (not finite),
        skipped_in_a_row=0 if finite else state.skipped_in_a_row + 1,
    )


def due(every: int, state: State) -> bool:
    return every > 0 and state.step % every == 0


def evaluate(trained: Trained, problems: list[dict], args) -> Evaluation | None:
    """Greedy decoding of all held-out problems, divided among the ranks; None without any.

    With a picture, a box scores its IoU, and another answer 1.0 if it is the gold's name or value. Else: `accuracy`.
    """
    if not problems:
        return None
    faults.doing("evaluation")
    mine = problems[dist.get_rank() :: dist.get_world_size()]
    with gathered(trained.policy) as model:
        images, _ = features_and_pictures(trained.processor, mine)
        options = {"temperature": 0.0, "cache_tokens": args.cache_tokens, "images": images, "decode": trained.decode}
        options |= {"progress": partial(show, "evaluation"), "max_new_tokens": args.max_new_tokens, "stop": args.stop}
        sampled = rollout(model, trained.tokenizer, [row["prompt_ids"] for row in mine], 1, **options)
    texts = completion_texts(trained.tokenizer, sampled)
    seen = [iou_or_name(text, row["answer"]) * ("images" in row) for text, row in zip(texts, mine, strict=True)]
    right = [x or accuracy(text, row["answer"]) for x, text, row in zip(seen, texts, mine, strict=True)]
    return journal.evaluation(problems, mine, texts, right, sampled.truncated.device)


def save(name: str, args, trained: Trained, state: State) -> None:
    """A checkpoint, by rank 0; the latest --keep of them remain. A collective under fsdp."""
    folder, model = Path(args.out) / name, trained.model
    faults.doing(f"saving {name}")
    states = model.state_dict(keep_vars=True), trained.optimizer.state_dict()
    weights, moments = (full_tensors(x, reader=0) for x in states)
    critic = unwrapped(trained.critic).state_dict() if trained.critic else None
    if dist.get_rank() == 0 and not folder.exists():
        weights, adapter = lora.split(model, weights, args.model) if args.lora_rank else (weights, None)
        parts = trained.processor or trained.tokenizer, weights, moments, asdict(state), critic, adapter
        checkpoint.save(folder, model, *parts)
        checkpoint.prune(Path(args.out), args.keep, state.best_step * args.keep_best)


def end_between_steps(kind: str, stopped: list[int], state: State) -> None:
    """Ends a run whose gradients stay non-finite, or, under fsdp, that any rank was told to stop: all save together."""
    if kind == "fsdp":
        faults.stop_together(stopped)
    if state.skipped_in_a_row == MAX_SKIPPED_IN_A_ROW:
        raise FloatingPointError(f"no finite gradient in the last {MAX_SKIPPED_IN_A_ROW} steps; lower --lr?")


def stop(error: BaseException, stopped: list[int], savable: bool, args, trained: Trained, state: State) -> None:
    """Ends a run that was stopped by a signal, or by the loss of another rank; does not return.

    savable: the last step has its row, so weights and state belong to one step, and a checkpoint can be made.
    """
    faults.ignore_signals()  # the agent of torchrun sends another, which must not break the checkpoint
    if savable:
        save(f"checkpoint-{state.step}", args, trained, state)
    if not stopped:
        faults.end_without_others(error, f"; {last_checkpoint(args)}" if dist.get_rank() == 0 else "")
    faults.ends()
    say(f"\nstopped after step {state.step}: {last_checkpoint(args)}")
    for lost in faults.gone():
        print(f"train.py: rank {dist.get_rank()}: {lost}", file=sys.stderr, flush=True)
    sys.exit(128 + stopped[0])


def last_checkpoint(args) -> str:
    latest = checkpoint.latest(Path(args.out))
    return f"--resume continues from {latest}" if latest else "no checkpoint was made yet"


def give_up(reason: str) -> None:
    """Ends this rank with exit code 1 and a line of its own, below the bar: others may not know the reason."""
    faults.ends(reason)
    rank = f"rank {dist.get_rank()}: " if dist.get_world_size() > 1 else ""
    sys.exit("\n" * (dist.get_rank() == 0) + f"train.py: {rank}{reason}")


if __name__ == "__main__":
    main()
