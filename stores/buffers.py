"""Memory that batches lie in, and a store's numbers as tensors."""

import weakref
from collections import defaultdict

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from stores import int8


class Recycled:
    """Arrays whose memory is used again once nothing refers to it: touching fresh memory costs more than filling it."""

    def __init__(self) -> None:
        self._free: dict[tuple[tuple[int, ...], np.dtype], list[np.ndarray]] = defaultdict(list)

    def take(self, shape: tuple[int, ...], dtype: np.dtype) -> Shaped[np.ndarray, "..."]:
        free = self._free[shape, dtype]
        memory = free.pop() if free else np.empty(shape, dtype)
        lent = memory.view()
        weakref.finalize(lent, free.append, memory).atexit = False
        return lent


def stored(x: Shaped[Tensor, "*shape"]) -> Shaped[np.ndarray, "*shape"]:
    """The tensor's memory as it lies in a store: bfloat16 as uint16."""
    return x.view(torch.int16).numpy().view(np.uint16) if x.dtype == torch.bfloat16 else x.numpy()


def tensor(x: Shaped[np.ndarray, "*shape"], dtype: torch.dtype) -> Shaped[Tensor, "*shape"]:
    """stored's inverse."""
    return torch.from_numpy(x.view(np.int16)).view(dtype) if dtype == torch.bfloat16 else torch.from_numpy(x)


def numbers(x: Shaped[Tensor, "*n d_stored"]) -> Float[Tensor, "*n d"]:
    """Of rows as they are stored: int8 as float32, others as they are."""
    return int8.decode(x) if x.dtype == torch.int8 else x
