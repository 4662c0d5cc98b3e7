"""The model card of a run's dictionaries: README.md of what is published, by provenance and scores alone."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pipeline.report.artefacts import Run
from pipeline.report.cells import ablations, group_cells
from pipeline.report.overview import overview
from pipeline.unit_files import json_object
from stores.manifest import canonical
from stores.model_card import for_saelens, head, kind, loading, public, sizes
from stores.spec import DENSE, Spec

REPO = "OWNER/NAME"  # in the place of a repository that is not known yet
_MEANS = {  # title of a column → of scores.json's documentation
    "L0": "l0",
    "FVU": "fvu",
    "CE score (zero)": "ce_score_zero, ce_score_mean",
    "KL": "ce_clean, ce, kl",
    "top-1": "top1",
    "dead": "dead",
    "rare": "ultra_low_density",
    "MMCS": "pairs: mmcs",
    "FVU at L0": "fvu_at_l0_K",  # K follows
}
_TITLES = {
    "frontier": "Reconstruction against sparsity",
    "histograms": "Firing densities and activation values",
    "mmcs": "Maximal cosine similarities",
    "layers": "At which hook points features write",
}
_PLURAL = {"basis": "bases", "pair of bases": "pairs of bases"}
Row = dict[str, Any]


@dataclass(frozen=True)
class Published:
    """A dictionary of a run. place: SITE/NAME. rows: of scores.json; of two bases there are two."""

    place: str
    folder: Path
    spec: Spec
    rows: Sequence[Row]
    digest: str


def card(
    run: Run, dictionaries: Sequence[Published], pictures: Sequence[str], others: Sequence[str], license: str
) -> str:
    """Markdown. pictures: paths in the folder, pictures/SITE/KIND.png. others: lines of what lies there besides."""
    specs = [one.spec for one in dictionaries]
    provenances = [public(spec.provenance) for spec in specs]
    recipe = _joined(p.get("recipe") for p in provenances) or run.folder.resolve().name
    model = _joined(p.get("model") for p in provenances if p.get("model") != "none") or "own rows"
    text = _text_of(run, provenances)
    datasets = [text["dataset"]] if text.get("source") == "hub" else []
    shown = next((one for one in dictionaries if for_saelens(one.spec)), dictionaries[0])
    parts = [
        head(specs, license, datasets),
        f"# {recipe}: feature dictionaries of {model}\n",
        f"{_counted(specs)}, made and scored by unmix {_joined(p.get('unmix') for p in provenances)}.\n",
        *_facts(run, specs, provenances),
        f"\n## Load\n\n{loading(shown.spec, REPO, shown.place).rstrip()}",
        "\n## Dictionaries\n",
        _table(["folder", "what it is", "sizes", "in SAELens"], [_line(one) for one in dictionaries]),
        "\n## Scores",
        *_scores(run, dictionaries, pictures),
        *_said(run, _sites(dictionaries)),
        "\n## Settings\n",
        *_settings(provenances),
        "\nEach `provenance.json` has all settings of its dictionary, its seed, and digests of the model and of the rows.",
        "\n## Files\n",
        *(f"- {line}" for line in others),
    ]
    return "\n".join(parts).rstrip() + "\n"


def _counted(specs: Sequence[Spec]) -> str:
    """3 sparse autoencoders, 1 transcoder"""
    counts = Counter(map(kind, specs))
    return ", ".join(f"{n} {what if n == 1 else _PLURAL.get(what, f'{what}s')}" for what, n in counts.items())


def _text_of(run: Run, provenances: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The settings of the text, where the run has extracted the rows that its dictionaries were learned on."""
    plan = _extracted(run, provenances).get("settings")
    found = plan.get("text") if isinstance(plan, dict) else None
    return found if isinstance(found, dict) else {}


