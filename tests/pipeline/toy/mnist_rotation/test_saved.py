"""mnist-rotation.model: a net that was trained elsewhere, from a file."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.config import UserError
from pipeline.toy.findings import decide
from pipeline.toy.mnist_rotation import detailed
from pipeline.toy.mnist_rotation import experiment as toy
from pipeline.toy.mnist_rotation.claims import CLAIMS
from pipeline.toy.mnist_rotation.page import page
from pipeline.toy.mnist_rotation.saved import load_net

SMALL = {**toy.QUICK, "n_fit": (1, 24), "n_heldout": 24, "n_iterations": 4, "n_polish": 6}


def sequential(*widths: int, act: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b), act())]
    return nn.Sequential(*layers[:-1])


def saved(net: nn.Sequential, folder: Path, form: str) -> Path:
    """The net's file, in one of the forms that are read."""
    state = {name: value.detach().clone() for name, value in net.state_dict().items()}
    if form == "npz":
        arrays = {
            f"{'W' if name.endswith('weight') else 'b'}{int(name[0]) // 2}": v.numpy() for name, v in state.items()
        }
        np.savez(folder / "net.npz", **arrays)
        return folder / "net.npz"
    if form != "sequential":
        state = {form.format(int(name[0]) // 2) + name[1:]: value for name, value in state.items()}
    save_file(state, folder / "net.safetensors")
    return folder / "net.safetensors"


@pytest.mark.parametrize("form", ["sequential", "layers.{}", "fc{}", "model.layers.{}", "npz"])
@pytest.mark.parametrize(("activation", "act"), [("relu", nn.ReLU), ("gelu", nn.GELU), ("tanh", nn.Tanh)])
def test_a_net_of_any_form_computes_what_it_did(
    tmp_path: Path, form: str, activation: str, act: type[nn.Module]
) -> None:
    net = sequential(64, 20, 12, 10, act=act)
    x = torch.rand(5, 64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(load_net(saved(net, tmp_path, form), activation, 64)(x), net(x))


def test_layers_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    """Not of their names: 10 comes after 2."""
    net = sequential(64, *[12] * 11, 10)
    x = torch.rand(5, 64, generator=torch.Generator().manual_seed(1))
    state = {f"layers.{int(n.split('.')[0]) // 2}.{n.split('.')[1]}": v for n, v in net.state_dict().items()}
    save_file(state, tmp_path / "net.safetensors")
    torch.testing.assert_close(load_net(tmp_path / "net.safetensors", "relu", 64)(x), net(x))


def test_a_net_of_four_layers_and_other_widths_is_looked_at(tmp_path: Path, numbers: dict[str, Any]) -> None:
    """The one-net parts are of it, to the page and the findings; the others are what they were."""
    path = saved(sequential(64, 20, 14, 12, 10), tmp_path, "sequential")
    settings = toy.Settings(**SMALL, model=str(path))
    parts = (detailed.rotation, detailed.by_n_fit, detailed.starts, detailed.agreements)
    found = json.loads(json.dumps({part.__name__: part(settings) for part in parts}))
    assert found["rotation"]["widths"] == [64, 20, 14, 12, 10]
    assert found["rotation"]["unchanged"] < 1e-4
    assert np.array(found["rotation"]["magnitude"]["after"]).shape == (14, 20)
    layers = found["rotation"]["layers"]
    assert len(layers) == len(found["agreements"]["own"]) == 4
    totals = [sum(layer["train"][name]["log"] for layer in layers) for name in ("before", "after")]
    assert totals[1] < totals[0]
    made = page({**numbers, **found})
    text = " ".join([made.lead, *(section.text for section in made.sections)])
    assert text.count(str(path)) >= 3
    assert "64 → 20 → 14 → 12 → 10" in text
    assert len(decide(CLAIMS, {**numbers, **found})) == len(CLAIMS)


def test_another_file_is_another_input(tmp_path: Path) -> None:
    path = saved(sequential(64, 20, 12, 10), tmp_path, "sequential")
    settings = toy.Settings(**SMALL, model=str(path))
    first = toy.inputs(settings)
    assert first["images"] == toy.inputs(toy.Settings(**SMALL))["images"]
    saved(sequential(64, 20, 14, 10), tmp_path, "sequential")
    assert toy.inputs(settings)["model"] != first["model"]


Change = Callable[[dict[str, Tensor]], Any]


def without(name: str) -> Change:
    return lambda state: state.pop(name)


def as_is(name: str, value: Tensor) -> Change:
    return lambda state: state.update({name: value})


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (without("2.bias"), r"layer 2 has 2\.weight and no bias"),
        (without("4.weight"), r"layer 4 has 4\.bias and no weight"),
        (lambda s: (s.pop("2.weight"), s.pop("2.bias")), r"4\.weight is \(10, 12\), expected \(d_out, 20\): 0\.weight"),
        (lambda s: (s.pop("4.weight"), s.pop("4.bias")), r"the last layer, 2\.weight, gives 12 numbers, expected 10"),
        (as_is("0.weight", torch.zeros(20, 784)), r"0\.weight is \(20, 784\), expected \(d_out, 64\): the images have"),
        (as_is("0.weight", torch.zeros(64, 20)), r"0\.weight is \(64, 20\), expected \(d_out, 64\)"),
        (as_is("2.bias", torch.zeros(13)), r"2\.bias is \(13,\), expected \(12,\) as 2\.weight is \(12, 20\)"),
        (as_is("2.weight", torch.full((12, 20), torch.nan)), r"2\.weight has values that are not finite"),
        (as_is("2.weight", torch.zeros(12, 20, dtype=torch.int64)), r"2\.weight is of torch\.int64, expected floating"),
        (as_is("1.running_mean", torch.zeros(20)), r"1\.running_mean is no weight or bias of a linear layer"),
        (as_is("other.6.weight", torch.zeros(10, 10)), r"names begin differently \('', 'other\.'\)"),
        (lambda s: s.clear(), r"it has no tensors"),
    ],
)  # fmt: skip
def test_what_is_no_such_net_is_refused_in_one_line(tmp_path: Path, change: Change, line: str) -> None:
    state = {name: value.clone() for name, value in sequential(64, 20, 12, 10).state_dict().items()}
    change(state)
    save_file(state, tmp_path / "net.safetensors")
    refused(tmp_path / "net.safetensors", line)


def refused(path: Path, line: str) -> None:
    with pytest.raises(UserError, match=line) as found:
        toy.inputs(toy.Settings(**SMALL, model=str(path)))
    assert "\n" not in str(found.value)
    assert str(found.value).startswith(f"mnist-rotation.model: {path}: ")


def test_a_file_that_is_no_such_file_is_refused_in_one_line(tmp_path: Path) -> None:
    refused(tmp_path / "none.safetensors", r"no such file; expected a \.safetensors or \.npz")
    torch.save(sequential(64, 12, 10), tmp_path / "net.pt")
    refused(tmp_path / "net.pt", r"a pickle is not read.*save_file")
    for name in ("broken.safetensors", "broken.npz"):
        (tmp_path / name).write_bytes(b"PK\x03\x04 not a net")
        refused(tmp_path / name, r"it cannot be read")
    np.savez(tmp_path / "object.npz", W0=np.array([{"a": 1}], dtype=object))
    refused(tmp_path / "object.npz", r"it cannot be read \(Object arrays.*pickled arrays are refused")
    np.savez(tmp_path / "text.npz", W0=np.array([["a", "b"]]))
    refused(tmp_path / "text.npz", r"W0 is of <U1, expected floating-point")
    refused(saved(sequential(64, 12, 10), tmp_path, "npz"), r"it has 2 layers, expected three or more")
