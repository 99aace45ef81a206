"""Tests of grader/workers.py: verdicts as without workers, pairs compared once, and no hang, crash or process left."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from grader import workers
from grader.equality import is_equiv
from grader.workers import Grader

ROOT = Path(workers.__file__).parents[1]
# A worker whose comparisons do what the candidate says.
ODD = """
import os, sys, time
sys.path.insert(0, {root!r})
from grader import workers
plain = workers.is_equiv
def odd(candidate, answer):
    if candidate == "hang":
        while True: pass
    if candidate == "sleep":
        time.sleep(1000)
    if candidate == "die":
        os._exit(1)
    if candidate == "print":
        print("1" * 100, flush=True)
    return plain(candidate, answer)
workers.is_equiv = odd
workers.serve()
"""


def many(n=200):
    """Distinct pairs, every other one equal."""
    return [(str(i), str(i + i % 2)) for i in range(n)]


@pytest.fixture
def grader():
    grader = Grader(2, seconds=5.0)
    yield grader
    grader.close()


@pytest.fixture
def odd(tmp_path, monkeypatch):
    path = tmp_path / "odd.py"
    path.write_text(ODD.format(root=str(ROOT)))
    monkeypatch.setattr(workers, "WORKER", [sys.executable, str(path)])
    grader = Grader(2, seconds=0.5)
    yield grader
    grader.close()


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def ends(pid, seconds=10.0):
    deadline = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(pid)


def test_verdicts_are_those_of_one_process(grader):
    pairs = [
        *many(),
        (r"\frac{1}{2}", "0.5"),
        ("\ud800\n", "é\0"),
        (r"\sqrt{8}", r"2\sqrt{2}"),
        ("2,1", "1,2"),
        *many(20),
    ]
    expected = [is_equiv(*pair) for pair in pairs]
    assert grader.verdicts(pairs) == expected and len(grader._workers) == 2
    assert Grader(0).verdicts(pairs) == expected
    assert grader.verdicts(pairs[::-1]) == expected[::-1]
    assert grader.verdicts([]) == []
    assert grader.num_given_up == 0


def test_few_pairs_start_no_worker(grader):
    grader.verdicts(many(workers.ENOUGH - 1))
    assert grader._workers == []
    grader.verdicts(many(workers.ENOUGH - 1) * 9)  # no new ones
    assert grader._workers == []


def test_a_pair_is_asked_once(monkeypatch):
    asked = []
    monkeypatch.setattr(workers, "is_equiv", lambda *pair: asked.append(pair) or True)
    grader = Grader(0)
    assert grader.verdicts([("1", "1"), ("1", "1"), ("1", "2")]) == [True] * 3
    assert grader.verdicts([("1", "2")]) == [True]
    assert asked == [("1", "1"), ("1", "2")]


def test_the_cache_is_bounded_and_drops_the_least_recently_used(monkeypatch):
    monkeypatch.setattr(workers, "MAX_CACHED", 3)
    grader = Grader(0)
    assert grader.verdicts(many(10)) == [i % 2 == 0 for i in range(10)]  # more than it holds
    assert list(grader._cache) == many(10)[7:]
    grader.verdicts([many(10)[7]])
    grader.verdicts([("a", "b")])
    assert list(grader._cache) == [many(10)[9], many(10)[7], ("a", "b")]
    grader.verdicts([("1" * workers.MAX_CACHED_TEXT, "1")])  # long texts are not cached
    assert len(grader._cache) == 3 and ("a", "b") in grader._cache


@pytest.mark.parametrize("what", ["hang", "sleep", "die"])
def test_a_worker_that_is_lost_costs_one_pair(odd, what):
    pairs = [*many(100), (what, "1"), *many(200)[100:]]
    assert odd.verdicts(pairs) == [is_equiv(*pair) for pair in pairs]
    assert odd.num_given_up == 1
    before = {worker.process.pid for worker in odd._workers}
    assert odd.verdicts([(what, "1")] * 9) == [False] * 9  # not tried again
    more = many(500)[200:]
    assert odd.verdicts(more) == [is_equiv(*pair) for pair in more]
    assert odd.num_given_up == 1 and before <= {worker.process.pid for worker in odd._workers}


def test_many_hanging_pairs_and_prints(odd):
    pairs = [*many(), ("hang", "1"), ("print", "1"), ("hang", "2"), ("die", "3"), *many(300)[200:]]
    assert odd.verdicts(pairs) == [is_equiv(*pair) for pair in pairs]
    assert odd.num_given_up == 3


def test_a_worker_killed_while_idle_is_replaced(grader):
    grader.verdicts(many())
    for worker in grader._workers:
        os.kill(worker.process.pid, signal.SIGKILL)
        assert ends(worker.process.pid)
    more = many(400)[200:]
    assert grader.verdicts(more) == [is_equiv(*pair) for pair in more]
    assert grader.num_given_up == 0


def test_a_program_that_was_stopped_for_a_while_blames_no_pair(monkeypatch):
    grader = Grader(1, seconds=0.2)
    take_in = Grader._take_in

    def late(self, *arguments):
        time.sleep(0.3)  # every deadline is past, and the answers are there
        return take_in(self, *arguments)

    try:
        grader.verdicts(many())
        monkeypatch.setattr(Grader, "_take_in", late)
        pids = [worker.process.pid for worker in grader._workers]
        more = many(270)[200:]
        assert grader.verdicts(more) == [is_equiv(*pair) for pair in more]
        assert grader.num_given_up == 0 and pids == [worker.process.pid for worker in grader._workers]
    finally:
        grader.close()


@pytest.mark.parametrize("command", [["/nowhere/python"], [sys.executable, "-c", "raise SystemExit(3)"]])
def test_without_workers_grading_continues(monkeypatch, capsys, command):
    monkeypatch.setattr(workers, "WORKER", command)
    grader = Grader(2)
    assert grader.verdicts(many()) == [is_equiv(*pair) for pair in many()]
    assert grader.verdicts(many(400)) == [is_equiv(*pair) for pair in many(400)]
    assert capsys.readouterr().err.count("\n") == 1  # reported once
    assert grader._workers == []


def test_an_interrupt_leaves_no_worker_and_no_mixed_up_verdicts(odd, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    odd.verdicts(many())
    pids = [worker.process.pid for worker in odd._workers]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Grader, "_take_in", interrupted)
        odd.verdicts(many(400))
    assert not any(alive(pid) for pid in pids)
    assert odd.verdicts(many(400)) == [is_equiv(*pair) for pair in many(400)]


def test_threads_take_turns(grader):
    got = {}

    def ask(start):
        got[start] = grader.verdicts(many(1000)[start : start + 200])

    threads = [threading.Thread(target=ask, args=(start,)) for start in range(0, 1000, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum((got[start] for start in sorted(got)), []) == [i % 2 == 0 for i in range(1000)]


def test_workers_end_with_their_grader():
    grader = Grader(1)
    grader.verdicts(many())
    [pid] = [worker.process.pid for worker in grader._workers]
    assert alive(pid)
    del grader
    assert ends(pid)


PROGRAM = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit it as ignored
signal.signal(signal.SIGTERM, signal.SIG_DFL)
sys.path.insert(0, {root!r})
from grader import workers
workers.WORKER = [sys.executable, {odd!r}]
grader = workers.Grader(2, seconds=1000)
pairs = [(str(i), "1") for i in range(200)]
grader.verdicts(pairs)
print(*(worker.process.pid for worker in grader._workers), flush=True)
{then}
"""


