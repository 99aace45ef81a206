"""tools/doctor.py: a sound run passes every check, and each check fails on a case made for it.

Tried by hand, each turns this file red: a BOS counted anywhere in the prompt, the last token of a turn's end taken for
the first, a batch cut short called all hard, rank 0's findings alone, a threshold of rounding twice as high,
generation_config.json passed over.
"""

import json
import re
import shutil
from dataclasses import fields, replace
from types import SimpleNamespace

import pytest
import torch
from test_rollout import TOKENIZER, make_model
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, GPT2Config, GPT2LMHeadModel

import rollout as R
import train
from engine import policy as P
from engine.batch import Sums
from run import flags, memory, models
from tasks import addition, shapes
from tools import doctor
from tools.doctor import Check

NAMES = ["sampling", "eos", "bos", "prompt", "updates", "gradient", "pad", "log π", "truncated", "groups"]


@pytest.fixture(scope="module")
def model(world):
    return AutoModelForCausalLM.from_pretrained(world.folder / "model")


@pytest.fixture
def tokenizer(world):
    return AutoTokenizer.from_pretrained(world.folder / "model")


def examined(capsys, words):
    """The exit code, and for each check of the table whether it is ok, and all that is said of it."""
    found, name, code = {}, None, 0
    try:
        train.main([*words, "--doctor"])
    except SystemExit as stopped:
        code = stopped.code
    lines = capsys.readouterr().out.splitlines()
    for line in lines[next(i for i, line in enumerate(lines) if " sampling " in line) : -1]:
        if line[0] != " ":
            name = line[7:18].strip()
            found[name] = [line.startswith("ok"), ""]
        found[name][1] += " " + line.strip()
    return code, found


def test_a_sound_run_passes_and_leaves_nothing(world, tmp_path, capsys):
    """The random model ends soon, as 60 of its 262 tokens are ends."""
    folder = tmp_path / "model"
    shutil.copytree(world.folder / "model", folder)
    options = {"eos_token_id": [*range(59), 259], "top_k": 20, "do_sample": True, "repetition_penalty": 1.05}
    GenerationConfig(**options).save_pretrained(folder)
    code, found = examined(capsys, world(tmp_path / "out", model=folder, max_new_tokens=16))
    assert code == 0 and list(found) == [*NAMES, "length", "rewards", "memory"]
    assert all(ok for ok, _ in found.values()), found
    said = {name: text for name, (_, text) in found.items()}
    assert "temperature 1, top-p 1, top-k off, up to 16 new tokens" in said["sampling"]
    assert said["sampling"].endswith("generation_config.json: repetition_penalty 1.05, top_k 20")
    assert "the chat template ends a turn with 259 '<|end|>'" in said["eos"]
    assert "'<|user|>" in said["prompt"] and "=?<|assistant|>'" in said["prompt"]
    assert "float64, in which 0.0%" in said["updates"] and "1.0 for" in said["length"] and "alpha" in said["groups"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_run_in_the_folder_is_not_touched(world, tmp_path, capsys):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    code, found = examined(capsys, world(tmp_path))  # 8 tokens of a random model: hardly one ends
    assert code == 1 and [name for name, (ok, _) in found.items() if not ok] == ["truncated"]
    assert "mend: raise --max-new-tokens 8" in found["truncated"][1]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_batch_that_teaches_nothing(world, tmp_path, capsys):
    code, found = examined(capsys, world(tmp_path, rewards=f"{world.folder / 'rewards.py'}:easy"))
    assert code == 1 and "0 of 5 valid, 5 easy, 0 hard" in found["groups"][1] and "harder" in found["groups"][1]
    code, found = examined(capsys, world(tmp_path, rewards="format"))
    assert code == 1 and "0 of 5 valid, 0 easy, 5 hard" in found["groups"][1] and "--template" in found["groups"][1]
    code, found = examined(capsys, world(tmp_path, rewards=f"{world.folder / 'rewards.py'}:raises"))
    assert not found["rewards"][0] and "20 errors in 20 samples" in found["rewards"][1]


def test_a_turn_must_end_where_a_completion_does(model, tokenizer):
    assert not doctor.check_eos(model, tokenizer, None).mend
    tokenizer.chat_template = addition.CHAT_TEMPLATE.replace("{{ eos_token }}", "\n<|system|>{{ eos_token }}")
    wrong = doctor.check_eos(model, tokenizer, None)
    assert wrong.mend and "ends a turn with 256 '<|system|>'" in wrong.value and "eos_token_id" in wrong.mend
    assert not doctor.check_eos(model, tokenizer, "prompt.txt").mend  # the chat template is not used
    tokenizer.chat_template = addition.CHAT_TEMPLATE.replace("{{ eos_token }}", "")
    assert "no chat template that ends a turn" in doctor.check_eos(model, tokenizer, None).value
    tokenizer.chat_template = "{{ raise_exception('no') }}"
    assert not doctor.check_eos(model, tokenizer, None).mend


def test_an_eos_that_other_engines_would_not_know_is_said(world, tokenizer):
    model = AutoModelForCausalLM.from_pretrained(world.folder / "model")
    model.generation_config.eos_token_id = [257]
    check = doctor.check_eos(model, tokenizer, None)
    assert not check.mend and "257 '<|user|>' or 259 '<|end|>'" in check.value and "does not list" in check.note


def test_a_model_without_an_eos_is_a_mistake_in_one_line(world, tmp_path, capsys):
    folder = tmp_path / "model"
    shutil.copytree(world.folder / "model", folder)
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        settings = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(settings | {"eos_token_id": None, "eos_token": None}))
    with pytest.raises(SystemExit) as stopped:
        train.main(world(tmp_path / "out", model=folder, doctor=True))
    assert stopped.value.code == 2 and "names an EOS token" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("prompts", "ok", "most"),
    [
        ([[5, 6]], True, 0),
        ([[258, 5], [258, 258]], False, 2),
        ([[258, 5, 258, 258]], True, 1),  # marks of roles
    ],
)
def test_bos(tokenizer, prompts, ok, most):
    tokenizer.bos_token = "<|assistant|>"
    check = doctor.check_bos(tokenizer, [{"prompt_ids": ids} for ids in prompts], None)
    assert (not check.mend) == ok and f"begin with {most} BOS, 258" in check.value


