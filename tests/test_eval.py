"""eval.py: two models in temporary folders. One has random weights; the other is a chain, whose every token names the
next: greedily it says \\boxed{7} and stops, whatever it is asked."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

import eval as evaluation
import tiny

ROOT = Path(__file__).parents[1]
CHAIN = ("<|assistant|>", "\\boxed{", "7", "}", "<|end|>")


def make_model(tokenizer) -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    sizes |= {"num_key_value_heads": 1, "max_position_embeddings": 256, "initializer_range": 0.3}
    return Qwen2ForCausalLM(Qwen2Config(vocab_size=len(tokenizer), tie_word_embeddings=False, **sizes, **ids))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Name -> folder with model and tokenizer."""
    folders, tokenizer = {}, tiny.make_tokenizer()
    for name in ("random", "chain"):
        model = make_model(tokenizer)
        if name == "chain":
            with torch.no_grad():
                layer, head = model.model.layers[0], model.lm_head.weight
                layer.self_attn.o_proj.weight.zero_()
                layer.mlp.down_proj.weight.zero_()
                head.zero_()
                for token, following in zip(CHAIN, CHAIN[1:], strict=False):
                    embedding = model.model.embed_tokens.weight[tokenizer.convert_tokens_to_ids(token)]
                    # the hidden state is the embedding over its root mean square, so the logit is 7, the others about 0
                    head[tokenizer.convert_tokens_to_ids(following)] = 7 * embedding / (embedding.norm() * 8)
        folders[name] = str(tmp_path_factory.mktemp(name))
        model.save_pretrained(folders[name])
        tokenizer.save_pretrained(folders[name])
    return folders


@pytest.fixture
def problems(tmp_path):
    """Prompts of 7, 11, 9 and 8 tokens, the two of the template among them."""
    rows = [("3+4=?", "7"), ("30-20-3=?", "7"), ("2+2+4=?", "8"), ("14/2=?", "7.0")]
    file = tmp_path / "problems.jsonl"
    file.write_text("".join(json.dumps({"problem": p, "answer": a}) + "\n" for p, a in rows))
    return str(file)


@pytest.fixture
def run(folders, problems, tmp_path, capsys):
    """Calls the command -> (rows of its file, what it printed). Flags given later win."""
    numbers = iter(range(100))

    def call(name, *flags, problems=problems):
        out = tmp_path / f"{next(numbers)}.jsonl"
        usual = ("--max-prompt-tokens", "32", "--max-new-tokens", "8", "--out", str(out))
        evaluation.main(["--model", folders[name], "--data", problems, *usual, *flags])
        return [json.loads(line) for line in out.read_text().splitlines()], capsys.readouterr().out

    return call


def completions(rows):
    return [row["completions"] for row in rows]


