"""The memory plan: within 15 % of what processes took, and a run that would not fit ends before anything slow."""

import json
import math
import multiprocessing
import platform
import resource

import forked
import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

import train
from run import flags, memory, ranks
from tasks import addition, shapes


def measured_main(words, results):
    """One run in a process of its own -> what was planned for it, and the most that it ever held, in bytes."""
    args = flags.parse_args(words)
    plan_of = []
    peak = memory.peak
    memory.peak = lambda *a: plan_of.append(peak(*a)) or plan_of[-1]
    train.main(words)
    results.put((args.model, plan_of[0], memory.resident("VmHWM")))


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"gradient_checkpointing": True}], ids=str)
def test_the_plan_is_within_15_percent_of_the_measured_peak(world, tmp_path, changes):
    """A Llama of 14 million parameters that never ends early, so that rows have the length that is planned for."""
    tokenizer = AutoTokenizer.from_pretrained(world.folder / "model")
    shape = {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 8, "num_attention_heads": 6}
    shape |= {"num_key_value_heads": 3, "vocab_size": 262, "max_position_embeddings": 512}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(LlamaConfig(**shape, eos_token_id=259)).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    rows = [{"problem": row["problem"] + " " * 34, "answer": row["answer"]} for row in addition.problems("train")[:12]]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = {"model": tmp_path / "model", "data": tmp_path / "train.jsonl", "eval_data": None, "steps": 2}
    options |= {"group_size": 8, "prompts_per_step": 4, "max_prompt_tokens": 48, "max_new_tokens": 48}
    options |= {"dtype": "float32", "tokens_per_micro_batch": 2048}
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=measured_main, args=(world(tmp_path / "out", **options | changes), results))
    process.start()
    _, (moment, planned), measured = results.get(timeout=120)
    process.join()
    assert moment == "update"
    assert planned == pytest.approx(measured, rel=0.15)


def faults_main(keep, file):
    """The pages that a buffer of 64 MB takes from the system, after others of its size were given back."""
    if keep:
        ranks.keep_memory()
    for _ in range(6):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(2**24)
    file.write_text(str(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another libc")
def test_memory_for_logits_is_kept(tmp_path):
    for keep in (False, True):
        forked.on_ranks(1, tmp_path, faults_main, keep, tmp_path / str(keep))
    without, kept = (int((tmp_path / name).read_text()) for name in ("False", "True"))
    assert kept < 100 < without


def test_plan_prints_and_stops_before_anything_is_made(world, tmp_path, capsys):
    train.main(world(tmp_path / "out", plan=True))
    printed = capsys.readouterr().out
    assert "0.4 million parameters" in printed and "rollout" in printed and "peak" in printed
    assert not (tmp_path / "out").exists()


def test_what_does_not_fit_ends_in_one_line_with_the_flags_that_would(world, tmp_path, monkeypatch, capsys):
    options = {"prompts_per_step": 64, "max_new_tokens": 400, "tokens_per_micro_batch": 16384}
    monkeypatch.setattr(memory, "room", lambda _: (150 << 20, 0))
    with pytest.raises(SystemExit) as stopped:
        train.main(world(tmp_path / "out", **options))
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and error.count("\n") == 1
    assert "memory: the update takes up to 1.0 GiB per rank, and there are 0.1; " in error and "would fit" in error
    words = error.split("; ")[1].split(" would fit")[0].split()
    args = flags.parse_args([*world(tmp_path / "out", **options), *words])
    shape = memory.shape_of(addition.make_config(addition.make_tokenizer()))
    assert memory.peak(shape, memory.load_of(args, 1))[1] <= 150 << 20
    monkeypatch.setattr(memory, "room", lambda _: (1 << 20, 0))
    with pytest.raises(SystemExit):
        train.main(world(tmp_path / "out", **options))
    assert "no flag would make it fit" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "room", "named"),
    [
        ({"max_new_tokens": 100_000}, 300, "--max-new-tokens"),
        ({"max_prompt_tokens": 100_000}, 300, "--max-prompt-tokens"),
        ({"prompts_per_step": 200_000}, 300, "--prompts-per-step"),
        ({"max_new_tokens": 100_000, "max_prompt_tokens": 100_000}, 200, "--max-new-tokens"),
    ],
    ids=str,
)
def test_less_of_what_is_sampled_is_named_where_only_that_fits(world, tmp_path, monkeypatch, changes, room, named):
    monkeypatch.setattr(memory.dist, "get_world_size", lambda: 1)
    shape = memory.shape_of(addition.make_config(addition.make_tokenizer()))
    words = world(tmp_path, **changes)

    def peak(*more):
        return memory.peak(shape, memory.load_of(flags.parse_args([*words, *more]), 1))[1]

    way = memory.remedy(flags.parse_args(words), shape, memory.load_of(flags.parse_args(words), 1), room << 20).split()
    assert named in way and peak(*way) <= room << 20 < peak()
    # a ninth more, to the next integer, is the value before: too much, whatever else is done
    sampled = {f"--{name.replace('_', '-')}" for name in memory.SAMPLED}
    assert sampled & set(way) == {f"--{name.replace('_', '-')}" for name in changes}
    lengths = [i for i, word in enumerate(way) if way[i - 1] in (named, "--max-prompt-tokens")]
    more = [str(math.ceil((int(word) + 1) / 0.9)) if i in lengths else word for i, word in enumerate(way)]
    assert peak(*more) > room << 20


