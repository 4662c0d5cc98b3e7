"""What store a recipe asks for, and the text that it is made of."""

from pipeline.config import UserError
from pipeline.extract import text
from pipeline.extract.config import ExtractConfig, n_sequences
from pipeline.extract.packing import START, Packer
from pipeline.extract.text import Bookmark, Documents
from pipeline.models.files import ModelFiles
from pipeline.units import Unit
from stores.description import Description, Part, TextPositions, is_heldout, row_bytes
from stores.manifest import digest

SHARD_BYTES = 1 << 30  # of all hook points together: extraction has two shards in memory at a time


def packer_of(
    config: ExtractConfig, files: ModelFiles, position: TextPositions = START, bookmark: Bookmark | None = None
) -> tuple[Packer, Documents]:
    """A packer of the recipe's text from a position on, and what it reads: from a bookmark on, which is not behind it."""
    texts = Documents(config.text, bookmark)
    packer = Packer(texts, files.tokenizer, files.bos, config.context, config.heldout_fraction, position, texts.first)
    return packer, texts


def ended(description: Description) -> str:
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
    chunk_bytes = chunk * len(positions) * sum(row_bytes(n, config.dtype) for n in d)
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
    packer, _ = packer_of(config, files)
    names: dict[Part, str] = {"train": "training", "heldout": "held-out"}
    for part, name in names.items():
        chunk = min(chunk, len(packer.take(part, chunk)))  # there may be so little text that chunks have to be smaller
        if not chunk:
            raise UserError(
                f"extract.text: the {name} documents fill no sequence of {config.context} tokens with "
                f"extract.heldout_fraction = {config.heldout_fraction}: give more text, or another fraction"
            )
    return chunk
