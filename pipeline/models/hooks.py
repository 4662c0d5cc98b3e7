"""What happens at the hook points of one forward pass: an edit, a capture, the early stop."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from pipeline.models.hook_points import HEADS, Sizes

Edit = Callable[[Tensor, Mapping[str, Tensor]], Tensor]  # (activations, what was captured before them) → in their place


class _Reached(Exception):
    """All that was asked for is captured."""


class Hooks:
    """capture: hook points whose activations are kept, as edited. edit: what replaces those at a hook point.

    to_end: the pass goes on when all is captured. Raises UserError: the model has no such hook point.
    """

    def __init__(self, sizes: Sizes, capture: Collection[str], edit: Mapping[str, Edit] | None, to_end: bool) -> None:
        self.capture, self.edit, self.to_end = set(capture), edit or {}, to_end
        self.captured: dict[str, Tensor] = {}
        self._d_head = sizes.d_head
        self._heads: dict[str, list[str]] = {}  # by the name of all heads, in the order of the heads
        at = {hook_point: sizes.locate(hook_point) for hook_point in sorted(self.capture | set(self.edit))}
        for hook_point, (_, site) in sorted(at.items(), key=lambda item: (len(item[0]), item[0])):
            if site.startswith(f"{HEADS}."):
                self._heads.setdefault(hook_point.rpartition(".")[0], []).append(hook_point)
        #: where anything happens; heads are together at attn.hook_z
        self.at = {h.rpartition(".")[0] if site.startswith(f"{HEADS}.") else h for h, (_, site) in at.items()}
        self.last_layer = sizes.n_layers - 1 if to_end else max((layer for layer, _ in at.values()), default=-1)

    def wants(self, hook_point: str) -> bool:
        """Whether anything happens here; whoever asks of attn.hook_z is answered of its heads, too."""
        return hook_point in self.at

    def edits(self, hook_point: str) -> bool:
        """Whether anything is changed here; whoever asks of attn.hook_z is answered of its heads, too."""
        return hook_point in self.edit or any(head in self.edit for head in self._heads.get(hook_point, ()))

    def __call__(self, hook_point: str, x: Tensor) -> Tensor:
        """x (batch, position, d): what the pass has at the hook point → what it goes on with."""
        x = self._at(hook_point, x)
        for head in self._heads.get(hook_point, ()):
            h = int(head.rpartition(".")[2])
            part = slice(h * self._d_head, (h + 1) * self._d_head)
            value = self._at(head, x[..., part])
            if head in self.edit:
                x = torch.cat([x[..., : part.start], value, x[..., part.stop :]], -1)
                if hook_point in self.capture:  # all heads, with what became of this one
                    self.captured[hook_point] = x
        if not self.to_end and len(self.captured) == len(self.capture):
            raise _Reached
        return x

    def _at(self, hook_point: str, x: Tensor) -> Tensor:
        if hook_point in self.edit:
            x = self.edit[hook_point](x, self.captured)
        if hook_point in self.capture:
            self.captured[hook_point] = x
        return x

    @contextmanager
    def running(self, gradients: bool, n_layers: int) -> Iterator[None]:
        """Around the pass, which ends where all that was asked for is captured. n_layers: that are loaded.

        Raises ValueError: more layers are needed, or a hook point lies before the start of the pass.
        """
        if self.last_layer >= n_layers:
            raise ValueError(f"the model's first {n_layers} layers are loaded, {self.last_layer + 1} are needed")
        try:
            with torch.enable_grad() if gradients else torch.inference_mode():
                yield
        except _Reached:
            pass
        if missing := self.capture - set(self.captured):
            raise ValueError(f"hook points not reached: {', '.join(sorted(missing))}")
