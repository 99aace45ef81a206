"""Pre-flight checks on one small batch, one function each.

    python train.py ... --doctor        or python -m tools.doctor ..., with the flags of the run

A check says what it saw and, if that is wrong, which flag mends it. Most faults it looks for are silent: the run would
continue and learn worse, or nothing. Nothing is trained, and nothing is written.
"""

import argparse
import math
import re
import sys
import unicodedata
from itertools import takewhile
from typing import NamedTuple

from run.flags import parse_args, user_input

if __name__ == "__main__":
    parse_args(["--doctor", *sys.argv[1:]])  # what is wrong with a flag is said before torch is loaded

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

import train
from engine.batch import Sums, flatten, unflatten
from engine.methods import Method
from engine.micro_batches import per_token
from engine.optimizer import clip_gradient
from engine.parallel import gathered, unwrapped
from engine.policy import trial
from gpg import alpha, global_sum
from rewards import parse_rewards
from rollout import Rollout, eos_ids, pad_id
from run import memory
from run.checkpoint import State
from run.journal import say
from run.models import Trained, load_adapted, make_policy
from run.problems import load_problems, make_scorer, read_problems
from run.setup import find_checkpoint
from tasks.pictures import MARK, box_shares, size_of

# Parameters times sampled tokens of a rank's batch: half a minute of one slow core, measured; more on an accelerator.
WORK, WORK_ACCELERATED = 4e11, 2e13
DECODED = 1024  # most tokens of a completion: about 30 ms each on an accelerator, however few rows
FEWEST_TOKENS = 16  # of a completion: fewer would compare sampling and update on prompts alone

# Greatest difference between two log-probabilities of a token that rounding explains. float32 gave 1e-5 and bfloat16
# 0.25 at worst (docs/metrics.md, logprob_gap); a wrong position or mask, or dropout, gives 1 and more.
ROUNDING = {"float64": 1e-8, "float32": 1e-3, "bfloat16": 0.5}
LOST = 0.1  # share of updates that may round to nothing: most of AdamW's are even smaller than lr
TRUNCATED = 0.5  # share of truncated completions above which most of a batch has no answer


class Check(NamedTuple):
    name: str
    value: str  # what was seen
    mend: str = ""  # how to mend it; "": nothing is wrong
    note: str = ""  # what to know


def run(args, device: torch.device) -> bool:
    """Tries a run's parts on a small batch and prints the table -> whether a check found something wrong."""
    rewards = user_input(parse_rewards, args.rewards, args.max_new_tokens)
    resumed = find_checkpoint(args)
    found = read_problems(args, resumed)
    kind, shape, load, limit = memory.planned(args, resumed, device)
    small = small_batch(args, shape.parameters, device)
    memory.choose_parallel(small, resumed, device)  # ends here if even that does not fit
    folder, tokenizer, processor, problems, held_out = load_problems(args, resumed, found, rewards)
    scorer, graded = make_scorer(args, rewards, problems, held_out), []  # graded: what a round's rewards got and gave
    model = load_adapted(args, folder, resumed, device)
    policy = make_policy(model, kind, args, processor, problems)
    trained = Trained(model, policy, tokenizer, optimizer=None, method=Method(), processor=processor)
    eos = user_input(check_eos, model, tokenizer, args.template)  # or the run ends here, in one line

    def watched(prompts, texts, ids, columns):
        graded.append((texts, columns.get("answer", []), scorer(prompts, texts, ids, columns)))
        return graded[-1][-1]

    batch = train.collect(trained, problems, watched, small, State())
    gap = logprob_gap(policy, batch.rollout, args.tokens_per_micro_batch)
    numbers = torch.tensor(flatten(batch.sums), dtype=torch.float64, device=device)
    totals = unflatten(batch.sums, global_sum(numbers).tolist())
    cut = small.max_new_tokens if small.max_new_tokens < args.max_new_tokens else 0
    checks = [
        check_sampling(args, model),
        eos,
        check_bos(tokenizer, problems, args.template),
        check_prompt(tokenizer, problems),
        *check_picture(processor, problems),
        check_rounding(model, args.lr),
        check_gradient(policy),
        check_pad(model, tokenizer, batch.rollout),
        check_gap(gap, args.dtype),
        check_truncated(totals, args.max_new_tokens, cut),
        check_groups(totals, args, cut),
        *check_rewards(totals, *graded[0]),
        check_memory(args, shape, load, limit),
    ]
    checks = findings(checks)
    say(table(checks))
    return any(check.mend for check in checks)