def cells(printed, name):
    """The cells of a line of the table."""
    (line,) = [line for line in printed.splitlines() if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


# ------------------------------------------------------------------------------------------------------------- numbers


def test_rows_and_table_of_the_chain(run):
    rows, printed = run("chain")
    assert [(row["problem"], row["answer"]) for row in rows[:2]] == [("3+4=?", "7"), ("30-20-3=?", "7")]
    assert rows[0]["prompt"] == "<|user|>3+4=?<|assistant|>" and rows[0]["prompt_tokens"] == 7
    said = {"verdict": True, "text": "\\boxed{7}", "tokens": 4, "truncated": False}
    assert completions(rows) == [[said], [said], [said | {"verdict": False}], [said]]
    # 3 of 4 right: sqrt(.75 * .25 / 4) = .2165
    assert cells(printed, "greedy pass@1") == ["greedy pass@1", "4", "75.0 ± 21.7 %", "0.0 %", "4.0"]


def test_truncated_completions_are_counted_and_wrong(run):
    rows, printed = run("chain", "--max-new-tokens", "3")  # one token short of the EOS
    assert completions(rows)[0] == [{"verdict": True, "text": "\\boxed{7}", "tokens": 3, "truncated": True}]
    assert cells(printed, "greedy pass@1")[3:] == ["100.0 %", "3.0"]
    rows, printed = run("chain", "--max-new-tokens", "2")
    assert completions(rows)[0] == [{"verdict": False, "text": "\\boxed{7", "tokens": 2, "truncated": True}]
    assert cells(printed, "greedy pass@1")[2] == "0.0 ± 0.0 %"


def test_mean_and_clustered_standard_error():
    verdicts = [[1, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0]]
    groups = [[{"verdict": bool(verdict)} for verdict in group] for group in verdicts]
    # means of the problems: 1, 1/4, 0; their mean 5/12; deviations 7/12, -2/12, -5/12
    # sum of squares (49 + 4 + 25) / 144 = 78/144; error = sqrt(78)/12 / 3
    assert evaluation.mean_and_error(groups) == pytest.approx((5 / 12, 78**0.5 / 36), rel=1e-12)


def test_the_table_of_samples_is_that_of_the_rows(run):
    rows, printed = run("chain", "--n", "5", "--seed", "3")
    assert {len(group) for group in completions(rows)} == {6}
    samples = [group[1:] for group in completions(rows)]
    right = [sum(c["verdict"] for c in group) for group in samples]
    assert 0 < sum(right) < 15  # else the numbers below could not be wrong
    # each is held against its own problem's answer: one of the four is not 7
    assert [[c["verdict"] for c in group] for group in samples] == [
        ["\\boxed{7}" in c["text"] and row["answer"] != "8" for c in group]
        for row, group in zip(rows, samples, strict=True)
    ]
    # all groups have 5: mean = right / 20; clustered error = sqrt(sum of (right of a group / 5 - mean)^2) / 4
    mean = sum(right) / 20
    error = sum((r / 5 - mean) ** 2 for r in right) ** 0.5 / 4
    truncated = sum(c["truncated"] for group in samples for c in group) / 20
    tokens = sum(c["tokens"] for group in samples for c in group) / 20
    expected = ["sampled avg@5", "4", f"{100 * mean:.1f} ± {100 * error:.1f} %", f"{100 * truncated:.1f} %"]
    assert cells(printed, "sampled avg@5") == [*expected, f"{tokens:.1f}"]
    assert cells(printed, "greedy pass@1")[2] == "75.0 ± 21.7 %"


def test_greedy_is_what_generate_says(run, folders):
    rows, _ = run("random", "--max-new-tokens", "12", "--n", "2")
    model, tokenizer = (kind.from_pretrained(folders["random"]) for kind in (AutoModelForCausalLM, AutoTokenizer))
    texts = []
    for row in rows:
        ids = tokenizer(row["prompt"], return_tensors="pt").input_ids
        said = model.generate(ids, do_sample=False, max_new_tokens=12)[0, ids.shape[1] :]
        texts.append(tokenizer.decode(said, skip_special_tokens=True, clean_up_tokenization_spaces=False))
        assert row["completions"][0]["tokens"] == len(said)
    assert [group[0]["text"] for group in completions(rows)] == texts
    assert len(set(texts)) == 4  # the model looks at its problem, so that a mix-up would show


def test_a_sample_depends_on_seed_and_place_only(run, problems):
    flags = ("--n", "3", "--seed", "5")
    rows, _ = run("random", *flags)
    assert run("random", *flags)[0] == rows
    assert run("random", *flags, "--cache-tokens", "1")[0] == rows
    assert run("random", *flags, problems=f"{problems}[:2]")[0] == rows[:2]
    assert run("random", *flags, "--max-prompt-tokens", "10")[0][2:] == rows[2:]  # the second problem is left out
    other, _ = run("random", "--n", "3", "--seed", "6")
    for group, other_group in zip(completions(rows), completions(other), strict=True):
        assert group[0] == other_group[0]
        assert len({completion["text"] for completion in group + other_group}) == 7  # greedy and six samples


@pytest.mark.parametrize("flags", [("--top-k", "1"), ("--top-p", "0.001"), ("--temperature", "0.001")])
def test_sampling_flags_narrow_down_to_greedy(run, flags):
    rows, printed = run("random", "--n", "2", *flags)
    assert all(greedy == first == second for greedy, first, second in completions(rows))
    assert f"{flags[0][2:]} {flags[1]}" in printed


def test_bfloat16_is_autocast_over_float32_weights(run, monkeypatch):
    seen, rollout = [], evaluation.rollout

    def spy(model, *arguments, **options):
        seen.append((torch.is_autocast_enabled("cpu"), model.dtype))
        return rollout(model, *arguments, **options)

    monkeypatch.setattr(evaluation, "rollout", spy)
    for dtype in ("float32", "bfloat16", "float64"):
        run("chain", "--dtype", dtype)
    assert seen == [(False, torch.float32), (True, torch.float32), (False, torch.float64)]


def test_nothing_is_left_changed(run, folders, monkeypatch):
    model = AutoModelForCausalLM.from_pretrained(folders["random"]).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    config, numbers = model.generation_config, torch.get_rng_state()
    monkeypatch.setattr(evaluation, "load_model", lambda _: model)
    run("random", "--n", "2")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.training and model.generation_config is config and torch.equal(torch.get_rng_state(), numbers)


# ------------------------------------------------------------------------------------------------------------- prompts


def test_long_prompts_are_counted_and_left_out(run):
    rows, printed = run("chain", "--max-prompt-tokens", "8")  # prompts of 7, 11, 9, 8 tokens
    assert [len(group) for group in completions(rows)] == [1, 0, 0, 1]
    assert [row["prompt_tokens"] for row in rows] == [7, 11, 9, 8]
    assert "left out: 2 prompts longer than 8 tokens, 0 bad rows" in printed
    assert cells(printed, "greedy pass@1")[1:3] == ["2", "100.0 ± 0.0 %"]  # 7 and 7.0


def test_the_prompt_settings_are_printed_and_in_the_file(run, tmp_path):
    rows, printed = run("chain", "--system-prompt", "Add them up.")
    assert rows[0]["prompt"] == "<|system|>Add them up.<|user|>3+4=?<|assistant|>"
    assert "system prompt 'Add them up.', the tokenizer's chat template" in printed and rows[0]["prompt"] in printed

    template = tmp_path / "mine.txt"
    template.write_text("Q: {problem}<|assistant|>")
    rows, printed = run("chain", "--template", str(template))
    assert rows[0]["prompt"] == "Q: 3+4=?<|assistant|>"
    assert f"system prompt 'none', --template {template}" in printed
    assert "at most 8 tokens, float32" in printed


def test_fields_and_bad_rows(run, tmp_path):
    file = tmp_path / "other.jsonl"
    file.write_text('{"ask": "1+6=?", "say": 7}\nnot JSON\n{"ask": "1+5=?", "say": 6}\n')
    flags = ("--problem-field", "ask", "--answer-field", "say", "--skip-bad-rows")
    rows, printed = run("chain", *flags, problems=str(file))
    assert [(row["problem"], row["completions"][0]["verdict"]) for row in rows] == [("1+6=?", True), ("1+5=?", False)]
    assert "1 bad rows" in printed


# -------------------------------------------------------------------------------------------------------------- errors


def error_of(capsys, *flags) -> str:
    """The only line that a refused command leaves."""
    with pytest.raises(SystemExit) as caught:
        evaluation.main(list(flags))
    assert caught.value.code == 2
    streams = capsys.readouterr()
    assert streams.out == "" and streams.err.count("\n") == 1
    return streams.err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--n", "-1"], "--n -1: must be 0 or more"),
        (["--n", "many"], "--n"),
        (["--seed", "-1"], "--seed -1: must be 0"),
        (["--max-new-tokens", "0"], "--max-new-tokens 0: must be 1"),
        (["--cache-tokens", "0"], "--cache-tokens 0: must be 1"),
        (["--n", "2", "--temperature", "0"], "--temperature 0.0: must be above 0"),
        (["--n", "2", "--temperature", "nan"], "--temperature nan"),
        (["--n", "2", "--top-p", "1.5"], "--top-p 1.5"),
        (["--n", "2", "--top-k", "-1"], "--top-k -1"),
        (["--temperature", "0.6"], "with --n"),
        (["--tempreature", "1"], "--tempreature"),
        (["--dtype", "float16"], "bfloat16"),
        (["--system-prompt", "qwen"], "qwen-7b"),
        (["--template", "no-such-file"], "no-such-file"),
        (["--max-prompt-tokens", "250"], "256 positions"),
        (["--max-prompt-tokens", "6"], "all prompts are longer, from 7 up"),
        (["--data", "no-such.jsonl"], "no-such.jsonl"),
        (["--problem-field", "task"], "no column 'task'"),
        (["--model", "no/such/model"], "--model no/such/model"),
    ],
)
def test_wrong_flags_end_in_one_line(folders, problems, tmp_path, capsys, flags, words):
    usual = ["--model", folders["chain"], "--data", problems, "--out", str(tmp_path / "out.jsonl")]
    assert words in error_of(capsys, *usual, "--max-new-tokens", "8", "--max-prompt-tokens", "32", *flags)
    assert not (tmp_path / "out.jsonl").exists()


