"""Whether a store is as it was committed, and leading it to health where it is not."""

import errno
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace

from stores import attempts
from stores.commits import TOKENS, Commit, StoreDigest, commit_key, committed_shards, file_key, read_commit, records
from stores.description import Description, OtherSchema, StoreError
from stores.metadata import COPY, MANIFEST, ROOT, read_description, read_json_object, read_manifest
from stores.place import Place
from stores.rolling import ROLLING
from stores.writer import StoreWriter
from stores.zarr_files import metadata

_ARRAY_KEYS = ("node_type", "shape", "data_type", "chunk_grid")


@dataclass(frozen=True)
class Damage:
    """Something in a store that is not as committed. shard: which one has to be made again; None: no shard's, it can be
    made again from the others. passing: it may be as committed, it could not be read. attempt: the shard's, if that is
    known."""

    shard: int | None
    what: str
    passing: bool = False
    attempt: str | None = None


def stored_description(place: Place) -> Description:
    """From zarr.json, or from its copy where that is damaged. Raises StoreError: both are, there is no store, or it is of
    another schema."""
    try:
        return read_description(place)
    except StoreError as error:
        first = error
    if not place.exists(COPY):
        raise first
    try:
        return read_description(place, COPY)
    except StoreError as second:
        for error in (first, second):
            if isinstance(error, OtherSchema):
                raise error from None
        if place.exists(ROOT):
            raise StoreError(
                f"{place / ROOT} and its copy {COPY} are both damaged, so nothing says what the numbers are: remove "
                f"{place.root} and run `unmix extract` with the store's recipe"
            ) from first
        raise first from None


def damage(place: Place) -> Iterator[tuple[int, list[Damage]]]:
    """Check every byte of what is committed, finished or not: for one shard after another, (shard, what is wrong with
    it); last (-1, what is wrong with the store's metadata and manifest). What cannot be read is named, and the rest is
    checked. Changes nothing."""
    description = stored_description(place)
    finished = place.exists(MANIFEST)
    waiting = {attempt for _, attempt in attempts.left(place)}  # committed, perhaps, and not moved in yet
    there, digest = set(committed_shards(place)), StoreDigest(description)
    for shard in range(description.n_shards):
        found: list[Damage] = []
        if finished or shard in there:
            try:
                commit = read_commit(place, shard, description)
                digest.add(commit)
                wrong = _damaged_files(place, commit, commit.attempt in waiting)
                found = [replace(d, attempt=commit.attempt) for d in wrong if d]
            except (StoreError, OSError) as error:
                found = [_named(place, shard, commit_key(shard), error)]
        yield shard, found
    found = list(_damaged_metadata(place, description))
    if finished:
        try:
            manifest = read_manifest(place, description)
            if digest.n == description.n_shards and digest.of(manifest.moments) != manifest.digest:
                found.append(Damage(None, f"{place / MANIFEST} is not the manifest of the shards that are committed"))
        except (StoreError, OSError) as error:
            found.append(_named(place, None, MANIFEST, error))
    yield -1, found


def _damaged_files(place: Place, commit: Commit, waiting: bool) -> Iterator[Damage | None]:
    first = attempts.keys(commit) if waiting else {}
    rows = _rows(place, commit.shard, tuple(commit.files))
    for key, record in records(commit).items():
        for where in ([first[key]] if key in first else []) + [key]:
            found = None
            try:
                size = place.size(where)
                if size is None and where in rows:
                    break  # dropped, perhaps a moment ago
                if size != record.n_bytes:
                    is_ = "missing" if size is None else f"{size} bytes"
                    raise StoreError(f"{place / where} is {is_}, expected {record.n_bytes} bytes")
                if place.sha256(where) != record.sha256:
                    raise StoreError(f"{place / where} was altered: its sha256 is not the committed one")
                break
            except (StoreError, OSError, EOFError) as error:
                dropped = isinstance(error, FileNotFoundError) and where in rows
                found = None if dropped else _named(place, commit.shard, where, error)
        yield found


def _rows(place: Place, shard: int, arrays: tuple[str, ...]) -> list[str]:
    """The keys under which rows of a rolling store's shard may lie or not; of another store none."""
    return [file_key(name, shard) for name in arrays if name != TOKENS] if place.exists(ROLLING) else []


def _damaged_metadata(place: Place, description: Description) -> Iterator[Damage]:
    expected = metadata(description)
    for key, data in expected.items():
        try:
            found, wanted = read_json_object(place, key), json.loads(data)
            if key in (ROOT, COPY) and read_description(place, key) != description:
                yield Damage(None, f"{place / key} is not the description that {ROOT} has")
            if any(found.get(k) != wanted.get(k) for k in _ARRAY_KEYS):
                yield Damage(None, f"{place / key} is not the metadata of such an array")
        except (StoreError, OSError) as error:
            yield _named(place, None, key, error)


def _named(place: Place, shard: int | None, key: str, error: Exception) -> Damage:
    if isinstance(error, FileNotFoundError):
        return Damage(shard, f"{place / key} is missing")
    if isinstance(error, EOFError):
        return Damage(shard, f"{place / key} was cut while it was read")
    if isinstance(error, OSError):  # a bad block stays bad; a right or a connection that is missing may come back
        return Damage(shard, f"{place / key} cannot be read: {error.strerror or error}", error.errno != errno.EIO)
    return Damage(shard, str(error).removesuffix(f"; {place.repair}").removesuffix(f": {place.repair}"))


def repair(place: Place, found: list[Damage]) -> StoreWriter:
    """Take back the commits of damaged shards, so that they are missing and can be made again; write metadata again; make
    the manifest again if all shards are there. What could not be read for reasons that may pass stays as it is."""
    place.check_writable()
    writer = StoreWriter(place, stored_description(place))
    shards = {(d.shard, d.attempt) for d in found if d.shard is not None and not d.passing}
    for shard, attempt in sorted(shards, key=lambda one: one[0]):
        if _attempt(place, shard, writer.description) == attempt:  # else another process has made it again since
            for key in _rows(place, shard, writer.description.hook_points):
                place.remove(key)  # extraction puts none in its place
            writer.withdraw(shard)
    if any(d.shard is None and not d.passing for d in found):
        writer.open_again()
        writer.put_metadata()
    attempts.roll_forward(place)
    if not writer.missing() and not place.exists(MANIFEST):
        writer.close()
    return writer


def _attempt(place: Place, shard: int, description: Description) -> str | None:
    """That of a shard's commit; None: it has none, or one that is damaged."""
    try:
        return read_commit(place, shard, description).attempt
    except (StoreError, OSError):
        return None
