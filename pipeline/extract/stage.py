"""extract: text and a language model → an activation store."""

import re
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache, partial
from itertools import chain
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pipeline.claims import Claims, Patience, claimed_shards
from pipeline.config import UserError
from pipeline.extract import shared_text, text
from pipeline.extract.capture import capture
from pipeline.extract.language_model import LanguageModel, ModelFiles
from pipeline.extract.packing import START, Packer
from pipeline.extract.sanity import first_batch_loss
from pipeline.extract.shared_text import ShardText
from pipeline.extract.text import Bookmark, Documents
from pipeline.progress import progress
from pipeline.recipe import ExtractConfig, Recipe, n_sequences, settings_json
from pipeline.unit_files import json_object
from pipeline.units import Unit
from stores import lease
from stores.activations import ActivationStore
from stores.commits import committed_shards
from stores.description import DTYPES, Description, Part, StoreError, TextPositions, describe_nonfinite, is_heldout
from stores.lease import Leases
from stores.loader import prefetched
from stores.manifest import commit_json, digest, read_json
from stores.place import is_url, place_at
from stores.writer import StoreWriter

VERSION = 3
SHARD_BYTES = 1 << 30  # of all hook points together: extraction has two shards in memory at a time
_FIRST_BATCH = "first_batch.json"


def store_path(recipe: Recipe, run: Path) -> Path | str:
    """Where the recipe's activation store lies, or will: a folder or a URL. Raises UserError: a URL of a kind that is
    not known here."""
    path = recipe.store or recipe.extract.store
    if path is None:
        return run / "extract" / "activations.zarr"
    if not is_url(path):
        return Path(path)
    try:
        place_at(path)
    except StoreError as error:
        raise UserError(str(error)) from None
    return path


def plan(recipe: Recipe, run: Path) -> Unit:
    """The unit that is the store. Raises UserError: no such model, hook point or text."""
    if recipe.store:
        raise UserError(f"the recipe uses the store {recipe.store}: there is nothing to extract")
    config = recipe.extract
    files = ModelFiles.find(config.model, config.revision)
    for hook_point in config.hook_points:
        files.d(hook_point)
    if config.context > files.n_positions:
        raise UserError(f"extract.context = {config.context} is more than the {files.n_positions} of {config.model}")
    files.check()
    inputs = {
        "model_digest": files.digest,
        "model_revision": files.revision,
        "tokenizer_digest": files.tokenizer_digest,
        "text": text.text_inputs(config.text),
    }
    # Where the store lies is not what it is, and a revision is the commit in the inputs. How many sequences go through
    # the model at a time may be changed on another machine; it moves last bits at most.
    settings = {k: v for k, v in settings_json(config).items() if k not in ("batch_sequences", "store", "revision")}
    del settings["text"]["revision"]
    return Unit("extract", "activations", run / "extract", VERSION, settings, inputs)


def done(unit: Unit, path: Path | str) -> bool:
    """Whether the unit's store lies there and is whole: a shard whose commit was taken away is made again. Raises
    StoreError: its metadata or manifest is damaged."""
    place = place_at(path)
    if not place.exists("manifest.json"):
        return False
    store, headline = ActivationStore(place), (json_object(unit.folder / "manifest.json") or {}).get("headline")
    own = isinstance(headline, dict) and headline.get("digest") == store.digest
    return own and not StoreWriter(place, store.description).missing()


def how_far(path: Path | str) -> tuple[int, int, str, Path | None]:
    """(done, of, unit of counting, what grows with it, if that is a local folder)."""
    grows = None if is_url(path) else Path(path) / "commits"
    if not StoreWriter.exists(path):
        return 0, 0, "shards", grows
    writer = StoreWriter.resume(path)
    n = writer.description.n_shards
    return n - len(writer.missing()), n, "shards", grows


@dataclass(frozen=True)
class Worker:
    """Process `index` of `n` that fill one store: it makes the shards whose number is index modulo n."""

    index: int = 0
    n: int = 1

    @classmethod
    def parse(cls, text: str) -> "Worker":
        """ "i/n". Raises UserError."""
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if not match or int(match[1]) >= int(match[2]):
            raise UserError(f"--worker {text}: expected I/N with 0 ≤ I < N, such as 0/4")
        return cls(int(match[1]), int(match[2]))


