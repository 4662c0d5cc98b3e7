"""Dictionaries that are made by hand, scored in a run folder without the stages before."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch

from pipeline.claims import Claims
from pipeline.score.config import ScoreConfig
from pipeline.score.histograms import ActivationHistogram
from pipeline.score.losses import model_of
from pipeline.score.measures import columns_of, histogram_of, measures_of
from pipeline.score.rows import Parts, measure
from pipeline.score.stage import execute, summarize, units
from pipeline.score.subjects import Subject
from stores.activations import ActivationStore
from stores.dictionary import FeatureDictionary
from stores.site import Site
from stores.spec import Spec


def dictionary(
    reads: dict[str, int],
    writes: dict[str, int],
    d_sae: int = 16,
    seed: int = 0,
    architecture: str = "standard",
    **weights: Any,
) -> FeatureDictionary:
    """With random weights, but for those that are given. reads, writes: hook points and their sizes."""
    d_in, d_out = sum(reads.values()), sum(writes.values())
    skip = "W_skip" in weights
    spec = Spec(
        architecture,
        d_in,
        d_sae,
        Site(tuple(reads), tuple(writes)),
        d_out=d_out,
        d_writes=tuple(writes.values()),
        skip=skip,
    )
    generator = torch.Generator().manual_seed(seed)
    drawn = {name: torch.randn(shape, generator=generator) / shape[-1] for name, shape in spec.shapes.items()}
    return FeatureDictionary(spec, **{**drawn, **weights})


def subject(folder: Path, made: FeatureDictionary, name: str = "map", **settings: Any) -> Subject:
    """Saved as the train stage would."""
    path = folder / "train" / made.site.name / name
    made.save(path)
    return Subject(made.site, name, "topk", settings, path)


def scored(run: Path, store: ActivationStore, subjects: list[Subject], **config: Any) -> dict[str, Any]:
    """scores.json of them."""
    settings = ScoreConfig(**{"n_sequences": 4, **config})
    work = units(settings, run, store, subjects)
    loaded = cache(lambda: model_of(store, "cpu"))
    with Claims(run) as claims:
        for mine in claims.rounds([[unit for _, unit in work]]):
            execute(settings, store, [(what, unit) for what, unit in work if unit in mine], "cpu", claims, loaded)
        assert summarize(run, store, lambda: (work, []), claims)
        assert not summarize(run, store, lambda: (work, []), claims)
    return json.loads((run / "score" / "scores.json").read_text())


def measured(
    store: ActivationStore, dictionaries: dict[str, FeatureDictionary], folder: Path, **settings: Any
) -> tuple[dict[str, dict[str, Any]], dict[str, ActivationHistogram]]:
    """Columns and histograms of dictionaries of one site. settings: of [score]."""
    config, site = ScoreConfig(**settings), next(iter(dictionaries.values())).spec.site
    begin = lambda name: measures_of(dictionaries[name], config, ordered=False)  # noqa: E731
    parts = {name: Parts(folder / name, name) for name in dictionaries}
    found = measure(store, site, config.n_rows, config.batch_size, dictionaries, begin, parts, "cpu")
    return {n: columns_of(config, own) for n, own in found.items()}, {n: histogram_of(own) for n, own in found.items()}
