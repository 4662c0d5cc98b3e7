"""What is scored: a run's own dictionaries, and those of others that fit its store."""

import sys
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.config import UserError
from pipeline.score.config import ScoreConfig
from pipeline.score.pairs import FOREIGN
from pipeline.unit_files import json_object, recorded_files
from stores.activations import ActivationStore
from stores.description import Description
from stores.dictionary import FeatureDictionary
from stores.dictionary_files import CONFIG, WEIGHTS, Provenance
from stores.formats.found import dictionaries_in, parts_below, path_digest, read_spec
from stores.formats.stated import Stated
from stores.interchange import architecture_name
from stores.manifest import digest
from stores.names import check_name
from stores.site import Site
from stores.spec import Spec


@dataclass(frozen=True)
class Subject:
    """A dictionary to be scored, where it lies, and what it is called. basis: of a dictionary that is two bases, 0: of what
    it reads, 1: of what it writes. vouched: its digest is the one that the manifest of its unit has. stated: what its files
    do not say. folder: a file, where the dictionary is one."""

    site: Site
    name: str
    method: str
    settings: dict[str, Any]
    folder: Path
    origin: str = ""  # the method that provenance.json names
    basis: int | None = None
    vouched: bool = False
    stated: Stated = field(default_factory=Stated)

    @cached_property
    def digest(self) -> str:
        """Of the files that say what it computes, as path_digest has it. Those of a unit are not read for it: whoever
        loads one finds out where its weights were altered."""
        found = (_recorded(self.folder) if self.vouched else None) or path_digest(self.folder)
        return found if self.stated == Stated() else digest([found, asdict(self.stated), asdict(self.site)])

    def load(self, device: str = "cpu") -> FeatureDictionary:
        found = FeatureDictionary.load(self.folder, device, **asdict(self.stated), mmap=False)
        return found if self.basis is None else found.bases()[self.basis]

    def fits(self, store: ActivationStore) -> bool:
        """Whether the store has all that is read and written."""
        return {*self.site.reads, *self.site.writes} <= set(store.hook_points)


def _recorded(folder: Path) -> str | None:
    """The digest by the manifest of the unit in a folder; None: it does not vouch for a dictionary's files."""
    files = recorded_files(json_object(folder / "manifest.json")) or {}
    return digest([files[CONFIG][1], files[WEIGHTS][1]]) if {CONFIG, WEIGHTS} <= files.keys() else None


def subjects_of(
    folder: Path,
    name: str,
    method: str,
    settings: dict[str, Any],
    origin: str = "",
    vouched: bool = False,
    stated: Stated | None = None,
) -> list[Subject]:
    """The dictionary in a folder; of one that is two bases both, each an autoencoder of its own hook point.

    Raises ValueError as FeatureDictionary.load does, whose weights are not read here.
    """
    stated = stated or Stated()
    spec = read_spec(folder, stated)
    if spec.architecture != "bases":
        return [Subject(spec.site, name, method, settings, folder, origin, vouched=vouched, stated=stated)]
    both = ((name, spec.site.reads), (f"{name}-output", spec.site.writes))
    return [
        Subject(Site(at, at), n, method, settings, folder, origin, i, vouched, stated) for i, (n, at) in enumerate(both)
    ]


def foreign_subjects(config: ScoreConfig, store: ActivationStore) -> list[Subject]:
    """The dictionaries of score.dictionaries; of a folder of several those whose hook points the store has.

    Raises UserError: one is not there, or does not fit the store.
    """
    subjects = []
    for one in config.foreign:
        stated = Stated(one.hook_point, one.apply_b_dec_to_input, one.k)
        try:
            folder = Path(one.path).resolve()  # "." has a name, too
            inside = dictionaries_in(folder)
            if inside in ([], [folder]):
                subjects += _foreign(one.path, folder, check_name(folder.name, "the folder"), stated, store)
            else:
                subjects += _several(one.path, folder, inside, stated, store)
        except (ValueError, OSError) as error:
            raise UserError(f"score.dictionaries: {error}") from None
    return subjects


