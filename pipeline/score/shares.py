"""Which of the hook points that it writes a feature belongs to.

    share_l = |W_dec,i^l| / Σ_l |W_dec,i^l|    in units of each hook point's scale, so that layers are comparable

Source: Lindsey et al. 2024, "Sparse crosscoders for cross-layer features and model diffing": the norms of a feature's
decoder vectors by layer.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from stores.activations import ActivationStore
from stores.dictionary import FeatureDictionary


def scaled_decoder(dictionary: FeatureDictionary, store: ActivationStore) -> list[Float[Tensor, "d_sae _"]]:
    """(d_sae, d) of each hook point that is written, times its scale: a row of the store has there a mean square of 1."""
    return [W * store.stats(hook_point).scale for hook_point, W in dictionary.written().items()]


def shares(blocks: list[Float[Tensor, "d_sae _"]]) -> Float[Tensor, "d_sae n_blocks"]:
    """(d_sae, n_writes) float64, nonnegative, of sum 1; zeros for a feature that writes nothing. blocks: (d_sae, d) each."""
    norms = torch.stack([block.double().norm(dim=1) for block in blocks], dim=1)
    return norms / norms.sum(1, keepdim=True).clamp_min(torch.finfo(norms.dtype).tiny)


def centres(share: Float[Tensor, "d_sae n_blocks"]) -> Float[Tensor, " d_sae"]:
    """(n,) centres of mass, 0 for the first hook point, n_writes - 1 for the last. share: (n, n_writes)."""
    return share @ torch.arange(share.shape[1], dtype=share.dtype)
