"""Repositories of the Hugging Face hub: read through its cache, which answers where no network does, and written to.

The only importer of huggingface_hub.
"""

import difflib
import glob
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from stores.dictionary_files import CONFIG, PROVENANCE, line_of, shown
from stores.formats import circuit_tracer, dictionary_learning, openmoss, plain

CARD = "README.md"
_ENDINGS = (*plain.SUFFIXES, ".json", ".yaml")
# A file of weights may need them
_BESIDE = (CONFIG, PROVENANCE, dictionary_learning.CONFIG, circuit_tracer.CONFIG, openmoss.OLD_CONFIG)
_SHOWN = 3  # folders, in a message


def snapshot(repo: str, revision: str | None, patterns: Sequence[str], ignored: Sequence[str] = ()) -> Path:
    """The folder of a model repository's commit in the hub's cache; its name is the commit.

    Files that fit a pattern, and none of those ignored, are downloaded on first use. revision: a branch, a tag or a commit;
    the newest commit of the main branch when None. Raises ValueError, one line: there is no such commit, neither on the hub
    nor in its cache.
    """
    from huggingface_hub import snapshot_download

    with _told(repo, revision):
        return Path(
            snapshot_download(
                repo,
                revision=_checked(revision),
                allow_patterns=list(patterns),
                ignore_patterns=list(ignored) or None,
            )
        )


def dataset_commit(name: str, revision: str | None) -> str | None:
    """The commit that a dataset's revision, by default its main branch, is now; where the hub does not answer, what its
    cache on this machine was last told. None: that has nothing either."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.file_download import repo_folder_name

    try:
        return str(HfApi().dataset_info(name, revision=revision).sha)
    except Exception:  # what the hub's library raises depends on its HTTP client
        folder = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=name, repo_type="dataset"))
        known = folder / "refs" / (revision or "main")
        return known.read_text().strip() if known.is_file() else None


def fetched(repo: str, folder: str, revision: str | None) -> Path:
    """Where a dictionary of a repository lies in the hub's cache: a folder, or a file of weights.

    Only what lies in that very folder is downloaded, the folder checkpoints of OpenMOSS's version 1, and what a file is read
    with. Raises ValueError, one line: a path that leads out of the repository, no such repository, or no dictionary there,
    with some of those that are.
    """
    place = inside(repo, folder)
    within = "" if place == "." else f"{glob.escape(place)}/"
    patterns = [f"{within}*{ending}" for ending in _ENDINGS]
    if place != ".":
        patterns += [glob.escape(name) for name in (place, *_beside(PurePosixPath(place)))]
    root = snapshot(repo, revision, patterns, [f"{within}*/*"])
    found, checkpoints = root / place, root / place / openmoss.CHECKPOINTS
    if (found / openmoss.OLD_CONFIG).is_file() and not (found / openmoss.WEIGHTS).exists():
        below = f"{within}{openmoss.CHECKPOINTS}/*"
        snapshot(repo, root.name, [f"{below}.safetensors"], [f"{below}/*"])
    for path in (found, checkpoints):
        if path.is_dir() and not path.resolve().is_relative_to(root.resolve()):
            raise ValueError(f"{path} is a link out of the repository's folder: put the folder itself there")
    weights = any(file.suffix in plain.SUFFIXES for file in found.glob("*"))
    if not (found.is_file() or weights or openmoss.files(found)):
        raise ValueError(_nothing_there(repo, place, revision, root))
    return found


def _beside(place: PurePosixPath) -> list[str]:
    """What a file of weights may be read with."""
    folders = [place.parent, *([place.parent.parent] if place.parent.name == openmoss.CHECKPOINTS else [])]
    decoder = circuit_tracer.decoder_of(place.name)
    decoders = [place.with_name(decoder)] if decoder else []
    return [str(path) for path in (*(folder / name for folder in folders for name in _BESIDE), *decoders)]


def upload(
    folder: Path,
    repo: str,
    message: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    without: Sequence[str] = (),
    keep_card: bool = False,
) -> str:
    """Put all files of a folder into a model repository, which is made where there is none, as one commit; huggingface_hub
    makes several of a large folder. What lies in the repository besides stays.

    private: whether a new repository is; None: as its owner's settings say. token: by default that of the environment
    (HF_TOKEN), or of `hf auth login`. without: files that are left out. keep_card: a README.md that is there stays. Returns
    huggingface_hub's CommitInfo, a text that is the commit's address. Raises ValueError, one line: the hub refuses or does
    not answer, or a private repository is asked for and a public one is there.
    """
    from huggingface_hub import HfApi, constants, get_token

    if constants.is_offline_mode():
        raise ValueError(f"{repo}: HF_HUB_OFFLINE is set, so nothing is uploaded: unset it")
    if not (token or get_token()):
        raise ValueError(
            f"{repo}: no token to write to the hub: set HF_TOKEN to one with write access, or run `hf auth login`"
        )
    api = HfApi(token=token, library_name="unmix")
    with _told(repo, None):
        api.create_repo(repo, private=private, exist_ok=True)
        public = private and api.model_info(repo).private is False
        ignored = [*without, *[CARD] * (keep_card and api.file_exists(repo, CARD))]
    if public:
        raise ValueError(f"{repo} is there already and is public: make it private on its page, or name another one")
    with _told(repo, None):
        return api.upload_folder(
            repo_id=repo, folder_path=folder, commit_message=message, ignore_patterns=ignored or None
        )


def page(repo: str) -> str:
    """A repository's address."""
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{repo}"


