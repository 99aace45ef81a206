"""train.py on pictures: a step is the plain one, on any number of ranks, resumed, recorded, with adapters; mistakes are
one line. float64 but where bits are compared."""

import gc
import json
import shutil
from threading import Event, current_thread, main_thread
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist
from forked import on_ranks
from PIL import Image
from safetensors.torch import load_file
from test_picture_models import config_of
from test_pictures import KINDS, as_bytes, make_folder, noise
from torch.testing import assert_close
from transformers import (
    AutoImageProcessor,
    AutoModelForImageTextToText,
    AutoTokenizer,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    Qwen2VLForConditionalGeneration,
)

import train
from engine import policy
from engine.float64 import keep_float64
from gpg import token_weights
from run import flags, models, record
from run.problems import features_and_pictures, read_ahead
from tasks import data, shapes
from tasks.pictures import Processor, load_processor
from tools import replay

REWARDS = """
def length(completions, **_):
    return [float(len(c) % 2) for c in completions]
"""


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """A folder with a random model that reads pictures, and problems: with one picture, with two, with none."""
    folder = tmp_path_factory.mktemp("pictures")
    tokenizer = shapes.make_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        Qwen2VLForConditionalGeneration(shapes.make_config(tokenizer)).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    shapes.make_processor(tokenizer).save_pretrained(folder / "model")
    rows = shapes.problems("test")[:8]
    for i, row in enumerate(rows):
        (folder / f"{i}.png").write_bytes(row["images"][0])
    lines = [{"problem": row["problem"], "answer": row["answer"], "image": f"{i}.png"} for i, row in enumerate(rows)]
    lines[1] = {"problem": "count red<image> or<image>", "answer": "1", "images": ["1.png", "2.png"]}
    lines[4] = {"problem": "1+1=?", "answer": "2"}
    (folder / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "rewards.py").write_text(REWARDS)

    def command(out, **changes):
        flags = {"model": folder / "model", "data": folder / "rows.jsonl", "eval_data": folder / "rows.jsonl"}
        flags |= {"rewards": f"{folder / 'rewards.py'}:length", "steps": 2, "prompts_per_step": 5, "group_size": 3}
        flags |= {
            "max_prompt_tokens": 80,
            "max_new_tokens": 6,
            "lr": 1e-3,
            "beta_th": 0,
            "dtype": "float64",
            "out": out,
        }
        words = []
        for name, value in (flags | changes).items():
            switch = f"--{name.replace('_', '-')}"
            words += [] if value is None else [switch] if value is True else [switch, str(value)]
        return words

    return SimpleNamespace(command=command, folder=folder)


def weights_of(out):
    return load_file(out / "final" / "model.safetensors")


def rows_of(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def assert_same_weights(a, b, **tolerance):
    a, b = weights_of(a), weights_of(b)
    assert a.keys() == b.keys()
    for name, x in a.items():
        assert_close(b[name], x, **(tolerance or {"rtol": 1e-10, "atol": 1e-13}))


def test_an_sgd_step_is_the_gradient_of_eq_8_worked_out_apart(pictures, tmp_path, monkeypatch):
    batches, collect = [], train.collect
    monkeypatch.setattr(train, "collect", lambda *a: batches.append(collect(*a)) or batches[-1])
    changes = {"optimizer": "sgd", "weight_decay": 0, "grad_clip": 0, "steps": 1, "eval_data": None, "lr": 0.5}
    train.main(pictures.command(tmp_path / "run", **changes))
    (batch,) = batches
    r = batch.rollout
    assert [len(shown.encoded) for shown in r.images].count(1) >= 2 and r.logprobs.dtype == torch.float64

    folder = pictures.folder / "model"
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float64)
    keep_float64(model)
    features = load_processor(folder).features
    weights, loss = token_weights(batch.rewards, r.completion_mask), 0.0
    assert weights.any()
    for p, shown in enumerate(r.images):
        prompt = r.prompt_ids[p][r.prompt_mask[p].bool()]
        for g in range(r.completion_ids.shape[1]):
            completion = r.completion_ids[p, g][r.completion_mask[p, g].bool()]
            ids = torch.cat([prompt, completion])[None]
            seen = {name: x.double() if x.is_floating_point() else x for name, x in features(shown.encoded).items()}
            inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **seen}
            inputs["mm_token_type_ids"] = (ids == model.config.image_token_id).int()
            at = model._prepare_position_ids_for_generation(ids, dict(inputs))
            logits = model(**inputs, position_ids=at).logits[0, len(prompt) - 1 : -1]
            logprobs = logits.log_softmax(-1).gather(1, completion[:, None]).squeeze(1)
            loss = loss - (weights[p, g, : len(completion)] * logprobs).sum()
    loss.backward()
    final = AutoModelForImageTextToText.from_pretrained(tmp_path / "run" / "final", dtype=torch.float64)
    after, moved = dict(final.named_parameters()), 0.0
    for name, parameter in model.named_parameters():
        assert_close(after[name], parameter.detach() - 0.5 * parameter.grad, rtol=1e-9, atol=1e-12)
        moved = max(moved, float(parameter.grad.abs().max()) if "visual" in name else 0.0)
    assert moved > 1e-6  # the tower learns