def test_data_and_lengths_are_checked_before_memory(world, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(memory, "room", lambda _: (1 << 20, 0))
    (tmp_path / "no-answer.jsonl").write_text('{"problem": "1+1=?"}\n')
    for changes, message in (
        ({"data": tmp_path / "typo.jsonl"}, "typo.jsonl'"),
        ({"data": tmp_path / "no-answer.jsonl"}, "no answer (looked for"),
        ({"max_new_tokens": 100_000}, "is above the 1024 positions"),
        ({"algo": "sft"}, "--solution-field solution: not a text in 12 of 12 rows"),
        ({}, "memory: "),
    ):
        with pytest.raises(SystemExit):
            train.main(world(tmp_path / "out", **changes))
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


def test_parts_by_hand():
    """A model of 1,000 parameters, one layer: hidden 10, feed-forward 30, one head of 10, vocabulary 50."""
    shape = memory.Shape(1000, 1, 10, 30, 10, 10, 50)
    load = memory.Load(tokens=64, completion_share=0.5, prefix_share=0.25, width=8, rows=2, samples=2, trained=4)
    assert memory.lasting(shape, load) == {"weights": 4000, "gradients": 4000, "optimizer": 8000}
    # keys and values of 2 rows of 8 tokens, 10 numbers of 4 bytes
    assert memory.sampling(shape, load)["cache"] == 2 * 16 * 10 * 4
    # a token: 6 * 10 of the norms, 4 * 10 of attention, 4 * 30 of the feed-forward, 4 bytes each
    assert memory.layer_bytes(shape, load) == 880
    # 32 rows of 50 logits; the gradient of the output layer
    assert memory.training(shape, load)["logits"] == 32 * 50 * 4 + 50 * 10 * 4
    # a layer's 880 bytes of 64 tokens, and keys and values of 16 tokens of prompts; 3 of 40 numbers on the way back
    assert memory.training(shape, load)["activations"] == 64 * 880 + 16 * 2 * 10 * 4 + 3 * 64 * 40 * 4
    assert memory.lasting(shape, memory.replace(load, shards=4)) == {
        "weights": 1000,
        "gradients": 1000,
        "optimizer": 2000,
    }


def test_parts_of_a_gpu_by_hand():
    """The cache stays, of at least 8 rows of 256 tokens; bfloat16 weights for sampling too; AdamW is fused."""
    shape = memory.Shape(1000, 1, 10, 30, 10, 10, 50)
    load = memory.Load(tokens=64, completion_share=0.5, prefix_share=0.25, width=8, rows=2, samples=2, trained=4)
    load = memory.replace(load, gpu=True, dtype="bfloat16")
    parts = {"weights": 4000, "gradients": 4000, "optimizer": 8000, "copy for sampling": 2000}
    assert memory.lasting(shape, load) == parts | {"cache": 2 * 8 * 256 * 10 * 2}
    moments = memory.moments(shape, load)
    assert "temporaries" not in moments["optimizer step"]
    assert all(moment["cache"] == 2 * 8 * 256 * 10 * 2 for moment in moments.values())
    assert "copy for sampling" not in memory.lasting(shape, memory.replace(load, shards=2))


def test_the_tower_of_pictures_by_hand():
    """2 layers of hidden 5, feed-forward 8, 4 patches a token: half of 64 tokens may show something, so 128 patches."""
    shape = memory.Shape(1000, 1, 10, 30, 10, 10, 50, tower=(2, 5, 8, 4))
    load = memory.Load(tokens=64, completion_share=0.5, prefix_share=0.25, width=8, rows=2, samples=2, trained=4)
    layer = 128 * (6 * 5 * 4 + (4 * 5 + 2 * 8) * 4)
    assert memory.training(shape, load)["pictures"] == 2 * layer
    checkpointed = memory.training(shape, memory.replace(load, checkpointing=True))["pictures"]
    assert checkpointed == 2 * 128 * 5 * 4 + 3 * layer
    config = shapes.make_config(shapes.make_tokenizer())
    assert memory.shape_of(config).tower == (1, 32, 64, 1)
    config.vision_config.spatial_merge_size = 2  # each way
    assert memory.shape_of(config).tower == (1, 32, 64, 4)
    assert memory.shape_of(addition.make_config(addition.make_tokenizer())).tower == (0, 0, 0, 0)


def test_on_a_gpu_as_many_rows_are_decoded_at_once_as_fit(world, tmp_path, monkeypatch):
    """Half of them, and half again, until the plan fits; never less than a group."""
    monkeypatch.setattr(memory, "is_gpu", lambda _: True)
    monkeypatch.setattr(memory, "slice_logits", lambda _: 2**25)
    options = {"prompts_per_step": 64, "max_new_tokens": 1000, "tokens_per_micro_batch": 1032, "cache_tokens": 0}
    monkeypatch.setattr(memory.dist, "all_reduce", lambda *_: None)
    monkeypatch.setattr(memory.dist, "get_world_size", lambda: 1)
    rows = []
    for gib in (100, 0.2, 0.01):
        args = flags.parse_args(world(tmp_path, **options))
        monkeypatch.setattr(memory, "room", lambda _, gib=gib: (int(gib * memory.GIB), 0))
        _, _, load, _ = memory.planned(args, None, torch.device("cpu"))
        rows.append(load.rows)
        assert args.cache_tokens == load.rows * load.width
    G = args.group_size
    assert rows[0] == 64 * G and G < rows[1] < 64 * G and rows[2] == G


def test_what_other_methods_keep_is_counted(world, tmp_path):
    """A reference is a copy of the weights, a critic of gradients and AdamW's two moments too; SGD keeps none."""
    shape = memory.shape_of(addition.make_config(addition.make_tokenizer()))

    def numbers(**changes):
        load = memory.load_of(flags.parse_args(world(tmp_path, dtype="float32", **changes)), ranks=1)
        return sum(memory.lasting(shape, load).values()) / shape.parameters / 4

    assert numbers() == 4 and numbers(optimizer="sgd") == 2
    assert numbers(kl_coef=0.1) == 5 and numbers(algo="ppo") == 8 and numbers(algo="ppo", kl_coef=0.1) == 9
    assert numbers(algo="ppo", optimizer="sgd") == 4


def test_cache_tokens_0_plans_for_all_rows_at_once(world, tmp_path):
    """A budget of infinity once made it one group: inf // x is NaN, and max(1, NaN) is 1."""
    args = flags.parse_args(world(tmp_path, cache_tokens=0))
    assert [memory.load_of(args, ranks).rows for ranks in (1, 2, 5)] == [5 * 4, 3 * 4, 1 * 4]


@pytest.mark.parametrize(("folder", "names"), [("", ("max", "current")), ("memory", memory.CGROUPS[1][1:3])])
def test_a_containers_cached_files_are_room(tmp_path, monkeypatch, folder, names):
    monkeypatch.setattr(memory, "CGROUP_ROOT", tmp_path)
    monkeypatch.setattr(memory, "of_proc", lambda *_: [])
    (tmp_path / folder).mkdir(exist_ok=True)
    for name, text in zip(names, ("8000", "7900"), strict=True):
        (tmp_path / folder / f"memory.{name}").write_text(f"{text}\n")
    assert memory.room(torch.device("cpu"))[0] == 100
    name = "total_inactive_file" if folder else "inactive_file"
    (tmp_path / folder / "memory.stat").write_text(f"anon 800\n{name} 7000\nactive_file 9\n")
    assert memory.room(torch.device("cpu"))[0] == 7100