def test_a_bos_of_the_template_and_one_of_the_tokenizer(world, tmp_path, capsys):
    folder = tmp_path / "model"
    shutil.copytree(world.folder / "model", folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.bos_token, tokenizer.chat_template = (
        "<|system|>",
        "{{ bos_token }}{{ bos_token }}" + addition.CHAT_TEMPLATE,
    )
    tokenizer.save_pretrained(folder)
    code, found = examined(capsys, world(tmp_path / "out", model=folder))
    assert code == 1 and not found["bos"][0] and "remove 1 from the model's chat template" in found["bos"][1]


def test_prompts(tokenizer):
    def check(problem, text):
        return doctor.check_prompt(tokenizer, [{"problem": problem, "prompt_ids": tokenizer.encode(text)}])

    assert not check("What is\n 1+1?", "<|user|>what is 1+1?").mend
    lost = check("What is 1+1?", "<|user|><|assistant|>")
    assert lost.mend and "do not contain" in lost.mend and "'<|user|><|assistant|>'" in lost.value


def test_steps_that_round_to_nothing_by_hand():
    """Weights 0, 1/2, 1 and 3 at lr 2^-9 - a little. Half a unit of the last place in bfloat16, which has 8 bits: 2^-9
    from 1/2 up, 2^-8 from 1 up, 2^-7 from 2 up. So 1/2, 1 and 3 stay, and 0 does not."""
    values = torch.tensor([0.0, 0.5, 1.0, 3.0])
    lr = 2.0**-9 * 0.99
    assert ((values.bfloat16() + lr) == values.bfloat16()).tolist() == [False, True, True, True]
    model = torch.nn.Linear(4, 1, bias=False)
    model.weight.data[0] = values
    model.dtype, model.device = torch.float32, torch.device("cpu")
    check = doctor.check_rounding(model, lr)
    assert not check.mend and "float32, in which 0.0%" in check.value and "it would be 75.0%)" in check.value
    # float32 has 24 bits: half a unit is 2^-25 from 1/2 up, 2^-24 from 1 up, 2^-23 from 2 up
    check = doctor.check_rounding(model, 2.0**-24 * 0.99)
    assert check.mend and "in which 50.0%" in check.value and "raise --lr" in check.mend
    model.weight.requires_grad_(False)
    model.bias = torch.nn.Parameter(torch.zeros(1))
    assert "0.0%" in doctor.check_rounding(model, 1e-30).value  # what is frozen takes no step


def test_the_eos_is_in_the_loss(model, tokenizer):
    ids = torch.tensor([[[5, 259, 260], [5, 6, 7]]])  # (1, 2, 3): the second has no end
    mask = torch.tensor([[[1, 1, 0], [1, 1, 1]]])
    none = torch.zeros(1, 1, dtype=torch.long)
    r = R.Rollout(none, none, ids, mask, mask * -1.0, torch.tensor([[False, True]]))
    check = doctor.check_pad(model, tokenizer, r)
    assert not check.mend and "padded with 260 '<|endoftext|>'; the EOS of 1 of 1 finished" in check.value
    without = replace(r, completion_mask=torch.tensor([[[1, 0, 0], [1, 1, 1]]]))
    assert doctor.check_pad(model, tokenizer, without).mend
    tokenizer.pad_token = None
    assert "padded with 259 '<|end|>', no pad token" in doctor.check_pad(model, tokenizer, r).value
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})  # a new id, which the model has no embedding for
    assert "padded with 259 '<|end|>'" in doctor.check_pad(model, tokenizer, r).value


