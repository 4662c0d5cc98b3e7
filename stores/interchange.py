"""A dictionary's folder as SAELens 6 has it: names, options, and what SAELens has no word for."""

from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from stores.dictionary_files import Provenance
from stores.site import Site
from stores.spec import Spec


def architecture_name(spec: Spec) -> str:
    """SAELens's name, or one like it where SAELens has none."""
    if spec.d_out is None:
        return spec.architecture
    activation = "" if spec.architecture == "standard" else f"{spec.architecture}_"
    return f"{activation}{'skip_' if spec.skip else ''}transcoder"


def _read_architecture(name: str) -> tuple[str, bool, bool]:
    """(architecture, whether it is a transcoder, whether it has a skip matrix) of cfg.json's name."""
    if not name.endswith("transcoder"):
        return name, False, False
    activation, skip, _ = name.removesuffix("transcoder").rpartition("skip_")
    return (activation if skip else name.removesuffix("transcoder")).removesuffix("_") or "standard", True, bool(skip)


def spec_of(file: Path, config: dict[str, Any], provenance: Provenance) -> Spec:
    """Of a cfg.json that read_config has checked. Raises ValueError: its sizes or names do not fit one another."""
    metadata = config["metadata"]
    if metadata["model_name"] and not provenance:
        provenance = {"model": metadata["model_name"]}
    try:
        architecture, transcoder, skip = _read_architecture(str(config["architecture"]))
        one = Site.at(metadata["hook_name"]).reads
        out = Site.at(metadata["hook_name_out"]).writes if transcoder else one
        site = Site(metadata["reads"] or one, metadata["writes"] or out)
        sizes = architecture, config["d_in"], config["d_sae"]
        d_out = config["d_out"] if transcoder else None
        k = config["k"] if architecture in ("topk", "abs_topk") else 0
        options = {}
        if architecture == "matching_pursuit":
            k = config["d_in"] if config["max_iterations"] is None else config["max_iterations"]
            options = {name: config[name] for name in ("residual_threshold", "stop_on_duplicate_support")}
        return Spec(*sizes, site, k, provenance, d_out, metadata["d_writes"], skip, **options)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def saved_name(spec: Spec, name: str) -> str:
    """SAELens's name of a weight."""
    return "b_gate" if spec.architecture == "gated" and name == "b_enc" else name


def as_saved(name: str, weight: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """SAELens keeps W_skip as (d_out, d_in). Its own inverse."""
    return weight.T.contiguous() if name == "W_skip" else weight


def config_of(spec: Spec) -> dict[str, Any]:
    """cfg.json. What only this project knows stands in metadata: the hook points, where there are several."""
    site, autoencodes = spec.site, spec.d_out is None
    metadata = {"hook_name": _only(site.reads), "model_name": spec.provenance.get("model", "")}
    if not autoencodes:
        metadata["hook_name_out"] = _only(site.writes)
    if max(len(site.reads), len(site.writes)) > 1:
        metadata |= {"reads": site.reads, "writes": site.writes, "d_writes": spec.d_writes}
    config = {
        "architecture": architecture_name(spec),
        "d_in": spec.d_in,
        "d_sae": spec.d_sae,
        **({} if autoencodes else {"d_out": spec.d_out}),
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": autoencodes,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": metadata,
    }
    if spec.architecture in ("topk", "abs_topk"):
        config |= {"k": spec.k, "rescale_acts_by_decoder_norm": False}
    if spec.architecture == "matching_pursuit":
        config |= {
            "max_iterations": spec.k,
            "residual_threshold": spec.residual_threshold,
            "stop_on_duplicate_support": spec.stop_on_duplicate_support,
        }
    return config


def _only(hook_points: tuple[str, ...]) -> str:
    return hook_points[0] if len(hook_points) == 1 else ""