def _extracted(run: Run, provenances: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The manifest of the run's own store; empty: there is none, or the dictionaries were learned on another."""
    found = json_object(run.folder / "extract" / "manifest.json") or {}
    own = (found.get("headline") or {}).get("digest")
    return found if own and {p.get("store_digest") for p in provenances} == {own} else {}


def _facts(run: Run, specs: Sequence[Spec], provenances: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    model = [
        f"{p.get('model', 'unknown')}"
        + (f", commit {p['model_revision']}" if p.get("model_revision") else "")
        + (f", digest {p['model_digest'][:12]}" if p.get("model_digest") else "")
        + {"none": ", weights as they are", "folded": ", weights folded as TransformerLens folds them"}.get(
            p.get("weight_processing", ""), ""
        )
        for p in provenances
    ]
    yield f"- Model: {_joined(model)}"
    points = sorted({h for spec in specs for h in (*spec.site.reads, *spec.site.writes)})
    yield f"- Hook points: {', '.join(f'`{h}`' for h in points)}"
    manifest = _extracted(run, provenances)
    if text := _joined(p.get("text") for p in provenances if p.get("text") != "none"):
        rows = (manifest.get("headline") or {}).get("n_rows")
        context = (manifest.get("settings") or {}).get("context")
        more = f"; {rows:,} tokens in contexts of {context}" if rows and context else ""
        yield f"- Text: {text}{more}"
    learned = [
        p["settings"]
        for p, s in zip(provenances, specs, strict=True)
        if s.architecture not in DENSE and "settings" in p
    ]
    if tokens := sorted({s["n_tokens"] for s in learned if s.get("n_tokens")}):
        batches = sorted({s["batch_size"] for s in learned if s.get("batch_size")})
        yield (f"- Sparse dictionaries were trained on {_numbers(tokens)} tokens, in batches of {_numbers(batches)}")
    yield "- Input: raw activations. All scaling is folded into the weights"


def _numbers(values: Iterable[int]) -> str:
    return " or ".join(f"{value:,}" for value in values)


def _joined(values: Iterable[Any]) -> str:
    return "; ".join(dict.fromkeys(str(value) for value in values if value))


def _line(one: Published) -> list[str]:
    return [f"`{one.place}`", kind(one.spec), sizes(one.spec), "yes" if for_saelens(one.spec) else "no"]


def _scores(run: Run, dictionaries: Sequence[Published], pictures: Sequence[str]) -> Iterator[str]:
    """A table for each site, with the groups of seeds that one of the dictionaries is of; and what its columns mean."""
    titles: list[str] = []
    for site in _sites(dictionaries):
        rows, all_groups, compared = (
            [row for row in run.scores.get(key, []) if row["site"] == site]
            for key in ("dictionaries", "groups", "comparisons")
        )
        names = {row["name"] for one in dictionaries for row in one.rows if row["site"] == site}
        groups = [group for group in all_groups if names & set(group["names"])]
        columns, lines, notes = group_cells(rows, groups, compared)
        used = [i for i in range(len(columns)) if any(line[i] for line in lines)]
        titles += [columns[i] for i in used]
        yield f"\n### {site}\n"
        yield f"{rows[0]['n_rows']:,} held-out rows{ablations(rows[0])}. n: seeds that are scored.\n"
        yield _table([columns[i] for i in used], [[line[i] for i in used] for line in lines], n_left=1)
        yield from (f"\n{note}." for note in notes)
        warned = [(row["name"], line) for row in rows if row["name"] in names for line in row["warnings"]]
        yield from (f"\n**! {name}, at the end of training:** {line}" for name, line in warned)
        for picture in (Path(path) for path in pictures if Path(path).parts[1] == site):
            yield f"\n![{_TITLES.get(picture.stem, picture.stem)}]({quote(picture.as_posix())})"
    yield "\nWhat the columns mean:\n"
    documented = run.scores.get("documentation", {})
    for title, key in _MEANS.items():
        if key in documented and any(one.startswith(title) for one in titles):
            yield f"- {title}: {documented[key]}"


def _sites(dictionaries: Sequence[Published]) -> list[str]:
    return list(dict.fromkeys(row["site"] for one in dictionaries for row in one.rows))


def _said(run: Run, sites: Sequence[str]) -> Iterator[str]:
    """What the report's index says first, of these sites."""
    found = [one for one in overview(run)["conclusions"] if one["site"] in sites]
    for what, title in (("doubt", "Doubts"), ("finding", "Findings")):
        if lines := [f"- {one['site']}: {one['text']}" for one in found if one["kind"] == what]:
            yield f"\n## {title}\n"
            yield from lines


def _settings(provenances: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A line for each method: each setting with its values."""
    methods: dict[str, list[dict[str, Any]]] = {}
    for p in provenances:
        method = str(p.get("method"))
        own = (p.get("settings") or {}).get(method)
        if isinstance(own, dict):
            methods.setdefault(method, []).append(own)
    for method, settings in methods.items():
        names = dict.fromkeys(name for one in settings for name in one)
        cells = [(name, list(dict.fromkeys(canonical(one.get(name)).decode() for one in settings))) for name in names]
        said = ", ".join(f"{name} {' or '.join(values)}" for name, values in cells if values != ["null"])
        yield f"- `{method}`: {said}"


def _table(columns: Sequence[str], lines: Sequence[Sequence[str]], n_left: int = 4) -> str:
    rule = ["---" if i < n_left else "---:" for i in range(len(columns))]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in (columns, rule, *lines)
    )
