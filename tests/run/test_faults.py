"""What can go wrong in a run, made to go wrong: kills, disks, damage, lost ranks, rewards, data. No hang, no silent
change, no lost checkpoint.

Tried by hand, each turns this file red: the folder written under its own name, the manifest not looked at, sizes only,
a damaged folder left in the way of its successor, rows behind the checkpoint that was taken kept, the old checkpoint
pruned before the new one stands.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import forked
import pytest
import torch.distributed as dist
from safetensors.torch import load_file
from test_checkpoint import assert_same_run, wait_for_rows
from test_ddp import torchrun
from torch.testing import assert_close

import train
from run import checkpoint, faults

KILLS = 32
CHANGES = {"steps": 9, "save_every": 1, "eval_every": 4, "beta_th": 0.9, "max_rounds": 2, "dtype": "float32"}


def start(words, log, file_limit=None):
    return forked.start(log, train.main, words, file_limit=file_limit)


@pytest.fixture(scope="module")
def unstopped(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("unstopped") / "run"
    train.main(world(out, **CHANGES, keep=0))
    return out


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 12 MB, room for two checkpoints of 5 -> its folder, and a function that mounts it otherwise."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    yield (
        folder,
        lambda options: subprocess.run(
            ["mount", "-o", f"remount,{options}", str(folder)], capture_output=True, check=True
        ),
    )
    subprocess.run(["umount", str(folder)], check=True)


def last_line(log):
    return [line for line in log.read_text().splitlines() if line.startswith("train.py: ")][-1]


@pytest.mark.slow
def test_r1_thirty_kills_one_run_the_same_bits(world, tmp_path):
    """Every other kill falls into the writing of a checkpoint, the others anywhere between the imports and there."""
    changes = {"save_every": 1, "eval_every": 0, "eval_data": None, "dtype": "float32", "beta_th": 0.9, "max_rounds": 2}
    out, log, rng = tmp_path / "killed", tmp_path / "log", random.Random(0)
    halves = {"tmp": 0, "old": 0}
    words = world(out, **changes, steps=10_000)
    for kill in range(KILLS):
        process = start([*words, "--resume"] if (out / "config.json").exists() else words, log)
        began, deadline = time.time(), time.monotonic() + (rng.uniform(0, 0.8) if kill % 2 else 60)
        while time.monotonic() < deadline and process.is_alive() and (kill % 2 or not is_saving(out, began)):
            time.sleep(0.001)
        if not kill % 2:
            time.sleep(rng.uniform(0, 0.1) if kill % 4 else 0)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, log.read_text()
        for name in halves:
            halves[name] += bool(list(out.glob(f".*.{name}")))
    assert halves["tmp"] >= 4, halves  # a kill that fell into the writing leaves its folder
    steps = int(checkpoint.latest(out).name.removeprefix("checkpoint-")) + 2
    assert steps > 10
    process = start([*words, "--resume", "--steps", str(steps)], log)
    process.join()
    assert process.exitcode == 0, log.read_text()
    train.main(world(tmp_path / "unstopped", **changes, steps=steps))
    assert_same_run(tmp_path / "unstopped", out)
    assert sorted(x.name for x in out.iterdir()) == sorted(x.name for x in (tmp_path / "unstopped").iterdir())


def is_saving(out, since):
    """Whether a checkpoint is being written; what a kill has left behind before is no sign of it."""
    try:
        return any(file.stat().st_mtime > since for file in out.glob(".checkpoint-*.tmp/*"))
    except FileNotFoundError:  # renamed, or taken away, meanwhile
        return False


def truncate(file):
    os.truncate(file, file.stat().st_size // 2)


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("damaged", "damage", "message"),
    [
        ("model.safetensors", truncate, "model.safetensors has {} bytes, not the {} that were saved"),
        ("trainer.pt", flip, "the bytes of trainer.pt are not those that were saved"),
        ("trainer.pt", Path.unlink, "trainer.pt is missing"),
        (checkpoint.MANIFEST, Path.unlink, "manifest.json is missing"),
        (checkpoint.MANIFEST, truncate, "manifest.json is damaged"),
    ],
    ids=str,
)
def test_r4_a_damaged_checkpoint_is_refused_by_name_and_the_one_before_is_taken(
    tmp_path, unstopped, capsys, damaged, damage, message
):
    out = tmp_path / "run"
    shutil.copytree(unstopped, out)
    whole = (out / "final" / damaged).stat().st_size
    damage(out / "final" / damaged)
    flip(out / "checkpoint-8" / "config.json")
    train.main(["--out", str(out), "--resume"])
    printed = capsys.readouterr().out
    assert f"{out / 'final'} is refused: {message.format(whole // 2, whole)}\n" in printed
    assert f"{out / 'checkpoint-8'} is refused: the bytes of config.json are not those that were saved\n" in printed
    assert f"resuming from {out / 'checkpoint-7'}\n" in printed
    assert_same_run(unstopped, out)
    assert checkpoint.damage(out / "final") is None and checkpoint.damage(out / "checkpoint-8") is None
    assert (out / "final.damaged").exists()  # for its owner to look at; a new run with --overwrite takes it away


def test_r4_with_no_whole_checkpoint_nothing_is_touched(world, tmp_path, capsys):
    train.main(world(tmp_path, steps=1, dtype="float32"))
    flip(tmp_path / "final" / "trainer.pt")
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    with pytest.raises(SystemExit) as stopped:
        train.main(["--out", str(tmp_path), "--resume"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.endswith("is intact; --overwrite starts a new run\n")
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")} == before


def test_a_rank_lost_between_two_updates_of_a_step_leaves_no_checkpoint_of_half_of_it(world, tmp_path, monkeypatch):
    more_updates, calls = train.methods.more_updates, []

    def lost(*arguments, **options):
        calls.append(more_updates(*arguments, **options))
        if len(calls) == 3:
            raise RuntimeError("[gloo/transport/tcp/pair.cc:525] Connection closed by peer")
        return calls[-1]

    def end(error, remark=""):
        raise SystemExit(f"{error}{remark}")

    monkeypatch.setattr(train.methods, "more_updates", lost)
    monkeypatch.setattr(faults, "end_without_others", end)
    with pytest.raises(SystemExit, match="no checkpoint was made yet"):
        train.main(world(tmp_path, algo="grpo", updates=2, beta_th=None, steps=4, save_every=0, eval_data=None))
    assert not list(tmp_path.glob("checkpoint-*")) and len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


def test_a_damaged_config_is_named(tmp_path, capsys):
    of_flags = ('{"kl": "k4"}', "'k4' is no value of --kl"), ('{"steps": []}', "[] is no value of --steps")
    of_flags += ('{"lr": null}', "None is no value of --lr"), ('{"rewards": 3}', "3 is no value of --rewards")
    for content, wrong in (('{"steps": ', "config.json is damaged"), ("null", "config.json is damaged"), *of_flags):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(SystemExit) as stopped:
            train.main(["--out", str(tmp_path), "--resume"])
        error = capsys.readouterr().err
        assert stopped.value.code == 2 and wrong in error and error.count("\n") == 1


@pytest.mark.slow
def test_a_full_disk_ends_the_run_in_one_line_and_the_last_checkpoint_stands(world, tmp_path, unstopped, small_disk):
    folder, remount = small_disk
    out, log = folder / "run", tmp_path / "log"
    process = start(world(out, **CHANGES), log)
    process.join()
    assert process.exitcode == 1 and "Traceback" not in log.read_text()
    there = f"--resume continues from {out / 'checkpoint-2'}"
    assert last_line(log) == f"train.py: {out / 'checkpoint-3'} can't be written: No space left on device; {there}"
    assert sorted(x.name for x in out.iterdir() if x.is_dir()) == ["checkpoint-1", "checkpoint-2"]
    assert checkpoint.damage(out / "checkpoint-2") is None
    remount("size=40m")
    process = start(["--out", str(out), "--resume"], log)
    process.join()
    assert process.exitcode == 0
    assert_same_run(unstopped, out)


@pytest.mark.slow
def test_a_folder_that_turns_read_only_ends_the_run_in_one_line(world, tmp_path, unstopped, small_disk):
    folder, remount = small_disk
    remount("size=40m")
    out, log = folder / "run", tmp_path / "log"
    process = start(world(out, **CHANGES), log)
    while not (out / "checkpoint-2").exists():
        assert process.is_alive()
        time.sleep(0.001)
    while True:  # busy while a file is open for writing
        try:
            remount("ro")
            break
        except subprocess.CalledProcessError:
            assert process.is_alive()
    process.join()
    assert process.exitcode == 1 and "Traceback" not in log.read_text()
    assert "can't be written: Read-only file system; " in last_line(log) and "--resume continues from" in last_line(log)
    remount("rw")
    process = start(["--out", str(out), "--resume"], log)
    process.join()
    assert process.exitcode == 0
    assert_same_run(unstopped, out)


@pytest.mark.slow
def test_a_write_that_fails_without_a_disk_of_its_own(tmp_path, unstopped):
    """The same on machines without the right to mount: files may not grow above 2 MB, trainer.pt would have 3."""
    out, log = tmp_path / "run", tmp_path / "log"
    shutil.copytree(
        unstopped, out, ignore=lambda _, names: {n for n in names if n.startswith("checkpoint-") and n[-1] > "2"}
    )
    shutil.rmtree(out / "final")
    process = start(["--out", str(out), "--resume"], log, 2_000_000)
    process.join()
    assert process.exitcode == 1 and "Traceback" not in log.read_text()
    there = f"--resume continues from {out / 'checkpoint-2'}"
    assert last_line(log) == f"train.py: {out / 'checkpoint-3'} can't be written: File too large; {there}"
    process = start(["--out", str(out), "--resume"], log)
    process.join()
    assert_same_run(unstopped, out)


# -------------------------------------------------------------------------------------------------------- lost ranks

FAULTY = """
import os, re, signal, time
CALLS = [0]
ME = os.environ.get("RANK") == os.environ.get("FAULTY_RANK", "0")

