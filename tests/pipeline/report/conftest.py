"""A small report, made once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.report.pages import write_report
from tests.pipeline.report import made
from tests.pipeline.report.browser import CHROMIUM, Browser, NoAnswer


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the report of made.small_run."""
    return write_report(made.small_run(tmp_path_factory.mktemp("runs") / "small")).parent


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Skips where there is no Chromium, or one that does not start."""
    if CHROMIUM is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on PATH")
    try:
        started = Browser(tmp_path_factory.mktemp("profile"))
    except NoAnswer as e:
        pytest.skip(f"{CHROMIUM} does not start: {e}")
    with started as browser:
        yield browser


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    """At 1400 x 900, with nothing said or asked yet. When the test is done, no page may have complained, or asked for what
    lies on no disk."""
    chromium.resize(1400, 900)
    chromium.call("Log.clear")  # else what is stored is told again to the next page
    chromium.errors.clear()
    chromium.asked.clear()
    yield chromium
    assert chromium.errors == []
    assert [address for address in chromium.asked if not address.startswith(("file:", "data:"))] == []
