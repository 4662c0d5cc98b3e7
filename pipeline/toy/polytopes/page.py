"""The page of the polytopes toy."""

from collections.abc import Mapping
from typing import Any

from pipeline.toy.page import Page
from pipeline.toy.polytopes.page_boundaries import adversarial_section, codes_section, density_section, shell_section
from pipeline.toy.polytopes.page_clusters import channels_section, clusters_section, validity_section
from pipeline.toy.polytopes.page_maps import (
    centres_section,
    decoupled_section,
    expectation_section,
    gate_section,
    neighbours_section,
    scaling_section,
)


def page(numbers: Mapping[str, Any]) -> Page:
    language = numbers["language"]
    sections = [
        codes_section(numbers["codes"]),
        density_section(numbers["density"]),
        shell_section(numbers["shell"]),
        neighbours_section(numbers["neighbours"]),
        adversarial_section(numbers["adversarial"]),
        scaling_section(numbers["scaling"]),
        gate_section(numbers["gelu"]["gate"]),
        expectation_section(numbers["gelu"]),
        centres_section(numbers["centres"]),
        decoupled_section(numbers["decoupled"]),
        channels_section(numbers["channels"]),
        clusters_section(language["clusters"]),
    ]
    if language["validity"]:
        sections.append(validity_section(language["validity"]))
    return Page(
        "The polytope lens",
        "A ReLU network is affine on each polytope of its input space. Which polytope an activation lies in, its spline code, "
        "is another unit to read a network by than a direction: it needs no assumption that features add up. The networks "
        "here read handwritten digits, many seeds of each; one section looks at a small convolutional network, the last two "
        "at a language model. Untrained means: the same networks, with their weights and biases as they were drawn. "
        "Sources: Black et al. 2022, the discussion of it, and Balestriero and Baraniuk 2018.",
        sections,
    )