def test_micro_batches_and_checkpointing_change_nothing(pictures, tmp_path):
    train.main(pictures.command(tmp_path / "a"))
    train.main(
        pictures.command(tmp_path / "b", tokens_per_micro_batch=40, cache_tokens=100, gradient_checkpointing=True)
    )
    assert_same_weights(tmp_path / "a", tmp_path / "b")


@pytest.mark.slow
def test_two_and_three_ranks_make_the_run_of_one(pictures, tmp_path):
    """Of 2 prompts on 3 ranks one rank has none; some rank has no picture in some micro-batch."""
    for prompts, ranks in ((5, (2, 3)), (2, (3,))):
        one = tmp_path / f"{prompts}-on-1"
        train.main(pictures.command(one, prompts_per_step=prompts))
        for n in ranks:
            many = tmp_path / f"{prompts}-on-{n}"
            on_ranks(n, tmp_path, train.main, pictures.command(many, prompts_per_step=prompts))
            assert_same_weights(one, many)
            assert (one / "groups.jsonl").read_bytes() == (many / "groups.jsonl").read_bytes()
            assert rows_of(many)[-1]["accuracy"] == pytest.approx(rows_of(one)[-1]["accuracy"], rel=1e-12)


def family(folder, kind):
    """A tiny random model of a family, in float32, with its processor; rows of one, three and no pictures -> flags."""
    make_folder(folder / "model", kind)
    tokenizer, config = AutoTokenizer.from_pretrained(folder / "model"), config_of(kind)
    config.text_config.vocab_size, config.text_config.eos_token_id = len(tokenizer), tokenizer.eos_token_id
    for name, token in zip(("image", "boi", "eoi"), KINDS[kind][2], strict=False):
        setattr(config, f"{name}_token_index", tokenizer.convert_tokens_to_ids(token))
    config.image_token_id = config.image_token_index
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoModelForImageTextToText.from_config(config).save_pretrained(folder / "model")
    for i in range(6):
        (folder / f"{i}.png").write_bytes(as_bytes(noise(16, 16, seed=i)))
    rows = [{"problem": f"what {i}?", "answer": "1", "image": f"{i}.png"} for i in range(6)]
    rows[1] = {"problem": "<image>a<image>b<image>?", "answer": "1", "images": ["1.png", "2.png", "3.png"]}
    rows[3] = {"problem": "1+1=?", "answer": "2"}
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    # without AdamW, which would blow up the gradient of a key's bias: it is 0 but for rounding
    flags = {"model": folder / "model", "data": folder / "rows.jsonl", "optimizer": "sgd", "lr": 0.5, "grad_clip": 0}
    return flags | {"max_prompt_tokens": 300, "weight_decay": 0, "eval_data": None}


def rank_main(commands):
    """Makes all runs on this rank."""
    dist.init_process_group("gloo")
    for words in commands:
        args = flags.parse_args(words)
        (replay.run if args.replay else train.train)(args, torch.device("cpu"))
        gc.collect()  # what spreads a model holds itself in circles
    dist.destroy_process_group()


