"""An affine map, an activation, an affine map, as other libraries keep them: into FeatureDictionary's weights.

    pre = (x - m) W_enc + b_enc,  y_hat = s z W_dec + b_dec + n

m, what is subtracted from x, is nothing, b_dec, pre_bias or act_mean, by the library; s scales codes that were learned on
scaled ones. FeatureDictionary subtracts its own b_dec from x, or nothing where it is a transcoder, so what m differs from
that is folded into b_enc, n into b_dec and s into W_dec.

Which axis is which is told by the lengths of the biases, or by the library where it is known.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stores.dictionary_files import Provenance, Weights, named
from stores.formats.stated import Stated
from stores.formats.tensors import TensorFile
from stores.shapes import Float
from stores.site import Site
from stores.spec import Spec

NAMES = {  # ours → theirs
    "W_enc": ("W_enc", "w_enc", "encoder.weight", "W_E"),
    "b_enc": ("b_enc", "encoder.bias", "latent_bias", "b_gate", "gate_bias", "b_E"),
    "W_dec": ("W_dec", "w_dec", "decoder.weight", "W_D"),
    "b_dec": ("b_dec", "decoder.bias", "decoder_bias", "bias", "b_D"),
    "threshold": ("threshold", "activation_function.threshold"),
    "log_threshold": (
        "log_threshold",
        "log_thresholds",
        "log_jumprelu_threshold",
        "activation_function.log_jumprelu_threshold",
    ),
    "r_mag": ("r_mag",),
    "b_mag": ("b_mag", "mag_bias"),
    "W_skip": ("W_skip",),
    "pre_bias": ("pre_bias",),
    "act_mean": ("act_mean",),
    "scale": ("finetuning_scaling_factor", "scaling_factor"),
}
_COLUMNS = 4096  # of W_enc that are in float64 at once


@dataclass(frozen=True)
class Affine:
    """A dictionary in a file whose headers alone are read.

    architecture: FeatureDictionary's; empty: told by which weights there are. site, transcoder: None: not known. rows:
    whether a weight is kept as (out, in), as torch.nn.Linear does; one that is not named is told by the biases. ignored:
    tensors without a part in what is computed. subtracts_b_dec: from x; None: the file does not say.
    """

    tensors: TensorFile
    stated: Stated
    architecture: str = ""
    k: int | None = None
    subtracts_b_dec: bool | None = None
    transcoder: bool | None = None
    site: Site | None = None
    d_writes: tuple[int, ...] = ()
    provenance: Provenance = field(default_factory=dict)
    rows: Mapping[str, bool] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()

    @property
    def file(self) -> Path:
        return self.tensors.path

    def _names(self) -> dict[str, str]:
        """Ours → theirs, of what is there. Raises ValueError: one that is not known, that comes twice, or is missing."""
        there = self.tensors.entries.keys() - set(self.ignored)
        known = {theirs: ours for ours, all_theirs in NAMES.items() for theirs in all_theirs}
        if unknown := sorted(there - known.keys()):
            raise ValueError(
                f"{self.file} holds {ascii(unknown[0])[:60]}, whose part in a dictionary is not known here"
            )
        found = {known[name]: name for name in sorted(there)}
        if len(found) < len(there):
            twice = next(known[name] for name in sorted(there) if found[known[name]] != name)
            raise ValueError(f"{self.file} has {twice} by two names of {', '.join(NAMES[twice])}")
        missing = [name for name in ("W_enc", "b_enc", "W_dec", "b_dec") if name not in found]
        if missing and not (missing == ["b_dec"] and "pre_bias" in found):
            raise ValueError(f"{self.file} lacks {', '.join(missing)}: {', '.join(NAMES[missing[0]])} are known names")
        return found

    def spec(self) -> Spec:
        """Raises ValueError: shapes or options do not fit one another, or what is stated."""
        names = self._names()
        shape = {ours: self.tensors.entries[theirs].shape for ours, theirs in names.items()}
        shape.setdefault("b_dec", shape.get("pre_bias", ()))
        for name in ("b_enc", "b_dec"):
            if len(shape[name]) != 1:
                raise ValueError(f"{self.file}: {name} is {shape[name]}, expected one axis")
        if len(shape["W_enc"]) != 2 or shape["b_enc"][0] not in shape["W_enc"]:
            raise ValueError(f"{self.file}: W_enc is {shape['W_enc']}, none of whose axes is b_enc's {shape['b_enc']}")
        d_sae, d_out = shape["b_enc"][0], shape["b_dec"][0]
        d_in = shape["W_enc"][1 if self._is_rows(names["W_enc"], shape["W_enc"], (0, d_sae)) else 0]
        architecture = self._architecture(names)
        k = self._agreed("k", self.k, self.stated.k)
        with named(self.file):
            site = self.stated.site(self.file) or self.site or Site()
        transcoder = bool(self.transcoder or "W_skip" in names or site.reads != site.writes or d_in != d_out)
        if architecture == "topk" and k == d_sae:  # all of them, so that ReLU alone decides
            architecture, k = "standard", 0
        several = len(site.writes) > 1
        with named(self.file):
            return Spec(
                architecture, d_in, d_sae, site, k or 0, self.provenance, d_out if transcoder else None,
                self.d_writes if several else (), "W_skip" in names,
            )  # fmt: skip

    def _architecture(self, names: Mapping[str, str]) -> str:
        """Raises ValueError: the weights besides the matrices and biases are not those that it has."""
        found = names.keys() & {"threshold", "log_threshold", "r_mag", "b_mag"}
        told = "jumprelu" if found & {"threshold", "log_threshold"} else "gated" if found else ""
        architecture = self.architecture or told or ("topk" if self.stated.k else "standard")
        has = {"jumprelu": ({"threshold"}, {"log_threshold"}), "gated": ({"r_mag", "b_mag"},)}.get(
            architecture, (set(),)
        )
        if found not in has:
            expected = " or ".join(" and ".join(sorted(one)) for one in has) or "nothing"
            there = ", ".join(sorted(found)) or "nothing"
            raise ValueError(f"{self.file} has {there} besides its maps, expected {expected} of {architecture}")
        return architecture

    def _agreed(self, name: str, found: Any, stated: Any) -> Any:
        if None not in (found, stated) and found != stated:
            raise ValueError(f"{self.file}: {name} = {found}, but {stated} is stated")
        return stated if found is None else found

    def _is_rows(self, theirs: str, shape: tuple[int, ...], wanted: tuple[int, int]) -> bool:
        """Whether a weight is kept as (out, in). wanted: (in, out)"""
        if theirs.endswith(".weight"):  # torch.nn.Linear's
            return True
        if theirs in self.rows:
            return self.rows[theirs]
        if shape[0] == shape[-1]:
            raise ValueError(
                f"{self.file}: {theirs} is square, {shape}: which axis is which cannot be told, name it as torch.nn.Linear "
                f"does, encoder.weight of (out, in)"
            )
        return shape[0] == wanted[1]

    def _matrix(self, theirs: str, wanted: tuple[int, int]) -> Float[Tensor, "d_1 d_2"]:
        """wanted: (in, out)"""
        shape = self.tensors.entries[theirs].shape
        if sorted(shape) != sorted(wanted):
            raise ValueError(f"{self.file}: {theirs} is {shape}, expected {wanted} or {wanted[::-1]} by the biases")
        rows = self._is_rows(theirs, shape, wanted)
        if (shape[::-1] if rows else shape) != wanted:
            raise ValueError(
                f"{self.file}: {theirs} is {shape}, expected {wanted[::-1] if rows else wanted} by the biases"
            )
        x = self.tensors.read(theirs)
        return x.T if rows else x

    def _vector(self, theirs: str, n: int) -> Float[Tensor, " n"]:
        """Of n numbers, or one for all."""
        shape = self.tensors.entries[theirs].shape
        if shape not in ((n,), (1,), ()):
            raise ValueError(f"{self.file}: {theirs} is {shape}, expected {(n,)} by the biases")
        return self.tensors.read(theirs).expand(n) if shape != (n,) else self.tensors.read(theirs)

    def weights(self, spec: Spec) -> Weights:
        """FeatureDictionary's, of the spec that self.spec() gave."""
        names, d_out = self._names(), spec.d_out or spec.d_in
        own: Weights = {
            "W_enc": self._matrix(names["W_enc"], (spec.d_in, spec.d_sae)),
            "b_enc": self._vector(names["b_enc"], spec.d_sae),
            "W_dec": self._matrix(names["W_dec"], (spec.d_sae, d_out)),
            "b_dec": self._vector(names.get("b_dec", names.get("pre_bias", "")), d_out),
        }
        if spec.skip:
            own["W_skip"] = self._matrix(names["W_skip"], (spec.d_in, d_out))
        if spec.architecture == "gated":
            own |= {name: self._vector(names[name], spec.d_sae) for name in ("r_mag", "b_mag")}
        if spec.architecture == "jumprelu":
            log = names.get("log_threshold")
            threshold = self._vector(log, spec.d_sae).exp() if log else self._vector(names["threshold"], spec.d_sae)
            own["threshold"] = threshold.clamp(min=0)  # ReLU takes what lies below
        if "scale" in names:
            own["W_dec"] = own["W_dec"] * self._vector(names["scale"], spec.d_sae)[:, None]
        subtracted = self._subtracted(spec, names, own)
        if "act_mean" in names and not spec.d_out:  # x_hat is of x, not of what is left of it
            own["b_dec"] = own["b_dec"] + self._vector(names["act_mean"], spec.d_in)
        subtract(own, (0 if spec.d_out else own["b_dec"]) - subtracted)
        return own

    def _subtracted(self, spec: Spec, names: Mapping[str, str], own: Weights) -> Float[Tensor, " d_in"]:
        """m"""
        m = torch.zeros(spec.d_in)
        for name in ("pre_bias", "act_mean"):
            if name in names:
                m = m + self._vector(names[name], spec.d_in)
        subtracts = self._agreed("apply_b_dec_to_input", self.subtracts_b_dec, self.stated.apply_b_dec_to_input)
        if "b_dec" not in names:
            return m
        if subtracts is None:
            if not (spec.d_out or "pre_bias" in names) and own["b_dec"].any():
                raise ValueError(
                    f"{self.file} does not say whether b_dec is subtracted from x: state apply_b_dec_to_input"
                )
            subtracts = False
        if subtracts and spec.d_in != len(own["b_dec"]):
            raise ValueError(
                f"{self.file}: b_dec has {len(own['b_dec'])} coordinates, x {spec.d_in}: it is not subtracted"
            )
        return m + own["b_dec"] if subtracts else m


def subtract(weights: Weights, x: Float[Tensor, " d_in"]) -> None:
    """Fold a vector that is added to what is encoded into the biases of the encoder, in place, in float64."""
    if not x.any():
        return
    added = torch.cat([x.double() @ part.double() for part in weights["W_enc"].split(_COLUMNS, dim=1)])
    weights["b_enc"] = (weights["b_enc"] + added).float()
    if "b_mag" in weights:
        weights["b_mag"] = (weights["b_mag"] + added * weights["r_mag"].double().exp()).float()
