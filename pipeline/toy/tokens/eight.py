"""The source's eight tokens and its autoencoder: Linear(4, d_sae), ReLU, Linear(d_sae, 4), from many seeds at once.

    loss = mean over entries of (x_hat - x)² + w · mean over entries of |z|;  Adam, all eight tokens in every step

Source: Xiang 2025, "Sparse AutoEncoder: from Superposition to interpretable features". Its text speaks of three dimensions
and of an "energetic dog"; its code has four dimensions and a "loyal dog", as here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import normalize

from pipeline.toy.networks import Networks, adam
from stores.manifest import seed_of

TOKENS: dict[str, tuple[float, float, float, float]] = {
    "cat": (0.8, 0.3, 0.1, 0.05),
    "happy cat": (0.82, 0.32, 0.12, 0.06),
    "dog": (0.7, 0.2, 0.05, 0.2),
    "loyal dog": (0.75, 0.3, 0.1, 0.25),
    "not cat": (0.05, 0.9, 0.4, 0.4),
    "not dog": (0.15, 0.85, 0.35, 0.5),
    "robot": (0.0, 0.7, 0.9, 0.8),
    "ai assistant": (0.1, 0.6, 0.85, 0.75),
}
NAMES = tuple(TOKENS)
READINGS = {"pets": NAMES[:4], "robots": NAMES[6:], "not an animal": NAMES[4:]}  # that the source has latents for
ALL = "all three"
ON = 0.05  # of a latent's largest value: above it the latent is on
LIVE = 0.01  # of the largest contribution in the autoencoder: below it a latent cannot be seen in the picture


def data() -> Tensor:
    """(8, 4)"""
    return torch.tensor(list(TOKENS.values()))


def around(n_each: int, noise: float, generator: torch.Generator) -> Tensor:
    """(8 n_each, 4): normal draws around the tokens."""
    x = data().repeat_interleave(n_each, 0)
    return x + noise * torch.randn(x.shape, generator=generator)


def encode(networks: Networks, x: Tensor) -> Tensor:
    """(n_tokens, 4) → (n, n_tokens, d_sae)"""
    W, b = networks.weights[0], networks.biases[0]
    return torch.baddbmm(b, x.expand(len(W), -1, -1), W).relu()


def begin(n_seeds: int, n_settings: int, d_sae: int, *stream: str) -> Networks:
    """n_settings times the same n_seeds beginnings, setting by setting; torch's Linear by default. stream: other seeds."""
    generator = torch.Generator().manual_seed(seed_of("eight tokens", d_sae, *stream))
    drawn = Networks.drawn(n_seeds, (4, d_sae, 4), generator)
    weights, biases = ([p.detach().repeat(n_settings, 1, 1) for p in ps] for ps in (drawn.weights, drawn.biases))
    return Networks(weights, biases)


def train(
    networks: Networks,
    penalty: Tensor,
    n_steps: int,
    lr: float,
    x: Tensor | None = None,
    unit_rows: bool = False,
    look: Callable[[int], None] | None = None,
    look_at: Sequence[int] = (),
) -> None:
    """In place. penalty (n): w of each network. x: by default the eight tokens. unit_rows: decoder rows are kept at length
    1. look: called before the steps that look_at names, and with n_steps at the end."""
    x = data() if x is None else x
    parameters = list(networks.parameters())
    optimiser = adam(parameters, lr)
    for step in range(n_steps + 1):
        if look and step in look_at:
            look(step)
        if step == n_steps:
            break
        z = encode(networks, x)
        out = torch.baddbmm(networks.biases[1], z, networks.weights[1])
        loss = (out - x).square().mean((1, 2)) + penalty * z.mean((1, 2))
        optimiser.zero_grad()
        loss.sum().backward()
        optimiser.step()
        if unit_rows:
            with torch.no_grad():
                networks.weights[1].div_(networks.weights[1].norm(dim=-1, keepdim=True).clamp_min(1e-12))


@dataclass(frozen=True)
class Code:
    """What n autoencoders make of the tokens: z (n, 8, d_sae), decoder rows (n, d_sae, 4), x_hat (n, 8, 4)."""

    z: Tensor
    rows: Tensor
    x_hat: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, networks: Networks) -> "Code":
        z = encode(networks, data())
        return cls(z, networks.weights[1].detach(), networks(data()))

    @property
    def contribution(self) -> Tensor:
        """(n, 8, d_sae): z_i |W_dec,i|, what a latent adds to a token's reconstruction."""
        return self.z * self.rows.norm(dim=-1)[:, None]

    @property
    def error(self) -> Tensor:
        """(n,): mean squared error, the mean over entries."""
        return (self.x_hat - data()).square().mean((1, 2))


