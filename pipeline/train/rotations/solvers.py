"""Solvers for the rotations in which Jacobians, or activations, are sparse.

    G = R_out J R_inᵀ for each input;  minimise the mean of objective(G) over orthogonal R_in, R_out, or one of them

First MSP (matching, stretching, projection): R ← polar(∂ΣG⁴/∂R). That is R_in ← polar(Σ G^{∘3ᵀ} R_out J) and R_out ←
polar(Σ G^{∘3} (J R_inᵀ)ᵀ), the two sides in turns. No learning rate, and since ΣG⁴ is convex in each side it never falls
on the same inputs (Zhai et al. 2020). Its optimum is a little beside the sparsest one, so then a polish of the objective
itself: Adam on the antisymmetric matrices around R, R ← retraction(-step) R.

Neither is sure to end lower than it began: MSP minimises another objective, and few steps, sampled columns or a high rate
may leave a good beginning. What is returned is the lower of the two, by the objective itself.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from pipeline.train.rotations.config import Side, SolverConfig
from pipeline.train.rotations.jacobians import Jacobians, sampled_columns, split
from pipeline.train.rotations.objectives import OBJECTIVES
from pipeline.train.rotations.orthogonal import RETRACTIONS, antisymmetric, polar
from stores.manifest import seed_of

_BUDGET = 2**29  # bytes that one product with its gradient may take
_BETAS = (0.9, 0.99)


def gradient(
    J: Jacobians,
    R: dict[str, Float[Tensor, "_ _"]],
    objective: str,
    epsilon: float,
    scale: Float[Tensor, ""],
    wrt: Sequence[str],
    columns: Int64[Tensor, "n_inputs c"] | None = None,
    *,
    watch: Sequence[tuple[str, float]] = (),
) -> tuple[dict[str, Float64[Tensor, "_ _"]], list[Float64[Tensor, ""]]]:
    """Euclidean gradients, by the sides in wrt, of the objective of R_out J R_inᵀ / scale, mean over inputs, float64. The
    products are in J's dtype, the objective at least in float32.

    R: {"in": (d_in, d_in), "out": (d_out, d_out)}. columns: of each input, or None for all. watch:
    (objective, epsilon) pairs whose values are wanted besides. Memory: _BUDGET.
    """
    n, _, d_in = J.shape
    values = [torch.zeros((), dtype=torch.float64, device=scale.device) for _ in watch]
    sums = {side: torch.zeros_like(R[side], dtype=torch.float64) for side in wrt}
    leaves = {side: R[side].to(J.dtype, copy=True).requires_grad_() for side in wrt}
    left, right = (leaves[side] if side in wrt else _held(R[side], J.dtype) for side in ("out", "in"))
    n_columns = d_in if columns is None else columns.shape[1]
    for start, part in split(J, n_columns, _BUDGET):
        share = part.shape[0] / n
        picked = None if columns is None else columns[start : start + part.shape[0]]
        G = part.product(left, None if right is None else right.T, picked)
        x = G.detach().to(torch.promote_types(J.dtype, torch.float32))
        x = x.div_(scale.to(x.dtype))  # in place: what is large is written once
        for value, (name, at) in zip(values, watch):
            value += OBJECTIVES[name].of(x, at).double() * share
        slope = OBJECTIVES[objective].slope(x, epsilon).mul_(share / scale)
        for side, found in zip(wrt, torch.autograd.grad(G, [leaves[side] for side in wrt], slope.to(J.dtype))):
            sums[side] += found
    return sums, values


def _held(R: Float[Tensor, "d d"], dtype: torch.dtype) -> Float[Tensor, "d d"] | None:
    """None for the identity, by which nothing needs to be multiplied."""
    eye = torch.eye(len(R), dtype=R.dtype, device=R.device)
    return None if torch.equal(R, eye) else R.to(dtype)


def rotated(
    J: Jacobians, R_in: Float[Tensor, "a d_in"], R_out: Float[Tensor, "b d_out"]
) -> Float[Tensor, "n_inputs b a"]:
    """G: for as many inputs as there is memory for."""
    return J.product(R_out.to(J.dtype), R_in.T.to(J.dtype))


def rms(J: Jacobians, each: bool = False) -> Float64[Tensor, "*n_inputs"]:
    """Root mean square over entries and inputs, or of each input: no rotation changes it. 1 for zeros."""
    _, d_out, d_in = J.shape
    squares = J.squared_norms().double() / (d_out * d_in)
    found = (squares if each else squares.mean()).sqrt()
    return torch.where(found > 0, found, 1.0)


def equal_inputs(J: Jacobians) -> Jacobians:
    """Each input's Jacobian in units of its own root mean square."""
    return J.scaled(1 / rms(J, each=True))


