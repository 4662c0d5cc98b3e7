"""The local interaction basis: axes that are not orthogonal, for comparison with rotations.

Bushnaq et al. 2024, "The Local Interaction Basis": first the principal axes of the activations, each divided by its
standard deviation; in that frame the eigenvectors of E[JᵀJ]; coordinates that nothing after depends on come last.
"""

import numpy as np
import torch
from jaxtyping import Float, Float64
from pydantic import Field
from torch import Tensor

from pipeline.config import MethodConfig
from pipeline.train.linear import linear
from pipeline.train.rotations.findings import jacobians_at
from pipeline.train.rotations.jacobian_rotation import layer_of
from pipeline.train.source import Source
from stores.dictionary import FeatureDictionary
from stores.site import Site

_TINY = 1e-10  # of the largest eigenvalue: what float32 rows and weights can tell from nothing


class LocalInteractionBasisConfig(MethodConfig):
    """The local interaction basis of what an MLP reads (Bushnaq et al. 2024): axes that are not orthogonal."""

    n_rows: int = Field(default=16_384, ge=2, description="How many training rows the moments are of.")
    layer_norm: bool = Field(
        default=True, description="Whether the layer norm's derivative is in the Jacobian that the axes are made from."
    )

    def check(self, site: Site, d_in: int) -> None:
        super().check(site, d_in)
        if self.n_rows < d_in:
            raise ValueError(f"n_rows = {self.n_rows} rows span fewer than the {d_in} coordinates")
        layer_of(site)


def interaction_basis(
    covariance: Float[Tensor, "d d"], JtJ: Float[Tensor, "d d"]
) -> tuple[Float64[Tensor, "k d"], Float64[Tensor, "d k"]]:
    """C and its inverse, k = the rank of the covariance.

    covariance = U D Uᵀ, D^½ Uᵀ JtJ U D^½ = V Λ Vᵀ; C = Λ^½ Vᵀ D^-½ Uᵀ. In these coordinates both the covariance and
    E[JᵀJ] are diagonal, Λ and I. Directions that J does not depend on keep a Λ of 1e-10 of the largest.
    """
    D, U = torch.linalg.eigh(covariance.double())
    kept = _TINY * D[-1] < D
    U, root = U[:, kept], D[kept].sqrt()
    Lambda, V = torch.linalg.eigh(root[:, None] * (U.T @ JtJ.double() @ U) * root)
    Lambda, V = Lambda.flip(0).clamp_min(_TINY * float(Lambda[-1])), V.flip(1)
    size = Lambda.sqrt()
    return size[:, None] * (V.T / root) @ U.T, (U * root) @ V / size


def local_interaction_basis(config: LocalInteractionBasisConfig, source: Source, provenance: dict) -> FeatureDictionary:
    """fit. J: of the MLP that reads at blocks.L.hook_resid_mid, to what it writes."""
    mlp = source.weights().mlp(layer_of(source.site))
    rows = source.reads.rows(config.n_rows)
    x = torch.from_numpy(rows)
    JtJ, _ = jacobians_at(mlp.to("cpu", torch.float32), x, config.layer_norm).second_moments()
    covariance = torch.from_numpy(np.cov(rows.T.astype(np.float64), bias=True))
    C, inverse = interaction_basis(covariance, JtJ)
    return linear(source, C.T, inverse.T, provenance)
