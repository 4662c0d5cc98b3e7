"""`unmix methods`: what it prints, by name, of files, as JSON, in a terminal."""

import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from pipeline import tables
from pipeline.train.described import described
from pipeline.train.methods import METHODS
from tests.conftest import unmix

MINE = '''"""A family of mine [a, b] (Me 2026)."""

from pydantic import Field

from pipeline.train.families.topk import TopK, TopKConfig


class MyConfig(TopKConfig):
    own_key: float = Field(default=0.5, description="What [it] is.")
    bare_key: int = 12345


class Mine(TopK):
    Config = MyConfig


METHODS = {"mine": Mine}
'''


@pytest.mark.parametrize("name", METHODS)
def test_a_methods_page_shows_every_key_with_its_default_and_meaning(name: str, tmp_path: Path) -> None:
    lines = unmix("methods", name, cwd=tmp_path).stdout.splitlines()
    assert lines[0].startswith(f"{name}: ")
    for keys in described(name, METHODS[name]).keys:
        for key in keys.keys:
            (line,) = (line for line in lines if line.startswith(f"{key.name} "))
            assert line.rstrip().endswith(f" {key.meaning}")
            if key.required:
                assert " required " in line


def test_the_list_shows_every_method(tmp_path: Path) -> None:
    out = unmix("methods", cwd=tmp_path).stdout
    assert re.findall(r"^[a-z]\w+(?=  )", out, re.MULTILINE) == ["method", *METHODS]
    assert "\x1b" not in out
    assert "Gao et al. 2024, arXiv:2406.04093" in out


def test_methods_of_a_file_are_among_them(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    assert "mine " in (out := unmix("methods", "--file", "mine.py", cwd=tmp_path).stdout)
    assert "A family of mine [a, b] (Me 2026). From mine.py." in out
    out = unmix("methods", "mine", "--file", "mine.py", cwd=tmp_path).stdout
    assert re.search(r"^own_key +0\.5 +What \[it\] is\.", out, re.MULTILINE)
    assert re.search(r"^bare_key +12_345 *$", out, re.MULTILINE)
    assert out.index("own_key") < out.index("aux_k") < out.index("d_sae  ")


def test_json_says_the_same(tmp_path: Path) -> None:
    every = json.loads(unmix("methods", "--json", cwd=tmp_path).stdout)
    assert [method["name"] for method in every] == list(METHODS)
    one = json.loads(unmix("methods", "topk", "--json", cwd=tmp_path).stdout)
    assert one == every[0]
    found = {key["name"]: key for keys in one["keys"] for key in keys["keys"]}
    assert set(found) == set(METHODS["topk"].config.model_fields)
    assert found["decay_shape"]["default"] == "linear"
    assert found["lr"]["default"] is None
    assert found["d_sae"]["required"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["topkk"], "unmix: no method 'topkk', did you mean topk?\n"),
        (["--file", "none.py"], "none.py: no such file"),
    ],
)
def test_what_is_not_there_is_told_in_a_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    done = unmix("methods", *arguments, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("width", [80, 160])
def test_a_terminal_gets_no_line_that_is_wider(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tables, "_console", lambda: Console(width=width))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    for name, method in METHODS.items():
        tables.show_method(described(name, method))
    tables.show_methods([described(name, method) for name, method in METHODS.items()])
    lines = re.sub(r"\x1b\[\d*m", "", capsys.readouterr().out).splitlines()
    assert max(map(len, lines)) <= width
    assert all("…" not in line for line in lines)
    assert any(line.startswith("resample_every_tokens ") for line in lines)
