"""extract: text and a language model → an activation store."""

import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from pipeline.config import UserError
from pipeline.extract import text
from pipeline.extract.capture import capture
from pipeline.extract.language_model import ModelFiles
from pipeline.progress import progress
from pipeline.recipe import ExtractConfig, Recipe, n_sequences, settings_json
from pipeline.units import Unit
from stores.activations import ActivationStore, StoreWriter
from stores.description import Description

VERSION = 1


def store_path(recipe: Recipe, run: Path) -> Path:
    """Where the recipe's activation store lies, or will."""
    return Path(recipe.store) if recipe.store else run / "extract" / "activations.zarr"


def plan(recipe: Recipe, run: Path) -> list[Unit]:
    """One unit: the store. Raises UserError: no such model, hook point or text."""
    if recipe.store:
        raise UserError(f"the recipe uses the store {recipe.store}: there is nothing to extract")
    config = recipe.extract
    files = ModelFiles.find(config.model, config.revision)
    for hook_point in config.hook_points:
        files.d(hook_point)
    if config.context > files.n_positions:
        raise UserError(f"extract.context = {config.context} is more than the {files.n_positions} of {config.model}")
    inputs = {
        "model_digest": files.weights_digest,
        "tokenizer_digest": files.tokenizer_digest,
        **text.text_inputs(config.text),
    }
    # How many sequences go through the model at a time may be changed on another machine; it moves last bits at most.
    settings = {k: v for k, v in settings_json(config).items() if k != "batch_sequences"}
    return [Unit("extract", "activations", run / "extract", VERSION, settings, inputs)]


def done(unit: Unit) -> bool:
    """Whether the store is whole: a shard whose commit was taken away is made again."""
    path = unit.folder / "activations.zarr"
    return (path / "manifest.json").exists() and not StoreWriter.resume(path).missing()


def how_far(unit: Unit) -> tuple[int, int, str, Path]:
    """(done, of, unit of counting, what grows with it)."""
    path = unit.folder / "activations.zarr"
    if not StoreWriter.exists(path):
        return 0, 0, "shards", path
    writer = StoreWriter.resume(path)
    n = writer.description.n_shards
    return n - len(writer.missing()), n, "shards", path / "commits"


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


def execute(recipe: Recipe, units: list[Unit], device: str, worker: Worker) -> None:
    """Fill this worker's share of the stores that are not done; whoever finds all shards there closes the store."""
    for unit in units:
        started = time.time()
        store = _extract(recipe.extract, unit, device, worker)
        if store is None:
            continue
        unit.headline.update(
            digest=store.digest,
            n_rows=store.n_rows,
            **{f"kurtosis at {h}": round(store.stats(h).kurtosis, 2) for h in store.hook_points},
        )
        unit.finish(device, time.time() - started)


def _extract(config: ExtractConfig, unit: Unit, device: str, worker: Worker) -> ActivationStore | None:
    files = ModelFiles.find(config.model, config.revision)
    path = unit.folder / "activations.zarr"
    if unit.resumes() and StoreWriter.exists(path):
        writer = StoreWriter.resume(path)
        unit.begin(done=writer.description.n_shards - len(writer.missing()))
    else:
        tokens = _tokens(config, files)  # text that cannot be read is found out before anything is written
        unit.begin()
        writer = StoreWriter.create(path, _description(config, files, unit, len(tokens)), tokens)
    missing = [shard for shard in writer.missing() if shard % worker.n == worker.index]
    if missing:
        model = files.load(config.weight_processing, device)
        positions = writer.description.positions
        n_tokens = sum(b - a for a, b in map(writer.sequences, missing)) * config.context
        with progress(total=n_tokens, unit="token", desc="extract") as bar, ThreadPoolExecutor(1) as disk:
            writing = None
            for shard in missing:
                first, last = writer.sequences(shard)
                tokens = writer.tokens[first:last]
                rows = capture(model, tokens, config.hook_points, positions, config.batch_sequences, bar)
                if writing is not None:
                    writing.result()
                writing = disk.submit(writer.write_shard, shard, rows)
            if writing is not None:
                writing.result()
    left = len(writer.missing())
    if left:
        print(f"{left} of {writer.description.n_shards} shards are left to the other workers")
        return None
    return writer.close()


def _tokens(config: ExtractConfig, files: ModelFiles) -> np.ndarray:
    """(n_sequences, context) int32. Raises UserError: the text does not fill what has to be held out and trained on."""
    wanted = n_sequences(config)
    packed = text.pack(text.documents(config.text), files.tokenizer, files.bos, config.context)
    bar = progress(islice(packed, wanted), total=wanted, unit="sequence", desc="tokenize")
    sequences = list(bar)
    if len(sequences) < 2:
        raise UserError(f"extract.text fills {len(sequences)} sequences of {config.context} tokens: give more text")
    if len(sequences) < wanted:
        rows = len(sequences) * len(config.positions.places(config.context))
        print(f"the text ends after {len(sequences)} of {wanted} sequences: the store will have {rows} rows")
    return np.stack(sequences)


def _description(config: ExtractConfig, files: ModelFiles, unit: Unit, sequences: int) -> Description:
    positions = config.positions.places(config.context)
    chunk = min(max(1, round(config.chunk_rows / len(positions))), max(1, sequences // 2))
    n_chunks = -(-sequences // chunk)
    heldout_chunks = min(max(1, round(config.heldout_fraction * n_chunks)), n_chunks - 1)
    return Description(
        model=config.model,
        model_revision=config.revision,
        model_digest=files.weights_digest,
        tokenizer_digest=files.tokenizer_digest,
        weight_processing=config.weight_processing,
        text=text.describe(config.text),
        text_digest=unit.inputs.get("files_digest"),
        context=config.context,
        positions=positions,
        bos=True,
        hook_points=config.hook_points,
        d=tuple(files.d(h) for h in config.hook_points),
        dtype=config.dtype,
        n_sequences=sequences,
        n_heldout_sequences=sequences - (n_chunks - heldout_chunks) * chunk,
        chunk_sequences=chunk,
        shard_chunks=min(config.shard_chunks, n_chunks),
    )
