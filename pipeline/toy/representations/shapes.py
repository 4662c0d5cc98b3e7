"""Pictures of a circle or a triangle on a coloured ground, and small networks that tell them apart."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.toy.networks import Networks, minimise
from stores.manifest import seed_of

SIZE = 12  # pixels a side
GROUNDS = {"red": (1.0, 0.0, 0.0), "blue": (0.0, 0.0, 1.0), "purple": (0.5, 0.0, 0.5)}
SEEN = ("red", "blue")


@dataclass(frozen=True)
class Pictures:
    """x (n_seeds, n, 3 · SIZE²) in [0, 1], less their middle; blue, triangle: (n_seeds, n) bool."""

    x: Tensor
    blue: Tensor
    triangle: Tensor

    @property
    def classes(self) -> Tensor:
        """Red circle, red triangle, blue circle, blue triangle: 0 … 3."""
        return 2 * self.blue.long() + self.triangle.long()


def paint(ground: Tensor, triangle: Tensor, where: Tensor, radius: Tensor, shade: Tensor, grey: Tensor) -> Tensor:
    """ground (n, 3) RGB; triangle (n,) bool; where (n, 2) the centre, radius, in pixels; shade, grey (n,) of the ground and
    of the shape, in [0, 1] → (n, 3, SIZE, SIZE). A triangle has the area of the circle. Edges are one pixel soft."""
    axis = torch.arange(SIZE, dtype=torch.float)
    dx, dy = axis[None, None, :] - where[:, 0, None, None], axis[None, :, None] - where[:, 1, None, None]
    radius = radius[:, None, None]
    inner = radius * math.sqrt(math.pi / (3 * math.sqrt(3)))  # an equilateral triangle has the area 3 √3 inner²
    sides = [dx * math.sin(turn) - dy * math.cos(turn) for turn in (math.pi, math.pi / 3, -math.pi / 3)]
    outside = torch.where(triangle[:, None, None], torch.stack(sides).amax(0) - inner, (dx**2 + dy**2).sqrt() - radius)
    inside = (0.5 - outside).clamp(0, 1)[:, None]
    return inside * grey[:, None, None, None] + (1 - inside) * (ground * shade[:, None])[:, :, None, None]


def draw(n_seeds: int, n: int, grounds: tuple[str, ...], generator: torch.Generator) -> Pictures:
    """n pictures for each seed. Place, size and both shades are drawn for each picture."""
    total = n_seeds * n
    which = torch.randint(len(grounds), (total,), generator=generator)
    triangle = torch.rand(total, generator=generator) < 0.5
    colours = torch.tensor([GROUNDS[name] for name in grounds])[which]
    u = torch.rand(total, 5, generator=generator)
    painted = paint(
        colours, triangle, 3.5 + 4 * u[:, :2], 1.8 + 1.7 * u[:, 2], 0.4 + 0.6 * u[:, 3], 0.4 + 0.6 * u[:, 4]
    )
    blue = torch.tensor([name == "blue" for name in grounds])[which]
    return Pictures(painted.reshape(n_seeds, n, -1) - 0.25, blue.view(n_seeds, n), triangle.view(n_seeds, n))


def shades(n_seeds: int, n: int, generator: torch.Generator) -> Tensor:
    """A red ground from dark to light under the same shape: (n_seeds, n, 3 · SIZE²)."""
    u = torch.rand(n_seeds, 4, generator=generator).repeat_interleave(n, 0)
    shade = torch.linspace(0.4, 1.0, n).repeat(n_seeds)
    triangle = (torch.rand(n_seeds, generator=generator) < 0.5).repeat_interleave(n)
    ground = torch.tensor(GROUNDS["red"]).expand(len(shade), 3)
    painted = paint(ground, triangle, 3.5 + 4 * u[:, :2], 1.8 + 1.7 * u[:, 2], shade, 0.4 + 0.6 * u[:, 3])
    return painted.reshape(n_seeds, n, -1) - 0.25


def train(pictures: Pictures, labels: Tensor, widths: tuple[int, ...], n_steps: int, seed: int) -> Networks:
    """A net for each seed, from pictures to four classes. labels (n_seeds, n) int64."""
    n_seeds, n, d_in = pictures.x.shape
    generator = torch.Generator().manual_seed(seed_of("shapes", seed))
    networks = Networks.drawn(n_seeds, (d_in, *widths, 4), generator)
    of = torch.arange(n_seeds)[:, None]

    def losses(_: int) -> Tensor:
        chosen = torch.randint(n, (n_seeds, 64), generator=generator)
        logits = networks(pictures.x[of, chosen])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[of, chosen].flatten(), reduction="none")
        return loss.view(n_seeds, -1).mean(1)

    minimise(networks.parameters(), losses, n_steps, 5e-3)
    return networks


def read(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of the four classes → the probability of blue, and of a triangle, (…,) each."""
    p = logits.softmax(-1)
    return p[..., 2] + p[..., 3], p[..., 1] + p[..., 3]
