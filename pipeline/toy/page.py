"""One self-contained HTML page per toy, and an index of them. The only importer of jinja2."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment

from pipeline.toy import pictures
from pipeline.toy.findings import VERDICTS, Finding
from stores.manifest import commit_bytes


@dataclass(frozen=True)
class Table:
    """rows of cells: text as it is, floats to 3 digits. The first column is text."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True)
class Section:
    """text: paragraphs parted by an empty line. figures: name of the file → picture and what it shows."""

    title: str
    text: str
    tables: Sequence[Table] = ()
    figures: Mapping[str, tuple[Any, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Page:
    """lead: what the toy is for, in a few sentences. What is found stands in the table of claims below it."""

    title: str
    lead: str
    sections: Sequence[Section]


_FRAME = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{{ title }} - unmix toy</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 980px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .3rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
p { max-width: 46rem; } .lead { font-size: 1.05rem; } nav, .foot, figcaption { color: #666; font-size: .88rem; }
table { border-collapse: collapse; font-size: .88rem; margin: .8rem 0; }
th, td { padding: .18rem .8rem .18rem 0; text-align: right; vertical-align: top; font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; } td.text, th.text { text-align: left; }
th { border-bottom: 1px solid #999; font-weight: 600; } tbody tr:nth-child(even) { background: #f6f6f6; }
.claims td { text-align: left; max-width: 24rem; padding-right: 1.2rem; } .claims li { margin: 0; }
.claims ul { margin: 0; padding-left: 1rem; } .verdict { font-weight: 600; white-space: nowrap; }
.confirmed { color: #00704f; } .refuted { color: #b04a00; } .partly { color: #8a6500; } .not-decided { color: #666; }
figure { margin: 1rem 0; } img { max-width: 100%; } a { color: #0072b2; }
</style></head><body>
{% if not index %}<nav><a href="../index.html">all toys</a></nav>{% endif %}
<h1>{{ title }}</h1>
{% for paragraph in lead.split("\\n\\n") %}<p class="lead">{{ paragraph }}</p>{% endfor %}
{% macro claimed() %}
{% if claims %}
<table class="claims"><thead><tr>
{% if index %}<th class="text">toy</th>{% endif %}
<th class="text">what the source says</th><th class="text">what is found here</th><th class="text">verdict</th></tr></thead>
<tbody>{% for claim in claims %}<tr>
{% if index %}<td><a href="{{ claim.toy }}/index.html">{{ claim.toy }}</a></td>{% endif %}
<td>{{ claim.says }}{% if claim.reported %} Reported: {{ claim.reported }}.{% endif %} <small>{{ claim.source }}</small></td>
<td><ul>{% for check in claim.checks %}<li>{{ check.text }}</li>{% endfor %}</ul></td>
<td class="verdict {{ claim.verdict.replace(" ", "-") }}">{{ claim.verdict }}</td>
</tr>{% endfor %}</tbody></table>
<p class="foot">In brackets: 95% intervals, and how many were measured. A claim is confirmed when all its checks are
seen, refuted when none is, partly when some are; otherwise it is not decided.</p>
{% endif %}
{% endmacro %}
{% if not index %}{{ claimed() }}{% endif %}
{% for section in sections %}
<h2>{{ section.title }}</h2>
{% for paragraph in section.text.split("\\n\\n") %}{% if paragraph %}<p>{{ paragraph }}</p>{% endif %}{% endfor %}
{% for name, src, caption in section.figures %}
<figure><img src="{{ src }}" alt="{{ caption }}"><figcaption>{{ caption }}</figcaption></figure>
{% endfor %}
{% for table in section.tables %}
<table><thead><tr>
{% for c in table.columns %}
<th{% if table.rows and table.rows[0][loop.index0] is string %} class="text"{% endif %}>{{ c }}</th>
{% endfor %}</tr></thead><tbody>
{% for row in table.rows %}<tr>{% for cell in row %}<td{% if cell is string %} class="text"{% endif %}>
{%- if cell is mapping %}<a href="{{ cell.href }}">{{ cell.text }}</a>{% else %}{{ cell | number }}{% endif %}</td>
{%- endfor %}</tr>
{% endfor %}</tbody></table>
{% endfor %}{% endfor %}
{% if index %}{{ claimed() }}{% endif %}
<p class="foot">{{ foot }}</p>
</body></html>
"""


def _number(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.1e}" if value and abs(value) < 1e-3 else f"{value:.3f}"
    return str(value)


def _environment() -> Environment:
    environment = Environment(autoescape=True, trim_blocks=True)
    environment.filters["number"] = _number
    return environment


def write(folder: Path, build: Callable[[], Page], findings: Sequence[Finding], foot: str) -> None:
    """index.html in the folder, with the findings and the pictures inside it, and each picture as a file beside it."""
    with pictures.style():
        page = build()
        sections = []
        for section in page.sections:
            drawn = []
            for name, (figure, caption) in section.figures.items():
                data = pictures.png(figure)
                commit_bytes(folder / f"{name}.png", data)
                drawn.append((name, pictures.data_uri(data), caption))
            sections.append({"title": section.title, "text": section.text, "tables": section.tables, "figures": drawn})
    _render(folder, page.title, page.lead, [finding.values() for finding in findings], sections, foot)


def write_index(folder: Path, toys: Mapping[str, str], found: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """index.html of all toys. toys: name → what it shows; found: the findings of those that were run."""
    table = Table(
        ["toy", "what it shows", *VERDICTS],
        [
            [{"href": f"{name}/index.html", "text": name}, text]
            + [sum(finding["verdict"] == verdict for finding in found[name]) for verdict in VERDICTS]
            if name in found
            else [name, f"{text} (not run yet)", *[None] * len(VERDICTS)]
            for name, text in toys.items()
        ],
    )
    section = {"title": "", "text": "", "tables": [table], "figures": []}
    lead = "Small models in which the truth is known. Each page puts what its sources say beside what a run finds."
    claims = [{**finding, "toy": name} for name in toys for finding in found.get(name, ())]
    _render(folder, "Toys", lead, claims, [section], "", index=True)


def _render(
    folder: Path,
    title: str,
    lead: str,
    claims: Sequence[Mapping[str, Any]],
    sections: Sequence[Mapping[str, Any]],
    foot: str,
    index: bool = False,
) -> None:
    html = (
        _environment()
        .from_string(_FRAME)
        .render(title=title, lead=lead, claims=claims, sections=sections, foot=foot, index=index)
    )
    commit_bytes(folder / "index.html", html.encode())
