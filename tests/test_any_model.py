"""Any causal LM of transformers is sampled, scored, trained, planned, examined and evaluated right, or refused.

Random models of two layers, one for each kind of attention, cache, position, router and output. The oracle is a forward
of a row alone, without padding or cache. Found with it: losses of routers, parts that no text reaches, noise of routers
in training mode, configurations without heads, caches that can't be repeated.
"""

import json
from types import SimpleNamespace

import pytest
import torch
import transformers
from safetensors.torch import load_file
from test_rollout import rescored

import eval as evaluation
import rollout as R
import train
from engine.micro_batches import per_token
from engine.policy import Policy
from run import flags, models, ranks
from tasks import addition

V = 262
TEXT = {"vocab_size": V, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT |= {"num_key_value_heads": 2, "max_position_embeddings": 256, "initializer_range": 0.3, "pad_token_id": 0}
WIDE = TEXT | {"head_dim": 8}
OLD = {"vocab_size": V, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}
STATE = {"vocab_size": V, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
ROUTED = EXPERTS | {"output_router_logits": True}
SHARED = EXPERTS | {"shared_expert_intermediate_size": 32}
WINDOW = {"sliding_window": 8}
MIXED = WINDOW | {"layer_types": ["sliding_attention", "full_attention"]}
LATENT = {"kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}
LATENT |= {"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "n_shared_experts": 1, "first_k_dense_replace": 1}
LATENT |= EXPERTS | {"num_key_value_heads": 4}
MAMBA = {"mamba_d_state": 8, "mamba_d_conv": 4, "mamba_expand": 2, "mamba_n_heads": 8, "mamba_d_head": 8}
MAMBA |= {"mamba_n_groups": 1, "mamba_chunk_size": 8}
LINEAR = {"layer_types": ["linear_attention", "full_attention"], "linear_num_key_heads": 2, "linear_num_value_heads": 4}
LINEAR |= {"linear_key_head_dim": 8, "linear_value_head_dim": 8}
ZAMBA = {"attention_hidden_size": 64, "attention_head_dim": 16, "num_mem_blocks": 1, "use_mem_rope": True}
ZAMBA |= {"layers_block_type": ["mamba", "hybrid"], "mamba_d_state": 8, "n_mamba_heads": 8, "mamba_headdim": 8}
ZAMBA |= {"mamba_ngroups": 1, "chunk_size": 8, "adapter_rank": 4, "use_mamba_kernels": False}
JAMBA = {"mamba_d_state": 8, "mamba_dt_rank": 4, "use_mamba_kernels": False}
JAMBA |= {f"{kind}_layer_{x}": n for kind in ("attn", "expert") for x, n in (("period", 2), ("offset", 1))}
HYBRID = {"layers_block_type": ["mamba", "attention"], "ssm_state_size": 8, "mamba_num_heads": 8, "mamba_head_dim": 8}
HYBRID |= {"n_groups": 1, "chunk_size": 8, "use_mamba_kernels": False}


def rope(kind, **options):
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 1e4, **options}}


LLAMA3 = rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64)
YARN = rope("yarn", factor=4.0, original_max_position_embeddings=64)


def longrope(positions):
    factors = {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
    original = {"original_max_position_embeddings": positions}
    return rope("longrope", **factors, **original) | original


KINDS = {  # class, without its ForCausalLM: options
    "llama-3": ("Llama", TEXT | LLAMA3),
    "dynamic": ("Llama", TEXT | rope("dynamic", factor=4.0)),
    "yarn": ("Qwen2", TEXT | YARN),
    "phi3": ("Phi3", TEXT),
    "longrope": ("Phi3", TEXT | longrope(128)),
    "mistral": ("Mistral", TEXT | WINDOW),
    "qwen3": ("Qwen3", WIDE | WINDOW | {"use_sliding_window": True, "max_window_layers": 1}),
    "mixtral": ("Mixtral", TEXT | ROUTED | {"router_jitter_noise": 0.3}),
    "qwen3-moe": ("Qwen3Moe", WIDE | ROUTED),
    "phimoe": ("Phimoe", TEXT | ROUTED),
    "olmo": ("Olmo", TEXT),
    "olmo2": ("Olmo2", TEXT),
    "olmoe": ("Olmoe", TEXT | ROUTED),
    "gemma2": ("Gemma2", WIDE | MIXED | {"attention_dropout": 0.1}),
    "gemma3": ("Gemma3", WIDE | MIXED),
    "gemma4": (
        "Gemma4",
        WIDE | MIXED | {"global_head_dim": 16, "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": V},
    ),
    "gpt-oss": ("GptOss", WIDE | EXPERTS | MIXED | YARN),
    "granite": ("Granite", TEXT | {"logits_scaling": 2.0, "residual_multiplier": 0.5}),
    "granite-hybrid": (
        "GraniteMoeHybrid",
        TEXT | EXPERTS | MAMBA | {"shared_intermediate_size": 32, "layer_types": ["mamba", "attention"]},
    ),
    "cohere": ("Cohere", TEXT),
    "cohere2": ("Cohere2", TEXT | MIXED),
    "deepseek-v3": ("DeepseekV3", TEXT | LATENT),
    "lfm2": ("Lfm2", TEXT | {"layer_types": ["conv", "full_attention"], "block_multiple_of": 8}),
    "qwen3-next": ("Qwen3Next", WIDE | SHARED | LINEAR),
    "falcon-h1": ("FalconH1", WIDE | MAMBA | {"mamba_d_ssm": 64}),
    "jamba": ("Jamba", TEXT | ROUTED | JAMBA),
    "bamba": ("Bamba", TEXT | MAMBA | {"attn_layer_indices": [1]}),
    "mamba": ("Mamba", STATE),
    "mamba2": ("Mamba2", STATE | {"num_heads": 8, "head_dim": 8, "n_groups": 1, "chunk_size": 8}),
    "opt": ("OPT", TEXT | {"ffn_dim": 64, "word_embed_proj_dim": 32, "dropout": 0.2, "layerdrop": 0.2}),
    "gpt-neox": ("GPTNeoX", TEXT | {"attention_dropout": 0.2, "hidden_dropout": 0.2}),
    "bloom": ("Bloom", {"vocab_size": V, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "gpt-2": ("GPT2LMHead", OLD),
    "exaone4": ("Exaone4", TEXT | MIXED),
    "bitnet": ("BitNet", TEXT),
    "llama-4": ("Llama4", WIDE | EXPERTS | {"intermediate_size_mlp": 64, "interleave_moe_layer_step": 2}),
}
REFUSED = {  # by the reason
    "longrope-short": ("Phi3", TEXT | longrope(16), "above the 16 positions"),
    "minimax": ("MiniMax", WIDE | EXPERTS | LINEAR | {"block_size": 8}, "can't be sampled in groups"),
    "rwkv": ("Rwkv", {"vocab_size": V, "hidden_size": 32, "num_hidden_layers": 2}, "no key-value cache"),
    "mllama-text": ("Mllama", WIDE | {"cross_attention_layers": [1], "bos_token_id": 0}, "Unrecognized configuration"),
}
# one token is decoded by another formula than many are read with: transformers does not clamp its time step
UNEQUAL = {"zamba2": ("Zamba2", TEXT | ZAMBA), "nemotron-h": ("NemotronH", WIDE | HYBRID)}
PROMPTS = [[5, 6, 7], [9, 9, *range(30, 42)], [8]]
REWARD = "def odd(completions, **_):\n    return [float(len(c) % 2) for c in completions]\n"


@pytest.fixture(scope="module")
def tokenizer():
    return addition.make_tokenizer()


def make_folder(folder, tokenizer, name, options):
    kind = getattr(transformers, name + ("Model" if name.endswith("LMHead") else "ForCausalLM"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = kind(kind.config_class(**{"bos_token_id": None, "eos_token_id": 259} | options))
    model.generation_config.eos_token_id = 259
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    rows = [json.dumps(row) + "\n" for row in addition.problems("train")[:4]]
    (folder / "data.jsonl").write_text("".join(rows))
    (folder / "reward.py").write_text(REWARD)
    words = f"--model {folder}/model --data {folder}/data.jsonl --out {folder}/out --rewards {folder}/reward.py:odd"
    words += " --dtype float32 --steps 1 --prompts-per-step 4 --group-size 3 --beta-th 0 --lr 1e-3"
    return (words + " --max-prompt-tokens 40 --max-new-tokens 12").split()


def evaluate(folder):
    words = f"--model {folder}/model --data {folder}/data.jsonl --out {folder}/eval.jsonl --dtype float32"
    evaluation.main((words + " --max-prompt-tokens 40 --max-new-tokens 6").split())


def doctor(words, capsys):
    """The lines of its table."""
    capsys.readouterr()
    try:
        train.main([*words, "--doctor"])
    except SystemExit as stopped:
        assert stopped.code == 1  # of a random model hardly a completion ends
    return {line[7:18].strip(): line[:5].strip() for line in capsys.readouterr().out.splitlines()}


def is_close(a, b, most):
    return float((a - b).abs().max()) < most


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_is_sampled_scored_trained_planned_examined_and_evaluated(kind, tmp_path, tokenizer, capsys):
    words = make_folder(tmp_path, tokenizer, *KINDS[kind])
    args = flags.parse_args(words)
    model = models.load_model(args, args.model, torch.device("cpu"))
    r, greedy = (R.rollout(model, tokenizer, PROMPTS, n, 16, temperature=t) for n, t in ((3, 1.0), (1, 0.0)))
    assert is_close(per_token(Policy(model, 1.0), r, 1000), r.logprobs, 1e-3)
    with R.eval_mode(model), torch.no_grad():
        assert is_close(rescored(model, r), r.logprobs, 1e-3)
        for prompt, ids, mask in zip(PROMPTS, greedy.completion_ids[:, 0], greedy.completion_mask[:, 0], strict=True):
            ids, options = ids[mask.bool()], {"do_sample": False, "eos_token_id": 259, "pad_token_id": 260}
            expected = model.generate(torch.tensor([prompt]), max_new_tokens=16, **options)[0, len(prompt) :]
            assert ids.tolist() == expected.tolist()
    train.main([*words, "--plan"])
    train.main(words)
    row = json.loads((tmp_path / "out" / "metrics.jsonl").read_text())
    assert row["logprob_gap"] < 1e-3 and 0 < row["grad_norm"] < float("inf")
    found = doctor(words, capsys)
    assert found["log π"] == found["gradient"] == found["memory"] == "ok"
    evaluate(tmp_path)


@pytest.mark.parametrize("kind", ["qwen3-moe", "deepseek-v3", "falcon-h1", "mamba", "llama-4"])
def test_adapters_are_merged_into_a_model_that_loads_and_leave_experts_as_they_are(kind, tmp_path, tokenizer):
    pytest.importorskip("peft")
    train.main([*make_folder(tmp_path, tokenizer, *KINDS[kind]), "--lora-rank", "2"])
    before, after = (load_file(tmp_path / folder / "model.safetensors") for folder in ("model", "out/final"))
    assert before.keys() == after.keys()
    moved = {name for name, x in before.items() if not torch.equal(x, after[name])}
    assert moved and not any(name.endswith("bias") or ".experts." in name or "out_proj" in name for name in moved)


def test_float64_where_a_router_stays_in_float32(tmp_path, tokenizer):
    words = make_folder(tmp_path, tokenizer, "Glm4Moe", WIDE | LATENT)
    train.main([*words, "--dtype", "float64"])
    assert json.loads((tmp_path / "out" / "metrics.jsonl").read_text())["logprob_gap"] < 1e-10


@pytest.mark.parametrize("kind", REFUSED)
def test_a_model_that_can_not_be_trained_is_refused_in_one_line(kind, tmp_path, tokenizer, capsys):
    *made, reason = REFUSED[kind]
    words = make_folder(tmp_path, tokenizer, *made)
    for command in (lambda: train.main(words), lambda: train.main([*words, "--doctor"]), lambda: evaluate(tmp_path)):
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            command()
        said = [line for line in capsys.readouterr().err.splitlines() if "shards" not in line]
        assert stopped.value.code == 2 and len(said) == 1 and reason in said[0], said
    assert not (tmp_path / "out").exists()


def refusal(words, capsys):
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        train.main(words)
    (said,) = capsys.readouterr().err.splitlines()
    assert stopped.value.code == 2
    return said


def test_an_adapter_code_of_its_own_and_float16_are_refused_in_one_line(tmp_path, tokenizer, capsys, monkeypatch):
    monkeypatch.setattr("builtins.input", None)  # transformers would ask
    words = make_folder(tmp_path, tokenizer, *KINDS["llama-3"])
    assert "--dtype float16: small gradients would be 0" in refusal([*words, "--dtype", "float16"], capsys)
    config = tmp_path / "model" / "config.json"
    own = {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"}}
    config.write_text(json.dumps(json.loads(config.read_text()) | own))
    assert "--trust-remote-code runs that, if you trust it" in refusal(words, capsys)
    code = (
        "from transformers import LlamaConfig, LlamaForCausalLM\nclass Config(LlamaConfig):\n    model_type = 'mine'\n"
    )
    code += "class Model(LlamaForCausalLM):\n    config_class = Config\n"
    (tmp_path / "model" / "mine.py").write_text(code)
    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    train.main([*words, "--trust-remote-code"])
    train.main([*words, "--trust-remote-code", "--model", f"{tmp_path}/out/final", "--plan", "--overwrite"])
    (tmp_path / "model" / "adapter_config.json").write_text("{}")
    assert "an adapter; merge it into its model" in refusal([*words, "--overwrite"], capsys)


def test_a_gpu_without_bfloat16_multiplies_in_float32(monkeypatch):
    monkeypatch.setattr(ranks, "this_device", lambda: torch.device("cuda", 0))
    for known, expected in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(ranks, "has_bfloat16", lambda known=known: known)
        assert ranks.for_device(SimpleNamespace(dtype=None, cache_tokens=1)).dtype == expected


@pytest.mark.slow
@pytest.mark.parametrize("kind", UNEQUAL)
def test_a_model_that_does_not_sample_what_it_scores_is_said(kind, tmp_path, tokenizer, capsys):
    words = make_folder(tmp_path, tokenizer, *UNEQUAL[kind])
    train.main(words)
    assert "warning, step 1: logprob_gap is 0.0" in capsys.readouterr().out
    assert doctor(words, capsys)["log π"] == "WRONG"
