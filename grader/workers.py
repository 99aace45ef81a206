"""Equality of many pairs at once: each pair is compared once, in worker processes if there are many, with a time limit.

`is_equiv` bounds its own work. The clock here is the last line of defence, for what those bounds missed: a worker that
takes too long is killed, its pair counts as unequal, and another worker continues. Workers import neither torch nor the
main program; they read pairs from a pipe and end when it closes, even if the program is killed.
"""

import contextlib
import json
import os
import selectors
import subprocess
import sys
import threading
import time
import weakref
from collections import OrderedDict, deque
from dataclasses import dataclass, field

from grader.equality import is_equiv

ENOUGH = 64  # distinct new pairs that are worth workers: two of them win from 32 on, after 0.1 s for their start
MAX_WORKERS = 4  # per rank
CHUNK = 16  # pairs sent to a worker at once
SECONDS = 10.0  # wall clock per pair: ten times what the worst known text takes on a slow machine
START_SECONDS = 120.0  # until a worker has imported what it needs
MAX_MEMORY = 2 * 2**30  # bytes of address space per worker
MAX_CACHED = 32_768  # pairs
MAX_CACHED_TEXT = 1_500  # characters of such a pair; longer ones are refused at a glance

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# the current directory, which is "" in sys.path, may hold files that are named like modules of ours or of Python's
SERVE = f"import sys; sys.path[:] = [{ROOT!r}, *filter(None, sys.path)]; from grader.workers import serve; serve()"
WORKER = [sys.executable, "-c", SERVE]


@dataclass
class _Worker:
    process: subprocess.Popen
    chunk: list = field(default_factory=list)  # indices of the pairs that it has
    done: int = -1  # how many of them are answered; -1: it is still starting
    deadline: float = 0.0


