"""The bytes that each token stands for."""

import json
import re
from functools import cache
from typing import Any

_BYTE = re.compile("<0x([0-9A-F]{2})>")  # a byte that is in no token, of SentencePiece


def token_bytes(tokenizer: Any) -> dict[int, bytes]:
    """By id, without the special tokens; a token may hold a part of a character. tokenizer: a `tokenizers.Tokenizer`.

    Raises ValueError: the bytes of a text's tokens are not those of the text.
    """
    kinds = _kinds(json.loads(tokenizer.to_str())["decoder"])
    if "ByteLevel" in kinds:
        of = _of_byte_level
    elif "ByteFallback" in kinds or "Metaspace" in kinds:
        of = _of_sentence_piece
    else:
        raise ValueError(
            f"the tokenizer's decoder is {' + '.join(kinds) or 'none'}, expected ByteLevel, Metaspace or ByteFallback: "
            "labels need the bytes of each token"
        )
    added = tokenizer.get_added_tokens_decoder()
    found = {i: of(text) for text, i in tokenizer.get_vocab(with_added_tokens=True).items() if i not in added}
    return found | {i: token.content.encode() for i, token in added.items() if not token.special}


def _kinds(decoder: dict[str, Any] | None) -> list[str]:
    if decoder is None:
        return []
    return [kind for part in decoder.get("decoders", ()) for kind in _kinds(part)] or [decoder["type"]]


def _of_byte_level(text: str) -> bytes:
    try:
        return bytes(_bytes_of_characters()[c] for c in text)
    except KeyError:  # a token that was added by hand
        return text.encode()


@cache
def _bytes_of_characters() -> dict[str, int]:
    """GPT-2's characters for bytes: printable ones stand for themselves, the others for those from 256 on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(others)}


def _of_sentence_piece(text: str) -> bytes:
    if match := _BYTE.fullmatch(text):
        return bytes([int(match[1], 16)])
    return text.replace("▁", " ").encode()
