"""What it means that features are directions: decomposability, linearity, and a compression that is not linear.

Source: Elhage et al. 2022, "Toy Models of Superposition", on decomposability and linearity.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.config import Config, UserError
from pipeline.models.files import ModelFiles
from pipeline.models.gpt2 import LanguageModel
from stores.manifest import seed_of

BASE = 10  # Z of the compression: one decimal


class Settings(Config):
    """d: of the decomposition. model: whose embedding is looked at, as extract.model. compression_steps: of the ReLU net."""

    d: int = Field(default=64, ge=2)
    n_samples: int = Field(default=1000, ge=1)
    model: str = "demo"
    compression_steps: int = Field(default=8000, ge=1)
    compression_width: int = Field(default=32, ge=1)


QUICK: dict[str, Any] = {"compression_steps": 500}


def decompose(x: Tensor, F: Tensor) -> Tensor:
    """Strengths read off by dot products: x (…, d), F (n_features, d) unit rows → (…, n_features).

    Exact when the rows of F are orthogonal; otherwise each reading has the others' interference F Fᵀ - I in it.
    """
    return x @ F.T


def decomposition(settings: Settings) -> dict[str, Any]:
    """Orthogonal features off the neurons' basis, and three features in two dimensions."""
    generator = torch.Generator().manual_seed(seed_of("decomposition"))
    rotation = torch.linalg.qr(torch.randn(settings.d, settings.d, generator=generator, dtype=torch.double)).Q
    angles = torch.arange(3, dtype=torch.double) * (2 * torch.pi / 3)
    triangle = torch.stack([angles.cos(), angles.sin()], dim=1)
    found = {}
    for name, F in (("orthogonal", rotation), ("triangle", triangle)):
        shape = (settings.n_samples, len(F))
        strength = torch.rand(shape, generator=generator, dtype=torch.double)
        for p in (1.0, 0.1):
            z = strength * (torch.rand(shape, generator=generator, dtype=torch.double) < p)
            read = decompose(z @ F, F)
            off = (read - z).abs()
            found[f"{name}, p = {p:g}"] = [float(off.max()), float(off.mean()), float((read.relu() - z).abs().mean())]
    return {
        "errors": found,
        "neuron_cosine": float(rotation.abs().amax(1).mean()),  # how far the features are from single neurons
        "triangle": triangle.tolist(),
        "interference": (triangle @ triangle.T).tolist(),
    }


def pack(x: Tensor, y: Tensor, base: int = BASE) -> Tensor:
    """t = (floor(Z x) + y) / Z: two numbers in one, for y < 1."""
    return ((base * x + 1e-9).floor() + y) / base  # 1e-9: 0.29 · 100 is 28.999…


def unpack(t: Tensor, base: int = BASE) -> tuple[Tensor, Tensor]:
    """x to one decimal of base Z, and y."""
    whole = (base * t + 1e-9).floor()
    return whole / base, base * t - whole


def compression(settings: Settings) -> dict[str, Any]:
    """Two numbers in one: the floor-based map, the best linear one, and a trained ReLU net."""
    tenths = torch.arange(10, dtype=torch.double) / 10
    xy = torch.cartesian_prod(tenths, tenths)
    unpacked = torch.stack(unpack(pack(xy[:, 0], xy[:, 1])), dim=1)
    # The best linear map of uniform numbers keeps their sum, or any other one direction: the covariance is isotropic.
    mean = xy.mean(0)
    direction = torch.tensor([1.0, 1.0], dtype=torch.double) / 2**0.5
    linear = (xy - mean) @ direction[:, None] * direction + mean
    net, history = _autoencoder(settings)
    with torch.no_grad():
        trained = net(xy.float()).double()
    over = [[y, *(float(v) for v in unpack(pack(torch.tensor(0.3), torch.tensor(y))))] for y in (0.2, 0.9, 1.2)]
    maps = {"floor": unpacked, "ReLU net": trained, "linear": linear}
    t = torch.linspace(0, 1, 400, dtype=torch.double)
    with torch.no_grad():
        code = net[0](xy.float())
        curve = net[1](torch.linspace(float(code.min()), float(code.max()), 400)[:, None])
    return {
        "recovered": {name: int(((out - xy).abs() < 0.05 - 1e-9).all(1).sum()) for name, out in maps.items()},
        "greatest_error": {name: float((out - xy).abs().max()) for name, out in maps.items()},
        "mse": {name: float((out - xy).square().mean()) for name, out in maps.items()},
        "over": over,
        "curves": {
            "floor": torch.stack(unpack(t), dim=1).tolist(),
            "ReLU net": curve.tolist(),
            "linear": [[0.0, 0.0], [0.9, 0.9]],
        },
        "history": history,
    }


