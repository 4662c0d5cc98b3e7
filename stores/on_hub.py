"""A dictionary on the Hugging Face hub."""

from typing import Any, ClassVar, Self

import torch

from stores import hub, model_card
from stores.spec import Spec


class OnHub:
    """Methods of FeatureDictionary."""

    spec: Spec
    weights: Any  # by their names
    load: ClassVar[Any]

    @classmethod
    def from_hub(
        cls,
        repo: str,
        folder: str = ".",
        device: str | torch.device = "cpu",
        *,
        revision: str | None = None,
        **stated: Any,
    ) -> Self:
        """Load what lies in a folder of a Hugging Face hub repository, or a file of weights in it.

        It is downloaded on first use; the hub's cache is read where there is no network. revision: a branch, a tag or a
        commit. stated: as load has it. Raises ValueError as load does, and where there is no such repository, revision or
        folder.
        """
        return cls.load(hub.fetched(repo, folder, revision), device, **stated)

    def push_to_hub(
        self,
        repo: str,
        folder: str = ".",
        *,
        private: bool | None = None,
        token: str | None = None,
        license: str = "mit",
    ) -> str:
        """Upload the files that save writes into a folder of a Hugging Face hub repository, OWNER/NAME, which is made where
        there is none; a model card (of this licence), where it has none.

        token: by default HF_TOKEN, or that of `hf auth login`. Returns huggingface_hub's CommitInfo, a text that is the
        commit's address. Raises ValueError, one line: the hub refuses, or does not answer.
        """
        return model_card.push(self.spec, self.weights, repo, folder, private, token, license)
