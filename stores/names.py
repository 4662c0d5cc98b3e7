"""Names that others chose: of hook points, dictionaries, stores. A name becomes a folder, so it is checked where it enters."""

import json

_MAX_BYTES = 200  # of a file name's 255: a temporary file's name is this name, a uuid and more
_TAKEN = (
    "attempts",
    "commits",
    "leases",
    "manifest.json",
    "plan.json",
    "started.json",
    "sums.npz",
    "text",
    "tokens",
    "zarr.json",
)


def check_name(name: str, what: str) -> str:
    """The name, if a folder of that name lies directly in the folder that it is put in, and nothing else is called so.

    what: whose name it is, for the message, as "hook point" or "score.dictionaries". Raises ValueError.
    """
    shown = json.dumps(name[:80])
    if not name:
        raise ValueError(f"{what} has an empty name")
    if "/" in name or "\\" in name:
        raise ValueError(f"{what} is called {shown}: a name has no slashes, it is not a path")
    if name.startswith("."):
        raise ValueError(f"{what} is called {shown}: a name does not begin with a dot")
    if not name.isprintable():  # NUL, line ends, lone surrogates
        raise ValueError(f"{what} is called {shown}: a name has no control characters")
    if len(name.encode()) > _MAX_BYTES:
        raise ValueError(f"{what} is called {shown}…: a name has at most {_MAX_BYTES} bytes")
    if name.casefold() in _TAKEN:  # some file systems take A and a for the same
        raise ValueError(f"{what} is called {shown}: that name is taken, use another")
    return name
