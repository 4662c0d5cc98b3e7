"""What a dictionary does in a language model. The pipeline knows models: it is looked for by its name, when it is asked for."""

import importlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor

from stores.shapes import Float, Int


class InModels:
    """Methods of FeatureDictionary. A model: transformers' or TransformerLens's, see pipeline/models/README.md."""

    def spliced(
        self,
        model: Any,
        *,
        keep_error: bool = False,
        scale: Mapping[int, float] | None = None,
        add: Mapping[int, float] | None = None,
        clamp: Mapping[int, float] | None = None,
        positions: Sequence[int] | None = None,
    ) -> AbstractContextManager[None]:
        """Within it the reconstruction stands in the place of what the dictionary writes, in every forward pass of the model;
        with keep_error what it does not reconstruct is added.

        scale, add, clamp: feature → what its activation is multiplied by, what is added to it after that, and what is put in
        its place, in units of the activations; clamp 0 ablates. positions: of the tokens, from 0; None: all. The model is as
        it was when it is left. Several dictionaries: pipeline.splicing.spliced.

        Raises pipeline.config.UserError: the dictionary cannot stand there. ImportError: there is no pipeline.
        """
        splicing = _splicing()
        changes = {"scale": scale or {}, "add": add or {}, "clamp": clamp or {}}
        return splicing.spliced(model, splicing.Splice(self, keep_error, **changes, positions=positions))

    def activations(
        self, model: Any, text: str | Int[Tensor, "batch position"], tokenizer: Any = None
    ) -> Float[Tensor, "batch position d_sae"]:
        """The code of a text, which begins with BOS, or of tokens.

        tokenizer: transformers' or a tokenizers.Tokenizer; without one, TransformerLens's models have their own. Raises as
        spliced does; UserError: a text without a tokenizer.
        """
        return _splicing().activations(model, self, text, tokenizer)


def _splicing() -> Any:
    try:
        return importlib.import_module("pipeline.splicing")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "pipeline":
            raise
        raise ImportError("a dictionary in a model needs the package pipeline beside stores: install unmix") from None
