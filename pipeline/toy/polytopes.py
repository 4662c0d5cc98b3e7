"""The polytope lens: a ReLU network is affine on each polytope of its input space, and the polytopes carry meaning.

    spline code s_l = 1[W_l a + b_l > 0];   on the polytope of a code the network is x → A x + c,
    A = W_L diag(s_{L-1}) W_{L-1} … diag(s_1) W_1

Source: Black et al. 2022, "Interpreting Neural Networks through the Polytope Lens".
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.config import Config, UserError
from pipeline.extract.language_model import ModelFiles
from pipeline.recipe import ExtractConfig, PositionsConfig, Recipe, TextConfig, TrainConfig
from pipeline.score.downstream import evaluate
from pipeline.stages import Run, run_extract
from stores.activations import ActivationStore
from stores.description import Description
from stores.manifest import seed_of
from stores.writer import StoreWriter

SKIP_FIRST, N_POSITIONS = 100, 6  # as in the source: 6 of 1,024 tokens a sequence, none of the first 100


class Settings(Config):
    """widths: of the digits net's hidden layers. store: activations to be clustered, of hook_point; by default the toy
    extracts them from model. factors: that activations are scaled by. min_cluster_size, min_samples: HDBSCAN's."""

    widths: tuple[int, ...] = (64, 64, 64)
    train_steps: int = Field(default=600, ge=1)
    n_paths: int = Field(default=300, ge=1)
    path_points: int = Field(default=400, ge=2)
    slice_side: int = Field(default=200, ge=2)
    model: str = "demo"
    store: str | None = None
    hook_point: str = "blocks.1.mlp.hook_post"
    n_sequences: int = Field(default=500, ge=2)
    min_cluster_size: int = Field(default=8, ge=2)
    min_samples: int = Field(default=2, ge=1)
    factors: tuple[float, ...] = (0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 4.0, 10.0)
    validity_sequences: int = Field(default=4, ge=1)


QUICK: dict[str, Any] = {
    "train_steps": 150, "n_paths": 30, "path_points": 100, "slice_side": 60, "n_sequences": 60, "validity_sequences": 1,
    "factors": (0.5, 1.0, 2.0),
}  # fmt: skip


@dataclass(frozen=True)
class ReLUNet:
    """weights[l]: (d_l+1, d_l); biases[l]: (d_l+1). ReLU between the layers."""

    weights: list[Tensor]
    biases: list[Tensor]

    def __call__(self, x: Tensor) -> Tensor:
        """(n, d_in) → (n, d_out)"""
        return self.run(x)[0]

    def run(self, x: Tensor, factor: float = 1.0) -> tuple[Tensor, Tensor]:
        """Output and spline code (n, Σ hidden widths). factor: what the first hidden layer's activations are scaled by."""
        codes = []
        for i, (W, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = x @ W.T + b
            if i < len(self.weights) - 1:
                codes.append(x > 0)
                x = x.relu() * (factor if i == 0 else 1.0)
        return x, torch.cat(codes, dim=1)

    def affine(self, code: Tensor) -> tuple[Tensor, Tensor]:
        """code (Σ hidden widths) → A (d_out, d_in) and c (d_out): what the network is on that polytope, exactly."""
        A, c = self.weights[0], self.biases[0]
        for s, W, b in zip(
            code.to(A.dtype).split([len(W) for W in self.weights[:-1]]), self.weights[1:], self.biases[1:], strict=True
        ):
            A, c = W @ (s[:, None] * A), W @ (s * c) + b
        return A, c


def soft_code(h: Tensor) -> Tensor:
    """GPT-2's GELU as a gate: gelu(h) = h q, q = ½ (1 + tanh u), u = √(2/π) (h + 0.044715 h³). Not its slope."""
    return 0.5 * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (h + 0.044715 * h**3)))


def gelu_slope(h: Tensor) -> Tensor:
    """gelu'(h) = q + h q': what a small change of h is multiplied by; it leaves [0, 1]."""
    t = 2 * soft_code(h) - 1
    return 0.5 * (1 + t) + 0.5 * h * (1 - t**2) * (2 / torch.pi) ** 0.5 * (1 + 3 * 0.044715 * h**2)


