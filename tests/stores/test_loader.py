from pathlib import Path

import numpy as np
import pytest
import torch

from stores.activations import ActivationStore
from stores.description import StoreError
from stores.devices import use
from stores.loader import BatchLoader
from stores.order import batch_rows
from tests.conftest import CUDA, make_store
from tests.fake_cuda import faked

A, B = "blocks.0.hook_resid_post", "blocks.1.mlp.hook_post"


@pytest.fixture
def two(tmp_path: Path) -> ActivationStore:
    return make_store(tmp_path / "s", d={A: 6, B: 3}, dtype="float16")


@pytest.mark.parametrize("window_chunks", [1, 3, 100])
@pytest.mark.parametrize("residency", ["stream", "ram", "gpu"])
def test_every_residency_gives_the_rows_of_the_order_bit_for_bit(
    two: ActivationStore, residency, window_chunks: int
) -> None:
    loader = BatchLoader(two, (A, B), 50, seed=3, n_steps=25, window_chunks=window_chunks, residency=residency)
    whole = {h: two.rows(h, 0, two.n_train_rows, "train").astype(np.float32) for h in (A, B)}
    steps = []
    for batch in loader:
        rows = batch_rows(loader.layout.cursor(3, batch.step), loader.layout)
        assert rows.max() < two.n_train_rows
        for hook_point in (A, B):
            assert batch.x[hook_point].dtype == torch.float16
            assert np.array_equal(batch.x[hook_point].float().numpy(), whole[hook_point][rows])
        steps.append(batch.step)
    assert steps == list(range(25))


@pytest.mark.parametrize("residency", ["stream", "ram", "gpu"])
def test_seeking_gives_what_reading_through_gives(two: ActivationStore, residency) -> None:
    options = {"seed": 0, "n_steps": 20, "window_chunks": 2, "residency": residency}
    through = {b.step: b.x[A] for b in BatchLoader(two, (A,), 37, **options)}
    for batch in BatchLoader(two, (A,), 37, first_step=13, **options):
        assert torch.equal(batch.x[A], through[batch.step])


def test_a_damaged_store_stops_the_iteration_with_its_name(two: ActivationStore) -> None:
    (Path(two.place.root) / A / "c" / "1" / "0").unlink()
    with pytest.raises(StoreError, match="is missing"):
        list(BatchLoader(ActivationStore.open(two.place.root), (A,), 50, seed=0, n_steps=9, residency="stream"))


def test_leaving_early_stops_the_reading_thread(two: ActivationStore) -> None:
    import threading

    before = threading.active_count()
    for batch in BatchLoader(two, (A,), 10, seed=0, n_steps=1000, residency="stream"):
        if batch.step == 3:
            break
    assert threading.active_count() == before


