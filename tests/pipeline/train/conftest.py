"""The meta device as one that trains."""

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.train import clock, foresight


def operations(work: Callable[[], object]) -> list[str]:
    """The names of PyTorch's operators that the work calls, as in "aten.topk", in their order."""
    found: list[str] = []

    class Seen(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            found.append(str(func.overloadpacket))
            return func(*args, **(kwargs or {}))

    with Seen():
        work()
    return found


@pytest.fixture(scope="module")
def adam_on_meta() -> Iterator[None]:
    """Adam's fused kernel with a rate that is a tensor has a form for every device but this one. Adam's Python around it
    runs."""

    def kernel(
        parameters: list[Tensor],
        gradients: list[Tensor],
        means: list[Tensor],
        squares: list[Tensor],
        _: list[Tensor],
        steps: list[Tensor],
        *,
        lr: Tensor,
        **others: Any,
    ) -> None:
        assert {t.device.type for t in (*parameters, *gradients, *means, *squares, *steps, lr)} == {"meta"}

    library = torch.library.Library("aten", "IMPL")
    library.impl("_fused_adam_.tensor_lr", kernel, "Meta")
    with pytest.MonkeyPatch.context() as patch:
        optimizer = sys.modules["torch.optim.optimizer"]
        patch.setattr(optimizer, "_get_fused_kernels_supported_devices", lambda: ["meta", "cpu"])
        patch.setattr(foresight, "Copy", lambda tensor: tensor)  # read some steps later; here it never is
        patch.setattr(clock, "send", lambda numbers, places: None)  # of pinned memory, which the host does not wait for
        yield
    library._destroy()