def digits() -> tuple[Tensor, Tensor]:
    """scikit-learn's 1,797 digits: x (n, 64) in [0, 1] and labels, shuffled."""
    from sklearn.datasets import load_digits

    found = cast(Any, load_digits())
    order = np.random.default_rng(seed_of("digits")).permutation(len(found.target))
    x, y = found.data[order], found.target[order]
    return torch.from_numpy(x).float() / 16, torch.from_numpy(y).long()


def trained_net(settings: Settings, bias: bool = True) -> tuple[ReLUNet, float]:
    """A net that reads digits, and its accuracy on the 360 it has not seen."""
    x, y = digits()
    generator = torch.Generator().manual_seed(seed_of("digits net"))
    widths = (64, *settings.widths, 10)
    weights = [(torch.randn(b, a, generator=generator) * (2 / a) ** 0.5).requires_grad_() for a, b in pairwise(widths)]
    biases = [torch.zeros(b, requires_grad=bias) for b in widths[1:]]
    net = ReLUNet(weights, biases)
    optimiser = torch.optim.Adam([p for p in (*weights, *biases) if p.requires_grad], lr=1e-3, fused=True)
    for _ in range(settings.train_steps):
        batch = torch.randint(0, len(x) - 360, (256,), generator=generator)
        loss = nn.functional.cross_entropy(net(x[batch]), y[batch])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    net = ReLUNet([W.detach() for W in weights], [b.detach() for b in biases])
    return net, float((net(x[-360:]).argmax(1) == y[-360:]).double().mean())


def flips(net: ReLUNet, start: Tensor, stop: Tensor, n_points: int) -> Tensor:
    """Boundaries crossed on the straight paths from start to stop (n, d): (n, n_points - 1) code flips by step."""
    t = torch.linspace(0, 1, n_points)[:, None, None]
    x = start + t * (stop - start)
    code = net.run(x.flatten(0, 1))[1].view(n_points, len(start), -1)
    return (code[1:] != code[:-1]).sum(-1).T


def codes(settings: Settings) -> dict[str, Any]:
    """The affine map of every test digit's polytope, and a plane cut through three digits."""
    net, accuracy = trained_net(settings)
    x, y = digits()
    out, code = net.run(x[-360:])
    off = 0.0
    for row, value, s in zip(x[-360:], out, code, strict=True):
        A, c = net.affine(s)
        off = max(off, float((A @ row + c - value).abs().max()))
    a, b, c = (x[-360:][y[-360:] == digit][0] for digit in (0, 1, 7))
    side = settings.slice_side
    u, v = torch.meshgrid(torch.linspace(-0.3, 1.3, side), torch.linspace(-0.3, 1.3, side), indexing="xy")
    plane = a + u.flatten()[:, None] * (b - a) + v.flatten()[:, None] * (c - a)
    answer, sliced = net.run(plane)
    _, polytope = torch.unique(sliced, dim=0, return_inverse=True)
    return {
        "accuracy": accuracy,
        "greatest_error": off,
        "n_units": code.shape[1],
        "n_codes": len(torch.unique(code, dim=0)),
        "n_rows": len(code),
        "side": side,
        "polytopes": polytope.tolist(),
        "n_polytopes": int(polytope.max()) + 1,
        "answers": answer.argmax(1).tolist(),
    }