def small_batch(args, parameters: int, device: torch.device) -> argparse.Namespace:
    """The flags of a step of a few seconds: G as given, one round, fewer and shorter completions if need be."""
    tokens = (WORK if device.type == "cpu" else WORK_ACCELERATED) / parameters  # of a rank
    longest = max(FEWEST_TOKENS, int(tokens / (4 * args.group_size)))  # room for four prompts, if possible
    new_tokens = min(args.max_new_tokens, DECODED, longest)
    prompts = max(1, int(tokens / (args.group_size * new_tokens))) * dist.get_world_size()
    limits = {"max_new_tokens": new_tokens, "prompts_per_step": min(prompts, args.prompts_per_step)}
    return argparse.Namespace(**vars(args) | limits | {"max_rounds": 1, "beta_th": 0.0})


def logprob_gap(policy: torch.nn.Module, r: Rollout, budget: int) -> float:
    """The greatest |Δ log π| between sampling and the update's forward, over all tokens of this rank's rollout."""
    with gathered(policy):  # ranks make different numbers of forwards
        logprobs = per_token(unwrapped(policy), r, budget)  # (S, G, T)
    gaps = (logprobs - r.logprobs).abs()[r.completion_mask.bool()]
    return float(gaps.max()) if len(gaps) else 0.0


def check_sampling(args, model) -> Check:
    """How completions are drawn; what the model's own generation_config.json would have changed silently."""
    top = f"top-p {args.top_p:g}, top-k {args.top_k or 'off'}"
    value = f"temperature {args.temperature:g}, {top}, up to {args.max_new_tokens} new tokens"
    ours = re.compile("_.*|.*_token_id|transformers_version|do_sample|use_cache")
    others = sorted(model.generation_config.to_diff_dict().items())
    unused = [f"{name} {x}" for name, x in others if x not in (None, False) and not ours.fullmatch(name)]
    value += f"; not taken from generation_config.json: {', '.join(unused)}" * bool(unused)
    part = args.top_p < 1 or args.top_k
    note = "drawn from a part of the distribution, scored under the whole: --top-p 1 --top-k 0 for the exact gradient"
    return Check("sampling", value, note=note * bool(part))


def check_eos(model, tokenizer, template: str | None) -> Check:
    """The chat template must end a turn with what ends a completion: else completions continue into further turns."""
    ids = eos_ids(model, tokenizer)
    value = "a completion ends with " + " or ".join(f"{i} {shown(tokenizer, [i])}" for i in ids[:8])
    value += f" or one of {len(ids) - 8} more" * (len(ids) > 8)
    known = model.generation_config.eos_token_id
    listed = known if isinstance(known, list) else [known]
    lacking = tokenizer.eos_token_id not in listed
    note = "generation_config.json does not list the tokenizer's EOS: other engines may not stop there" * lacking
    end = None if template else turn_end(tokenizer)
    if end is None:
        return Check("eos", f"{value}; no chat template that ends a turn", note=note)
    value += f"; the chat template ends a turn with {end} {shown(tokenizer, [end])}"
    add = "add that to eos_token_id in the model's generation_config.json, or give another prompt by --template"
    return Check("eos", value, add * (end not in ids), note)


