"""Do networks find ground and shape as qualities of their own, and does that help on a ground never seen?

A net is trained on pictures with red or blue grounds and circles or triangles, to name one of the four kinds (the source's
figure 2), and shown purple grounds (figure 3). Beside it: a look-up table of pixels, a net that memorises random labels, a net
that was not trained. "The layer" is the last hidden one.
"""

from typing import Any

import torch
from torch import Tensor

from pipeline.toy.networks import Networks
from pipeline.toy.representations import shapes
from pipeline.toy.representations.reading import Probe, aucs, looked_up
from pipeline.toy.representations.shapes import SEEN, Pictures
from stores.manifest import seed_of

WIDTHS = (48, 48)
KINDS = ("red", "blue", "circle", "triangle")


def pictures(n_seeds: int, n: int) -> tuple[Pictures, Pictures, Pictures]:
    """Known, new with the same grounds, new with a purple ground."""
    generator = torch.Generator().manual_seed(seed_of("pictures"))
    known, new = (shapes.draw(n_seeds, n, SEEN, generator) for _ in range(2))
    return known, new, shapes.draw(n_seeds, n, ("purple",), generator)


def best_units(layer: Tensor, found: Pictures) -> tuple[Tensor, Tensor]:
    """For each kind of KINDS the unit that tells it best, and its AUC: (n_seeds, 4) each. layer (n_seeds, n, d)."""
    blue, triangle = aucs(layer, found.blue), aucs(layer, found.triangle)
    best = torch.stack([1 - blue, blue, 1 - triangle, triangle], dim=1).max(-1)
    return best.indices, best.values


def interaction(layer: Tensor, classes: Tensor) -> Tensor:
    """Share of the variance between the four kinds' means that is no sum of a part of the ground and one of the shape.

    With means m_rc, m_rt, m_bc, m_bt and the contrasts ground, shape, interaction = m_rc ± m_rt ± m_bc ± m_bt:
    |interaction|² over the sum of all three. (n_seeds,)
    """
    means = torch.stack([torch.stack([h[c == k].mean(0) for k in range(4)]) for h, c in zip(layer, classes)])
    contrasts = torch.tensor([[1.0, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]])
    size = (contrasts @ means).square().sum(-1)
    return size[:, 2] / size.sum(1).clamp_min(1e-12)


def first_component(curve: Tensor) -> Tensor:
    """Share of the variance along a curve that lies on its first principal component: (n_seeds, n, d) → (n_seeds,)."""
    singular = torch.linalg.svdvals(curve - curve.mean(1, keepdim=True)).square()
    return singular[:, 0] / singular.sum(1).clamp_min(1e-12)


def _in_between(layer: Tensor, unseen: Tensor, best: Tensor, found: Pictures) -> Tensor:
    """How strongly the best units for red and for blue answer to purple: 0 as to the other colour, 1 as to their own.

    (n_seeds, 2)"""
    answers = []
    for column, own in ((0, ~found.blue), (1, found.blue)):
        unit = best[:, column, None, None]
        h, purple = (
            layer.gather(2, unit.expand(-1, layer.shape[1], 1))[..., 0],
            unseen.gather(2, unit.expand(-1, unseen.shape[1], 1))[..., 0].mean(1),
        )
        on = (h * own).sum(1) / own.sum(1)
        off = (h * ~own).sum(1) / (~own).sum(1)
        answers.append((purple - off) / (on - off).clamp_min(1e-12))
    return torch.stack(answers, dim=1)


@torch.no_grad()
def measured(networks: Networks, known: Pictures, new: Pictures, purple: Pictures) -> dict[str, Any]:
    """What a probe reads in the layer, fitted on the known pictures: its accuracy for each net."""
    h, h_new, h_purple = (networks.layers(p.x)[-2] for p in (known, new, purple))
    shape, ground = Probe(h, known.triangle), Probe(h, known.blue)
    return {
        "shape_new": shape.accuracy(h_new, new.triangle).tolist(),
        "shape_purple": shape.accuracy(h_purple, purple.triangle).tolist(),
        "ground_new": ground.accuracy(h_new, new.blue).tolist(),
    }


