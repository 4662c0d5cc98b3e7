"""How far the best rotation found is from the best there is: a bound from above on ΣG⁴.

    f(R) = Σ_i Σ_y (r_i·y)⁴ over the rows r_i of an orthogonal R = Σ_i v_iᵀ M v_i,  v_i = r_i r_iᵀ,  M = Σ_y (yyᵀ)(yyᵀ)ᵀ

in the space of symmetric matrices. The v_i are orthonormal and sum up to the identity: P = Σ v_i v_iᵀ is a projector of rank
d with I/√d in its range. Without the rest of what it is, f = tr PM is at most uᵀMu, u = I/√d, plus the d - 1 largest
eigenvalues of M on what is orthogonal to u (Ky Fan 1949). Every K with (rrᵀ)ᵀK(rrᵀ) = 0 for all r may be added to M: the
least bound over K is the dual of a semidefinite relaxation, and any K gives a valid one. At d = 2 it is exact.
"""

from typing import Any

import torch
from torch import Tensor

from pipeline.toy.mnist_rotation.settings import Settings
from pipeline.toy.mnist_rotation.several import Regime, eye, solved, solver, subjects
from pipeline.train.rotations.jacobians import Dense
from pipeline.train.rotations.measures import agreement
from pipeline.train.rotations.orthogonal import random_rotation
from pipeline.train.rotations.solvers import equal_inputs, solve
from stores.manifest import seed_of

N_STARTS = 6
PLANTED_D = 8


def quartic(y: Tensor, R: Tensor) -> float:
    """Mean over the rows of y (n, d) of Σ_i (r_i·y)⁴."""
    return float((y @ R.T).pow(4).sum(1).mean())


def uniform(y: Tensor) -> float:
    """The mean of quartic() over all orthogonal R: 3 |y|⁴ / (d + 2), mean over y."""
    return float(3 * y.square().sum(1).square().mean() / (y.shape[1] + 2))


def upper_bound(y: Tensor, n_steps: int = 0, lr: float = 0.02) -> float:
    """No orthogonal R has a larger quartic(y, R). y (n, d) float64. n_steps: of Adam on K; 0: the eigenvalues alone.

    Memory: d⁴ numbers a few times.
    """
    d = y.shape[1]
    basis = _symmetric_basis(d)  # (d², m), orthonormal
    squares = (y[:, :, None] * y[:, None, :]).flatten(1)
    M = squares.T @ squares / len(y)
    u = basis.T @ eye(d).flatten() / d**0.5
    across = torch.linalg.qr(torch.cat([u[:, None], eye(len(u))], 1))[0][:, 1 : len(u)]
    size = float(torch.linalg.eigvalsh(basis.T @ M @ basis)[-1])
    if size == 0:
        return 0.0
    free = torch.zeros(d * d, d * d, dtype=y.dtype, requires_grad=n_steps > 0)
    optimiser = torch.optim.Adam([free], lr=lr) if n_steps else None
    best = float("inf")
    for step in range(n_steps + 1):
        inner = basis.T @ (M / size + _vanishing(free, d)) @ basis
        value = u @ inner @ u + torch.linalg.eigvalsh(across.T @ inner @ across)[1 - d :].sum()
        best = min(best, size * float(value.detach()))
        if optimiser is not None and step < n_steps:
            optimiser.param_groups[0]["lr"] = lr * (1 - step / n_steps)
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
    return best


def _symmetric_basis(d: int) -> Tensor:
    """(d², d(d+1)/2): orthonormal symmetric matrices, flat, as columns."""
    i, j = torch.triu_indices(d, d)
    found = torch.zeros(d * d, len(i), dtype=torch.float64)
    column = torch.arange(len(i))
    weight = torch.where(i == j, 1.0, torch.full((), 0.5, dtype=torch.float64).sqrt())
    found[i * d + j, column] = weight
    found[j * d + i, column] = weight
    return found


