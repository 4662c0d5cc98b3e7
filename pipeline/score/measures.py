"""What held-out rows alone tell of dictionaries: how much they keep, and how sparsely."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.progress import progress
from pipeline.score.config import ScoreConfig
from pipeline.score.histograms import ActivationHistogram
from pipeline.score.reconstruction import ByHookPoint, keep_first, keep_largest
from stores.activations import ActivationStore
from stores.dictionary import FeatureDictionary
from stores.site import Site

Truncation = Callable[[Tensor], Tensor]


@torch.no_grad()
def measure(
    config: ScoreConfig,
    store: ActivationStore,
    site: Site,
    dictionaries: Mapping[str, FeatureDictionary],
    kept: Mapping[str, Mapping[str, Truncation]],
    device: str,
) -> tuple[dict[str, dict[str, Any]], dict[str, ActivationHistogram]]:
    """Columns and histograms of dictionaries of one site. kept: per dictionary, columns and what of a code they keep."""
    n_rows = min(config.n_rows, store.n_heldout_rows)
    means = {h: torch.from_numpy(store.stats(h).mean) for h in site.writes}
    histograms = {name: ActivationHistogram.empty(f.d_sae) for name, f in dictionaries.items()}
    sums = {name: {column: ByHookPoint(means) for column in ("fvu", *kept[name])} for name in dictionaries}
    with progress(total=n_rows, unit="row", desc=f"score {len(dictionaries)} at {site.name}") as bar:
        for rows in _batches(store, site, n_rows, config.batch_size):
            values = {h: torch.from_numpy(own).to(device).float() for h, own in rows.items()}
            x = torch.cat([values[h] for h in site.reads], dim=-1)
            for name, dictionary in dictionaries.items():
                z = dictionary.encode(x)
                skipped = x @ dictionary.W_skip if dictionary.spec.skip else 0.0
                histograms[name].add(z)
                sums[name]["fvu"].add(values, dictionary.decode(z) + skipped)
                for column, truncate in kept[name].items():
                    sums[name][column].add(values, dictionary.decode(truncate(z)) + skipped)
            bar.update(len(x))
    return {name: _columns(config, sums[name], histograms[name], n_rows) for name in dictionaries}, histograms


def _batches(store: ActivationStore, site: Site, n_rows: int, batch_size: int) -> Iterator[dict[str, np.ndarray]]:
    """The same rows at every hook point of the site; no more than a chunk of each is held."""
    names = tuple(dict.fromkeys(site.reads + site.writes))
    for chunks in zip(*(store.heldout(h, n_rows) for h in names), strict=True):
        for start in range(0, len(chunks[0]), batch_size):
            yield {h: chunk[start : start + batch_size] for h, chunk in zip(names, chunks, strict=True)}


def _columns(
    config: ScoreConfig, sums: Mapping[str, ByHookPoint], histogram: ActivationHistogram, n_rows: int
) -> dict[str, Any]:
    density, whole = histogram.density, sums["fvu"]
    return {
        "l0": histogram.mean_l0,
        "l0_p10": histogram.l0_quantile(0.1),
        "l0_p90": histogram.l0_quantile(0.9),
        "normalized_mse": whole.normalized_mse,
        **{column: total.fvu for column, total in sums.items()},
        **({f"fvu[{h}]": one.fvu for h, one in whole.of.items()} if len(whole.of) > 1 else {}),
        "dead": int((density == 0).sum()),
        "ultra_low_density": _rare(density, config.ultra_low_density, n_rows),
        "n_rows": n_rows,
    }


def _rare(density: Tensor, below: float, n_rows: int) -> int | None:
    return int(((density > 0) & (density < below)).sum()) if below * n_rows >= 1 else None


def truncations(dictionary: FeatureDictionary, config: ScoreConfig, ordered: bool) -> dict[str, Truncation]:
    """Of a dense dictionary: columns, and what of its code they keep. ordered: its first features are the largest."""
    if dictionary.sparse:
        return {}
    kept: dict[str, Truncation] = {}
    for k in config.at_l0:
        if k < dictionary.d_sae:
            kept[f"fvu_at_l0_{k}"] = lambda z, k=k: keep_largest(z, k)
            if ordered:
                kept[f"fvu_first_{k}"] = lambda z, k=k: keep_first(z, k)
    return kept
