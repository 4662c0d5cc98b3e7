"""What is printed is whole, however long the names are."""

from pathlib import Path

import pytest

from pipeline.stages import Progress
from pipeline.tables import show_status

SITE = "blocks.0-11.ln2.hook_normalized+hook_embed--blocks.0-11.hook_mlp_out"


def test_a_long_sites_name_takes_nothing_from_the_other_columns(capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path("runs/transcoders/score") / SITE / "topk-d24576-k32-s0-skip_False"
    show_status([Progress("score", folder.name, "started", 0, 1, "dictionary", 0.25, folder)])
    line = capsys.readouterr().out.split("\n")[1]
    assert line.split("  ")[0] == "score"
    for whole in (
        f"{SITE}/{folder.name}",
        " started ",
        " 0 / 1 dictionary ",
        " 0.25 dictionary/s ",
        " 4 s ",
        str(folder),
    ):
        assert whole in line
