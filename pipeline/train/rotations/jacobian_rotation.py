"""The rotations of what an MLP reads and what it writes in which its Jacobian is sparse, learned from a store's rows.

The dictionary reads blocks.L.hook_resid_mid, from where all follows by the weights, and writes blocks.L.hook_mlp_out: its
architecture is "bases", the input axes and the output axes. What the rotations did to Jacobians at training and held-out
rows lies beside it in jacobian.json and jacobian.png.
"""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float, Float64
from pydantic import Field
from torch import Tensor

from pipeline.train.kernels import product_dtype
from pipeline.train.rotations.findings import jacobians_at, write_findings
from pipeline.train.rotations.mlp_jacobians import Weights
from pipeline.train.rotations.orthogonal import INITS, initial
from pipeline.train.rotations.solvers import Solver, SolverConfig, equal_inputs
from pipeline.train.source import Source
from stores.dictionary import FeatureDictionary
from stores.manifest import seed_of
from stores.site import Site
from stores.spec import Spec

_N_ROWS = 4096  # for second moments and for what is found
_N_COMPARED = 1024  # rows at which the end is compared with the beginning: as long as 6 to 10 steps with 16 columns


class JacobianRotationConfig(SolverConfig):
    """The rotations of what an MLP reads and what it writes in which its Jacobian is sparse (Baker 2022)."""

    # On the demo model's layer 1 the eigenvectors begin at a log of 3.03 on held-out rows (3.54 before), and 390 steps end
    # as low from random rotations and by way of MSP as from there: at 2.92 with 32 columns, at 2.93 with 16 (and at 3.01
    # with a tenth of the rate, no epsilon_start and 8 columns).
    msp: float = Field(default=0.0, ge=0, le=1)
    equal_inputs: bool = True
    layer_norm: bool = Field(
        default=True,
        description="Whether the Jacobian is by the residual stream, the layer norm's derivative in it, or by what the MLP "
        "reads.",
    )
    n_inputs: int = Field(default=256, ge=1, description="How many rows of each batch are learned from.")
    n_fit: int = Field(
        default=0,
        ge=0,
        description="From how many training rows alone it learns, again and again; 0: from all. Where several values are "
        "listed, by_n_fit.png shows how many are enough.",
    )
    columns: int = Field(default=16, ge=0)
    init: str = Field(
        default="eigen",
        pattern=f"^({'|'.join(INITS)})$",
        description=f"Both sides' axes to begin with, one of {', '.join(INITS)}: of the MLP's matrices (qr, svd), or of the "
        "Jacobians' second moments at 4,096 rows, or those n_fit (eigen).",
    )

    def check(self, site: Site, d_in: int) -> None:
        self.check_columns(d_in)
        if site.writes != (written := f"blocks.{layer_of(site)}.hook_mlp_out",):
            raise ValueError(f'it is made of what an MLP reads and writes: set writes = "{written}"')


def layer_of(site: Site) -> int:
    """Raises ValueError: what is read is not before an MLP."""
    match = re.fullmatch(r"blocks\.(\d+)\.hook_resid_mid", site.reads[0]) if len(site.reads) == 1 else None
    if not match:
        raise ValueError("it is made from what an MLP's layer norm reads: blocks.L.hook_resid_mid")
    return int(match[1])


class WithFindings(FeatureDictionary):
    """Bases that, when they are saved, say beside them what they do to the Jacobians."""

    findings: Callable[[Path], None]

    def save(self, path: Path | str) -> None:
        """All else is there before provenance.json is."""
        self.findings(Path(path))
        super().save(path)


