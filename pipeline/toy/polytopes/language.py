"""The polytope lens on a language model: clusters of its activations, and how far they can be scaled.

Source: Black et al. 2022, "Interpreting Neural Networks through the Polytope Lens".
"""

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field

from pipeline.extract.config import ExtractConfig, PositionsConfig, TextConfig
from pipeline.models.files import ModelFiles
from pipeline.models.load import load_model
from pipeline.score.downstream import Replacement, evaluate
from pipeline.toy.extracted import extracted
from pipeline.toy.polytopes.clusters import ClusterSettings, clustered, distances, excess
from pipeline.toy.polytopes.nets import FACTORS, Factor
from stores.activations import ActivationStore
from stores.description import Description
from stores.manifest import seed_of

SKIP_FIRST, N_POSITIONS = 100, 6  # as in the source: 6 of 1,024 tokens a sequence, none of the first 100


class LanguageSettings(ClusterSettings):
    """store: activations to be clustered, of hook_point; by default the toy extracts them from model, GPT-2's size or
    another. factors: that activations are scaled by."""

    model: str = "demo"
    store: str | None = None
    hook_point: str = "blocks.1.mlp.hook_post"
    n_sequences: int = Field(default=500, ge=2)
    factors: tuple[Factor, ...] = Field(default=FACTORS, min_length=1)
    validity_sequences: int = Field(default=8, ge=1)


def sampled(description: Description) -> list[int]:
    """Places in the store's positions: N_POSITIONS of each sequence, evenly spaced, none of the first SKIP_FIRST; of
    those that there are, if there are fewer."""
    places = [i for i, position in enumerate(description.positions) if position >= SKIP_FIRST]
    places = places if len(places) >= N_POSITIONS else list(range(description.n_positions))
    return sorted({places[i] for i in np.linspace(0, len(places) - 1, min(N_POSITIONS, len(places))).astype(int)})


def open_store(settings: LanguageSettings, folder: Path) -> ActivationStore:
    """settings.store, or one extracted into the folder: from each sequence the source's six positions."""
    if settings.store:
        return ActivationStore.open(settings.store)
    context = min(1024, ModelFiles.find(settings.model).n_positions)
    config = ExtractConfig(
        model=settings.model,
        hook_points=(settings.hook_point,),
        context=context,
        n_rows=settings.n_sequences * N_POSITIONS,
        positions=PositionsConfig(skip_first=min(SKIP_FIRST, context - N_POSITIONS), n_per_sequence=N_POSITIONS),
        text=TextConfig(split="all"),
        chunk_rows=300,
        dtype="float32",
    )
    return extracted("polytopes", config, folder)


def language(settings: LanguageSettings, folder: Path) -> dict[str, Any]:
    """Clusters of a language model's activations, and what scaling its layers does to its output."""
    store = open_store(settings, folder)
    return {"clusters": clusters(settings, store), "validity": validity(settings, store)}


def clusters(settings: LanguageSettings, store: ActivationStore) -> dict[str, Any]:
    """HDBSCAN of the activations at six positions of each sequence.

    shares: of each cluster the commonest token's; excess: those over the same with the tokens shuffled.
    """
    description, places = store.description, sampled(store.description)
    n = min(settings.n_sequences, description.n_sequences)
    rows = store.rows(settings.hook_point, 0, n * description.n_positions).astype(np.float32)
    x = rows.reshape(n, description.n_positions, -1)[:, places].reshape(n * len(places), -1)
    labels = clustered(x, settings.min_cluster_size, settings.min_samples)
    sizes = Counter(labels[labels >= 0].tolist())
    within, between = distances(x, labels)
    tokens = store.tokens(0, n)
    at = [description.positions[place] for place in places]
    of_rows = tokens[:, at].reshape(-1)
    own, over = excess(labels, of_rows, np.random.default_rng(seed_of("shuffled tokens")))
    texts = None if description.model == "none" else ModelFiles.of_store(description).tokenizer
    shown = []
    for label, size in sizes.most_common(12):
        members = np.nonzero(labels == label)[0]
        where = [(i // len(places), at[i % len(places)]) for i in members]
        token, count = Counter(of_rows[members].tolist()).most_common(1)[0]
        examples = [tokens[s, max(0, p - 7) : p + 1].tolist() for s, p in where[:3]]
        decode = (lambda ids: texts.decode(ids, skip_special_tokens=False)) if texts else str
        shown.append([size, decode([token]), count / size, [decode(e) for e in examples]])
    return {
        "hook_point": settings.hook_point,
        "d": x.shape[1],
        "context": description.context,
        "positions": at,
        "n_rows": len(x),
        "n_clusters": len(sizes),
        "noise": float((labels < 0).mean()),
        "within": within,
        "between": between,
        "shares": own,
        "excess": over,
        "largest": shown,
        "sizes": sorted(sizes.values(), reverse=True),
        "settings": {"min_cluster_size": settings.min_cluster_size, "min_samples": settings.min_samples},
    }


def validity(settings: LanguageSettings, store: ActivationStore) -> dict[str, Any] | None:
    """KL of the model's output when the activations of a layer are scaled; None when no model made the store.

    kl: of each hook point (factors, sequences), nats a token; mean: over hook points.
    """
    description = store.description
    if description.model == "none":
        return None
    model = load_model(ModelFiles.of_store(description), description.weight_processing)
    tokens = store.tokens(0, min(settings.validity_sequences, description.n_sequences))
    positions = tuple(range(1, description.context))
    scaled = [partial(torch.mul, other=factor) for factor in settings.factors]
    rows: dict[str, list[list[float]]] = {}
    for layer in range(model.files.n_layers):
        for site in ("hook_resid_post", "mlp.hook_post"):
            name = f"blocks.{layer}.{site}"
            replacements = [Replacement.at(name, scale) for scale in scaled]
            found = [evaluate(model, sequence[None], positions, replacements) for sequence in tokens]
            rows[name] = [[one[i].kl for one in found] for i in range(len(scaled))]
    return {
        "model": description.model,
        "factors": list(settings.factors),
        "kl": rows,
        "mean": np.mean(list(rows.values()), axis=0).tolist(),
        "n_tokens": int(tokens.size),
    }
