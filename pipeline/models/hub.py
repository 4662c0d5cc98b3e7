"""Models and datasets on the Hugging Face hub, pinned to the commit that is read."""

import re
from functools import cache
from pathlib import Path

from pipeline.config import UserError

_FILES = ("config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer.json", "tokenizer_config.json",
          "vocab.json", "merges.txt", "special_tokens_map.json")  # fmt: skip


@cache  # a process reads one commit, whatever is pushed meanwhile
def model_snapshot(name: str, revision: str | None) -> Path:
    """The folder of a model's commit, downloaded on first use; its name is the commit.

    revision: a branch, a tag or a commit; the newest commit when None. Raises UserError: there is no such model here.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(_FILES)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        at = f" at revision {revision}" if revision else ""
        raise UserError(
            f"extract.model: no folder {name!r}, and the hub gave no model of that name{at} ({type(error).__name__})"
        ) from None


@cache
def dataset_commit(name: str, revision: str | None) -> str:
    """The commit that a dataset's revision, by default its main branch, is now. A commit is taken at its word.

    Where the hub does not answer it is what the hub's cache on this machine was last told. Raises UserError: that has
    nothing either. Without a commit two workers could read two texts, and nothing could be streamed anyway.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.file_download import repo_folder_name

    if revision and re.fullmatch("[0-9a-f]{40}", revision):
        return revision
    try:
        commit = HfApi().dataset_info(name, revision=revision).sha
    except Exception as error:  # what the hub's library raises depends on its HTTP client
        folder = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=name, repo_type="dataset"))
        known = folder / "refs" / (revision or "main")
        if not known.is_file():
            raise UserError(
                f"extract.text: cannot read {name}: the hub does not say which commit {revision or 'main'} is "
                f"({type(error).__name__}); check the name, or set extract.text.revision to a commit"
            ) from None
        commit = known.read_text().strip()
    return str(commit)
