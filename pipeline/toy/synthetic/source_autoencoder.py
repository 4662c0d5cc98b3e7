"""The autoencoder of Sharkey, Braun, Millidge 2022 as it was, several penalties at once: what the known answers are of.

The families of the train stage have since learned to weigh decoder norms, warm the penalty up and learn b_dec; with these
the same grid has fewer dead features.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from stores.dictionary import FeatureDictionary
from stores.manifest import seed_of
from stores.site import Site
from stores.spec import Spec


def train(x: Tensor, d_sae: int, alphas: Sequence[float], n_steps: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """x (n, d) → W_enc (n_alphas, d, d_sae), b_enc (n_alphas, d_sae), W_dec (n_alphas, d_sae, d), unit rows.

    c = ReLU(x W_enc + b_enc), x_hat = c W_dec; loss = mean over rows and d of (x - x_hat)² + α mean over rows and d_sae of c.
    W_dec starts orthogonal, its rows made unit again after each step; the encoder starts as torch's Linear does; 256 rows a
    step, Adam, 1e-3.
    """
    d, n = x.shape[1], len(alphas)
    generator = torch.Generator().manual_seed(seed_of("source autoencoder", seed, d_sae))
    start = nn.init.orthogonal_(torch.empty(d, d_sae), generator=generator).T
    W_dec = nn.functional.normalize(start, dim=-1).expand(n, -1, -1).clone().requires_grad_()
    W_enc = ((2 * torch.rand(n, d, d_sae, generator=generator) - 1) * d**-0.5).requires_grad_()
    b_enc = ((2 * torch.rand(n, 1, d_sae, generator=generator) - 1) * d**-0.5).requires_grad_()
    alpha = torch.tensor(alphas)
    optimiser = torch.optim.Adam([W_dec, W_enc, b_enc], lr=1e-3, fused=True)
    for _ in range(n_steps):
        batch = x[torch.randint(0, len(x), (256,), generator=generator)]
        c = torch.relu(torch.baddbmm(b_enc, batch.expand(n, -1, -1), W_enc))
        loss = (batch - c @ W_dec).square().mean((1, 2)) + alpha * c.mean((1, 2))
        optimiser.zero_grad()
        loss.sum().backward()
        optimiser.step()
        with torch.no_grad():
            W_dec.copy_(nn.functional.normalize(W_dec, dim=-1))
    return W_enc.detach(), b_enc.detach()[:, 0], W_dec.detach()


def to_dictionaries(weights: tuple[Tensor, Tensor, Tensor], hook_point: str) -> list[FeatureDictionary]:
    """One of each penalty."""
    made = []
    for W_enc, b_enc, W_dec in zip(*weights, strict=True):
        d, d_sae = W_enc.shape
        spec = Spec("standard", d, d_sae, Site.at(hook_point), provenance={"method": "source autoencoder"})
        made.append(FeatureDictionary(spec, W_enc, b_enc, W_dec, torch.zeros(d)))
    return made
