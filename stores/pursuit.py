"""The encoder of a matching pursuit dictionary: one latent after another, each the one that fits best what is left.

    r_0 = x - b_dec
    i_t = argmax_i <r_t, W_dec,i>;    v_t = ReLU <r_t, W_dec,i_t>
    z_i_t += v_t;    r_t+1 = r_t - v_t W_dec,i_t

    |r_t+1|² = |r_t|² - v_t² (2 - |W_dec,i_t|²): with rows of unit length each step takes away v_t²

Source: Mallat, Zhang 1993, "Matching pursuits with time-frequency dictionaries", of positive products alone; as the encoder
of an autoencoder: Costa et al. 2025, "From flat to hierarchical: extracting sparse representations with matching pursuit",
arXiv:2506.03093.
"""

import torch
from torch import Tensor

from stores.shapes import Float


def matching_pursuit(
    x: Float[Tensor, "n d"],
    W_dec: Float[Tensor, "d_sae d"],
    k: int,
    residual_threshold: float = 0.0,
    stop_on_duplicate_support: bool = False,
) -> Float[Tensor, "n d_sae"]:
    """Codes, not negative, of x less b_dec. W_dec: used as it is; its rows are of unit length in a matching pursuit.

    k: how many latents are selected, one of them perhaps twice. A row ends sooner when no product is positive, when its
    residual has become shorter than residual_threshold (in units of x), and, if stop_on_duplicate_support, once a latent
    was selected a second time. Holds three tensors of n times d_sae at most.
    """
    z, residual = x.new_zeros(len(x), len(W_dec)), x
    done = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    for _ in range(k):
        value, index = (residual @ W_dec.T).max(dim=1, keepdim=True)
        value = value.relu() * ~done[:, None]
        done = done | (value == 0).squeeze(1)
        if stop_on_duplicate_support:
            done = done | (z.detach().gather(1, index) != 0).squeeze(1)
        z.scatter_add_(1, index, value)
        residual = residual - value * W_dec[index.squeeze(1)]
        done = done | (residual.norm(dim=1) < residual_threshold)
        if done.all():
            break
    return z
