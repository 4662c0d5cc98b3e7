import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.config import UserError
from pipeline.toy.images import load_images, read_idx


def _idx(array: np.ndarray) -> bytes:
    return b"\x00\x00\x08" + bytes([array.ndim]) + np.array(array.shape, ">i4").tobytes() + array.tobytes()


def test_idx_files_are_read_packed_or_not(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    parts = {}
    for name, n in (("train", 7), ("t10k", 3)):
        parts[name] = rng.integers(0, 256, (n, 4, 5), dtype=np.uint8), rng.integers(0, 10, n, dtype=np.uint8)
        (tmp_path / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(_idx(parts[name][0])))
        (tmp_path / f"{name}-labels-idx1-ubyte").write_bytes(_idx(parts[name][1]))
    images = load_images(str(tmp_path))
    assert torch.equal(images.train_x, torch.from_numpy(parts["train"][0].reshape(7, 20) / 255).float())
    assert images.test_y.tolist() == parts["t10k"][1].tolist()


def test_what_is_not_an_idx_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file train-images"):
        load_images(str(tmp_path))
    (tmp_path / "cut").write_bytes(_idx(np.zeros((3, 4), np.uint8))[:-1])
    with pytest.raises(UserError, match=r"11 bytes of data, its header says \[3, 4\]"):
        read_idx(tmp_path / "cut")
    (tmp_path / "text").write_bytes(b"hello")
    with pytest.raises(UserError, match="expected 000008"):
        read_idx(tmp_path / "text")
