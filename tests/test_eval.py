"""eval.py: two models in temporary folders. One has random weights; the other is a chain, whose every token names the
next: greedily it says \\boxed{7} and stops, whatever the prompt.

Changes that make this file fail: streams that do not depend on the place or on the set, a resumed run that does
everything again, a regrade that keeps old verdicts, a wrong count without a warning.
"""

import json
import os
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
import torch
from forked import on_ranks
from test_scores import cells
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

import eval as evaluation
from tasks import addition, benchmarks, prompts

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
    folders, tokenizer = {}, addition.make_tokenizer()
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
    """Calls the command -> (rows of its file, what it printed). Flags given later win; samples are drawn at 1."""
    numbers = iter(range(100))

    def call(name, *flags, problems=problems):
        out = tmp_path / f"{next(numbers)}.jsonl"
        usual = ["--max-prompt-tokens", "32", "--max-new-tokens", "8", "--out", str(out)]
        usual += ["--temperature", "1", "--top-p", "1"]
        evaluation.main(["--model", folders[name], "--data", problems, *usual, *flags])
        return untimed(out), capsys.readouterr().out

    return call


def untimed(file):
    """The rows of a result, which begins with its settings, without seconds: those differ from run to run."""
    first, *rows = [json.loads(line) for line in Path(file).read_text().splitlines()]
    assert list(first) == ["settings"]
    assert all(row.pop("seconds") or not row["greedy"] for row in rows)
    return rows


def completions(rows):
    return [row["greedy"] + row["samples"] for row in rows]


# ------------------------------------------------------------------------------------------------------------- numbers


def test_rows_and_table_of_the_chain(run):
    rows, printed = run("chain")
    assert [(row["set"], row["place"], row["problem"], row["answer"]) for row in rows[:2]] == [
        ("data", 0, "3+4=?", "7"),
        ("data", 1, "30-20-3=?", "7"),
    ]
    assert rows[0]["prompt"] == "<|user|>3+4=?<|assistant|>" and rows[0]["prompt_tokens"] == 7
    said = {"verdict": True, "submitted": "7", "text": "\\boxed{7}", "tokens": 4, "truncated": False}
    assert completions(rows) == [[said], [said], [said | {"verdict": False}], [said]]
    # 3 of 4 right: variance (3 (1/4)^2 + (3/4)^2) / 3 = .25, its root over sqrt(4) = .25
    assert cells(printed, "data", "4") == ["75.0 ± 25.0"]
    assert cells(printed, "data", "greedy")[:-1] == ["4", "0.0", "0.0", "4.0"]


def test_truncated_completions_are_counted_and_wrong(run):
    rows, printed = run("chain", "--max-new-tokens", "3")  # one token short of the EOS
    said = {"verdict": True, "submitted": "7", "text": "\\boxed{7}", "tokens": 3, "truncated": True}
    assert completions(rows)[0] == [said]
    assert cells(printed, "data", "greedy")[:-1] == ["4", "100.0", "0.0", "3.0"]
    rows, printed = run("chain", "--max-new-tokens", "2")
    said = {"verdict": False, "submitted": None, "text": "\\boxed{7", "tokens": 2, "truncated": True}
    assert completions(rows)[0] == [said]
    assert cells(printed, "data", "greedy")[:-1] == ["4", "100.0", "100.0", "2.0"]
    assert cells(printed, "data", "4") == ["0.0 ± 0.0"]


def test_a_stop_text_ends_completions_and_is_a_setting(run, tmp_path):
    rows, printed = run("chain", "--samples", "2", "--stop", "d{7", "nowhere")
    said = {"verdict": False, "submitted": None, "text": "\\boxed{7", "tokens": 2, "truncated": False}
    assert all(row["greedy"] == [said] for row in rows)
    assert all(c["tokens"] == 2 for row in rows for c in row["samples"] if c["text"] == said["text"])
    first = json.loads((tmp_path / "0.jsonl").read_text().partition("\n")[0])
    assert first["settings"]["stop"] == ["d{7", "nowhere"]