def turn_end(tokenizer) -> int | None:
    """The chat template's first token after the assistant's text; None if there is none."""
    reply = "the answer is 2"
    chat = [{"role": "user", "content": "1+1=?"}, {"role": "assistant", "content": reply}]
    try:
        text = tokenizer.apply_chat_template(chat, tokenize=False)
    except Exception:  # no template, or one that takes no assistant: jinja's and transformers' errors have no ancestor
        return None
    ids = tokenizer.encode(text.rpartition(reply)[2].strip(), add_special_tokens=False)
    return ids[0] if ids else None


def check_bos(tokenizer, problems: list[dict], template: str | None) -> Check:
    """One BOS at the start, if the tokenizer has one. Later it may mark a role: SmolLM2 begins its turns with it."""
    bos = tokenizer.bos_token_id
    if bos is None:
        return Check("bos", "the tokenizer has none")
    most = max(len(list(takewhile(bos.__eq__, row["prompt_ids"]))) for row in problems)
    where = "the --template" if template else "the model's chat template, or give one of your own by --template"
    note = "the tokenizer would put one there" * (not most and tokenizer("a").input_ids[0] == bos)
    value = f"prompts begin with {most} BOS, {bos} {shown(tokenizer, [bos])}"
    return Check("bos", value, f"remove {most - 1} from {where}" * (most > 1), note)


def check_prompt(tokenizer, problems: list[dict]) -> Check:
    """The first prompt as the model sees it, and whether all contain their problem."""
    longest = max(len(row["prompt_ids"]) for row in problems)
    value = f"{len(problems)} of up to {longest} tokens, the first: {shown(tokenizer, problems[0]['prompt_ids'])}"
    unknown = tokenizer.unk_token_id
    lost = [row for row in problems if not holds(tokenizer.decode(row["prompt_ids"]), row)]
    mend = (
        f"{len(lost)} do not contain the text of their problem, the first {lost[0]['problem'][:60]!r}" if lost else ""
    )
    num = sum(unknown in row["prompt_ids"] for row in problems) if unknown is not None else 0
    note = f"{num} have characters that the tokenizer does not know" * bool(num)
    return Check("prompt", value, f"{mend}: give a prompt that does by --template" if lost else "", note)


def holds(prompt: str, row: dict) -> bool:
    """Whether all of a problem's text, in its order, is in the prompt; at a MARK there is a picture."""

    def squeezed(text: str) -> str:
        """What any tokenizer preserves of a text: no spaces, no case, one spelling of a character."""
        return "".join(unicodedata.normalize("NFKC", text).casefold().split())

    pieces = map(squeezed, row["problem"].split(MARK) if "images" in row else [row["problem"]])
    return bool(re.search(".*".join(map(re.escape, pieces)), squeezed(prompt)))


def check_picture(processor, problems: list[dict]) -> list[Check]:
    """A picture's size as it is and as the model gets it, and a gold box in it in both units; none without pictures."""
    shown = [row for row in problems if "images" in row][:100]
    for row in sorted(shown, key=lambda row: "box_size" not in row or not box_shares(row["answer"], (1, 1)))[:1]:
        (width, height), (w, h) = size_of(row["images"][0]), processor.resized(row["images"][0])
        tokens = processor.picture_tokens(row["prompt_ids"])
        value = f"{width} x {height} pixels, for the model {w} x {h}, which are {tokens} tokens"
        if "box_size" in row and (shares := box_shares(row["answer"], row["box_size"])):
            pixels = ", ".join(f"{x * n:.0f}" for x, n in zip(shares, (width, height) * 2, strict=True))
            value += f"; the gold {row['answer']} is {pixels} in the file's pixels"
        return [Check("picture", value)]
    return []


