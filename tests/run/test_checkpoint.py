"""A killed run resumes to the same bits: weights, optimizer, rows, samples.

Tried by hand, each turns this file red: the position not saved, rows after the checkpoint kept, a row cut short kept,
the optimizer not restored, streams keyed by the number of steps since the start of the process.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import train
from run import checkpoint, faults

ROOT = Path(train.__file__).parent
CHANGES = {
    "steps": 7, "save_every": 2, "eval_every": 3, "beta_th": 0.9, "max_rounds": 2, "dtype": "float32",
    "schedule": "cosine", "warmup": 2, "keep": 0,
}  # fmt: skip


def rows_of(file):
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return [{name: x for name, x in row.items() if not name.startswith("seconds")} for row in rows]


def assert_same_run(one, other):
    for name, value in load_file(one / "final" / "model.safetensors").items():
        assert torch.equal(value, load_file(other / "final" / "model.safetensors")[name]), name
    saved = [torch.load(out / "final" / "trainer.pt", weights_only=True) for out in (one, other)]
    for index, moments in saved[0]["optimizer"]["state"].items():
        for name, value in moments.items():
            assert torch.equal(value, saved[1]["optimizer"]["state"][index][name]), (index, name)
    states = [{name: x for name, x in s["state"].items() if name != "seconds"} for s in saved]
    assert states[0] == states[1]
    assert rows_of(one / "metrics.jsonl") == rows_of(other / "metrics.jsonl")
    for name in ("samples.jsonl", "groups.jsonl"):
        assert (one / name).read_bytes() == (other / name).read_bytes()


def start(words):
    return subprocess.Popen([sys.executable, str(ROOT / "train.py"), *words], stderr=subprocess.PIPE, text=True)


def wait_for_rows(process, out, number):
    file = out / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not file.exists() or file.read_text().count("\n") < number:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture(scope="module")
def unstopped(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("unstopped") / "run"
    train.main(world(out, **CHANGES))
    return out


@pytest.mark.slow
@pytest.mark.parametrize("row", [1, 3, 6])
def test_r1_a_run_killed_at_any_row_resumes_to_the_same_bits(world, tmp_path, unstopped, row):
    out = tmp_path / "run"
    process = start(world(out, **CHANGES))
    wait_for_rows(process, out, row)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    for name in checkpoint.ROW_FILES:
        with open(out / name, "a") as rows:
            rows.write('{"step": 7, "rew')  # what a kill in the middle of a write leaves
    (out / ".checkpoint-6.tmp").mkdir(exist_ok=True)
    train.main(["--out", str(out), "--resume"])  # the flags are those of the run
    assert_same_run(unstopped, out)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_the_run_goes_on_to_the_same_bits(world, tmp_path, unstopped, number, code):
    out = tmp_path / "run"
    process = start(world(out, **CHANGES | {"save_every": 0}))
    wait_for_rows(process, out, 3)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    stopped_at = [folder.name for folder in out.glob("checkpoint-*")]
    assert len(stopped_at) == 1 and len(rows_of(out / "metrics.jsonl")) == int(stopped_at[0].split("-")[1]) >= 3
    train.main(["--out", str(out), "--resume", "--save-every", "2"])
    assert_same_run(unstopped, out)


def test_r1_more_steps_after_the_end_are_the_longer_run(world, tmp_path):
    changes = CHANGES | {"schedule": "constant"}  # a cosine ends with the steps
    train.main(world(tmp_path / "long", **changes))
    train.main(world(tmp_path / "short", **changes | {"steps": 4}))
    train.main(["--out", str(tmp_path / "short"), "--resume", "--steps", "7"])
    short, long = (rows_of(tmp_path / name / "metrics.jsonl") for name in ("short", "long"))
    assert (
        short[3].pop("accuracy") is not None and short[3].pop("accuracy_se") is not None
    )  # at the end of the short one
    assert short == long
    for name, value in load_file(tmp_path / "long" / "final" / "model.safetensors").items():
        assert torch.equal(value, load_file(tmp_path / "short" / "final" / "model.safetensors")[name])
    assert (tmp_path / "short" / "checkpoint-4").exists()  # what was final


def test_r3_resuming_a_finished_run_says_so_and_touches_nothing(world, tmp_path, capsys):
    train.main(world(tmp_path, steps=2))
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()}
    train.main(["--out", str(tmp_path), "--resume"])
    assert "has its 2 steps" in capsys.readouterr().out
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()} == before


def test_a_run_without_a_checkpoint_starts_anew_on_resume(world, tmp_path, unstopped):
    out = tmp_path / "run"
    train.main(world(out, **CHANGES | {"steps": 1}))
    checkpoint._delete(out / "final")  # as if killed before the first checkpoint
    train.main(["--out", str(out), "--resume", "--steps", "7"])
    assert_same_run(unstopped, out)


def test_r4_a_half_written_folder_is_never_taken(tmp_path):
    for name in ("checkpoint-2", "checkpoint-10", ".checkpoint-12.tmp", "checkpoint-best", ".final.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / checkpoint.MANIFEST).write_text("{}")
    assert checkpoint.newest(tmp_path, print) == tmp_path / "checkpoint-10"
    checkpoint.prune(tmp_path, 1)
    assert not (tmp_path / "checkpoint-2").exists() and (tmp_path / "checkpoint-best").exists()
    (tmp_path / "final").mkdir()
    assert checkpoint.newest(tmp_path, print) == tmp_path / "checkpoint-10"  # no manifest: half a copy
    (tmp_path / "final" / checkpoint.MANIFEST).write_text("{}")
    assert checkpoint.newest(tmp_path, print) == tmp_path / "final"


def test_r4_a_save_that_fails_leaves_the_last_checkpoint_whole(tmp_path):
    class Model:
        def save_pretrained(self, folder, state_dict):
            assert state_dict == {}
            Path(folder).mkdir()
            (Path(folder) / "model.safetensors").write_text("half")
            raise OSError("No space left on device")

    (tmp_path / "checkpoint-1").mkdir()
    with pytest.raises(OSError, match="checkpoint-2 can't be written: No space left"):
        checkpoint.save(tmp_path / "checkpoint-2", Model(), None, {}, {}, {})
    assert [folder.name for folder in tmp_path.iterdir()] == ["checkpoint-1"]


def test_rows_survive_text_that_looks_like_line_ends(tmp_path):
    odd = "a\u2028b\x85c\rd\x0be"  # str.splitlines would cut at each
    for step in (1, 2, 3):
        checkpoint.append(tmp_path / "samples.jsonl", {"step": step, "completion": odd})
    checkpoint.reopen(tmp_path, 2, None)
    lines = (tmp_path / "samples.jsonl").read_bytes().decode().split("\n")
    assert [json.loads(line) for line in lines[:-1]] == [{"step": s, "completion": odd} for s in (1, 2)]


def test_the_process_leaves_signal_handlers_as_they_were(world, tmp_path):
    before = list(map(signal.getsignal, faults.STOPS))
    train.main(world(tmp_path, steps=1))
    assert list(map(signal.getsignal, faults.STOPS)) == before


@pytest.mark.parametrize(("name", "code"), [("SIGUSR1", 138), ("SIGHUP", 129)])
def test_what_a_cluster_and_a_closed_terminal_send_saves_too(world, tmp_path, unstopped, monkeypatch, name, code):
    """Signal 10 + 128, and 1 + 128."""
    collect, number = train.collect, getattr(signal, name)
    monkeypatch.setattr(train, "collect", lambda *a: os.kill(os.getpid(), number) if a[-1].step == 2 else collect(*a))
    handlers = {n: signal.getsignal(n) for n in faults.STOPS}
    signal.signal(number, signal.SIG_DFL)  # the suite may run under nohup
    try:
        with pytest.raises(SystemExit) as stopped:
            train.main(world(tmp_path / "run", **CHANGES | {"save_every": 0}))
    finally:  # a stopped run ignores them, as it is about to end
        for n, handler in handlers.items():
            signal.signal(n, handler)
    assert stopped.value.code == code and (tmp_path / "run" / "checkpoint-2").exists()
    monkeypatch.undo()
    train.main(["--out", str(tmp_path / "run"), "--resume"])
    assert_same_run(unstopped, tmp_path / "run")


def test_nohup_keeps_its_word():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with train.stop_signals() as stopped:
            os.kill(os.getpid(), signal.SIGHUP)
        assert stopped == [] and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_run_in_a_thread_is_the_run(world, tmp_path, unstopped):
    thread = threading.Thread(target=train.main, args=(world(tmp_path / "run", **CHANGES),))
    thread.start()
    thread.join()
    assert_same_run(unstopped, tmp_path / "run")


@pytest.mark.slow
def test_neither_a_closed_pipe_nor_a_code_page_ends_a_run(world, tmp_path):
    words = [sys.executable, str(ROOT / "train.py"), *world(tmp_path / "run", steps=2, dtype="float32")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(words, **pipes, env=os.environ | {"PYTHONIOENCODING": "ascii"}) as process:
        assert any(b"reward \\xb1 se" in line for line in iter(process.stdout.readline, b""))  # the head of the table
        process.stdout.close()  # `| head`
        assert process.wait(60) == 0
    assert len(rows_of(tmp_path / "run" / "metrics.jsonl")) == 2 and (tmp_path / "run" / "final").exists()


def test_a_run_may_have_no_streams(monkeypatch):
    """As with `>&- 2>&-`, for which Python has None."""
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    faults.keep_streams()
    with sys.stdout, sys.stderr:
        faults.journal.say("nobody reads this")
        faults.journal.reward_lines({"reward": 1.0})
        assert faults.journal.fitted("a line") == "a line"
    with faults._Patient("/dev/full", "w") as full:
        assert full.write(b"dropped") == 7


def test_the_checkpoint_of_the_best_accuracy_stays(world, tmp_path, monkeypatch, capsys):
    """Accuracies 0.9 before the run, then 0.3, 0.5, 0.5, 0.4, and after a resume 0.4, 0.6: the first of the best."""
    evaluate, accuracies = train.evaluate, iter([0.9, 0.3, 0.5, 0.5, 0.4, 0.9, 0.4, 0.6])
    changes = {"steps": 4, "eval_every": 1, "save_every": 3, "keep": 1, "keep_best": True}

    def evaluated(trained, problems, args):
        return problems and replace(evaluate(trained, problems, args), accuracy=next(accuracies)) or None

    monkeypatch.setattr(train, "evaluate", evaluated)
    train.main(world(tmp_path, **changes))
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-3"]
    assert "the best of this run: 50.0 %, after step 2\n" in capsys.readouterr().out
    train.main(["--out", str(tmp_path), "--resume", "--steps", "6"])
    assert "the best of this run: 60.0 %, after step 6\n" in capsys.readouterr().out
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == [
        "checkpoint-4"
    ]  # kept as the latest; final is best


def test_the_best_is_that_of_the_whole_run_also_if_it_is_asked_for_later(world, tmp_path, monkeypatch, capsys):
    evaluate, accuracies = train.evaluate, iter([0.1, 0.7, 0.5, 0.5, 0.6])
    monkeypatch.setattr(train, "evaluate", lambda *a: replace(evaluate(*a), accuracy=next(accuracies)))
    train.main(world(tmp_path, steps=2, eval_every=1))
    train.main(["--out", str(tmp_path), "--resume", "--steps", "3", "--keep-best"])
    assert "the best of this run: 70.0 %, after step 1\n" in capsys.readouterr().out


def test_a_signal_in_the_middle_of_a_step_waits_until_its_end():
    order = []
    with pytest.raises(KeyboardInterrupt):
        with train.stop_signals() as stopped:
            with train.uninterrupted():
                os.kill(os.getpid(), signal.SIGTERM)
                order.append("whole")
            order.append("never")
    assert order == ["whole"] and stopped == [signal.SIGTERM]
