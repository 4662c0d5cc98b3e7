"""A device that has values, is not the CPU, and is here: what is on it lies in this machine's memory.

PyTorch knows it as "lazy". As with a GPU, an operation takes all its tensors from one device, numbers apart, and NumPy sees
none of them. So what is written for a GPU runs here from end to end, and a tensor that was left on the CPU is found.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from pipeline.train import foresight, readings

NAME = "lazy"
_COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd
# What copies between devices, and what may be indexed by the CPU's integers.
_BOTH = (torch.ops.aten.copy_, torch.ops.aten._to_copy, torch.ops.aten.index, torch.ops.aten.index_put_)


class OnIt(Tensor):
    """What is `held`, on the device."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "OnIt":
        made = Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype, device=NAME
        )
        made.held = held
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"OnIt({self.held!r})"

    @property
    def data(self) -> Tensor:  # type: ignore[override]
        return self.detach()

    @data.setter
    def data(self, other: "OnIt") -> None:
        self.held = other.held
        Tensor.data.__set__(self, other)  # type: ignore[attr-defined]

    def new_tensor(self, value: Any, **options: Any) -> Tensor:  # type: ignore[override]
        return torch.tensor(value, **{"dtype": self.dtype, **options}).to(NAME)

    def tolist(self) -> Any:
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _done(func, args, kwargs or {})


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _done(func, args, kwargs or {})


def _done(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    if torch.is_inference_mode_enabled() and func.has_kernel_for_dispatch_key(_COMPOSITE):
        with _Mode():  # elsewhere autograd has taken it apart before
            return func.decompose(*args, **kwargs)
    tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
    there = {id(t.held): t for t in tensors if isinstance(t, OnIt)}
    here = [t for t in tensors if not isinstance(t, OnIt) and t.ndim]
    if there and here and func.overloadpacket not in _BOTH:
        raise RuntimeError(f"{func}: expected all tensors to be on the same device, found {NAME} and cpu")
    to = kwargs.get("device")
    to_it = bool(there) if to is None else torch.device(to).type == NAME
    if to is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    if func.overloadpacket is torch.ops.aten.copy_:
        to_it = isinstance(args[0], OnIt)
    if func.overloadpacket is torch.ops.aten._local_scalar_dense:
        to_it = False
    args, kwargs = tree_map_only(OnIt, lambda t: t.held, (args, kwargs))
    made = func(*args, **kwargs)

    def placed(t: Tensor) -> Tensor:
        if id(t) in there:
            return there[id(t)]
        return OnIt(t) if to_it else t

    if func.overloadpacket is torch.ops.aten._to_copy and to is not None and not to_it:
        made = made.clone()
    return tree_map_only(Tensor, placed, made)


@contextmanager
def pretended() -> Iterator[str]:
    """The device's name, while it is there."""
    with pytest.MonkeyPatch.context() as patch:
        optimizer = sys.modules["torch.optim.optimizer"]
        patch.setattr(optimizer, "_get_fused_kernels_supported_devices", lambda: [NAME, "cpu"])
        for module in (foresight, readings):
            patch.setattr(module, "Copy", _Copy)
        made = torch.tensor  # its part in C++ asks no mode

        def tensor(value: Any, **options: Any) -> Tensor:
            there = torch.device(options.get("device") or "cpu").type == NAME
            return made(value, **{**options, "device": "cpu"}).to(NAME) if there else made(value, **options)

        patch.setattr(torch, "tensor", tensor)
        with _Mode():
            yield NAME


class _Copy:
    """As readings.Copy, of a device without events."""

    def __init__(self, tensor: Tensor) -> None:
        self._copy = tensor.detach().to("cpu")

    def read(self) -> Tensor:
        return self._copy
