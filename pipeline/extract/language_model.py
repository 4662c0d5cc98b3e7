"""GPT-2-shaped language models: where they lie, their hook points, and one forward that captures, edits and stops early.

Hook points carry TransformerLens's names. The forward runs the Hugging Face model's own modules, one after another.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import torch
from tokenizers import Tokenizer
from torch import Tensor

from pipeline.config import UserError, nearest
from pipeline.extract.hub import model_snapshot
from pipeline.extract.model_files import (
    check_ids,
    check_weights,
    read_json_object,
    read_settings,
    read_tokenizer,
    read_weights,
    weight_files,
)
from pipeline.extract.modules import speed_up
from pipeline.mlp import MLP
from stores.description import Description
from stores.manifest import digest, file_digest

DEMO = Path(__file__).parents[1] / "assets" / "demo"
SITES = ("hook_resid_pre", "hook_resid_mid", "mlp.hook_pre", "mlp.hook_post", "hook_mlp_out", "hook_resid_post")

Precision = Literal["float32", "bfloat16"]
Edit = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class ModelFiles:
    """A model's folder in Hugging Face layout: all that is known before its weights are loaded.

    revision: the commit, of a model on the hub.
    """

    name: str
    folder: Path
    revision: str | None = None

    @classmethod
    def find(cls, name: str, revision: str | None = None) -> "ModelFiles":
        """name: "demo", a folder, or a hub name (downloaded on first use). Raises UserError: there is none."""
        folder, commit = DEMO if name == "demo" else Path(name), None
        if not folder.is_dir():
            folder = model_snapshot(name, revision)
            commit = folder.name
        if not (folder / "config.json").exists():
            raise UserError(f"extract.model: {folder} has no config.json, expected a Hugging Face model folder")
        files = cls(name, folder, commit)
        files.config  # noqa: B018  it is read, or refused
        return files

    @classmethod
    def of_store(cls, description: Description) -> "ModelFiles":
        """The model that a store was made from. Raises UserError: it is not the same any more, or not there."""
        files = cls.find(description.model, description.model_revision)
        if files.digest != description.model_digest:
            raise UserError(
                f"the store was made from another model than {description.model} is now ({description.model_digest[:12]}, "
                f"now {files.digest[:12]}): restore its weights and config.json, or extract again with --replace"
            )
        return files

    def check(self) -> None:
        """Raises UserError: the weights or the tokenizer are not whole, or ids lie outside of the vocabulary."""
        check_weights(self.folder, self.config)
        check_ids(self.folder, self.tokenizer, self.bos, self.config["vocab_size"])

    @cached_property
    def config(self) -> dict[str, Any]:
        """What of config.json changes the numbers: see Gpt2Settings."""
        return read_settings(self.folder / "config.json")

    @property
    def n_layers(self) -> int:
        return self.config["n_layer"]

    @property
    def n_positions(self) -> int:
        return self.config["n_positions"]

    @property
    def hook_points(self) -> list[str]:
        return [f"blocks.{layer}.{site}" for layer in range(self.n_layers) for site in SITES]

    def d(self, hook_point: str) -> int:
        """Coordinates at a hook point. Raises UserError: the model has no such hook point."""
        _, site = self.locate(hook_point)
        d_model = self.config["n_embd"]
        return self.config["n_inner"] if site in ("mlp.hook_pre", "mlp.hook_post") else d_model

    def locate(self, hook_point: str) -> tuple[int, str]:
        """(layer, site). Raises UserError: no such site, or no such layer."""
        match = re.fullmatch(r"blocks\.(0|[1-9][0-9]*)\.(.+)", hook_point)
        if match and match[2] in SITES:
            if int(match[1]) < self.n_layers:
                return int(match[1]), match[2]
            raise UserError(
                f"hook point {hook_point!r}: layer {match[1]} is out of range, {self.name} has layers 0 to {self.n_layers - 1}"
            )
        sites = [f"blocks.L.{site}" for site in SITES]
        hint = nearest(re.sub(r"\d+", "L", hook_point, count=1), sites)
        if "mean" in hint:
            hint += f" (of: {', '.join(sites)})"
        raise UserError(f"unknown hook point {hook_point!r}{hint}, for L from 0 to {self.n_layers - 1}")

    @cached_property
    def digest(self) -> str:
        """Of the weights that are loaded and of what of config.json changes the numbers; names and dates are in neither."""
        return digest({"config": self.config, "weights": [file_digest(path) for path in weight_files(self.folder)]})

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return read_tokenizer(self.folder)

    @cached_property
    def tokenizer_digest(self) -> str:
        """Of what turns a document into ids: the tokenizer, and BOS."""
        return digest({"tokenizer": self.tokenizer.to_str(), "bos": self.bos})

    @cached_property
    def bos(self) -> int:
        """GPT-2 has one special token, which begins and ends documents. Raises UserError: config.json has none."""
        token = read_json_object(self.folder / "config.json").get("bos_token_id")
        if type(token) is not int or token < 0:
            found = "no bos_token_id" if token is None else f"bos_token_id = {token!r}, expected a token's id"
            raise UserError(f"extract.model: {self.folder / 'config.json'} has {found}")
        return token

    def load(
        self, weight_processing: str = "none", device: str = "cpu", precision: Precision = "float32"
    ) -> "LanguageModel":
        return LanguageModel(self, weight_processing, device, precision)


class LanguageModel:
    """A loaded model.

    weight_processing "folded": TransformerLens's layer-norm folding and centring of what writes to the residual
    stream; the logits stay the same up to a constant. precision "bfloat16": what attention and MLPs read and write is
    bfloat16; the residual stream, layer norms and attention's scores stay float32, as under autocast.
    """

    def __init__(
        self, files: ModelFiles, weight_processing: str, device: str, precision: Precision = "float32"
    ) -> None:
        self.files, self.device, self.precision = files, device, precision
        self.model = _loaded(files)
        if weight_processing == "folded":
            _fold(self.model)
        self.model.to(cast(Any, device))
        speed_up(self.model, precision)

    def writer(self, hook_point: str) -> Tensor:
        """(d, d_read): the matrix whose product with what a layer reads is written to the hook point, float32.

        Raises ValueError: the embedding writes there.
        """
        layer, site = self.files.locate(hook_point)
        if site == "hook_resid_pre":
            layer -= 1
        if layer < 0:
            raise ValueError(f"{hook_point} is written by the embedding, by no matrix")
        block = cast(Any, self.model.transformer).h[layer]
        if site in ("mlp.hook_pre", "mlp.hook_post"):
            module = block.mlp.c_fc
        else:
            module = block.attn.c_proj if site == "hook_resid_mid" else block.mlp.c_proj
        return module.weight.float()

    def mlp(self, layer: int) -> MLP:
        """The MLP of a layer and the layer norm before it, float32.

        Raises UserError: its activation function is not GPT-2's.
        """
        activation = self.files.config["activation_function"]
        if activation not in ("gelu_new", "gelu_pytorch_tanh"):
            raise UserError(f"{self.files.name}'s MLPs have the activation {activation!r}, expected gelu_new: GPT-2's")
        block = cast(Any, self.model.transformer).h[layer]
        read, write, norm = block.mlp.c_fc, block.mlp.c_proj, block.ln_2
        W_in, W_out = read.weight.T.float(), write.weight.T.float()
        return MLP(W_in, read.bias.float(), W_out, write.bias.float(), norm.weight, norm.bias, norm.eps)

    @torch.inference_mode()
    def forward(
        self,
        tokens: Tensor,
        capture: Collection[str] = (),
        edit: Mapping[str, Edit] | None = None,
        logits: bool = False,
        resume: tuple[int, Tensor] | None = None,
    ) -> tuple[dict[str, Tensor], Tensor]:
        """tokens: (batch, position) int64.

        Returns the activations at the hook points in capture, (batch, position, d) as computed (float32, or where
        precision says so bfloat16), and the logits (batch, position, d_vocab), or the last residual stream computed
        when logits is False: then the pass stops after the last hook point it needs. edit: what replaces the
        activations at a hook point; what is captured there, and all that follows, is the edited value. resume:
        (layer, its resid_pre before any edit), to go on from there instead of the tokens.
        """
        edit = edit or {}
        last = self.files.n_layers - 1
        if not logits:
            last = max((self.files.locate(h)[0] for h in capture), default=-1)
        captured: dict[str, Tensor] = {}

        def hook(layer: int, site: str, x: Tensor) -> Tensor:
            name = f"blocks.{layer}.{site}"
            if name in edit:
                x = edit[name](x)
            if name in capture:
                captured[name] = x
            return x

        transformer = cast(Any, self.model.transformer)
        first, residual = resume or (0, None)
        if residual is None:
            residual = transformer.wte(tokens) + transformer.wpe(torch.arange(tokens.shape[1], device=tokens.device))
        for layer in range(first, last + 1):
            block = transformer.h[layer]
            residual = hook(layer, "hook_resid_pre", residual)
            if not logits and len(captured) == len(capture):
                break
            residual = hook(layer, "hook_resid_mid", residual + block.attn(block.ln_1(residual))[0])
            if not logits and len(captured) == len(capture):
                break
            pre = hook(layer, "mlp.hook_pre", block.mlp.c_fc(block.ln_2(residual)))
            post = hook(layer, "mlp.hook_post", block.mlp.act(pre))
            if not logits and len(captured) == len(capture):
                break
            out = hook(layer, "hook_mlp_out", block.mlp.c_proj(post))
            residual = hook(layer, "hook_resid_post", residual + out)
        if len(captured) < len(set(capture)):
            raise ValueError(f"hook points not reached: {', '.join(set(capture) - set(captured))}")
        return captured, self.model.lm_head(transformer.ln_f(residual)) if logits else residual


def _loaded(files: ModelFiles) -> Any:
    """A GPT2LMHeadModel of the settings and weights that the model's digest is of, and of nothing else."""
    from transformers import GPT2Config, GPT2LMHeadModel

    with torch.device("meta"):  # no weight is drawn
        options: dict[str, Any] = {
            **files.config,
            "bos_token_id": None,
            "eos_token_id": None,
            "attn_implementation": "sdpa",
        }
        model = cast(Any, GPT2LMHeadModel(GPT2Config(**options)))
    weights = read_weights(files.folder, files.config)
    head = weights.pop("lm_head.weight", weights["wte.weight"])
    model.transformer.load_state_dict(weights, assign=True)
    model.lm_head.load_state_dict({"weight": head}, assign=True)
    if files.config["tie_word_embeddings"]:
        model.lm_head.weight = model.transformer.wte.weight
    return model.eval().requires_grad_(False)


@torch.no_grad()
def _fold(model: Any) -> None:
    """What TransformerLens does by default, on Hugging Face's weights (Conv1D: (d_in, d_out)).

    Layer norms' gains and offsets move into the matrices that read from them; what writes to the residual stream is
    centred over d_model, which no layer norm sees. ln_f and the head, tied to the embedding before, keep the logits.
    """
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone(), requires_grad=False)
    transformer = model.transformer
    for embedding in (transformer.wte, transformer.wpe):
        embedding.weight -= embedding.weight.mean(-1, keepdim=True)
    for block in transformer.h:
        for norm, reader in ((block.ln_1, block.attn.c_attn), (block.ln_2, block.mlp.c_fc)):
            reader.bias += norm.bias @ reader.weight
            reader.weight *= norm.weight[:, None]
            reader.weight -= reader.weight.mean(0, keepdim=True)
            norm.weight.fill_(1.0)
            norm.bias.fill_(0.0)
        for writer in (block.attn.c_proj, block.mlp.c_proj):
            writer.weight -= writer.weight.mean(-1, keepdim=True)
            writer.bias -= writer.bias.mean()