@contextlib.contextmanager
def program(tmp_path, then, odd=ODD):
    """A running PROGRAM and the process ids of its workers. After a minute it is killed, so that no test hangs."""
    path = tmp_path / "odd.py"
    path.write_text(odd.format(root=str(ROOT)))
    code = PROGRAM.format(root=str(ROOT), odd=str(path), then=then)
    running = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    watchdog = threading.Timer(60, running.kill)
    watchdog.start()
    try:
        pids = [int(pid) for pid in running.stdout.readline().split()]
        assert len(pids) == 2
        yield running, pids
    finally:
        watchdog.cancel()
        running.kill()
        running.communicate(timeout=10)


@pytest.mark.parametrize(
    ("then", "how"),
    [
        ("time.sleep(1000)", signal.SIGKILL),
        ("time.sleep(1000)", signal.SIGTERM),
        ("time.sleep(1000)", signal.SIGINT),
        ("", None),
        ("raise SystemExit(1)", None),
    ],
)
def test_workers_end_with_the_program(tmp_path, then, how):
    with program(tmp_path, then) as (running, pids):
        if how:
            assert all(alive(pid) for pid in pids)
            running.send_signal(how)
        assert all(ends(pid) for pid in pids)
        running.wait(10)


@pytest.mark.slow
def test_a_busy_worker_ends_when_its_program_is_killed(tmp_path):  # by the limit on its CPU time
    odd = ODD.replace("import workers\n", "import workers\nworkers.SECONDS = 0.5\n")
    then = "grader.verdicts([('hang', '1')] + [(str(i), '2') for i in range(200)])"
    with program(tmp_path, then, odd) as (running, pids):
        time.sleep(0.5)
        assert all(alive(pid) for pid in pids)
        running.kill()
        running.wait(10)
        assert all(ends(pid, 20) for pid in pids)


def test_ctrl_c_is_the_programs_not_the_workers(grader):
    grader.verdicts(many())
    assert all(os.getsid(worker.process.pid) == worker.process.pid for worker in grader._workers)


def test_a_worker_imports_neither_torch_nor_the_main_program():
    code = workers.SERVE.replace("; serve()", "; print(*sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    modules = set(done.stdout.split())
    assert "grader.workers" in modules and not {"torch", "numpy", "transformers", "rewards", "train"} & modules


def test_workers_start_from_any_folder(tmp_path, monkeypatch, capsys):
    for name in ("grader", "json", "rewards"):  # named like a package of ours or of Python's, and unusable
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    grader = Grader(1)
    try:
        assert grader.verdicts(many()) == [is_equiv(*pair) for pair in many()]
        assert len(grader._workers) == 1 and capsys.readouterr().err == ""
    finally:
        grader.close()


def test_ranks_share_the_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    got = []
    for ranks in (1, 2, 8, 64):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
        got.append(workers.worker_count())
    assert got == [4, 4, 2, 1]
