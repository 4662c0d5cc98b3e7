"""Where a store lies: a local folder, or any fsspec URL, behind the same few verbs.

What is put under a key is there whole or not at all, and once put it survives a power cut (locally: fsync).
"""

import contextlib
import errno
import hashlib
import os
import shlex
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from stores.description import StoreError
from stores.manifest import commit_bytes, fsync_path, make_folder, sweep_partial

_PIECE_BYTES = 1 << 18
_DIGEST_BYTES = 1 << 24
_ATOMIC = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "memory"}


class Place(ABC):
    """A folder of named byte strings. Keys have forward slashes. Reading what is not there raises FileNotFoundError."""

    root: str

    def __truediv__(self, key: str) -> str:
        """A key's name for people."""
        return f"{self.root}/{key}"

    @abstractmethod
    def check_writable(self) -> None:
        """Raises StoreError: it can be read only, since what is put there could be seen half, or by two as their own."""

    @property
    def repair(self) -> str:
        """What leads a store that is damaged to health, for messages."""
        return f"run `unmix verify {shlex.quote(self.root)} --repair`"

    @abstractmethod
    def read(self, key: str) -> bytes: ...

    @abstractmethod
    def fill(self, key: str, offset: int, out: memoryview) -> Iterator[memoryview]:
        """Fill out with what follows offset, and yield each piece of it as it comes, to be summed while it lies in the
        processor's cache. Raises EOFError: there is less than that."""

    @abstractmethod
    def put(self, key: str, data: bytes | memoryview, *, exclusive: bool = False) -> bool:
        """exclusive: leave what is there already. Returns whether these bytes are there by this call."""

    @abstractmethod
    def size(self, key: str) -> int | None:
        """Bytes under a key, None: nothing."""

    @abstractmethod
    def names(self, folder: str) -> list[str]:
        """What lies directly in a folder, sorted; empty when there is no such folder."""

    @abstractmethod
    def remove(self, key: str) -> None: ...

    @abstractmethod
    def move(self, key: str, to: str) -> bool:
        """Give what lies under a key another one; what lay there is replaced. Returns False when there is nothing under
        the key: another process may have moved it. Locally a rename; remotely a copy by the service, then a removal, so
        for a moment it is there twice."""

    @abstractmethod
    def remove_empty(self, folder: str) -> None:
        """A folder, if nothing lies in it."""

    @abstractmethod
    def modified(self, key: str) -> float | None:
        """When a key was last put, None: nothing there. In seconds of the clock of whoever keeps the files: comparable
        with other keys' alone."""

    @abstractmethod
    def sweep(self) -> None:
        """Remove what killed processes left half-written."""

    def remove_folder(self, folder: str) -> None:
        """A folder and the files that lie directly in it."""
        for name in self.names(folder):
            self.remove(f"{folder}/{name}")
        self.remove_empty(folder)

    def exists(self, key: str) -> bool:
        return self.size(key) is not None

    def sha256(self, key: str) -> str:
        """Of what lies under a key, read piece by piece."""
        found, size = hashlib.sha256(), self.size(key)
        if size is None:
            raise FileNotFoundError(self / key)
        buffer = memoryview(bytearray(min(size, _DIGEST_BYTES)))
        for start in range(0, size, _DIGEST_BYTES):
            for piece in self.fill(key, start, buffer[: size - start]):
                found.update(piece)
        return found.hexdigest()


class Folder(Place):
    """A local folder."""

    def __init__(self, path: Path) -> None:
        self.path, self.root = path, str(path)

    def read(self, key: str) -> bytes:
        return (self.path / key).read_bytes()

    def fill(self, key: str, offset: int, out: memoryview) -> Iterator[memoryview]:
        descriptor = os.open(self.path / key, os.O_RDONLY)
        try:
            while len(out):
                n = os.preadv(descriptor, [out[:_PIECE_BYTES]], offset)
                if not n:
                    raise EOFError(self / key)
                yield out[:n]
                out, offset = out[n:], offset + n
        except OSError as error:
            if error.errno == errno.ESTALE:  # over NFS: another machine removed it since it was opened
                raise FileNotFoundError(self / key) from None
            raise
        finally:
            os.close(descriptor)

    def put(self, key: str, data: bytes | memoryview, *, exclusive: bool = False) -> bool:
        return commit_bytes(self._own(key), data, exclusive=exclusive)

    def check_writable(self) -> None:
        """Every local folder is, however its file system names files exclusively."""

    def _own(self, key: str) -> Path:
        """Where a key is to be changed. Raises StoreError: a link leads out of the folder."""
        path = self.path / key
        if not path.parent.resolve().is_relative_to(self.path.resolve()):
            raise StoreError(f"{path} leads out of the store, to {path.parent.resolve()}: remove that link")
        return path

    def size(self, key: str) -> int | None:
        try:
            return (self.path / key).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    def names(self, folder: str) -> list[str]:
        try:
            return sorted(os.listdir(self.path / folder))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def remove(self, key: str) -> None:
        self._own(key).unlink(missing_ok=True)

    def move(self, key: str, to: str) -> bool:
        source, target = self._own(key), self._own(to)
        if not source.exists():  # no folder is made for it
            return False
        make_folder(target.parent)
        try:
            os.replace(source, target)
        except FileNotFoundError:
            return False
        fsync_path(target.parent)
        return True

    def remove_empty(self, folder: str) -> None:
        with contextlib.suppress(OSError):  # gone, or in use
            self._own(folder).rmdir()

    def modified(self, key: str) -> float | None:
        try:
            return (self.path / key).stat().st_mtime
        except (FileNotFoundError, NotADirectoryError):
            return None

    def sweep(self) -> None:
        sweep_partial(self.path)


