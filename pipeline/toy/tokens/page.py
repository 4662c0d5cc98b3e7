"""The page of the eight tokens."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.toy import pictures
from pipeline.toy.findings import mean, rate
from pipeline.toy.page import Page, Section, Table
from pipeline.toy.tokens import binary
from pipeline.toy.tokens.eight import ALL, NAMES, ON, READINGS, TOKENS
from pipeline.toy.tokens.experiment import NO_PENALTY, PENALTY, UNTRAINED

_COLUMNS = (*READINGS, ALL)


def page(numbers: Mapping[str, Any]) -> Page:
    grids = [found for name, found in numbers.items() if name.startswith("grid_")]
    return Page(
        "Eight tokens",
        "An autoencoder small enough to look at whole is trained on eight tokens, and its latents are read: this one is "
        "'pets', "
        "that one is 'robots'. Here the same autoencoder is trained from many seeds, with and without its penalty, and "
        "looked "
        "at before training too.\n\nThe second part has tokens that are sums of known features.",
        [
            _source_section(numbers["source"]),
            _rates_section(numbers["source"]),
            _grid_section(grids),
            _variants_section(numbers),
            *_binary_sections(numbers["unit_norms"], numbers["free_norms"]),
        ],
    )


def _source_section(found: dict[str, Any]) -> Section:
    data = Table(["token", "x₁", "x₂", "x₃", "x₄"], [[name, *map(float, values)] for name, values in TOKENS.items()])
    return Section(
        "The source's tokens and autoencoder",
        "Linear(4, d) and ReLU, Linear(d, 4), begun as torch begins them; mean squared error + w · mean |code|; Adam at "
        "a rate of "
        "1e-3. The source's text speaks of three dimensions and of an energetic dog; its code has four dimensions and a "
        "loyal "
        "dog, as here. It states neither w nor the steps, nor how many latents it drew; it speaks of 20 in an example. "
        f"Drawn: {found['d_sae']} latents, w = {found['w']:g}, {found['n_steps']} steps.\n\n"
        "A cell is z · |W_dec|, what a latent adds to a token's reconstruction. The runs are those at the median and at the "
        "quartiles of the final loss. The latents of the median run are ordered from those on the pets to those on the "
        "robots; "
        "the latents of the other runs stand where the latent that they match does (the pairing of greatest summed cosine "
        "over tokens). The last map is trained without the penalty, from the beginning of the median run.",
        [data],
        {"maps": (_source_maps(found["maps"]), "Latents by tokens; the number: mean cosine with the median run's latents.")},
    )  # fmt: skip


def _source_maps(maps: Sequence[Mapping[str, Any]]) -> Any:
    figure, axes = pictures.axes(2, 2, 10, 5.2)
    top = max(float(np.max(one["map"])) for one in maps)
    for axis, one in zip(axes.flat, maps, strict=True):
        values = np.array(one["map"])
        axis.imshow(values, vmin=0, vmax=top, cmap="viridis", aspect="auto")
        axis.set_xticks(range(0, values.shape[1], 5))
        axis.set_yticks(range(len(NAMES)), NAMES)
        axis.set(title=f"{one['run']} (seed {one['seed']}), {one['cosine']:.2f}", xlabel="latent")
    figure.colorbar(axes.flat[0].images[0], ax=axes, label="z · |W_dec|")
    return figure


def _rates_section(found: dict[str, Any]) -> Section:
    runs = {"before training": UNTRAINED, "trained, w = 0": NO_PENALTY, f"trained, w = {found['w']:g}": PENALTY}
    n = len(found[PENALTY][ALL])
    shares = [
        [f"above {share} of its largest"] + [str(rate(counts[name], n)) for name in _COLUMNS]
        for share, counts in found["share"].items()
    ]
    agreed = [
        [name, *(str(mean(found["agreement"][key][kind], "pairs")) for kind in ("pairs", "shuffled"))]
        for name, key in runs.items()
        if key in found["agreement"]
    ]
    return Section(
        f"How often each reading appears, {n} seeds",
        f"A latent is on for a token where it is above {ON:.0%} of its largest value; one whose largest contribution is "
        "below 1% of "
        "the autoencoder's largest is not live. A run has the reading 'pets' when some latent is on for the four pets "
        "and for "
        "no other token, and so on. 'Named' is the share of live latents that show one of the three readings; 'sets' counts "
        "the different sets of tokens that latents are on for. A wide layer of random weights has many latents, and each has "
        "a chance to split the tokens in one of these ways: the first row is what the beginnings show.\n\n"
        "The second table has other bounds for 'on', with the penalty. The third: runs in pairs, no run in two of them; the "
        "latents of the second run are matched with those of the first, and the mean cosine over tokens is that of the pairs "
        "of latents in which the first run's is live. Codes that are on for many tokens have larger cosines by chance: beside "
        "it, the same with the tokens of each latent of the second run shuffled.",
        [_readings_table({name: found[key] for name, key in runs.items()}), Table(["a latent is on", *_COLUMNS], shares),
         Table(["mean cosine of two runs", "as they are", "shuffled"], agreed)],
    )  # fmt: skip


def _readings_table(rows: Mapping[str, Mapping[str, Any]]) -> Table:
    return Table(
        ["", *_COLUMNS, "named", "live", "sets", "on per token", "squared error"],
        [
            [name, *(str(rate(sum(r[c]), len(r[c]))) for c in _COLUMNS)]
            + [float(np.mean(r[key])) for key in ("named", "live", "sets", "l0", "error")]
            for name, r in rows.items()
        ],
    )


def _grid_section(grids: Sequence[Mapping[str, Any]]) -> Section:
    figure, axes = pictures.axes(len(_COLUMNS), len(grids), 10, 2.1 * len(_COLUMNS))
    axes = np.asarray(axes).reshape(len(_COLUMNS), len(grids))
    for j, grid in enumerate(grids):
        steps, ws = list(grid["cells"]), list(next(iter(grid["cells"].values())))
        for i, name in enumerate(_COLUMNS):
            values = [[grid["cells"][step][w][name] / grid["n"] for w in ws] for step in steps]
            pictures.heat(axes[i][j], values, steps, [w.replace("0.", ".") for w in ws], low=0, high=1)
            axes[i][j].set_title(f"{name}: {grid['d_sae']} latents")
        axes[-1][j].set_xlabel("w")
    for row in axes:
        row[0].set_ylabel("steps")
    figure.colorbar(axes[0][0].images[0], ax=axes, label="share of runs", shrink=0.5)
    rows = [
        [f"{grid['d_sae']} latents, {step} steps, w = {w}", *(cell[name] / grid["n"] for name in _COLUMNS)]
        + [cell[key] for key in ("named", "live", "error")]
        for grid in grids
        for step, row in list(grid["cells"].items())[-1:]
        for w, cell in row.items()
    ]
    again = [
        [f"{grid['d_sae']} latents, {cell['steps']} steps, w = {cell['w']:g}"]
        + [str(rate(cell[key], grid["n"])) for key in ("chosen_by", "count")]
        for grid in grids
        if (cell := grid["again"])
    ]
    return Section(
        f"The whole grid, {grids[0]['n']} seeds a cell",
        "Penalty, steps and number of latents, since the source states none of them. The row of 0 steps is the "
        "beginning. The first table has the last row of each grid. The second: the cell of each grid, trained and with a "
        "penalty, that has all three most often, as it is "
        "there and from other seeds. A largest of many counts is above its rate by chance.",
        [
            Table(["", *_COLUMNS, "named", "live", "squared error"], rows),
            Table(["all three", "in the grid", "from other seeds"], again),
        ],
        {"grid": (figure, "Share of runs with each reading.")},
    )


def _variants_section(numbers: Mapping[str, Any]) -> Section:
    source = numbers["source"]
    rows = {"as above": source[PENALTY], **numbers["variants"], **numbers["relu_l1"], **numbers["topk"]}
    return Section(
        "Other autoencoders",
        "The source's autoencoder with decoder rows made unit again after each step, and with draws around the eight tokens "
        "instead of these alone. Then two families of the train stage, their own classes, from their own beginnings: inputs "
        "less their mean, encoder and decoder in the same directions. Untrained: these beginnings. The readings are of the "
        "eight tokens each time.",
        [_readings_table(rows)],
    )


def _binary_sections(unit: Mapping[str, Any], free: Mapping[str, Any]) -> list[Section]:
    measures = {
        "live latents": "live",
        "… along one feature": "latents_feature",
        "… along a whole token": "latents_token",
        "… along neither": "latents_neither",
        "active latents a token": "l0",
        "squared error, of 1": "error",
        "mean active code": "mean_code",
        "mean length of a live decoder row": "decoder_norm",
    }
    summary = [
        ["different readings", str(unit["n_readings"]), str(free["n_readings"])],
        ["share of the commonest", f"{unit['commonest'][0][0]:.1%}", f"{free['commonest'][0][0]:.1%}"],
        ["seeds that find the four features, and only them"]
        + [str(rate(sum(f["only_features"]), f["n_seeds"])) for f in (unit, free)],
        *([name, str(mean(unit[key])), str(mean(free[key]))] for name, key in measures.items()),
    ]
    tokens = [[name, *values] for name, values in binary.TOKENS.items()]
    return [
        Section(
            "Tokens that are sums of features",
            "Each token is a row of four numbers, a 1 where it has the feature. The penalty is on Σ z. Where two features "
            "are "
            "active, one latent along their sum costs √2 and a latent for each costs 2. A column that is on for 'happy cat' "
            "alone is a token, not a feature. Rows: tokens; columns: latents; the colour is z · |W_dec|. The latents of all "
            "maps "
            "stand where the latents of the first that they match do.",
            [Table(["token", *binary.FEATURES], tokens)],
            {"binary_maps": (_binary_maps(unit["maps"], free["maps"]), "Four seeds each: unit rows above, free ones below.")},
        ),
        Section(
            f"{unit['n_seeds']} seeds of these",
            "A reading is the list of the token sets that the latents are on for (above 0.1). Along: cosine above .95.",
            [
                Table(["", "unit rows", "free rows"], summary),
                Table(
                    ["share of seeds, unit rows", "latents, by the tokens that they are on for"],
                    [[f"{share:.1%}", " | ".join(latents)] for share, latents in unit["commonest"]],
                ),
            ],
        ),
    ]  # fmt: skip


def _binary_maps(unit: Sequence[Any], free: Sequence[Any]) -> Any:
    names = list(binary.TOKENS)
    figure, axes = pictures.axes(2, len(unit), 10, 5.2)
    axes = np.asarray(axes).reshape(2, len(unit))
    top = max(float(np.max(unit)), float(np.max(free)))
    for row, maps, label in zip(axes, (unit, free), ("unit", "free"), strict=True):
        for j, (axis, values) in enumerate(zip(row, maps, strict=True)):
            axis.imshow(np.array(values), vmin=0, vmax=top, cmap="viridis", aspect="auto")
            axis.set_yticks(range(len(names)), names if j == 0 else [""] * len(names))
            axis.set(title=f"{label} rows, seed {j}", xlabel="latent")
    figure.colorbar(axes.flat[0].images[0], ax=axes, label="z · |W_dec|")
    return figure
