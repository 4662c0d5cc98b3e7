"""extract: text and a language model → an activation store."""

import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pipeline import stopping
from pipeline.claims import Claims, Patience, claimed_shards
from pipeline.config import UserError, settings_json
from pipeline.extract import shared_text, text
from pipeline.extract.capture import capture
from pipeline.extract.config import ExtractConfig
from pipeline.extract.description import describe, ended, packer_of
from pipeline.extract.sanity import first_batch_loss
from pipeline.extract.shared_text import ShardText
from pipeline.models.files import ModelFiles
from pipeline.models.load import check_processing, load_model
from pipeline.models.protocol import LanguageModel
from pipeline.progress import progress
from pipeline.sharing import Worker
from pipeline.unit_files import json_object
from pipeline.units import Unit
from stores import lease
from stores.activations import ActivationStore
from stores.commits import committed_shards
from stores.description import StoreError, describe_nonfinite
from stores.lease import Leases
from stores.manifest import commit_json
from stores.place import is_url, place_at
from stores.prefetch import prefetched
from stores.rolling import ROLLING, Bound
from stores.writer import StoreWriter

VERSION = 3
_FIRST_BATCH = "first_batch.json"
_OF_NO_ACCOUNT = ("store", "revision", "keep_bytes", "keep", "batch_sequences")  # where nothing is made again


def store_path(path: str | None, run: Path) -> Path | str:
    """Where an activation store lies, or will: a folder or a URL, by default in the run folder. Raises UserError: a URL
    of a kind that is not known here."""
    if path is None:
        return run / "extract" / "activations.zarr"
    if not is_url(path):
        return Path(path)
    try:
        place_at(path)
    except StoreError as error:
        raise UserError(str(error)) from None
    return path


def unit_of(config: ExtractConfig, run: Path) -> Unit:
    """The unit that is the store. Raises UserError: no such model, hook point or text."""
    files = ModelFiles.find(config.model, config.revision)
    for hook_point in config.hook_points:
        files.d(hook_point)
    if config.context > files.n_positions:
        raise UserError(f"extract.context = {config.context} is more than the {files.n_positions} of {config.model}")
    check_processing(files, config.weight_processing)
    files.check()
    inputs = {
        "model_digest": files.digest,
        "model_revision": files.revision,
        "tokenizer_digest": files.tokenizer_digest,
        "text": text.text_inputs(config.text),
    }
    return _unit(config, run, inputs)


def unit_as_begun(config: ExtractConfig, run: Path) -> Unit:
    """unit_of, for those who only look: the inputs, which it takes time to hash, are those it was begun with."""
    begun = json_object(run / "extract" / "plan.json") or {}
    return _unit(config, run, begun.get("inputs", {}))


def _unit(config: ExtractConfig, run: Path, inputs: dict[str, Any]) -> Unit:
    # Where the store lies is not what it is, and a revision is the commit in the inputs. How many sequences go through
    # the model at a time may be changed on another machine; it moves last bits at most, which a rolling store does not allow.
    settings = settings_json(config)
    for setting in ("store", "revision", "keep_bytes") if config.keep == "rolling" else _OF_NO_ACCOUNT:
        del settings[setting]
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


def execute(
    config: ExtractConfig, unit: Unit, path: Path | str, device: str, worker: Worker, claims: Claims, replace: bool
) -> None:
    """Fill this worker's share of the store; whoever finds all shards there closes it."""
    started = time.time()
    store = _extract(config, unit, device, worker, path, claims, replace)
    if store is None:
        return
    if store.nonfinite:
        print(describe_nonfinite(store.nonfinite, store.description.dtype))
    if store.description.ended_early:
        print(ended(store.description))
    headline: dict[str, Any] = {
        "digest": store.digest,
        "n_rows": store.n_rows,
        "nonfinite": {h: n for h, (n, _, _) in store.nonfinite.items()},
        **{f"kurtosis at {h}": round(store.stats(h).kurtosis, 2) for h in store.hook_points},
    }
    if found := json_object(unit.folder / _FIRST_BATCH):
        headline["first_batch"] = found
    else:  # damaged: what it said is lost, and is no reason to stop
        (unit.folder / _FIRST_BATCH).unlink(missing_ok=True)
    unit.finish(device, time.time() - started, headline)