def now():
    CALLS[0] += 1
    return ME and CALLS[0] == 3

def lengths(completions):
    return [float(len(c) % 2) for c in completions]

def dies(completions, **_):
    if now():
        os.kill(os.getpid(), signal.SIGKILL)
    return lengths(completions)

def freezes(completions, **_):
    if now():
        with open(__file__ + ".pid", "w") as file:
            file.write(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGSTOP)
    return lengths(completions)

def nan(completions, **_):
    return [float("nan")] * len(completions) if now() else lengths(completions)

def sleeps(completions, **_):
    if now():
        time.sleep(1000)
    return lengths(completions)

def backtracks(completions, **_):
    if now():
        re.match("(a+)+$", "a" * 60 + "b")
    return lengths(completions)
"""


@pytest.fixture
def faulty(world, tmp_path, monkeypatch):
    """The flags of a run whose reward goes wrong on one rank at its third call, that of step 3; and torchrun for it."""
    (tmp_path / "faulty.py").write_text(FAULTY)
    monkeypatch.setenv("FAULTY_RANK", "1")
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    started = []

    def run(name, ranks=2, during=None, **changes):
        began = time.monotonic()
        reward = f"{tmp_path / 'faulty.py'}:{name}"
        words = world(tmp_path / "run", rewards=reward, steps=5, eval_data=None, **changes)

        def watch(process):
            started.append(process)
            if during:
                during()

        printed, errors = torchrun(ranks, words, 1, watch)
        assert time.monotonic() - began < 90
        with pytest.raises(ProcessLookupError):
            os.killpg(started[-1].pid, 0)  # none of its processes is left
        ours = [line for line in errors.splitlines() if line.startswith("train.py: ")]
        assert not any("train.py" in line for line in errors.splitlines() if line.lstrip().startswith("File "))
        return printed, ours

    return run


@pytest.mark.slow
def test_a_rank_that_is_killed_is_named_and_the_run_goes_on_from_before(world, tmp_path, faulty):
    _, lines = faulty("dies", ranks=3)
    out = tmp_path / "run"
    there = f"--resume continues from {out / 'checkpoint-2'}"
    named = "rank 1 is gone; the last thing it began was the rewards of step 3"
    # the agent of torchrun may be the first to tell a rank: then it stops as at any signal, and names it all the same
    assert {line.removesuffix(f"; {there}") for line in lines} <= {f"train.py: rank {r}: {named}" for r in (0, 2)}
    assert any(line.startswith("train.py: rank 0: ") for line in lines)
    train.main(world(tmp_path / "unstopped", steps=5, eval_data=None))
    train.main(["--out", str(out), "--resume", "--rewards", f"{world.folder / 'rewards.py'}:length"])
    samples = [(folder / "samples.jsonl").read_text() for folder in (out, tmp_path / "unstopped")]
    assert samples[0] == samples[1]


@pytest.mark.slow
def test_a_rank_that_answers_no_more_is_named_after_the_time_limit(tmp_path, faulty):
    def kill_at_last():  # for torchrun would wait 30 seconds for a process that can't end
        file = tmp_path / "faulty.py.pid"
        while not file.exists() or not file.read_text():
            time.sleep(0.1)
        time.sleep(9)
        os.kill(int(file.read_text()), signal.SIGKILL)

    _, lines = faulty("freezes", during=kill_at_last, rank_timeout=4)
    assert len(lines) == 1 and "rank 0: rank 1 is gone; the last thing it began was the rewards of step 3; " in lines[0]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_torchrun_makes_a_checkpoint(world, tmp_path, number):
    """Each rank ends with 143 or 130; torchrun itself, as of torch 2.13, with 1 and a traceback of its own."""
    out = tmp_path / "run"

    def stop(process):
        wait_for_rows(process, out, 2)
        process.send_signal(number)

    printed, errors = torchrun(2, world(out, steps=1000, save_every=0, eval_data=None), 1, stop)
    (folder,) = out.glob("checkpoint-*")
    assert checkpoint.damage(folder) is None
    step = int(folder.name.removeprefix("checkpoint-"))
    assert len((out / "metrics.jsonl").read_text().splitlines()) == step
    assert f"stopped after step {step}: --resume continues from {folder}" in printed
    assert "train.py: " not in errors  # nobody is missed


@pytest.mark.slow
def test_two_nodes_one_killed_the_same_commands_again_go_on(world, tmp_path):
    """Two agents of torchrun that meet on the loopback. One and its rank are killed; the other names it and ends."""
    out, log = tmp_path / "run", tmp_path / "log"
    changes = {"steps": 40, "save_every": 2, "eval_data": None}
    words = [*world(out, **changes), "--auto-resume"]

    def start_nodes():
        port = forked.free_port()
        meet = f"--nnodes 2 --nproc_per_node 1 --rdzv-backend c10d --rdzv-endpoint 127.0.0.1:{port} --rdzv-id {port}"
        command = [sys.executable, "-m", "torch.distributed.run", *meet.split(), train.__file__, *words]
        with open(log, "a") as file:
            return [subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True) for _ in range(2)]

    nodes = start_nodes()
    try:
        while not (out / "metrics.jsonl").exists() or (out / "metrics.jsonl").read_text().count("\n") < 5:
            assert all(node.poll() is None for node in nodes), log.read_text()[-3000:]
            time.sleep(0.01)
        killed = nodes[1].pid
        for process in [killed, *map(int, Path(f"/proc/{killed}/task/{killed}/children").read_text().split())]:
            os.kill(process, signal.SIGKILL)
        assert nodes[1].wait(60) == -signal.SIGKILL and nodes[0].wait(60) == 1
        lines = [line for line in log.read_text().splitlines() if line.startswith("train.py: rank ")]
        assert lines and all(" is gone; " in line or " ended: " in line or "the store" in line for line in lines), lines
        assert not (out / "final").exists()
        nodes = start_nodes()
        assert [node.wait(120) for node in nodes] == [0, 0], log.read_text()[-3000:]
    finally:
        for node in nodes:
            if node.poll() is None:
                os.killpg(node.pid, signal.SIGKILL)
    train.main(world(tmp_path / "unstopped", **changes))
    assert "resuming from" in log.read_text()
    assert (out / "samples.jsonl").read_text() == (tmp_path / "unstopped" / "samples.jsonl").read_text()
    weights = [load_file(folder / "final" / "model.safetensors") for folder in (out, tmp_path / "unstopped")]
    for name, value in weights[1].items():
        assert_close(weights[0][name], value, rtol=1e-9, atol=1e-12)


# ------------------------------------------------------------------------------------------------- rewards, data, model


@pytest.mark.slow
def test_a_nan_reward_on_one_rank_is_said_by_it_and_explained_to_the_others(faulty):
    _, lines = faulty("nan")
    what = "reward 'nan' returned nan for sample 0: return a finite number or None"
    assert f"train.py: {what}" in lines
    assert [line for line in lines if line.startswith(f"train.py: rank 0: rank 1 ended: {what}")]


@pytest.mark.slow
def test_a_reward_that_hangs_on_one_rank_ends_both(faulty):
    _, lines = faulty("sleeps", reward_timeout=2)
    what = "reward 'sleeps' took longer than --reward-timeout 2 s for 8 completions"
    assert f"train.py: rank 1: {what}; mend it, then --resume continues from the last checkpoint" in lines
    assert [line for line in lines if line.startswith(f"train.py: rank 0: rank 1 ended: {what}")]


@pytest.mark.slow
def test_a_reward_that_hangs_and_holds_the_interpreter_ends_too(world, tmp_path):
    """Grading runs in this process: a regular expression that backtracks lets no other thread of it run."""
    (tmp_path / "faulty.py").write_text(FAULTY.replace('os.environ.get("RANK")', '"0"'))
    out, log = tmp_path / "run", tmp_path / "log"
    changes = {"rewards": f"{tmp_path / 'faulty.py'}:backtracks", "steps": 4, "save_every": 1, "reward_timeout": 1}
    process = start(world(out, **changes), log)
    process.join(60)
    assert process.exitcode == 1
    assert "Timeout" in log.read_text() and 'faulty.py", line' in log.read_text() and "in backtracks" in log.read_text()
    assert checkpoint.damage(out / "checkpoint-2") is None


def test_a_reward_in_time_is_left_alone(world, tmp_path):
    train.main(world(tmp_path / "limited", steps=2, reward_timeout=0.5))
    train.main(world(tmp_path / "free", steps=2, reward_timeout=0))
    time.sleep(0.6)  # a clock left running would end this process
    assert (tmp_path / "limited" / "samples.jsonl").read_text() == (tmp_path / "free" / "samples.jsonl").read_text()


@pytest.mark.slow
def test_rows_that_are_empty_or_enormous_are_errors_or_skipped_and_counted(world, tmp_path, capsys):
    source = tmp_path / "rows.jsonl"
    good = (world.folder / "train.jsonl").read_text()
    for row, complaint in (
        ({"problem": "", "answer": "1"}, "line 13: problem is empty"),
        ({"problem": "1+1=?", "answer": " "}, "line 13: answer is empty"),
        ({}, "line 13"),
    ):
        source.write_text(good + json.dumps(row) + "\n")
        with pytest.raises(SystemExit) as stopped:
            train.main(world(tmp_path / "out", data=source))
        error = capsys.readouterr().err
        assert stopped.value.code == 2 and complaint in error and error.count("\n") == 1
    source.write_text(good + json.dumps({"problem": "7" * 500_000, "answer": "1"}) + "\n\n")
    began = time.monotonic()
    train.main(world(tmp_path / "out", data=source, steps=1))
    assert "skipped 1 of 13 prompts, longer than --max-prompt-tokens" in capsys.readouterr().out
    source.write_text(good + json.dumps({"problem": "7+7=?", "answer": "9" * 500_000}) + "\n")
    with pytest.raises(SystemExit) as stopped:
        train.main(world(tmp_path / "long", data=source))
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and "line 13: answer is '999" in error and len(error) < 500
    train.main(world(tmp_path / "long", data=source, steps=1, skip_bad_rows=True))
    assert "bad rows skipped: 1 and 0" in capsys.readouterr().out
    assert time.monotonic() - began < 60


def test_a_rank_is_lost_when_it_is_silent_for_too_long_or_ended_by_itself(monkeypatch):
    """What ends a rank whose collectives would wait for the lost one, by hand: rank 0 of 3, 10 s of patience."""
    store, heard = dist.HashStore(), {}
    monkeypatch.setattr(dist, "get_world_size", lambda: 3)
    monkeypatch.setattr(dist, "get_rank", lambda: 0)

    def missed(now, **notes):
        for key, text in notes.items():
            store.set(key.replace("_", "/"), text)
        return faults.lost(heard, now, 10, store)

    assert not missed(0, beat_0="1", beat_1="1")  # rank 2 has not begun
    assert not missed(9, beat_2="1")
    assert not missed(10)
    assert missed(10.5)  # rank 1 is silent since 0; rank 0, which asks, does not count
    assert not missed(11, beat_1="2")
    assert not missed(18, beat_1="3")
    assert missed(19.5)  # rank 2 since 9
    assert not missed(19.5, ended_2="")  # it was done
    assert not missed(28)
    assert missed(28, ended_1="the disk is full")
