"""Independent component analysis: a rotation in whitened space, by scikit-learn."""

import numpy as np
import torch
from pydantic import Field

from pipeline.config import MethodConfig
from pipeline.train.linear import linear
from pipeline.train.source import Source
from stores.dictionary import FeatureDictionary
from stores.site import Site


class ICAConfig(MethodConfig):
    """n_rows: training rows. d_sae: how many components, all by default. n_iterations: at most; tolerance: of the change of
    a direction's cosine, at which to stop."""

    n_rows: int = Field(default=65_536, ge=2)
    d_sae: int | None = Field(default=None, ge=1)
    n_iterations: int = Field(default=200, ge=1)
    tolerance: float = Field(default=1e-3, gt=0)
    seed: int = Field(default=0, ge=0)

    def check(self, site: Site, d_in: int) -> None:
        super().check(site, d_in)
        if self.d_sae is not None and self.d_sae > d_in:
            raise ValueError(f"d_sae = {self.d_sae} is more than the {d_in} components there are")
        if self.n_rows < d_in:
            raise ValueError(f"n_rows = {self.n_rows} rows have fewer components than the {d_in} coordinates")


def ica(config: ICAConfig, source: Source, provenance: dict) -> FeatureDictionary:
    """FastICA, parallel, with log cosh (Hyvärinen and Oja 2000). Codes have unit variance.

    Raises ValueError: fewer rows than coordinates.
    """
    x = source.reads.rows(config.n_rows)
    if len(x) < x.shape[1]:
        raise ValueError(
            f"ICA at {source.site.name}: {len(x)} training rows for {x.shape[1]} coordinates, extract more"
        )
    import warnings

    from sklearn.decomposition import FastICA  # imported late: it takes a second
    from sklearn.exceptions import ConvergenceWarning

    fitted = FastICA(
        config.d_sae,
        whiten="unit-variance",
        whiten_solver="eigh",
        max_iter=config.n_iterations,
        tol=config.tolerance,
        random_state=config.seed,
    )
    with warnings.catch_warnings():  # not converged is what n_iterations asked for
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted.fit(x.astype(np.float64))
    C, mixing = torch.from_numpy(fitted.components_), torch.from_numpy(fitted.mixing_)
    return linear(source, C.T, mixing.T, provenance, torch.from_numpy(fitted.mean_))