def test_m7_tokens_that_the_tokenizer_lacks_are_counted(model, tokenizer):
    n = len(tokenizer)
    ids, mask = torch.tensor([[[5, n - 1, 0], [n, n + 3, n]]]), torch.tensor([[[1, 1, 0], [1, 1, 0]]])
    none = torch.zeros(1, 1, dtype=torch.long)
    r = R.Rollout(none, none, ids, mask, mask * -1.0, torch.tensor([[True, True]]))
    assert "2 of 4 sampled tokens are above the tokenizer's" in doctor.check_pad(model, tokenizer, r).value
    r = replace(r, completion_ids=ids.clamp(max=n - 1))
    assert "sampled tokens" not in doctor.check_pad(model, tokenizer, r).value


def test_the_gap_is_the_one_that_is_there():
    model = make_model("llama", dtype=torch.float64)
    sampled = R.rollout(model, TOKENIZER, [[3, 4], [5, 6, 7]], 2, 6)
    policy = P.Policy(model, 1.0)
    assert doctor.logprob_gap(policy, sampled, budget=12) < 1e-6
    sampled.logprobs[1, 1, 0] += 0.25
    assert doctor.logprob_gap(policy, sampled, budget=12) == pytest.approx(0.25, abs=1e-6)
    ok = {dtype: doctor.check_gap(0.25, dtype).mend == "" for dtype in doctor.ROUNDING}
    assert ok == {"float64": False, "float32": False, "bfloat16": True}
    assert "--dtype float32" in doctor.check_gap(1.0, "bfloat16").mend


def test_dropout_is_found(world, tmp_path, monkeypatch, capsys):
    load = models.load_model

    def with_dropout(*arguments):
        model = load(*arguments)
        model.model.layers[0].self_attn.train().attention_dropout = 0.5
        return model

    monkeypatch.setattr(models, "load_model", with_dropout)
    code, found = examined(capsys, world(tmp_path / "out", dtype="float32"))
    assert code == 1 and not found["log π"][0]


TOTALS = Sums(**dict.fromkeys((field.name for field in fields(Sums)), 0))
TOTALS = replace(TOTALS, samples=8, tokens=80, groups=2, hard=2, truncated=8)


def test_a_batch_that_was_cut_short_says_little():
    args = SimpleNamespace(beta_th=0.6, max_rounds=3, baseline="group")
    assert doctor.check_truncated(TOTALS, 100, 0).mend and doctor.check_groups(TOTALS, args, 0).mend
    assert not doctor.check_truncated(TOTALS, 100, 10).mend and not doctor.check_groups(TOTALS, args, 10).mend
    assert doctor.check_groups(replace(TOTALS, truncated=4), args, 10).mend
    args.baseline = "greedy"  # against which a sample can stand out although its group is of one mind
    assert not doctor.check_groups(TOTALS, args, 0).mend


def test_rounds_are_foretold():
    args = SimpleNamespace(beta_th=0.6, max_rounds=3, baseline="group")
    check = doctor.check_groups(replace(TOTALS, groups=20, valid=3, easy=17), args, 0)
    # 3 of 20 a round: 0.6 * 20 = 12 valid groups take 4 rounds; alpha is 20 / 3
    assert "alpha 6.67, about 4 rounds" in check.value and not check.mend and "--max-rounds 3" in check.note


def test_a_reward_that_can_score_nothing():
    result = {"by_name": {"one": [None, None], "two": [0.0, None]}}
    one, two, errors = doctor.check_rewards(TOTALS, ["a", "b" * 200], ["1", "2"], result)
    assert one.mend and not two.mend and not errors.mend
    assert "0.0 for 'a', answer '1'; mean 0.000" in two.value
    assert [check.name for check in doctor.check_rewards(TOTALS, [], [], {"by_name": {"one": []}})] == ["rewards"]