def check_rounding(model, lr: float) -> Check:
    """The share of weights that an AdamW step of size lr leaves unchanged: lr is below half a unit in the last place.
    In bfloat16 that is 1/512 to 1/256 of a weight, so most would not move; hence float32 weights, where it is 2^-25."""
    weights = [p.detach() for p in model.parameters() if p.requires_grad]
    weights = [p.to_local() if isinstance(p, DTensor) else p for p in weights]
    counts = [sum(int((p.abs() >= stuck_from(lr, x)).sum()) for p in weights) for x in (model.dtype, torch.bfloat16)]
    counts = torch.tensor([*counts, sum(p.numel() for p in weights)], dtype=torch.float64, device=model.device)
    kept, half, count = global_sum(counts).tolist()
    name = str(model.dtype).removeprefix("torch.")
    value = f"weights are {name}, in which {kept / count:.1%} of steps of --lr {lr:g} round to nothing"
    value += f" (in bfloat16 it would be {half / count:.1%})"
    return Check("updates", value, "raise --lr (paper: 1e-6)" * (kept / count > LOST))


def stuck_from(lr: float, dtype: torch.dtype) -> float:
    """The least |w| that w ± lr rounds back to. Between two powers of two, half a unit in the last place is eps / 2 of
    the lower one; so it is the first power of two above 2 lr / eps."""
    return 2.0 ** (math.floor(math.log2(2 * lr / torch.finfo(dtype).eps)) + 1)


def check_gradient(policy: torch.nn.Module) -> Check:
    """A backward of a few tokens gives finite numbers. What no text reaches was found, and frozen, by make_policy."""
    policy(*trial(unwrapped(policy).model)).sum().backward()
    norm = float(clip_gradient(policy, 0.0))
    policy.zero_grad()
    return Check("gradient", f"of norm {norm:.2g}", "take another --model" * (not math.isfinite(norm)))


def check_pad(model, tokenizer, r: Rollout) -> Check:
    """Padding is out of the loss by its position, so it may be EOS; the EOS that ends a completion is in the loss."""
    pad, ends = pad_id(model, tokenizer), eos_ids(model, tokenizer)
    ids, mask = r.completion_ids.flatten(0, 1), r.completion_mask.flatten(0, 1)  # (N, T)
    last = (mask.sum(dim=1) - 1).clamp(min=0)  # (N,)
    trained = torch.isin(ids.gather(1, last[:, None]).squeeze(1), torch.tensor(ends, device=ids.device))  # (N,)
    finished = ~r.truncated.flatten() if len(last) else trained
    num, seen = int(finished.sum()), int((trained & finished).sum())
    value = f"padded with {pad} {shown(tokenizer, [pad])}" + ", no pad token" * (tokenizer.pad_token_id is None)
    value += f"; the EOS of {seen} of {num} finished completions is trained on"
    beyond = int((ids[mask.bool()] >= len(tokenizer)).sum())
    value += f"; {beyond} of {int(mask.sum())} sampled tokens are above the tokenizer's, and read as ''" * bool(beyond)
    mend = "the model would not learn to stop: a fault of this code, no flag mends it" * (seen < num)
    return Check("pad", value, mend)


def check_gap(gap: float, dtype: str) -> Check:
    """Sampling and update must be one policy: the same weights, positions, masks and no dropout."""
    mend = "the update scores another policy than the one that sampled, maybe by a wrong cache or mask; try "
    mend += "--dtype float32" if dtype == "bfloat16" else "another version of transformers, or another --model"
    value = f"sampling and update differ by {gap:.1e} at most; rounding in {dtype} explains {ROUNDING[dtype]:g}"
    return Check("log π", value, mend * (not gap <= ROUNDING[dtype]))


def check_truncated(totals: Sums, most: int, cut: int) -> Check:
    """cut: the most tokens of this batch's completions, if a run's may be longer, `most`; else 0."""
    share, length = totals.truncated / totals.samples, totals.tokens / totals.samples
    value = f"{share:.0%} of {totals.samples:.0f} completions; their mean length is {length:.0f} tokens"
    if cut:
        return Check("truncated", f"{value}, cut at {cut} tokens here", note=f"says little about a run's {most}")
    mend = f"raise --max-new-tokens {most}, or ask for less by --system-prompt"
    return Check("truncated", value, mend * (share > TRUNCATED))