def _extract(
    config: ExtractConfig,
    unit: Unit,
    device: str,
    worker: Worker,
    path: Path | str,
    claims: Claims,
    replace: bool,
) -> ActivationStore | None:
    """The finished store; None while shards are left to other workers."""
    files = ModelFiles.find(config.model, config.revision)
    if files.revision:
        print(f"{files.name}: revision {files.revision}")
    if commit := unit.inputs["text"].get("revision"):
        print(f"{config.text.dataset}: revision {commit}")
    # What lies in the run's own folder and is to be replaced is not looked at.
    there = StoreWriter.exists(path) and (unit.resumes() or bool(config.store))
    old = StoreWriter.resume(path) if there else None
    # Text that cannot be read is found out before anything is written.
    description = describe(config, files, unit, old.description if old else None)
    try:
        place_at(path).check_writable()
        if config.store and old:
            old.check(description)
        if old:
            _check_keep(config, path)
    except StoreError as error:
        raise UserError(f"extract.store: {error}") from None
    _begin(unit, path, claims, replace)
    if config.keep_bytes and not place_at(path).exists(ROLLING):
        Bound(config.keep_bytes, config.batch_sequences).put(place_at(path))
    _check_keep(config, path)  # also what a killed start left, of which there is no store yet
    writer = StoreWriter.create(path, description)
    # The first batch's cross-entropy needs all layers; once it is known, those after the last hook point are not loaded.
    n_layers = layers_needed(files, config.hook_points) if (unit.folder / _FIRST_BATCH).exists() else None
    model = cache(lambda: load_model(files, config.weight_processing, device, config.precision, n_layers))
    patience = Patience()
    with Leases(writer.place) as leases:
        while missing := [shard for shard in writer.missing() if shard % worker.n == worker.index]:
            if not claims.partakes(unit):
                _begin(unit, path, claims, replace)
            claimed = claimed_shards(writer.place, missing, leases)
            if (first := next(claimed, None)) is None:
                patience.wait(f"shard {missing[0]}{f' and {n} more' if (n := len(missing) - 1) else ''}")
            else:
                n_sequences = sum(b - a for a, b in map(writer.description.sequences, missing))
                with progress(total=n_sequences * config.context, unit="token", desc="extract") as bar:
                    fill(config, model(), writer, chain([first], claimed), leases, unit, bar)
            for line in writer.differences:
                print(line)
            n_shards = writer.description.n_shards
            stopping.look(f"{n_shards - len(writer.missing())} of {n_shards} shards are written")
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


def _check_keep(config: ExtractConfig, path: Path | str) -> None:
    """Raises UserError: the rows of what lies there are kept otherwise."""
    if place_at(path).exists(ROLLING) != (config.keep == "rolling"):
        raise UserError(
            f'extract.keep = "{config.keep}": {path} holds a store that was not extracted so: choose another place for '
            f"extract.store, or remove it"
        )


def _begin(unit: Unit, path: Path | str, claims: Claims, replace: bool) -> None:
    n_done = len(committed_shards(place_at(path))) if unit.resumes() else 0
    claims.begin_together(unit, n_done, replace=replace)


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
    look = partial(stopping.look, "the shards before this one are written")
    texts = shared_text.shared_text(writer, partial(packer_of, config, model.files), shards, leases, stop)
    with ThreadPoolExecutor(1) as disk, closing(prefetched(texts, stop=stop)) as ready:
        for found in ready:
            shard, tokens = found.shard, found.tokens
            first, last = writer.description.sequences(shard)
            if len(tokens) < last - first:
                if writing is not None:
                    writing.result()
                writer.end_at(first + len(tokens))
            positions, dtype = writer.description.positions, writer.description.dtype
            if unit is not None and writing is None and unit.resumes() and model.n_layers == model.files.n_layers:
                _keep_first_batch(model, tokens[: config.batch_sequences], positions, unit.folder)
            model.keep(layers_needed(model.files, config.hook_points))
            rows = capture(model, tokens, config.hook_points, positions, config.batch_sequences, dtype, bar, look)
            if writing is not None:
                writing.result()
            writing = disk.submit(_write, writer, found, rows, config.allow_nonfinite)
        if writing is not None:
            writing.result()


def layers_needed(files: ModelFiles, hook_points: tuple[str, ...]) -> int:
    """Up to the last hook point; at least one."""
    return max(1, *(files.locate(h)[0] + 1 for h in hook_points))


def _keep_first_batch(model: LanguageModel, tokens: np.ndarray, positions: tuple[int, ...], folder: Path) -> None:
    """Say how well the model predicts this process's first batch, and keep it for the unit's manifest."""
    if found := first_batch_loss(model, tokens, positions):
        tqdm.write(str(found))
        if found.warning:
            tqdm.write(found.warning)
        commit_json(folder / _FIRST_BATCH, asdict(found), exclusive=True)


def _write(writer: StoreWriter, found: ShardText, rows: dict[str, np.ndarray], allow_nonfinite: bool) -> None:
    writer.write_shard(found.shard, found.tokens, rows, text_end=found.text_end, allow_nonfinite=allow_nonfinite)
    writer.place.remove(shared_text.text_key(found.shard))
