from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.score.shares import centres, scaled_decoder, shares
from stores.activations import ActivationStore
from tests.conftest import make_store
from tests.pipeline.score.made import dictionary, scored, subject

HOOKS = [f"blocks.{layer}.hook_resid_post" for layer in range(3)]


def test_shares_and_centres_by_hand() -> None:
    blocks = [torch.tensor([[3.0, 4], [0, 0], [0, 0]]), torch.tensor([[0.0, 5], [0, 2], [0, 0]])]
    found = shares(blocks)
    assert found.tolist() == [[0.5, 0.5], [0, 1], [0, 0]]
    assert centres(found).tolist() == [0.5, 1, 0]


def test_a_share_is_of_norms_in_units_of_each_hook_points_scale(tmp_path: Path) -> None:
    """Each layer is a multiple of the first, and so is what every feature writes there: shares are equal. A dead feature,
    which writes to one layer alone, does not count."""
    rows = np.random.default_rng(0).normal(size=(600, 8)).astype(np.float32)
    times = dict(zip(HOOKS, (1, 10, 0.1), strict=True))
    store = make_store(tmp_path / "s.zarr", d=dict.fromkeys(HOOKS, 8), rows=lambda h, n, d: rows * times[h])
    assert isinstance(store, ActivationStore)
    W = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
    W_dec = torch.cat([W * times[h] for h in HOOKS], dim=1)
    W_dec[0, :16] = 0
    b_enc = torch.zeros(16)
    b_enc[0] = -1e9
    made = dictionary(dict.fromkeys(HOOKS, 8), dict.fromkeys(HOOKS, 8), W_dec=W_dec, b_enc=b_enc)
    torch.testing.assert_close(shares(scaled_decoder(made, store))[1:], torch.full((15, 3), 1 / 3, dtype=torch.float64))
    (row,) = scored(tmp_path / "run", store, [subject(tmp_path / "run", made)])["dictionaries"]
    assert [row[f"share[{h}]"] for h in HOOKS] == pytest.approx([1 / 3] * 3, abs=1e-5)
    assert row["dead"] == 1
    assert (
        (tmp_path / "run" / "score" / "blocks.0-2.hook_resid_post" / "layers.png").read_bytes().startswith(b"\x89PNG")
    )


def test_of_one_hook_point_there_are_no_shares(store: ActivationStore, tmp_path: Path) -> None:
    d = {store.hook_points[0]: 6}
    (row,) = scored(tmp_path, store, [subject(tmp_path, dictionary(d, d))])["dictionaries"]
    assert not [key for key in row if key.startswith("share")]
    assert not list(tmp_path.rglob("layers.png"))