class Grader:
    """Verdicts on pairs, with a cache and workers. Threads may share one; they take turns."""

    def __init__(self, num_workers: int | None = None, seconds: float = SECONDS):
        """num_workers: by default a few, at most this rank's share of the machine's cores; 0: none, ever."""
        self.num_workers = worker_count() if num_workers is None else num_workers
        self.seconds = seconds
        self.num_given_up = 0  # pairs
        self._cache = OrderedDict()  # pair -> verdict, least recently used first
        self._lock = threading.Lock()
        self._workers = []
        self.close = weakref.finalize(self, _stop, self._workers)  # at the latest when the program ends

    def verdicts(self, pairs: list[tuple[str, str]]) -> list[bool]:
        """`is_equiv(candidate, answer)` for each pair, in order.

        Fewer than ENOUGH new pairs are compared here, without a clock. Workers compare the others; a pair that takes
        longer than `seconds`, or takes its worker down, is False and counted in `num_given_up`.
        """
        with self._lock:
            known = {pair: self._cache[pair] for pair in pairs if pair in self._cache}
            new = list(dict.fromkeys(pair for pair in pairs if pair not in known))
            many = self.num_workers and len(new) >= ENOUGH
            known |= zip(new, self._by_workers(new) if many else [is_equiv(*pair) for pair in new], strict=True)
            for pair in dict.fromkeys(pairs):
                if sum(map(len, pair)) <= MAX_CACHED_TEXT:
                    self._cache[pair] = known[pair]
                    self._cache.move_to_end(pair)
            while len(self._cache) > MAX_CACHED:
                self._cache.popitem(last=False)
            return [known[pair] for pair in pairs]

    def _by_workers(self, pairs):
        """The verdicts on distinct pairs. If workers cannot be started, the rest is compared here, now and later."""
        verdicts, todo = [None] * len(pairs), deque(range(len(pairs)))
        try:
            with selectors.DefaultSelector() as selector:
                while todo or any(worker.chunk for worker in self._workers):
                    self._hand_out(pairs, todo, selector)
                    self._take_in(verdicts, todo, selector)
        except OSError as error:  # no process, no pipe, or none that starts
            print(f"grading without worker processes, which can't be started: {error}", file=sys.stderr)
            _stop(self._workers)
            self.num_workers = 0
        except BaseException:  # Ctrl-C: nobody will ask for the pending verdicts
            _stop(self._workers)
            raise
        return [is_equiv(*pair) if verdict is None else verdict for pair, verdict in zip(pairs, verdicts, strict=True)]

    def _hand_out(self, pairs, todo, selector):
        """Starts missing workers, and gives each idle one a chunk."""
        while len(self._workers) < min(self.num_workers, len(todo)):
            # a session of its own: Ctrl-C is the program's to handle
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "bufsize": 0}
            self._workers.append(_Worker(subprocess.Popen(WORKER, start_new_session=True, **pipes)))
        for worker in list(self._workers):
            if worker.process.stdout not in selector.get_map():
                selector.register(worker.process.stdout, selectors.EVENT_READ, worker)
            if worker.chunk or not todo:
                continue
            chunk = [todo.popleft() for _ in range(min(CHUNK, len(todo)))]
            try:  # an idle worker is reading, so this never blocks for long
                worker.process.stdin.write(json.dumps([pairs[i] for i in chunk]).encode() + b"\n")
            except BrokenPipeError:  # killed from outside while idle; the next round starts another
                todo.extendleft(reversed(chunk))
                self._drop(worker, selector)
                continue
            worker.chunk, worker.done = chunk, min(worker.done, 0)
            worker.deadline = time.monotonic() + (self.seconds if worker.done == 0 else START_SECONDS)

    def _take_in(self, verdicts, todo, selector):
        """Waits for verdicts and stores them. A worker that ended or is late loses the pair that it was comparing."""
        busy = [worker for worker in self._workers if worker.chunk]
        wait = min((worker.deadline for worker in busy), default=0.0) - time.monotonic()
        lost = []
        for worker in [key.data for key, _ in selector.select(max(0.0, wait))]:
            reply = os.read(worker.process.stdout.fileno(), 4096)
            if not reply:
                lost.append(worker)
            for verdict in reply:
                if worker.done >= 0:
                    verdicts[worker.chunk[worker.done]] = verdict == ord("1")
                worker.done += 1
                worker.deadline = time.monotonic() + self.seconds
            if worker.done == len(worker.chunk):
                worker.chunk = []
        # only now: a worker that has answered is not late, even if the whole program was stopped for a while
        lost += [worker for worker in busy if worker not in lost and worker.deadline <= time.monotonic()]
        for worker in lost:
            self._drop(worker, selector)
            if worker.done < 0:
                raise ChildProcessError(f"{' '.join(WORKER)} ended with {worker.process.returncode} at its start")
            if worker.chunk:
                verdicts[worker.chunk[worker.done]] = False
                self.num_given_up += 1
                todo.extendleft(reversed(worker.chunk[worker.done + 1 :]))

    def _drop(self, worker, selector):
        selector.unregister(worker.process.stdout)
        self._workers.remove(worker)
        _stop([worker])


def worker_count() -> int:
    """MAX_WORKERS, or this rank's share of the cores it may run on, and at least one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(MAX_WORKERS, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))


def _stop(workers):
    """Kills workers, which have nothing to lose, and empties the list."""
    while workers:
        process = workers.pop().process
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def serve() -> None:
    """The worker: reads lines of pairs; writes one byte when ready, then one per pair. Ends when its input does."""
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # so that nothing printed is taken for a reply
    _limit("RLIMIT_AS", MAX_MEMORY)
    with contextlib.suppress(BrokenPipeError):  # the program is gone
        replies.write(b"r")
        for line in sys.stdin.buffer:
            for candidate, answer in json.loads(line):
                # the system ends this process if the pair takes far too long, even if the program no longer can
                _limit("RLIMIT_CPU", int(time.process_time() + 2 * SECONDS) + 1)
                replies.write(b"1" if is_equiv(candidate, answer) else b"0")


def _limit(name, most):
    with contextlib.suppress(ImportError, ValueError, OSError):  # not on every system
        import resource

        kind = getattr(resource, name)
        resource.setrlimit(kind, (most, resource.getrlimit(kind)[1]))
