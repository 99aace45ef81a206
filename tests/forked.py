"""Processes that tests start. They are forked from one that has imported the project: a third of a second, not four."""

import multiprocessing
import os
import resource
import socket
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
IMPORTED = ["train", "eval", "tools.replay", "transformers.models.llama.modeling_llama", "forked"]


def context():
    """multiprocessing, as far as it starts processes: see above."""
    folders = [ROOT, ROOT / "tests", *(path for path in (ROOT / "tests").iterdir() if path.is_dir())]
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(IMPORTED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(map(str, folders)))
        patch.setenv("PYTHONWARNINGS", "ignore")
        multiprocessing.forkserver.ensure_running()
    return forks


def start(log, work, *arguments, file_limit: int | None = None, **environment: str) -> multiprocessing.Process:
    """work(*arguments) in a process whose output is added to the file `log`; file_limit: bytes that a file may have."""
    process = context().Process(target=_child, args=(str(log), file_limit, environment, work, arguments))
    process.start()
    return process


def _child(log, file_limit, environment, work, arguments):
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.environ |= environment
    if file_limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    work(*arguments)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def on_ranks(count: int, folder, work, *arguments, seconds: float = 120) -> list[str]:
    """work(*arguments) in `count` processes, with the environment that torchrun gives -> what each printed."""
    meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(count)}
    logs = [Path(folder) / f"log-{count}-{rank}" for rank in range(count)]
    for log in logs:
        log.write_bytes(b"")
    processes = [
        start(log, work, *arguments, **meet, RANK=str(rank), LOCAL_RANK=str(rank)) for rank, log in enumerate(logs)
    ]
    try:
        for process, log in zip(processes, logs, strict=True):
            process.join(seconds)
            assert process.exitcode == 0, f"exit code {process.exitcode}: {log.read_text()[-3000:]}"
    finally:
        for process in processes:
            process.kill()
    return [log.read_text() for log in logs]
