"""train.py on a GPU, as far as a machine without one can tell: see pretend_device.py.

It runs as on a GPU: FixedShapes decodes, norms and AdamW are fused, --cache-tokens comes from the memory, a process
group has a backend for each device. Not tried: CUDA graphs and what only kernels show. Under --parallel fsdp weights,
gradients and the optimizer are shards on the device, and streams do nothing: what is gathered in time is not tried.

Tried by hand, each turns this file red: a look at `ended` for every token, masks of --replay left on the CPU, one more
sum in global_totals, its numbers on the CPU, samples that are gathered as they are, one group decoded at a time, the
critic's head on the CPU.
"""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from forked import free_port
from pretend_device import NAME, missing, pretend_device, run_train, workers
from test_train import rows_of, untimed
from test_train_pictures import pictures  # noqa: F401, a fixture
from transformers import AutoModelForCausalLM

import train
from engine.fixed_shapes import LOOK, FixedShapes
from engine.parallel import gathered
from engine.policy import Policy
from rollout import rollout
from run import ranks

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))


@pytest.fixture(scope="module")
def worker():
    with workers() as executor:
        yield executor


@pytest.fixture
def on_gpu(worker, world):
    """Runs train.py on the device: what was counted, and what was printed."""

    def run(out, **changes):
        words = world(out, **{"dtype": "float32", "steps": 2, "eval_data": None} | changes)
        counts, printed = worker.submit(run_train, words).result()
        check(counts)
        return counts, printed

    return run


def check(counts):
    """What must hold for every run."""
    on_cpu = {place.split(":")[0] for _, device, place in counts.calls if device == "cpu"}
    assert on_cpu <= {"run/faults.py"}  # stop_together's number, for gloo: see below
    assert {place.split(":")[0] for place in counts.pickled} <= {"run/checkpoint.py"}  # read again with map_location


def in_file(counter, file):
    return sum(n for place, n in counter.items() if place.split(":")[0] == file)


# ---------------------------------------------------------------------------------------------------- the device itself


def try_mistakes():
    """What is refused and what is counted, of operations that CUDA refuses, allows, or waits for."""

    def refused(work):
        try:
            work()
        except RuntimeError as error:
            return NAME in str(error)

    with pretend_device() as counts:
        here, there = torch.arange(6.0), torch.arange(6.0, device=NAME)
        mistakes = [
            lambda: there + here,
            lambda: torch.cat([there, here]),
            lambda: torch.stack([there.sum(), here.sum()]),
            lambda: here.sum().add_(there.sum()),  # a scalar may be read, not written
            lambda: here[there.long()],
            lambda: there.index_add_(0, here.long(), there),
            lambda: there.index_put_((here.long(),), here),
        ]
        wrong = [not refused(mistake) for mistake in mistakes]
        allowed = [there + here.sum(), there * 2, there[here.long()], there.where(there > 1, 0.0), here.to(NAME)]
        devices = [str(x.device) for x in allowed]
        before = counts.reads.total()
        free = there.sum(), there > 1, there[1:3], there.where(there > 1, there), there.masked_fill(there > 1, 0.0)
        there[there > 4] = 0.0
        after = counts.reads.total()
        waits = [lambda: there.sum().item(), there.tolist, there.cpu, lambda: there[there > 1], there.nonzero]
        waits += [lambda: bool(there.any()), lambda: torch.equal(there, there)]
        for wait in waits:
            wait()
        return wrong, devices, (after - before, len(free)), counts.reads.total() - after, len(waits)


def test_the_device_refuses_and_counts_as_a_gpu_does(worker):
    wrong, devices, free, reads, waits = worker.submit(try_mistakes).result()
    assert not any(wrong), wrong
    assert devices == [f"{NAME}:0"] * 5
    assert free == (0, 5)
    assert reads == waits


