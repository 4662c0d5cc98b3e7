"""Tokens that are sums of features: what the penalty prefers, and what seeds do."""

from dataclasses import replace

import numpy as np
import torch

from pipeline.toy.tokens.binary import TOKENS, Setup, beside, contributions, data, kinds, measure, reading, train

SMALL = Setup(d_sae=8, l1_coefficient=0.1, lr=3e-3, n_steps=800, n_seeds=20)


def test_the_data_are_eight_tokens_of_four_features() -> None:
    x = data()
    assert x.shape == (8, 4)
    assert len(set(map(tuple, x.tolist()))) == 8
    assert torch.equal(x[list(TOKENS).index("happy cat")], torch.tensor([1.0, 0, 0, 1]))


def test_unit_norms_are_kept_and_free_ones_take_over_the_code() -> None:
    unit, free = train(SMALL, True), train(SMALL, False)
    assert torch.allclose(unit.W_dec.norm(dim=-1), torch.ones(()), atol=1e-5)
    x = data()
    live = contributions(free) > 0.1
    assert float(free.W_dec.norm(dim=-1)[live.any(1)].mean()) > 1.3
    assert float(free.encode(x)[live].mean()) < float(unit.encode(x)[contributions(unit) > 0.1].mean())


def test_another_seed_is_another_reading() -> None:
    found = measure(SMALL, True)
    assert found["n_readings"] > 5  # of 20 seeds
    assert np.mean(found["latents_token"]) > 0.5  # latents of whole tokens, which are no features
    assert np.mean(found["error"]) < 0.05
    kinds_of_all = zip(found["latents_feature"], found["latents_token"], found["latents_neither"], strict=True)
    assert [sum(k) for k in kinds_of_all] == found["live"]
    assert np.allclose(found["decoder_norm"], 1, atol=1e-4)


def test_a_reading_names_the_tokens_of_each_latent() -> None:
    contribution = torch.zeros(8, 3)
    contribution[[0, 1], 2] = 1.0
    contribution[5, 0] = 0.5
    contribution[3, 1] = 0.05  # too little to be on
    assert reading(contribution) == ("cat, happy cat", "happy robot")


def test_kinds_of_latents() -> None:
    W_dec = torch.tensor([[2.0, 0, 0, 0], [1, 0, 0, 1], [1, -1, 1, -1], [0, 1, 0, 0]])
    live = torch.tensor([True, True, True, False])
    assert kinds(W_dec, live) == {"feature": 1, "token": 1, "neither": 1}


def test_maps_stand_beside_each_other_latent_by_latent() -> None:
    one = contributions(train(replace(SMALL, n_steps=20), True))[0].numpy()
    first, second = beside(np.stack([one, one[:, ::-1]]))
    assert first == second
