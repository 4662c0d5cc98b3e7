import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.config import UserError
from pipeline.toy.mnist_mlp import (
    MnistMlpConfig,
    experiment,
    layer_jacobians,
    load_images,
    read_idx,
    rotated_forward,
    train_net,
)
from pipeline.train.rotations.orthogonal import random_rotation

SMALL = MnistMlpConfig(width=24, n_steps=300, n_fit=(1, 64), n_heldout=64, n_iterations=10, n_polish=20)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n)


@pytest.fixture(scope="module")
def result() -> dict:
    return experiment(SMALL)


def test_the_net_learns_and_its_rotated_form_says_the_same(result: dict) -> None:
    assert result["accuracy"]["test"] > 0.9
    assert result["unchanged"] < 1e-4
    images = load_images("digits")
    net = train_net(SMALL, images)
    R = [random_rotation(d, d + i) for i, d in enumerate((64, 24, 24, 10))]
    torch.testing.assert_close(rotated_forward(net, R, images.test_x), net(images.test_x), atol=1e-4, rtol=1e-4)


def test_layer_jacobians_multiply_to_that_of_the_whole() -> None:
    images = load_images("digits")
    net = train_net(SMALL, images)
    x = images.test_x[:5]
    first, second, third = (J.J for J in layer_jacobians(net, x))
    whole = torch.func.vmap(torch.func.jacrev(net))(x)
    torch.testing.assert_close(third @ second @ first, whole, atol=1e-5, rtol=1e-4)


def test_the_middle_layer_is_sparser_on_inputs_that_no_fit_has_seen(result: dict) -> None:
    for where in ("train", "heldout"):
        middle = result["layers"][1][where]
        assert middle["after"]["log"] < 0.9 * middle["before"]["log"]
        assert middle["after"]["mass_in_1%"] > 1.5 * middle["before"]["mass_in_1%"]
        assert all(middle["after"]["log"] < 0.8 * r["log"] for r in middle["random"])


def test_more_inputs_generalise_better(result: dict) -> None:
    one, many = result["by_n_fit"]
    assert (one["n"], many["n"]) == (1, 64)
    assert one["train"]["log"] < many["train"]["log"]
    assert many["heldout"]["log"] < one["heldout"]["log"]
    assert many["heldout"]["log"] - many["train"]["log"] < 0.5 * (one["heldout"]["log"] - one["train"]["log"])


def test_the_same_settings_give_the_same_numbers(result: dict) -> None:
    assert result["layers"] == experiment(SMALL)["layers"]


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
