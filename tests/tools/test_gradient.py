"""tools.gradient: the figures by hand, and what is known of the tabular policy without sampling."""

import math
import random

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from engine.micro_batches import sample_rows
from engine.policy import Policy
from rewards import accuracy
from rollout import completion_texts, rollout
from tasks import addition
from tasks.prompts import encode_prompt
from tools import gradient


def test_figures_by_hand():
    # gradients (3, 1) and (1, -1) of a truth (1, 0): mean (2, 0); variance 2 * (1 + 1) / 1 = 4, of the mean 2
    got = gradient.figures(
        torch.tensor([[3.0, 1.0], [1.0, -1.0]], dtype=torch.float64), torch.tensor([1.0, 0.0]).double()
    )
    assert got["scale"] == 2
    # |(2, 0) / 2 - (1, 0)|^2 = 0, less 4 / 2 / 2^2
    assert got["bias_square"] == pytest.approx(-0.5, rel=1e-12)
    # |mean|^2 = 4, less 2
    assert got["noise"] == pytest.approx(math.sqrt(4 / 2), rel=1e-12)
    assert got["cosine"] == pytest.approx((3 / math.sqrt(10) + 1 / math.sqrt(2)) / 2, rel=1e-12)
    # of 1, 2, 3: sqrt(2 / 2 / 3)
    assert gradient.mean_and_error([1.0, 2.0, 3.0])[1] == pytest.approx(math.sqrt(1 / 3), rel=1e-12)


def test_the_tabular_gradient_is_exact_and_a_plain_estimate_is_unbiased_but_for_its_length():
    """Dr. GRPO's norm without alpha: E g = (1 - 1 / G) dJ / max_len; alpha, in front, moves its length alone here."""
    draw, truth, longest = gradient.tabular()
    got = gradient.measure(draw, truth, {"norm": "constant", "age": False, "max_len": longest}, 0.0, 1500)
    assert got["scale"] == pytest.approx((1 - 1 / gradient.G) / longest, abs=4 * got["scale_se"])
    assert got["bias"] <= 4 * got["bias_se"] and got["bias"] < 0.06 and got["samples"] == 64
    by_sequence = gradient.measure(draw, truth, {"norm": "sequence", "age": False, "max_len": longest}, 0.0, 1500)
    assert by_sequence["bias"] > 0.2  # a mean over each sample's tokens weighs short ones more
    # each prompt's part of the truth sums to 0 over the tokens of a softmax
    assert truth.view(-1, gradient.VOCABULARY).sum(1).abs().max() < 1e-12 and truth.abs().max() > 1e-3


def test_beta_th_takes_more_samples_and_has_less_noise():
    draw, truth, longest = gradient.tabular()
    options = {"norm": "group", "max_len": longest}
    one, more = (gradient.measure(draw, truth, options, beta_th, 300) for beta_th in (0.0, 0.8))
    assert more["samples"] > 80 and more["noise"] < one["noise"] and more["cosine"] > one["cosine"]


def test_the_command_writes_table_picture_and_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(gradient, "built_in", lambda _: gradient.tabular())
    gradient.main(["--batches", "20", "--out", str(tmp_path)])
    table = (tmp_path / "table.md").read_text()
    assert table.count("| group, α on, β_th 0.6 |") == 2 and "20 batches of 8 prompts x 8" in table
    assert (tmp_path / "picture.png").stat().st_size > 10_000
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 2 * len(gradient.VARIANTS)


@pytest.mark.slow
def test_the_models_pool_stands_for_its_gradients():
    """|truth|^2 of the stand-ins is that of the gradient itself, by autograd, of the same samples."""
    draw, truth, longest = gradient.built_in(4)
    scores, rewards, lengths = draw(torch.Generator().manual_seed(0), 3)
    assert scores.shape[:2] == rewards.shape == lengths.shape == (3, 8) and lengths.max() <= longest

    folder = addition.ensure(0)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    problems = random.Random(0).sample(addition.problems("train"), 4)
    r = rollout(model, tokenizer, [encode_prompt(tokenizer, row["problem"]) for row in problems], 8, longest)
    right = [accuracy(text, problems[i // 8]["answer"]) for i, text in enumerate(completion_texts(tokenizer, r))]
    rewards = torch.tensor(right).view(4, 8)
    advantages = (rewards - (rewards.sum(1, keepdim=True) - rewards) / 7).flatten()  # from the mean of the others
    for i in range(32):
        logprobs = Policy(model, 1.0)(*sample_rows(r, torch.tensor([i])))
        (logprobs.sum() * float(advantages[i]) / 32).backward()
    square = sum(float((p.grad.double() ** 2).sum()) for p in model.parameters())
    assert float(truth @ truth) == pytest.approx(square, rel=1e-3) and square > 1e-6
