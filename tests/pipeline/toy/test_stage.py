"""Toys as units: skipped, resumed, refused; and bad input, before anything is written."""

from pathlib import Path

import pytest
from markupsafe import escape

from pipeline.toy import stage
from pipeline.toy.page import Page, Section, Table, write
from stores.manifest import read_json
from tests.conftest import make_store, unmix

FAST = ["--quick", "--set", "tokens.n_steps=20", "--set", "tokens.n_seeds=4"]


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.rglob("*") if p.is_file()
    }


@pytest.mark.slow
def test_a_toy_is_run_skipped_refused_and_resumed(tmp_path: Path) -> None:
    assert "toy: done" in unmix("toy", "tokens", *FAST, cwd=tmp_path).stdout
    folder = tmp_path / "runs" / "toy-quick"
    made = files(folder)
    assert {
        "tokens/index.html",
        "tokens/maps.png",
        "tokens/unit_norms.json",
        "tokens/manifest.json",
        "tokens/findings.json",
        "index.html",
    } <= set(made)
    page = made["tokens/index.html"][1].decode()
    assert "data:image/png;base64," in page
    assert "http" not in page.replace("http-equiv", "")  # it is whole
    for finding in read_json(folder / "tokens" / "findings.json")["findings"]:  # on the page, and in the table of all
        for check in finding["checks"]:
            assert escape(check["text"]) in page
            assert escape(check["text"]) in made["index.html"][1].decode()

    assert "nothing to do" in unmix("toy", "tokens", *FAST, cwd=tmp_path).stdout
    again = files(folder)
    assert {k: v for k, v in again.items() if k.startswith("tokens")} == {
        k: v for k, v in made.items() if k.startswith("tokens")
    }

    refused = unmix("toy", "tokens", *FAST, "--set", "tokens.d_sae=6", cwd=tmp_path, check=False)
    assert refused.returncode == 2
    assert "toy.d_sae: 20 → 6" in refused.stderr

    # Killed after its first part: that part is not measured again, and the end is the same.
    for name in ("free_norms.json", "manifest.json", "findings.json", "index.html"):
        (folder / "tokens" / name).unlink()
    unmix("toy", "tokens", *FAST, cwd=tmp_path)
    resumed = files(folder)
    assert resumed["tokens/unit_norms.json"] == made["tokens/unit_norms.json"]
    for name in ("tokens/free_norms.json", "tokens/findings.json", "tokens/index.html", "tokens/maps.png"):
        assert resumed[name][1] == made[name][1]

    replaced = unmix("toy", "tokens", *FAST, "--set", "tokens.d_sae=6", "--replace", cwd=tmp_path)
    assert "toy: done" in replaced.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tokenz"], "unknown toy 'tokenz', known are: synthetic, superposition, polytopes"),
        (["synthetic", "--set", "synthetic.G=0"], "synthetic.G: .* greater than or equal to 1, got 0"),
        (["synthetic", "--set", "synthetic.layer=9"], "layer 9 is out of range"),
        (["synthetic", "--set", "synthetic.k=200"], "k = 200 features active of G = 128"),
        (
            ["superposition", "--set", "superposition.p=[0.5, 1.5]"],
            "superposition.p.1: .* less than or equal to 1, got 1.5",
        ),
        (["superposition", "--set", "superposition.p=[0.0]"], "superposition.p.0: .* greater than 0, got 0.0"),
        (["polytopes", "--set", "polytopes.store=s.zarr"], "'blocks.1.mlp.hook_post' is not in the store s.zarr"),
        (["mnist-rotation", "--set", "mnist-rotation.n_fit=[2000]"], "n_fit = 2000 .* has 1297 inputs to fit to"),
        (["mnist-rotation", "--set", "mnist-rotation.data=no-folder"], "no-folder has no file train-images"),
        (["tokens", "--set", "d_sae=3"], "expected TOY.KEY=VALUE"),
        (["tokens", "--set", "tokens.d_sea=3"], "unknown key tokens.d_sea, did you mean d_sae?"),
        (["synthetic", "--set", "synthetic.families=['topq']"], "synthetic.families: unknown 'topq', did you mean"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(tmp_path: Path, arguments: list[str], message: str) -> None:
    import re

    make_store(tmp_path / "s.zarr")
    done = unmix("toy", *arguments, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert re.search(message, done.stderr), done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", stage.TOYS)
def test_every_toy_has_what_a_toy_has(name: str, tmp_path: Path) -> None:
    toy = stage.module(name)
    settings = stage.settings_of([name], [], quick=True)[name]
    assert set(toy.QUICK) <= set(toy.Settings.model_fields)
    assert all(callable(part) for part in toy.parts(settings, tmp_path).values())
    assert not list(tmp_path.iterdir())  # naming the parts measures nothing


def test_pages_show_text_as_it_is(tmp_path: Path) -> None:
    table = Table(["a <b>", "value"], [["x & y", 0.12345], ["none", None]])
    write(tmp_path, lambda: Page("T", "First.\n\nSecond.", [Section("S", "p < 1", [table])]), [], "foot")
    html = (tmp_path / "index.html").read_text()
    for part in ("a &lt;b&gt;", "x &amp; y", "0.123", '<p class="lead">Second.</p>', "p &lt; 1"):
        assert part in html
    assert "None" not in html