def test_a_model_and_data_must_be_given(capsys):
    assert "--model, --data" in error_of(capsys)


def test_a_broken_row_or_damaged_weights_end_in_one_line(folders, problems, tmp_path, capsys):
    Path(problems).write_text('{"problem": "1+1=?"}\n')
    assert "line 1" in error_of(capsys, "--model", folders["chain"], "--data", problems, "--out", f"{tmp_path}/o")

    Path(problems).write_text('{"problem": "1+1=?", "answer": "2"}\n')
    for file in Path(folders["chain"]).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes()[: 99 if file.suffix == ".safetensors" else None])
    flags = ["--data", problems, "--max-prompt-tokens", "9", "--max-new-tokens", "9", "--out", f"{tmp_path}/o"]
    with pytest.raises(SystemExit) as caught:
        evaluation.main(["--model", str(tmp_path), *flags])
    error = capsys.readouterr().err
    assert caught.value.code == 2 and error.count("\n") == 1 and "no causal LM could be read" in error


def test_a_result_is_only_replaced_by_overwrite(folders, problems, tmp_path, capsys):
    out = tmp_path / "made" / "here.jsonl"
    flags = ["--model", folders["chain"], "--max-prompt-tokens", "32", "--max-new-tokens", "4", "--out", str(out)]
    evaluation.main([*flags, "--data", problems])
    assert out.read_text().count("\n") == 4
    capsys.readouterr()
    assert f"--out {out}: exists; --overwrite" in error_of(capsys, *flags, "--data", f"{problems}[:1]")
    assert out.read_text().count("\n") == 4
    evaluation.main([*flags, "--data", f"{problems}[:1]", "--overwrite"])
    assert out.read_text().count("\n") == 1 and [file.name for file in out.parent.iterdir()] == ["here.jsonl"]
    capsys.readouterr()
    assert "is a folder" in error_of(capsys, "--model", "m", "--data", "d", "--out", str(tmp_path), "--overwrite")


def test_the_command(folders, problems, tmp_path):
    command = [sys.executable, str(ROOT / "eval.py"), "--model", folders["chain"], "--data", problems]
    flags = ["--max-prompt-tokens", "32", "--max-new-tokens", "8", "--n", "2"]
    options = {"cwd": tmp_path, "capture_output": True, "text": True, "env": os.environ | {"PYTHONWARNINGS": "error"}}
    done = subprocess.run([*command, *flags], check=False, **options)
    assert done.returncode == 0, done.stderr
    assert cells(done.stdout, "greedy pass@1")[2] == "75.0 ± 21.7 %" and "sampled avg@2" in done.stdout
    assert len((tmp_path / "eval.jsonl").read_text().splitlines()) == 4  # --out's default