class JacobianRotationLearner:
    """Solver over a stream of batches. State: the solver's, and the sum of what the MLP wrote."""

    def __init__(self, config: JacobianRotationConfig, source: Source, device: str) -> None:
        mlp = source.weights().mlp(layer_of(source.site))
        self.config, self.mlp, self.source = config, mlp.to(device, torch.float32), source
        self.weights = Weights.of(self.mlp, config.layer_norm)
        self.ranks = source.ranks
        self.fitted = torch.from_numpy(source.reads.rows(config.n_fit or _N_ROWS))  # those alone, or the first of all
        R_in, R_out = self._start(device)
        fields = set(SolverConfig.model_fields)
        solver_config = SolverConfig(**config.model_dump(include=fields))
        self.solver = Solver(solver_config, R_in, R_out, product_dtype(source.precision, device))
        self.solver.state |= {
            "output_sum": torch.zeros(mlp.d_model, dtype=torch.float64, device=device),
            "output_n": torch.zeros((), dtype=torch.float64, device=device),
        }

    def _start(self, device: str) -> tuple[Float64[Tensor, "d d"], Float64[Tensor, "d d"]]:
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

    def step(
        self,
        x: Float[Tensor, "batch d_model"],
        step: int,
        n_steps: int,
        y: Float[Tensor, "batch d_out"] | None = None,
    ) -> dict[str, Float64[Tensor, ""]]:
        """x: raw activations; what the MLP makes of them follows from its weights. Returns what was
        minimised in this step, before it."""
        x = self._inputs(x, step).to(torch.float32)
        self.solver.state["output_sum"] += self.mlp(x).double().sum(0)
        self.solver.state["output_n"] += len(x)
        J = jacobians_at(self.mlp, x, self.config.layer_norm, self.weights)
        return self.solver.step(J, step, n_steps)

    def _inputs(self, x: Float[Tensor, "batch d_model"], step: int) -> Float[Tensor, "n_inputs d_model"]:
        """At most n_inputs: of this batch, or drawn from the rows fitted to."""
        if not self.config.n_fit:
            return self.ranks.whole_batch(x)[: self.config.n_inputs]
        generator = torch.Generator().manual_seed(seed_of("inputs", self.config.seed, step))
        drawn = torch.randperm(len(self.fitted), generator=generator)[: self.config.n_inputs]
        return self.fitted[drawn].to(x.device)

    def state(self) -> dict[str, Float64[Tensor, "..."]]:
        return self.solver.state

    def load_state(self, state: dict[str, Float64[Tensor, "..."]]) -> None:
        self.solver.load_state(state)

    def best(self) -> tuple[dict[str, Float64[Tensor, "d d"]], bool]:
        """The solver's, by the rows fitted to; of many, the first, and no more columns than a few steps look at."""
        rows = self.fitted[:_N_COMPARED].to(self.solver.R["in"].device)
        J = jacobians_at(self.mlp, rows, self.config.layer_norm, self.weights)
        n_columns = self.config.columns * _N_COMPARED // len(rows)
        return self.solver.best(J, n_columns if n_columns < self.mlp.d_model else 0)

    def to_dictionary(self, provenance: dict) -> WithFindings:
        """architecture "bases". Its provenance says kept_start: whether the beginning was sparser than the end."""
        state, site = self.solver.state, self.source.site
        R, kept_start = self.best()
        R_in, R_out = R["in"].cpu(), R["out"].cpu()
        provenance = {**provenance, "kept_start": kept_start}
        d, mean = len(R_in), torch.from_numpy(self.source.reads.mean)
        spec = Spec("bases", d, d, site, provenance=provenance, d_out=d)
        written = (state["output_sum"] / state["output_n"]).cpu()
        found = WithFindings(spec, R_in.T, -R_in.double() @ mean, R_out, written)
        rows = {"train": self.fitted, "heldout": torch.from_numpy(self.source.reads.heldout(_N_ROWS))}
        found.findings = partial(
            write_findings,
            site=site.name,
            mlp=self.mlp,
            rows={name: found for name, found in rows.items() if len(found)},
            n_fit=len(self.fitted) if self.config.n_fit else int(state["output_n"]),
            R=R,
            kept_start=kept_start,
            layer_norm=self.config.layer_norm,
            objective=self.config.objective,
        )
        return found
