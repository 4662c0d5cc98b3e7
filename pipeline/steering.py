"""The command that changes features while a run's own model writes: steer."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.command import Debug, guarded
from pipeline.config import UserError

if TYPE_CHECKING:
    from pipeline.steered import Change, Moved, Steered

steering = typer.Typer()

_MOST_SHOWN = 32  # tokens of a prompt; of a longer one those on which a feature is active


@steering.command()
def steer(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder with trained dictionaries.")],
    dictionary: Annotated[str, typer.Argument(metavar="DICTIONARY", help="SITE/NAME, or NAME.")],
    features: Annotated[
        list[str], typer.Argument(metavar="INDEX[=VALUE]...", help="Features; VALUE: a strength of its own.")
    ],
    prompt: Annotated[str, typer.Option("--prompt", help="The text that is continued.")],
    clamp: Annotated[
        float | None,
        typer.Option("--clamp", help="The activation, times the largest on held-out text; the default: 1."),
    ] = None,
    scale: Annotated[float | None, typer.Option("--scale", help="Multiply the activation.")] = None,
    add: Annotated[
        float | None, typer.Option("--add", help="Add to the activation, times the largest on held-out text.")
    ] = None,
    ablate: Annotated[bool, typer.Option("--ablate", help="The same as --clamp 0.")] = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="--clamp and --add are in units of the activations themselves.")
    ] = False,
    positions: Annotated[
        str | None,
        typer.Option(
            "--positions",
            metavar="3:10",
            help="Of the tokens, 0 is BOS; by default all that the dictionary was trained on.",
        ),
    ] = None,
    tokens: Annotated[int, typer.Option("--tokens", min=0, help="How many more tokens are written.")] = 40,
    temperature: Annotated[
        float, typer.Option("--temperature", min=0, help="0: the most probable token each time.")
    ] = 0.0,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**63 - 1, help="Of what is drawn at a temperature.")] = 0,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda or auto.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="All that is found as JSON.")] = False,
    debug: Debug = False,
) -> None:
    """Change features while the model writes: its text with and without, and what becomes of the next token.

    What the dictionary does not reconstruct stays, so that nothing but the features is changed.
    """

    def work() -> None:
        from pipeline.stages import limit_threads
        from pipeline.steered import Kind, Sampling, asked
        from pipeline.steered import steer as found_of
        from pipeline.torchrun import choose_device

        given: dict[Kind, float | None] = {
            "clamp": 0.0 if ablate and clamp is None else clamp,
            "scale": scale,
            "add": add,
        }
        kinds: list[Kind] = [kind for kind, value in given.items() if value is not None] or ["clamp"]
        if len(kinds) > 1 or (ablate and clamp is not None):
            raise UserError("give one of --clamp, --scale, --add and --ablate")
        strength = given[kinds[0]]
        wanted = asked(features, None if ablate else 1.0 if strength is None else strength)
        limit_threads()
        sampling = Sampling(tokens, temperature, seed)
        on = choose_device(device)
        found = found_of(run, dictionary, wanted, kinds[0], raw, prompt, positions, sampling, on)
        if as_json:
            print(json.dumps(found.as_json(), indent=2, ensure_ascii=False))
        else:
            _show(found)

    guarded(debug, work)


def _show(found: "Steered") -> None:
    print(found.place)
    for change in found.changes:
        print(_said(change))
    print(f"at positions {found.positions}, where 0 is BOS\n")
    _show_prompt(found)
    _show_next(found)
    for title, text in (("without", found.without), ("with", found.with_)):
        print(f"\n{f'-- {title} '.ljust(min(80, shutil.get_terminal_size().columns), '-')}")
        print(_plain(f"{found.prompt}{text}", lines=True))


def _said(change: "Change") -> str:
    largest = "" if change.largest is None else f"{'' if change.exact else 'about '}{change.largest:.3g}"
    known = f"; its largest activation on held-out text is {largest}" * bool(largest)
    what = {
        "clamp": f"set to {change.value:.3g}" if change.value else "ablated",
        "scale": f"multiplied by {change.value:g}",
        "add": f"{change.value:+.3g} added",
    }[change.kind]
    return f"feature {change.feature}: {what}{known}"


def _show_prompt(found: "Steered") -> None:
    """Its tokens, and how strong each feature is on them."""
    rows = [
        [str(i), _quoted(token), *(f"{z[i]:.3g}" if z[i] else "" for z in found.activations.values())]
        for i, token in enumerate(found.tokens)
    ]
    if len(rows) > _MOST_SHOWN:
        rows = [row for row in rows if any(row[2:])]
        print(f"{len(rows)} of the prompt's {len(found.tokens)} tokens have an active feature:")
    else:
        print("the prompt, and the activations on it:")
    if rows:
        _show_rows(["", "token", *(f"feature {feature}" for feature in found.activations)], rows, 2)


def _show_next(found: "Steered") -> None:
    print(f"\nthe next token: KL divergence {found.kl:.3g} nats; log-probabilities, of probabilities of .001 or more:")
    cells = lambda one: [_quoted(one.token), f"{one.without:.2f}", f"{one.with_:.2f}", f"{_by(one):+.2f}"]  # noqa: E731
    _show_rows(["token", "without", "with", ""], [cells(one) for one in (*found.raised, *found.lowered[::-1])], 1)


def _by(one: "Moved") -> float:
    return one.with_ - one.without


def _show_rows(titles: list[str], rows: list[list[str]], n_left: int) -> None:
    """The first n_left columns are text, the others numbers."""
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    for row in [titles, *rows]:
        cells = [
            cell.ljust(width) if i < n_left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print(f"  {'  '.join(cells)}".rstrip())


def _quoted(token: str) -> str:
    return f"'{_plain(token)}'"


def _plain(text: str, lines: bool = False) -> str:
    """What a terminal would obey is spelt out. lines: but for the ends of lines."""
    shown = text if lines else text.replace("\n", "↵").replace("\t", "→")
    return "".join(c if c.isprintable() or (lines and c in "\n\t") else f"\\x{ord(c):02x}" for c in shown)