@torch.no_grad()
def value(J: Jacobians, R: dict[str, Float[Tensor, "_ _"]], config: SolverConfig, n_columns: int = 0) -> float:
    """What a solver of this config minimises: the objective of R_out J R_inᵀ, mean over inputs, J in units of its rms.

    R: as in gradient(). n_columns: drawn for each input, an estimate without bias; 0: all.
    """
    J = equal_inputs(J) if config.equal_inputs else J
    n, _, d_in = J.shape
    scale, total = rms(J), 0.0
    columns = sampled_columns(n, d_in, n_columns, seed_of("value", config.seed)).to(scale.device) if n_columns else None
    for start, part in split(J, n_columns or d_in, _BUDGET):
        picked = None if columns is None else columns[start : start + part.shape[0]]
        G = part.product(R["out"].to(J.dtype), R["in"].T.to(J.dtype), picked)
        total += float(OBJECTIVES[config.objective].of(G / scale.to(G.dtype), config.epsilon)) * part.shape[0] / n
    return total


class Solver:
    """One step a batch. State: a dict of tensors, float64, from which it goes on with the same bits. dtype: of the polish's
    products, J's own by default; MSP has no later steps that would average its rounding away."""

    def __init__(
        self,
        config: SolverConfig,
        R_in: Float[Tensor, "d_in d_in"],
        R_out: Float[Tensor, "d_out d_out"],
        dtype: torch.dtype | None = None,
    ) -> None:
        self.config, self.dtype = config, dtype
        self.sides: tuple[str, ...] = ("out", "in") if config.side == "both" else (config.side,)
        self.state = {"R_in": R_in.double().clone(), "R_out": R_out.double().clone()}
        self.state["scale"] = torch.ones((), dtype=torch.float64, device=R_in.device)
        for side in self.sides:
            self.state[f"start_{side}"] = self.state[f"R_{side}"].clone()
            for name in ("sum", "first", "second"):  # of MSP's iteration; moments of Adam
                self.state[f"{name}_{side}"] = torch.zeros_like(self.state[f"R_{side}"])

    @property
    def R(self) -> dict[str, Float64[Tensor, "_ _"]]:
        return {"in": self.state["R_in"], "out": self.state["R_out"]}

    def best(self, J: Jacobians, n_columns: int = 0) -> tuple[dict[str, Float64[Tensor, "_ _"]], bool]:
        """R where its objective is lower than that of what it began as, or that; and whether that. J, n_columns: of value()."""
        start = {side: self.state.get(f"start_{side}", R) for side, R in self.R.items()}
        ends, began = (value(J, R, self.config, n_columns) for R in (self.R, start))
        return (self.R, False) if ends < began else (start, True)

    def load_state(self, state: dict[str, Float64[Tensor, "..."]]) -> None:
        self.state = {k: state[k].to(v.device) for k, v in self.state.items()}

    def step(self, J: Jacobians, step: int, n_steps: int) -> dict[str, Float64[Tensor, ""]]:
        """Learn from one batch; n_steps in all. Returns the objective before the step, and during MSP "l4", ΣG⁴'s mean."""
        if self.config.equal_inputs:
            J = equal_inputs(J)
        if step == 0:
            self.state["scale"].copy_(rms(J))
        config, columns = self.config, None
        if config.columns:
            n, _, d_in = J.shape
            seed = seed_of("columns", config.seed, step)
            columns = sampled_columns(n, d_in, config.columns, seed).to(self.state["R_in"].device)
        n_msp = n_steps if config.objective == "l4" else round(config.msp * n_steps)
        if step < n_msp:
            return self._match(J, columns, step, n_msp)
        return self._polish(J, columns, step - n_msp, n_steps - n_msp)

    def _match(
        self, J: Jacobians, columns: Int64[Tensor, "n_inputs c"] | None, step: int, n_steps: int
    ) -> dict[str, Float64[Tensor, ""]]:
        config = self.config
        n = min(config.n_iterations, n_steps)
        iteration = step * n // n_steps
        side = self.sides[iteration % len(self.sides)]
        watch = [("l4", 0.0)] + [(config.objective, config.epsilon)] * (config.objective != "l4")
        sums, values = gradient(J, self.R, "l4", 0.0, self.state["scale"], [side], columns, watch=watch)
        self.state[f"sum_{side}"] -= sums[side]
        if (step + 1) * n // n_steps > iteration:
            self.state[f"R_{side}"] = polar(self.state[f"sum_{side}"])
            self.state[f"sum_{side}"].zero_()
        found = {name: value for (name, _), value in zip(watch, values)}
        return {**found, "l4": -found["l4"]}

    def _polish(
        self, J: Jacobians, columns: Int64[Tensor, "n_inputs c"] | None, step: int, n_steps: int
    ) -> dict[str, Float64[Tensor, ""]]:
        config = self.config
        epsilon = config.epsilon_start * (config.epsilon / config.epsilon_start) ** (step / n_steps)
        watch = [(config.objective, config.epsilon)]
        J, scale = J.to(self.dtype or J.dtype), self.state["scale"]
        sums, (value,) = gradient(J, self.R, config.objective, epsilon, scale, self.sides, columns, watch=watch)
        beta, gamma = _BETAS
        for side in self.sides:
            R, first, second = (self.state[f"{name}_{side}"] for name in ("R", "first", "second"))
            A = antisymmetric(sums[side], R)
            first.mul_(beta).add_(A, alpha=1 - beta)
            second.mul_(gamma).addcmul_(A, A, value=1 - gamma)
            # the same for an entry and its opposite, so that the step stays antisymmetric
            size = (second / (1 - gamma ** (step + 1))).sqrt() + 1e-12
            lr = (config.lr or 0.3 / len(R) ** 0.5) * (1 - step / n_steps)
            move = first / (1 - beta ** (step + 1)) / size
            self.state[f"R_{side}"] = RETRACTIONS[config.retraction](-lr * move) @ R
        return {config.objective: value}


