"""One feature of a run, for the terminal."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import UserError
from pipeline.report.artefacts import Dictionary, read_run
from pipeline.report.examples import Example, examples_of, text_of, texts


@dataclass(frozen=True)
class OneFeature:
    """row: of features.parquet. promoted, suppressed: (token, what an activation of 1 adds to its logit). page: of its
    dictionary, at this feature."""

    place: str
    row: dict[str, Any]
    examples: list[Example]
    promoted: list[tuple[str, float]]
    suppressed: list[tuple[str, float]]
    page: str


def one_feature(run_folder: Path, dictionary: str, index: int) -> OneFeature:
    """dictionary: SITE/NAME, or NAME where one site alone has it. Raises UserError: there is no such dictionary or feature, or
    its features are not described."""
    run = read_run(run_folder)
    found = _named(run.dictionaries, dictionary, run_folder)
    if not found.described:
        raise UserError(
            f"the features of {found.place} are not described: run `unmix report` on the recipe of {run_folder}"
        )
    if not 0 <= index < found.row["d_sae"]:
        raise UserError(f"feature {index}: {found.place} has features 0 to {found.row['d_sae'] - 1}")
    tokens = {token: text_of(text) for token, text in run.tokens.items()}
    row = found.features().slice(index, 1).to_pylist()[0]
    contexts = found.contexts()
    own = np.flatnonzero(contexts["feature"].to_numpy() == index)
    examples = list(examples_of(contexts.take(own), tokens))
    promoted, suppressed = (
        list(zip(texts(row, f"{side}_tokens", tokens), row.get(f"{side}_logits") or [], strict=True))
        for side in ("promoted", "suppressed")
    )
    page = (run.report / found.place / "index.html").resolve().as_uri()
    return OneFeature(found.place, row, examples, promoted, suppressed, f"{page}#feature={index}")


def _named(dictionaries: list[Dictionary], name: str, run_folder: Path) -> Dictionary:
    found = [d for d in dictionaries if name in (d.place, d.row["name"])]
    if len(found) == 1:
        return found[0]
    places = ", ".join(d.place for d in (found or dictionaries))
    problem = "several dictionaries are" if found else "no dictionary is"
    raise UserError(f"{problem} called {name} in {run_folder}: name one of {places}")