def test_memory(world, tmp_path, monkeypatch):
    monkeypatch.setattr(memory.dist, "get_world_size", lambda: 1)
    args, shape = flags.parse_args(world(tmp_path)), memory.Shape(1000, 1, 10, 30, 10, 10, 50)
    load = memory.load_of(args, 1)
    size = memory.peak(shape, load)[1]
    assert not doctor.check_memory(args, shape, load, size).mend
    check = doctor.check_memory(args, shape, load, size - 1)
    assert check.mend and check.mend == memory.remedy(args, shape, load, size - 1) != ""
    assert "smaller --model" in doctor.check_memory(args, shape, load, 10).mend


def test_a_batch_of_seconds(monkeypatch):
    monkeypatch.setattr(doctor.dist, "get_world_size", lambda: 2)
    args = SimpleNamespace(group_size=8, max_new_tokens=2048, prompts_per_step=144, max_rounds=20, beta_th=0.6)
    small = doctor.small_batch(args, 10**9, torch.device("cpu"))
    # 4e11 / 1e9 = 400 tokens a rank, too few for 4 * 8 completions of 16 each: 3 groups a rank
    assert vars(small) == {
        "group_size": 8, "max_new_tokens": 16, "prompts_per_step": 6, "max_rounds": 1, "beta_th": 0.0
    }  # fmt: skip
    small = doctor.small_batch(args, 10**8, torch.device("meta"))
    # 2e13 / 1e8 = 200,000 tokens a rank: 24 groups of 8 * 1024
    assert (small.max_new_tokens, small.prompts_per_step) == (1024, 48)


def test_a_problem_of_any_rank_is_seen(monkeypatch):
    mine = [Check("eos", "fine"), Check("log π", "fine")]
    other = [Check("eos", "fine there"), Check("log π", "0.3", "mend"), Check("length", "1.0")]

    def gather(ranks, checks):
        ranks[:] = [checks, other]

    monkeypatch.setattr(doctor.dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(doctor.dist, "all_gather_object", gather)
    found = doctor.findings(mine)
    expected = [mine[0], Check("log π", "rank 1: 0.3", "mend"), Check("length", "rank 1: 1.0")]
    assert found == expected
    printed = doctor.table(found).splitlines()
    assert printed[1:3] == ["WRONG  log π   rank 1: 0.3", " " * 15 + "mend: mend"]
    assert printed[-1] == "1 of 3 checks found something wrong"


def test_a_model_whose_positions_are_learned_is_examined_too(world, tmp_path, capsys):
    folder = tmp_path / "gpt2"
    shutil.copytree(world.folder / "model", folder)
    config = GPT2Config(vocab_size=262, n_embd=32, n_layer=1, n_head=2, n_positions=64, eos_token_id=[*range(60), 259])
    GPT2LMHeadModel(config).save_pretrained(folder)
    code, found = examined(capsys, world(tmp_path / "out", model=folder, dtype="bfloat16", max_new_tokens=16))
    assert found["log π"][0] and "rounding in bfloat16" in found["log π"][1] and code == 0, found


def test_a_problem_with_pictures_is_in_its_prompt_and_its_box_is_said_in_both_units():
    row = {"problem": "find <image>blue", "images": [b""]}
    assert doctor.holds("<|user|> find <|image|> blue", row) and not doctor.holds("blue <|image|> find", row)
    assert not doctor.holds("find <|image|> blue", {"problem": "find <image> blue"})  # without a picture it is text
    processor = shapes.make_processor(shapes.make_tokenizer())
    rows = shapes.problems("test")[:4]
    for row in rows:
        row["prompt_ids"] = processor.prompt(row["problem"], row["images"])
    (check,) = doctor.check_picture(processor, rows)
    gold = re.search(r"the gold \((\d),(\d)\),\((\d),(\d)\) is (\d+), (\d+), (\d+), (\d+) in the file", check.value)
    cells, pixels = [int(n) for n in gold.groups()[:4]], [int(n) for n in gold.groups()[4:]]
    assert pixels == [8 * n for n in cells]  # a cell is 8 pixels
    width, height, tokens = map(int, re.search(r"(\d+) x (\d+) pixels, .* are (\d+) tokens", check.value).groups())
    assert tokens == width * height // 64
    assert doctor.check_picture(None, [{"problem": "1 + 1"}]) == []