def _autoencoder(settings: Settings) -> tuple[nn.Sequential, list[list[float]]]:
    """2 → width → width → 1 → width → width → 2, trained on uniform pairs in [0, 1)²."""
    generator = torch.Generator().manual_seed(seed_of("compression"))
    h = settings.compression_width

    def stack(d_in: int, d_out: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(d_in, h), nn.ReLU(), nn.Linear(h, h), nn.ReLU(), nn.Linear(h, d_out))

    net = nn.Sequential(stack(2, 1), stack(1, 2))
    with torch.no_grad():
        for parameter in net.parameters():
            bound = (parameter.shape[-1] if parameter.ndim > 1 else h) ** -0.5
            parameter.copy_((2 * torch.rand(parameter.shape, generator=generator) - 1) * bound * 3**0.5)
    optimiser = torch.optim.Adam(net.parameters(), lr=3e-3, fused=True)
    history = []
    for step in range(settings.compression_steps):
        optimiser.param_groups[0]["lr"] = 3e-3 * (1 - step / settings.compression_steps)
        x = torch.rand(512, 2, generator=generator)
        loss = (net(x) - x).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % max(1, settings.compression_steps // 50) == 0:
            history.append([step, round(loss.item(), 6)])
    return net, history


def plural_pairs(vocabulary: Mapping[str, int]) -> list[tuple[str, str]]:
    """(singular, plural) tokens: words of letters, with or without a leading space (Ġ), that are there with an s too."""
    words = sorted(t for t in vocabulary if re.fullmatch("Ġ?[a-z]{3,}", t) and t[-1] != "s")
    return [(word, word + "s") for word in words if word + "s" in vocabulary]


def plurality(settings: Settings) -> dict[str, Any]:
    """The mean offset from singular to plural in an embedding: does it hold for pairs it was not made from?"""
    files = ModelFiles.find(settings.model)
    vocabulary = files.tokenizer.get_vocab()
    pairs = plural_pairs(vocabulary)
    if len(pairs) < 8:
        raise UserError(
            f"representations.model: {settings.model} has {len(pairs)} plural pairs of tokens, 8 are needed"
        )
    W_E = LanguageModel(files).model.transformer.wte.weight.double()
    rng = np.random.default_rng(seed_of("plurality"))
    order = rng.permutation(len(pairs))
    singular, plural = (torch.tensor([vocabulary[pairs[i][side]] for i in order]) for side in (0, 1))
    words = [i for t, i in sorted(vocabulary.items()) if re.fullmatch("Ġ?[a-z]{3,}", t)]
    a, b = (torch.from_numpy(rng.choice(words, 2000)) for _ in range(2))
    null = (W_E[b] - W_E[a])[a != b]
    n_fit = len(pairs) // 2
    offset = (W_E[plural[:n_fit]] - W_E[singular[:n_fit]]).mean(0)
    held = W_E[plural[n_fit:]] - W_E[singular[n_fit:]]
    similarity, random = (nn.functional.cosine_similarity(rows, offset[None]) for rows in (held, null))
    null_offset = null[:n_fit].mean(0)
    by_null = nn.functional.cosine_similarity(held, null_offset[None])
    ranked = similarity.argsort(descending=True)
    names = [pairs[i] for i in order[n_fit:]]
    return {
        "model": settings.model,
        "n_pairs": len(pairs),
        "n_fit": n_fit,
        "cosine_held_out": similarity.tolist(),
        "cosine_random_pairs": random.tolist(),
        "cosine_null_direction": by_null.tolist(),
        "auc": auc(similarity, random),
        "auc_null_direction": auc(by_null, nn.functional.cosine_similarity(null[n_fit:], null_offset[None])),
        "rank_with_offset": _ranks(W_E, singular[n_fit:], plural[n_fit:], offset),
        "rank_without": _ranks(W_E, singular[n_fit:], plural[n_fit:], torch.zeros_like(offset)),
        "best": [[_shown(names[i]), float(similarity[i])] for i in ranked[:6].tolist()],
        "worst": [[_shown(names[i]), float(similarity[i])] for i in ranked[-6:].tolist()],
    }


def auc(positive: Tensor, negative: Tensor) -> float:
    """Probability that a positive is above a negative: ½ by chance."""
    return float((positive[:, None] > negative[None]).double().mean())


def _ranks(W_E: Tensor, singular: Tensor, plural: Tensor, offset: Tensor) -> list[int]:
    """Where the plural stands among all tokens by cosine with singular + offset; the singular left out; 1 is first."""
    unit = nn.functional.normalize(W_E, dim=-1)
    similarity = nn.functional.normalize(W_E[singular] + offset, dim=-1) @ unit.T
    similarity[torch.arange(len(singular)), singular] = -2
    right = similarity.gather(1, plural[:, None])
    return ((similarity > right).sum(1) + 1).tolist()


def _shown(pair: tuple[str, str]) -> str:
    return " → ".join(repr(word.replace("Ġ", " ")) for word in pair)


def inputs(settings: Settings) -> dict[str, Any]:
    """Raises UserError: no such model."""
    return {"model_digest": ModelFiles.find(settings.model).digest}


def parts(settings: Settings, folder: Path) -> dict[str, Callable[[], dict[str, Any]]]:
    return {part.__name__: lambda part=part: part(settings) for part in (decomposition, compression, plurality)}
