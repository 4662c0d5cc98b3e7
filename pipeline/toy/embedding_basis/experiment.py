"""The singular vectors of a language model's embedding as axes of its residual stream.

The discussion of Baker 2022 has it that rotating the matrices connected to the residual stream by them makes the weights near
the first layer sparse, less and less deeper in, and that the first of them is about raw token frequency. One model is
looked at, so the intervals are over its matrices, over random rotations and over tokens: they say nothing of other models.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from pipeline.config import Config, UserError
from pipeline.extract.text import text_files
from pipeline.models.files import ModelFiles
from pipeline.toy.embedding_basis.tokens import TEXT, extremes, frequency, kinds, separation, token_counts
from pipeline.toy.embedding_basis.weights import (
    MATRICES,
    MEASURES,
    embedding_axes,
    model_weights,
    sparsity,
    stream_matrices,
)
from pipeline.train.rotations.orthogonal import random_rotation
from stores.manifest import digest, file_digest, seed_of

BASES = {"as it is": False, "centred": True}  # of the embedding → whether its mean over tokens is taken out


class Settings(Config):
    """model: as extract.model. n_rotations: random ones. n_files: of the standard library, in which tokens are counted.
    n_axes: the first singular vectors, that are looked at; n_draws: sets of as many random directions. n_extremes: tokens
    shown at each end."""

    model: str = "demo"
    n_rotations: int = Field(default=100, ge=3)
    n_files: int = Field(default=200, ge=1)
    n_axes: int = Field(default=10, ge=1)
    n_draws: int = Field(default=200, ge=3)
    n_extremes: int = Field(default=10, ge=1)


QUICK: dict[str, Any] = {"n_rotations": 10, "n_files": 40, "n_draws": 100}


def _measured(R: Tensor, layers: list[dict[str, Tensor]]) -> list[list[list[float]]]:
    """[layer][matrix][measure] of the matrices in the axes R (d_model, d_model)."""
    found = [[sparsity(R @ layer[name]) for name in MATRICES] for layer in layers]
    return [[[round(values[measure], 6) for measure in MEASURES] for values in layer] for layer in found]


def weights(settings: Settings) -> dict[str, Any]:
    """Sparsity of the matrices, [layer][matrix][measure], in the model's own axes, in those of the embedding, and in random
    ones: their mean and standard deviation, and for each measure in how many rotations each matrix was sparser."""
    files = ModelFiles.find(settings.model)
    every = model_weights(files)
    layers, W_E = stream_matrices(every, files.n_layers), every["wte.weight"]
    d = W_E.shape[1]
    found = {"neurons": _measured(torch.eye(d, dtype=torch.float64), layers)}
    found |= {name: _measured(embedding_axes(W_E, centred), layers) for name, centred in BASES.items()}
    random = np.array(
        [_measured(random_rotation(d, seed_of("embedding-basis", i)), layers) for i in range(settings.n_rotations)]
    )
    return {
        "model": settings.model,
        "d_model": d,
        "n_rotations": settings.n_rotations,
        "matrices": list(MATRICES),
        "measures": list(MEASURES),
        "bases": found,
        "random_mean": np.round(random.mean(0), 6).tolist(),
        "random_sd": random.std(0, ddof=1).tolist(),
        "random_sparser": {name: (random >= np.array(values)).sum(0).tolist() for name, values in found.items()},
    }


def tokens(settings: Settings) -> dict[str, Any]:
    """What the first singular vectors are about, of the embedding as it is and centred, beside random directions.

    shares: of Σ σ² in each singular value. mean_cosine: of the first vector with the mean embedding, |·|. frequency: see
    tokens.frequency; of tokens that are in the text. separation: AUROC [axis][kind]. random: |r| of single random
    directions; best_separation: the greatest AUROC of n_axes random directions, of any kind. axes: tokens at both ends.
    """
    files = ModelFiles.find(settings.model)
    W_E = model_weights(files)["wte.weight"]
    names = [files.tokenizer.id_to_token(i) or "" for i in range(len(W_E))]
    counts = token_counts(files, settings.n_files)
    seen = counts > 0
    log_count, own = np.log10(counts[seen]), [name for name, there in zip(names, seen, strict=True) if there]
    of_kind = kinds(own)
    rng = np.random.default_rng(seed_of("embedding-basis", "directions"))
    found: dict[str, Any] = {}
    for name, centred in BASES.items():
        E = W_E - W_E.mean(0) if centred else W_E
        axes = embedding_axes(W_E, centred)
        coordinates = E @ axes.T
        values = coordinates.numpy()[seen]
        sign = torch.ones(len(axes), dtype=torch.float64)
        sign[0] = (
            1.0 if np.corrcoef(values[:, 0], log_count)[0, 1] >= 0 else -1.0
        )  # frequent tokens are at its upper end
        values, coordinates = values * sign.numpy(), coordinates * sign
        draws = rng.standard_normal((settings.n_draws, W_E.shape[1], settings.n_axes))
        at_random = [E.numpy()[seen] @ draw for draw in draws]
        single = np.concatenate([frequency(one[:, :1], log_count)["each"] for one in at_random])
        norms = coordinates.norm(dim=0).square()
        found[name] = {
            "shares": (norms / norms.sum()).numpy().round(5).tolist(),
            "mean_cosine": float((axes[0] @ torch.nn.functional.normalize(W_E.mean(0), dim=0)).abs()),
            "frequency": frequency(values, log_count),
            "random": np.round(single, 4).tolist(),
            "separation": separation(values[:, : settings.n_axes], of_kind).round(4).tolist(),
            "best_separation": [round(float(separation(one, of_kind).max()), 4) for one in at_random],
            "axes": [extremes(column, names, settings.n_extremes) for column in coordinates.T[: settings.n_axes]],
            "points": np.round(np.stack([log_count, values[:, 0]], 1), 3).tolist(),
        }
    return {
        "kinds": {kind: int(of.sum()) for kind, of in of_kind.items()},
        "n_tokens": int(counts.sum()),
        "n_seen": int(seen.sum()),
        "d_vocab": len(names),
        "n_files": settings.n_files,
        "embeddings": found,
    }


def inputs(settings: Settings) -> dict[str, Any]:
    """Raises UserError: no such model, or fewer files of text than are asked for."""
    files = ModelFiles.find(settings.model)
    text = text_files(TEXT)
    if settings.n_files > len(text):
        raise UserError(
            f"embedding-basis: n_files = {settings.n_files}, but the standard library has {len(text)}: ask for fewer"
        )
    return {
        "model_digest": files.digest,
        "tokenizer_digest": files.tokenizer_digest,
        "files_digest": digest([file_digest(path) for path in text[: settings.n_files]]),
    }


def parts(settings: Settings, folder: Path) -> dict[str, Callable[[], dict[str, Any]]]:
    return {part.__name__: partial(part, settings) for part in (weights, tokens)}