class Remote(Place):
    """Anything that fsspec reaches: s3://, gs://, az://, sftp://, memory:// … Credentials and endpoints are taken from
    where the service's own tools take them, for S3 the AWS_* environment variables and ~/.aws. Only object stores are
    written to: there a put is whole or not there, and can be asked to create only."""

    _probed: ClassVar[set[str]] = set()  # roots where a put that creates only was seen to do so

    def __init__(self, url: str) -> None:
        import fsspec

        self.root = url.rstrip("/")
        try:
            # Other processes write too: a listing that was true a second ago may not be.
            filesystem, path = fsspec.core.url_to_fs(self.root, use_listings_cache=False)
        except (ValueError, ImportError) as error:
            raise StoreError(f"cannot reach {url}: {error}; for S3, pip install 'unmix[s3]'") from None
        self._files: Any = filesystem
        self._path = path.rstrip("/")

    def _full(self, key: str) -> str:
        return f"{self._path}/{key}"

    def check_writable(self) -> None:
        protocol = self.root.split("://")[0].split("::")[0]
        if protocol not in _ATOMIC:
            raise StoreError(
                f"{self.root} can be read but not written: {protocol} has no puts that are whole or not there; write to a "
                f"local folder, s3://, gs:// or az://, and copy the finished store"
            )
        if self.root not in Remote._probed:
            probe = f"probe-{uuid.uuid4().hex}"
            self.put(probe, b"1")
            created_twice = self.put(probe, b"2", exclusive=True)
            self.remove(probe)
            if created_twice:
                raise StoreError(
                    f"{self.root} can be read but not written: the service ignores requests to create only (If-None-Match), "
                    f"so two writers could both win; write to a local folder and copy the finished store"
                )
            Remote._probed.add(self.root)

    def read(self, key: str) -> bytes:
        return self._files.cat_file(self._full(key))

    def fill(self, key: str, offset: int, out: memoryview) -> Iterator[memoryview]:
        data = self._files.cat_file(self._full(key), start=offset, end=offset + len(out))
        if len(data) < len(out):
            raise EOFError(self / key)
        out[:] = data
        yield out

    def put(self, key: str, data: bytes | memoryview, *, exclusive: bool = False) -> bool:
        path = self._full(key)
        try:
            self._files.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
            self._files.pipe_file(path, bytes(data), **({"mode": "create"} if exclusive else {}))
        except FileExistsError:
            return False
        except OSError:  # services have several ways to say that it exists: 412, or 409 while another creates it
            if not exclusive or not self._files.exists(path):
                raise
            return False
        return True

    def size(self, key: str) -> int | None:
        try:
            return self._files.info(self._full(key))["size"]
        except FileNotFoundError:
            return None

    def names(self, folder: str) -> list[str]:
        try:
            return sorted(name.rsplit("/", 1)[-1] for name in self._files.ls(self._full(folder), detail=False))
        except FileNotFoundError:
            return []

    def remove(self, key: str) -> None:
        try:
            self._files.rm_file(self._full(key))
        except FileNotFoundError:
            return

    def move(self, key: str, to: str) -> bool:
        try:
            self._files.cp_file(self._full(key), self._full(to))
        except FileNotFoundError:
            return False
        self.remove(key)
        return True

    def remove_empty(self, folder: str) -> None:
        with contextlib.suppress(OSError, NotImplementedError):  # few services know folders
            self._files.rmdir(self._full(folder))

    def modified(self, key: str) -> float | None:
        try:
            return self._files.modified(self._full(key)).timestamp()
        except (FileNotFoundError, IsADirectoryError):
            return None

    def sweep(self) -> None:
        """Nothing: what is put half does not appear."""


def is_url(path: Path | str) -> bool:
    return "://" in str(path)


def place_at(path: Path | str) -> Place:
    """The local folder or remote place. Raises StoreError: a URL that nothing installed can reach."""
    return Remote(str(path)) if is_url(path) else Folder(Path(path))
