"""Dictionaries with signed, dense codes: bases of what a site reads."""

import torch
from torch import Tensor

from pipeline.train.source import Source
from stores.dictionary import FeatureDictionary


def linear(
    source: Source, W_enc: Tensor, W_dec: Tensor, provenance: dict, mean: Tensor | None = None
) -> FeatureDictionary:
    """z = (x - mean) W_enc (d_in, d_sae), x_hat = z W_dec (d_sae, d_in) + mean (d_in), by default that of all rows."""
    mean = torch.from_numpy(source.reads.mean) if mean is None else mean
    spec = source.spec("linear", len(W_dec), provenance)
    return FeatureDictionary(spec, W_enc.cpu(), torch.zeros(len(W_dec)), W_dec.cpu(), mean.cpu())
