"""Wrong input by a seeded draw: bytes that are flipped, cut and inserted, and JSON, TOML and safetensors with other values."""

import json
import re
from random import Random
from typing import Any

VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 0.5, 2**31, 2**63, 2**64, 10**12, 10**30, -(10**12), 1e308, float("nan"), float("inf"),
    "", "1", "x", ".", "..", "../../x", "/tmp/x", "a/b", "\0", "a\nb", "\x1b[2J", "\ud800", "ü", "x" * 300, "9" * 5000,
    [], {}, [[]], [0], [None], ["x", "x"], [1, [2]], [-1, 10**12], {"": 0}, {"a": {"b": []}},
)  # fmt: skip
_WORDS = (
    "",
    " ",
    "abc",
    "-1",
    "0",
    "1",
    "2",
    "3",
    "1.0",
    "1e3",
    "0x2",
    "9" * 30,
    "4(x2)",
    "2 ",
    "None",
    "65536",
    "::1",
)
_DEEP = "\ue000deep\ue001"  # stands for nesting that json cannot write
_NUMBER = "\ue000number\ue001"


def mutate(random: Random, data: bytes, kind: str) -> bytes:
    """A neighbour of data, of several steps at most. kind: "json", "toml", "safetensors", "environment", or "bytes"."""
    if kind == "environment":
        return _environment(random, data)
    if random.random() < 0.4 or kind == "bytes":
        return _bytes(random, data)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        data = {"json": _json, "toml": _toml, "safetensors": _safetensors}[kind](random, data)
    return data


def _bytes(random: Random, data: bytes) -> bytes:
    data = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 8))):
        i = random.randrange(len(data) + 1)
        j = min(len(data), i + random.choice((1, 1, 2, 8, 64)))
        choice = random.randrange(7)
        if choice == 0 and i < len(data):
            data[i] ^= 1 << random.randrange(8)
        elif choice == 1:
            del data[i:]
        elif choice == 2:
            del data[i:j]
        elif choice == 3:
            data[i:i] = random.randbytes(j - i)
        elif choice == 4:
            data[i:i] = data[i:j]
        elif choice == 5:
            data[i:i] = random.choice((b"\0", b"[" * 5000, b"\xff\xfe", b"9" * 5000, b'"', b"\n", b"{", b"}", b","))
        else:
            data[i:j] = random.randbytes(j - i)
    return bytes(data) if random.random() > 0.02 else b""


def _json(random: Random, data: bytes) -> bytes:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return _bytes(random, data)
    holder = [value]
    _alter(random, holder)
    text = json.dumps(holder[0], ensure_ascii=random.random() < 0.5, indent=random.choice((None, 1)))
    text = text.replace(json.dumps(_DEEP), "[" * 3000 + "]" * 3000).replace(f'"{_DEEP}"', "[" * 100_000)
    text = text.replace(json.dumps(_NUMBER), "9" * 5000).replace(f'"{_NUMBER}"', "1e999")
    if random.random() < 0.1 and text.startswith("{"):  # a key twice
        text = (
            "{"
            + f'"{random.choice(list(value) or ["x"]) if isinstance(value, dict) else "x"}": 0, '
            + text[1:].lstrip()
        )
    return text.encode(errors="surrogatepass")


def _alter(random: Random, holder: list[Any]) -> None:
    """Another value, a key more or less, somewhere in holder[0]; in a large list anywhere, in a small one everywhere."""
    parent: Any = holder
    key: Any = 0
    while isinstance(parent[key], list | dict) and parent[key] and random.random() < 0.8:
        parent = parent[key]
        key = random.choice(list(parent)) if isinstance(parent, dict) else random.randrange(len(parent))
    choice = random.randrange(8)
    if choice == 0 and parent is not holder:
        del parent[key]
    elif choice == 1 and isinstance(parent, dict):
        parent[random.choice(("x", "", "../x", "\0", "__class__", key + "x"))] = parent.pop(key)
    elif choice == 2 and isinstance(parent, list) and parent is not holder:
        parent.insert(key, random.choice(VALUES))
    elif choice == 3:
        parent[key] = random.choice((_DEEP, _NUMBER))
    elif choice == 4 and isinstance(parent[key], int | float):
        parent[key] = parent[key] * random.choice((-1, 2, 0.5, 10**9)) + random.choice((0, 1, -1))
    else:
        parent[key] = random.choice(VALUES)


def _toml(random: Random, data: bytes) -> bytes:
    lines = data.decode(errors="replace").split("\n")
    i = random.randrange(len(lines))
    name = re.match(r"\s*([A-Za-z_]+)\s*=", lines[i])
    choice = random.randrange(6)
    if choice == 0:
        del lines[i]
    elif choice == 1:
        lines.insert(random.randrange(len(lines) + 1), lines[i])
    elif choice == 2 and name:
        lines[i] = f"{name[1]}{random.choice('xyz')} = 1"
    elif choice == 3 and lines[i].startswith("["):
        lines[i] = random.choice((f"[{lines[i]}]", "[train.topkk]", "[train]", "[a.b.c]", "[[extract]]"))
    elif name:
        lines[i] = f"{name[1]} = {_toml_value(random)}"
    else:
        lines.insert(i, f"{random.choice(('k', 'n_rows', 'hook_points', 'name', 'store'))} = {_toml_value(random)}")
    return "\n".join(lines).encode(errors="surrogatepass")


def _toml_value(random: Random) -> str:
    value = random.choice(VALUES)
    if value is None:
        return random.choice(
            ("[" * 2000 + "]" * 2000, "1979-05-27", "07:32:00", "inf", "nan", "0x7fffffffffffffff", "{}")
        )
    if isinstance(value, dict):
        return "{ a = { b = [] } }"
    return json.dumps(value, ensure_ascii=False).replace("null", "1.5").replace("NaN", "nan").replace("Infinity", "inf")


def _safetensors(random: Random, data: bytes) -> bytes:
    n = int.from_bytes(data[:8], "little")
    if n > len(data):
        return _bytes(random, data)
    header = _json(random, data[8 : 8 + n])
    size = random.choice((len(header),) * 8 + (0, 2**40, 2**64 - 1, len(header) + 1))
    return size.to_bytes(8, "little") + header + data[8 + n :]


def _environment(random: Random, data: bytes) -> bytes:
    """Lines NAME=VALUE: some left out, some with another value, none of several lines."""
    lines = []
    for line in data.decode().split("\n"):
        choice = random.random()
        if choice < 0.6:
            lines.append(line)
        elif choice < 0.9:
            lines.append(f"{line.split('=')[0]}={random.choice(_WORDS)}")
    return "\n".join(lines or ["X="]).encode()