def check_groups(totals: Sums, args, cut: int) -> Check:
    """Only groups of unequal rewards carry gradient; cut: as in check_truncated."""
    groups, valid, easy, hard = (int(x) for x in (totals.groups, totals.valid, totals.easy, totals.hard))
    value = f"{valid} of {groups} valid, {easy} easy, {hard} hard"
    if valid or args.baseline not in ("group", "others"):
        rounds = math.ceil(args.beta_th * groups / max(1, valid))
        value += f": alpha {alpha(groups, valid):.2f}"
        value += f", about {rounds} rounds per step for --beta-th {args.beta_th:g}" * (rounds > 1)
        few = rounds > args.max_rounds
        return Check("groups", value, note=f"--max-rounds {args.max_rounds} ends a step sooner" * few)
    if cut and totals.truncated > TRUNCATED * totals.samples:
        return Check("groups", value, note="says little: completions were cut before their answer")
    way = "take harder problems (--data), or a higher --temperature"
    if hard >= easy:
        way = "is the answer of the sample below where --rewards looks? If not, ask for it by --system-prompt or "
        way += "--template; else take easier problems (--data)"
    return Check("groups", value, f"nothing to learn from; {way}")


def check_rewards(totals: Sums, texts: list[str], answers: list, result: dict) -> list[Check]:
    """For each reward the sample with its highest value; no check if this rank has no sample."""
    checks = []
    for name, values in result["by_name"].items():
        known = [value for value in values if value is not None]
        if values and not known:
            checks.append(Check(name, "None for all samples", "it could not score any: see --rewards and --data"))
        elif values:
            best = values.index(max(known))
            seen = "…" * (len(texts[best]) > 100) + repr(texts[best][-100:])
            value = f"{values[best]} for {seen}, answer {answers[best]!r:.40}; mean {sum(known) / len(known):.3f}"
            note = "the same for all samples" * (len(known) > 1 and len(set(known)) == 1)
            checks.append(Check(name, value, note=note))
    errors = int(totals.reward_errors)
    mend = "the first error is shown above: mend the function that --rewards names" * (errors > 0)
    return [*checks, Check("rewards", f"{errors} errors in {totals.samples:.0f} samples", mend)]


def check_memory(args, shape: memory.Shape, load: memory.Load, limit: int) -> Check:
    """The plan of the whole run, not of this batch."""
    moment, size = memory.peak(shape, load)
    value = f"up to {size / memory.GIB:.2f} GiB per rank, in the {moment}, of {limit / memory.GIB:.2f}; see --plan"
    way = memory.remedy(args, shape, load, limit) if size > limit else ""
    return Check("memory", value, "take a smaller --model, or larger devices" if way is None else way)


def shown(tokenizer, ids: list[int]) -> str:
    """Tokens as text, with special tokens and line ends visible, and without the middle of a long text."""
    text = repr(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))
    return text if len(text) <= 600 else f"{text[:400]} … {text[-200:]}"


def findings(checks: list[Check]) -> list[Check]:
    """Rank 0's checks; for one that fails only on other ranks, the first such rank's. A collective."""
    ranks = [None] * dist.get_world_size()
    dist.all_gather_object(ranks, checks)
    merged = {}
    for rank, found in enumerate(ranks):
        for check in found:
            if check.name not in merged or (check.mend and not merged[check.name].mend):
                merged[check.name] = check._replace(value=f"rank {rank}: {check.value}") if rank else check
    return list(merged.values())


def table(checks: list[Check]) -> str:
    """A line per check: ok or WRONG, its name, what was seen; and below it what mends it, or else a note."""
    width, lines = max(len(check.name) for check in checks), []
    for name, value, mend, note in checks:
        lines.append(f"{'WRONG' if mend else 'ok':7}{name:{width}}  {value}")
        if mend or note:
            lines.append(" " * (width + 9) + (f"mend: {mend}" if mend else f"note: {note}"))
    wrong = sum(bool(check.mend) for check in checks)
    return "\n".join([*lines, f"{wrong or 'none'} of {len(checks)} checks found something wrong"])


if __name__ == "__main__":
    train.main(["--doctor", *sys.argv[1:]])
