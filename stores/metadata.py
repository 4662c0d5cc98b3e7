"""A store's zarr.json and manifest.json as they are read: every value that is used is checked first."""

import json
import math
import types
import typing
from dataclasses import dataclass, fields
from typing import Any

from stores.commits import committed_shards
from stores.description import DTYPES, SCHEMA_VERSION, Description, OtherSchema, StoreError
from stores.manifest import digest
from stores.moments import Moments
from stores.names import check_name
from stores.place import Place

ROOT, COPY, MANIFEST = "zarr.json", "tokens/zarr.json", "manifest.json"  # both zarr.json have the description
STARTED = "started.json"  # beside them until write_store has finished
_MAX_JSON_BYTES = 1 << 28
_MAX_SHARDS = 1_000_000
_MAX_WIDTH = 1 << 24
_MAX_CHUNK_BYTES = 1 << 36


@dataclass(frozen=True)
class Manifest:
    """nonfinite: per hook point that has some, as in Commit. moments: per hook point, the fields of Moments."""

    digest: str
    nonfinite: dict[str, tuple[int, int, int]]
    moments: dict[str, dict[str, Any]]


def read_json_object(place: Place, key: str) -> dict[str, Any]:
    """Raises FileNotFoundError, StoreError: not a JSON object, or too large to be one of a store's."""
    size = place.size(key)
    if size is not None and size > _MAX_JSON_BYTES:
        raise StoreError(f"{place / key} is damaged: {size} bytes; {place.repair}")
    try:
        found = json.loads(place.read(key))
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{place / key} is damaged: {error}; {place.repair}") from None
    if not isinstance(found, dict):
        raise StoreError(f"{place / key} is damaged: not a JSON object; {place.repair}")
    return found


def read_description(place: Place, key: str = ROOT) -> Description:
    """key: ROOT, or its COPY. Raises StoreError: there is no store, one of another schema, or it is damaged."""
    try:
        attributes = read_json_object(place, key).get("attributes")
    except FileNotFoundError:
        if place.exists(COPY):
            raise StoreError(f"{place / key} is missing: {place.repair}") from None
        raise StoreError(f"no activation store at {place.root}: run `unmix extract` first") from None
    if not isinstance(attributes, dict):
        raise StoreError(f"{place / key} is damaged: it has no attributes; {place.repair}")
    if (schema := attributes.get("schema_version", SCHEMA_VERSION)) != SCHEMA_VERSION:
        newer = isinstance(schema, int) and schema > SCHEMA_VERSION
        way_on = (
            "install the unmix that wrote it, or a newer one"
            if newer
            else "make it again beside it, `unmix extract RECIPE --name NEW`, or by stores.write_store at another path"
        )
        raise OtherSchema(
            f"{place / key} is of store schema {str(schema)[:20]}, this version reads {SCHEMA_VERSION}: {way_on}"
        )
    try:
        description = _typed_description(attributes)
        _check_ranges(description)
        if attributes.get("digest") != digest({f.name: attributes[f.name] for f in fields(Description)}):
            raise ValueError("digest is not that of the others")
    except ValueError as error:
        raise StoreError(f"{place / key} is damaged: attribute {error}; {place.repair}") from None
    return description


def read_manifest(place: Place, description: Description) -> Manifest:
    """Raises StoreError: the store is not finished, or the manifest is damaged."""
    try:
        found = read_json_object(place, MANIFEST)
    except FileNotFoundError:
        if place.exists(STARTED):
            raise StoreError(f"{place.root} is not finished: remove it, and write it again") from None
        n = len(committed_shards(place))
        raise StoreError(
            f"{place.root} is not finished, {n} of {description.n_shards} shards: run `unmix extract` again"
        ) from None
    try:
        nonfinite = {
            h: typed(found["nonfinite"][h], tuple[int, int, int], f"nonfinite of {h}") for h in found["nonfinite"]
        }
        moments = {h: found["moments"][h] for h in description.hook_points}
        for hook_point, values in moments.items():
            for f in fields(Moments):
                _check_moment(values[f.name], description.width(hook_point), f"{f.name} of {hook_point}")
        if found["checksum"] != digest({k: v for k, v in found.items() if k != "checksum"}):
            raise ValueError("its checksum is not that of the rest")
        return Manifest(typed(found["digest"], str, "digest"), nonfinite, moments)
    except KeyError as error:
        raise StoreError(f"{place / MANIFEST} is damaged: {error} is missing; {place.repair}") from None
    except (ValueError, TypeError, AttributeError, IndexError) as error:
        raise StoreError(f"{place / MANIFEST} is damaged: {error}; {place.repair}") from None


