"""The page of the eight tokens."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.toy import pictures
from pipeline.toy.page import Page, Section, Table
from pipeline.toy.tokens.experiment import FEATURES, TOKENS


def page(numbers: Mapping[str, Any]) -> Any:
    unit, free = numbers["unit_norms"], numbers["free_norms"]
    names = list(TOKENS)
    features = Table(["token", *FEATURES], [[name, *values] for name, values in TOKENS.items()])
    summary = [
        ["different readings", unit["n_readings"], free["n_readings"]],
        ["share of the commonest", unit["commonest"][0][0], free["commonest"][0][0]],
        ["seeds that find the four features, and only them", unit["seeds_with_the_features"], free["seeds_with_the_features"]],
        ["live latents", unit["live"], free["live"]],
        ["… along one feature", unit["latents_feature"], free["latents_feature"]],
        ["… along a whole token", unit["latents_token"], free["latents_token"]],
        ["… along neither", unit["latents_neither"], free["latents_neither"]],
        ["active latents a token", unit["l0"], free["l0"]],
        ["squared error, of 1", unit["error"], free["error"]],
        ["mean active code", unit["mean_code"], free["mean_code"]],
        ["mean norm of a decoder row", unit["decoder_norm"], free["decoder_norm"]],
    ]  # fmt: skip
    return Page(
        "Eight tokens, four features",
        "An autoencoder with eight latents reads eight tokens that are sums of four features. It can be looked at whole, and "
        "it is tempting to read it: this latent is 'happy', that one is 'cat'. Here the same data are fitted from "
        f"{unit['n_seeds']} seeds, so that one sees what of such a reading is the data's and what is the seed's.",
        [
            Section("The data", "Each token is a row of four numbers.", [features]),
            Section(
                "What each latent adds to each token",
                "Rows: tokens; columns: latents; the value is z · |W_dec|, what the latent adds to the reconstruction. Four "
                "seeds with decoder rows of unit length, below four with free ones. A column that is on for 'happy cat' alone "
                "is a token, not a feature: with two features active the penalty on one latent along their sum is √2 "
                "against 2 on the two, so the optimum is not the features.",
                figures={
                    "maps": (_maps(unit["maps"], free["maps"], names), "Four seeds each: unit norms above, free below.")
                },
            ),
            Section(
                f"{unit['n_seeds']} seeds",
                "A reading is the list of the token sets that the latents are on for. With free norms the penalty can be "
                "escaped: codes shrink while decoder rows grow, and what is left is an autoencoder that is hardly asked to "
                "be sparse.",
                [Table(["", "unit norms", "free norms"], summary)],
            ),
            Section(
                "The commonest readings",
                "With unit norms.",
                [
                    Table(
                        ["share of seeds", "latents, by the tokens that they are on for"],
                        [[f"{share:.0%}", " | ".join(latents)] for share, latents in unit["commonest"]],
                    )
                ],
            ),
        ],
    )


def _maps(unit: list, free: list, names: list[str]) -> Any:
    n = len(unit)
    figure, axes = pictures.axes(2, n, 10, 5.2)
    top = max(float(np.max(unit)), float(np.max(free)))
    for row, (maps, label) in enumerate(((unit, "unit norms"), (free, "free norms"))):
        for j, values in enumerate(maps):
            axis = axes[row][j]
            axis.imshow(np.array(values), vmin=0, vmax=top, cmap="viridis", aspect="auto")
            axis.set_xticks(range(len(values[0])), range(len(values[0])), fontsize=7)
            axis.set_yticks(range(len(names)), names if j == 0 else [""] * len(names))
            axis.set_title(f"{label}, seed {j}")
        axes[row][0].set_ylabel("")
    return figure