@pytest.mark.slow
def test_on_two_ranks_other_families_and_a_step_without_a_picture_in_shards_are_the_run_of_one(pictures, tmp_path):
    """Of six problems that one has a picture which step 1 draws. In step 2 the tower has a gradient of 0 on one rank,
    so AdamW's moments move it on; shards, in which it never ran, must not leave it alone."""
    rows = [{"problem": f"{i}+1=?", "answer": "2"} for i in range(5)]
    rows.append({"problem": "count red", "answer": "1", "image": str(pictures.folder / "0.png")})
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    seed = next(seed for seed in range(50) if 5 in data.order(6, seed, 0, 2))
    once = {"data": tmp_path / "rows.jsonl", "seed": seed, "prompts_per_step": 2, "save_every": 1, "eval_data": None}
    runs = {
        "once": once,
        "llava": family(tmp_path / "llava-of", "llava"),
        "gemma3": family(tmp_path / "gemma-of", "gemma3"),
    }
    commands = []
    for name, changes in runs.items():
        train.main(pictures.command(tmp_path / name, **changes))
        kind = "fsdp" if name == "once" else "ddp"
        commands.append(pictures.command(tmp_path / f"{name}-on-2", **changes, parallel=kind))
    on_ranks(2, tmp_path, rank_main, commands)
    for name, changes in runs.items():
        assert_same_weights(tmp_path / name, tmp_path / f"{name}-on-2")
        folder = tmp_path / name / "checkpoint-1" if name == "once" else changes["model"]
        before, after = load_file(folder / "model.safetensors"), weights_of(tmp_path / name)
        tower = [key for key, x in before.items() if "vis" in key and x.dim() == 1]  # which no decay moves
        assert any(not torch.equal(before[key].double(), after[key]) for key in tower)


@pytest.mark.slow
def test_shards_make_the_run_of_whole_copies_also_where_a_rank_has_no_picture(pictures, tmp_path):
    """Every prompt is a micro-batch of its own, and some have no picture: each rank must run the tower all the same."""
    common, commands = {"tokens_per_micro_batch": 1, "prompts_per_step": 5}, []
    runs = {"plain": {}, "again": {"gradient_checkpointing": True}, "frozen": {"freeze_vision": True}}
    runs |= {"lora": {"lora_rank": 2}}
    for name, changes in runs.items():
        train.main(pictures.command(tmp_path / name, **common, **changes))
        commands.append(pictures.command(tmp_path / f"{name}-on-2", **common, **changes, parallel="fsdp"))
    on_ranks(2, tmp_path, rank_main, commands)
    for name in runs:
        one, two = tmp_path / name, tmp_path / f"{name}-on-2"
        assert_same_weights(one, two)
        assert (one / "groups.jsonl").read_bytes() == (two / "groups.jsonl").read_bytes()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_pictures_seen(pictures, tmp_path):
    """200 steps, each with another picture of 196 KB, 39 MB in all: only the last ones stay."""
    noise = np.random.default_rng(0)
    for i in range(200):
        picture = noise.integers(0, 256, (256, 256, 3), dtype=np.uint8)
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
    assert (tmp_path / "0.png").stat().st_size > 190_000
    rows = [{"problem": "count red", "answer": "2", "image": f"{i}.png"} for i in range(200)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "watched.py").write_text(
        "def length(completions, **_):\n"
        "    kib = [x.split()[1] for x in open('/proc/self/status') if x.startswith('VmRSS')][0]\n"
        f"    open({str(tmp_path / 'kib')!r}, 'a').write(kib + '\\n')\n"
        "    return [float(len(c) % 2) for c in completions]\n"
    )
    changes = {"data": tmp_path / "rows.jsonl", "eval_data": None, "steps": 200, "prompts_per_step": 1, "group_size": 2}
    changes |= {
        "rewards": f"{tmp_path / 'watched.py'}:length",
        "max_pixels": 1024,
        "save_every": 0,
        "max_new_tokens": 2,
    }
    on_ranks(1, tmp_path, train.main, pictures.command(tmp_path / "run", **changes))
    kib = [int(line) for line in (tmp_path / "kib").read_text().split()]
    assert len(kib) == 200 and kib[-1] - kib[80] < 6_000


def test_features_are_made_once_for_sampling_and_update(pictures, tmp_path, monkeypatch):
    """In two steps of 4 of the 8 prompts, one of which has no picture; in micro-batches of one prompt."""
    made, features = [], Processor.features
    monkeypatch.setattr(Processor, "features", lambda self, shown: made.append(shown) or features(self, shown))
    changes = {"eval_data": None, "prompts_per_step": 4, "tokens_per_micro_batch": 1}
    train.main(pictures.command(tmp_path / "run", **changes))
    assert sum(row["trained_tokens"] > 0 for row in rows_of(tmp_path / "run")) == 2
    assert len(made) == len(set(made)) == 8 and made.count(()) == 1


