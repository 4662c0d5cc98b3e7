"""The rotations of what an MLP reads and what it writes in which its Jacobian is sparse, learned from a store's rows.

A dictionary at blocks.L.hook_resid_mid, from where all follows by the weights: its features are the input axes. The
output axes are a second dictionary, at blocks.L.hook_mlp_out, saved below the first in the folder `output`. What the
rotations did to Jacobians at training and held-out rows lies beside it in jacobian.json and jacobian.png.
"""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor

from pipeline.models.mlp import MLP
from pipeline.train.kernels import product_dtype
from pipeline.train.rotations.findings import jacobians_at, write_findings
from pipeline.train.rotations.jacobians import Weights
from pipeline.train.rotations.msp import linear
from pipeline.train.rotations.orthogonal import INITS, initial
from pipeline.train.rotations.solvers import Solver, SolverConfig, equal_inputs
from pipeline.train.source import Source
from stores.dictionary import OUTPUT, FeatureDictionary
from stores.manifest import seed_of

_N_ROWS = 4096  # for second moments and for what is found


class JacobianRotationConfig(SolverConfig):
    """layer_norm: whether the Jacobian is by the residual stream, the layer norm's derivative in it, or by what the MLP
    reads. n_inputs: how many rows of each batch are learned from. n_fit: learn from so many training rows alone, again and
    again, to see how many are enough (by_n_fit.png, where several values are listed); 0: from all. init: of both sides;
    "eigen" from 4,096 rows or those n_fit.

    msp is 0 by default: on the demo model's layer 1 the eigenvectors begin at a log of 3.03 on held-out rows (3.54 before),
    and 390 steps end as low from random rotations and by way of MSP as from there: at 2.92 with 32 columns, at 2.93 with 16
    (and at 3.01 with a tenth of the rate, no epsilon_start and 8 columns).
    """

    msp: float = Field(default=0.0, ge=0, le=1)
    equal_inputs: bool = True
    layer_norm: bool = True
    n_inputs: int = Field(default=256, ge=1)
    n_fit: int = Field(default=0, ge=0)
    columns: int = Field(default=16, ge=0)
    init: str = Field(default="eigen", pattern=f"^({'|'.join(INITS)})$")

    def check(self, d_in: int, hook_point: str) -> None:
        super().check(d_in, hook_point)
        layer_of(hook_point)


def layer_of(hook_point: str) -> int:
    """Raises ValueError: the hook point is not before an MLP."""
    match = re.fullmatch(r"blocks\.(\d+)\.hook_resid_mid", hook_point)
    if not match:
        raise ValueError("it is made from what an MLP's layer norm reads: set hook_points to blocks.L.hook_resid_mid")
    return int(match[1])


def mlp_of(source: Source) -> tuple[int, MLP]:
    """(layer, its MLP). Raises ValueError: the hook point is not before an MLP."""
    layer = layer_of(source.hook_point)
    return layer, source.weights().mlp(layer)


class WithOutput(FeatureDictionary):
    """The dictionary of the input axes, which brings that of the output axes with it when it is saved, and what
    write_findings says of both."""

    output: FeatureDictionary
    findings: Callable[[Path], None]

    def save(self, path: Path | str) -> None:
        """All else is there before provenance.json of the input's is."""
        self.output.save(Path(path) / OUTPUT)
        self.findings(Path(path))
        super().save(path)


class JacobianRotationLearner:
    """Solver over a stream of batches. State: the solver's, and the sum of what the MLP wrote."""

    def __init__(self, config: JacobianRotationConfig, source: Source, device: str) -> None:
        layer, mlp = mlp_of(source)
        self.config, self.mlp, self.source = config, mlp.to(device, torch.float32), source
        self.weights = Weights.of(self.mlp, config.layer_norm)
        self.output_hook_point = f"blocks.{layer}.hook_mlp_out"
        self.mean, self.ranks = torch.from_numpy(source.moments.mean), source.ranks
        self.fitted = torch.from_numpy(source.rows(config.n_fit or _N_ROWS))  # those alone, or the first of all
        R_in, R_out = self._start(device)
        fields = set(SolverConfig.model_fields)
        solver_config = SolverConfig(**config.model_dump(include=fields))
        self.solver = Solver(solver_config, R_in, R_out, product_dtype(source.precision, device))
        self.solver.state |= {
            "output_sum": torch.zeros(mlp.d_model, dtype=torch.float64, device=device),
            "output_n": torch.zeros((), dtype=torch.float64, device=device),
        }

    def _start(self, device: str) -> tuple[Tensor, Tensor]:
        config, mlp, d = self.config, self.mlp, self.mlp.d_model
        moments: tuple[Tensor, Tensor] | None = None
        if config.init == "eigen":
            J = jacobians_at(mlp, self.fitted.to(device), config.layer_norm)
            moments = (equal_inputs(J) if config.equal_inputs else J).second_moments()
        starts = {}
        for side, seed, weights in (
            ("in", config.seed, mlp.W_in),
            ("out", seed_of("output", config.seed), mlp.W_out.T),
        ):
            moment = moments and (lambda i=side == "out": moments[i])
            R = initial(config.init, d, seed, weights=lambda W=weights: W, moment=moment)
            fixed = config.side not in (side, "both")
            starts[side] = (torch.eye(d, dtype=torch.float64) if fixed else R).to(device)
        return starts["in"], starts["out"]

    def step(self, x: Tensor, step: int, n_steps: int) -> dict[str, Tensor]:
        """x: (batch, d_model) raw activations. Returns what was minimised in this step, before it."""
        x = self._inputs(x, step).to(torch.float32)
        self.solver.state["output_sum"] += self.mlp(x).double().sum(0)
        self.solver.state["output_n"] += len(x)
        J = jacobians_at(self.mlp, x, self.config.layer_norm, self.weights)
        return self.solver.step(J, step, n_steps)

    def _inputs(self, x: Tensor, step: int) -> Tensor:
        """(at most n_inputs, d_model): of this batch, or drawn from the rows fitted to."""
        if not self.config.n_fit:
            return self.ranks.whole_batch(x)[: self.config.n_inputs]
        generator = torch.Generator().manual_seed(seed_of("inputs", self.config.seed, step))
        drawn = torch.randperm(len(self.fitted), generator=generator)[: self.config.n_inputs]
        return self.fitted[drawn].to(x.device)

    def state(self) -> dict[str, Tensor]:
        return self.solver.state

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.solver.load_state(state)

    def to_dictionary(self, hook_point: str, provenance: dict) -> WithOutput:
        """architecture "linear", at hook_point; its `output` at hook_mlp_out of the same layer."""
        state = self.solver.state
        there = {**provenance, "hook_point": self.output_hook_point}
        found = linear(state["R_in"], self.mean, hook_point, provenance)
        both = WithOutput(found.spec, found.W_enc, found.b_enc, found.W_dec, found.b_dec)
        rows = {"train": self.fitted, "heldout": torch.from_numpy(self.source.heldout(_N_ROWS))}
        both.findings = partial(
            write_findings,
            hook_point=hook_point,
            mlp=self.mlp,
            rows={name: found for name, found in rows.items() if len(found)},
            n_fit=len(self.fitted) if self.config.n_fit else int(state["output_n"]),
            R=self.solver.R,
            layer_norm=self.config.layer_norm,
            objective=self.config.objective,
        )
        both.output = linear(state["R_out"], state["output_sum"] / state["output_n"], self.output_hook_point, there)
        return both
