"""The meta device as one that trains."""

import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.train import foresight


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
        yield
    library._destroy()
