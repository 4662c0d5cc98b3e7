"""What is known of the features of one dictionary, gathered on one pass over held-out rows."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int64
from scipy import sparse
from torch import Tensor

from pipeline.features.cofiring import cofiring
from pipeline.features.config import ReportConfig
from pipeline.features.contexts import AROUND, Contexts, windows_of
from pipeline.features.files import lists
from pipeline.features.logits import Logits
from pipeline.score.histograms import ActivationHistogram
from pipeline.score.nearest import nearest
from pipeline.score.reconstruction import keep_largest
from stores.activations import ActivationStore
from stores.dictionary import FeatureDictionary

N_NEIGHBOURS = 5
LARGEST = 32  # coordinates of a row of a dense basis, that are looked at for labels


@dataclass
class Gathered:
    """Of one dictionary. first_rows: codes of the first held-out rows, by batches."""

    contexts: Contexts
    n_active: np.ndarray
    total: np.ndarray  # Σ |z| of each feature
    largest: np.ndarray
    first_rows: list[sparse.csr_array] = field(default_factory=list)

    @classmethod
    def empty(cls, dictionary: FeatureDictionary, store: ActivationStore, config: ReportConfig) -> "Gathered":
        d_sae, description = dictionary.d_sae, store.description
        contexts = Contexts(d_sae, description.positions, description.context, config.n_top, config.n_sampled)
        return cls(contexts, np.zeros(d_sae, np.int64), np.zeros(d_sae), np.zeros(d_sae, np.float32))

    def add(self, z: Float[Tensor, "n d_sae"], first: int) -> None:
        """z: codes of whole sequences, or of none; first: the first row among the held-out ones."""
        if not len(z):
            return
        codes = z.cpu().numpy()
        self.n_active += np.count_nonzero(codes, 0)
        size = np.abs(codes)
        self.total += size.sum(0, dtype=np.float64)
        np.maximum(self.largest, size.max(0), out=self.largest)
        self.contexts.add(codes, first)

    def keep(self, z: Float[Tensor, "n d_sae"], sparse_by_itself: bool) -> None:
        """For probes: codes of the next of the first rows, or of none; of dense ones each row's largest."""
        if not len(z):
            return
        kept = z if sparse_by_itself else keep_largest(z, LARGEST)
        self.first_rows.append(sparse.csr_array(kept.cpu().numpy()))

    def codes(self) -> sparse.csc_array:
        return sparse.csc_array(sparse.vstack(self.first_rows))


def feature_columns(
    dictionary: FeatureDictionary,
    histogram: ActivationHistogram,
    gathered: Gathered,
    codes: sparse.csc_array,
    logits: Logits | None,
) -> dict[str, Any]:
    """Columns of features.parquet but for labels and rules. histogram: as it was scored. codes: (n_rows, d_sae), on which
    co-firing is counted."""
    d_sae = dictionary.d_sae
    columns: dict[str, Any] = {
        "feature": np.arange(d_sae, dtype=np.int32),
        "density": histogram.density.numpy().astype(np.float32),
        "n_active": histogram.counts.sum(1).numpy(),
        "max": gathered.largest,
        "mean": (gathered.total / np.maximum(gathered.n_active, 1)).astype(np.float32),
        "decoder_norm": dictionary.W_dec.norm(dim=-1).cpu().numpy(),
        "histogram": histogram.counts.numpy(),
    }
    if dictionary.spec.architecture != "matching_pursuit":  # which reads by its decoder
        columns["encoder_norm"] = dictionary.W_enc.norm(dim=0).cpu().numpy()
    near = nearest(dictionary.directions, dictionary.directions, N_NEIGHBOURS, signed=dictionary.signed, others=True)
    columns |= {
        "neighbours": near.indices.cpu().numpy().astype(np.int32),
        "neighbour_cosines": near.cosines.cpu().numpy(),
    }
    if dictionary.sparse:
        features, phi = cofiring(codes, N_NEIGHBOURS)
        columns |= {"cofiring": lists(features, features >= 0), "cofiring_phi": lists(phi, features >= 0)}
    if logits:
        columns |= {
            "promoted_tokens": logits.promoted,
            "promoted_logits": logits.promoted_by,
            "suppressed_tokens": logits.suppressed,
            "suppressed_logits": logits.suppressed_by,
        }
    return columns


def context_columns(store: ActivationStore, contexts: Contexts) -> dict[str, Any]:
    """Columns of contexts.parquet."""
    entries, groups = contexts.grouped()
    sequence, place = np.divmod(entries.row, store.description.n_positions)
    position = np.array(store.description.positions)[place]
    tokens, inside = windows_of(*_tokens_of(store, sequence), position)
    return {
        "feature": entries.feature.astype(np.int32),
        "group": groups.astype(np.int8),
        "value": entries.value,
        "sequence": sequence.astype(np.int32),
        "position": position.astype(np.int32),
        "start": np.maximum(position - AROUND, 0).astype(np.int32),
        "tokens": lists(tokens, inside),
        "activations": lists(entries.window, inside, ~np.isnan(entries.window)),
    }


def _tokens_of(store: ActivationStore, sequence: Int64[np.ndarray, " n"]) -> tuple[np.ndarray, Int64[np.ndarray, " n"]]:
    """(tokens of the sequences that are named, where each is among them)."""
    named, place = np.unique(sequence, return_inverse=True)
    runs = np.split(named, np.flatnonzero(np.diff(named) != 1) + 1) if len(named) else []
    parts = [store.tokens(int(run[0]), int(run[-1]) + 1, "heldout") for run in runs]
    empty = np.zeros((0, store.description.context), np.int32)
    return np.concatenate([empty, *parts]), place.reshape(-1).astype(np.int64)