def test_the_next_steps_pictures_are_made_while_this_one_updates(pictures, tmp_path, monkeypatch):
    made, waited, features, gradient_of = [], Event(), Processor.features, train.gradient_of

    def spied(self, shown):
        ahead = current_thread() is not main_thread()
        assert not ahead or waited.wait(60)  # only once the update has begun
        made.append((ahead, shown))
        return features(self, shown)

    monkeypatch.setattr(Processor, "features", spied)
    monkeypatch.setattr(train, "gradient_of", lambda *a, **k: waited.set() or gradient_of(*a, **k))
    # 7 of 8 problems have pictures; 4 + 4 are one epoch
    train.main(pictures.command(tmp_path / "run", prompts_per_step=4, eval_data=None))
    first, second = ([shown for ahead, shown in made if ahead == late and shown] for late in (False, True))
    assert 3 <= len(first) <= 4 and len(first) + len(second) == len({*first, *second}) == 7
    assert all(row["seconds_pictures"] >= 0 for row in rows_of(tmp_path / "run"))
    monkeypatch.setattr(train, "read_ahead", lambda *_: None)
    train.main(pictures.command(tmp_path / "plain", prompts_per_step=4, eval_data=None))
    assert_same_weights(tmp_path / "run", tmp_path / "plain", rtol=0, atol=0)


def test_a_picture_that_cannot_be_read_ahead_is_named_where_it_is_needed(pictures):
    processor = load_processor(pictures.folder / "model")
    rows = [{"images": [str(pictures.folder / "gone.png")]}]
    read_ahead(processor, rows)
    with pytest.raises(ValueError, match="gone.png.*no such file"):
        features_and_pictures(processor, rows)


def test_one_kind_of_the_built_in_job_can_be_trained_alone():
    assert {row["kind"] for row in models.BUILT_INS["tiny-find"].problems("test")} == {"find"}


def test_a_resumed_run_has_the_same_bits(pictures, tmp_path):
    changes = {"dtype": "float32", "save_every": 2}
    train.main(pictures.command(tmp_path / "whole", **changes, steps=4))
    train.main(pictures.command(tmp_path / "cut", **changes, steps=2))
    train.main(["--out", str(tmp_path / "cut"), "--resume", "--steps", "4"])
    assert_same_weights(tmp_path / "whole", tmp_path / "cut", rtol=0, atol=0)


def test_a_replayed_update_has_the_same_bits(pictures, tmp_path, capsys, monkeypatch):
    """Also of completions that begin with the token that stands for a picture (trap 1)."""
    collect, image = train.collect, load_processor(pictures.folder / "model").image_id

    def planted(*arguments):
        batch = collect(*arguments)
        batch.rollout.completion_ids[:, :, 0] = image
        return batch

    monkeypatch.setattr(train, "collect", planted)
    train.main(pictures.command(tmp_path / "run", dtype="float32", record=1, save_every=1, keep=0))
    for step in (1, 2):
        file = tmp_path / "run" / "rollouts" / f"step-{step:06}.safetensors"
        capsys.readouterr()
        train.main(["--replay", str(file)])
        row = json.loads(capsys.readouterr().out.splitlines()[-1])
        expected = rows_of(tmp_path / "run")[step - 1]
        assert row["grad_norm"] == expected["grad_norm"] > 0 and row["loss"] == expected["loss"]
        tensors = record.read(str(file))[2]
        shown = [x for name, x in tensors.items() if "/pictures/" in name]  # once for all samples of a group
        drawn = [{1: 2, 4: 0}.get(row, 1) for row in data.order(8, 0, 5 * (step - 1), 5)]
        assert (tensors["0/completion_ids"][:, :, 0] == image).all() and len(shown) == sum(drawn)
        files = {(pictures.folder / f"{i}.png").read_bytes() for i in range(8)}
        assert {x.numpy().tobytes() for x in shown} <= files


