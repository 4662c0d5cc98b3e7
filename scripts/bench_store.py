"""Speed of reading stores, against memory, Zarr and SAELens's cached activations.

    python -m scripts.bench_store [--chunks 96] [--rounds 7]

Rows of 768 float16, chunks of 8,192 rows, 16 to a shard, batches of 2,048, everything in the page cache; the rounds go
through all contestants in turn, medians count, GB are of the store's rows. SAELens reads 131,072 rows of the same numbers
from its arrow layout, in the same dtype, through a mixing buffer of 65,536 rows (half of this project's window).
Writes runs/bench/store.json. Needs sae-lens (pip install -e '.[dev]') for that line.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import count, cycle
from pathlib import Path
from typing import Any

import numpy as np

from scripts.bench import medians, report, store_of_noise
from stores.activations import ActivationStore
from stores.loader import BatchLoader

HOOK_POINT, D, CHUNK_ROWS, BATCH = "blocks.8.hook_resid_pre", 768, 8192, 2048
CHUNK_BYTES = CHUNK_ROWS * D * 2
CONTEXT, SAELENS_ROWS, SAELENS_BUFFER = 512, 131_072, 65_536


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chunks", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = store_of_noise(
            Path(folder) / "activations.zarr", HOOK_POINT, D, args.chunks * CHUNK_ROWS, CHUNK_ROWS, CONTEXT
        )
        n_steps, before = 32, _anonymous_bytes()
        streamed, ram = _batches(store, "stream"), _batches(store, "ram")
        window = BatchLoader(store, (HOOK_POINT,), BATCH, seed=0, n_steps=1).layout.window_chunks
        for _ in range(2 * window):  # the window is full
            next(streamed)
        held = _anonymous_bytes() - before
        whole, out = np.ones((args.chunks * CHUNK_ROWS, D), np.float16), np.ones((CHUNK_ROWS, D), np.float16)
        memmap = np.memmap(Path(folder) / "rows.bin", np.float16, "w+", shape=whole.shape)
        memmap[:] = whole
        order = np.random.default_rng(0).permutation(len(whole))
        zarr_array, peer = _zarr_array(store), _saelens(Path(folder), store)
        turn, chunk = count(), cycle(np.random.default_rng(1).permutation(args.chunks).tolist())

        def gather() -> None:
            i = next(turn) * BATCH % (len(order) - BATCH)
            np.take(memmap, order[i : i + BATCH], axis=0, out=out[:BATCH], mode="clip")

        def piece(array: Any) -> Any:
            start = next(chunk) * CHUNK_ROWS
            return array[start : start + CHUNK_ROWS]

        work: dict[str, tuple[Callable[[], Any], int, int]] = {  # (what, how often, bytes each time)
            "memcpy": (lambda: np.copyto(out, piece(whole)), 8, CHUNK_BYTES),
            "memmap": (lambda: np.copyto(out, piece(memmap)), 8, CHUNK_BYTES),
            "memmap_gather": (gather, n_steps, BATCH * D * 2),
            "zarr_chunks": (lambda: piece(zarr_array), 8, CHUNK_BYTES),
            "chunks": (lambda: store.read_chunk(HOOK_POINT, next(chunk), out), 8, CHUNK_BYTES),
            "stream": (lambda: next(streamed), n_steps, BATCH * D * 2),
            "ram": (lambda: next(ram), n_steps, BATCH * D * 2),
        }
        seconds = medians(
            {name: lambda f=f, n=n: [f() for _ in range(n)] for name, (f, n, _) in work.items()}, args.rounds
        )
        rate = {name: n * size / seconds[name] / 1e9 for name, (_, n, size) in work.items()}
        theirs = statistics.median(_rows_per_s(peer) for _ in range(3))
    ours = rate["stream"] * 1e9 / (D * 2)
    report(
        "store",
        {
            **{f"{name}_GBps": r for name, r in rate.items()},
            "stream_vs_zarr_chunks": rate["stream"] / rate["zarr_chunks"],
            "stream_vs_memcpy": rate["stream"] / rate["memcpy"],
            "ram_vs_memmap_gather": rate["ram"] / rate["memmap_gather"],
            "rows_vs_saelens_cache": ours / theirs,
            "stream_rows_per_s": ours,
            "saelens_rows_per_s": theirs,
            "stream_memory_over_window_chunks": held / CHUNK_BYTES - window,
            "window_chunks": window,
        },
    )


def _batches(store: ActivationStore, residency: Any) -> Iterator[Any]:
    return iter(BatchLoader(store, (HOOK_POINT,), BATCH, seed=0, n_steps=10**9, residency=residency))


def _zarr_array(store: ActivationStore) -> Any:
    import zarr

    return zarr.open_group(store.place.root, mode="r")[HOOK_POINT]


def _saelens(folder: Path, store: ActivationStore) -> Any:
    import datasets
    import torch
    from sae_lens.training.activations_store import ActivationsStore

    datasets.disable_progress_bars()
    features = datasets.Features({HOOK_POINT: datasets.Array2D(shape=(CONTEXT, D), dtype="float16")})
    rows = store.rows(HOOK_POINT, 0, SAELENS_ROWS).reshape(-1, CONTEXT, D)
    datasets.Dataset.from_dict({HOOK_POINT: rows}, features=features).save_to_disk(str(folder / "saelens"))
    return ActivationsStore(
        model=None, dataset=None, streaming=False, hook_name=HOOK_POINT, hook_head_index=None, context_size=CONTEXT, d_in=D,
        n_batches_in_buffer=SAELENS_BUFFER // CONTEXT, total_training_tokens=10**9, store_batch_size_prompts=16,
        train_batch_size_tokens=BATCH, prepend_bos=True, normalize_activations="none", device=torch.device("cpu"),
        dtype="float16", cached_activations_path=str(folder / "saelens"),
    )  # fmt: skip


def _rows_per_s(peer: Any) -> float:
    """Over one pass of its dataset; the first batches fill its buffer."""
    for _ in range(SAELENS_BUFFER // BATCH):
        next(peer)
    n, started = SAELENS_ROWS // BATCH, time.perf_counter()
    for _ in range(n):
        next(peer)
    return n * BATCH / (time.perf_counter() - started)


def _anonymous_bytes() -> int:
    """Of this process's memory what is not a file's."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("RssAnon"))


if __name__ == "__main__":
    main()
