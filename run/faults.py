"""What can go wrong in a run apart from its numbers: signals, ranks that are lost or differ, rewards that hang.

The store of the process group carries notes: `doing/R`, what rank R began last; `beat/R`, a count that a thread of
rank R raises every second; `ended/R`, why it ended by itself. A rank whose collective fails reads them: without them,
a run would end with "Connection closed by peer", and nobody would know which peer.
"""

import faulthandler
import io
import itertools
import math
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import wraps

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import _get_default_store as default_store

from run import journal

BEAT = 1.0  # seconds
STOPS = signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1  # the last is a cluster's, before its time limit
GRACE = 5.0  # seconds; for a reward that holds the interpreter lock, so that no Python thread can end it


class _Patient(io.FileIO):
    """A stream whose reader may leave, whose terminal may close, whose disk may be full."""

    def write(self, content):
        try:
            return super().write(content)
        except OSError:
            return len(content)


def keep_streams() -> None:
    """From here on what nobody reads (`| head`) is dropped, and what a terminal's code page lacks is escaped."""
    for name in ("stdout", "stderr"):
        if (stream := getattr(sys, name)) is None:  # closed, as in `>&-`
            setattr(sys, name, open(os.devnull, "w"))
        if stream and stream is getattr(sys, f"__{name}__"):  # not what a notebook or a test has put there
            raw = io.BufferedWriter(_Patient(stream.fileno(), "w", closefd=False))
            options = {"encoding": stream.encoding, "errors": "backslashreplace", "line_buffering": True}
            setattr(sys, name, io.TextIOWrapper(raw, **options))


@contextmanager
def beating(patience: float = math.inf) -> Iterator[None]:
    """A thread that shows the other ranks that this process is alive, whatever its main thread waits for. patience:
    seconds of another rank's silence after which this one ends, for NCCL: its collectives wait for a lost rank until a
    watchdog aborts the process, which names nobody."""
    store, rank, stop, heard = default_store().clone(), dist.get_rank(), threading.Event(), {}

    def beat():
        for count in itertools.count():
            try:
                store.set(f"beat/{rank}", str(count))
                missed = patience < math.inf and lost(heard, time.monotonic(), patience, store)
            except RuntimeError:  # the store is gone, with the rank or the agent that held it
                return
            if missed:
                end_without_others(RuntimeError("another rank was lost"))
            if stop.wait(BEAT):
                return

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
        ends()
    finally:
        stop.set()
        thread.join()


def lost(heard: dict, now: float, patience: float, store: dist.Store | None = None) -> list[str]:
    """The other ranks that ended for a reason of their own, or were silent for too long, in words. heard: rank -> (its
    last beat, since when), of those that are missed; brought up to date."""
    ended, last = _read("ended", store), _read("doing", store)
    for rank, beat in _read("beat", store).items():
        if rank not in heard or heard[rank][0] != beat:
            heard[rank] = beat, now
    words = [f"rank {r} ended: {reason}" for r, reason in ended.items() if r in others() and reason]
    silent = [r for r in sorted(others() - ended.keys()) if r in heard and now - heard[r][1] > patience]
    return words + [f"rank {r} is gone; the last thing it began was the {last.get(r, 'start')}" for r in silent]


def doing(what: str) -> None:
    """Notes what this rank begins, so that the others can name it, and shows it beside the bar."""
    journal.show(what)
    default_store().set(f"doing/{dist.get_rank()}", what)


def ends(reason: str = "") -> None:
    """Notes that this rank ends by itself, and why, unless the others know: they will miss it."""
    with suppress(RuntimeError):  # whoever held the store has ended; nobody is left to read the note
        default_store().set(f"ended/{dist.get_rank()}", reason)


