"""What can go wrong in a run beside its numbers: signals, ranks that are lost or differ, rewards that hang.

The store of the process group carries notes: `doing/R`, what rank R began last; `beat/R`, a count that a thread of
rank R raises every second; `ended/R`, why it ended by itself. A rank whose collective breaks off reads them. They
change no number: without them, a run would end with "Connection closed by peer", and no one would know which.
"""

import faulthandler
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps

import torch
import torch.distributed as dist

BEAT = 1.0  # seconds
GRACE = 5.0  # seconds; for a reward that holds the interpreter, so that no Python thread can end it


@contextmanager
def beating() -> Iterator[None]:
    """A thread that shows the others that this process is alive, whatever its main thread waits for."""
    store, rank, stop = _store().clone(), dist.get_rank(), threading.Event()

    def beat():
        count = 0
        while not stop.wait(BEAT if count else 0):
            count += 1
            try:
                store.set(f"beat/{rank}", str(count))
            except RuntimeError:  # the store has gone, with the rank or the agent that held it
                return

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def doing(what: str) -> None:
    """Notes what this rank begins, for the others to name it by."""
    _store().set(f"doing/{dist.get_rank()}", what)


def ends(reason: str = "") -> None:
    """Notes that this rank ends by itself, and why, if the others do not know: they will miss it."""
    try:
        _store().set(f"ended/{dist.get_rank()}", reason)
    except RuntimeError:
        pass  # whoever held the store ended before; nobody is left to read it


def broke_off(error: BaseException) -> bool:
    """Whether an error is that of a collective: a rank did not come, and not this one is at fault."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def ignore_signals() -> None:
    """For a rank that is about to end anyway: the agent of torchrun sends one to all that it finds alive."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def end_without_others(error: BaseException, remark: str = "") -> None:
    """Ends this rank with exit code 1 and one line that names the ranks that are lost, and what they did last.

    At once, without taking the group apart: that could wait for the very rank that is lost.
    """
    ignore_signals()
    named = gone() or _elsewhere() or [" ".join(str(error).split()).partition(". ")[0]]
    ends()
    print(f"\ntrain.py: rank {dist.get_rank()}: {'; '.join(named)}{remark}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(1)


def gone() -> list[str]:
    """The other ranks that ended for a reason of theirs, or show no sign of life, in words. Takes up to 3 seconds."""
    try:
        before, ended = _read("beat"), _read("ended")
        if others() - ended.keys():
            time.sleep(3 * BEAT)
        after, ended, last = _read("beat"), _read("ended"), _read("doing")
    except RuntimeError:
        return ["the store does not answer: rank 0, or the agent of torchrun, is gone"]
    silent = [r for r in sorted(others() - ended.keys()) if before.get(r) == after.get(r)]
    words = [f"rank {r} ended: {reason}" for r, reason in ended.items() if r in others() and reason]
    return words + [f"rank {r} is gone; the last it began was the {last.get(r, 'start')}" for r in silent]


def _elsewhere() -> list[str]:
    """The other ranks that live, but do another thing than this one, which has waited for them in vain."""
    last = _read("doing")
    late = [r for r in sorted(others()) if last.get(r) != last.get(dist.get_rank())]
    return [f"rank {r} did not come within --rank-timeout; it is in the {last.get(r, 'start')}" for r in late]


def others() -> set[int]:
    return set(range(dist.get_world_size())) - {dist.get_rank()}


def limited(name: str, reward: Callable, seconds: float) -> Callable:
    """The reward; a call of it that takes longer ends this process with one line that names it. 0 seconds: no limit.

    Nothing in Python can stop a thread, and grading in processes would cost every reward its state: so the run ends,
    and its last checkpoint stands. If even that line can't be printed, for the reward holds the interpreter (a regular
    expression that backtracks does), the traceback of where it hangs is, a little later, from outside of Python.
    """
    if not seconds:
        return reward

    @wraps(reward)
    def call(**batch):
        timer = threading.Timer(seconds, _end_hung, (name, seconds, len(batch["completions"])))
        timer.daemon = True
        timer.start()
        faulthandler.dump_traceback_later(seconds + GRACE, exit=True, file=2)
        try:
            return reward(**batch)
        finally:
            timer.cancel()
            faulthandler.cancel_dump_traceback_later()

    return call


def _end_hung(name: str, seconds: float, completions: int) -> None:
    reason = f"reward {name!r} took longer than --reward-timeout {seconds:g} s for {completions} completions"
    ends(reason)
    hint = "the last checkpoint stands: mend the reward, then --resume"
    print(f"\ntrain.py: rank {dist.get_rank()}: {reason}; {hint}", file=sys.stderr, flush=True)
    os._exit(1)


def check_same_parameters(model: torch.nn.Module, step: int) -> None:
    """FloatingPointError, naming step and ranks, unless all ranks hold the same bits in every parameter. Collective."""
    mine = _hash(model)
    hashes = [torch.zeros_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(hashes, mine)
    hashes = [int(x) for x in hashes]
    common = Counter(hashes).most_common(1)[0][0]  # of equally many, that of the lowest rank
    others = [str(rank) for rank, x in enumerate(hashes) if x != common]
    if others:
        raise FloatingPointError(
            f"after step {step} the parameters of rank {', '.join(others)} are not those of rank {hashes.index(common)}"
        )


def _hash(model: torch.nn.Module) -> torch.Tensor:
    """64 bits of all parameters, bit by bit: sums of integers, so exact in any order and on any device."""
    total = torch.zeros(1, dtype=torch.int64, device=next(model.parameters()).device)
    kinds = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    for parameter in model.parameters():
        for piece in parameter.detach().reshape(-1).split(1 << 22):  # no copy of a large matrix in 64 bits
            bits = piece.view(kinds[piece.element_size()]).to(torch.int64)
            places = torch.arange(1, len(bits) + 1, device=bits.device)
            total = total * 1_000_003 + (bits * places).sum()  # wraps; places: two that are swapped must show
    return total


def _read(name: str) -> dict[int, str]:
    """The notes of that name: rank -> text."""
    store = _store()
    keys = {rank: f"{name}/{rank}" for rank in range(dist.get_world_size())}
    return {rank: store.get(key).decode() for rank, key in keys.items() if store.check([key])}


def _store() -> dist.Store:
    return dist.distributed_c10d._get_default_store()


@contextmanager
def stop_signals(at_once: bool = True):
    """SIGINT and SIGTERM raise KeyboardInterrupt, wherever the program is, and are noted in the list it gives.

    Not at_once: they are only noted, see stop_together.
    """
    noted = []

    def stop(number, _):
        noted.append(number)
        if at_once and len(noted) == 1:  # a second one must not break the checkpoint that the first one makes
            raise KeyboardInterrupt

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield noted
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def stop_together(stopped: list[int]) -> None:
    """Raises KeyboardInterrupt on all ranks if any has noted a signal: ranks that save together must stop together."""
    number = torch.tensor(max(stopped, default=0))
    dist.all_reduce(number, op=dist.ReduceOp.MAX)
    if number:
        stopped[:] = [int(number)]
        raise KeyboardInterrupt


@contextmanager
def uninterrupted():
    """SIGINT and SIGTERM wait until the block has ended."""
    waiting = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.signal(number, lambda number, _: waiting.append(number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if waiting:
        signal.raise_signal(waiting[0])
