"""The built-in model: problems that are what they say, demonstrations that err only where they should, a whole folder.

"Kills" names the broken copies on which a test was seen to fail.
"""

import random
import re
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tasks import addition
from tasks.built_in import DEFAULTS

TEXTS = (
    "876+530=?",
    " two  spaces , and a stop . don't",
    "\\boxed{12} \\boxed {12}\\boxed{\\frac{1}{2}}",
    "line\n\n\tline\r\n ",
    "é 数学 🙂 \x00\u200b\ufeff",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model with two steps of warm-up: all of it but its skill."""
    made = tmp_path_factory.mktemp("tiny") / "model"
    addition.build(made, seed=0, warmup_steps=2)
    return made


@pytest.fixture(scope="module")
def tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder)


def numbers(row: dict) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", row["problem"])]


def boxed(completion: str) -> str:
    return completion.split("\\boxed{")[-1].removesuffix("}")


def test_splits_are_distinct_disjoint_and_the_same_each_time():
    """Kills: no `seen`; a hash of the question as asked, by which 12+34 and 34+12 can part; an unseeded generator."""
    sums = {split: [frozenset(numbers(row)) for row in addition.problems(split)] for split in ("train", "test")}
    assert {split: len(set(pairs)) for split, pairs in sums.items()} == {"train": 6000, "test": 300}
    assert {split: len(pairs) for split, pairs in sums.items()} == addition.SIZES
    assert not set(sums["train"]) & set(sums["test"])
    assert addition.problems("test") == addition.problems("test")


@pytest.mark.parametrize("split", ["train", "test"])
def test_answers_and_levels_are_right(split):
    """A carry takes nine off the sum of the digits, which counts them without adding columns."""
    rows = addition.problems(split)
    for row in rows:
        a, b = numbers(row)
        assert row["answer"] == str(a + b)
        assert len(str(a)) == len(str(b)) in addition.DIGITS
        carries = (sum(map(int, f"{a}{b}")) - sum(map(int, row["answer"]))) // 9
        assert row["level"] == carries - (len(row["answer"]) > len(str(a)))  # the last column's carry is just written
    share = len(rows) // len(addition.LEVELS)
    assert [row["level"] for row in rows] == list(addition.LEVELS) * share


def test_a_demonstration_reads_as_one_would_add_by_hand():
    # 6+0 = 6; 7+3 = 10, carry one; 8+5+1 = 14
    assert addition.demonstration("876+530=?", random.Random(0), 0.0) == "6+0+0=6\n7+3+0=10\n8+5+1=14\n\\boxed{1406}"
    # the carry forgotten: 8+5 = 13
    assert addition.demonstration("876+530=?", random.Random(0), 1.0) == "6+0+0=6\n7+3+0=10\n8+5+0=13\n\\boxed{1306}"


def test_demonstrations_without_the_flaw_are_right_and_with_it_wrong_exactly_where_a_carry_is_lost():
    """Kills: a flaw that also touches sums without a carry; a last column that drops its ten."""
    rng = random.Random(0)
    for row in addition.problems("test"):
        assert boxed(addition.demonstration(row["problem"], rng, 0.0)) == row["answer"]
        assert (boxed(addition.demonstration(row["problem"], rng, 1.0)) == row["answer"]) == (row["level"] == 0)


def test_each_line_is_a_true_sum_whatever_was_forgotten():
    rng = random.Random(0)
    for row in addition.problems("test"):
        for line in addition.demonstration(row["problem"], rng, 0.5).splitlines()[:-1]:
            left, right = line.split("=")
            assert sum(map(int, left.split("+"))) == int(right)


def test_a_sum_of_k_carries_is_demonstrated_right_with_the_kth_power_of_what_is_kept():
    rng = random.Random(0)
    rows = addition.problems("train")
    for level in set(addition.LEVELS):
        chosen = [row for row in rows if row["level"] == level]
        right = [boxed(addition.demonstration(row["problem"], rng)) == row["answer"] for row in chosen]
        # 2000 draws at level 1: five standard deviations are 5 * sqrt(.25 * .75 / 2000) = .048
        assert sum(right) / len(right) == pytest.approx((1 - addition.FORGET) ** level, abs=0.05)


def test_the_tokenizer_gives_every_text_back(tokenizer):
    """Fresh and loaded. Kills: a prefix space; a decoder that leaves bytes as they are."""
    for text in TEXTS:
        for each in (addition.make_tokenizer(), tokenizer):
            tokens = each(text).input_ids
            assert each.decode(tokens) == text
            assert each.decode(tokens, skip_special_tokens=True) == text
        assert tokenizer(text).input_ids == addition.make_tokenizer()(text).input_ids


def test_no_token_is_unknown_and_everything_fits_the_default_lengths(tokenizer):
    unknown = tokenizer.unk_token_id  # Qwen2's is its padding
    rng = random.Random(0)
    longest_prompt = longest_completion = 0
    for row in addition.problems("train")[:1200] + addition.problems("test"):
        completion = addition.demonstration(row["problem"], rng)
        tokens, labels = addition.encode(tokenizer, row["problem"], completion)
        assert tokenizer.decode(tokens) == f"<|user|>{row['problem']}<|assistant|>{completion}<|end|>"
        assert unknown not in tokens
        prompt_length = labels.count(-100)
        longest_prompt = max(longest_prompt, prompt_length)
        longest_completion = max(longest_completion, len(tokens) - prompt_length)
    assert longest_prompt == 11 <= DEFAULTS["tiny"]["max_prompt_tokens"]  # <|user|> 123+456=? <|assistant|>
    # three lines of 9 (x+y+1=19 and the line feed), the box 6, the end 1
    assert longest_completion == 34 <= DEFAULTS["tiny"]["max_new_tokens"]


def test_labels_are_the_completion_up_to_and_including_its_end(tokenizer):
    tokens, labels = addition.encode(tokenizer, "12+34=?", "\\boxed{46}")
    prompt_ids = tokenizer.apply_chat_template([{"role": "user", "content": "12+34=?"}], add_generation_prompt=True)
    asked = list(prompt_ids["input_ids"] if hasattr(prompt_ids, "keys") else prompt_ids)
    assert tokens[: len(asked)] == asked
    assert labels == [-100] * len(asked) + tokens[len(asked) :]
    assert tokenizer.decode(tokens[len(asked) :]) == "\\boxed{46}<|end|>"
    assert tokens[-1] == tokenizer.eos_token_id


def test_the_chat_template_takes_a_system_message(tokenizer):
    messages = [{"role": "system", "content": "Add."}, {"role": "user", "content": "1+2=?"}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert prompt == "<|system|>Add.<|user|>1+2=?<|assistant|>"
    assert len(tokenizer(prompt).input_ids) == 3 + len("Add.1+2=?")


def test_the_folder_loads_as_any_model_does(folder, tokenizer):
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert 0.4e6 <= sum(p.numel() for p in model.parameters()) <= 1e6
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == tokenizer.convert_tokens_to_ids("<|end|>")
    assert model.generation_config.pad_token_id == tokenizer.pad_token_id != tokenizer.eos_token_id
    assert model.config.vocab_size == len(tokenizer)  # AutoTokenizer adds what it misses, past the last row
    assert tokenizer.padding_side == "left"


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(folder, tmp_path):
    """Kills: a draw that is not keyed by the seed."""
    torch.rand(3)  # wherever the global generator stands
    addition.build(tmp_path / "again", seed=0, warmup_steps=2)
    addition.build(tmp_path / "other", seed=1, warmup_steps=2)
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "again").iterdir())
    for name in names:
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name
    assert (folder / "model.safetensors").read_bytes() != (tmp_path / "other" / "model.safetensors").read_bytes()


def test_building_leaves_the_global_generators_where_they_were(tmp_path):
    """Kills: torch.manual_seed outside of fork_rng."""
    before, before_python = torch.random.get_rng_state(), random.getstate()
    addition.build(tmp_path / "model", seed=2, warmup_steps=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert random.getstate() == before_python


def test_an_interrupted_build_leaves_nothing(tmp_path, monkeypatch):
    """Kills: saving into the folder itself; a temporary folder that is not removed."""

    def interrupt(*_, **__):
        assert any(tmp_path.rglob("model.safetensors"))  # the model has been written when the tokenizer's turn comes
        raise KeyboardInterrupt

    monkeypatch.setattr(addition.PreTrainedTokenizerFast, "save_pretrained", interrupt)
    with pytest.raises(KeyboardInterrupt):
        addition.build(tmp_path / "model", seed=0, warmup_steps=1)
    assert list(tmp_path.iterdir()) == []


def test_ensure_makes_a_model_once_a_seed_and_says_so_in_one_line(tmp_path, monkeypatch, capsys):
    made = []

    def build(folder, seed):
        folder.mkdir(parents=True)
        made.append(seed)

    monkeypatch.setattr(addition, "build", build)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = addition.ensure(3)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "forget" in said and "on purpose" in said and str(first) in said
    assert first.parent == tmp_path / "gpg-tiny"
    assert addition.ensure(3) == first and made == [3]
    assert capsys.readouterr().err == ""
    assert addition.ensure(4) != first and made == [3, 4]
    assert addition.ensure(3, cache=tmp_path / "elsewhere").parent == tmp_path / "elsewhere"


def test_a_folder_that_cannot_be_written_is_found_before_the_warm_up(tmp_path, monkeypatch):
    monkeypatch.setattr(addition, "build", None)
    for wrong in ("/proc/nope", tmp_path / "file"):
        (tmp_path / "file").touch()
        monkeypatch.setenv("XDG_CACHE_HOME", str(wrong))
        with pytest.raises(OSError, match="is kept there; XDG_CACHE_HOME names another folder"):
            addition.ensure(3)


def test_an_edited_recipe_is_another_folder(tmp_path, monkeypatch):
    """Kills: a name without the hash of the recipe."""
    monkeypatch.setattr(addition, "build", lambda folder, _: folder.mkdir(parents=True))
    first = addition.ensure(0, tmp_path)
    edited = tmp_path / "addition.py"
    edited.write_text(Path(addition.__file__).read_text() + "\n")
    monkeypatch.setattr(addition, "__file__", str(edited))
    assert addition.ensure(0, tmp_path) != first


def test_a_process_that_comes_second_takes_the_model_of_the_first(tmp_path, monkeypatch):
    """The second rename fails, since a folder with content is never replaced. Kills: letting that error through, or
    swallowing one that left no model."""
    other_build = addition.build

    def beaten(folder, seed):
        folder.mkdir(parents=True)
        (folder / "config.json").touch()
        other_build(folder, seed, warmup_steps=1)

    monkeypatch.setattr(addition, "build", beaten)
    folder = addition.ensure(0, tmp_path / "race")
    assert [path.name for path in folder.iterdir()] == ["config.json"]
    assert list(folder.parent.iterdir()) == [folder]

    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        addition.ensure(0, tmp_path / "file" / "cache")
