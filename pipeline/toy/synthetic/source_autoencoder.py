"""The autoencoder of Sharkey, Braun, Millidge 2022 as it was, several side by side: what the known answers are of.

    c = ReLU(x W_enc + b_enc),  x_hat = c W_dec;  loss = mean over rows and d of (x - x_hat)² + α mean over rows and d_sae of c

The families of the train stage have since learned to weigh decoder norms, warm the penalty up and learn b_dec; with these
the same grid has fewer dead features.
"""

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from stores.dictionary import FeatureDictionary
from stores.manifest import seed_of
from stores.site import Site
from stores.spec import Spec

BATCH = 256


class Weights(NamedTuple):
    """W_enc (n, d, d_sae), b_enc (n, 1, d_sae), W_dec (n, d_sae, d) with unit rows: of n autoencoders."""

    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor

    def dictionaries(self, hook_point: str = "") -> list[FeatureDictionary]:
        made = []
        for W_enc, b_enc, W_dec in zip(*self, strict=True):
            d, d_sae = W_enc.shape
            spec = Spec("standard", d, d_sae, Site.at(hook_point), provenance={"method": "source autoencoder"})
            made.append(FeatureDictionary(spec, W_enc, b_enc[0], W_dec, torch.zeros(d)))
        return made


def begin(n: int, d: int, d_sae: int, seed: int) -> Weights:
    """n times the same: W_dec orthogonal (torch's orthogonal_, then rows made unit), the encoder as torch's Linear."""
    generator = torch.Generator().manual_seed(seed_of("source autoencoder", seed, d_sae))
    W_dec = nn.init.orthogonal_(torch.empty(d, d_sae), generator=generator).T
    W_enc = (2 * torch.rand(d, d_sae, generator=generator) - 1) * d**-0.5
    b_enc = (2 * torch.rand(1, d_sae, generator=generator) - 1) * d**-0.5
    W_dec = nn.functional.normalize(W_dec, dim=-1)
    return Weights(*(w.expand(n, *w.shape).clone() for w in (W_enc, b_enc, W_dec)))


def train(
    x: Tensor,
    start: Weights,
    alphas: Sequence[float],
    n_steps: int,
    seed: int = 0,
    in_blocks: bool = False,
    looks: Collection[int] = (),
    look: Callable[[int, Weights], None] | None = None,
) -> Weights:
    """One autoencoder for each α, on the same rows x (n_rows, d): 256 a step, Adam at 1e-3.

    in_blocks: a step sees one block of 256 rows that follow each other, as the source's code has it. look(step, weights)
    is called before the steps in `looks`. The gradient is written out: a step takes two thirds of autograd's time.
    """
    n, d, d_sae = start.W_enc.shape
    generator = torch.Generator().manual_seed(seed_of("source autoencoder's rows", seed))
    weights = Weights(*(w.clone().contiguous() for w in start))
    W_enc, b_enc, W_dec = weights
    optimiser = torch.optim.Adam(list(weights), lr=1e-3, fused=True)
    penalty = (torch.tensor(alphas) / (BATCH * d_sae))[:, None, None]
    looks = set(looks)
    with torch.no_grad():
        for step in range(n_steps):
            if look is not None and step in looks:
                look(step, weights)
            if in_blocks:
                first = BATCH * int(torch.randint(0, len(x) // BATCH, (1,), generator=generator))
                batch = x[first : first + BATCH]
            else:
                batch = x[torch.randint(0, len(x), (BATCH,), generator=generator)]
            batch = batch.expand(n, -1, -1)
            c = torch.baddbmm(b_enc, batch, W_enc).relu_()
            d_out = torch.baddbmm(batch, c, W_dec, beta=-1).mul_(2 / (BATCH * d))
            d_pre = torch.baddbmm(penalty, d_out, W_dec.mT).mul_(c > 0)
            W_dec.grad = c.mT @ d_out
            W_enc.grad = batch.mT @ d_pre
            b_enc.grad = d_pre.sum(1, keepdim=True)
            optimiser.step()
            W_dec.div_(W_dec.norm(dim=-1, keepdim=True))
    if look is not None and n_steps in looks:
        look(n_steps, weights)
    return weights
