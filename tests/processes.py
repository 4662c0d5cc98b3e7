"""Work in several processes that meet over gloo, as torchrun would start them."""

import multiprocessing
import os
import pickle
import queue
import socket
import traceback
from collections.abc import Callable
from typing import Any

import torch.distributed as dist

from pipeline.train.ranks import Parallel, Ranks

_FORK = multiprocessing.get_context("forkserver")


def in_processes(n: int, parallel: Parallel, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What work(ranks, *arguments) returns in each of n processes. work: of a module, by its name. Raises
    AssertionError: one of them failed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    found = _FORK.Queue()
    processes = [
        _FORK.Process(target=_one, args=(rank, n, port, parallel, work, arguments, found), daemon=True)
        for rank in range(n)
    ]
    for process in processes:
        process.start()
    try:
        results: dict[int, Any] = {}
        while len(results) < n:
            rank, result, failure = found.get(timeout=120)
            assert failure is None, f"process {rank}:\n{failure}"
            results[rank] = pickle.loads(result)
    except queue.Empty:
        raise AssertionError(f"only processes {sorted(results)} of {n} have ended") from None
    finally:
        for process in processes:
            process.join(0 if len(results) < n else 10)
            process.kill()
    return [results[rank] for rank in range(n)]


def _one(
    rank: int,
    n: int,
    port: int,
    parallel: Parallel,
    work: Callable[..., Any],
    arguments: tuple[Any, ...],
    found: Any,
) -> None:
    variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": n, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in variables.items()})
    try:
        ranks = Ranks.join(parallel, "cpu")
        result = pickle.dumps(work(ranks, *arguments))  # tensors as bytes: this process ends
        found.put((rank, result, None))
        if dist.is_initialized():
            ranks.leave()
        found.close()
        found.join_thread()  # before the end: the others would lose their neighbour
    except BaseException:
        found.put((rank, None, traceback.format_exc()))
