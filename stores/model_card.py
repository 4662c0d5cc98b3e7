"""Dictionaries as others find them on the hub: their files, what the head of a model card says of them, how to load them."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from stores import hub, interchange
from stores.dictionary_files import Provenance, Weights
from stores.manifest import commit_bytes
from stores.spec import DENSE, Spec

_ABSOLUTE = ("/", "~")


def files(spec: Spec, weights: Weights) -> Iterator[tuple[str, bytes]]:
    """Of a dictionary's folder, in SAELens's layout and with its names; provenance.json as public has it."""
    return interchange.write(replace(spec, provenance=public(spec.provenance)), weights)


def public(provenance: Provenance) -> Provenance:
    """The same without paths of the machine that it was written on: of an absolute one its last name."""
    return _public(provenance)


def _public(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _public(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_public(part) for part in value]
    if isinstance(value, str) and any(part.startswith(_ABSOLUTE) for part in value.split(", ")):
        return ", ".join(Path(part).name if part.startswith(_ABSOLUTE) else part for part in value.split(", "))
    return value


def for_saelens(spec: Spec) -> bool:
    """Whether SAELens reads its folder."""
    try:
        interchange.check(spec)
    except ValueError:
        return False
    return True


def kind(spec: Spec) -> str:
    """What people call it."""
    if spec.architecture == "bases":
        return "pair of bases"
    what = "linear " if spec.architecture in DENSE else ""
    if spec.d_out is not None:
        return f"{what}{'skip ' if spec.skip else ''}{_of(spec, 'transcoder')}"
    return _of(spec, "basis") if what else _of(spec, "sparse autoencoder")


def _of(spec: Spec, what: str) -> str:
    several = max(len(spec.site.reads), len(spec.site.writes)) > 1
    return "crosscoder" if several and what != "basis" else what


def head(specs: Sequence[Spec], license: str, datasets: Sequence[str] = ()) -> str:
    """The metadata of a card. base_model: the models that came from the hub, by their provenance."""
    readable = [for_saelens(spec) for spec in specs]
    kinds = {kind(spec).removeprefix("skip ").replace(" ", "-") for spec in specs if spec.architecture not in DENSE}
    models = sorted({spec.provenance["model"] for spec in specs if spec.provenance.get("model_revision")})
    return hub.metadata(
        license=license,
        library_name="saelens" if all(readable) else "unmix",
        tags=["mechanistic-interpretability", *sorted(kinds), *["saelens"] * any(readable), "unmix"],
        base_model=models or None,
        datasets=list(datasets) or None,
    )


def loading(spec: Spec, repo: str, place: str) -> str:
    """How to load what lies at a place of a repository: Markdown."""
    site = spec.site
    reads = f" at {' and '.join(site.reads)}" if site.reads else ""
    at = "" if place == "." else f', "{place}"'
    lines = [
        "```python",
        "from stores import FeatureDictionary  # unmix",
        "",
        f'dictionary = FeatureDictionary.from_hub("{repo}"{at})',
        f"z = dictionary.encode(x)  # x: (..., {spec.d_in}), activations{reads}; z: (..., {spec.d_sae})",
        "```",
    ]
    if spec.architecture == "bases":
        lines[4] = "of_reads, of_writes = dictionary.bases()"
    if for_saelens(spec):
        lines += [
            "",
            "or with SAELens 6:",
            "",
            "```python",
            "from sae_lens import SAE",
            "",
            f'sae = SAE.from_pretrained("{repo}", "{place}")',
            "z = sae.encode(x)",
            "```",
        ]
    return "\n".join(lines) + "\n"


def sizes(spec: Spec) -> str:
    """d_in 192, d_sae 384, k 16"""
    found = {"d_in": spec.d_in, "d_out": spec.d_out, "d_sae": spec.d_sae, "k": spec.k or None}
    return ", ".join(f"{name} {value}" for name, value in found.items() if value is not None)


def card(spec: Spec, repo: str, place: str, license: str) -> str:
    """Of one dictionary alone."""
    name, known = interchange.architecture_name(spec), public(spec.provenance)
    at = f"at `{spec.site.name}`" if spec.site.name else "at unknown hook points"
    of = f" of {known['model']}" if known.get("model") else ""
    made = f", learned by {known['method']}" if known.get("method") else ""
    return (
        f"{head([spec], license)}\n# {name} {at}\n\nA {kind(spec)} ({name}; {sizes(spec)}){of} {at}{made}. "
        f"`provenance.json` beside its weights has its settings.\n\n## Load\n\n{loading(spec, repo, place)}"
    )


def push(
    spec: Spec, weights: Weights, repo: str, folder: str, private: bool | None, token: str | None, license: str
) -> str:
    """See FeatureDictionary.push_to_hub."""
    hub.check_repo(repo)
    place = hub.inside(repo, folder)
    with tempfile.TemporaryDirectory() as path:
        for name, data in files(spec, weights):
            commit_bytes(Path(path, place, name), data)
        commit_bytes(Path(path, hub.CARD), card(spec, repo, place, license).encode())
        what = PurePosixPath(place).name or interchange.architecture_name(spec)
        return hub.upload(Path(path), repo, f"Add {what}", private=private, token=token, keep_card=True)
