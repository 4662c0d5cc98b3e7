"""A model's folder → the model: the one place that chooses how its architecture runs."""

from pipeline.config import UserError
from pipeline.models.files import ModelFiles
from pipeline.models.gpt2 import GPT2
from pipeline.models.protocol import LanguageModel, Precision


def check_processing(files: ModelFiles, weight_processing: str) -> None:
    """Raises UserError: the architecture's weights are not folded."""
    if weight_processing != "none" and files.model_type != "gpt2":
        raise UserError(
            f'extract.weight_processing = "{weight_processing}" is for gpt2 alone, {files.name} is a {files.model_type} '
            'model: set it to "none"'
        )


def load_model(
    files: ModelFiles,
    weight_processing: str = "none",
    device: str = "cpu",
    precision: Precision = "float32",
    n_layers: int | None = None,
) -> LanguageModel:
    """weight_processing "folded": TransformerLens's layer-norm folding and centring of what writes to the residual stream.

    n_layers: only the first so many are kept, which is enough for what lies in them; logits need all. Raises UserError: the
    weights are not whole, or the architecture's are not folded.
    """
    check_processing(files, weight_processing)
    if files.model_type == "gpt2":
        model = GPT2(files, weight_processing, device, precision)
        model.keep(files.n_layers if n_layers is None else n_layers)
        return model
    from pipeline.models.hugging_face import HuggingFace

    return HuggingFace(files, device, precision, n_layers)
