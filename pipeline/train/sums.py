"""What the processes that train a dictionary together make of a step's parts."""

import torch
from jaxtyping import Bool, Int64
from torch import Tensor, nn

from pipeline.train.ranks import Ranks


class Sums:
    """Over rows, or over features, whichever the processes divide."""

    def __init__(self, model: nn.Module, ranks: Ranks) -> None:
        self.model, self.ranks = model, ranks

    @torch.no_grad()
    def of_rows(
        self, parts: dict[str, Tensor], fired: Bool[Tensor, " d_sae"], share: float
    ) -> tuple[dict[str, Tensor], Bool[Tensor, " d_sae"]]:
        """Gradients, parts of the loss and what fired, of a share of the batch, become those of all of it: in one sum."""
        parts = {name: part.detach() for name, part in parts.items()}
        if not self.ranks.splits_rows:
            return parts, fired
        means = torch.stack([part.float() for part in parts.values()]) * share
        n_fired = fired.float()
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        self.ranks.add_up([*gradients, means, n_fired])
        return dict(zip(parts, means.unbind(), strict=True)), n_fired > 0

    @torch.no_grad()
    def of_features(
        self, parts: dict[str, Tensor], silent: Int64[Tensor, " d_sae"], dead_after: int
    ) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """(parts with the "l0" of all features, how many are dead, the longest silence), in one exchange. silent: tokens
        since each feature held here fired."""
        l0, n_dead, longest = parts["l0"], (silent > dead_after).sum(), silent.max()
        if self.ranks.splits_features:
            own = torch.stack([x.double() for x in (l0, n_dead, longest)])  # float64 holds each exactly
            l0s, counts, silences = torch.stack(self.ranks.each(own)).unbind(1)
            l0, n_dead, longest = l0s.sum().to(l0.dtype), counts.sum().to(n_dead.dtype), silences.max()
        return parts | {"l0": l0}, n_dead, longest
