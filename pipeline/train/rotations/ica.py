"""Independent component analysis: a rotation in whitened space, by scikit-learn."""

import numpy as np
import torch
from pydantic import Field

from pipeline.train.baselines import ComponentsConfig
from pipeline.train.linear import linear
from pipeline.train.source import Source
from stores.dictionary import FeatureDictionary


class ICAConfig(ComponentsConfig):
    """Independent components: a rotation in whitened space, by FastICA (Hyvärinen and Oja 2000)."""

    n_iterations: int = Field(default=200, ge=1, description="How many at most.")
    tolerance: float = Field(default=1e-3, gt=0, description="Change of a direction's cosine at which to stop.")
    seed: int = Field(default=0, ge=0, description="Of the rotation to begin with.")


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
