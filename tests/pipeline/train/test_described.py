"""What `unmix methods` tells is whole and true."""

import re
from typing import Literal, get_args, get_origin

import pytest
from pydantic import Field

from pipeline.config import MethodConfig
from pipeline.train.described import described
from pipeline.train.families import Penalised, PenaltyConfig
from pipeline.train.methods import METHODS, Method

FAMILIES = {name: method.family for name, method in METHODS.items() if method.family}


def keys(method: Method) -> dict[str, str]:
    """Meanings by name."""
    return {key.name: key.meaning for keys in described("it", method).keys for key in keys.keys}


@pytest.mark.parametrize("name", METHODS)
def test_every_key_has_a_meaning_and_every_value_of_a_choice_stands_in_it(name: str) -> None:
    config, meanings = METHODS[name].config, keys(METHODS[name])
    assert described(name, METHODS[name]).what.endswith(".")
    assert sorted(meanings) == sorted(config.model_fields)
    for key, field in config.model_fields.items():
        assert re.fullmatch(r"[^\n]{8,}\.", meanings[key]), key
        kinds = (field.annotation, *get_args(field.annotation))  # one that may be left out is X | None
        choices = tuple(choice for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind))
        for pattern in (getattr(m, "pattern", None) for m in field.metadata):
            choices += tuple(re.findall(r"\w+", pattern)) if pattern else ()
        for choice in choices:
            assert re.search(rf"\b{choice}\b", meanings[key]), (key, choice)
        if field.default is None:
            assert re.search(r"\b[Bb]y default\b", meanings[key]), key


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if issubclass(family, Penalised)])
def test_a_coefficients_rule_is_the_one_that_is_told(name: str) -> None:
    family = FAMILIES[name]
    assert family is not None
    assert issubclass(family, Penalised)
    assert issubclass(family.Config, PenaltyConfig)
    told = keys(METHODS[name])[family.Config.coefficient_field]
    linear = re.search(r"By default ([\d.]* ?)d_out / 768\.", told)
    root = re.search(r"By default ([\d.]+) √\(d_out / 768\)\.", told)
    for d_out in (64, 768, 4096):
        rule = (
            float(linear[1] or 1) * d_out / 768 if linear else float(root[1]) * (d_out / 768) ** 0.5 if root else None
        )
        assert family.default_coefficient(d_out) == pytest.approx(rule)


@pytest.mark.parametrize("n_steps", [100, 5_000, 50_000, 100_000])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_rates_rule_is_the_one_that_is_told(name: str, n_steps: int) -> None:
    family = FAMILIES[name]
    assert family is not None
    told = keys(METHODS[name])["lr"]
    base, top = (
        re.search(r"(\de-\d) √\(2\^14 / d_sae\)", told),
        re.search(r" times √\(50,000 / steps\), up to (\de-\d)\.", told),
    )
    assert base
    assert top
    for d_sae in (16, 2**14):
        rate = float(base[1]) * (2**14 / d_sae) ** 0.5
        expected = max(rate, min(float(top[1]), rate * (max(1, 50_000 / n_steps)) ** 0.5))
        assert family.default_lr(family.Config(d_sae=d_sae), n_steps) == pytest.approx(expected)


class Common(MethodConfig):
    """Shared."""

    n: int = Field(ge=1, description="How many.")
    rate: float = Field(default=0.1, description="How fast.")


class Own(Common):
    """Own.

    More of it.
    """

    rate: float = Field(default=0.5)
    n: int = Field(default=2, description="How many, here.")
    names: list[str] = Field(default_factory=lambda: ["a"])


def test_a_key_stands_where_its_meaning_was_given_with_the_default_that_it_has_here() -> None:
    found = described("own", Method(Own, {}))
    assert found.what == "Own."
    own, common = found.keys
    assert (own.of, common.of, common.what) == ("Own", "Common", "Shared.")
    assert [(k.name, k.default, k.required, k.meaning) for k in own.keys] == [
        ("n", 2, False, "How many, here."),
        ("names", ["a"], False, ""),
    ]
    assert [(k.name, k.default, k.meaning) for k in common.keys] == [("rate", 0.5, "How fast.")]
    assert described("common", Method(Common, {})).keys[0].keys[0].required


def test_the_source_stands_with_each_family() -> None:
    for name in FAMILIES:
        assert re.search(r"\b(19|20)\d\d\b", described(name, METHODS[name]).what), name
