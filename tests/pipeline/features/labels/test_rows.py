"""The labels of a store's rows are those that the whole texts give its tokens."""

import inspect
import json
import textwrap
from pathlib import Path

import numpy as np
import pytest
import tokenizers

from pipeline.features.labels.python import python_labels
from pipeline.features.labels.rows import TOKEN_LABELS, halves, labelled_rows
from pipeline.features.labels.spans import Spans
from pipeline.features.labels.token_bytes import token_bytes
from pipeline.models.files import ModelFiles
from stores.activations import ActivationStore
from stores.description import Description
from stores.writer import StoreWriter

TOKENIZER = ModelFiles.find("demo").tokenizer
CONTEXT = 16
TEXTS = ["x = 'é☃'  # ünd\n", inspect.getsource(textwrap), "this is no Python\n" * 20, "def f(a):\n    return a\n" * 9]


def store_of(texts: list[str], path: Path, positions: tuple[int, ...] = tuple(range(1, CONTEXT))) -> ActivationStore:
    """A store whose held-out sequences are packed from texts as the extract stage packs them."""
    stream = [i for text in texts for i in (0, *TOKENIZER.encode(text, add_special_tokens=False).ids)]
    n = len(stream) // (CONTEXT - 1)
    description = Description(
        model="none", model_revision=None, model_digest="0", tokenizer_digest="0", weight_processing="none",
        precision="float32", text="none", text_digest=None, context=CONTEXT, positions=positions, bos=True,
        hook_points=("x",), d=(1,), dtype="float32", n_sequences=2 * n, heldout_fraction=0.5, chunk_sequences=1,
        shard_chunks=2 * n,
    )  # fmt: skip
    tokens = np.zeros((2 * n, CONTEXT), np.int32)
    tokens[description.chunks("heldout"), 1:] = np.reshape(stream[: n * (CONTEXT - 1)], (n, CONTEXT - 1))
    writer = StoreWriter.create(path, description)
    writer.write_shard(0, tokens, {"x": np.zeros((len(tokens) * len(positions), 1), np.float32)})
    return writer.close()


def shouting(document: bytes) -> Spans:
    """A label of the characters: bytes in capitals."""
    if b"no Python" in document:
        raise ValueError("not this one")
    return {"capital": [(i, i + 1) for i, byte in enumerate(document) if chr(byte).isupper() and byte < 128]}


def test_rows_have_the_labels_of_their_tokens(tmp_path: Path) -> None:
    store = store_of(TEXTS, tmp_path / "a.zarr")
    found = labelled_rows(store, TOKENIZER, 10**6, shouting)
    tokens = store.tokens(0, store.n_heldout_rows // (CONTEXT - 1), "heldout")[:, 1:].reshape(-1)
    assert found.names == ("capital", *TOKEN_LABELS)
    texts = [TOKENIZER.decode([i]) for i in tokens]
    expected = [any(c.isupper() and c.isascii() for c in text) for text in texts]
    passages = np.cumsum(tokens == 0) - 1
    known = (tokens != 0) & (passages != 2)
    assert np.array_equal(found.known, known)
    assert np.array_equal(found.Y[known, 0], np.array(expected)[known])
    assert np.array_equal(found.Y[known, 1], np.array([text.startswith(" ") for text in texts])[known])
    assert np.array_equal(found.passages[tokens != 0] - 1, passages[tokens != 0])
    assert not found.Y[~known].any()


def test_a_store_of_some_positions_has_their_rows(tmp_path: Path) -> None:
    some = (0, 3, 7)
    whole = labelled_rows(store_of(TEXTS, tmp_path / "a.zarr"), TOKENIZER, 40, python_labels)
    found = labelled_rows(store_of(TEXTS, tmp_path / "b.zarr", some), TOKENIZER, 40, python_labels)
    assert found.Y.shape == (120, whole.Y.shape[1])
    assert not found.known[::3].any()
    for i, position in enumerate(some[1:], 1):
        assert np.array_equal(found.Y[i::3], whole.Y[position - 1 :: CONTEXT - 1])
        assert np.array_equal(found.known[i::3], whole.known[position - 1 :: CONTEXT - 1])


def test_a_passage_has_the_labels_that_it_has_in_its_document(tmp_path: Path) -> None:
    document = "'''\n" + "not a word of this is code\n" * 200 + "'''\n"
    passage = document[4:-8]
    store = store_of([passage], tmp_path / "a.zarr")
    alone = labelled_rows(store, TOKENIZER, 40, python_labels)
    within = labelled_rows(store, TOKENIZER, 40, python_labels, ["other", document])
    assert not alone.known.any()
    assert within.known[1:].all()
    assert within.Y[1:, within.names.index("docstring")].all()


def test_spaces_count_in_a_token_of_spaces_alone(tmp_path: Path) -> None:
    def first_space(document: bytes) -> Spans:
        return {"space": [(i, i + 1) for i, byte in enumerate(document) if byte == ord(" ")]}

    store = store_of(["def f(a):\n    return a\n" * 9], tmp_path / "a.zarr")
    found = labelled_rows(store, TOKENIZER, 4, first_space)
    tokens = store.tokens(0, 4, "heldout")[:, 1:].reshape(-1)
    texts = [TOKENIZER.decode([i]) for i in tokens]
    assert found.Y[1:, 0].tolist() == [text.isspace() and " " in text for text in texts[1:]]
    assert found.Y[1:, 0].any()


def test_tokens_of_any_text_add_up_to_its_bytes() -> None:
    of, text = token_bytes(TOKENIZER), "".join(map(chr, [*range(1, 0x250), 0x2603, 0x1F600])) + "\tdef  walk\r\n"
    ids = TOKENIZER.encode(text, add_special_tokens=False).ids
    assert b"".join(of[i] for i in ids) == text.encode()


def test_tokens_of_sentencepiece_add_up_too() -> None:
    vocabulary = {
        "<unk>": 0,
        "▁": 1,
        "a": 2,
        "b": 3,
        "▁ab": 4,
        **{f"<0x{i:02X}>": 5 + i for i in range(256)},
        "ab": 261,
    }
    model = tokenizers.models.BPE(
        vocab=vocabulary, merges=[("a", "b"), ("▁", "ab")], unk_token="<unk>", byte_fallback=True
    )
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = tokenizers.normalizers.Replace(" ", "▁")
    tokenizer.decoder = tokenizers.decoders.Sequence(
        [tokenizers.decoders.Replace("▁", " "), tokenizers.decoders.ByteFallback(), tokenizers.decoders.Fuse()]
    )
    of = token_bytes(tokenizer)
    assert b"".join(of[i] for i in tokenizer.encode("ab ab é\n").ids) == "ab ab é\n".encode()


def test_a_tokenizer_whose_tokens_have_no_bytes_is_refused() -> None:
    saved = json.loads(TOKENIZER.to_str())
    saved["decoder"] = {"type": "WordPiece", "prefix": "##", "cleanup": True}
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(saved))
    with pytest.raises(ValueError, match="decoder is WordPiece, expected ByteLevel"):
        token_bytes(tokenizer)


def test_halves_keep_groups_together_and_are_about_equal() -> None:
    groups = np.repeat(np.arange(40), np.random.default_rng(0).integers(1, 50, 40)).astype(np.int32)
    first = halves(groups)
    assert all(len(set(first[groups == group])) == 1 for group in range(40))
    assert abs(first.mean() - 0.5) < 50 / len(groups)
