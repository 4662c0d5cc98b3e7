from pathlib import Path

import numpy as np
import pytest
import torch

from stores.activations import ActivationStore
from stores.description import StoreError
from stores.loader import BatchLoader
from stores.order import batch_rows
from tests.conftest import make_store

A, B = "blocks.0.hook_resid_post", "blocks.1.mlp.hook_post"


@pytest.fixture
def two(tmp_path: Path) -> ActivationStore:
    return make_store(tmp_path / "s", d={A: 6, B: 3}, dtype="float16")


@pytest.mark.parametrize("window_chunks", [1, 3, 100])
@pytest.mark.parametrize("residency", ["stream", "ram"])
def test_every_residency_gives_the_rows_of_the_order_bit_for_bit(
    two: ActivationStore, residency, window_chunks: int
) -> None:
    loader = BatchLoader(two, (A, B), 50, seed=3, n_steps=25, window_chunks=window_chunks, residency=residency)
    whole = {h: two.rows(h, 0, two.n_train_rows).astype(np.float32) for h in (A, B)}
    steps = []
    for batch in loader:
        rows = batch_rows(loader.layout.cursor(3, batch.step), loader.layout)
        assert rows.max() < two.n_train_rows
        for hook_point in (A, B):
            assert batch.x[hook_point].dtype == torch.float32
            assert np.array_equal(batch.x[hook_point].numpy(), whole[hook_point][rows])
        steps.append(batch.step)
    assert steps == list(range(25))


@pytest.mark.parametrize("residency", ["stream", "ram"])
def test_seeking_gives_what_reading_through_gives(two: ActivationStore, residency) -> None:
    options = {"seed": 0, "n_steps": 20, "window_chunks": 2, "residency": residency}
    through = {b.step: b.x[A] for b in BatchLoader(two, (A,), 37, **options)}
    for batch in BatchLoader(two, (A,), 37, first_step=13, **options):
        assert torch.equal(batch.x[A], through[batch.step])


def test_a_damaged_store_stops_the_iteration_with_its_name(two: ActivationStore) -> None:
    (two.path / A / "c" / "1" / "0").unlink()
    with pytest.raises(StoreError, match="is missing"):
        list(BatchLoader(ActivationStore.open(two.path), (A,), 50, seed=0, n_steps=9, residency="stream"))


def test_leaving_early_stops_the_reading_thread(two: ActivationStore) -> None:
    import threading

    before = threading.active_count()
    for batch in BatchLoader(two, (A,), 10, seed=0, n_steps=1000, residency="stream"):
        if batch.step == 3:
            break
    assert threading.active_count() == before
