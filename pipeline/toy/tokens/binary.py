"""Eight tokens that are sums of four known features: what the penalty prefers to the features.

Every token is a sum of features; the reader wants latents that are the features. Many seeds are trained at once.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.toy.tokens.eight import matched, ordered
from stores.manifest import seed_of

FEATURES = ("cat", "dog", "robot", "happy")
TOKENS: dict[str, tuple[int, int, int, int]] = {
    "cat": (1, 0, 0, 0),
    "happy cat": (1, 0, 0, 1),
    "dog": (0, 1, 0, 0),
    "happy dog": (0, 1, 0, 1),
    "robot": (0, 0, 1, 0),
    "happy robot": (0, 0, 1, 1),
    "robot dog": (0, 1, 1, 0),
    "cat and dog": (1, 1, 0, 0),
}


@dataclass(frozen=True)
class Setup:
    """l1_coefficient: of Σ z, the squared error summed over coordinates; both averaged over tokens."""

    d_sae: int
    l1_coefficient: float
    lr: float
    n_steps: int
    n_seeds: int


@dataclass(frozen=True)
class Autoencoders:
    """W_enc (n_seeds, 4, d_sae), b_enc (n_seeds, 1, d_sae), W_dec (n_seeds, d_sae, 4); b_dec is left out: no token is
    the mean of the others. loss_l1: of Σ z alone, over training."""

    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor

    def encode(self, x: Tensor) -> Tensor:
        """(8, 4) → (n_seeds, 8, d_sae)"""
        return torch.relu(x @ self.W_enc + self.b_enc)


def data() -> Tensor:
    """(8, 4)"""
    return torch.tensor(list(TOKENS.values()), dtype=torch.float32)


def train(setup: Setup, unit_decoder: bool, seed: int = 0) -> Autoencoders:
    """All seeds at once under Adam, on all tokens in every step. unit_decoder: decoder rows are kept at length 1."""
    generator = torch.Generator().manual_seed(seed_of("tokens", seed))
    shape = (setup.n_seeds, setup.d_sae, len(FEATURES))
    W_dec = nn.functional.normalize(torch.randn(shape, generator=generator), dim=-1)
    W_enc = W_dec.transpose(1, 2).clone().requires_grad_()
    b_enc = torch.zeros(setup.n_seeds, 1, setup.d_sae, requires_grad=True)
    W_dec.requires_grad_()
    optimiser = torch.optim.Adam([W_enc, b_enc, W_dec], lr=setup.lr, fused=True)
    x = data()
    for _ in range(setup.n_steps):
        z = torch.relu(x @ W_enc + b_enc)
        loss = (x - z @ W_dec).square().sum(-1) + setup.l1_coefficient * z.sum(-1)
        optimiser.zero_grad()
        loss.mean(1).sum().backward()
        optimiser.step()
        if unit_decoder:
            with torch.no_grad():
                W_dec.div_(W_dec.norm(dim=-1, keepdim=True).clamp_min(1e-12))
    return Autoencoders(W_enc.detach(), b_enc.detach(), W_dec.detach())


def contributions(found: Autoencoders) -> Tensor:
    """(n_seeds, 8, d_sae): what each latent adds to each token's reconstruction, z_i |W_dec,i|: comparable between
    autoencoders whose codes are of another scale."""
    return found.encode(data()) * found.W_dec.norm(dim=-1)[:, None]


def reading(contribution: Tensor) -> tuple[str, ...]:
    """contribution (8, d_sae) → for each latent that is on, the tokens that it is on for (above 0.1), in a fixed order:
    what somebody who looks at the map would write down."""
    names = list(TOKENS)
    on = contribution > 0.1
    return tuple(
        sorted(", ".join(names[i] for i in column.nonzero()[:, 0].tolist()) for column in on.T if column.any())
    )


def kinds(W_dec: Tensor, live: Tensor) -> dict[str, int]:
    """W_dec (d_sae, 4), live (d_sae) → how many live latents point along one feature (cosine above 0.95), along a whole
    token of several features, or along neither."""
    directions = nn.functional.normalize(W_dec[live], dim=-1)
    composed = nn.functional.normalize(data()[data().sum(1) > 1], dim=-1)
    feature = directions.amax(1) > 0.95  # the features are the coordinates
    token = ~feature & ((directions @ composed.T).amax(1) > 0.95)
    return {"feature": int(feature.sum()), "token": int(token.sum()), "neither": int((~feature & ~token).sum())}


def beside(maps: np.ndarray) -> list:
    """(n, 8, d_sae): the latents of the first map ordered, those of the others matched to it."""
    reference = maps[0][:, ordered(maps[0])]
    return [one[:, matched(reference, one)[0]].round(3).tolist() for one in maps]


def measure(setup: Setup, unit_decoder: bool) -> dict[str, Any]:
    """The maps of the first seeds; of every seed what its autoencoder is like; and how many readings there are."""
    found = train(setup, unit_decoder)
    x, contribution = data(), contributions(found)
    on = contribution > 0.1
    live = on.any(1)
    z = found.encode(x)
    error = (x - z @ found.W_dec).square().sum((1, 2)) / x.square().sum()
    norm = found.W_dec.norm(dim=-1)
    counts = Counter(reading(c) for c in contribution)
    sorts = [kinds(W, alive) for W, alive in zip(found.W_dec, live, strict=True)]
    lists = {
        "error": error,
        "l0": on.sum(-1).double().mean(-1),
        "live": live.sum(-1),
        "mean_code": z.sum((1, 2)) / (z > 0).sum((1, 2)).clamp_min(1),
        "decoder_norm": (norm * live).sum(1) / live.sum(1).clamp_min(1),
    }
    return {
        "maps": beside(contribution[:4].detach().numpy()),
        "n_seeds": setup.n_seeds,
        "n_readings": len(counts),
        "commonest": [[n / setup.n_seeds, list(latents)] for latents, n in counts.most_common(3)],
        **{name: np.round(values.tolist(), 5).tolist() for name, values in lists.items()},
        **{f"latents_{kind}": [s[kind] for s in sorts] for kind in ("feature", "token", "neither")},
        "only_features": [int(s["feature"] >= 4 and s["token"] + s["neither"] == 0) for s in sorts],
    }
