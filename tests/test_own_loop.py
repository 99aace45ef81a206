"""The code of docs/your-own-loop.md, run as it stands there: a plain loop, and a subclass of TRL's GRPOTrainer."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, AutoTokenizer

import gpg
from engine.policy import Policy

PAGE = Path(__file__).parents[1] / "docs" / "your-own-loop.md"


def code(number, **names):
    """The names that a code block of the page defines."""
    block = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[number]
    space = {"torch": torch, "gpg": gpg} | names
    exec(compile(block, str(PAGE), "exec"), space)
    return space


def reward(text):
    return float(len(text) % 2)


def plain_gradient(model, samples, weights):
    """Of -(weights * logprobs).sum() by engine/policy.py: samples are (prompt ids, completion ids), weights (n, T)."""
    model.zero_grad()
    policy = Policy(model, 1.0)
    for (prompt, completion), w in zip(samples, weights, strict=True):
        row = (prompt[None], torch.ones_like(prompt)[None], completion[None], torch.ones_like(completion)[None])
        (-(w[: len(completion)] * policy(*row, torch.tensor([0]))).sum()).backward()
    return {name: p.grad for name, p in model.named_parameters()}


def test_a_plain_loop_has_our_gradient(world, monkeypatch):
    model, tokenizer = (kind.from_pretrained(world.folder / "model") for kind in (AutoModelForCausalLM, AutoTokenizer))
    several = [tokenizer.eos_token_id, *range(0, 200, 7)]
    model.generation_config.eos_token_id, model.generation_config.repetition_penalty = several, 5.0
    seen, generate, weigh = {}, model.generate, gpg.token_weights
    monkeypatch.setattr(model, "generate", lambda **k: seen.setdefault("ids", generate(**k)))
    monkeypatch.setattr(gpg, "token_weights", lambda *a: seen.setdefault("weights", weigh(*a)))

    class Optimizer:
        def step(self):
            seen["grads"] = {name: p.grad.clone() for name, p in model.named_parameters()}

        def zero_grad(self):
            model.zero_grad()

    torch.manual_seed(0)
    prompts = ["1+2=?", "10+20=?", "7+8=?"]
    mean = code(0)["step"](model, tokenizer, Optimizer(), prompts, reward, G=4, max_new_tokens=6)
    assert 0 < mean < 1 and seen["weights"].any()

    ids, L = seen["ids"], seen["ids"].shape[1] - seen["weights"].shape[2]
    samples = []
    for i, row in enumerate(ids):
        prompt = torch.tensor(tokenizer(prompts[i // 4]).input_ids)
        ends = torch.isin(row[L:], torch.tensor(several)).nonzero().flatten().tolist()
        samples.append((prompt, row[L : L + ends[0] + 1] if ends else row[L:]))
    assert len({len(completion) for _, completion in samples}) > 2  # some end by another id, and all are padded
    assert model.generation_config.repetition_penalty in (None, 1.0)
    expected = plain_gradient(model, samples, seen["weights"].flatten(0, 1))
    scale = max(float(g.abs().max()) for g in expected.values())
    for name, grad in expected.items():
        assert_close(seen["grads"][name], grad, rtol=1e-4, atol=1e-6 * scale)


def test_a_plain_loop_makes_no_step_without_a_valid_group(world):
    model, tokenizer = (kind.from_pretrained(world.folder / "model") for kind in (AutoModelForCausalLM, AutoTokenizer))
    step = code(0)["step"]
    assert step(model, tokenizer, None, ["1+2=?"], lambda _: 1.0, G=2, max_new_tokens=4) == 1.0  # no optimizer to call


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # TRL's and accelerate's own
@pytest.mark.skipif(not importlib.util.find_spec("trl"), reason="TRL is not installed")
def test_a_trl_trainer_has_our_gradient(world, tmp_path):
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    model, tokenizer = (kind.from_pretrained(world.folder / "model") for kind in (AutoModelForCausalLM, AutoTokenizer))
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    seen, Trainer = {}, code(1, GRPOTrainer=GRPOTrainer)["GPGTrainer"]

    class Watched(Trainer):
        def _generate_and_score_completions(self, inputs):
            seen["batch"] = super()._generate_and_score_completions(inputs)
            return seen["batch"]

    class Grads(TrainerCallback):
        def on_pre_optimizer_step(self, *_, model, **__):
            seen["grads"] = {name: p.grad.clone() for name, p in model.named_parameters()}

    rows = Dataset.from_list([{"prompt": f"{a}+{a}=?"} for a in range(10, 14)])
    options = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2, "num_generations": 4, "max_steps": 1}
    options |= {
        "max_completion_length": 6,
        "scale_rewards": "none",
        "beta": 0.0,
        "report_to": [],
        "use_cpu": True,
        "bf16": False,
    }
    config = GRPOConfig(str(tmp_path), **options, max_grad_norm=1e9, temperature=1.0, seed=1, save_strategy="no")
    lengths = lambda completions, **_: [reward(text) for text in completions]  # noqa: E731
    Watched(model, lengths, args=config, train_dataset=rows, processing_class=tokenizer, callbacks=[Grads()]).train()

    batch = seen["batch"]
    names = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")
    samples = [
        (prompt[seen_.bool()], completion[kept.bool()])
        for prompt, seen_, completion, kept in zip(*(batch[name] for name in names), strict=True)
    ]
    rewards = torch.tensor([reward(tokenizer.decode(ids, skip_special_tokens=True)) for _, ids in samples])
    weights = gpg.token_weights(rewards.view(-1, 4), batch["completion_mask"].view(4, 4, -1))
    assert 1 <= int(gpg.valid_groups(rewards.view(-1, 4)).sum())
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(start[name])
    expected = plain_gradient(model.eval(), samples, weights.flatten(0, 1))
    scale = max(float(g.abs().max()) for g in expected.values())
    for name, grad in expected.items():
        assert_close(seen["grads"][name], grad, rtol=1e-4, atol=1e-6 * scale)