def check_repo(repo: str) -> None:
    """Raises ValueError: no OWNER/NAME that the hub takes."""
    from huggingface_hub.utils import validate_repo_id

    with _told(repo, None):
        validate_repo_id(repo)
    if repo.count("/") != 1:
        raise ValueError(_no_name(repo))


def metadata(**fields: Any) -> str:
    """What stands at the head of a model card: YAML between two lines of ---, of the hub's own fields, such as license,
    library_name, tags, base_model, datasets; one that is None is left out."""
    from huggingface_hub import ModelCardData

    return f"---\n{ModelCardData(**fields).to_yaml()}\n---\n"


def inside(repo: str, folder: str) -> str:
    """The path below the repository's root, "." for the root."""
    path = PurePosixPath(folder)
    if path.is_absolute() or ".." in path.parts or "\\" in folder or not folder.isprintable():
        raise ValueError(
            f"{repo}: the folder {shown(folder)} leads out of the repository: name one in it, such as layer-3/topk"
        )
    return str(path)


def _checked(revision: str | None) -> str | None:
    """A revision, which is a path in the hub's cache."""
    if revision is not None and not re.fullmatch(r"(?!/)(?!.*\.\.)[!-~]+(?<!/)", revision):
        raise ValueError(f"the revision {shown(revision)} is none: expected a branch, a tag or a commit")
    return revision


def _nothing_there(repo: str, place: str, revision: str | None, root: Path) -> str:
    where = "its root" if place == "." else repr(place)
    folders = sorted({str(PurePosixPath(n).parent) for n in _names(repo, root) if n.endswith(plain.SUFFIXES)})
    near = difflib.get_close_matches(place, folders, _SHOWN, 0.0)
    more = f" and {len(folders) - len(near)} more" if len(folders) > len(near) else ""
    there = f"there are {', '.join(near)}{more}" if near else "no dictionary is known there"
    return f"{repo}{_at(revision)} has no dictionary at {where}; {there}"


def _names(repo: str, root: Path) -> list[str]:
    """The files of a repository; of its commit in the cache where the hub does not answer."""
    from huggingface_hub import HfApi

    try:
        return HfApi().list_repo_files(repo, revision=root.name)
    except Exception:  # what the hub's library raises depends on its HTTP client
        return [file.relative_to(root).as_posix() for file in root.rglob("*") if file.is_file()]


def _at(revision: str | None) -> str:
    return f" at revision {revision}" if revision else ""


def _no_name(repo: str) -> str:
    return f"{shown(repo)} is no name of a repository: expected OWNER/NAME"


@contextmanager
def _told(repo: str, revision: str | None) -> Iterator[None]:
    """What huggingface_hub raises, as a ValueError of one line."""
    from huggingface_hub import errors

    at = _at(revision)
    try:
        yield
    except errors.HFValidationError:
        raise ValueError(_no_name(repo)) from None
    except errors.GatedRepoError:
        raise ValueError(f"{repo} is gated: ask for access on its page, and set HF_TOKEN") from None
    except errors.RepositoryNotFoundError:
        raise ValueError(
            f"the hub has no repository {repo}, or it is private: check the name, or set HF_TOKEN"
        ) from None
    except errors.RevisionNotFoundError:
        raise ValueError(f"the hub has no {repo}{at}") from None
    except errors.LocalEntryNotFoundError as error:
        offline = isinstance(error.__cause__, errors.OfflineModeIsEnabled)
        why = "HF_HUB_OFFLINE is set" if offline else "the hub does not answer"
        raise ValueError(f"{why}, and the hub's cache on this machine lacks {repo}{at}, or files of it") from None
    except errors.HfHubHTTPError as error:
        code = error.response.status_code
        refused = "; set HF_TOKEN to a token that may do this" * (code in (401, 403))
        raise ValueError(f"{repo}{at}: the hub answers {code}, {line_of(error)}{refused}") from None
    except ValueError:
        raise
    except Exception as error:  # what the hub's library raises depends on its HTTP client
        raise ValueError(f"{repo}{at}: the hub does not answer ({type(error).__name__}: {line_of(error)})") from None