def _vanishing(free: Tensor, d: int) -> Tensor:
    """K (d², d²) of any such matrix, with (rrᵀ)ᵀK(rrᵀ) = 0 for all r: what its quartic form does not see."""
    Z = (free + free.T).view(d, d, d, d)
    Z = Z + Z.transpose(0, 1)
    Z = Z + Z.transpose(2, 3)  # symmetric in each pair, and under their exchange
    return (Z - (Z + Z.permute(0, 2, 1, 3) + Z.permute(0, 3, 2, 1)) / 3).reshape(d * d, d * d)


def best_found(settings: Settings, y: Tensor, seed: int) -> tuple[float, Tensor]:
    """The largest quartic() that MSP reaches from N_STARTS starts, one of them the identity, and its R."""
    J = Dense(y[:, :, None])
    config = solver(settings, "out", "l4").model_copy(
        update={"equal_inputs": False, "n_iterations": 4 * settings.small_iterations}
    )
    found = []
    for k in range(N_STARTS):
        start = eye(y.shape[1]) if k == 0 else random_rotation(y.shape[1], seed_of("bound", seed, k))
        R = solve(J, config, eye(1), start)[1]
        found.append((quartic(y, R), R))
    return max(found, key=lambda pair: pair[0])


def planted(d: int, seed: int, share: float, n: int = 400) -> tuple[Tensor, Tensor]:
    """y (n, d) = s R with s normal, an entry not 0 with probability `share`; share 0: of each y just one entry, each axis
    as often. And R, which for share 0 is the best there is: quartic() cannot exceed the mean of |y|⁴."""
    generator = torch.Generator().manual_seed(seed_of("planted", d, seed))
    s = torch.randn(n, d, generator=generator, dtype=torch.float64)
    kept = torch.rand(n, d, generator=generator) < share if share else eye(d).repeat(-(-n // d), 1)[:n]
    R = random_rotation(d, seed_of("planted", seed))
    return (s * kept) @ R, R


def bounds(settings: Settings) -> dict[str, Any]:
    """By case, lists over seeds or nets: found / bound; of what a bound allows beyond random rotations, the part that is
    found; the same by eigenvalues alone; for planted ones, planted / found, and agreement of the axes."""
    cases: dict[str, list[dict[str, float]]] = {}
    for name, share in (("one entry", 0.0), ("a tenth", 0.1), ("all", 1.0)):
        cases[f"planted, {name}"] = []
        for seed in range(settings.bound_nets):
            y, R = planted(PLANTED_D, seed, share)
            row, found = _row(settings, y, seed)
            row |= {"planted": quartic(y, R) / row.pop("value"), "agreement": agreement(found, R)}
            cases[f"planted, {name}"].append(row)
    for width in (PLANTED_D, 2 * PLANTED_D):
        _, nets = subjects(settings, settings.bound_nets, Regime(width, n_steps=settings.small_steps))
        rows = cases[f"middle layer, width {width}"] = []
        for k, s in enumerate(nets):
            R_1 = solved(settings, s.fit[0], "out")[1]
            G = equal_inputs(s.fit[1]).product(None, R_1.T.float())  # its columns are what R_2 turns
            row, _ = _row(settings, G.mT.flatten(0, 1).double(), k)
            rows.append({key: value for key, value in row.items() if key != "value"})
    return {name: {key: [row[key] for row in rows] for key in rows[0]} for name, rows in cases.items()}


def _row(settings: Settings, y: Tensor, seed: int) -> tuple[dict[str, float], Tensor]:
    value, R = best_found(settings, y, seed)
    chance, eigen = uniform(y), upper_bound(y)
    bound = min(eigen, upper_bound(y, settings.bound_steps))
    return {
        "value": value,
        "share": value / bound,
        "share_eigen": value / eigen,
        "beyond_random": (value - chance) / (bound - chance),
        "random": chance / bound,
    }, R