def qualities(n_pictures: int, n_steps: int, n_seeds: int) -> dict[str, Any]:
    """Nets that were trained on the true labels, nets that were not trained, and the look-up table."""
    known, new, purple = pictures(n_seeds, n_pictures)
    networks = shapes.train(known, known.classes, WIDTHS, n_steps, seed_of("true labels"))
    generator = torch.Generator().manual_seed(seed_of("untrained"))
    untrained = Networks.drawn(n_seeds, (known.x.shape[-1], *WIDTHS, 4), generator)
    table = {name: looked_up(known.x, known.classes, p.x) for name, p in (("new", new), ("purple", purple))}
    with torch.no_grad():
        (_, layer, logits), (_, unseen, purple_logits) = networks.layers(new.x), networks.layers(purple.x)
        shades = shapes.shades(n_seeds, 13, generator)
        curve, curve_before = (net.layers(shades)[-2] for net in (networks, untrained))
        before = untrained.layers(new.x)[-2]
    (blue, triangle), (purple_blue, purple_triangle) = shapes.read(logits), shapes.read(purple_logits)
    unit, unit_auc = best_units(layer, new)
    return {
        "n_pictures": n_pictures,
        "examples": _bytes(torch.cat([known.x[0, :6], purple.x[0, :2]])),
        "fitted": _share(networks(known.x).argmax(-1) == known.classes),
        "net": {
            "shape_new": _share((triangle > 0.5) == new.triangle),
            "shape_purple": _share((purple_triangle > 0.5) == purple.triangle),
            "ground_new": _share((blue > 0.5) == new.blue),
        },
        "probe": measured(networks, known, new, purple),
        "untrained": measured(untrained, known, new, purple),
        "table": {
            "shape_new": _share((table["new"] % 2 == 1) == new.triangle),
            "shape_purple": _share((table["purple"] % 2 == 1) == purple.triangle),
            "ground_new": _share((table["new"] >= 2) == new.blue),
        },
        "unit_auc": {kind: unit_auc[:, i].tolist() for i, kind in enumerate(KINDS)},
        "distinct_units": [len(set(units)) for units in unit.tolist()],
        "purple_units": _in_between(layer, unseen, unit, new).tolist(),
        "purple_blue": purple_blue.mean(1).tolist(),
        "interaction": interaction(layer, new.classes).tolist(),
        "interaction_untrained": interaction(before, new.classes).tolist(),
        "shade_component": first_component(curve).tolist(),
        "shade_component_untrained": first_component(curve_before).tolist(),
    }


def memorised(n_pictures: int, n_steps: int, n_seeds: int) -> dict[str, Any]:
    """Nets of the same size and with the same pictures, that learn random labels.

    as_table: the share of new pictures that a net names as the nearest known picture is labelled; as_table_chance: what
    answers that are as frequent share when they do not depend on each other.
    """
    known, new, purple = pictures(n_seeds, n_pictures)
    labels = torch.randint(4, known.classes.shape, generator=torch.Generator().manual_seed(seed_of("random labels")))
    networks = shapes.train(known, labels, WIDTHS, n_steps, seed_of("random labels"))
    with torch.no_grad():
        fitted = _share(networks(known.x).argmax(-1) == labels)
        answers, table = networks(new.x).argmax(-1), looked_up(known.x, labels, new.x)
    return {
        "fitted": fitted,
        "as_table": _share(answers == table),
        "as_table_chance": by_chance(answers, table).tolist(),
        "probe": measured(networks, known, new, purple),
    }


def by_chance(a: Tensor, b: Tensor) -> Tensor:
    """How often answers as frequent as a and b, (n_seeds, n) of four kinds each, agree by chance: (n_seeds,)."""
    a, b = (torch.nn.functional.one_hot(x, 4).double().mean(1) for x in (a, b))
    return (a * b).sum(1)


def _bytes(x: Tensor) -> list:
    """Pictures as they are drawn: (n, SIZE, SIZE, 3) in 0 … 255."""
    painted = (x + 0.25).view(-1, 3, shapes.SIZE, shapes.SIZE).permute(0, 2, 3, 1)
    return (255 * painted).round().int().tolist()


def _share(right: Tensor) -> list[float]:
    return right.double().mean(1).tolist()