def solve(
    J: Jacobians,
    config: SolverConfig,
    R_in: Float[Tensor, "d_in d_in"],
    R_out: Float[Tensor, "d_out d_out"],
    n_polish: int = 200,
) -> tuple[Float64[Tensor, "d_in d_in"], Float64[Tensor, "d_out d_out"], list[float]]:
    """R_in, R_out, and the objective before each step (for "l4" what grows, the mean of G⁴).

    config.n_iterations of MSP, for both sides together, then n_polish steps; each on all of J. R_in and R_out are those
    given, bit for bit, where the objective over J is no lower at the end.
    """
    n_steps = config.n_iterations + (0 if config.objective == "l4" else n_polish)
    solver = Solver(config.model_copy(update={"msp": config.n_iterations / n_steps}), R_in, R_out)
    values = [float(solver.step(J, step, n_steps)[config.objective]) for step in range(n_steps)]
    R, _ = solver.best(J)
    return R["in"], R["out"], values


def chain(
    layers: Sequence[Jacobians], config: SolverConfig, *, backward: bool = False, n_polish: int = 200
) -> list[Float64[Tensor, "_ _"]]:
    """R_0 … R_L for the layers' Jacobians J_1 … J_L at the same inputs: R_l J_l R_{l-1}ᵀ is sparse.

    Forward: R_0 = I, for the inputs' coordinates are what they are, then one layer after another; backward: R_L = I, and
    from the output to the input (Baker 2022). Each rotation is solved for once, the one before it held.
    """
    d = [layers[0].shape[2], *(J.shape[1] for J in layers)]
    if any(below.shape[1] != above.shape[2] for below, above in pairwise(layers)):
        raise ValueError(f"the layers' shapes {[J.shape[1:] for J in layers]} do not fit together")
    start = [torch.eye(n, dtype=torch.float64) for n in d]
    R = list(start)
    for i in reversed(range(len(layers))) if backward else range(len(layers)):
        side: Side = "in" if backward else "out"
        R[i], R[i + 1], _ = solve(layers[i], config.model_copy(update={"side": side}), R[i], R[i + 1], n_polish)
    ends, began = (
        sum(value(J, {"in": below, "out": above}, config) for J, (below, above) in zip(layers, pairwise(turns)))
        for turns in (R, start)
    )
    return R if ends <= began else start
