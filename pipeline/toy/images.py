"""Pictures of handwritten digits for the small nets of the toys."""

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.config import UserError
from stores.manifest import bytes_digest, seed_of


@dataclass(frozen=True)
class Images:
    """x (n, pixels) float32 in [0, 1], y (n) int64; test: of which training has seen none."""

    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor

    @property
    def digest(self) -> str:
        return bytes_digest(b"".join(t.numpy().tobytes() for t in vars(self).values()))


def load_images(data: str, seed: int = 0) -> Images:
    """data: "digits" (scikit-learn's 1,797 of 8 × 8, 500 of them for the test), "hub" (ylecun/mnist), or a folder with
    MNIST's idx files. Raises UserError: not there, or not idx files."""
    if data == "digits":
        from sklearn.datasets import load_digits  # imported late: it takes a second

        found: Any = load_digits()
        order = np.random.default_rng(seed_of("digits", seed)).permutation(len(found.data))
        x, y = found.data[order] / 16, found.target[order]
        return _images(x[:-500], y[:-500], x[-500:], y[-500:])
    if data == "hub":
        from datasets import load_dataset

        try:
            loaded: Any = load_dataset("ylecun/mnist")
        except OSError as error:  # what the library raises where there is no net, and no copy
            raise UserError(
                "data = 'hub': ylecun/mnist cannot be had from the hub; take 'digits' or a folder"
            ) from error
        parts = [loaded[s].with_format("numpy") for s in ("train", "test")]
        arrays = [a for p in parts for a in (np.stack(list(p["image"])) / 255, np.asarray(p["label"]))]
        return _images(*arrays)
    folder = Path(data)
    names = ("train-images", "train-labels", "t10k-images", "t10k-labels")
    arrays = [read_idx(_find(folder, name)) for name in names]
    return _images(arrays[0] / 255, arrays[1], arrays[2] / 255, arrays[3])


def _images(train_x: Any, train_y: Any, test_x: Any, test_y: Any) -> Images:
    x = [torch.from_numpy(a.reshape(len(a), -1)).float() for a in (train_x, test_x)]
    y = [torch.from_numpy(a.astype(np.int64)) for a in (train_y, test_y)]
    return Images(x[0], y[0], x[1], y[1])


def _find(folder: Path, name: str) -> Path:
    found = sorted(folder.glob(f"{name}*"))
    if not found:
        raise UserError(f"{folder} has no file {name}…: expected the four idx files of MNIST, or data = 'digits'")
    return found[0]


def read_idx(path: Path) -> np.ndarray:
    """An array of bytes in the idx format (LeCun, Cortes, Burges: two zeros, type 8, number of axes, sizes big-endian).

    Raises UserError: another type, or not as long as it says.
    """
    raw = path.read_bytes()
    raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    if len(raw) < 4 or raw[:3] != b"\x00\x00\x08":
        raise UserError(f"{path} is not an idx file of bytes: it begins with {raw[:4].hex()}, expected 000008")
    sizes = np.frombuffer(raw, ">i4", raw[3], 4)
    data = np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3])
    if len(data) != sizes.prod(dtype=np.int64):
        raise UserError(f"{path} has {len(data)} bytes of data, its header says {sizes.tolist()}")
    return data.reshape(sizes)
