"""What the benchmarks share: rounds through all contestants in turn, medians, one flat JSON file each."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch


def medians(work: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Seconds of each, the median over rounds in which they take turns, after one round that does not count: what
    disturbs a shared machine for a while disturbs all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for i in range(rounds + 1):
        for name, function in work.items():
            started = time.perf_counter()
            function()
            if i:
                seconds[name].append(time.perf_counter() - started)
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
