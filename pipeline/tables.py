"""Tables in the terminal."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.plus_minus import difference_cells
from pipeline.report.cells import TITLES, ablations, group_cells, number
from pipeline.report.one import OneFeature
from pipeline.train.described import Described, Key
from stores.manifest import read_json

_LISTED = 20  # indices of features, at most


def show_scores(path: Path) -> None:
    """path: of scores.json. A table per site, one of the pairs that say how stable features are, and one of what was
    spliced in all at once."""
    scores = read_json(path)
    for site in dict.fromkeys(row["site"] for row in scores["dictionaries"]):
        rows = [row for row in scores["dictionaries"] if row["site"] == site]
        groups, compared = ([row for row in scores[key] if row["site"] == site] for key in ("groups", "comparisons"))
        _show_groups(site, rows, groups, compared)
        _show_margins([row for row in compared if row["relation"] == "control"], groups)
        _show_by_hook_point(rows)
        controls = {name for group in groups if group["control"] for name in group["names"]}
        _show_pairs([pair for pair in scores["pairs"] if pair["site"] == site and pair["a"] not in controls])
    for site in dict.fromkeys(row["site"] for row in scores["sets"]):
        _show_sets([row for row in scores["sets"] if row["site"] == site])
    if missing := scores["missing"]:
        print(f"! {len(missing)} more have no scores yet: {', '.join(missing[:3])}{', …' * (len(missing) > 3)}")
    print(f"all scores, and MMCS between methods: {path}; pictures: {path.parent}/*/*.png")


def _show_groups(site: str, rows: list[dict], groups: list[dict], compared: list[dict]) -> None:
    """A line per group of seeds."""
    columns, table, notes = group_cells(rows, groups, compared)
    _table(f"{site}, {rows[0]['n_rows']:,} held-out rows{ablations(rows[0])}", columns, table)
    for note in notes:
        print(note)
    for row in rows:
        for line in row["warnings"]:
            print(f"! {row['name']}, at the end of training: {line}")


def _show_margins(margins: list[dict], groups: list[dict]) -> None:
    """Of the groups that have controls: by how much they are better than the best one, and which one that is."""
    kinds = {g["name"]: " ".join(dict.fromkeys([g["method"], g["control"] or ""])) for g in groups}
    names = list(dict.fromkeys(row["a"] for row in margins))
    cells = {
        (row["a"], row["score"]): f"{'~' * (not row['apart'])}{row['difference']:+.3f} {kinds[row['b']]}"
        for row in margins
    }
    titles = {key: title for key, title in TITLES.items() if any(score == key for _, score in cells)}
    if titles:
        table = [[name, *(cells.get((name, key), "") for key in titles)] for name in names]
        _table("Better than the best control by (~: no difference is shown)", ["dictionary", *titles.values()], table)


def _show_by_hook_point(rows: list[dict]) -> None:
    """Of a site where several hook points are written: what each one gets."""
    writes = rows[0]["writes"]
    if len(writes) > 1:
        columns = {
            "FVU": "fvu",
            "CE score (zero)": "ce_score_zero",
            "KL": "kl",
            "top-1": "top1",
            "share of norm": "share",
        }
        shown = {title: key for title, key in columns.items() if f"{key}[{writes[0]}]" in rows[0]}
        table = [
            [row["name"], h, *(number(row, f"{key}[{h}]") for key in shown.values())] for row in rows for h in writes
        ]
        _table("By hook point, each alone", ["dictionary", "hook point", *shown], table, n_left=2)


def _show_pairs(pairs: list[dict]) -> None:
    table = [
        [
            p["a"],
            p["b"],
            p["relation"],
            number(p, "mmcs"),
            number(p, "random_floor"),
            f"{p['fraction_above_0.9']:.0%}",
        ]
        for p in pairs
        if p["relation"] in ("seed", "larger", "foreign")
    ]
    if table:
        columns = ["a", "b", "relation", "MMCS", "random floor", "above .9"]
        _table("MMCS of a's features in b's", columns, table, n_left=3)


def _show_sets(rows: list[dict]) -> None:
    """Of one site, all that several transcoders write."""
    columns = ["dictionaries", "mean FVU", "CE", "CE score (zero)", "(mean)", "KL", "top-1", "KL with errors"]
    table = [
        [row["name"], number(row, "fvu"), number(row, "ce"), number(row, "ce_score_zero"),
         number(row, "ce_score_mean"), number(row, "kl"), number(row, "top1"), number(row, "kl_with_errors", 6)]
        for row in rows
    ]  # fmt: skip
    title = f"{rows[0]['site']}, all {len(rows[0]['sites'])} spliced in at once{ablations(rows[0])}"
    _table(title, columns, table)


def show_comparison(found: dict) -> None:
    """What score.comparison.compare found: both dictionaries, both ways, what is alike and what is without its like."""
    columns = ["", "dictionary", "site", "architecture", "d_sae", "compared", "L0", "FVU"]
    sides = [
        [name.upper(), s["path"], s["site"], s["architecture"], str(s["d_sae"]), str(s["n_compared"]),
         number(s, "l0", 1), number(s, "fvu")]
        for name, s in (("a", found["a"]), ("b", found["b"]))
    ]  # fmt: skip
    _table("", columns, sides, n_left=4)
    ways = {"A in B": found["a_in_b"], "B in A": found["b_in_a"]}
    table = [
        [name, number(w, "mmcs"), number(w, "random_floor"), f"{w['fraction_above_0.9']:.1%}",
         number(found, "matched_cosine"), str(len(w["without"]))]
        for name, w in ways.items()
    ]  # fmt: skip
    what = "|cosine|" if found["signed"] else "cosine"
    _table(
        f"Of each feature the largest {what} with one of the other dictionary",
        ["", "MMCS", "random floor", "above .9", "matched cosine", "without (below .5)"],
        table,
    )
    if rows := [[TITLES.get(key, key), *difference_cells(one)] for key, one in found["over_seeds"].items()]:
        title = "Over their seeds (MMCS: with each other; ~: no difference is shown)"
        _table(title, ["", "A", "B", "A is better by", "95%"], rows)
    if found["warning"]:
        _text(f"! {found['warning']}\n")
    alike = found["a_in_b"]["most_alike"]
    rows = [[str(one["feature"]), str(one["nearest"]), number(one, "cosine", 4)] for one in alike]
    _table(f"The {len(rows)} most alike", ["feature of A", "of B", what], rows, n_left=0)
    without = found["a_in_b"]["without"]
    listed = ", ".join(map(str, without[:_LISTED])) + ", … (all: --json)" * (len(without) > _LISTED)
    _text(f"{len(without)} features of A without one in B{': ' * bool(without)}{listed}")


def show_comparisons(found: list[dict]) -> None:
    """A line for each of several pairs, the most alike first."""
    found = sorted(found, key=lambda one: -one["matched_cosine"])
    table = [
        [one["a"]["path"], one["b"]["path"], *(number(one[way], "mmcs") for way in ("a_in_b", "b_in_a")),
         number(one["a_in_b"], "random_floor"), f"{one['a_in_b']['fraction_above_0.9']:.1%}", number(one, "matched_cosine")]
        for one in found
    ]  # fmt: skip
    columns = ["A", "B", "MMCS, A in B", "B in A", "random floor", "above .9", "matched cosine"]
    _table(f"{len(found)} pairs", columns, table, n_left=2)
    for warning in dict.fromkeys(one["warning"] for one in found if one["warning"]):
        _text(f"! {warning}")


def show_methods(methods: Sequence[Described]) -> None:
    """A line per method."""
    _table("", ["method", "what it is"], [[m.name, _what(m)] for m in methods], n_left=2, fold=True)
    _text("`unmix methods NAME` tells what its table in a recipe, [train.NAME], can hold.")


def show_method(method: Described) -> None:
    """A table of the keys of each class of settings, the method's own first."""
    _text(f"{method.name}: {_what(method)}\n", "bold")
    every = [key for keys in method.keys for key in keys.keys]
    names, defaults = (max(map(len, texts), default=0) for texts in ([k.name for k in every], map(_default, every)))
    for keys in method.keys:
        title = keys.of if keys.what in ("", method.what) else f"{keys.of}: {keys.what}"
        rows = [[key.name.ljust(names), _default(key).ljust(defaults), key.meaning] for key in keys.keys]
        _table(title, ["key", "default", "meaning"], rows, n_left=3, fold=True)
    _text(
        "Where no default stands, the meaning says what holds. hook_points, or reads and writes, say where a dictionary is "
        "made. A list of values makes one for each. Of a family controls = true makes its controls, too."
    )


