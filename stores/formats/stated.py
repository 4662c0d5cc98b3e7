"""What a user states of a dictionary whose files do not say it."""

import re
from dataclasses import dataclass
from pathlib import Path

from stores.site import Site

_LAYER = re.compile(r"(?<![A-Za-z])(?:layers?|blocks?|h)[._-]?(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Stated:
    """hook_point: a hook point's name; of a transcoder READS--WRITES, of several hook points joined by +, as Site.name has
    them; {layer} in it is the layer that the path names. Empty: the files say it, or nobody knows. apply_b_dec_to_input:
    whether b_dec is subtracted from what is encoded. k: of a TopK dictionary.
    """

    hook_point: str = ""
    apply_b_dec_to_input: bool | None = None
    k: int | None = None

    def site(self, path: Path) -> Site | None:
        """None: nothing is stated. Raises ValueError: no name, or {layer} and a path that names none."""
        if not self.hook_point:
            return None
        text = self.hook_point
        if "{layer}" in text:
            parts = [path.stem if path.is_file() else path.name, *(p.name for p in path.parents)]
            layer = next((match[1] for part in parts if (match := _LAYER.search(part))), None)
            if layer is None:
                raise ValueError(f"no layer stands in the path, so {text} is no hook point")
            text = text.replace("{layer}", layer)
        reads, _, writes = text.partition("--")
        return Site(tuple(reads.split("+")), tuple((writes or reads).split("+")))
