"""Where TransformerLens's hook points lie in the modules of a Hugging Face model: its architecture adapters tell.

The only file that imports transformer-lens, which takes seconds: it is imported when such a model is loaded.
"""

from dataclasses import dataclass
from typing import Any, Literal

Side = Literal["in", "out"]


@dataclass(frozen=True)
class Places:
    """Dotted paths of modules; what is of a layer is seen from the layer, and "" is the layer itself.

    sites: site → (module, whether its input or its output). parts: TransformerLens's name of a matrix or norm of a layer
    (attn.o, mlp.in, mlp.gate, mlp.out, ln1, ln2, ln1_post, ln2_post) → module. norm_offset: norms multiply by 1 + weight.
    """

    embed: str
    layers: str
    sites: dict[str, tuple[str, Side]]
    parts: dict[str, str]
    norm_offset: bool


def places(config: Any, architecture: str) -> Places:
    """config: of transformers; architecture: the class of its language model, such as LlamaForCausalLM."""
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.factories.architecture_adapter_factory import ArchitectureAdapterFactory
    from transformer_lens.model_bridge.sources.transformers import map_default_transformer_lens_config

    found = TransformerBridgeConfig.from_dict(dict(map_default_transformer_lens_config(config).__dict__))
    found.architecture = architecture
    if hasattr(config, "use_parallel_residual"):
        found.use_parallel_residual = config.use_parallel_residual  # pyright: ignore[reportAttributeAccessIssue]
    adapter = ArchitectureAdapterFactory.select_architecture_adapter(found)
    components: Any = adapter.component_mapping
    block = components["blocks"]
    parts = _parts(block, "", "")
    sites: dict[str, tuple[str, Side]] = {f"{norm}.hook_normalized": (parts[norm], "out") for norm in ("ln1", "ln2")}
    aliases = {**block.hook_aliases}
    aliases |= {
        f"{part}.{name}": f"{part}.{alias}" for part in ("attn", "mlp") for name, alias in _aliases(block, part)
    }
    for name, alias in aliases.items():
        part, _, side = alias.rpartition("hook_")
        path = parts.get(part.rstrip("."))
        if path is not None and side in ("in", "out"):
            sites[name] = (path, "in" if side == "in" else "out")
    return Places(
        components["embed"].name, block.name, sites, parts, bool(getattr(adapter.cfg, "rmsnorm_uses_offset", False))
    )


def _aliases(block: Any, part: str) -> list[tuple[str, str]]:
    return list(block.submodules[part].hook_aliases.items())


def _parts(component: Any, name: str, path: str) -> dict[str, str]:
    """TransformerLens's name → the module's path, of a component and all within it."""
    found = {name: path}
    for key, inner in component.submodules.items():
        found |= _parts(inner, f"{name}.{key}".lstrip("."), f"{path}.{inner.name}".lstrip("."))
    return found
