"""engine/lora.py: the gradient is the chain rule's, a checkpoint is the model, and a run goes on to the same bits.

Tried by hand, each turns this file red: alpha = 2 R, B random, A drawn without the seed, A and B not read on resume,
the merged sum read as W, (B A)^T left out for GPT-2, the adapter out of the manifest.
"""

import json
import warnings

import pytest
import torch
from safetensors.torch import load_file
from test_policy import random_rollout
from test_rollout import make_model
from torch.testing import assert_close
from transformers import AutoModelForCausalLM

import train
from engine import lora
from engine import policy as P
from engine.float64 import keep_float64
from engine.micro_batches import micro_batches, sample_rows
from run import checkpoint, flags, memory

peft = pytest.importorskip("peft")
KINDS = ["qwen2", "gpt2", "gemma3"]  # with biases, with W as (in, out), with norms of its own


def of_kind(kind, dtype):
    no_dropout = {"embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0} if kind == "gpt2" else {}
    return make_model(kind, dtype=dtype, tie_word_embeddings=True, **no_dropout).train()


def with_adapters(kind, dtype=torch.float64):
    """A model with adapters of rank 3 whose B is random."""
    model = of_kind(kind, dtype)
    lora.add(model, 3, 0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=dtype))
    return model


def merged_copy(model, kind):
    whole = of_kind(kind, model.dtype)
    whole.load_state_dict(lora.split(model, model.state_dict(keep_vars=True), "base")[0])
    return whole


def backward(model, weights):
    """Of (weights * log pi).sum() over a random batch; weights (G * P, T)."""
    r = random_rollout(0)
    policy = P.Policy(model, 0.7)
    for piece in micro_batches(r, torch.arange(r.truncated.numel()), 60, shared=policy.shared):
        samples = sample_rows(r, piece)
        mask = samples[3].bool()
        w = weights[piece, : mask.shape[1]][mask]
        (policy(*samples, grad=w) * w).sum().backward()


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_the_chain_rule_of_the_whole_gradient(kind, checkpointing):
    """W' = W + B A, so dA = B^T dW' and dB = dW' A^T, with dW' the merged model's gradient. alpha = R: no factor."""
    model, r = with_adapters(kind), random_rollout(0)
    keep_float64(model)
    whole = merged_copy(model, kind)
    keep_float64(whole)
    if checkpointing:
        model.activation_checkpointing_enable()
    weights = torch.randn(r.completion_mask.flatten(0, 1).shape, generator=torch.Generator().manual_seed(2)).double()
    backward(model, weights)
    backward(whole, weights)
    layers = {n: m for n, m in model.named_modules() if hasattr(m, "lora_A")}
    assert len(layers) == len(lora.linear_layers(whole)) and "lm_head" not in layers
    for name, layer in layers.items():
        A, B = layer.lora_A["default"].weight, layer.lora_B["default"].weight  # (R, in), (out, R)
        dW = whole.get_submodule(name).weight.grad
        dW = dW.T if kind == "gpt2" else dW  # (out, in)
        assert float(A.grad.norm()) > 0 and float(B.grad.norm()) > 0
        assert_close(A.grad, B.T @ dW, rtol=1e-10, atol=1e-13)
        assert_close(B.grad, dW @ A.T, rtol=1e-10, atol=1e-13)
    trained = {n for n, p in model.named_parameters() if p.grad is not None}
    assert trained == {n for n, p in model.named_parameters() if p.requires_grad}
    assert trained == {f"{n}.lora_{x}.default.weight" for n in layers for x in "AB"}


@pytest.mark.parametrize("kind", KINDS)
def test_the_merged_model_is_the_model_with_its_adapter(kind):
    model = with_adapters(kind, dtype=torch.float32)
    whole, ids = merged_copy(model, kind), torch.arange(24).view(2, 12)
    model, whole = model.eval(), whole.eval()
    with torch.no_grad():
        assert_close(whole(ids).logits, model(ids).logits, rtol=1e-5, atol=1e-5)
        plain = of_kind(kind, torch.float32)(ids).logits
        assert float((whole(ids).logits - plain).abs().max()) > 0.1


def test_the_first_step_moves_b_alone(world, tmp_path):
    """B = 0, so dA = B^T dW = 0: the first sample and its reward are those of the model without adapters."""
    options = {"steps": 1, "weight_decay": 0.0, "warmup": 0}
    train.main(world(tmp_path / "lora", lora_rank=4, **options))
    train.main(world(tmp_path / "whole", **options))
    rows = [(tmp_path / name / "samples.jsonl").read_text() for name in ("lora", "whole")]
    assert rows[0] == rows[1]
    after = load_file(tmp_path / "lora" / "final" / "adapter" / lora.WEIGHTS)
    model = AutoModelForCausalLM.from_pretrained(world.folder / "model", dtype=torch.float64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)  # what another process has drawn before
        lora.add(model, 4, 0)
    assert len(after) == 2 * 7 * model.config.num_hidden_layers
    for name, value in after.items():
        before = model.get_parameter(lora._in_model(name))
        assert torch.equal(value, before) == (".lora_A." in name), name
        assert value.dtype == torch.float64 and (".lora_A." in name or not before.any())


