"""A fully connected net that somebody else trained, from a file of its weights.

    net.safetensors   safetensors.torch.save_file(net.state_dict(), path): layers.0.weight, layers.0.bias, …, or 0.weight,
                      0.bias, 2.weight … of an nn.Sequential: any one name before the number
    net.npz           numpy.savez(path, W0=…, b0=…, W1=…, b1=…)

W (d_out, d_in), b (d_out,), in the order of the numbers. All hidden layers have one activation, the last has none.
"""

import re
import zipfile
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pipeline.config import UserError
from pipeline.toy.mnist_rotation.net import Net

N_CLASSES = 10
_KINDS = {"weight": "weight", "bias": "bias", "W": "weight", "b": "bias"}


def load_net(path: Path, activation: str, n_pixels: int) -> Net:
    """n_pixels: of the images that it is to read. Raises UserError: no such net."""
    tensors = _tensors(path)
    layers = _layers(path, tensors)
    widths = [n_pixels]
    for i, (weight, bias) in enumerate(layers):
        W, b = tensors[weight], tensors[bias]
        if W.ndim != 2 or W.shape[1] != widths[-1]:
            of = f"the images have {n_pixels} pixels" if i == 0 else f"{layers[i - 1][0]} gives {widths[-1]}"
            raise _refused(path, f"{weight} is {tuple(W.shape)}, expected (d_out, {widths[-1]}): {of}")
        if b.shape != (len(W),):
            raise _refused(path, f"{bias} is {tuple(b.shape)}, expected ({len(W)},) as {weight} is {tuple(W.shape)}")
        widths.append(len(W))
    if widths[-1] != N_CLASSES:
        raise _refused(
            path, f"the last layer, {layers[-1][0]}, gives {widths[-1]} numbers, expected {N_CLASSES} logits"
        )
    if len(layers) < 3:
        raise _refused(path, f"it has {len(layers)} layers, expected three or more: a middle layer is looked at")
    W, b = ([tensors[names[i]].float() for names in layers] for i in (0, 1))
    return Net.of(W, b, activation)


def _refused(path: Path, what: str) -> UserError:
    return UserError(f"mnist-rotation.model: {path}: {what}")


def _tensors(path: Path) -> dict[str, Tensor]:
    """Finite floating-point numbers, by name."""
    if not path.is_file():
        raise _refused(path, "no such file; expected a .safetensors or .npz file of weights")
    try:
        if path.suffix == ".safetensors":
            found = load_file(path)
        elif path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                found = {name: _as_tensor(path, name, file[name]) for name in file.files}
        else:
            raise _refused(
                path,
                "expected .safetensors or .npz; a pickle is not read, for it can run anything: "
                "safetensors.torch.save_file(net.state_dict(), 'net.safetensors') writes one",
            )
    except (SafetensorError, OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise _refused(path, f"it cannot be read ({str(error).splitlines()[0]}); pickled arrays are refused") from error
    for name, tensor in found.items():
        if not tensor.is_floating_point():
            raise _refused(path, f"{name} is of {tensor.dtype}, expected floating-point numbers")
        if not bool(tensor.isfinite().all()):
            raise _refused(path, f"{name} has values that are not finite")
    return found


def _as_tensor(path: Path, name: str, array: np.ndarray) -> Tensor:
    if array.dtype.kind not in "fiub":
        raise _refused(path, f"{name} is of {array.dtype}, expected floating-point numbers")
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))


def _layers(path: Path, tensors: dict[str, Tensor]) -> list[tuple[str, str]]:
    """(weight, bias) names, in the order of their numbers."""
    found: dict[tuple[str, int], dict[str, str]] = {}
    for name in tensors:
        match = re.fullmatch(r"(.*?)(\d+)\.(weight|bias)|()([Wb])(\d+)", name)
        if not match:
            raise _refused(
                path, f"{name} is no weight or bias of a linear layer: expected 0.weight, 0.bias … or W0, b0 …"
            )
        prefix, number, kind, _, letter, of_letter = match.groups()
        found.setdefault((prefix or "", int(number or of_letter)), {})[_KINDS[kind or letter]] = name
    if not found:
        raise _refused(path, "it has no tensors, expected 0.weight, 0.bias … or W0, b0 …")
    if len(prefixes := sorted({prefix for prefix, _ in found})) > 1:
        raise _refused(
            path, f"its layers' names begin differently ({', '.join(map(repr, prefixes))}): expected one net"
        )
    order = sorted(found.items(), key=lambda item: item[0][1])
    for (_, number), names in order:
        if missing := {"weight", "bias"} - names.keys():
            raise _refused(path, f"layer {number} has {', '.join(names.values())} and no {missing.pop()}")
    return [(names["weight"], names["bias"]) for _, names in order]
