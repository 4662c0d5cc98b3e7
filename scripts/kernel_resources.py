"""What the Triton kernels of a training step take of a GPU: registers, spills, shared memory, warps that run at a time.

Triton compiles and assembles for a named architecture without a device. `python -m scripts.kernel_resources` prints a table
for sm_80 (A100), sm_90 (H100, H200) and sm_100 (B200).
"""

import re
import subprocess
import tempfile
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton
import triton.backends.nvidia
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from pipeline.train.triton import bag, dots, encode, update
from pipeline.train.triton.parts import AT_ONCE, PART

ARCHITECTURES = (80, 90, 100)
_CUOBJDUMP = Path(triton.backends.nvidia.__file__).parent / "bin" / "cuobjdump"
_TYPES = {"indices": "*i64", "offsets": "*i64"} | dict.fromkeys(("n_rows", "n_tiles", "n_latents"), "i32")
_OF_TABLES = ("table", "gradient", "x", "W", "b", "pre", "maxima")  # arguments whose dtype is the table's


@dataclass(frozen=True)
class Launch:
    """A kernel with the constants and the number of warps that it is launched with."""

    kernel: Any
    constants: dict[str, Any]
    warps: int
    table: str = "float32"  # the dtype of the table, of encode that of all
    stages: int = 3

    def __str__(self) -> str:
        module, name = self.kernel.fn.__module__.rpartition(".")[2], self.kernel.fn.__name__
        return f"{module}.{name} d={self.constants['d']} {self.table}"


@dataclass(frozen=True)
class Resources:
    registers: int  # of a thread
    spilled: int  # bytes of a thread
    shared: int  # bytes of a program
    ttir: str
    ptx: str

    def warps(self, of_program: int) -> int:
        """Warps that a multiprocessor of sm_80, sm_90 or sm_100 runs at a time, of 64: it has 65,536 registers, given
        to a warp by 256, and 32 programs at most."""
        of_warp = -(-self.registers * 32 // 256) * 256
        programs = min(65536 // of_warp, 64) // of_program
        shared = 164 * 1024 // (self.shared + 1024)  # what the least of the three has
        return of_program * min(programs, shared, 32)


def launches(d: int, table: str = "float32") -> list[Launch]:
    """Of everything that a step launches for rows of d columns."""
    common = {"d": d, "PART": PART}
    columns, warps = bag.block_of(d)
    of_bag = common | {"BLOCK": columns, "AT_ONCE": AT_ONCE}
    block, dots_warps = dots.block_of(d)
    row, row_warps = update.block_of(d)
    whole = {"d": d, "BLOCK": row, "UNIT": True}
    return [
        Launch(bag.later_parts, of_bag, warps, table),
        Launch(bag.rows, of_bag, warps, table),
        Launch(dots.pairs, common | {"BLOCK": block, "AT_ONCE": AT_ONCE}, dots_warps, table),
        Launch(update.dense, whole, row_warps, table),
        Launch(update.sparse, common | whole | {"AT_ONCE": update.AT_ONCE}, row_warps, table),
    ]


def encoder(d: int) -> Launch:
    """Of the pre-activations."""
    tile = {"ROWS": encode.ROWS, "LATENTS": encode.LATENTS, "COLUMNS": encode.COLUMNS}
    constants = {"d": d, **tile, "GROUP": encode.GROUP, "ABREAST": encode.TILES_ABREAST}
    return Launch(encode.products, constants, encode.WARPS, "bfloat16", encode.STAGES)


def compiled(launch: Launch, architecture: int) -> Resources:
    """For sm_{architecture}, pointers aligned by 16 bytes as PyTorch's are."""
    names = launch.kernel.arg_names
    pointer = {"float32": "*fp32", "bfloat16": "*bf16"}[launch.table]
    types = _TYPES | dict.fromkeys(_OF_TABLES, pointer)
    signature = {name: "constexpr" if name in launch.constants else types.get(name, "*fp32") for name in names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if signature[name].startswith("*")}
    constants = {(names.index(name),): value for name, value in launch.constants.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the default of enable_fp_fusion will change
        made = triton.compile(
            ASTSource(launch.kernel, signature, constants, aligned),
            target=GPUTarget("cuda", architecture, 32),
            options={"num_warps": launch.warps, "num_stages": launch.stages},
        )
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        command = [str(_CUOBJDUMP), "--dump-resource-usage", file.name]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = {name: int(value) for name, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", said)}
    return Resources(
        found["REG"], found["STACK"] + found["LOCAL"], made.metadata.shared, made.asm["ttir"], made.asm["ptx"]
    )


def table(own: Iterable[Launch], architectures: Iterable[int]) -> list[str]:
    """Lines of a table in Markdown."""
    lines = ["| kernel | sm | registers | spilled, bytes | shared, bytes | warps of 64 |", "|---|---|---|---|---|---|"]
    for launch in own:
        for architecture in architectures:
            of = compiled(launch, architecture)
            numbers = (architecture, of.registers, of.spilled, of.shared, of.warps(launch.warps))
            lines.append(f"| {launch} | " + " | ".join(map(str, numbers)) + " |")
    return lines


def of_step(d: int) -> list[Launch]:
    return [encoder(d), *launches(d), *launches(d, "bfloat16")]


def main() -> None:
    print("\n".join(table([*of_step(768), *of_step(4096)], ARCHITECTURES)))


if __name__ == "__main__":
    main()
