"""How small networks represent simple functions: x < 10, min(a, b), parity. By hand, and as training finds them.

Source: "How Tiny Neural Networks Represent Basic Functions", 2024.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import Field

from pipeline.config import Config
from pipeline.toy.functions import minimum, parity, square, threshold


class Settings(Config):
    """*_steps: of training; *_seeds: networks trained at once. variant_seeds: in each of the other settings of a network.
    minimum_epochs: over 1,000 pairs. parity_bits: up to 2^bits integers by hand; random_chains: networks of n ReLUs whose
    pieces are counted, for each n."""

    threshold_steps: int = Field(default=300_000, ge=100)
    adam_steps: int = Field(default=5000, ge=100)
    minimum_epochs: int = Field(default=300, ge=1)
    minimum_seeds: int = Field(default=200, ge=1)
    square_steps: int = Field(default=4000, ge=1)
    parity_steps: int = Field(default=3000, ge=1)
    parity_seeds: int = Field(default=200, ge=1)
    parity_bits: int = Field(default=10, ge=2, le=16)
    random_chains: int = Field(default=300, ge=1)
    variant_seeds: int = Field(default=100, ge=1)


QUICK: dict[str, Any] = {
    "threshold_steps": 20_000, "adam_steps": 1000, "minimum_epochs": 30, "minimum_seeds": 20, "square_steps": 1000,
    "parity_steps": 200, "parity_seeds": 20, "parity_bits": 6, "random_chains": 20, "variant_seeds": 10,
}  # fmt: skip


def inputs(settings: Settings) -> dict[str, Any]:
    return {}


def parts(settings: Settings, folder: Path) -> dict[str, Callable[[], dict[str, Any]]]:
    s = settings
    epochs, seeds, variants = s.minimum_epochs, s.minimum_seeds, s.variant_seeds
    return {
        "minimum_decay": lambda: minimum.variants(minimum.DECAYS, variants, epochs),
        "minimum_width": lambda: minimum.variants(minimum.WIDTHS, variants, epochs),
        "minimum_rate": lambda: minimum.variants(minimum.RATES, variants, epochs),
        "minimum": lambda: minimum.source_net(seeds, epochs),
        "parity_wide": lambda: parity.trained("wide", variants, s.parity_steps),
        "parity_learning": lambda: parity.trained("learning", variants, s.parity_steps),
        "parity_source": lambda: parity.trained("source", s.parity_seeds, s.parity_steps),
        "parity": lambda: parity.by_hand(s.parity_bits, s.random_chains),
        "square": lambda: square.measure(variants, s.square_steps),
        "threshold": lambda: threshold.measure(s.threshold_steps, s.adam_steps),
    }
