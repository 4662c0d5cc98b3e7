"""What a loaded language model can do, whatever its architecture."""

from collections.abc import Collection, Mapping
from typing import Literal, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from pipeline.models.files import ModelFiles
from pipeline.models.hooks import Edit
from pipeline.models.mlp import MLP

Precision = Literal["float32", "bfloat16"]
WeightProcessing = Literal["none", "folded"]


@runtime_checkable
class LanguageModel(Protocol):
    """A loaded model.

    precision "bfloat16": what attention and MLPs read and write is bfloat16; the residual stream, norms and attention's
    scores stay float32, as under autocast.
    """

    files: ModelFiles
    device: str
    precision: Precision

    @property
    def n_layers(self) -> int:
        """How many layers are loaded, the first ones. Logits need all."""
        ...

    def keep(self, n_layers: int) -> None:
        """Forget all layers but the first n_layers, which gives their memory back."""
        ...

    def writer(self, hook_point: str) -> Float[Tensor, "d d_read"]:
        """The matrix whose product with what a layer reads is written to the hook point, float32.

        Raises ValueError: no single matrix writes there.
        """
        ...

    def mlp(self, layer: int) -> MLP:
        """The MLP of a layer and the norm before it, float32. Raises UserError: it is of a kind that MLP is not."""
        ...

    def forward(
        self,
        tokens: Int[Tensor, "batch position"],
        capture: Collection[str] = (),
        edit: Mapping[str, Edit] | None = None,
        logits: bool = False,
        resume: tuple[int, Float[Tensor, "batch position d_model"]] | None = None,
        gradients: bool = False,
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Returns the activations at the hook points in capture, (batch, position, d) as computed (float32, or where
        precision says so bfloat16), and the logits (batch, position, vocab_size), which are empty when logits is False:
        then the pass stops after the last hook point it needs. edit: what replaces the activations at a hook point, by
        sight of them and of what was captured before; what is captured there, and all that follows, is the edited value.
        resume: (layer, its resid_pre before any edit), to go on from there instead of the tokens. gradients: what is
        returned carries the graph of what requires gradients: an edit's value, the residual stream resumed from. Weights
        require none.

        Raises UserError: the model has no such hook point. ValueError: one lies before the layer that is resumed from,
        or a layer that is needed is not loaded.
        """
        ...