@pytest.mark.parametrize("residency", ["stream", "ram", "gpu"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_ranks_share_out_each_batch(tmp_path: Path, residency, dtype: str) -> None:
    store = make_store(tmp_path / "s", d={A: 6, B: 3}, dtype=dtype)
    options = {"seed": 1, "n_steps": 22, "window_chunks": 2, "residency": residency}
    whole = list(BatchLoader(store, (A, B), 37, **options))
    parts = [list(BatchLoader(store, (A, B), 37, rank=r, world_size=3, **options)) for r in range(3)]
    for step, batch in enumerate(whole):
        for rank in range(3):
            for hook_point in (A, B):
                assert batch.x[hook_point].dtype == getattr(torch, dtype)
                assert torch.equal(parts[rank][step].x[hook_point], batch.x[hook_point][rank::3])
    with pytest.raises(ValueError, match="rank 3 of 3"):
        BatchLoader(store, (A,), 37, rank=3, world_size=3, **options)


def test_batches_that_are_kept_are_not_overwritten(two: ActivationStore) -> None:
    kept = [b.x[A] for b in BatchLoader(two, (A,), 16, seed=0, n_steps=40, residency="ram")]
    views = [b.x[A][3:5] for b in BatchLoader(two, (A,), 16, seed=0, n_steps=40, residency="ram")]
    whole = two.rows(A, 0, two.n_train_rows, "train")
    layout = BatchLoader(two, (A,), 16, seed=0, n_steps=40).layout
    for step in range(40):
        expected = whole[batch_rows(layout.cursor(0, step), layout)]
        assert np.array_equal(kept[step].numpy(), expected)
        assert np.array_equal(views[step].numpy(), expected[3:5])


def test_streaming_holds_the_window_and_what_is_read_ahead(tmp_path: Path) -> None:
    import tracemalloc

    store = make_store(tmp_path / "s", d={A: 2048}, n_sequences=640, chunk_sequences=16)
    chunk_bytes = store.chunk_rows * 2048 * 4
    loader = BatchLoader(store, (A,), 20, seed=0, n_steps=600, window_chunks=8, residency="stream")
    list(BatchLoader(store, (A,), 40, seed=0, n_steps=2, window_chunks=8, residency="stream"))  # caches, imports
    tracemalloc.start()
    for _ in loader:
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 8 * chunk_bytes < peak < 10 * chunk_bytes


@pytest.mark.parametrize("device", ["cuda", "cuda:2"])
@pytest.mark.parametrize("residency", ["stream", "ram", "gpu", "auto"])
def test_batches_for_a_device_are_copied_by_a_thread_that_is_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, residency, device: str
) -> None:
    """A thread's current device is the first until it says so: what it pins and where its streams are goes by that."""
    store = make_store(tmp_path / "s", d={A: 6, B: 3})
    options = {"seed": 1, "n_steps": 20, "window_chunks": 2}
    here = list(BatchLoader(store, (A, B), 37, residency="ram", **options))
    fake = faked(monkeypatch, 4)
    use("cuda:2")
    there = list(BatchLoader(store, (A, B), 37, residency=residency, device=device, **options))
    for a, b in zip(here, there, strict=True):
        assert all(torch.equal(a.x[hook_point], b.x[hook_point]) for hook_point in (A, B))
    assert {what for what, *_ in fake.calls} == {"to", "pin", "stream", "record"}
    assert len(fake.threads()) == 2
    assert all(index in (None, 2) and current == 2 for _, index, current, _ in fake.calls)


@pytest.mark.parametrize("device", [CUDA])
@pytest.mark.parametrize("residency", ["stream", "ram", "gpu"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int8"])
def test_a_gpu_gets_the_same_bits(tmp_path: Path, residency, dtype: str, device: str) -> None:
    store = make_store(tmp_path / "s", d={A: 6, B: 3}, dtype=dtype)
    options = {"seed": 1, "n_steps": 40, "window_chunks": 2}
    here = BatchLoader(store, (A, B), 37, residency="ram", **options)
    there = BatchLoader(store, (A, B), 37, residency=residency, device=device, **options)
    for a, b in zip(here, there, strict=True):
        for hook_point in (A, B):
            assert b.x[hook_point].device == torch.device(device)
            assert torch.equal(a.x[hook_point], b.x[hook_point].cpu())


@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize("residency", ["stream", "ram", "gpu"])
def test_rows_are_whole_when_the_device_gets_to_them(tmp_path: Path, residency, device: str) -> None:
    """A GPU's own stream stands still while the host goes on, frees each batch and copies later ones on a second stream. It
    would have caught a batch that is read before it is there, or whose memory is given away before it is read."""
    d, n = (512, 12) if device != "cpu" else (6, 4)
    store = make_store(tmp_path / "s", d={A: d})
    options = {"seed": 1, "n_steps": n, "window_chunks": 2}
    found = []
    for batch in BatchLoader(store, (A,), 100, residency=residency, device=device, **options):
        if device != "cpu":
            torch.cuda._sleep(10_000_000)  # cycles: some milliseconds
        found.append(batch.x[A].clone())
        del batch
    for batch, own in zip(BatchLoader(store, (A,), 100, residency="ram", **options), found, strict=True):
        assert torch.equal(own.cpu(), batch.x[A])
