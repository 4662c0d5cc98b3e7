"""A layer that is known to be in superposition: which of our methods find its features?

The discussion of Baker 2022 asks for a hand-constructed layer in superposition whose features are known, to see whether
there is a robust way to disentangle it. Here is one, and its control, a layer of orthogonal features; two features in one
dimension; and when superposition pays at all. There are no transcoders in this project yet: dictionaries are of the input.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from pipeline.config import Config
from pipeline.toy.known_layer import dictionaries, exclusive, rotations, sharing
from pipeline.toy.known_layer.layer import orthogonal, superposed

Probability = Annotated[float, Field(gt=0, le=1)]
Width = Annotated[int, Field(ge=2)]


class Settings(Config):
    """n features in d dimensions, each active with probability p; n_seeds: layers that rotations are fitted to, with
    n_inputs Jacobians each; dictionary_seeds: layers that dictionaries of d_sae latents are trained on.

    offset: N of the two exclusive features; exclusive_d_sae: latents of their dictionaries. shared_p, shared_steps: of two
    features in one dimension; kept_m, kept_p: of n features in m dimensions. almost_d: dimensions of random directions.
    """

    n: int = Field(default=20, ge=3)
    d: int = Field(default=8, ge=2)
    p: Probability = 0.03
    n_seeds: int = Field(default=100, ge=2)
    n_inputs: int = Field(default=256, ge=2)
    n_iterations: int = Field(default=25, ge=1)
    n_polish: int = Field(default=60, ge=0)
    dictionary_seeds: int = Field(default=50, ge=2)
    d_sae: int = Field(default=40, ge=2)
    n_steps: int = Field(default=1000, ge=1)
    batch_size: int = Field(default=128, ge=1)
    offset: float = Field(default=6.0, gt=0)
    exclusive_d_sae: tuple[Width, ...] = Field(default=(2, 8), min_length=1)
    exclusive_seeds: int = Field(default=100, ge=2)
    exclusive_steps: int = Field(default=500, ge=1)
    rule_rows: int = Field(default=1_000_000, ge=1000)
    shared_p: tuple[Probability, ...] = Field(default=(1.0, 0.7, 0.5, 0.3, 0.1, 0.05, 0.01), min_length=2)
    shared_seeds: int = Field(default=150, ge=2)
    shared_steps: int = Field(default=800, ge=1)
    kept_m: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(4, 8, 16), min_length=2)
    kept_p: tuple[Probability, ...] = Field(default=(1.0, 0.3, 0.1, 0.03), min_length=2)
    kept_seeds: int = Field(default=10, ge=2)
    kept_steps: int = Field(default=600, ge=1)
    almost_d: tuple[Width, ...] = Field(default=(8, 16, 24, 32, 48, 64), min_length=4)
    almost_seeds: int = Field(default=100, ge=2)

    @model_validator(mode="after")
    def _superposed(self) -> "Settings":
        if self.n <= self.d:
            raise ValueError(f"n = {self.n} features fit into d = {self.d} dimensions: superposition takes more")
        if sharing.P not in self.shared_p:
            raise ValueError(f"shared_p {self.shared_p} lacks {sharing.P}, the probability of the source's example")
        return self


QUICK: dict[str, Any] = {
    "n_seeds": 3, "n_inputs": 64, "n_iterations": 10, "n_polish": 15, "dictionary_seeds": 3, "n_steps": 100,
    "exclusive_d_sae": (8,), "exclusive_seeds": 6, "exclusive_steps": 50, "rule_rows": 50_000,
    "shared_p": (1.0, 0.3, 0.05), "shared_seeds": 8, "shared_steps": 200, "kept_m": (4, 16), "kept_seeds": 2,
    "kept_steps": 80, "almost_d": (8, 16, 24, 32), "almost_seeds": 10,
}  # fmt: skip


def in_superposition(s: Settings) -> dict[str, Any]:
    """Rotations of n features in d dimensions."""
    return rotations.compare(superposed(s.n_seeds, s.n, s.d, s.p), s.n_inputs, s.n_iterations, s.n_polish)


def control(s: Settings) -> dict[str, Any]:
    """The same of d orthogonal features, as often active together: a basis of features exists."""
    layers = orthogonal(s.n_seeds, s.d, min(1.0, s.p * s.n / s.d))
    return rotations.compare(layers, s.n_inputs, s.n_iterations, s.n_polish)


def learned(s: Settings, family: str) -> dict[str, Any]:
    """Dictionaries of the layers' inputs."""
    layers = superposed(s.dictionary_seeds, s.n, s.d, s.p)
    return dictionaries.compare(layers, family, s.d_sae, s.n_steps, s.batch_size)


def one_dimension(s: Settings) -> dict[str, Any]:
    """Two exclusive features in one number: the rule, and the methods."""
    return {
        "rule": exclusive.hand_made(s.offset, s.rule_rows),
        "methods": exclusive.methods(s.offset, s.exclusive_d_sae, s.exclusive_seeds, s.exclusive_steps, s.batch_size),
    }


def shared(s: Settings) -> dict[str, Any]:
    """The arithmetic of sharing, closed forms, and layers that are trained."""
    return {
        "arithmetic": sharing.arithmetic(s.rule_rows),
        "sweep": sharing.sweep(s.shared_p, s.shared_seeds, s.shared_steps, s.rule_rows),
        "kept": sharing.kept(s.n, s.kept_m, s.kept_p, s.kept_seeds, s.kept_steps),
        "kept_of_more": sharing.kept(2 * s.n, (min(s.kept_m),), s.kept_p, s.kept_seeds, s.kept_steps),
        "almost": sharing.almost_orthogonal(s.almost_d, s.almost_seeds),
    }


def inputs(settings: Settings) -> dict[str, Any]:
    return {}


def parts(settings: Settings, folder: Path) -> dict[str, Callable[[], dict[str, Any]]]:
    learning = {family: partial(learned, settings, family) for family in dictionaries.FAMILIES}
    others = (in_superposition, control, one_dimension, shared)
    return {**{part.__name__: partial(part, settings) for part in others}, **learning}
