"""This process among those that torchrun starts: the variables that it sets, and the device that each has for itself."""

import os
import re

import torch

from pipeline.config import UserError
from stores.devices import use


def variable(name: str, default: int | None, *, at_least: int = 0, at_most: int = 10**6) -> int:
    """A whole number in the environment; default None: it has to be there. Raises UserError."""
    text = os.environ.get(name)
    if text is None and default is not None:
        return default
    if text is None or not re.fullmatch("[0-9]{1,7}", text) or not at_least <= int(text) <= at_most:
        found = "is not set" if text is None else f"= {text[:40]!r}"
        raise UserError(f"{name} {found} in the environment, expected {at_least} to {at_most}: start with torchrun")
    return int(text)


def choose_device(name: str) -> str:
    """ "auto" → CUDA when there is some. "cpu", or "cuda:i" for the i-th process that torchrun started on this machine.

    Raises UserError: CUDA was asked for and there is none, or there are more processes than devices.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise UserError(f"--device {name}: expected auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch sees no CUDA device here; use --device cpu or auto")
    if name == "cpu" or not torch.cuda.is_available():
        return "cpu"
    index, n = variable("LOCAL_RANK", 0), torch.cuda.device_count()
    if index >= n:
        raise UserError(
            f"LOCAL_RANK = {index} in the environment, but PyTorch sees {n} CUDA device{'s' if n > 1 else ''}: "
            f"start torchrun with --nproc-per-node {n}"
        )
    use(f"cuda:{index}")
    return f"cuda:{index}"