def test_the_tables_of_samples_are_those_of_the_rows(run):
    rows, printed = run("chain", "--samples", "5", "--seed", "3", "--pass-k", "1,2,5")
    assert {(len(row["greedy"]), len(row["samples"])) for row in rows} == {(1, 5)}
    samples = [row["samples"] for row in rows]
    right = [sum(c["verdict"] for c in group) for group in samples]
    assert 0 < sum(right) < 15  # else the numbers below could not be wrong
    # each is held against its own problem's answer: one of the four is not 7
    assert [[c["verdict"] for c in group] for group in samples] == [
        ["\\boxed{7}" in c["text"] and row["answer"] != "8" for c in group]
        for row, group in zip(rows, samples, strict=True)
    ]
    # C(5 - c, 2) / C(5, 2) = (5 - c) (4 - c) / 20; pass@5: one of the five is right
    values = [
        [c / 5 for c in right],
        [float(row["majority"] is not None and row["samples"][row["majority"]]["verdict"]) for row in rows],
        [c / 5 for c in right],
        [1 - (5 - c) * (4 - c) / 20 for c in right],
        [float(c > 0) for c in right],
    ]
    expected = []
    for column in values:
        mean = sum(column) / 4
        error = (sum((value - mean) ** 2 for value in column) / 3 / 4) ** 0.5
        expected.append(f"{100 * mean:.1f} ± {100 * error:.1f}")
    assert cells(printed, "data", "4") == ["75.0 ± 25.0", *expected]
    truncated = sum(c["truncated"] for group in samples for c in group) / 20
    silent = sum(c["submitted"] is None for group in samples for c in group) / 20
    tokens = sum(c["tokens"] for group in samples for c in group) / 20
    shares = [f"{100 * truncated:.1f}", f"{100 * silent:.1f}", f"{tokens:.1f}"]
    *sampled, speed = cells(printed, "data", "sampled")
    assert sampled == ["20", *shares] and float(speed) > 0


def test_greedy_is_what_generate_says(run, folders):
    rows, _ = run("random", "--max-new-tokens", "12", "--samples", "2")
    model, tokenizer = (kind.from_pretrained(folders["random"]) for kind in (AutoModelForCausalLM, AutoTokenizer))
    texts = []
    for row in rows:
        ids = tokenizer(row["prompt"], return_tensors="pt").input_ids
        said = model.generate(ids, do_sample=False, max_new_tokens=12)[0, ids.shape[1] :]
        texts.append(tokenizer.decode(said, skip_special_tokens=True, clean_up_tokenization_spaces=False))
        assert row["greedy"][0]["tokens"] == len(said)
    assert [group[0]["text"] for group in completions(rows)] == texts
    assert len(set(texts)) == 4  # the model looks at its problem, so that a mix-up would show


def test_a_sample_depends_on_seed_and_place_only(run, problems):
    flags = ("--samples", "3", "--seed", "5")
    rows, _ = run("random", *flags)
    assert run("random", *flags)[0] == rows
    assert run("random", *flags, "--cache-tokens", "1")[0] == rows
    assert run("random", *flags, problems=f"{problems}[:2]")[0] == rows[:2]
    assert run("random", *flags, "--max-prompt-tokens", "10")[0][2:] == rows[2:]  # the second problem is left out
    other, _ = run("random", "--samples", "3", "--seed", "6")
    for group, other_group in zip(completions(rows), completions(other), strict=True):
        assert group[0] == other_group[0]
        assert len({completion["text"] for completion in group + other_group}) == 7  # greedy and six samples


@pytest.mark.parametrize("flags", [("--top-k", "1"), ("--top-p", "0.001"), ("--temperature", "0.001")])
def test_sampling_flags_narrow_down_to_greedy(run, flags):
    rows, printed = run("random", "--samples", "2", *flags)
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
    monkeypatch.setattr(evaluation, "read_model", lambda *_, **__: model)
    run("random", "--samples", "2")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.training and model.generation_config is config and torch.equal(torch.get_rng_state(), numbers)


