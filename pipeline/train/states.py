"""The state of a family under Adam: named tensors, as they are saved."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from pipeline.train.families.base import Family

_WHOLE = ("scale_in", "scale_out", "mean_in", "foresight")


def state(model: Family, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    found = {f"model.{k}": v for k, v in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        for key, value in optimiser.state.get(parameter, {}).items():
            found[f"adam.{name}.{key}"] = value
    # A run goes on with the arithmetic it began with, wherever it is resumed.
    found["bfloat16"] = torch.tensor(model.products.dtype == torch.bfloat16)
    return found


def load(state: Mapping[str, Tensor], model: Family, optimiser: torch.optim.Optimizer) -> None:
    """All of it goes to where the parameters are: Adam, fused, also counts its steps there."""
    model.load_state_dict({k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")})
    for name, parameter in model.named_parameters():
        prefix = f"adam.{name}."
        moments = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        if moments:
            optimiser.state[parameter] = {k: v.to(parameter.device) for k, v in moments.items()}
    model.products = replace(model.products, dtype=torch.bfloat16 if bool(state["bfloat16"]) else torch.float32)


def per_feature(model: Family, name: str, tensor: Tensor) -> bool:
    """Whether the rows of a part of the state, or of the model, are features."""
    return tensor.ndim > 0 and not any(part in (*model.whole, *_WHOLE) for part in name.split("."))