def test_a_run_goes_on_to_the_same_bits(world, tmp_path):
    options = {"lora_rank": 2, "dtype": "bfloat16", "steps": 4, "eval_data": None, "noise_every": 2}
    train.main(world(tmp_path / "long", **options))
    train.main(world(tmp_path / "short", **options | {"steps": 2}))
    train.main(["--out", str(tmp_path / "short"), "--resume", "--steps", "4"])
    for file in ("model.safetensors", f"adapter/{lora.WEIGHTS}"):
        one, other = (load_file(tmp_path / name / "final" / file) for name in ("long", "short"))
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    rows = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("long", "short")]
    cosines = [[json.loads(row).get("grad_cosine") for row in of_run] for of_run in rows]
    assert cosines[0] == cosines[1] and any(cosines[0])
    files = [tmp_path / name / "final" / "adapter" / "adapter_config.json" for name in ("long", "short")]
    assert files[0].read_text() == files[1].read_text()
    saved = [torch.load(tmp_path / x / "final" / "trainer.pt", weights_only=True) for x in ("long", "short")]
    moments = saved[0]["optimizer"]["state"]
    assert len(moments) == len(load_file(tmp_path / "long" / "final" / "adapter" / lora.WEIGHTS))
    for index, of_parameter in moments.items():
        assert all(torch.equal(x, saved[1]["optimizer"]["state"][index][name]) for name, x in of_parameter.items())


def test_a_checkpoint_loads_merged_and_as_an_adapter_of_its_base(world, tmp_path):
    train.main(world(tmp_path / "run", lora_rank=4, dtype="float32", lr=1e-2))
    final, ids = tmp_path / "run" / "final", torch.arange(30)[None]
    base = AutoModelForCausalLM.from_pretrained(world.folder / "model")
    merged = AutoModelForCausalLM.from_pretrained(final)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by an old name
        plain = base(ids).logits
        adapted = peft.PeftModel.from_pretrained(base, final / "adapter").eval()
        assert_close(merged(ids).logits, adapted(ids).logits, rtol=0, atol=1e-5)
        assert float((merged(ids).logits - plain).abs().max()) > 0.01
    config = json.loads((final / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(world.folder / "model")
    assert checkpoint.damage(final) is None
    file = final / "adapter" / lora.WEIGHTS
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    assert "adapter_model.safetensors are not those" in checkpoint.damage(final)
    # what was merged is a model like any other: the next run's adapters begin at zero, and not at its own old ones
    train.main(world(tmp_path / "next", model=final, lora_rank=4, dtype="float32", steps=1, lr=1e-9, weight_decay=0))
    again = load_file(tmp_path / "next" / "final" / "adapter" / lora.WEIGHTS)
    assert all(float(x.abs().max()) < 1e-8 for name, x in again.items() if ".lora_B." in name)


def test_what_does_not_fit_on_resume_is_one_line(world, tmp_path, capsys):
    train.main(world(tmp_path / "whole", steps=1, eval_data=None))
    train.main(world(tmp_path / "lora", steps=1, eval_data=None, lora_rank=2))
    for run, rank, message in (
        ("lora", 3, "another rank"),
        ("lora", 0, "trains adapters"),
        ("whole", 3, "holds no adapter"),
    ):
        with pytest.raises(SystemExit) as stopped:
            train.main(["--out", str(tmp_path / run), "--resume", "--steps", "2", "--lora-rank", str(rank)])
        assert stopped.value.code == 2 and message in capsys.readouterr().err.splitlines()[-1]


def test_without_peft_it_is_one_line(world, tmp_path, monkeypatch, capsys):
    find = flags.importlib.util.find_spec
    monkeypatch.setattr(flags.importlib.util, "find_spec", lambda name: None if name == "peft" else find(name))
    with pytest.raises(SystemExit) as stopped:
        flags.parse_args(world(tmp_path, lora_rank=2))
    assert stopped.value.code == 2 and capsys.readouterr().err.endswith(": --lora-rank: pip install peft\n")


def test_the_plan_counts_adapters_by_hand():
    """1,000 weights; inputs and outputs of the linear layers together 60, so that rank 2 has 120 numbers."""
    shape = memory.Shape(1000, 1, 10, 30, 10, 10, 50, linear=60)
    load = memory.Load(tokens=64, completion_share=0.5, prefix_share=0.25, width=8, rows=2, samples=2, trained=4)
    load = memory.replace(load, lora_rank=2)
    assert memory.lasting(shape, load) == {"weights": 4000, "adapters": 480, "gradients": 480, "optimizer": 960}
    assert memory.training(shape, load)["logits"] == 32 * 50 * 4  # no gradient of the output layer
    assert memory.moments(shape, load)["optimizer step"]["temporaries"] == 2 * 2 * 30 * 4
    model = make_model("gpt2")
    lora.add(model, 5, 0)
    adapters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert adapters == 5 * memory.shape_of(model.config).linear
