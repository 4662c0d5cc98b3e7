"""What the benchmarks share: stores of noise, rounds through all contestants in turn, medians, one flat JSON file each."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stores.activations import ActivationStore
from stores.description import Description
from stores.writer import StoreWriter


def seconds_of(function: Callable[[], Any], device: str = "cpu") -> float:
    """Of a device from when it has done all before, to when it has done this."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        function()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e3
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def medians(work: Mapping[str, Callable[[], Any]], rounds: int, device: str = "cpu") -> dict[str, float]:
    """Seconds of each, the median over rounds in which they take turns, after one round that does not count: what
    disturbs a shared machine for a while disturbs all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for i in range(rounds + 1):
        for name, function in work.items():
            found = seconds_of(function, device)
            if i:
                seconds[name].append(found)
    return {name: statistics.median(s) for name, s in seconds.items()}


def report(name: str, figures: Mapping[str, Any]) -> None:
    """Print the figures and write runs/bench/NAME.json."""
    figures = {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in figures.items()}
    width = max(map(len, figures))
    for key, value in figures.items():
        print(f"{key:{width}}  {value}")
    machine = {"cores": os.cpu_count(), "threads": torch.get_num_threads(), "processor": platform.machine()}
    path = Path("runs/bench") / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**figures, **machine}, indent=2) + "\n")
    print(f"written: {path}")


def store_of_noise(path: Path, hook_point: str, d: int, n_rows: int, chunk_rows: int, context: int) -> ActivationStore:
    """A store of normal rows, float16, in chunks of chunk_rows, 16 to a shard."""
    description = Description(
        model="none", model_revision=None, model_digest="", tokenizer_digest="", weight_processing="none",
        precision="float32", text="none", text_digest=None, context=context, positions=tuple(range(context)), bos=True,
        hook_points=(hook_point,), d=(d,), dtype="float16", n_sequences=n_rows // context,
        heldout_fraction=0.01, chunk_sequences=chunk_rows // context, shard_chunks=16,
    )  # fmt: skip
    writer, rng = StoreWriter.create(path, description), np.random.default_rng(0)
    for shard in writer.missing():
        first, last = description.sequences(shard)
        x = rng.standard_normal(((last - first) * context, d), np.float32)
        writer.write_shard(shard, np.zeros((last - first, context), np.int32), {hook_point: x})
    return writer.close()