def density(settings: Settings) -> dict[str, Any]:
    """Boundaries crossed a unit of length: between digits of one class, of two classes, and outwards from the mean."""
    net, _ = trained_net(settings)
    x, y = digits()
    rng = np.random.default_rng(seed_of("paths"))
    found: dict[str, Any] = {}
    for name in ("within a class", "between classes"):
        pairs = []
        while len(pairs) < settings.n_paths:
            i, j = rng.choice(len(x), 2, replace=False)
            if bool(y[i] == y[j]) == (name == "within a class"):
                pairs.append((i, j))
        a, b = (x[[p[side] for p in pairs]] for side in (0, 1))
        crossed, length = flips(net, a, b, settings.path_points), (b - a).norm(dim=1)
        rate = crossed.sum(1) / length
        profile = crossed.double().view(len(pairs), -1)[:, : 20 * ((settings.path_points - 1) // 20)]
        profile = profile.view(len(pairs), 20, -1).sum(-1) * 20 / length[:, None]
        found[name] = {
            "density": float(rate.mean()),
            "standard_error": float(rate.std() / len(pairs) ** 0.5),
            "along": profile.mean(0).tolist(),
        }
    direction = nn.functional.normalize(x[: settings.n_paths] - x.mean(0), dim=1)
    radius = 4 * float((x - x.mean(0)).norm(dim=1).mean())
    crossed = flips(net, x.mean(0).expand_as(direction), x.mean(0) + radius * direction, settings.path_points)
    bins = np.array_split(crossed.double().mean(0).numpy(), 24)
    step = radius / (settings.path_points - 1)
    return {
        "paths": found,
        "radius": [radius * (i + 0.5) / 24 for i in range(24)],
        "radial": [float(b.mean() / step) for b in bins],
        "data_radius": radius / 4,
    }


def scaling(settings: Settings) -> dict[str, Any]:
    """The first hidden layer of the digits net scaled: how many later codes flip, and what becomes of the output."""
    rows = {}
    for name, bias in (("with biases", True), ("without biases", False)):
        net, accuracy = trained_net(settings, bias)
        x, y = digits()
        x, y = x[-360:], y[-360:]
        clean, code = net.run(x)
        log_p = clean.log_softmax(1)
        curve = []
        for factor in settings.factors:
            out, changed = net.run(x, factor)
            log_q = out.log_softmax(1)
            kl = float((log_p.exp() * (log_p - log_q)).sum(1).mean())
            right = float((out.argmax(1) == y).double().mean())
            curve.append([factor, float((changed != code).double().mean()), kl, right])
        rows[name] = {"accuracy": accuracy, "curve": curve}
    return rows


def gelu(settings: Settings) -> dict[str, Any]:
    """q and the slope of GPT-2's GELU, against torch's."""
    h = torch.linspace(-5, 5, 401, dtype=torch.double, requires_grad=True)
    value = nn.functional.gelu(h, approximate="tanh")
    (slope,) = torch.autograd.grad(value.sum(), h)
    with torch.no_grad():
        q, own = soft_code(h), gelu_slope(h)
        return {
            "h": h.tolist(),
            "q": q.tolist(),
            "slope": own.tolist(),
            "value_error": float((h * q - value).abs().max()),
            "slope_error": float((own - slope).abs().max()),
            "slope_range": [float(own.min()), float(own.max())],
        }


def sampled(description: Description) -> list[int]:
    """Places in the store's positions: N_POSITIONS of each sequence, evenly spaced, none of the first SKIP_FIRST; of
    those that there are, if there are fewer."""
    places = [i for i, position in enumerate(description.positions) if position >= SKIP_FIRST]
    places = places if len(places) >= N_POSITIONS else list(range(description.n_positions))
    return sorted({places[i] for i in np.linspace(0, len(places) - 1, min(N_POSITIONS, len(places))).astype(int)})


def open_store(settings: Settings, folder: Path) -> ActivationStore:
    """settings.store, or one extracted into the folder: from each sequence the source's six positions."""
    if settings.store:
        return ActivationStore.open(settings.store)
    context = min(1024, ModelFiles.find(settings.model).n_positions)
    recipe = Recipe(
        name="polytopes",
        extract=ExtractConfig(
            model=settings.model,
            hook_points=(settings.hook_point,),
            context=context,
            n_rows=settings.n_sequences * N_POSITIONS,
            positions=PositionsConfig(skip_first=min(SKIP_FIRST, context - N_POSITIONS), n_per_sequence=N_POSITIONS),
            text=TextConfig(split="all"),
            chunk_rows=300,
            dtype="float32",
        ),
        train=TrainConfig(n_tokens=1),
    )
    run_extract(Run(recipe, folder, "cpu"))
    return ActivationStore.open(folder / "extract" / "activations.zarr")


def language(settings: Settings, folder: Path) -> dict[str, Any]:
    """Clusters of a language model's activations, and what scaling its layers does to its output."""
    store = open_store(settings, folder)
    return {"clusters": clusters(settings, store), "validity": validity(settings, store)}


def clusters(settings: Settings, store: ActivationStore) -> dict[str, Any]:
    """HDBSCAN of the activations at six positions of each sequence."""
    from sklearn.cluster import HDBSCAN

    description, places = store.description, sampled(store.description)
    n = min(settings.n_sequences, description.n_sequences)
    rows = store.rows(settings.hook_point, 0, n * description.n_positions).astype(np.float32)
    x = rows.reshape(n, description.n_positions, -1)[:, places].reshape(n * len(places), -1)
    found = HDBSCAN(
        min_cluster_size=settings.min_cluster_size, min_samples=settings.min_samples, copy=cast(Any, True)
    ).fit(x)
    labels = found.labels_
    sizes = Counter(labels[labels >= 0].tolist())
    within, between = _distances(x, labels)
    tokens = store.tokens(0, n)
    texts = None if description.model == "none" else ModelFiles.of_store(description).tokenizer
    shown = []
    for label, size in sizes.most_common(12):
        members = np.nonzero(labels == label)[0]
        where = [(i // len(places), description.positions[places[i % len(places)]]) for i in members]
        current = Counter(int(tokens[s, p]) for s, p in where)
        token, count = current.most_common(1)[0]
        examples = [tokens[s, max(0, p - 7) : p + 1].tolist() for s, p in where[:3]]
        decode = (lambda ids: texts.decode(ids, skip_special_tokens=False)) if texts else str
        shown.append([size, decode([token]), count / size, [decode(e) for e in examples]])
    return {
        "hook_point": settings.hook_point,
        "positions": [description.positions[p] for p in places],
        "n_rows": len(x),
        "n_clusters": len(sizes),
        "noise": float((labels < 0).mean()),
        "within": within,
        "between": between,
        "largest": shown,
        "sizes": sorted(sizes.values(), reverse=True),
        "settings": {"min_cluster_size": settings.min_cluster_size, "min_samples": settings.min_samples},
    }


def _distances(x: np.ndarray, labels: np.ndarray) -> tuple[float | None, float | None]:
    """Mean distance of clustered rows to their own cluster's mean, and to that of the nearest other cluster."""
    names = sorted(set(labels.tolist()) - {-1})
    if len(names) < 2:
        return None, None
    centres = np.stack([x[labels == label].mean(0) for label in names])
    own = x[labels >= 0]
    distance = np.stack([np.linalg.norm(own - centre, axis=1) for centre in centres], axis=1)
    place = np.searchsorted(names, labels[labels >= 0])
    mine = distance[np.arange(len(own)), place].copy()
    distance[np.arange(len(own)), place] = np.inf
    return float(mine.mean()), float(distance.min(1).mean())


def validity(settings: Settings, store: ActivationStore) -> dict[str, Any] | None:
    """KL of the model's output when the activations of a layer are scaled; None when no model made the store."""
    description = store.description
    if description.model == "none":
        return None
    model = ModelFiles.of_store(description).load(description.weight_processing)
    tokens = store.tokens(0, min(settings.validity_sequences, description.n_sequences))
    positions = tuple(range(1, description.context))
    edits = {f"{factor:g}": partial(torch.mul, other=factor) for factor in settings.factors}
    rows = {}
    for layer in range(model.files.n_layers):
        for site in ("hook_resid_post", "mlp.hook_post"):
            found = evaluate(model, tokens, f"blocks.{layer}.{site}", positions, edits)
            rows[f"blocks.{layer}.{site}"] = [found[name].kl for name in edits]
    return {"model": description.model, "factors": list(settings.factors), "kl": rows, "n_tokens": int(tokens.size)}


def inputs(settings: Settings) -> dict[str, Any]:
    """Raises UserError: no such store, or one without the hook point; no such model, or a model without it."""
    if settings.store is None:
        files = ModelFiles.find(settings.model)
        files.d(settings.hook_point)
        return {"model_digest": files.weights_digest}
    if not StoreWriter.exists(settings.store):
        raise UserError(f"polytopes.store: no activation store at {settings.store}")
    store = ActivationStore.open(settings.store)
    if settings.hook_point not in store.hook_points:
        raise UserError(
            f"polytopes.hook_point: {settings.hook_point!r} is not in the store {settings.store}, which has "
            f"{', '.join(store.hook_points)}: set polytopes.hook_point to one of them"
        )
    return {"store_digest": store.digest}


def parts(settings: Settings, folder: Path) -> dict[str, Callable[[], dict[str, Any]]]:
    return {
        "language": lambda: language(settings, folder),
        **{part.__name__: partial(part, settings) for part in (codes, density, scaling, gelu)},
    }


def page(numbers: Mapping[str, Any]) -> Any:
    from pipeline.toy import polytopes_page

    return polytopes_page.page(numbers)
