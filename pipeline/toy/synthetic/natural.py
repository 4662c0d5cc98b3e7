"""Features that a trained encoder put into superposition, beside features in random directions.

The encoder is that of a toy model of superposition: it is trained to keep rare one-hot features in d dimensions (Elhage et
al. 2022). The random ones are as many, as long and active in the same rows; only their directions are drawn.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from pipeline.toy.superposition.experiment import Task, train
from pipeline.toy.synthetic.beginnings import source_of
from pipeline.toy.synthetic.coefficients import pca, recovered
from pipeline.train.learner import FamilyLearner
from pipeline.train.methods import METHODS
from pipeline.train.stack import Stack
from stores.dictionary import FeatureDictionary
from stores.manifest import seed_of

KINDS = ("trained", "random")
KEPT = 0.5  # the length from which a feature counts as kept by the encoder
_SHOWN = 64  # features of which the picture is
_N_HELD = 4096

# Settings that recover most of G random features in d dimensions in so many steps, 2 active in a row, measured
CHOSEN_AT = {"G": 64, "d": 16, "n_steps": 1000}
FAMILIES: dict[str, dict[str, Any]] = {
    "topk": {"lr": 5e-3},
    "batch_topk": {"lr": 5e-3},
    "matryoshka": {"lr": 5e-3, "n_prefixes": 2},
    "relu_l1": {"l1_coefficient": 3.0, "lr": 1e-2},
    "tied": {"l1_coefficient": 1.5, "lr": 1e-2},
    "gated": {"l1_coefficient": 5.0, "lr": 1e-2},
    "p_anneal": {"l1_coefficient": 2.5, "lr": 1e-2},
    "jumprelu": {"l0_coefficient": 2.0, "lr": 1e-2, "threshold": 0.12, "bandwidth": 0.12},
}
BY_K = ("topk", "batch_topk", "matryoshka")  # families that are told how many features are active


def learn(name: str, settings: dict[str, Any], x: Tensor, n_steps: int, batch_size: int) -> list[FeatureDictionary]:
    """A dictionary of one family for each of n sets of rows x (n, n_rows, d), trained side by side, by the train stage's
    own step."""
    method = METHODS[name]
    assert method.learner is not None
    made = [
        method.learner(method.config(**{**settings, "seed": i}), source_of(own, own), "cpu") for i, own in enumerate(x)
    ]
    learners = [own for own in made if isinstance(own, FamilyLearner)]
    stack = Stack(learners)
    generator = torch.Generator().manual_seed(seed_of("natural rows", name))
    for step in range(n_steps):
        batch = x[:, torch.randint(0, x.shape[1], (batch_size,), generator=generator)]
        stack.step(batch, step, n_steps)
    with torch.no_grad():
        return [own.to_dictionary({}) for own in learners]


def interference(F: Tensor) -> dict[str, Any]:
    """F (G, d) unit rows. nearest: mean over features of the largest |cosine| with another; positive: of the largest
    cosine; total: mean over features of the sum of squared cosines with the others; matrix: of the first features, in an
    order that puts those that interfere beside each other."""
    from scipy.cluster.hierarchy import leaves_list, linkage

    cosine = F @ F.T - torch.eye(len(F))
    first = F[:_SHOWN].double()
    order = leaves_list(linkage((first * first[:, :1].sign()).numpy(), "average"))
    return {
        "nearest": float(cosine.abs().amax(1).mean()),
        "positive": float(cosine.amax(1).mean()),
        "total": float(cosine.square().sum(1).mean()),
        "matrix": (first @ first.T)[order][:, order].numpy().round(2).tolist(),
    }


def natural(
    ratio: int, d: int, k: float, n_seeds: int, encoder_steps: int, families: tuple[str, ...], n_steps: int, n_rows: int
) -> dict[str, Any]:
    """ratio · d features in d dimensions, k active on average: what each of the families, and PCA, recovers of both kinds."""
    G = ratio * d
    task = Task(G, d, torch.full((n_seeds, 1), k / G))
    trained = train(task, encoder_steps, 512, seed_of("natural", ratio)).W.mT.contiguous()  # (n_seeds, G, d)
    lengths = trained.norm(dim=-1, keepdim=True)
    generator = torch.Generator().manual_seed(seed_of("natural data", ratio))
    drawn = lengths * normalize(torch.randn(n_seeds, G, d, generator=generator), dim=-1)
    codes = task.sample(n_rows + _N_HELD, generator)
    F = {"trained": trained, "random": drawn}
    x = {kind: codes @ F[kind] for kind in KINDS}
    rows = torch.cat([x[kind][:, :n_rows] for kind in KINDS])
    dictionaries = {}
    for name in families:
        settings = {"d_sae": G, **FAMILIES.get(name, {})} | ({"k": max(1, round(k))} if name in BY_K else {})
        dictionaries[name] = learn(name, settings, rows, n_steps, 128)
    dictionaries["pca"] = [pca(own) for own in rows]
    found: dict[str, Any] = {}
    for i, kind in enumerate(KINDS):
        by_family: dict[str, list] = {}
        shapes = []
        for seed in range(n_seeds):
            keep = lengths[seed, :, 0] > KEPT
            truth = normalize(F[kind][seed][keep], dim=-1)
            shapes.append(interference(truth))
            held = x[kind][seed, n_rows:]
            strengths = (codes[seed, n_rows:] * lengths[seed, :, 0])[:, keep]
            for name, own in dictionaries.items():
                result = recovered(own[i * n_seeds + seed], truth, held, strengths)
                by_family.setdefault(name, []).append({k: v for k, v in result.items() if k != "mcs"})
        found[kind] = {
            "families": by_family,
            **{key: [shape[key] for shape in shapes] for key in ("nearest", "positive", "total")},
            "matrix": shapes[0]["matrix"],
        }
    return {
        "ratio": ratio,
        "d": d,
        "G": G,
        "k": k,
        "n_steps": n_steps,
        "kept": [int((own > KEPT).sum()) for own in lengths],
        **found,
    }