# ------------------------------------------------------------------------------------------------------------- prompts


def test_long_prompts_are_counted_and_left_out(run):
    rows, printed = run("chain", "--max-prompt-tokens", "8")  # prompts of 7, 11, 9, 8 tokens
    assert [len(group) for group in completions(rows)] == [1, 0, 0, 1]
    assert [row["prompt_tokens"] for row in rows] == [7, 11, 9, 8]
    assert "left out: 2 prompts longer than 8 tokens" in printed
    assert cells(printed, "data", "2") == ["100.0 ± 0.0"]  # 7 and 7.0


def test_the_prompt_settings_are_printed_and_in_the_file(run, tmp_path):
    rows, printed = run("chain", "--system-prompt", "Add them up.")
    assert rows[0]["prompt"] == "<|system|>Add them up.<|user|>3+4=?<|assistant|>"
    assert "system prompt 'Add them up.', the tokenizer's chat template" in printed and rows[0]["prompt"] in printed

    template = tmp_path / "mine.txt"
    template.write_text("Q: {problem}<|assistant|>")
    rows, printed = run("chain", "--template", str(template))
    assert rows[0]["prompt"] == "Q: 3+4=?<|assistant|>"
    assert f"system prompt 'none', --template {template}" in printed
    assert "at most 8 tokens" in printed and "float32" in printed


def test_fields_and_bad_rows(run, tmp_path):
    file = tmp_path / "other.jsonl"
    file.write_text('{"ask": "1+6=?", "say": 7}\nnot JSON\n{"ask": "1+5=?", "say": 6}\n')
    flags = ("--problem-field", "ask", "--answer-field", "say", "--skip-bad-rows")
    rows, printed = run("chain", *flags, problems=str(file))
    assert [(row["problem"], row["greedy"][0]["verdict"]) for row in rows] == [("1+6=?", True), ("1+5=?", False)]
    assert "left out of data: 1 bad rows" in printed


# ---------------------------------------------------------------------------------------------------------- benchmarks


def write_sums(file, count, answer=7):
    """So many different problems, to which the chain's answer is right in every second."""
    rows = [{"problem": f"{i}+7=?", "answer": str(answer if i % 2 else i + 8)} for i in range(count)]
    Path(file).write_text("".join(json.dumps(row) + "\n" for row in rows))


def bench(folders, tmp_path, *flags, model="chain"):
    """Calls the command on benchmarks in tmp_path -> the rows."""
    out = tmp_path / "out.jsonl"
    usual = ["--model", folders[model], "--data-dir", str(tmp_path), "--out", str(out), "--overwrite"]
    evaluation.main([*usual, "--max-prompt-tokens", "32", "--max-new-tokens", "8", *flags])
    return untimed(out)


def test_benchmarks_from_files(folders, tmp_path, capsys):
    write_sums(tmp_path / "aime24.jsonl", 30)
    write_sums(tmp_path / "minerva_math.jsonl", 272)
    rows = bench(folders, tmp_path, "--bench", "aime24,minerva[:3]")
    assert [(row["set"], row["place"]) for row in rows] == [("aime24", i) for i in range(30)] + [
        ("minerva", i) for i in range(3)
    ]
    printed = capsys.readouterr().out
    assert "warning" not in printed
    # i = 1, 3, ... 29: half; variance .25 * 30/29, over 30: .0928. minerva: 1 of 3 (i = 1): variance 1/3, error 1/3
    assert cells(printed, "aime24", "30") == ["50.0 ± 9.3"] and cells(printed, "minerva", "3") == ["33.3 ± 33.3"]
    paper = cells(printed, f"{folders['chain']}, greedy pass@1")
    assert paper == ["–", "50.0 ± 9.3", "–", "–", "33.3 ± 33.3 *", "–"]
    settings = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])["settings"]
    assert settings["seed"] == 0 and settings["max_new_tokens"] == 8 and settings["system_prompt"] == "none"
    assert settings["sets"]["aime24"]["whole"] and not settings["sets"]["minerva"]["whole"]