def execute(
    recipe: Recipe, unit: Unit, path: Path | str, device: str, worker: Worker, claims: Claims, replace: bool
) -> None:
    """Fill this worker's share of the store; whoever finds all shards there closes it."""
    started = time.time()

    def begin() -> None:
        claims.begin_together(unit, len(committed_shards(place_at(path))) if unit.resumes() else 0, replace=replace)

    store = _extract(recipe.extract, unit, device, worker, path, begin, claims)
    if store is None:
        return
    if store.nonfinite:
        print(describe_nonfinite(store.nonfinite, store.description.dtype))
    if store.description.ended_early:
        print(_ended(store.description))
    unit.headline.update(
        digest=store.digest,
        n_rows=store.n_rows,
        nonfinite={h: n for h, (n, _, _) in store.nonfinite.items()},
        **{f"kurtosis at {h}": round(store.stats(h).kurtosis, 2) for h in store.hook_points},
    )
    if (unit.folder / _FIRST_BATCH).exists():
        unit.headline["first_batch"] = read_json(unit.folder / _FIRST_BATCH)
    unit.finish(device, time.time() - started)


def _extract(
    config: ExtractConfig,
    unit: Unit,
    device: str,
    worker: Worker,
    path: Path | str,
    begin: Callable[[], None],
    claims: Claims,
) -> ActivationStore | None:
    """The finished store; None while shards are left to other workers."""
    files = ModelFiles.find(config.model, config.revision)
    if files.revision:
        print(f"{files.name}: revision {files.revision}")
    if commit := unit.inputs["text"].get("revision"):
        print(f"{config.text.dataset}: revision {commit}")
    # What lies in the run's own folder and is to be replaced is not looked at.
    there = StoreWriter.exists(path) and (unit.resumes() or bool(config.store))
    found = StoreWriter.resume(path).description if there else None
    # Text that cannot be read is found out before anything is written.
    description = describe(config, files, unit, found)
    try:
        place_at(path).check_writable()
        if config.store and found:
            StoreWriter.resume(path).check(description)
    except StoreError as error:
        raise UserError(f"extract.store: {error}") from None
    begin()
    writer = StoreWriter.create(path, description)
    model = cache(lambda: files.load(config.weight_processing, device, config.precision))
    patience = Patience()
    with Leases(writer.place) as leases:
        while missing := [shard for shard in writer.missing() if shard % worker.n == worker.index]:
            if not claims.partakes(unit):
                begin()
            claimed = claimed_shards(writer.place, missing, leases)
            if (first := next(claimed, None)) is None:
                patience.wait(f"shard {missing[0]}{f' and {n} more' if (n := len(missing) - 1) else ''}")
            else:
                n_sequences = sum(b - a for a, b in map(writer.description.sequences, missing))
                with progress(total=n_sequences * config.context, unit="token", desc="extract") as bar:
                    fill(config, model(), writer, chain([first], claimed), leases, unit, bar)
            for line in writer.differences:
                print(line)
            writer = StoreWriter.resume(path)  # another worker may have found that the text ends
            if writer.description.identity != description.identity:
                raise UserError(f"{writer.place.root} was replaced by another process while this one worked on it")
    left = len(writer.missing())
    if left:
        print(f"{left} of {writer.description.n_shards} shards are left to the other workers")
        return None
    store = writer.close()
    shared_text.sweep(writer.place)
    lease.sweep(writer.place)
    return store


def fill(
    config: ExtractConfig,
    model: LanguageModel,
    writer: StoreWriter,
    shards: Iterable[int],
    leases: Leases,
    unit: Unit | None = None,
    bar: tqdm | None = None,
) -> None:
    """Three things at a time: tokens of the next shard, the forward pass of this one, writing the one before.

    leases: of this process in the store's place. unit: in its folder the first batch's cross-entropy is kept until it is
    finished.
    """
    writing, stop = None, threading.Event()
    texts = shared_text.shared_text(writer, partial(_packer, config, model.files), shards, leases, stop)
    with ThreadPoolExecutor(1) as disk:
        for found in prefetched(texts, stop=stop):
            shard, tokens = found.shard, found.tokens
            first, last = writer.description.sequences(shard)
            if len(tokens) < last - first:
                if writing is not None:
                    writing.result()
                writer.end_at(first + len(tokens))
            positions, dtype = writer.description.positions, writer.description.dtype
            if unit is not None and writing is None and unit.resumes():
                _keep_first_batch(model, tokens[: config.batch_sequences], positions, unit.folder)
            rows = capture(model, tokens, config.hook_points, positions, config.batch_sequences, dtype, bar)
            if writing is not None:
                writing.result()
            writing = disk.submit(_write, writer, found, rows, config.allow_nonfinite)
        if writing is not None:
            writing.result()


