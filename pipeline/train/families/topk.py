"""TopK (Gao et al. 2024, arXiv:2406.04093): the k largest pre-activations, and an auxiliary loss that revives the dead."""

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor

from pipeline.train.families.base import Family, FamilyConfig, Loss
from pipeline.train.kernels import Code, Select, matmul, select_topk, sparse_autoencode_prefixes
from pipeline.train.ranks import ALONE, Ranks
from pipeline.train.schedules import k_at
from pipeline.train.source import Source
from stores.dictionary import FeatureDictionary
from stores.site import Site


class TopKConfig(FamilyConfig):
    """k: active features a token. k_start: what k falls from, in a line over the first k_anneal of the steps. aux_k: dead
    features that predict the residual together, by default half of d_in as in the paper (0: none). init_norm: with 1 the
    first reconstructions are too large (scripts/study_init.py)."""

    init_norm: float = Field(default=0.5, gt=0)
    k: int = Field(default=32, ge=1)
    k_start: int | None = Field(default=None, ge=1)
    k_anneal: float = Field(default=0.2, gt=0, le=1)
    aux_k: int | None = Field(default=None, ge=0)
    aux_coefficient: float = Field(default=1 / 32, ge=0)

    def check(self, site: Site, d_in: int) -> None:
        super().check(site, d_in)
        for name, k in (("k", self.k), ("k_start", self.k_start or self.k)):
            if k > self.d_sae:
                raise ValueError(f"{name} = {k} is more than d_sae = {self.d_sae}")


class TopK(Family):
    """z = ReLU(TopK((x - b_dec) W_encᵀ + b_enc)); loss = |y - y_hat|² summed over d_out, averaged over tokens."""

    def __init__(self, config: TopKConfig, source: Source, matmul_dtype: torch.dtype) -> None:
        super().__init__(config, source, matmul_dtype)
        self.config = config
        self.aux_k = config.aux_k if config.aux_k is not None else self.d_in // 2
        self.any_dead = False
        self.k = config.k  # at the current step

    def select(self) -> Select:
        """Which pre-activations of a batch make its code."""
        return select_topk(self.k, self.ranks)

    def prefixes(self) -> tuple[int, ...]:
        """Numbers of latents, rising up to d_sae, each of which reconstructs on its own; the loss is their mean."""
        return (self.d_sae,)

    def selected(self, code: Code) -> None:
        """What a family learns from the code of a batch besides its gradient."""

    def look(self, state: Mapping[str, Tensor]) -> None:
        dead = (state["tokens_since_fired"] > self.config.dead_after_tokens).any()
        self.any_dead = bool(self.ranks.total(dead.int()))

    def loss(self, x: Tensor, y: Tensor, step: int, n_steps: int) -> Loss:
        config = self.config
        self.k = k_at(step, n_steps, config.k_start or config.k, config.k, config.k_anneal)
        return self._dense_loss(x, y) if self.small else self._sparse_loss(x, y)

    def _sparse_loss(self, x: Tensor, y: Tensor) -> Loss:
        read, target = self.centred(x, y)
        weights = (self.W_enc, self.b_enc, self.W_dec)
        outs, code = sparse_autoencode_prefixes(read, *weights, self.select(), self.prefixes(), self.matmul_dtype)
        errors = target - self.ranks.whole_sum(outs)
        mse_of_prefixes = errors.square().sum(-1).mean(-1)
        total, mse, error = mse_of_prefixes.mean(), mse_of_prefixes[-1], errors[-1]
        active = code.indices[code.values > 0]
        l0 = torch.tensor(len(active) / len(x), device=x.device)
        parts = {"mse": mse, "l0": self.ranks.total(l0) if self.ranks.splits_features else l0, "aux": mse.new_zeros(())}
        dead = self.tokens_since_fired > self.config.dead_after_tokens
        if self.aux_k and self.any_dead:
            aux = self._auxiliary(read, error.detach(), dead.nonzero().squeeze(1))
            parts["aux"] = aux
            total = total + self.config.aux_coefficient * self.ranks.row_mean(mse.detach(), len(x)) * aux
        fired = torch.zeros(self.d_sae, dtype=torch.bool, device=x.device)
        fired[active] = True
        self.count(fired, len(x))
        self.selected(code)
        return Loss(total, parts)

    def _dense_loss(self, x: Tensor, y: Tensor) -> Loss:
        """The same with dense codes."""
        read, target = self.centred(x, y)
        pre = self.pre(read).float()
        z = self.dense_code(pre)
        out, before, errors = torch.zeros_like(target), 0, []
        for end in self.prefixes():
            out = out + matmul(z[:, before:end], self.W_dec[before:end], self.matmul_dtype).float()
            errors.append(target - out)
            before = end
        losses = [error.square().sum(-1).mean() for error in errors]
        total, mse = torch.stack(losses).mean(), losses[-1]
        dead = self.tokens_since_fired > self.config.dead_after_tokens
        parts = {"mse": mse, "l0": self.activity(z), "aux": torch.zeros_like(mse)}
        if self.aux_k and self.any_dead:
            n = min(self.aux_k, self.d_sae)
            values, indices = torch.where(dead, pre, -torch.inf).topk(n, dim=-1)
            code = torch.zeros_like(pre).scatter(-1, indices, values.relu())
            predicted = matmul(code, self.W_dec, self.matmul_dtype).float()
            parts["aux"] = _fvu(errors[-1].detach(), predicted) * dead.any()
            total = total + self.config.aux_coefficient * mse.detach() * parts["aux"]
        return Loss(total, parts)

    def dense_code(self, pre: Tensor) -> Tensor:
        values, indices = pre.topk(self.k, dim=-1)
        return torch.zeros_like(pre).scatter(-1, indices, values.relu())

    def _auxiliary(self, x: Tensor, error: Tensor, dead: Tensor) -> Tensor:
        """FVU of the error as the dead features alone predict it from their largest pre-activations."""
        pre = matmul(x, self.W_enc[dead].T, self.matmul_dtype).float() + self.b_enc[dead]
        values, indices = pre.topk(min(self.aux_k, len(dead)), dim=-1)
        if self.ranks.splits_features:
            values = values * self.ranks.kept_of_largest(values, self.aux_k)
        code = torch.zeros_like(pre).scatter(-1, indices, values.relu())
        predicted = self.ranks.whole_sum(matmul(code, self.W_dec[dead], self.matmul_dtype).float())
        return _fvu(error, predicted, self.ranks)

    def to_dictionary(self, provenance: dict) -> FeatureDictionary:
        return self.dictionary("topk", provenance, self.raw_weights(), self.config.k)


def _fvu(x: Tensor, x_hat: Tensor, ranks: Ranks = ALONE) -> Tensor:
    size = ranks.row_mean(x.square().sum() / len(x), len(x))
    return (x - x_hat).square().sum() / len(x) / size.clamp_min(1e-12)
