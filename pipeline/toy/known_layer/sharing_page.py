"""The page's sections on when superposition pays, and on how many directions there are."""

from typing import Any

import numpy as np

from pipeline.toy import pictures
from pipeline.toy.findings import mean, rate, shown
from pipeline.toy.known_layer.sharing import ALMOST
from pipeline.toy.page import Section, Table


def sharing_section(found: dict[str, Any]) -> Section:
    sums, sweep, kept = found["arithmetic"], found["sweep"], found["kept"]
    figure, (left, right) = pictures.axes(1, 2, 10, 3.6)
    _losses(left, sweep)
    columns = [f"{p:g}" for p in kept["p"]]
    values = [np.mean(seeds, axis=1).tolist() for seeds in kept["kept"].values()]
    pictures.heat(right, values, list(kept["kept"]), columns, 1, 0, kept["n"])
    right.set(xlabel="p", ylabel="dimensions", title=f"features kept, of {kept['n']}")
    figure.colorbar(right.images[0], ax=right, label="mean over seeds")
    more = found["kept_of_more"]
    least = min(map(int, more["kept"]))
    further = ", ".join(
        f"{mean(seeds)} at p = {p:g}" for p, seeds in zip(more["p"], more["kept"][str(least)], strict=True)
    )
    p = sums["p"]
    rows = [
        [
            f"{p:g}", dedicated, pair, f"{shown(value)} ± {shown(1.96 * error)}", float(np.median(losses)), min(losses),
            str(rate(sum(ended), len(ended))),
        ]
        for p, dedicated, pair, (value, error), losses, ended in zip(
            sweep["p"], sweep["dedicated"], sweep["pair"], sweep["hand_made"], sweep["trained"], sweep["antipodal"]
        )
    ]  # fmt: skip
    apart = sweep["exclusive"]
    return Section(
        "When it pays that features share a dimension",
        f"A source's example has two features of probability {p:g} and says that both are present with a probability of "
        f"0.00025, and that the error rate of sharing a neuron is 0.025%. That is off by ten: {p:g}² = {p * p:g}, which is "
        f"{100 * p * p:g}%. Here it was {sums['both']} of {sums['n_rows']} draws, {sums['both'] / sums['n_rows']:.3%}; the "
        "hand-made layer below errs "
        f"on {sums['errs']} of them, {sums['errs'] / sums['n_rows']:.3%}, and where the two features exclude each other on "
        f"{sums['errs_exclusive']}.\n\n"
        "The layer of one dimension has h = x₁ - x₂ and gives back ReLU(h), ReLU(-h). Its loss, summed over both features, is "
        "p²/3 in closed form. A layer that keeps one feature alone has p/3 - p²/4; the two are equal at p = 4/7. Beside them: "
        "the hand-made layer on samples, and layers trained from random starts. "
        "An instance ends as a pair when both weights are above ½, of opposite "
        f"signs; with exclusive features at p = {apart['p']:g} it is "
        f"{rate(sum(apart['antipodal'][0]), len(apart['antipodal'][0]))}. Where both features are present, the loss of the "
        f"pairs trained on exclusive features is {mean(_of_pairs(apart, 'both'), 'pairs')}, where one is present "
        f"{mean(_of_pairs(apart, 'one'), 'pairs')}; to answer the mean of what is present has 1/6 and 1/12. Of "
        f"{more['n']} features in {least} dimensions, as in the right picture, the layers keep {further}. "
        "Model and closed forms: Elhage et al. 2022.",
        [
            Table(
                [
                    "p",
                    "one alone",
                    "pair",
                    "pair, sampled (± 95%)",
                    "trained, median",
                    "trained, best",
                    "end as a pair",
                ],
                rows,
            )
        ],
        {
            "sharing": (
                figure,
                "Left: loss against p; points are trained layers, blue where they end as a pair. Right: trained layers of "
                "more dimensions: Σ min(1, |Wᵢ|²), which is m for a projection on m dimensions.",
            )
        },
    )


def _of_pairs(found: dict[str, Any], key: str) -> list[float]:
    return [loss for loss, pair in zip(found[key][0], found["antipodal"][0], strict=True) if pair]


def _losses(axis: Any, sweep: dict[str, Any]) -> None:
    p = np.geomspace(min(sweep["p"]), max(sweep["p"]), 200)
    axis.plot(p, p / 3 - p**2 / 4, color=pictures.COLOURS[1], lw=1.2, label="one alone: p/3 - p²/4")
    axis.plot(p, p**2 / 3, color=pictures.COLOURS[2], lw=1.2, label="pair: p²/3")
    axis.axvline(4 / 7, color="#999999", lw=0.8, ls=":")
    rng = np.random.default_rng(0)
    for x, losses, ended in zip(sweep["p"], sweep["trained"], sweep["antipodal"], strict=True):
        colours = [pictures.COLOURS[0] if pair else pictures.COLOURS[6] for pair in ended]
        at = x * np.exp(rng.uniform(-0.06, 0.06, len(losses)))
        axis.scatter(at, np.maximum(losses, 1e-7), s=5, alpha=0.4, lw=0, color=colours)
    axis.set(xscale="log", yscale="log", xlabel="p, probability of a feature", ylabel="loss, summed over two features")
    axis.legend(frameon=False, loc="lower right")


def almost_section(found: dict[str, Any]) -> Section:
    figure, axis = pictures.axes(1, 1, 7, 2.8)
    drawn = np.array(found["drawn"], dtype=float)
    axis.plot(found["d"], found["theory"], color=pictures.COLOURS[1], lw=1.2, label="independent pairs, closed form")
    low, middle, high = np.percentile(drawn, [25, 50, 75], axis=1)
    bars = [middle - low, high - middle]
    axis.errorbar(found["d"], middle, bars, fmt="o", ms=4, color=pictures.COLOURS[0], label="drawn: median, quartiles")
    axis.set(yscale="log", xlabel="dimensions", ylabel="directions")
    axis.legend(frameon=False)
    rows = [
        [str(d), float(m), float(lo), float(hi), t]
        for d, m, lo, hi, t in zip(found["d"], middle, low, high, found["theory"], strict=True)
    ]
    return Section(
        "How many almost orthogonal directions there are",
        f"Random directions are drawn one after another until two of them have |cosine| > {ALMOST:g}; {drawn.shape[1]} times "
        "for each dimension. If pairs were independent, the median would solve n (n - 1)/2 · P(|cosine| > "
        f"{ALMOST:g}) = ln 2, where a squared cosine is Beta(½, (d - 1)/2). On this axis a straight line is exponential.",
        [Table(["dimensions", "median", "lower quartile", "upper quartile", "closed form"], rows)],
        {"almost": (figure, "Number of random directions before two are too near, by dimension.")},
    )