def _keep_first_batch(model: LanguageModel, tokens: np.ndarray, positions: tuple[int, ...], folder: Path) -> None:
    """Say how well the model predicts this process's first batch, and keep it for the unit's headline."""
    if found := first_batch_loss(model, tokens, positions):
        tqdm.write(str(found))
        if found.warning:
            tqdm.write(found.warning)
        commit_json(folder / _FIRST_BATCH, asdict(found), exclusive=True)


def _write(writer: StoreWriter, found: ShardText, rows: dict[str, np.ndarray], allow_nonfinite: bool) -> None:
    writer.write_shard(found.shard, found.tokens, rows, text_end=found.text_end, allow_nonfinite=allow_nonfinite)
    writer.place.remove(shared_text.text_key(found.shard))


def _packer(
    config: ExtractConfig, files: ModelFiles, position: TextPositions = START, bookmark: Bookmark | None = None
) -> tuple[Packer, Documents]:
    """A packer of the recipe's text from a position on, and what it reads: from a bookmark on, which is not behind it."""
    texts = Documents(config.text, bookmark)
    packer = Packer(texts, files.tokenizer, files.bos, config.context, config.heldout_fraction, position, texts.first)
    return packer, texts


def _ended(description: Description) -> str:
    """One line for people: the text gave less than was asked for."""
    heldout = is_heldout(description.n_sequences // description.chunk_sequences + 1, description.heldout_fraction)[-1]
    return (
        f"the text ends after {description.n_sequences} sequences, where no more {'held-out' if heldout else 'training'} "
        f"documents are left: the store has {description.n_rows} of {description.n_rows_asked} rows"
    )


def describe(config: ExtractConfig, files: ModelFiles, unit: Unit, found: Description | None) -> Description:
    """found: of the store that is there. Raises UserError: too few rows, or text, to train on some and hold some out."""
    positions = config.positions.places(config.context)
    wanted = n_sequences(config)
    if wanted < 2:
        raise UserError(
            f"extract.n_rows = {config.n_rows} is one sequence of {len(positions)} positions, and one more has to be held "
            f"out: expected at least {len(positions) + 1}"
        )
    chunk = min(max(1, round(config.chunk_rows / len(positions))), max(1, wanted // 2))
    if found is None or found.chunk_sequences != chunk:
        chunk = _chunk_that_fills(config, files, chunk)
    d = tuple(files.d(h) for h in config.hook_points)
    chunk_bytes = chunk * len(positions) * sum(d) * np.dtype(DTYPES[config.dtype]).itemsize
    return Description(
        model=config.model,
        model_revision=files.revision,
        model_digest=files.digest,
        tokenizer_digest=files.tokenizer_digest,
        weight_processing=config.weight_processing,
        precision=config.precision,
        text=text.describe(config.text),
        text_digest=digest(unit.inputs["text"]),
        context=config.context,
        positions=positions,
        bos=True,
        hook_points=config.hook_points,
        d=d,
        dtype=config.dtype,
        n_sequences=wanted,
        heldout_fraction=config.heldout_fraction,
        chunk_sequences=chunk,
        shard_chunks=min(config.shard_chunks, max(1, SHARD_BYTES // chunk_bytes), -(-wanted // chunk)),
        n_rows_asked=config.n_rows,
    )


def _chunk_that_fills(config: ExtractConfig, files: ModelFiles, chunk: int) -> int:
    """Sequences in a chunk: so many, or fewer where there is so little text that it would not fill one of each part."""
    packer, _ = _packer(config, files)
    names: dict[Part, str] = {"train": "training", "heldout": "held-out"}
    for part, name in names.items():
        chunk = min(chunk, len(packer.take(part, chunk)))  # there may be so little text that chunks have to be smaller
        if not chunk:
            raise UserError(
                f"extract.text: the {name} documents fill no sequence of {config.context} tokens with "
                f"extract.heldout_fraction = {config.heldout_fraction}: give more text, or another fraction"
            )
    return chunk
