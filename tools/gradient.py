"""Measures bias and noise of each variant's estimate of the gradient, which the paper argues about but does not show.

    python -m tools.gradient                  writes results/gradient: table.md, picture.png, rows.jsonl
    python -m tools.gradient --batches 500    the same, with fewer batches

Two policies:

    tabular    prompts of every difficulty, completions of up to three tokens; its gradient is exact, by enumeration
    built-in   the warmed-up model with a pool of groups, sampled once; batches are drawn from the pool, and the true
               gradient is that of the whole pool

J is the expected reward, a mean over prompts. An estimate g of its gradient may point elsewhere on average (bias), be
longer (scale, which a learning rate can undo), and differ from batch to batch (noise):

    scale    <E g, dJ> / |dJ|^2                    bias    |E g / scale - dJ| / |dJ|
    noise    sqrt(E |g - E g|^2) / |E g|           cosine  E cos(g, dJ), the value of one step

Letters as in gpg.py; K prompts of the tabular policy, S groups in the pool, D numbers that represent a gradient.
"""

import argparse
import json
import math
import random
import shlex
import sys
import time
from collections.abc import Callable
from datetime import date
from itertools import product
from pathlib import Path

import torch
from matplotlib.figure import Figure
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer

from engine.micro_batches import sample_rows
from engine.policy import Policy
from gpg import token_weights, valid_groups
from rewards import accuracy
from rollout import completion_texts, rollout
from run.flags import fail
from run.scores import mean_and_error
from tasks import addition
from tasks.built_in import DEFAULTS
from tasks.prompts import encode_prompt
from tools.plot import markdown

P, G = 8, 8  # prompts per batch and completions of each, as in the studies
ROUNDS = 20  # at most, until beta_th of P groups are valid

# variant: (options of token_weights, beta_th)
VARIANTS: dict[str, tuple[dict, float]] = {
    f"{norm}, α {'on' if age else 'off'}": ({"norm": norm, "age": age}, 0.0)
    for norm, age in product(("group", "sequence", "constant", "token"), (False, True))
}
VARIANTS["valid_token"] = ({"norm": "valid_token"}, 0.0)
VARIANTS |= {f"group, α on, β_th {share}": ({"norm": "group"}, share) for share in (0.3, 0.6, 0.8)}
VARIANTS |= {
    f"group, α {'on' if age else 'off'}, F_norm {f_norm}": ({"norm": "group", "age": age, "f_norm": f_norm}, 0.0)
    for f_norm, age in product(("group", "batch"), (False, True))
}

