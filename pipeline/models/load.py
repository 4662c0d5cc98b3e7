"""A model's folder → the model: the one place that chooses how its architecture runs."""

from pipeline.models.files import ModelFiles
from pipeline.models.gpt2 import GPT2
from pipeline.models.protocol import LanguageModel, Precision


def load_model(
    files: ModelFiles, weight_processing: str = "none", device: str = "cpu", precision: Precision = "float32"
) -> LanguageModel:
    """weight_processing "folded": TransformerLens's layer-norm folding and centring of what writes to the residual stream.

    Raises UserError: the weights are not whole.
    """
    return GPT2(files, weight_processing, device, precision)