def typed(value: Any, hint: Any, name: str) -> Any:
    """A JSON value as the type that it is annotated with; lists become tuples. Raises ValueError naming it."""
    expected = str(hint) if typing.get_args(hint) else hint.__name__
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        return typed(value, next(a for a in arguments if a is not type(None)), name)
    if origin is tuple and isinstance(value, list):
        if arguments[-1] is Ellipsis:
            return tuple(typed(v, arguments[0], name) for v in value)
        if len(value) == len(arguments):
            return tuple(typed(v, a, name) for v, a in zip(value, arguments))
    if hint is float and isinstance(value, int | float) and type(value) is not bool and math.isfinite(value):
        return float(value)
    if hint in (int, str, bool) and type(value) is hint:
        return value
    raise ValueError(f"{name} is {str(value)[:40]!r}, expected {expected}")


def _typed_description(attributes: dict[str, Any]) -> Description:
    """Attributes that are not ours stay in the file and are not looked at."""
    hints, values = typing.get_type_hints(Description), {}
    for f in fields(Description):
        if f.name not in attributes:
            raise ValueError(f"{f.name} is missing")
        values[f.name] = typed(attributes[f.name], hints[f.name], f.name)
    return Description(**values)


def _check_ranges(d: Description) -> None:
    """Raises ValueError: the values cannot be those of one store."""
    for name in ("context", "n_sequences", "chunk_sequences", "shard_chunks"):
        if not 1 <= getattr(d, name) < 2**53:
            raise ValueError(f"{name} is {getattr(d, name)}, expected at least 1")
    if d.dtype not in DTYPES:
        raise ValueError(f"dtype is {d.dtype[:40]!r}, expected one of {', '.join(DTYPES)}")
    for hook_point in d.hook_points:
        check_name(hook_point, "hook_points: a hook point")
    if not d.hook_points or len(set(d.hook_points)) < len(d.hook_points):
        raise ValueError(f"hook_points has {len(d.hook_points)} names, expected different ones")
    if len(d.d) != len(d.hook_points) or not 1 <= min(d.d) <= max(d.d) <= _MAX_WIDTH:
        raise ValueError(f"d is {str(d.d)[:40]}, expected a width for each of {len(d.hook_points)} hook points")
    if not d.positions or list(d.positions) != sorted(set(d.positions)):
        raise ValueError(f"positions is {str(d.positions)[:40]}, expected growing places")
    if d.positions[0] < 0 or d.positions[-1] >= d.context:
        raise ValueError(f"positions is {str(d.positions)[:40]}, expected places in a context of {d.context}")
    if d.n_shards > _MAX_SHARDS:
        raise ValueError(f"n_sequences is {d.n_sequences}, that is {d.n_shards} shards: at most {_MAX_SHARDS}")
    if 4 * d.chunk_rows * max(*d.d, d.context) > _MAX_CHUNK_BYTES:
        raise ValueError(f"chunk_sequences is {d.chunk_sequences}: a chunk of more than {_MAX_CHUNK_BYTES} bytes")


def _check_moment(value: Any, d: int, name: str) -> None:
    """A number, or one for each of d coordinates."""
    numbers = value if isinstance(value, list) else [value]
    if isinstance(value, list) and len(value) != d:
        raise ValueError(f"{name} has {len(value)} numbers, expected {d}")
    if not all(type(v) in (int, float) for v in numbers):
        raise ValueError(f"{name} is {str(value)[:40]!r}, expected numbers")