def test_under_cuda_gloo_takes_what_is_on_the_cpu(monkeypatch):
    seen = {}
    for place, name, value in (
        (ranks, "this_device", lambda: torch.device("cuda", 1)),
        (torch.cuda, "set_device", lambda _: None),
        (torch.backends.cudnn, "allow_tf32", True),
        (torch.backends.cuda, "enable_cudnn_sdp", lambda _: None),
        (torch.distributed, "init_process_group", lambda backend, **options: seen.update(options, backend=backend)),
    ):
        monkeypatch.setattr(place, name, value)
    device = ranks.init_distributed(1.0)
    assert seen["backend"] == "cpu:gloo,cuda:nccl" and seen["device_id"] == device


# --------------------------------------------------------------------------------------------------------------- counts


def count_rollout(folder, tokens, dtype):
    """The counts of a second rollout of so many tokens, none of which ends a completion."""
    with pretend_device() as counts:
        model = AutoModelForCausalLM.from_pretrained(folder).to(NAME)
        model.config.eos_token_id = model.generation_config.eos_token_id = None
        endless = SimpleNamespace(eos_token_id=model.config.vocab_size, pad_token_id=0)
        policy, decode = Policy(model, 1.0, dtype), FixedShapes()
        for _ in range(2):
            before = counts.reads.copy(), counts.uploads.copy()
            with gathered(policy) as model:
                r = rollout(model, endless, [[5, 6, 7], [8, 9]], 3, tokens, decode=decode)
        assert r.completion_mask.all()
        return counts.reads - before[0], counts.uploads - before[1]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_no_wait_per_token_in_the_rollout(worker, world, dtype):
    tokens = [LOOK // 2, LOOK, 2 * LOOK, 4 * LOOK]
    found = [worker.submit(count_rollout, world.folder / "model", n, dtype).result() for n in tokens]
    (reads, uploads), *others = found
    assert reads and uploads
    for n, (more_reads, more_uploads) in zip(tokens[1:], others, strict=True):
        assert more_uploads == uploads
        looks = more_reads - reads
        assert reads <= more_reads and looks.total() == n // LOOK - 1
        assert len(looks) <= 1 and in_file(looks, "engine/fixed_shapes.py") == looks.total()


def test_one_wait_for_the_metrics_of_a_step(on_gpu, tmp_path):
    few, _ = on_gpu(tmp_path / "a", steps=2)
    many, _ = on_gpu(tmp_path / "b", steps=4)
    for counts, steps in ((few, 2), (many, 4)):
        assert in_file(counts.reads, "run/journal.py") == steps
        assert in_file(counts.uploads, "run/journal.py") == steps
        assert len({place for place in counts.reads if place.startswith("run/journal.py")}) == 1  # in global_totals


# ----------------------------------------------------------------------------------------------------------------- runs


def test_the_same_numbers_as_on_the_cpu(on_gpu, world, tmp_path):
    options = {"eval_every": 1, "noise_every": 1, "check_every": 1, "dtype": "float64"}
    options["eval_data"] = world.folder / "test.jsonl"
    on_gpu(tmp_path / "gpu", **options)
    train.main(world(tmp_path / "cpu", steps=2, **options))
    for ours, theirs in zip(rows_of(tmp_path / "gpu"), rows_of(tmp_path / "cpu"), strict=True):
        gaps = {ours.pop("logprob_gap"), theirs.pop("logprob_gap")}
        assert max(gaps) < 1e-12
        assert untimed(ours) == pytest.approx(untimed(theirs), rel=1e-9)


@pytest.mark.parametrize(
    "flags",
    [{}, {"lora_rank": 2}, {"algo": "ppo"}, {"dtype": "bfloat16"}, {"parallel": "fsdp"}],
    ids=["gpg", "lora", "ppo", "bfloat16", "fsdp"],
)
def test_a_resumed_run_has_the_same_bits(on_gpu, tmp_path, flags):
    if "lora_rank" in flags:
        pytest.importorskip("peft")
    on_gpu(tmp_path, steps=3, save_every=2, **flags)
    first = rows_of(tmp_path)
    shutil.rmtree(tmp_path / "final")
    _, printed = on_gpu(tmp_path, steps=3, save_every=2, resume=True, **flags)
    assert f"resuming from {tmp_path}/checkpoint-2" in printed
    again = rows_of(tmp_path)
    assert len(first) == len(again) == 3
    assert untimed(again[2]) == untimed(first[2]) and again[2]["grad_norm"] > 0


@pytest.mark.parametrize(
    "flags",
    [
        {"kl_coef": 0.1},
        {"kl_coef": 0.1, "kl_in": "reward", "no_age": True},
        {"algo": "remax"},
        {"baseline": "greedy", "no_age": True, "dtype": "bfloat16"},
        {"algo": "reinforce++", "updates": 2},
        {"lora_rank": 2, "dtype": "bfloat16"},
        {"algo": "ppo", "dtype": "bfloat16"},
        {"parallel": "fsdp", "dtype": "bfloat16"},
        {"beta_th": 1, "max_rounds": 3, "mask_truncated": True, "overlong_buffer": 4},
        {"gradient_checkpointing": True, "optimizer": "sgd", "tokens_per_micro_batch": 60},
    ],
    ids=lambda flags: "-".join(map(str, flags)),
)
def test_runs(on_gpu, tmp_path, flags):
    if "lora_rank" in flags:
        pytest.importorskip("peft")
    on_gpu(tmp_path, **flags)
    rows = rows_of(tmp_path)
    assert len(rows) == 2 and all(row["skipped"] == 0 for row in rows)


def test_all_samples_are_decoded_at_once_where_the_memory_holds_them(on_gpu, tmp_path):
    """Without --cache-tokens: prompts of one length, so each rollout is one batch."""
    one, _ = on_gpu(tmp_path / "all", steps=1)
    two, _ = on_gpu(tmp_path / "parts", steps=1, cache_tokens=4 * 48)
    decodes = [sum(n for place, n in counts.reads.items() if place.startswith("rollout.py")) for counts in (one, two)]
    assert decodes[0] < decodes[1]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_recorded_step_is_replayed(on_gpu, worker, tmp_path, dtype):
    on_gpu(tmp_path, dtype=dtype, record=1, save_every=1)
    for row in rows_of(tmp_path):
        file = tmp_path / "rollouts" / f"step-{row['step']:06}.safetensors"
        counts, printed = worker.submit(run_train, ["--replay", str(file)]).result()
        check(counts)
        repeated = json.loads(printed.splitlines()[-1])
        for name in ("loss", "grad_norm", "logprob_gap"):
            assert repeated[name] == row[name]


def test_pictures(pictures, worker, tmp_path):  # noqa: F811
    words = pictures.command(tmp_path, dtype="bfloat16", record=1, save_every=1, kl_coef=0.1)
    for argv in (words, ["--replay", str(tmp_path / "rollouts" / "step-000002.safetensors")]):
        counts, printed = worker.submit(run_train, argv).result()
        check(counts)
    repeated = json.loads(printed.splitlines()[-1])
    assert repeated["grad_norm"] == rows_of(tmp_path)[1]["grad_norm"] > 0


def test_the_doctor(on_gpu, tmp_path):
    _, printed = on_gpu(tmp_path, doctor=True)
    assert "ok     log π" in printed and printed.count("WRONG") == printed.count("WRONG  truncated") == 1


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_ranks(world, tmp_path, parallel):
    changes = {"dtype": "bfloat16", "steps": 2, "parallel": parallel, "prompts_per_step": 4, "check_every": 1}
    changes["save_every"] = 1
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    with workers(2) as executor:
        words = world(tmp_path, **changes)
        runs = [executor.submit(run_train, words, place | {"RANK": str(rank)}) for rank in range(2)]
        for counts, _ in [each.result() for each in runs]:
            check(counts)
    assert len(rows_of(tmp_path)) == 2
