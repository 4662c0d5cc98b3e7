"""What the axes of an embedding are about: token frequency, and kinds of tokens."""

import re
from itertools import islice
from typing import Any, cast

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from pipeline.extract.config import TextConfig
from pipeline.extract.text import Documents
from pipeline.models.files import ModelFiles
from pipeline.toy.auroc import aurocs

TEXT = TextConfig(split="train")

# of a token as it is in the vocabulary, where Ġ is a space and Ċ a new line
KINDS = {
    "a space before it": r"Ġ.*",
    "letters only": r"Ġ?[A-Za-z]+",
    "a capital first": r"Ġ?[A-Z].*",
    "digits": r"Ġ?[0-9]+",
    "punctuation only": r"Ġ?[^\w\sĠĊ]+",
    "white space only": r"[ĠĊĉ]+",
    "an underscore in it": r".*_.*",
}
MIN_KIND = 20  # tokens, for a kind to be counted


def token_counts(files: ModelFiles, n_files: int) -> np.ndarray:
    """(d_vocab,) how often each token is in the first n_files of the text that the demo model learned from."""
    counts = np.zeros(files.vocab_size, dtype=np.int64)
    for document in islice(Documents(TEXT), n_files):
        ids = files.tokenizer.encode(document, add_special_tokens=False).ids
        counts += np.bincount(ids, minlength=len(counts))
    return counts


def correlations(coordinates: np.ndarray, log_count: np.ndarray) -> np.ndarray:
    """(k,) |r| (Pearson) of each column of coordinates (n, k) with log_count (n,)."""
    centred = coordinates - coordinates.mean(0)
    target = log_count - log_count.mean()
    return np.abs(centred.T @ target) / (np.linalg.norm(centred, axis=0) * np.linalg.norm(target))


def frequency(coordinates: np.ndarray, log_count: np.ndarray) -> dict[str, Any]:
    """Of the first axis: |r| with its 95% interval (Fisher), |ρ| (Spearman); and |r| of each axis."""
    r = cast(Any, stats.pearsonr(coordinates[:, 0], log_count))
    low, high = sorted(np.sign(r.statistic) * np.array(r.confidence_interval(0.95)))
    return {
        "r": [float(abs(r.statistic)), float(low), float(high)],
        "spearman": float(abs(cast(Any, stats.spearmanr(coordinates[:, 0], log_count)).statistic)),
        "each": np.round(correlations(coordinates, log_count), 4).tolist(),
        "n_tokens": len(log_count),
    }


def kinds(names: list[str]) -> dict[str, np.ndarray]:
    """kind → which of the tokens are of it (n,), of kinds that neither few nor all tokens are of."""
    found = {kind: np.array([bool(re.fullmatch(pattern, name)) for name in names]) for kind, pattern in KINDS.items()}
    return {kind: of for kind, of in found.items() if MIN_KIND <= of.sum() <= len(of) - MIN_KIND}


def separation(coordinates: np.ndarray, of_kind: dict[str, np.ndarray]) -> np.ndarray:
    """(k, n_kinds) how well each column of coordinates (n, k) tells a kind from the rest: AUROC of either sign."""
    found = aurocs(coordinates, np.stack(list(of_kind.values()), axis=1)).T
    return np.maximum(found, 1 - found)


def extremes(coordinates: Tensor, names: list[str], n: int) -> tuple[list[str], list[str]]:
    """The tokens with the largest coordinates (d_vocab,), and with the smallest."""
    order = torch.argsort(coordinates, descending=True).tolist()
    return [shown(names[i]) for i in order[:n]], [shown(names[i]) for i in reversed(order[-n:])]


def shown(token: str) -> str:
    """A token as a person writes it: ␣ is a space, ↵ a new line, ⇥ a tab."""
    return token.replace("Ġ", "␣").replace("Ċ", "↵").replace("ĉ", "⇥")
