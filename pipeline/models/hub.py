"""Models and datasets on the Hugging Face hub, pinned to the commit that is read."""

import re
from functools import cache
from pathlib import Path

from pipeline.config import UserError
from stores import hub

_FILES = ("config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer.json", "tokenizer_config.json",
          "vocab.json", "merges.txt", "special_tokens_map.json")  # fmt: skip


@cache  # a process reads one commit, whatever is pushed meanwhile
def model_snapshot(name: str, revision: str | None) -> Path:
    """The folder of a model's commit, downloaded on first use; its name is the commit.

    revision: a branch, a tag or a commit; the newest commit when None. Raises UserError: there is no such model here.
    """
    try:
        return hub.snapshot(name, revision, _FILES)
    except ValueError as error:
        raise UserError(f"extract.model: no folder {name!r}, and the hub gave no model of that name: {error}") from None


@cache
def dataset_commit(name: str, revision: str | None) -> str:
    """The commit that a dataset's revision, by default its main branch, is now. A commit is taken at its word.

    Where the hub does not answer it is what the hub's cache on this machine was last told. Raises UserError: that has
    nothing either. Without a commit two workers could read two texts, and nothing could be streamed anyway.
    """
    if revision and re.fullmatch("[0-9a-f]{40}", revision):
        return revision
    commit = hub.dataset_commit(name, revision)
    if commit is None:
        raise UserError(
            f"extract.text: cannot read {name}: the hub does not say which commit {revision or 'main'} is; check the name, "
            f"or set extract.text.revision to a commit"
        )
    return commit
