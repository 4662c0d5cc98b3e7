"""The rows of a rolling store, made again from its tokens by the model that made them first."""

from functools import cache
from typing import cast

import numpy as np

from pipeline.extract.capture import capture
from pipeline.extract.stage import layers_needed
from pipeline.models.files import ModelFiles
from pipeline.models.load import load_model
from pipeline.models.protocol import LanguageModel, Precision
from stores.activations import ActivationStore
from stores.devices import use, with_index
from stores.rolling import ROLLING, Bound, Rolling


def with_all_rows(store: ActivationStore, device: str, keep_bytes: int | None) -> ActivationStore:
    """The store, whose rows can be read whether they lie there or not. keep_bytes: in the place of the bound that it was
    extracted with.

    Reading raises UserError: the model is not the same any more; StoreError: rows that are made again have other bits.
    """
    bound, description = Bound.read(store.place), store.description
    if bound is None:
        return store
    n_sequences = bound.batch_sequences
    on = with_index(device)  # of this thread: rows are made in others

    @cache
    def model() -> LanguageModel:
        files, precision = ModelFiles.of_store(description), cast(Precision, description.precision)
        n_layers = layers_needed(files, description.hook_points)
        return load_model(files, description.weight_processing, str(on), precision, n_layers)

    def make(sequences: tuple[int, int], hook_points: tuple[str, ...]) -> dict[str, np.ndarray]:
        use(on)
        tokens = store.tokens(*sequences)
        # A stop waits for the chunk: raised here it would end a training that has not saved yet.
        return capture(model(), tokens, hook_points, description.positions, n_sequences, description.dtype)

    setting = "extract.keep_bytes" if keep_bytes else f"keep_bytes in {store.place / ROLLING}"
    store.rolling = Rolling(store.place, description, keep_bytes or bound.keep_bytes, make, setting)
    return store