def test_checkpoints_load_with_their_image_processor(pictures, tmp_path):
    train.main(pictures.command(tmp_path / "run", steps=1, max_pixels=512))
    final = tmp_path / "run" / "final"
    processor = AutoImageProcessor.from_pretrained(final, backend="pil")
    assert processor.patch_size == shapes.CELL and processor.size["longest_edge"] == 512
    assert AutoTokenizer.from_pretrained(final).chat_template == shapes.CHAT_TEMPLATE
    AutoModelForImageTextToText.from_pretrained(final)


def test_adapters_and_a_frozen_tower(pictures, tmp_path):
    start = load_file(pictures.folder / "model" / "model.safetensors")
    train.main(pictures.command(tmp_path / "lora", lora_rank=2, dtype="float32"))
    train.main(pictures.command(tmp_path / "frozen", freeze_vision=True, dtype="float32"))
    train.main(pictures.command(tmp_path / "both", lora_rank=2, freeze_vision=True, dtype="float32"))
    for out, tower_moves in ((tmp_path / "lora", True), (tmp_path / "frozen", False), (tmp_path / "both", False)):
        moved = {name for name, x in weights_of(out).items() if not torch.equal(x, start[name])}
        assert any("visual" in name for name in moved) == tower_moves and any("visual" not in name for name in moved)


@pytest.mark.slow
def test_a_step_with_pictures_is_replayed_on_more_ranks_than_recorded_it(pictures, tmp_path):
    train.main(pictures.command(tmp_path / "run", record=1, steps=1, eval_data=None))
    row = rows_of(tmp_path / "run")[0]
    commands = [["--replay", str(tmp_path / "run" / "rollouts" / "step-000001.safetensors")]]
    printed, _ = on_ranks(2, tmp_path, rank_main, commands)
    (line,) = [x for x in printed.splitlines() if x.startswith("{")]
    assert json.loads(line)["grad_norm"] == pytest.approx(row["grad_norm"], rel=1e-9)


def test_noise_in_shards_in_a_step_without_a_picture(pictures, tmp_path):
    rows = [json.loads(line) for line in (pictures.folder / "rows.jsonl").read_text().splitlines()]
    text = [{"problem": f"{i}+1=?", "answer": "2"} for i in range(6)]
    (pictures.folder / "mixed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*text, *rows[:1]]))
    changes = {"data": pictures.folder / "mixed.jsonl", "prompts_per_step": 1, "steps": 5, "eval_data": None}
    train.main(pictures.command(tmp_path / "ddp", **changes, noise_every=1))
    train.main(pictures.command(tmp_path / "fsdp", **changes, noise_every=1, parallel="fsdp"))
    assert_same_weights(tmp_path / "ddp", tmp_path / "fsdp")


@pytest.mark.parametrize("algo", ["sft", "grpo", "remax"])
def test_other_methods_train_on_pictures(pictures, tmp_path, algo):
    changes = {"algo": algo, "beta_th": None, "solution_field": "answer", "kl_coef": 0.1 if algo == "grpo" else 0}
    train.main(pictures.command(tmp_path / "run", **changes, steps=1, updates=2 if algo == "grpo" else 1))
    assert rows_of(tmp_path / "run")[0]["grad_norm"] > 0


def line_of(capsys, words):
    with pytest.raises(SystemExit) as ended:
        train.main(words)
    lines = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code == 2 and len(lines) == 1, lines
    return lines[0]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"image": "none.png"}, "none.png': no such file"),
        ({"image": "rows.jsonl"}, "not a picture"),
        ({"image": "wide.png"}, "more than 200 times the other"),
        ({"image": "bomb.png"}, "not a picture"),
        ({"image": "0.png", "problem": "a<image>b<image>"}, "<image>"),
        ({"image": "0.png", "problem": "<|image_pad|>?"}, "stands for a picture"),
        ({"image": 7}, "a picture is 7"),
    ],
)
def test_a_wrong_picture_is_one_line_that_names_the_row(pictures, tmp_path, capsys, row, message):
    from PIL import Image

    Image.new("RGB", (2010, 10)).save(pictures.folder / "wide.png")
    header = bytearray((pictures.folder / "0.png").read_bytes())
    header[16:24] = (60_000).to_bytes(4, "big") * 2  # a PNG that claims 3.6 billion pixels
    (pictures.folder / "bomb.png").write_bytes(header)
    data = pictures.folder / "wrong.jsonl"
    data.write_text(json.dumps({"problem": "count red", "answer": "1"} | row) + "\n")
    line = line_of(capsys, pictures.command(tmp_path / "run", data=data, eval_data=None))
    assert message in line and ("line 1" in line or "problem 1" in line)


