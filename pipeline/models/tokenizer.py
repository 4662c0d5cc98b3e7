"""A model's tokenizer: whole, or refused."""

from pathlib import Path

from tokenizers import Tokenizer

from pipeline.config import UserError
from pipeline.models.reading import damaged


def read_tokenizer(folder: Path) -> Tokenizer:
    """From tokenizer.json, or GPT-2's vocab.json and merges.txt; truncation and padding are off.

    Raises UserError: there is none, or it cannot be read.
    """
    if (folder / "tokenizer.json").exists():
        path = folder / "tokenizer.json"
    elif (folder / "vocab.json").exists() and (folder / "merges.txt").exists():
        path = folder / "vocab.json"
    else:
        raise UserError(
            f"extract.model: no tokenizer in {folder}, expected tokenizer.json, or vocab.json and merges.txt: copy those "
            "that the model was trained with"
        )
    try:
        if path.name == "tokenizer.json":
            tokenizer = Tokenizer.from_file(str(path))
        else:
            from transformers import AutoTokenizer

            tokenizer: Tokenizer = AutoTokenizer.from_pretrained(folder).backend_tokenizer
        tokenizer.encode("\U000f0000")  # what is in no vocabulary: some can only fail
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the tokenizers library raises Exception itself, and panics, which are none
        raise damaged(path, error) from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def check_ids(folder: Path, tokenizer: Tokenizer, bos: int, n: int) -> None:
    """Raises UserError: the tokenizer makes an id that the model's vocabulary of n does not have; BOS is in neither."""
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    if not vocabulary:
        raise UserError(f"extract.model: the tokenizer in {folder} has no tokens")
    token, largest = max(vocabulary.items(), key=lambda item: item[1])
    if largest >= n:
        raise UserError(
            f"extract.model: the tokenizer in {folder} has id {largest} ({token!r}), the model's vocabulary ends at "
            f"{n - 1}: give it the tokenizer that it was trained with"
        )
    if bos >= n or tokenizer.id_to_token(bos) is None:
        raise UserError(
            f"extract.model: {folder / 'config.json'} has bos_token_id = {bos}, no id of "
            f"{'the model' if bos >= n else 'the tokenizer'}, whose largest is {n - 1 if bos >= n else largest}: set it to "
            "the token that begins a document"
        )
