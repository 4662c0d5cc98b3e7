"""Zip files of strangers: .npz and what torch.save writes."""

import struct
import zipfile
from pathlib import Path

from stores.dictionary_files import line_of

_END = 22  # bytes of a zip's last record, where no comment follows
_MOST_LIST_BYTES = 1 << 20  # of the list of members, some 60 bytes each
_MOST_TIMES = 64  # a member unpacks to; weights hardly shrink at all


def open_zip(file: Path) -> zipfile.ZipFile:
    """The zip file, whose list of members is small. Nothing of the list is read before its size is known.

    Raises ValueError: it is no zip file, its list is long, or a member unpacks to far more than it takes.
    """
    with file.open("rb") as raw:
        size = raw.seek(0, 2)
        raw.seek(max(0, size - _END - 20))
        tail = raw.read()
        end = tail[-_END:]
        if len(end) < _END or end[:4] != b"PK\5\6" or end[-2:] != b"\0\0":
            raise ValueError(f"{file} is damaged: not a zip file, or cut")
        list_bytes = struct.unpack("<L", end[12:16])[0]
        if tail[-_END - 20 : -_END][:4] == b"PK\6\7":  # zip64: the sizes stand in another record
            raw.seek(min(size, struct.unpack("<Q", tail[-_END - 12 : -_END - 4])[0]))
            record = raw.read(56)
            list_bytes = struct.unpack("<Q", record[40:48])[0] if record[:4] == b"PK\6\6" else size
    if list_bytes > min(size, _MOST_LIST_BYTES):
        raise ValueError(f"{file}: its list of members has {list_bytes} bytes, expected at most {_MOST_LIST_BYTES}")
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, OSError, struct.error) as error:
        raise ValueError(f"{file} is damaged: {line_of(error)}") from error
    for member in archive.infolist():
        if member.file_size > _MOST_TIMES * (member.compress_size + 1024):
            archive.close()
            raise ValueError(
                f"{file}: {member.filename!a} unpacks from {member.compress_size} to {member.file_size} bytes, "
                f"expected at most {_MOST_TIMES} times as many"
            )
    return archive