def on(contribution: Tensor, share: float = ON) -> Tensor:
    """(n, 8, d_sae) bool: where each latent is on. A latent that is not live is on nowhere."""
    most = contribution.amax(-2, keepdim=True)
    live = most > LIVE * contribution.amax((-2, -1), keepdim=True)
    return (contribution > share * most) & live


def shows(on: Tensor) -> dict[str, Tensor]:
    """on (n, 8, d_sae) → reading → (n, d_sae) bool: the latents that are on for its tokens and for no other."""
    wanted = {name: torch.tensor([t in tokens for t in NAMES]) for name, tokens in READINGS.items()}
    return {name: (on == tokens[:, None]).all(-2) for name, tokens in wanted.items()}


def readings(code: Code, share: float = ON) -> dict[str, list]:
    """Of each autoencoder: whether it has each reading, and all three (1 or 0); live: how many latents are on for some
    token; sets: for how many different sets of tokens; named: the share of the live latents that show one of the three
    readings; l0: latents that are on, per token; error."""
    is_on = on(code.contribution, share)
    shown = shows(is_on)
    has = {name: found.any(-1) for name, found in shown.items()}
    live = is_on.any(-2)
    sets = [len({tuple(column) for column in one.T.tolist() if any(column)}) for one in is_on]
    named = torch.stack(list(shown.values())).any(0).sum(-1) / live.sum(-1).clamp_min(1)
    every = torch.stack(list(has.values())).all(0)
    return {
        **{name: found.int().tolist() for name, found in has.items()},
        ALL: every.int().tolist(),
        "live": live.sum(-1).tolist(),
        "sets": sets,
        "named": np.round(named.tolist(), 4).tolist(),
        "l0": np.round(is_on.sum(-1).double().mean(-1).tolist(), 4).tolist(),
        "error": [float(f"{e:.3g}") for e in code.error.tolist()],
    }


def ordered(contribution: np.ndarray) -> np.ndarray:
    """(8, d_sae) → the latents from those on the first tokens to those on the last; latents that do nothing come last."""
    total = contribution.sum(0)
    place = (np.arange(len(contribution)) @ contribution) / np.maximum(total, 1e-12)
    return np.lexsort((place, total <= LIVE * contribution.max()))


def matched(reference: np.ndarray, contribution: np.ndarray) -> tuple[np.ndarray, float]:
    """Which latent of an autoencoder stands where one of the reference does, both (8, d_sae): the pairing of greatest summed
    cosine over tokens (Hungarian method). And the mean cosine of the pairs in which the reference's latent is live."""
    a, b = (normalize(torch.from_numpy(c), dim=0).numpy() for c in (reference, contribution))
    cosine = a.T @ b
    _, order = linear_sum_assignment(cosine, maximize=True)
    live = reference.max(0) > LIVE * reference.max()
    return order, float(cosine[np.arange(len(order)), order][live].mean()) if live.any() else float("nan")


def quantile_run(loss: Tensor, part: float) -> int:
    """The run below or at which this part of the others lies, by loss (n,); the lower one of two."""
    return int(loss.argsort()[int(part * (len(loss) - 1))])


def maps(sparse: Code, loss: Tensor, dense: Code) -> list[dict[str, Any]]:
    """The runs of `sparse` at the quartiles of their loss, the median one first, its latents ordered; then the run of the
    median's seed in `dense`. The latents of all are matched to the median's."""
    picked = {"median loss": 0.5, "lower quartile": 0.25, "upper quartile": 0.75}
    seeds = {name: quantile_run(loss, part) for name, part in picked.items()}
    median = seeds["median loss"]
    reference = sparse.contribution[median].numpy()
    reference = reference[:, ordered(reference)]
    shown = [(name, seed, sparse) for name, seed in seeds.items()] + [("no penalty", median, dense)]
    found = []
    for name, seed, code in shown:
        contribution = code.contribution[seed].numpy()
        order, cosine = matched(reference, contribution)
        values = contribution[:, order].round(4).tolist()
        found.append({"run": name, "seed": seed, "cosine": round(cosine, 3), "map": values})
    return found


def agreement(code: Code) -> dict[str, list[float]]:
    """Of disjoint pairs of runs, the first with the second, the third with the fourth, and so on: the mean cosine of
    matched latents. shuffled: the same when the tokens of each latent of the second run change places at random, which
    keeps how large its values are."""
    maps = code.contribution.numpy()
    pairs = list(zip(maps[::2], maps[1::2]))  # of an odd number the last is left out
    rng = np.random.default_rng(seed_of("agreement"))
    return {
        "pairs": [round(matched(a, b)[1], 4) for a, b in pairs],
        "shuffled": [round(matched(a, rng.permuted(b, axis=0))[1], 4) for a, b in pairs],
    }