def test_a_wrong_count_is_a_warning(folders, tmp_path, capsys):
    write_sums(tmp_path / "aime24.jsonl", 29)
    bench(folders, tmp_path, "--bench", "aime24")
    printed = capsys.readouterr().out
    assert "warning: aime24 has 29 problems instead of 30" in printed
    assert cells(printed, f"{folders['chain']}, greedy pass@1")[1].endswith("*")
    bench(folders, tmp_path, "--bench", "aime24[:30]")
    assert "warning: aime24 has 29 problems instead of 30" in capsys.readouterr().out


def test_the_samples_of_a_set_do_not_depend_on_the_other_sets(folders, tmp_path):
    for name in ("aime24", "amc23"):
        write_sums(tmp_path / f"{name}.jsonl", 3)
    flags = ("--samples", "2", "--temperature", "1", "--top-p", "1")
    both = bench(folders, tmp_path, "--bench", "amc23,aime24", *flags, model="random")
    alone = bench(folders, tmp_path, "--bench", "aime24[:2]", *flags, model="random")
    assert both[3:5] == alone
    assert [row["samples"] for row in both[:3]] != [row["samples"] for row in both[3:]]  # other streams, same problems


def test_benchmarks_from_the_hub(folders, tmp_path, monkeypatch, capsys):
    """A hub with only what is asked of it: the files of each data set, and one of them."""
    hub = {
        "HuggingFaceH4/aime_2024": (["README.md", "data/train-00000-of-00001.jsonl"], 30),
        "math-ai/amc23": (["test-00000-of-00001.jsonl"], 40),
        "openai/gsm8k": (["main/train-00000-of-00001.jsonl", "main/test-00000-of-00001.jsonl"], 3),
    }

    def download(repo, file, repo_type):
        assert repo_type == "dataset" and file == hub[repo][0][-1]
        rows = [{"question": f"{i}+1=?", "final_answer": ["7"], "answer": "7"} for i in range(hub[repo][1])]
        (tmp_path / "file.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(tmp_path / "file.jsonl")

    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda repo, repo_type: hub[repo][0])  # noqa: ARG005
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    flags = ["--bench", "aime24,amc23,gsm8k[:2]", "--max-prompt-tokens", "32", "--max-new-tokens", "8"]
    evaluation.main(["--model", folders["chain"], *flags, "--out", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert "aime24: 30 problems of HuggingFaceH4/aime_2024" in printed and "warning" not in printed
    assert cells(printed, "gsm8k", "2") == ["100.0 ± 0.0"]


def test_the_built_in_task(folders, tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    evaluation.main(["--model", folders["chain"], "--bench", "addition", "--out", str(out)])
    rows, problems = untimed(out), addition.problems("test")
    assert [(row["problem"], row["answer"]) for row in rows] == [(row["problem"], row["answer"]) for row in problems]
    printed = capsys.readouterr().out
    assert "addition: 300 problems of the built-in task" in printed and "warning" not in printed
    assert "longer than 32 tokens" in printed and "at most 40 tokens" in printed  # as in training
    assert cells(printed, "addition", "300") == ["0.0 ± 0.0"]
    settings = json.loads(out.read_text().splitlines()[0])["settings"]
    assert settings["sets"]["addition"]["whole"] and settings["max_new_tokens"] == 40
    flags = ["--bench", "addition[:2]", "--max-new-tokens", "3", "--out", str(out), "--overwrite"]
    evaluation.main(["--model", folders["chain"], *flags])
    assert [row["greedy"][0]["tokens"] for row in untimed(out)] == [3, 3]


def test_without_the_hub_one_line_says_so(folders, tmp_path, capsys):
    error = error_of(capsys, "--model", folders["chain"], "--bench", "aime24", "--out", str(tmp_path / "o"))
    assert (
        "HuggingFaceH4/aime_2024: no local file, and the hub can't be reached" in error
        and "a local file works too" in error
    )


@pytest.mark.parametrize(
    ("bench", "words"),
    [
        ("aime", "'aime' is no benchmark; there are aime24, math500, amc23, minerva, olympiadbench, gsm8k, addition"),
        ("aime24,aime24[:2]", "'aime24[:2]' is given twice"),
        ("aime24,", "'' is no benchmark"),
        ("aime24[:0]", "'aime24[:0]' is no benchmark"),
        ("amc23", "has no file amc23.jsonl, from which amc23 is read"),
    ],
)
def test_a_wrong_benchmark_ends_in_one_line(folders, tmp_path, capsys, bench, words):
    flags = ["--model", folders["chain"], "--data-dir", str(tmp_path), "--out", str(tmp_path / "o")]
    assert words in error_of(capsys, *flags, "--bench", bench)


def test_w3_a_gold_must_equal_itself(folders, problems, tmp_path, capsys, monkeypatch):
    same = benchmarks.is_equiv
    monkeypatch.setattr(benchmarks, "is_equiv", lambda a, b: b != "7.0" and same(a, b))
    monkeypatch.setattr(benchmarks, "is_parsed", lambda gold: gold != "8")
    out = str(tmp_path / "o")
    flags = ["--model", folders["chain"], "--data", problems, "--max-prompt-tokens", "32", "--max-new-tokens", "8"]
    error = error_of(capsys, *flags, "--out", out)
    assert "data: 1 answers do not equal themselves; the first is problem 3's, '7.0'; --skip-bad-rows" in error
    evaluation.main([*flags, "--out", out, "--skip-bad-rows"])
    printed = capsys.readouterr().out
    assert "left out of data: 0 bad rows, 1 whose answer does not equal itself" in printed
    assert "data: 1 answers that the grader compares as text only; the first: '8'" in printed
    assert [row["answer"] for row in untimed(out)] == ["7", "7", "8"]


# ---------------------------------------------------------------------------------------- cut off, graded again, paired


def test_an_interrupted_run_is_resumed(run, folders, problems, tmp_path, capsys, monkeypatch):
    flags = ("--samples", "3", "--dtype", "float64", "--cache-tokens", "1")
    whole, printed = run("random", *flags)
    out = tmp_path / "cut.jsonl"
    command = ["--model", folders["random"], "--data", problems, "--max-prompt-tokens", "32", "--max-new-tokens", "8"]
    command += ["--temperature", "1", "--top-p", "1", *flags, "--out", str(out)]
    complete, calls = evaluation.complete, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return complete(*arguments)

    monkeypatch.setattr(evaluation, "complete", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluation.main(command)
    assert f"--resume continues {out}" in capsys.readouterr().out and len(untimed(out)) == 2
    with open(out, "a") as file:
        file.write('{"set": "data", "place": 2, "prob')  # a kill in the middle of a line
    evaluation.main([*command, "--resume"])
    assert untimed(out) == whole and len(calls) == 3 + 2  # a batch a problem: two were there
    resumed = capsys.readouterr().out
    assert cells(resumed, "data", "4") == cells(printed, "data", "4")

    # nothing is left to do: the tables again, without a model in memory
    monkeypatch.setattr(evaluation, "read_model", None)
    evaluation.main([*command, "--resume"])
    assert untimed(out) == whole and cells(capsys.readouterr().out, "data", "4") == cells(printed, "data", "4")
    for changed, words in (
        (["--seed", "1"], "seed is 0 there, and 1 here; give the same flags, or another --out"),
        (["--data", f"{problems}[:2]"], "sets is"),
    ):
        assert words in error_of(capsys, *command, "--resume", *changed)
    monkeypatch.setattr(evaluation, "grader_version", lambda: "another")
    assert "--regrade it first" in error_of(capsys, *command, "--resume")


def with_template(folder, copy, chat_template) -> str:
    """A copy of a model's folder that has another chat template."""
    shutil.copytree(folder, copy)
    tokenizer = AutoTokenizer.from_pretrained(copy)
    tokenizer.chat_template = chat_template
    tokenizer.save_pretrained(copy)
    return str(copy)


def short_command(model, problems, out) -> list[str]:
    limits = ["--max-prompt-tokens", "32", "--max-new-tokens", "8"]
    return ["--model", model, "--data", problems, *limits, "--out", str(out)]


def test_other_weights_and_other_prompts_under_the_same_name_are_refused(folders, problems, tmp_path, capsys):
    rows, out = [json.loads(line) for line in Path(problems).read_text().splitlines()], tmp_path / "out.jsonl"

    def write(system):
        turns = [{"role": "system", "content": system}]
        lines = [{"prompt": [*turns, {"role": "user", "content": r["problem"]}], "answer": r["answer"]} for r in rows]
        Path(problems).write_text("".join(json.dumps(line) + "\n" for line in lines))

    write("Add.")
    template = "{% for m in messages %}{{ m.content }}{% endfor %}<|assistant|>"
    model = with_template(folders["chain"], tmp_path / "model", template)
    words = short_command(model, problems, out)
    evaluation.main(words)
    settings = json.loads(out.read_text().splitlines()[0])["settings"]
    evaluation.main([*words, "--resume"])
    capsys.readouterr()
    write("Subtract.")
    assert "prompts is" in error_of(capsys, *words, "--resume")
    write("Add.")
    Path(model, "model.safetensors").write_bytes((Path(folders["random"]) / "model.safetensors").read_bytes())
    assert "weights is" in error_of(capsys, *words, "--resume")
    lines = out.read_text().splitlines()[1:]
    older = {name: x for name, x in settings.items() if name not in ("weights", "prompts")}  # as results were before
    out.write_text("\n".join([json.dumps({"settings": older}), *lines]) + "\n")
    evaluation.main([*words, "--resume"])


def test_a_template_that_asks_for_the_date_gets_the_first_day_on_resume(folders, problems, tmp_path, monkeypatch):
    class Today(date):
        days = iter([date(2026, 1, 7), date(2026, 1, 8), date(2026, 1, 9)])

        @classmethod
        def today(cls):
            return next(cls.days)

    monkeypatch.setattr(prompts, "date", Today)
    template, out = "{{ strftime_now('%d') }}{{ messages[-1].content }}<|assistant|>", tmp_path / "out.jsonl"
    words = short_command(with_template(folders["chain"], tmp_path / "model", template), problems, out)
    evaluation.main(words)
    rows = untimed(out)
    evaluation.main([*words, "--resume"])
    assert untimed(out) == rows and rows[0]["prompt"].replace(" ", "").startswith("07")


def test_two_evaluations_never_write_one_file(folders, problems, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out.jsonl"
    words = short_command(folders["chain"], problems, out)
    complete, load_sets, tried = evaluation.complete, evaluation.load_sets, []

    def busy(*arguments):
        for more in ("--overwrite", "--resume"):
            with pytest.raises(ValueError, match="another job is writing there"):
                with evaluation.held(evaluation.parse_args([*words, more])):
                    pass
            tried.append(more)
        return complete(*arguments)

    monkeypatch.setattr(evaluation, "complete", busy)
    evaluation.main(words)
    assert tried and len(untimed(out)) == 4
    assert {file.name for file in tmp_path.iterdir()} == {"out.jsonl", "problems.jsonl"}
    capsys.readouterr()
    out.unlink()
    # by the time that this one has read its data, another has written the file
    monkeypatch.setattr(evaluation, "load_sets", lambda args: out.touch() or load_sets(args))
    assert "exists; --resume continues it" in error_of(capsys, *words)


def test_long_prompts_are_there_after_a_resume(run, folders, problems, tmp_path):
    flags = ("--max-prompt-tokens", "8")
    rows, _ = run("chain", *flags)
    out = tmp_path / "0.jsonl"
    evaluation.main(["--model", folders["chain"], "--data", problems, "--temperature", "1", "--top-p", "1",
                     "--max-new-tokens", "8", "--out", str(out), *flags, "--resume"])  # fmt: skip
    assert untimed(out) == rows and [len(row["greedy"]) for row in rows] == [1, 0, 0, 1]


def test_regrade_says_what_changed_and_generates_nothing(run, tmp_path, capsys, monkeypatch):
    rows, _ = run("chain", "--samples", "4")
    old, new = tmp_path / "0.jsonl", tmp_path / "new.jsonl"
    before = old.read_text()
    monkeypatch.setattr(evaluation, "read_model", None)
    evaluation.main(["--regrade", str(old)])
    assert capsys.readouterr().out.startswith("0 of 20 verdicts changed\n")

    strict = evaluation.rewards.accuracy
    monkeypatch.setattr(evaluation.rewards, "accuracy", lambda text, gold: gold == "8" or strict(text, gold))
    monkeypatch.setattr(evaluation, "grader_version", lambda: "kinder")
    evaluation.main(["--regrade", str(old), "--out", str(new), "--pass-k", "1"])
    printed = capsys.readouterr().out
    assert printed.startswith("5 of 20 verdicts changed\n  data 2, greedy: now right: '7' for '8'\n  data 2, sample 0")
    assert cells(printed, "data", "4")[0] == "100.0 ± 0.0"
    again = untimed(new)
    assert [row["greedy"][0]["text"] for row in again] == [row["greedy"][0]["text"] for row in rows]
    assert all(completion["verdict"] for completion in completions(again)[2])
    assert json.loads(new.read_text().splitlines()[0])["settings"]["grader"] == "kinder"
    assert old.read_text() == before
    assert "exists" in error_of(capsys, "--regrade", str(old), "--out", str(new))
    assert "no such file" in error_of(capsys, "--regrade", str(tmp_path / "missing"))
    assert "which is 4" in error_of(capsys, "--regrade", str(old), "--pass-k", "5")


@pytest.mark.parametrize("flags", [["--compare", "a", "b", "--out", "c"], ["--regrade", "a", "--samples", "9"]])
def test_a_flag_that_is_not_read_is_refused(capsys, flags):
    assert f"{flags[-2]}: not with {flags[0]}; leave it out" in error_of(capsys, *flags)


def test_compare_two_models(run, tmp_path, capsys):
    run("random")
    run("chain", "--max-new-tokens", "9")
    evaluation.main(["--compare", str(tmp_path / "0.jsonl"), str(tmp_path / "1.jsonl")])
    printed = capsys.readouterr().out
    # the random model is never right, the chain on three of four
    assert cells(printed, "data", "4", "greedy pass@1")[:3] == ["0.0", "75.0", "+75.0"]
    assert "they differ in max_new_tokens: 8 and 9" in printed and "differ in seed" not in printed
    assert "wrong before, right after: 3\n  data 0: gold '7'" in printed
    assert "no such file" in error_of(capsys, "--compare", str(tmp_path / "0.jsonl"), str(tmp_path / "2.jsonl"))


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_any_number_of_ranks_gives_the_same_result(run, folders, problems, tmp_path, world):
    flags = ["--samples", "3", "--dtype", "float64", "--cache-tokens", "1"]
    rows, printed = run("random", *flags)
    words = ["--model", folders["random"], "--data", problems, "--temperature", "1", "--top-p", "1", *flags]
    words += ["--max-prompt-tokens", "32", "--max-new-tokens", "8", "--out", str(tmp_path / "eval.jsonl")]
    first, *others = on_ranks(world, tmp_path, evaluation.main, words)
    assert untimed(tmp_path / "eval.jsonl") == rows and not list(tmp_path.glob("*.rank*"))
    assert cells(first, "data", "4") == cells(printed, "data", "4")
    assert not any("data" in other for other in others)  # rank 0 speaks alone


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
        (["--samples", "-1"], "--samples -1: must be 0 or more"),
        (["--samples", "many"], "--samples"),
        (["--seed", "-1"], "--seed -1: must be 0"),
        (["--max-new-tokens", "0"], "--max-new-tokens 0: must be 1"),
        (["--cache-tokens", "0"], "--cache-tokens 0: must be 1"),
        (["--samples", "2", "--temperature", "0"], "--temperature 0.0: must be above 0"),
        (["--samples", "2", "--temperature", "nan"], "--temperature nan"),
        (["--samples", "2", "--top-p", "1.5"], "--top-p 1.5"),
        (["--samples", "2", "--top-k", "-1"], "--top-k -1"),
        (["--samples", "4", "--pass-k", "1,5"], "from 1 to --samples, which is 4"),
        (["--pass-k", "1"], "which is 0"),
        (["--samples", "4", "--pass-k", "two"], "--pass-k two"),
        (["--bench", "aime24"], "--bench or --data"),
        (["--data-dir", "."], "--data-dir needs --bench"),
        (["--resume", "--overwrite"], "give one"),
        (["--resume"], "does not exist; start it without --resume"),
        (["--regrade", "file"], "give one of --model"),
        (["--out", "/dev/null"], "--out /dev/null: is a folder or a device"),  # root would replace it by one
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
    assert "--model (with --bench or --data)" in error_of(capsys)
    assert "--bench or --data" in error_of(capsys, "--model", "m")
    assert "fields" not in error_of(capsys, "--model", "m", "--bench", "aime24", "--answer-field", "a")


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
    assert len(untimed(out)) == 4
    capsys.readouterr()
    assert f"--out {out}: exists; --resume continues it, --overwrite replaces it" in error_of(
        capsys, *flags, "--data", f"{problems}[:1]"
    )
    assert len(untimed(out)) == 4
    evaluation.main([*flags, "--data", f"{problems}[:1]", "--overwrite"])
    assert len(untimed(out)) == 1 and [file.name for file in out.parent.iterdir()] == ["here.jsonl"]
    capsys.readouterr()
    assert "is a folder" in error_of(capsys, "--model", "m", "--data", "d", "--out", str(tmp_path), "--overwrite")


def test_a_full_disk_ends_in_one_line(folders, problems, tmp_path, capsys, monkeypatch):
    def full(file, _):
        raise OSError(f"{file} can't be written: No space left on device")

    monkeypatch.setattr(evaluation.checkpoint, "append", full)
    flags = ["--model", folders["chain"], "--max-prompt-tokens", "32", "--max-new-tokens", "4", "--data", problems]
    with pytest.raises(SystemExit) as caught:
        evaluation.main([*flags, "--out", str(tmp_path / "out.jsonl")])
    error = capsys.readouterr().err.strip()
    assert caught.value.code == 2 and error.endswith("No space left on device; --resume continues it")
    assert "\n" not in error


def test_the_command(folders, problems, tmp_path):
    command = [sys.executable, str(ROOT / "eval.py"), "--model", folders["chain"], "--data", problems]
    flags = ["--max-prompt-tokens", "32", "--max-new-tokens", "8", "--samples", "2"]
    options = {"cwd": tmp_path, "capture_output": True, "text": True, "env": os.environ | {"PYTHONWARNINGS": "error"}}
    done = subprocess.run([*command, *flags], check=False, **options)
    assert done.returncode == 0, done.stderr
    assert cells(done.stdout, "data", "4")[0] == "75.0 ± 25.0" and "avg@2" in done.stdout
    assert len(untimed(tmp_path / "eval.jsonl")) == 4  # --out's default
