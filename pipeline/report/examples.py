"""A feature's numbers and contexts as plain Python values, for the JSON that other tools read."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.report.columns import lengths

_PART = 512  # features that are in memory as Python values: a MiB each with 45 contexts of 21 tokens would be too many
DIGITS = 5


@dataclass(frozen=True)
class Example:
    """A context. group: 0 for the largest activations, 1 and on for quantile groups of a sample, the strongest first. peak:
    the place of the token that it was taken for. activations: 0 where the store keeps none."""

    group: int
    value: float
    peak: int
    tokens: list[str]
    activations: list[float]


def described(
    features: pa.Table, contexts: pa.Table, tokens: Mapping[int, str]
) -> Iterator[tuple[dict[str, Any], list[Example]]]:
    """Each feature's row and its examples. contexts: sorted by feature. tokens: with text_of each."""
    owner = contexts["feature"].to_numpy()
    for start in range(0, len(features), _PART):
        rows = features.slice(start, _PART).to_pylist()
        low, high = np.searchsorted(owner, [start, start + len(rows)])
        examples = examples_of(contexts.slice(low, high - low), tokens)
        counts = np.bincount(owner[low:high] - start, minlength=len(rows))
        for row, count in zip(rows, counts, strict=True):
            yield row, [next(examples) for _ in range(count)]


def examples_of(contexts: pa.Table, tokens: Mapping[int, str]) -> Iterator[Example]:
    """Numbers have DIGITS digits of the largest of their feature."""
    activations, ids = (contexts[name].combine_chunks() for name in ("activations", "tokens"))
    values = np.nan_to_num(activations.flatten().cast(pa.float64()).to_numpy(zero_copy_only=False))
    feature, value = contexts["feature"].to_pylist(), contexts["value"].to_numpy().astype(np.float64)
    distinct, place = np.unique(ids.flatten().to_numpy(zero_copy_only=False), return_inverse=True)
    names = np.array([tokens.get(token, f"#{token}") for token in distinct.tolist()], object)[place]
    ends = np.cumsum(lengths(ids))
    peaks = (contexts["position"].to_numpy() - contexts["start"].to_numpy()).tolist()
    groups, largest = contexts["group"].to_pylist(), dict[int, float]()
    for one, size in zip(feature, np.abs(value).tolist(), strict=True):
        largest[one] = max(size, largest.get(one, 0.0))
    for i, (end, n) in enumerate(zip(ends.tolist(), lengths(ids).tolist(), strict=True)):
        decimals = DIGITS - 1 - int(np.floor(np.log10(largest[feature[i]] or 1.0)))
        found = np.round(values[end - n : end], decimals).tolist()
        yield Example(groups[i], round(float(value[i]), decimals), peaks[i], names[end - n : end].tolist(), found)


def text_of(text: str) -> str:
    """A token's text, in which a lone surrogate is U+FFFD: some JSON readers take none."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def rounded(value: float | None) -> float:
    """DIGITS significant digits; 0 for what is not known."""
    return float(f"{value:.{DIGITS}g}") if value is not None and np.isfinite(value) else 0.0


def texts(row: Mapping[str, Any], name: str, tokens: Mapping[int, str]) -> list[str]:
    """Of a column of token ids."""
    return [tokens.get(token, f"#{token}") for token in row.get(name) or []]