def _what(method: Described) -> str:
    return f"{method.what} From {method.origin}." if method.origin else method.what


def _default(key: Key) -> str:
    """As a recipe writes it; nothing for what the meaning tells."""
    if key.default is None:
        return "required" if key.required else ""
    return f"{key.default:_}" if type(key.default) is int else json.dumps(key.default, ensure_ascii=False)


def show_feature(feature: OneFeature, n_each: int = 6) -> None:
    """What is known of it, and n_each contexts of each group; tokens shaded by strength, the one that is meant in « »."""
    row, number = feature.row, lambda name: f"{row[name]:.3g}"
    _text(f"{feature.place}, feature {row['feature']}", "bold")
    _text(
        f"density {number('density')}, active on {row['n_active']:,} held-out rows, largest activation {number('max')}"
    )
    for name, scores in (("label", ("f1", "auroc")), ("rule", ("precision", "recall", "f1", "share"))):
        if row.get(name):
            said = ", ".join(
                f"{score} {row[f'{name}_{score}']:.2f}" for score in scores if row[f"{name}_{score}"] is not None
            )
            _text(f"{name}: {row[name]} ({said})")
    for name, tokens in (("promotes", feature.promoted), ("suppresses", feature.suppressed)):
        if tokens:
            _text(f"{name}: {'  '.join(f'{token!r} {by:+.3f}' for token, by in tokens)}")
    for name, others in (("neighbours", "cosines"), ("cofiring", "phi")):
        if found := row.get(name):
            values = row[f"{name.removesuffix('s')}_{others}"]
            _text(f"{name}: {', '.join(f'{i} ({v:.2f})' for i, v in zip(found, values, strict=True))}")
    largest = max((abs(example.value) for example in feature.examples), default=1.0)
    for group in sorted({example.group for example in feature.examples}):
        _text("\nlargest activations" if group == 0 else f"\nsampled, group {group}", "italic")
        for example in [e for e in feature.examples if e.group == group][:n_each]:
            line = Text(f"{example.value:8.3g}  ")
            for i, (token, value) in enumerate(zip(example.tokens, example.activations, strict=True)):
                shown = token.replace("\n", "↵").replace("\t", "→")
                shown = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in shown)
                shade = f"black on rgb(255,{255 - round(110 * abs(value) / largest)},{255 - round(200 * abs(value) / largest)})"
                line.append(f"«{shown}»" if i == example.peak else shown, shade if value else None)
            _console().print(line, soft_wrap=True)
    print(f"\n{feature.page}")


def _table(title: str, columns: list[str], rows: list[list[str]], n_left: int = 1, fold: bool = False) -> None:
    """The first n_left columns are text, the others numbers. fold: the last one takes several lines where the terminal is
    narrow, so that the others stay whole."""
    if title:
        _text(title, "italic")  # a table's own title wraps at its width
    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, column in enumerate(columns):
        table.add_column(
            column, justify="left" if i < n_left else "right", no_wrap=not (fold and i == len(columns) - 1)
        )
    for row in rows:
        table.add_row(*map(Text, row))  # a text in brackets is no markup
    console = _console()
    console.print(table)
    console.print()


def _console() -> Console:
    return Console() if sys.stdout.isatty() else Console(width=400)


def _text(text: str, style: str | None = None) -> None:
    """Wrapped at the terminal's width; one line elsewhere."""
    _console().print(text, style=style, soft_wrap=not sys.stdout.isatty(), highlight=False, markup=False)
