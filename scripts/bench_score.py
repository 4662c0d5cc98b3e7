"""Speed and memory of scoring.

    python -m scripts.bench_score [--rounds 5]

mmcs_24576_s: MMCS both ways of two dictionaries of 24,576 random directions of 768 coordinates, the hardest to tell apart, with
which is nearest to which; beside it the product alone, in the type that finds candidates and in float32, block by block.
mmcs_24576_peak_MiB: how far a process that does nothing else rises above its inputs.
Writes runs/bench/score.json.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.products import linear
from pipeline.score import nearest
from pipeline.score.nearest import nearest_both_ways
from scripts.bench import medians, report

N, D = 24_576, 768


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    report("score", similarity(parser.parse_args().rounds))


def similarity(rounds: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(N, D, generator=generator), torch.randn(N, D, generator=generator)
    rough = torch.bfloat16 if nearest.native_bfloat16(a.device) else torch.float32
    halves = a.to(rough), b.to(rough)
    seconds = medians(
        {
            "mmcs": lambda: nearest_both_ways(a, b, signed=False),
            "product": lambda: _product(*halves),
            "product_float32": lambda: _product(a, b),
        },
        rounds,
    )
    code = f"from scripts.bench_score import peak_mib; print(peak_mib({N}, {D}))"
    peak = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True).stdout
    return {
        "mmcs_24576_s": seconds["mmcs"],
        "mmcs_24576_peak_MiB": float(peak),
        **{f"mmcs_24576_{name}_s": seconds[name] for name in ("product", "product_float32")},
        **{f"mmcs_24576_{name}_GFLOPps": 2 * N * N * D / s / 1e9 for name, s in seconds.items()},
    }


def _product(a: Tensor, b: Tensor) -> None:
    for rows in a.split(nearest.ROWS):
        for columns in b.split(nearest.COLUMNS):
            linear(rows, columns, None)


def peak_mib(n: int, d: int) -> float:
    """How far this process rises above n directions of d coordinates twice. Linux."""
    small = torch.randn(512, d)
    nearest_both_ways(small, small, signed=False)  # what the libraries hold
    a, b = torch.randn(n, d), torch.randn(n, d)
    before = _highest_mib()
    nearest_both_ways(a, b, signed=False)
    return _highest_mib() - before


def _highest_mib() -> float:
    """getrusage would count what the process that started this one held."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


if __name__ == "__main__":
    main()
