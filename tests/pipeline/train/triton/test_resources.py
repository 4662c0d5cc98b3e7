"""What the kernels take of a GPU, from the binaries that Triton assembles for it without one."""

import re

import pytest

pytest.importorskip("triton", reason="triton is not installed: pip install -e '.[dev]' on Linux")

from scripts.kernel_resources import ARCHITECTURES, Launch, compiled, encoder, launches, of_step

# Most registers of a thread, most bytes of shared memory, least warps at a time of the 64 that a multiprocessor has. The
# measured ones are up to 86, 4096 and 22 (encode.products: 190, 98320 and 8, with Triton 3.6, 3.7.1 and 3.9).
BOUNDS = {
    "bag.later_parts": (96, 2048, 20),
    "bag.rows": (96, 2048, 20),
    "dots.pairs": (96, 2048, 20),
    "update.dense": (64, 512, 32),
    "update.sparse": (64, 8192, 32),
    "encode.products": (192, 112 * 1024, 8),
}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("launch", of_step(768), ids=str)
def test_they_assemble_and_stay_in_registers(launch: Launch, architecture: int) -> None:
    """The first kernels were compiled by nothing before a GPU was there: what Triton's compiler refuses and its interpreter
    takes would have ended the first step on one."""
    found = compiled(launch, architecture)
    registers, shared, warps = BOUNDS[str(launch).split()[0]]
    assert found.spilled == 0
    assert found.registers <= registers
    assert found.shared <= shared
    assert found.warps(launch.warps) >= warps


def test_the_encoder_multiplies_on_tensor_cores() -> None:
    """By the instructions of each architecture, on tiles that are fetched while others are multiplied."""
    expected = {80: ("mma.sync", "cp.async"), 90: ("wgmma", "cp.async"), 100: ("tcgen05.mma", "cp.async")}
    for architecture, instructions in expected.items():
        ptx = compiled(encoder(768), architecture).ptx
        assert all(name in ptx for name in instructions), architecture


@pytest.mark.parametrize("launch", launches(8192)[3:], ids=str)
def test_the_longest_rows_of_an_update_stay_in_registers(launch: Launch) -> None:
    assert compiled(launch, 90).spilled == 0


@pytest.mark.parametrize("launch", [*launches(768), encoder(768)], ids=str)
def test_only_columns_are_counted_in_32_bits(launch: Launch) -> None:
    """Rows and entries, times d or as they are, pass 2³¹ in large dictionaries. The first kernels counted them in 64 bits,
    and no test held it. Inside of a tile of pre-activations, which is 128 rows, 32 bits do."""
    ttir = compiled(launch, 90).ttir
    of_columns = re.findall(r"(%\S+) = tt\.get_program_id y", ttir)
    products = [line for line in ttir.splitlines() if "arith.muli" in line]
    assert any("i64" in line for line in products)
    for line in (line for line in products if not ("encode" in str(launch) and "tensor<" in line)):
        assert re.search(r": (tensor<\S+x)?i64>? ", line) or any(name in line for name in of_columns), line
