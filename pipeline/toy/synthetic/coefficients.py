"""What of known features a dictionary finds, told by its directions and told by its coefficients.

Scale can lie in the features or in their coefficients. With unit features the strengths carry it all, and a dictionary is
as good as its codes follow the true strengths.
"""

from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from pipeline.score.similarity import mcs, random_directions
from stores.dictionary import FeatureDictionary
from stores.manifest import seed_of
from stores.spec import Spec

FOUND = 0.9  # the cosine from which a feature counts as found


def correlations(codes: Tensor, strengths: Tensor) -> Tensor:
    """Pearson's r of each true strength with each code, (G, d_sae); 0 where either never changes.

    codes (n, d_sae), strengths (n, G), of the same rows.
    """
    a, b = (t.double() - t.double().mean(0) for t in (strengths, codes))
    size = a.norm(dim=0)[:, None] * b.norm(dim=0)
    return torch.where(size > 1e-9, a.T @ b / size.clamp_min(1e-9), 0.0)


def of_codes(codes: Tensor, strengths: Tensor) -> dict[str, float]:
    """Means over the true features, each matched with one code so that the correlations' sum is largest (Hungarian method).

    correlation: of the matched; a feature that is left without a code counts 0. error: Σ(z - s)² / Σs²; error_scaled: the
    same after the best factor for each feature, 1 - (Σzs)² / Σz²Σs². Both are 1 where z = 0, or without a code.
    """
    r = correlations(codes, strengths)
    G = len(r)
    rows, columns = linear_sum_assignment(r.numpy(), maximize=True)
    z, s = codes.double()[:, columns], strengths.double()[:, rows]
    power = s.square().sum(0).clamp_min(1e-12)
    error = (z - s).square().sum(0) / power
    scaled = 1 - (z * s).sum(0).square() / (z.square().sum(0) * power).clamp_min(1e-12)
    left = G - len(rows)
    return {
        "correlation": float(r[rows, columns].sum()) / G,
        "error": (float(error.sum()) + left) / G,
        "error_scaled": (float(scaled.sum()) + left) / G,
    }


def recovered(dictionary: FeatureDictionary, truth: Tensor, x: Tensor, strengths: Tensor) -> dict[str, Any]:
    """Both measures of one dictionary. truth (G, d) unit rows; x (n, d), strengths (n, G): rows not learned from.

    Features that are active on none of the rows are dead. mmcs: truth → live directions; floor: of as many random ones;
    found: share of true features with a cosine above FOUND; absent: share with none above the floor's 95th percentile;
    mcs: the cosines.
    """
    codes = dictionary.encode(x)
    live = dictionary.directions[(codes != 0).any(0)]
    chance = mcs(
        truth, random_directions(max(1, len(live)), truth.shape[1], seed_of("floor")), signed=dictionary.signed
    )
    own = mcs(truth, live, signed=dictionary.signed) if len(live) else torch.zeros(len(truth))
    limit = float(np.quantile(chance.numpy(), 0.95))
    return {
        "mmcs": float(own.mean()),
        "floor": float(chance.mean()),
        "found": float((own > FOUND).double().mean()),
        "absent": float((own <= limit).double().mean()),
        "dead": len(codes[0]) - len(live),
        "l0": float((codes != 0).sum(1).double().mean()),
        "fvu": float((x - dictionary.decode(codes)).square().sum() / (x - x.mean(0)).square().sum()),
        "mcs": own.double().numpy().round(3).tolist(),
        **of_codes(codes, strengths),
    }


def pca(x: Tensor) -> FeatureDictionary:
    """The principal components of x (n, d), codes signed."""
    mean = x.mean(0)
    V = torch.linalg.eigh((x - mean).double().T @ (x - mean).double()).eigenvectors.float()
    return FeatureDictionary(Spec("linear", x.shape[1], x.shape[1]), V, torch.zeros(x.shape[1]), V.T, mean)
