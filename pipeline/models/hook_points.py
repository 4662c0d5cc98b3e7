"""Hook points of a transformer that writes and reads one residual stream: names, sizes, order in the pass.

The names are TransformerLens's. One head of attn.hook_z is "blocks.L.attn.hook_z.H", which TransformerLens has no name for.
"""

import re
from dataclasses import dataclass

from pipeline.config import UserError, nearest

EMBED = "hook_embed"
HEADS = "attn.hook_z"
SITES = (  # of a layer, in the order of the pass
    "hook_resid_pre",
    "ln1.hook_normalized",
    HEADS,
    "hook_attn_out",
    "hook_resid_mid",
    "ln2.hook_normalized",
    "mlp.hook_pre",
    "mlp.hook_pre_linear",
    "mlp.hook_post",
    "hook_mlp_out",
    "hook_resid_post",
)
_OF_MLP = ("mlp.hook_pre", "mlp.hook_pre_linear", "mlp.hook_post")


@dataclass(frozen=True)
class Sizes:
    """What of config.json says which hook points there are and how wide each is.

    gated: the MLP has a gate, so that hook_pre is what the gate's activation reads and hook_pre_linear what it multiplies.
    parallel: attention and MLP read the same residual stream, so that there is none between them.
    """

    n_layers: int
    n_positions: int
    vocab_size: int
    d_model: int
    d_mlp: int
    n_heads: int
    d_head: int
    gated: bool = False
    parallel: bool = False

    @property
    def sites(self) -> tuple[str, ...]:
        """What follows "blocks.L." in the hook points of a layer, in the order of the pass."""
        absent = {"mlp.hook_pre_linear": not self.gated, "hook_resid_mid": self.parallel}
        return tuple(site for site in SITES if not absent.get(site))

    @property
    def hook_points(self) -> list[str]:
        """All, in the order of the pass; heads are not named one by one."""
        return [EMBED, *(f"blocks.{layer}.{site}" for layer in range(self.n_layers) for site in self.sites)]

    def locate(self, hook_point: str) -> tuple[int, str]:
        """(layer, site); (-1, "hook_embed"), and a head's site is "attn.hook_z.H".

        Raises UserError: no such site, layer or head.
        """
        if hook_point == EMBED:
            return -1, EMBED
        match = re.fullmatch(r"blocks\.(0|[1-9][0-9]*)\.(.+)", hook_point)
        head = match and re.fullmatch(rf"{re.escape(HEADS)}\.(0|[1-9][0-9]*)", match[2])
        if match and (head or match[2] in self.sites):
            if int(match[1]) >= self.n_layers:
                raise UserError(
                    f"hook point {hook_point!r}: layer {match[1]} is out of range, the model has layers 0 to "
                    f"{self.n_layers - 1}"
                )
            if head and int(head[1]) >= self.n_heads:
                raise UserError(
                    f"hook point {hook_point!r}: head {head[1]} is out of range, the model has heads 0 to {self.n_heads - 1}"
                )
            return int(match[1]), match[2]
        known = [EMBED, *(f"blocks.L.{site}" for site in self.sites), f"blocks.L.{HEADS}.H"]
        hint = nearest(re.sub(r"\d+", "L", hook_point, count=1), known)
        if "mean" in hint:
            hint += f" (of: {', '.join(known)})"
        raise UserError(f"unknown hook point {hook_point!r}{hint}, for L from 0 to {self.n_layers - 1}")

    def d(self, hook_point: str) -> int:
        """Coordinates at a hook point; those of attn.hook_z are all heads', one after another. Raises UserError."""
        _, site = self.locate(hook_point)
        if site == HEADS:
            return self.n_heads * self.d_head
        if site.startswith(HEADS):
            return self.d_head
        return self.d_mlp if site in _OF_MLP else self.d_model


def layer_of(hook_point: str) -> int:
    """-1 before the first layer."""
    found = re.match(r"blocks\.(\d+)\.", hook_point)
    return int(found[1]) if found else -1


def place(hook_point: str) -> tuple[int, int]:
    """In the pass, by its name alone: what is written at a hook point reaches those whose place is not less. Heads stand
    together."""
    name = hook_point.removeprefix(f"blocks.{layer_of(hook_point)}.")
    name = HEADS if name.startswith(HEADS) else name
    return layer_of(hook_point), SITES.index(name) if name in SITES else -1


def of_every_layer(hook_point: str, where: str) -> bool:
    """Whether `*` stands in the name for the layer. Raises UserError, which names the setting `where`: for something else."""
    if "*" in hook_point and not hook_point.startswith("blocks.*."):
        raise UserError(f"{where}: {hook_point!r}: * stands for a layer, as in blocks.*.hook_resid_post")
    return "*" in hook_point
