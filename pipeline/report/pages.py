"""The pages of a run: an index, and one for each dictionary whose features are described.

They open from disk. Every page is the same few files of assets/; what it shows are scripts beside it, in data/. What the
pages draw is SVG of their own: a plot needs some ten lines, and no library of 4.8 MB goes with each report.
"""

from importlib import resources
from pathlib import Path
from typing import Any

from pipeline import stopping
from pipeline.report.artefacts import Dictionary, Run, read_run
from pipeline.report.columns import encoded, script
from pipeline.report.overview import finite, overview
from pipeline.report.parts import PART, listed, parts
from pipeline.score.histograms import bin_edges
from stores.manifest import commit_bytes

_SHARED = ("report.css", "columns.js", "common.js", "plots.js", "index.js", "list.js", "view.js", "dictionary.js")


def write_report(run_folder: Path) -> Path:
    """runs/RUN/report/index.html and SITE/NAME/index.html for each dictionary with features.parquet; what they show, beside
    them in data/. Returns the path of the first.

    Raises UserError: the run is not scored, or one of its files is damaged.
    """
    run = read_run(run_folder)
    for name in _SHARED:
        _put(run.report / "assets" / name, _asset(name))
    _put(run.report / "data" / "tokens.js", script("tokens", _tokens(run)))
    for dictionary in run.dictionaries:
        if dictionary.described:
            stopping.look("all is described, and the pages before this one are written")
            _write_dictionary(run, dictionary)
    _put(run.report / "data" / "index.js", script("index", overview(run)))
    _put(run.report / "index.html", _asset("index.html"))
    return run.report / "index.html"


def _write_dictionary(run: Run, dictionary: Dictionary) -> None:
    features, contexts, data = dictionary.features(), dictionary.contexts(), run.report / dictionary.place / "data"
    n_parts = 0
    for part in parts(features, contexts):
        _put(data / f"part-{n_parts}.js", script(f"part-{n_parts}", part))
        n_parts += 1
    for left in data.glob("part-*.js"):  # of a report with more features
        if int(left.stem.removeprefix("part-")) >= n_parts:
            left.unlink(missing_ok=True)  # another report may be at it, too
    _put(data / "features.js", script("features", _about(run, dictionary) | {"columns": listed(features, contexts)}))
    _put(run.report / dictionary.place / "index.html", _asset("dictionary.html"))


def _about(run: Run, dictionary: Dictionary) -> dict[str, Any]:
    """pages: the dictionaries of the site that have a page. spread: standard deviations over the dictionary's seeds."""
    site, name = dictionary.row["site"], dictionary.row["name"]
    groups = [g for g in run.scores.get("groups", []) if g["site"] == site and name in g["names"]]
    return {
        "run": run.folder.resolve().name,
        "row": finite(dictionary.row),
        "spread": {score: found["std"] for g in groups for score, found in g.get("scores", {}).items()},
        "documentation": run.scores.get("documentation", {}),
        "part": PART,
        "edges": [float(edge) for edge in bin_edges()],
        "pages": [d.row["name"] for d in run.dictionaries if d.row["site"] == site and d.described],
    }


def _tokens(run: Run) -> dict[str, Any]:
    import pyarrow as pa

    return {"ids": encoded(pa.array(list(run.tokens), pa.int64())), "texts": list(run.tokens.values())}


def _asset(name: str) -> bytes:
    return (resources.files("pipeline.report") / "assets" / name).read_bytes()


def _put(path: Path, data: bytes) -> None:
    """Write a file, unless it is there with these bytes."""
    if not path.exists() or path.read_bytes() != data:
        commit_bytes(path, data)
