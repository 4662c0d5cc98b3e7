"""Are qualities of tokens neurons of a language model? The best single unit beside the best direction, and a rotated basis.

Qualities are read off the token's text, so that the truth is known. Activations: of a token alone after BOS. Units and probes
are chosen on one half of the tokens and measured on the other.
"""

import keyword
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.models.files import ModelFiles
from pipeline.models.load import load_model
from pipeline.toy.auroc import aurocs
from pipeline.toy.representations.decomposition import rotations
from pipeline.toy.representations.reading import Probe
from pipeline.toy.representations.relations import alone
from stores.manifest import seed_of

QUALITIES: dict[str, Callable[[str], object]] = {
    "begins with a space": lambda t: t[0] == "Ġ",
    "lower case only": lambda t: re.fullmatch("Ġ?[a-z]+", t),
    "upper case only": lambda t: re.fullmatch("Ġ?[A-Z]{2,}", t),
    "one capital, then lower case": lambda t: re.fullmatch("Ġ?[A-Z][a-z]+", t),
    "no letter and no digit": lambda t: not re.search("[A-Za-z0-9]", t),
    "has a digit": lambda t: re.search("[0-9]", t),
    "has an underscore": lambda t: "_" in t,
    "has a line break": lambda t: "Ċ" in t,
    "has a quotation mark": lambda t: re.search("['\"]", t),
    "has an opening bracket": lambda t: re.search(r"[(\[{]", t),
    "has a closing bracket": lambda t: re.search(r"[)\]}]", t),
    "has a full stop": lambda t: "." in t,
    "has a comma": lambda t: "," in t,
    "has an equals sign": lambda t: "=" in t,
    "is a keyword": lambda t: keyword.iskeyword(t.removeprefix("Ġ")),
    "ends in s": lambda t: re.fullmatch("Ġ?[a-z]{2,}s", t),
    "ends in ing": lambda t: re.fullmatch("Ġ?[a-z]+ing", t),
    "ends in ed": lambda t: re.fullmatch("Ġ?[a-z]+ed", t),
    "ends in Error": lambda t: t.endswith("Error"),
    "one character": lambda t: len(t.removeprefix("Ġ")) == 1,
    "eight characters or more": lambda t: len(t.removeprefix("Ġ")) >= 8,
}
LEAST = 20  # tokens that have a quality, of those that have it and of those that do not


def labels(tokens: list[str]) -> dict[str, np.ndarray]:
    """Quality → (n,) bool, of those qualities that at least LEAST tokens have, and LEAST have not."""
    found = {name: np.array([bool(has(token)) for token in tokens]) for name, has in QUALITIES.items()}
    return {name: y for name, y in found.items() if LEAST <= y.sum() <= len(y) - LEAST}


def best_unit(x: Tensor, y: np.ndarray, fit: np.ndarray) -> list[float]:
    """AUC on the other half of the unit that is best on the half `fit`, either way round: (m,)."""
    chosen, held = aurocs(x.numpy()[fit], y[fit]), aurocs(x.numpy()[~fit], y[~fit])
    best = np.abs(chosen - 0.5).argmax(1)
    rows = np.arange(len(best))
    return (0.5 + (held[rows, best] - 0.5) * np.sign(chosen[rows, best] - 0.5)).tolist()


def neurons(model: str) -> dict[str, Any]:
    """For each layer's MLP neurons and residual stream, and each quality: AUC of one unit, of one unit of a randomly rotated
    basis, and of a direction."""
    files = ModelFiles.find(model)
    names = sorted(files.tokenizer.get_vocab().items(), key=lambda item: item[1])
    chosen = torch.tensor([i for token, i in names if i != files.bos and token])
    found = labels([token for token, i in names if i != files.bos and token])
    y = np.stack(list(found.values()), axis=1)
    fit = np.random.default_rng(seed_of("neurons")).permutation(len(y)) < len(y) // 2
    points = [
        f"blocks.{layer}.{site}" for layer in range(files.n_layers) for site in ("mlp.hook_post", "hook_resid_post")
    ]
    rows: dict[str, Any] = {}
    for point, x in zip(points, alone(load_model(files), points), strict=True):
        x = x[chosen]
        turned = x @ rotations(1, x.shape[1], torch.Generator().manual_seed(seed_of("neurons", point)))[0]
        many, half = torch.from_numpy(y.T), torch.from_numpy(fit)
        probe = Probe(x[half].expand(1, -1, -1), many[:, half], ridge=1e-2).score(x[~half].expand(1, -1, -1))
        rows[point] = {
            "unit": best_unit(x, y, fit),
            "rotated": best_unit(turned, y, fit),
            "direction": [float(aurocs(s[:, None], v[:, None])[0, 0]) for s, v in zip(probe.numpy(), y[~fit].T)],
        }
    return {"qualities": list(found), "n_tokens": y.sum(0).tolist(), "points": rows}