def _several(path: str, folder: Path, inside: list[Path], stated: Stated, store: ActivationStore) -> list[Subject]:
    """Raises UserError: of none the store has the hook points."""
    specs = {found: read_spec(found, stated) for found in inside}
    fitting = [found for found, spec in specs.items() if _has(store, spec.site)]
    if not fitting:
        sites = sorted({spec.site.name for spec in specs.values()})
        raise UserError(
            f"score.dictionaries: {path} holds {len(specs)} dictionaries, of {', '.join(map(repr, sites[:3]))}"
            f"{' …' * (len(sites) > 3)}; the store has {', '.join(store.hook_points)}"
        )
    if len(fitting) < len(specs):
        print(f"score: of the {len(specs)} dictionaries in {path} {len(fitting)} are at hook points of the store")
    subjects = []
    for found in fitting:
        name = "-".join((folder.name, *parts_below(found, folder)))
        subjects += _foreign(str(found), found, check_name(name, "the dictionary"), stated, store)
    return subjects


def _has(store: ActivationStore, site: Site) -> bool:
    names = {*site.reads, *site.writes}
    return bool(names) and names <= set(store.hook_points)


def _foreign(path: str, folder: Path, name: str, stated: Stated, store: ActivationStore) -> list[Subject]:
    dictionary = FeatureDictionary.load(folder, **asdict(stated), mmap=False)
    _check_site(path, dictionary.spec, store)
    _check_model(path, dictionary.provenance, store.description)
    origin = dictionary.provenance.get("method", "")
    method = "truth" if origin == "truth" else f"{FOREIGN} {architecture_name(dictionary.spec)}"
    found = subjects_of(folder, name, method, {"name": name}, origin, stated=stated)
    return [subject for subject in found if subject.fits(store)]


def _check_site(path: str, spec: Spec, store: ActivationStore) -> None:
    """Raises UserError: the store lacks a hook point, or has another size there; or it is not known what is read or
    written. Of two bases one hook point is enough."""
    site, has = spec.site, f"the store has {', '.join(store.hook_points)}"
    for what, names in (("read", site.reads), ("written", site.writes)):
        if not names:
            unknown = f"no hook point is known that is {what}: state hook_point"
            raise UserError(f"score.dictionaries: {path} is of '', {unknown}; {has}")
    missing = [h for h in dict.fromkeys(site.reads + site.writes) if h not in store.hook_points]
    if spec.architecture == "bases" and len(missing) < len({*site.reads, *site.writes}):
        site = Site(*(tuple(h for h in names if h not in missing) for names in (site.reads, site.writes)))
    elif missing:
        raise UserError(f"score.dictionaries: {path} is of {site.name!r}, {has}: {', '.join(missing)} is missing")
    checks = [("takes d_in", site.reads, spec.d_in)]
    checks += [("writes d_out", (h,), d) for h, d in zip(site.writes, _d_writes(spec), strict=False)]
    for what, names, d in checks:
        if names and d != (found := sum(map(store.d, names))):
            raise UserError(
                f"score.dictionaries: the store has d = {found} at {' + '.join(names)}, {path} {what} = {d}: was it trained "
                f"on another model?"
            )


def _d_writes(spec: Spec) -> tuple[int, ...]:
    """Coordinates of each hook point that is written."""
    return spec.d_writes or (spec.d_out or spec.d_in,)


def _check_model(path: str, provenance: Provenance, description: Description) -> None:
    """Raises UserError: the dictionary was learned on other activations. A model known by name alone gets a warning."""
    found, expected = provenance.get("model_digest"), description.model_digest
    if found not in (None, expected):
        raise UserError(
            f"score.dictionaries: {path} was learned on model {found[:12]} ({provenance.get('model', 'no name')}), the store "
            f"was made from {expected[:12]} ({description.model}): leave it out, or score it on a store of its own model"
        )
    processing = provenance.get("weight_processing", description.weight_processing)
    if processing != description.weight_processing:
        raise UserError(
            f"score.dictionaries: {path} was trained with weight processing {processing!r}, the store has "
            f"{description.weight_processing!r}"
        )
    model = provenance.get("model")
    if found is None and model and _plain(model) != _plain(description.model):
        print(
            f"score: {path} says that it is of model {model}, the store is of {description.model}: its scores mean nothing "
            f"if these are not the same",
            file=sys.stderr,
        )


def _plain(model: str) -> str:
    """A model's name without its owner's; TransformerLens calls gpt2 gpt2-small."""
    return Path(model).name.lower().removesuffix("-small")