def test_a_text_model_with_pictures_and_the_reverse(pictures, world, tmp_path, capsys):
    words = pictures.command(tmp_path / "a", model=world.folder / "model")
    assert "reads text only" in line_of(capsys, words)
    assert "has no vision tower" in line_of(capsys, world(tmp_path / "b", freeze_vision=True))
    words = pictures.command(tmp_path / "c", algo="ppo", beta_th=None)
    assert "--baseline critic" in line_of(capsys, words)
    train.main(pictures.command(tmp_path / "d", data=world.folder / "train.jsonl", eval_data=None))  # a VLM on text


def test_a_model_that_cannot_share_prompts_refuses_pictures_before_it_samples(
    pictures, world, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(policy, "prompts_can_be_shared", lambda _: False)
    monkeypatch.setattr(train, "collect", None)
    line = line_of(capsys, pictures.command(tmp_path / "a"))
    assert "Qwen2VLForConditionalGeneration: completions can't continue from a prompt's cache, which pictures" in line
    monkeypatch.undo()
    monkeypatch.setattr(policy, "prompts_can_be_shared", lambda _: False)
    changes = {"data": world.folder / "train.jsonl", "eval_data": None, "steps": 1}
    train.main(pictures.command(tmp_path / "b", **changes))  # its text alone is fine
    assert rows_of(tmp_path / "b")[0]["grad_norm"] > 0


def test_text_alone_leaves_the_tower_as_it_is(pictures, world, tmp_path, capsys):
    words = pictures.command(tmp_path / "run", data=world.folder / "train.jsonl", eval_data=None, weight_decay=0.5)
    train.main(words)
    assert "Qwen2VLForConditionalGeneration: no text reaches" in capsys.readouterr().out
    before, after = load_file(pictures.folder / "model" / "model.safetensors"), weights_of(tmp_path / "run")
    moved = {name for name, x in before.items() if not torch.equal(x.double(), after[name].double())}
    assert moved and moved == {name for name in before if "visual" not in name}


def test_a_critic_too_leaves_the_tower_where_there_is_text_alone(pictures, world, tmp_path):
    shutil.copytree(pictures.folder / "model", tmp_path / "model")
    for file in (tmp_path / "model").glob("*processor*"):  # with which it would read pictures, and have no critic
        file.unlink()
    changes = {"model": tmp_path / "model", "data": world.folder / "train.jsonl", "eval_data": None, "steps": 2}
    train.main(pictures.command(tmp_path / "run", **changes, algo="ppo", parallel="ddp"))
    assert all(row["skipped"] == 0 < row["grad_norm"] for row in rows_of(tmp_path / "run"))


def test_trap_4_dropout_of_the_text_and_of_the_tower_is_off(tmp_path):
    tower = CLIPVisionConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
    tower.image_size, tower.patch_size, tower.attention_dropout = 16, 8, 0.5
    text = LlamaConfig(vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    text.attention_dropout = 0.5
    LlavaForConditionalGeneration(LlavaConfig(text_config=text, vision_config=tower)).save_pretrained(tmp_path)
    args = {"freeze_vision": False, "gradient_checkpointing": False, "trust_remote_code": False}
    args = SimpleNamespace(model=tmp_path, dtype="float32", **args)
    model = models.load_model(args, tmp_path, torch.device("cpu"))
    assert model.training
    found = [getattr(m, name) for m in model.modules() for name in ("dropout", "attention_dropout") if hasattr(m, name)]
    assert len(found) == 3 and set(found) == {0.0}  # an attention layer of the text, two of the tower


def test_trap_3_a_question_asked_of_another_picture_is_not_the_same_problem(pictures, tmp_path, capsys):
    rows = [{"problem": "count red", "answer": "1", "image": f"{i}.png"} for i in range(4)]
    for name, part in (("train", rows[:2]), ("other", rows[2:]), ("same", rows[1:])):
        (pictures.folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    flags = {"data": pictures.folder / "train.jsonl", "steps": 1, "prompts_per_step": 2}
    train.main(pictures.command(tmp_path / "a", **flags, eval_data=pictures.folder / "other.jsonl"))
    assert "are in --data too" not in capsys.readouterr().out
    train.main(pictures.command(tmp_path / "b", **flags, eval_data=pictures.folder / "same.jsonl"))
    assert "warning: 1 problems of --eval-data are in --data too" in capsys.readouterr().out


def test_trap_7_a_held_out_box_scores_its_iou_and_a_value_right_or_wrong(pictures, tmp_path, monkeypatch):
    """IoU of (0,0),(1,2) and (0,0),(1,1): 1 / 2. The mean of 1/2, 1 and 1 is 5/6, of their squares 3/4."""
    rows = [
        {"answer": "(0,0),(1,1)", "kind": "find"},
        {"answer": "[0, 0, 1, 2]", "kind": "find"},
        {"answer": "70°", "kind": "angle"},
    ]
    rows = [row | {"problem": "find red", "image": f"{i}.png"} for i, row in enumerate(rows)]
    (pictures.folder / "boxes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = ["(0,0),(1,2)", "(0,0),(1,2)", r"\boxed{70^\circ}"]
    monkeypatch.setattr(train, "completion_texts", lambda _, r: (said * 5)[: r.truncated.numel()])
    train.main(pictures.command(tmp_path / "run", eval_data=pictures.folder / "boxes.jsonl", steps=1))
    row = rows_of(tmp_path / "run")[-1]
    assert row["accuracy"] == pytest.approx(5 / 6, rel=1e-12)
    assert row["accuracy_se"] == pytest.approx(((3 / 4 - 25 / 36) / 3) ** 0.5, rel=1e-12)
    assert (row["accuracy/find"], row["accuracy/angle"]) == (0.75, 1.0)
    assert (row["accuracy_before/find"], row["accuracy_before/angle"]) == (0.75, 1.0)
    controls = json.loads((tmp_path / "run" / "controls.json").read_text())
    # the third picture has a size of its own, so that no other can take its place
    assert set(controls) == {"with another picture (2 of 3)", "with a grey picture"}
    assert controls["with a grey picture"] == {
        name: x for name, x in row.items() if name.startswith("accuracy") and "before" not in name
    }


def test_gold_boxes_are_brought_into_the_models_units_for_rewards_and_evaluation(pictures, tmp_path, monkeypatch):
    """A picture of 32 x 24 or 24 x 32 pixels: the gold is all of it but for its right half."""
    from PIL import Image

    rows = []
    for i, (width, height) in enumerate([(32, 24), (24, 32)]):
        Image.new("RGB", (width, height)).save(pictures.folder / f"box{i}.png")
        rows.append({"problem": "find red", "image": f"box{i}.png", "answer": [0, 0, width / 2, height]})
    (pictures.folder / "scaled.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(
        train, "completion_texts", lambda _, r: ["(0,0),(250,1000)"] * r.truncated.numel()
    )  # half of it
    data, found = pictures.folder / "scaled.jsonl", []
    for scale in ("pixels", "unit", None):
        flags = {"data": data, "eval_data": data, "rewards": "iou", "box_scale": scale, "steps": 1}
        train.main(pictures.command(tmp_path / str(scale), **flags, prompts_per_step=2))
        row = rows_of(tmp_path / str(scale))[-1]
        found.append((row["reward"], row["accuracy"]))
    # half of 500 x 1000; as shares, 16 x 24 and 12 x 32 are 384 million; as they are, 384 of 250 x 1000
    for (reward, accuracy), expected in zip(found, (0.5, 0.25 / 384, 384 / 250_000), strict=True):
        assert reward == pytest.approx(expected, rel=1e-12) and accuracy == pytest.approx(expected, rel=1e-12)


def test_a_scale_of_boxes_that_nothing_uses_is_one_line(pictures, tmp_path, capsys):
    (pictures.folder / "counts.jsonl").write_text('{"problem": "count red", "answer": "1", "image": "0.png"}\n')
    words = pictures.command(tmp_path / "a", data=pictures.folder / "counts.jsonl", eval_data=None, box_scale="unit")
    assert "--box-scale unit: no row has a picture and a box" in line_of(capsys, words)
    words = pictures.command(tmp_path / "b", model="tiny-pictures", data=None, eval_data=None, box_scale="unit")
    assert "the built-in model reads only its own" in line_of(capsys, words)
