"""Speed and truth of rotation solvers, against PyTorch's orthogonal parametrisation under Adam.

    python -m scripts.bench_rotation [--quick]

Planted: inputs with sparse Jacobians (a tenth of the entries, normal) seen through a rotation of the input side, at
(d, n_inputs) = (32, 64), (64, 64), (128, 32), three seeds. First the steps to a matched |cosine| of 0.98 with it are
counted, then so many are timed, three times, without a look in between; medians. The baseline is given both of PyTorch's
maps and two rates, with each objective: msp_vs_torch_orthogonal is by the best of those that minimise log, which is
what one would give to Adam (L4's optimum lies beside the sparsest); msp_vs_torch_orthogonal_l4 by the best of those that
were told to use MSP's own. Recovery of planted rotations by MSP and polish, the worst of five seeds: one side, and
both, at d = 128. One pass over 4,096 inputs of an MLP of GPT-2 small's shape: both gradients of the log objective
with the layer norm's derivative, 8 columns sampled, a step of Adam on each side, and two projections. Writes
runs/bench/rotation.json.
"""

import argparse
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice, product
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.models.mlp import MLP
from pipeline.train.rotations.jacobians import Dense
from pipeline.train.rotations.measures import agreement
from pipeline.train.rotations.mlp_jacobians import OfMLP
from pipeline.train.rotations.objectives import OBJECTIVES
from pipeline.train.rotations.orthogonal import polar, random_rotation
from pipeline.train.rotations.solvers import Solver, SolverConfig, solve
from scripts.bench import report
from stores.manifest import seed_of

SIZES, SEEDS, ENOUGH, COLUMNS = ((32, 64), (64, 64), (128, 32)), range(5), 0.98, 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed of the smallest size")
    quick = parser.parse_args().quick
    seeds = range(1) if quick else SEEDS
    seconds, gib = _pass_768()  # first: it measures the whole process's memory
    found: dict[str, Any] = {}
    for d, n in SIZES[:1] if quick else SIZES:
        problems = [planted(d, n, seed) for seed in seeds[:3]]
        msp = statistics.median(_seconds(partial(_msp, *p), p[1], 200) for p in problems)
        found[f"msp_s_{d}"] = msp
        for objective, suffix in (("log", ""), ("l4", "_l4")):
            best, best_s = "none", float("inf")
            for name, lr in product(("matrix_exp", "cayley"), (0.1, 0.03)):
                times = [_seconds(partial(_torch, *p, name, objective, lr), p[1], 400) for p in problems]
                if statistics.median(times) < best_s:
                    best, best_s = f"{name}, lr {lr}", statistics.median(times)
            found[f"msp_vs_torch_orthogonal{suffix}_{d}"] = best_s / msp
            found[f"torch_orthogonal{suffix}_best_{d}"] = best
    names = [f"msp_vs_torch_orthogonal{suffix}" for suffix in ("", "_l4")]
    worst = {name: min(v for k, v in found.items() if k.rsplit("_", 1)[0] == name) for name in names}
    report(
        "rotation",
        {
            **worst,
            **found,
            "planted_recovered": min(_recovered(128, 32, s, both=False) for s in seeds),
            "planted_recovered_both_sides": min(_recovered(128, 32, s, both=True) for s in seeds),
            "pass_768_s": seconds,
            "pass_768_gib": gib,
            "pass_768_columns": COLUMNS,
        },
    )


def planted(d: int, n: int, seed: int, both: bool = False) -> tuple[Dense, Tensor, Tensor]:
    """Jacobians R_outᵀ S R_in with sparse S; R_in; R_out."""
    generator = torch.Generator().manual_seed(seed_of("planted", seed))
    S = torch.randn(n, d, d, generator=generator) * (torch.rand(n, d, d, generator=generator) < 0.1)
    R_in = random_rotation(d, seed_of("planted in", seed)).float()
    R_out = random_rotation(d, seed_of("planted out", seed)).float() if both else torch.eye(d)
    return Dense(R_out.T @ S @ R_in), R_in, R_out


def _recovered(d: int, n: int, seed: int, both: bool) -> float:
    J, R_in, R_out = planted(d, n, seed, both)
    config = SolverConfig(side="both" if both else "in", n_iterations=40)
    start = random_rotation(d, seed_of("start out", seed)) if both else torch.eye(d)
    found_in, found_out, _ = solve(J, config, random_rotation(d, seed), start, n_polish=400 if both else 100)
    return min(agreement(found_in, R_in), agreement(found_out, R_out))


def _msp(J: Dense, R_in: Tensor, R_out: Tensor) -> Iterator[Tensor]:
    d = len(R_in)
    solver = Solver(SolverConfig(objective="l4", side="in", n_iterations=200), random_rotation(d, 0), R_out)
    for step in range(200):
        solver.step(J, step, 200)
        yield solver.R["in"]


def _torch(J: Dense, R_in: Tensor, R_out: Tensor, name: str, objective: str, lr: float) -> Iterator[Tensor]:
    d = len(R_in)
    layer = nn.Linear(d, d, bias=False)
    with torch.no_grad():
        layer.weight.copy_(random_rotation(d, 0))
    nn.utils.parametrizations.orthogonal(layer, orthogonal_map=name)
    optimiser = torch.optim.Adam(layer.parameters(), lr=lr)
    scale = float(J.squared_norms().mean().sqrt()) / d
    while True:
        loss = OBJECTIVES[objective].of(J.J @ layer.weight.T / scale, 0.1)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        yield layer.weight.detach()


def _seconds(solver: Callable[[], Iterator[Tensor]], truth: Tensor, limit: int) -> float:
    """Of the steps up to the first with ENOUGH agreement, the median of three runs; infinity: none of `limit` had."""
    needed = next((i for i, R in enumerate(islice(solver(), limit), 1) if agreement(R, truth) >= ENOUGH), None)
    if needed is None:
        return float("inf")
    times = []
    for _ in range(3):
        started = time.perf_counter()
        for _ in islice(solver(), needed):
            pass
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def _pass_768() -> tuple[float, float]:
    generator = torch.Generator().manual_seed(0)
    draw: Callable[..., Tensor] = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    d, d_mlp = 768, 3072
    weights = draw(d, d_mlp) * 0.05, draw(d_mlp) * 0.1, draw(d_mlp, d) * 0.05, draw(d)
    mlp = MLP(*weights, 1 + 0.1 * draw(d), 0.1 * draw(d))
    x = draw(4096, d)
    config = SolverConfig(objective="log", side="both", msp=0.0, columns=COLUMNS)
    solver = Solver(config, random_rotation(d, 0), random_rotation(d, 1))
    started = time.perf_counter()
    solver.step(OfMLP(mlp, x), 0, 1)
    for side in ("in", "out"):
        polar(solver.R[side])
    seconds = time.perf_counter() - started
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