def broke_off(error: BaseException) -> bool:
    """Whether an error is that of a collective: another rank did not come."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def ignore_signals() -> None:
    """For a rank that is about to end anyway: the agent of torchrun signals every process it finds alive."""
    if threading.current_thread() is threading.main_thread():  # another can't
        for number in STOPS:
            signal.signal(number, signal.SIG_IGN)


def end_without_others(error: BaseException, remark: str = "") -> None:
    """Ends this rank with exit code 1 and one line that names the lost ranks and what they did last."""
    ignore_signals()
    if not (named := gone()):  # but alive, and busy with something else
        last, mine = _read("doing"), dist.get_rank()
        late = [r for r in sorted(others()) if last.get(r) != last.get(mine)]
        named = [f"rank {r} did not come within --rank-timeout; it is in the {last.get(r, 'start')}" for r in late]
    named = named or [" ".join(str(error).split()).partition(". ")[0]]
    ends()
    print(f"\ntrain.py: rank {dist.get_rank()}: {'; '.join(named)}{remark}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(1)  # destroying the group could wait for the very rank that is lost


def gone() -> list[str]:
    """The other ranks that ended for a reason of their own, or show no sign of life, in words. Takes up to 3 s."""
    now, heard = time.monotonic(), {}
    try:
        lost(heard, now, math.inf)
        if others() - _read("ended").keys():
            time.sleep(3 * BEAT)
        return lost(dict.fromkeys(others(), (None, now)) | heard, time.monotonic(), 2 * BEAT)
    except RuntimeError:
        return ["the store does not answer: rank 0, or the agent of torchrun, is gone"]


def others() -> set[int]:
    return set(range(dist.get_world_size())) - {dist.get_rank()}


def limited(name: str, reward: Callable, seconds: float) -> Callable:
    """The reward; a call that takes longer ends this process with one line that names it. 0 seconds: no limit.

    Python can't stop a thread, and in a process of its own a reward would lose its state. If it holds the interpreter
    lock, as a regular expression does, a traceback of where it hangs comes a little later, from outside Python."""
    if not seconds:
        return reward

    def end(completions: int) -> None:
        reason = f"reward {name!r} took longer than --reward-timeout {seconds:g} s for {completions} completions"
        ends(reason)
        hint = "mend it, then --resume continues from the last checkpoint"
        print(f"\ntrain.py: rank {dist.get_rank()}: {reason}; {hint}", file=sys.stderr, flush=True)
        os._exit(1)

    @wraps(reward)
    def call(**batch):
        timer = threading.Timer(seconds, end, (len(batch["completions"]),))
        timer.daemon = True
        timer.start()
        faulthandler.dump_traceback_later(seconds + GRACE, exit=True, file=2)
        try:
            return reward(**batch)
        finally:
            timer.cancel()
            faulthandler.cancel_dump_traceback_later()

    return call


def check_same_parameters(model: torch.nn.Module, step: int) -> None:
    """FloatingPointError, naming step and ranks, unless all ranks hold the same bits in every parameter. Collective."""
    mine = hash_of(list(model.parameters()))
    hashes = [torch.zeros_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(hashes, mine)
    hashes = [int(x) for x in hashes]
    common = Counter(hashes).most_common(1)[0][0]  # of equally many, that of the lowest rank
    if wrong := ", ".join(str(rank) for rank, x in enumerate(hashes) if x != common):
        right = hashes.index(common)
        raise FloatingPointError(f"after step {step} the parameters of rank {wrong} are not those of rank {right}")


def hash_of(parameters: Sequence[torch.Tensor]) -> torch.Tensor:
    """A 64-bit hash of every bit of the parameters: sums of integers, so exact in any order and on any device."""
    total = torch.zeros(1, dtype=torch.int64, device=parameters[0].device)
    kinds = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    for parameter in parameters:
        for piece in parameter.detach().reshape(-1).split(1 << 22):  # a large matrix in 64 bits might not fit
            bits = piece.view(kinds[piece.element_size()]).to(torch.int64)
            places = torch.arange(1, len(bits) + 1, device=bits.device)
            total = total * 1_000_003 + (bits * places).sum()  # wraps around; places: a swap of two must show
    return total


def _read(name: str, store: dist.Store | None = None) -> dict[int, str]:
    """All ranks' notes of one kind: rank -> text."""
    store, ranks = store or default_store(), range(dist.get_world_size())
    return {r: store.get(f"{name}/{r}").decode() for r in ranks if store.check([f"{name}/{r}"])}


@contextmanager
def _handled(handler: Callable) -> Iterator[None]:
    """STOPS go to the handler until the block ends, but for a SIGHUP that nohup ignores; in a thread none can."""
    mine = STOPS if threading.current_thread() is threading.main_thread() else ()
    mine = [n for n in mine if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]
    previous = {number: signal.signal(number, handler) for number in mine}
    try:
        yield
    finally:
        for number, usual in previous.items():
            signal.signal(number, usual)


@contextmanager
def stop_signals(at_once: bool = True):
    """STOPS are noted in the list it yields, and raise KeyboardInterrupt unless at_once is off, see stop_together."""
    noted = []

    def stop(number, _):
        noted.append(number)
        if at_once and len(noted) == 1:  # a second one must not break the checkpoint that the first one causes
            raise KeyboardInterrupt

    with _handled(stop):
        yield noted


def stop_together(stopped: list[int]) -> None:
    """Raises KeyboardInterrupt on all ranks if any has noted a signal: ranks that save together must stop together."""
    number = torch.tensor(max(stopped, default=0))
    dist.all_reduce(number, op=dist.ReduceOp.MAX)
    if number:
        stopped[:] = [int(number)]
        raise KeyboardInterrupt


@contextmanager
def uninterrupted():
    """STOPS wait until the block has ended."""
    waiting = []
    with _handled(lambda number, _: waiting.append(number)):
        yield
    if waiting:
        signal.raise_signal(waiting[0])