VOCABULARY, LONGEST = 3, 3  # of the tabular policy: two tokens, then EOS
PROMPTS = 12  # K, from nearly always right to nearly never


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.gradient", description=__doc__.partition("\n")[0])
    parser.error = fail
    parser.add_argument("--batches", type=int, default=2000, help="batches per variant (default: 2000)")
    parser.add_argument("--pool", type=int, default=300, help="groups sampled from the built-in model (default: 300)")
    parser.add_argument("--out", default="results/gradient", metavar="DIR", help="folder (default: results/gradient)")
    args = parser.parse_args(argv)
    began, processor, out, rows = time.time(), time.process_time(), Path(args.out), []
    out.mkdir(parents=True, exist_ok=True)
    for policy, (draw, truth, longest) in (("tabular", tabular()), ("built-in", built_in(args.pool))):
        for name, (options, beta_th) in tqdm(VARIANTS.items(), desc=policy):
            options = options | {"max_len": longest}
            rows.append({"policy": policy, "variant": name} | measure(draw, truth, options, beta_th, args.batches))
    (out / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = shlex.join(["python", "-m", "tools.gradient", *(sys.argv[1:] if argv is None else argv)])
    foot = f"`{command}`, {args.batches} batches of {P} prompts x {G} per variant, a pool of {args.pool} groups; "
    foot += f"2 shared CPU cores, no GPU, {date.today()}, {time.process_time() - processor:.0f} CPU-s, "
    foot += f"{time.time() - began:.0f} s. ± is a standard error.\n"
    (out / "table.md").write_text(table(rows) + "\n" + foot)
    draw_picture(rows, out / "picture.png")
    print(table(rows))


def tabular() -> tuple[Callable, torch.Tensor, int]:
    """-> a function that draws groups, the gradient of J by enumeration (D,), and the longest completion.

    Each prompt has a softmax for every prefix of a completion, and a reward of 0 or 1 for every complete one.
    """
    generator = torch.Generator().manual_seed(0)
    beginnings = [b for n in range(LONGEST) for b in product(range(VOCABULARY - 1), repeat=n)]
    wholes = [(*b, VOCABULARY - 1) for b in beginnings] + list(product(range(VOCABULARY - 1), repeat=LONGEST))
    logits = torch.randn(PROMPTS, len(beginnings), VOCABULARY, generator=generator, dtype=torch.float64)

    def log_likelihoods(logits):
        logprobs = logits.log_softmax(-1)  # (K, b, V)
        places = ([(beginnings.index(whole[:t]), token) for t, token in enumerate(whole)] for whole in wholes)
        return torch.stack([sum(logprobs[:, b, token] for b, token in steps) for steps in places], dim=1)

    likelihoods = log_likelihoods(logits).exp()  # (K, w)
    scores = torch.autograd.functional.jacobian(log_likelihoods, logits).flatten(2)  # (K, w, D)
    # completions are right in random order until so much of a prompt's mass is
    rewards = torch.zeros_like(likelihoods)  # (K, w)
    for k in range(PROMPTS):
        order = torch.randperm(len(wholes), generator=generator)
        mass = likelihoods[k, order].cumsum(0)
        rewards[k, order] = (mass <= (k + 0.5) / PROMPTS).double()
    truth = torch.einsum("kw,kw,kwd->d", likelihoods, rewards, scores) / PROMPTS  # (D,)
    lengths = torch.tensor([len(whole) for whole in wholes])

    def draw(rng: torch.Generator, count: int):
        prompts = torch.randint(PROMPTS, (count,), generator=rng)
        chosen = torch.multinomial(likelihoods[prompts], G, replacement=True, generator=rng)  # (count, G)
        return scores[prompts[:, None], chosen], rewards[prompts[:, None], chosen], lengths[chosen]

    return draw, truth, LONGEST


def built_in(groups: int) -> tuple[Callable, torch.Tensor, int]:
    """The same for the warmed-up model: groups are drawn from a pool of this size, whose gradient is the true one.

    A sample's gradient has 400,000 numbers, of which only inner products are needed. So it is represented by a row of a
    root of the Gram matrix, with one number per sample.
    """
    folder = addition.ensure(0)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    problems = random.Random(0).sample(addition.problems("train"), groups)
    prompts = [encode_prompt(tokenizer, row["problem"]) for row in problems]
    longest = DEFAULTS["tiny"]["max_new_tokens"]
    r = rollout(model, tokenizer, prompts, G, longest)
    texts = completion_texts(tokenizer, r)
    right = [accuracy(text, problems[i // G]["answer"]) for i, text in enumerate(texts)]
    rewards, lengths = torch.tensor(right).double().view(groups, G), r.completion_mask.sum(dim=2)  # (S, G)

    policy = Policy(model, 1.0)
    scores = torch.empty(groups * G, sum(p.numel() for p in model.parameters()))  # (S * G, parameters)
    for i in tqdm(range(len(scores)), desc="gradients of samples"):
        policy.zero_grad()
        policy(*sample_rows(r, torch.tensor([i]))).sum().backward()
        scores[i] = torch.cat([p.grad.flatten() for p in model.parameters()])
    values, vectors = torch.linalg.eigh((scores @ scores.T).double())
    stand_ins = (vectors * values.clamp(min=0).sqrt()).view(groups, G, -1)  # (S, G, D)
    # sum of (r - mean of the others) * score is unbiased for the gradient of J
    advantages = (rewards - rewards.mean(1, keepdim=True)) / (G - 1)
    truth = torch.einsum("sg,sgd->d", advantages, stand_ins) / groups  # (D,)

    def draw(rng: torch.Generator, count: int):
        chosen = torch.randint(groups, (count,), generator=rng)
        return stand_ins[chosen], rewards[chosen], lengths[chosen]

    return draw, truth, longest


def measure(draw: Callable, truth: torch.Tensor, options: dict, beta_th: float, batches: int) -> dict[str, float]:
    """Bias, noise, scale and cosine of a variant over many batches; standard errors from ten parts of them."""
    rng = torch.Generator().manual_seed(1)
    estimates, samples, skipped = [], 0, 0
    for _ in range(batches):
        scores, rewards, lengths = draw(rng, P)
        rounds = 1
        while int(valid_groups(rewards).sum()) < beta_th * P and rounds < ROUNDS:
            scores, rewards, lengths = (
                torch.cat(pair) for pair in zip((scores, rewards, lengths), draw(rng, P), strict=True)
            )
            rounds += 1
        samples += rounds * P * G
        estimates.append(estimate(scores, rewards, lengths, options))
        skipped += not bool(estimates[-1].any())
    g = torch.stack(estimates)  # (batches, D)
    found = figures(g, truth)
    parts = [figures(part, truth) for part in g.chunk(10)]
    errors = {f"{name}_se": mean_and_error([part[name] for part in parts])[1] for name in found}
    # the square may come out below zero: the root of it, and how much its error would add to that
    square, bias = found["bias_square"], math.sqrt(max(0.0, found.pop("bias_square")))
    errors["bias_se"] = math.sqrt(max(0.0, square) + errors.pop("bias_square_se")) - bias
    found["bias"] = bias
    return found | errors | {"samples": samples / batches, "no_valid_group": skipped / batches}


def estimate(scores: torch.Tensor, rewards: torch.Tensor, lengths: torch.Tensor, options: dict) -> torch.Tensor:
    """A batch's estimate of the gradient of +J, (D,): sum of weights * scores, by gpg.token_weights."""
    mask = torch.arange(options["max_len"]) < lengths[:, :, None]  # (S, G, T)
    num_groups = max(P, int(valid_groups(rewards).sum()))
    weights = token_weights(rewards, mask, num_groups=num_groups, **options)[:, :, 0]  # (S, G): equal over a sample
    return torch.einsum("sg,sgd->d", weights, scores)


def figures(g: torch.Tensor, truth: torch.Tensor) -> dict[str, float]:
    """Gradients (batches, D) compared with the true one (D,): see the top of this file.

    The squared length of a mean of noisy vectors is too large by their variance over their number: it is subtracted.
    """
    mean, n = g.mean(0), len(g)
    variance = float(((g - mean) ** 2).sum()) / (n - 1)
    scale = float(mean @ truth / (truth @ truth))
    off = float(((mean / scale - truth) ** 2).sum()) - variance / n / scale**2
    length = float(mean @ mean) - variance / n
    moved = g[g.any(dim=1)]
    cosines = moved @ truth / (moved.norm(dim=1) * truth.norm())
    return {
        "scale": scale,
        "bias_square": off / float(truth @ truth),
        "noise": math.sqrt(variance / length) if length > 0 else math.inf,
        "cosine": float(cosines.mean()),
    }


def table(rows: list[dict]) -> str:
    """Markdown; noise also per P * G samples: multiplied by the root of the samples per step over P * G."""
    parts = []
    for policy in dict.fromkeys(row["policy"] for row in rows):
        lines = ["estimate|scale|bias|noise|noise at equal samples|cosine of a step|samples per step".split("|")]
        for row in (row for row in rows if row["policy"] == policy):
            *shown, cosine = (f"{row[n]:.3f} ± {row[f'{n}_se']:.3f}" for n in ("scale", "bias", "noise", "cosine"))
            equal = f"{row['noise'] * math.sqrt(row['samples'] / P / G):.3f}"
            lines.append([row["variant"], *shown, equal, cosine, f"{row['samples']:.0f}"])
        parts += [f"**{policy}**", markdown(lines)]
    return "\n\n".join(parts) + "\n"


def draw_picture(rows: list[dict], file: Path) -> None:
    """Bias, noise and cosine of every estimate, one row of panels per policy."""
    policies, names = list(dict.fromkeys(row["policy"] for row in rows)), list(VARIANTS)
    shown = {
        "bias": "bias: |E g / scale − ∇J| / |∇J|",
        "noise": "noise: sd of g / |E g|",
        "cosine": "cosine of one batch's g and ∇J",
    }
    figure = Figure(figsize=(13, 4.6 * len(policies)), layout="constrained")
    for line, policy in zip(figure.subplots(len(policies), 3, sharey=True), policies, strict=True):
        of_policy = [row for row in rows if row["policy"] == policy]  # in the order of VARIANTS
        for axis, (name, label) in zip(line, shown.items(), strict=True):
            values, errors = ([row[key] for row in of_policy] for key in (name, f"{name}_se"))
            axis.errorbar(values, range(len(names)), xerr=[1.96 * e for e in errors], fmt="o", markersize=4, capsize=2)
            axis.set_yticks(range(len(names)), names, fontsize=8)
            axis.set(xlabel=label, xlim=(0, None))
            axis.grid(axis="x", alpha=0.3)
        line[0].set_title(f"{policy} policy", loc="left")
        line[0].invert_yaxis()
    figure.savefig(file, dpi=110)


if __name__ == "__main__":
    main()
