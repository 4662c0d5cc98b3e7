"""The pages as a reader sees and clicks them, in Chromium."""

import shutil
from pathlib import Path

from tests.pipeline.report import made
from tests.pipeline.report.browser import Browser

PAGE = Path(made.SITE) / "topk-d300-k8-s0" / "index.html"
SHOWN = (
    "Array.from(document.querySelectorAll('.row'), (row) => [row.offsetTop, +row.dataset.feature])"
    ".sort((a, b) => a[0] - b[0]).map((row) => row[1])"
)


def shown(browser: Browser) -> list[int]:
    """The features in sight, from top to bottom."""
    return browser.js(SHOWN)


def view_of(browser: Browser, feature: int) -> None:
    browser.wait(
        f"document.getElementById('view').dataset.feature === '{feature}' && !document.getElementById('view').hidden"
    )


def test_the_index_draws_its_plots_and_tables(report: Path, browser: Browser) -> None:
    browser.open(report / "index.html")
    browser.wait("document.querySelectorAll('.plot svg').length === 4")  # FVU, CE score, two densities
    drawn = "Array.from(document.querySelectorAll('.plot .point'), (p) => p.getBoundingClientRect().width > 3)"
    assert browser.js(drawn) == [True] * (2 + 3 + 3)  # a basis at two L0, three dictionaries; CE score of these
    assert browser.js("document.querySelectorAll('#table tbody tr').length") == 4
    cells = "document.querySelectorAll('#mmcs ~ div table')[0].querySelectorAll('td')"
    mmcs = browser.js(f"Array.from({cells}, (td) => td.textContent)")
    assert mmcs == ["", ".70", ".40", ".70", "", "", "", "", ""]
    assert browser.js("document.querySelectorAll('.cards rect').length") > 10
    assert browser.js("document.querySelector('#labels ~ div td').textContent") == ".95"


def test_the_index_tells_a_point_s_name_on_hover_and_leads_to_its_page(report: Path, browser: Browser) -> None:
    browser.open(report / "index.html")
    browser.wait("document.querySelector('a .point') !== null")
    browser.point("a:has(circle)", click=False)
    assert browser.js("document.getElementById('tip').textContent").startswith("topk-d300-k8-s")
    browser.point("a:has(circle)", click=True)
    browser.wait("document.querySelectorAll('.row').length > 0")
    assert browser.js("document.title").startswith("topk-d300-k8-s")


def test_the_table_of_scores_sorts_and_shows_warnings(report: Path, browser: Browser) -> None:
    browser.open(report / "index.html")
    names = "Array.from(document.querySelectorAll('#table tbody td:first-child'), (td) => td.textContent)"
    fvu = "Array.from(document.querySelectorAll('#table thead button')).find((b) => b.textContent === 'FVU')"
    browser.js(f"{fvu}.click()")
    assert browser.js(names) == ["neuron_basis", "topk-d300-k8-s0", "topk-d300-k8-s1", "relu_l1-d300-l0_8.0-s0 !"]
    browser.js(f"{fvu}.click()")
    assert browser.js(names)[0] == "relu_l1-d300-l0_8.0-s0 !"
    assert "30% of features are <i>dead</i>" in browser.js("document.querySelector('.says li').textContent")


def test_each_score_has_its_spread_and_a_mark_where_the_next_is_not_apart(report: Path, browser: Browser) -> None:
    browser.open(report / "index.html")
    row = "Array.from(document.querySelectorAll('#table tbody tr')).find((r) => r.textContent.includes('topk-d300-k8-s0'))"
    cells = browser.js(f"Array.from({row}.cells, (td) => td.textContent)")
    assert "~0.050 ± 0.0014" in cells  # of the other one of the two nothing is known
    assert "5 ± 0" in cells  # labels
    alone = row.replace("topk-d300-k8-s0", "relu")
    assert not any("±" in cell for cell in browser.js(f"Array.from({alone}.cells, (td) => td.textContent)"))
    browser.open(report / PAGE)
    assert "FVU 0.050 ± 0.0014 · " in browser.js("document.getElementById('facts').textContent")


def test_margins_and_published_orderings_are_told(report: Path, browser: Browser) -> None:
    browser.open(report / "index.html")
    lines = (
        "Array.from(document.querySelector('{} ~ .wide').querySelectorAll('tbody tr'), (r) => r.innerText.split('\t'))"
    )
    margins = browser.js(lines.format("#margins"))
    assert [line[:2] for line in margins] == [
        ["topk-d300-k8", "best control"],
        ["topk-d300-k8", "best basis that is not sparse"],
    ]
    assert "+5.0 shuffled codes" in margins[0]
    (ordering,) = browser.js(lines.format("#orderings"))
    assert ordering[:2] == ["topk below relu_l1 in FVU", "holds, no spread known"]
    assert ordering[4:] == ["0.051 ± .001, 0.070", "300", "8.2"]


def test_the_table_of_labels_has_chance_and_all_coordinates_beside(report: Path, browser: Browser) -> None:
    browser.open(report / "index.html")
    table = "document.querySelector('#labels ~ div table')"
    titles = browser.js(f"Array.from({table}.tHead.querySelectorAll('th'), (th) => th.textContent)")
    assert titles[-3:] == ["all coordinates", "shuffled codes", "positives"]
    first = browser.js(f"Array.from({table}.querySelector('tbody tr').cells, (td) => td.textContent)")
    assert first == ["keyword", ".95", ".95", ".50", ".99", ".21", "100"]


def test_the_list_holds_the_rows_in_sight_alone_and_sorts(report: Path, browser: Browser) -> None:
    browser.open(report / PAGE)
    assert shown(browser)[:3] == [0, 1, 2]
    assert len(shown(browser)) < 60
    browser.point("[data-key=max]", click=True)
    assert shown(browser)[:3] == [298, 297, 296]  # the largest first; the dead one, 299, has none
    browser.point("[data-key=max]", click=True)
    assert shown(browser)[:2] == [0, 1]
    browser.js("document.getElementById('rows').scrollTop = 1e9")
    browser.wait(f"{SHOWN}.includes(299)")
    browser.point("[data-key=rule]", click=True)
    assert [feature % 3 for feature in shown(browser)[:5]] == [0] * 5


def test_search_finds_labels_rules_tokens_and_indices(report: Path, browser: Browser) -> None:
    def found(query: str) -> list[int]:
        browser.js("document.getElementById('search').value = ''")
        browser.point("#search", click=True)
        browser.write(query)
        return shown(browser)

    browser.open(report / PAGE)
    assert found("KEYWORD")[:3] == [0, 5, 10]
    assert found("<b>3</b>")[:2] == [3, 123]
    assert found("#12") == [12]
    assert found("&amp;")[0] == 0
    assert 2 in found("&amp;")
    assert 13 not in found("&amp;")
    assert found("argument <b>9</b>") == [9, 129, 249]
    assert found("nowhere") == []
    assert browser.js("document.getElementById('count').textContent") == "0 of 300"


def test_the_dead_can_be_hidden(report: Path, browser: Browser) -> None:
    browser.open(report / PAGE)
    browser.point("#alive", click=True)
    assert browser.js("document.getElementById('count').textContent") == "299 of 300"


def test_keys_step_open_search_and_close(report: Path, browser: Browser) -> None:
    browser.open(report / PAGE)
    for key in ("j", "ArrowDown", "j", "k"):
        browser.press(key)
    assert browser.js("+document.querySelector('.row.chosen').dataset.feature") == 1
    browser.press("Enter")
    view_of(browser, 1)
    browser.press("j")
    view_of(browser, 2)
    assert browser.js("location.hash") == "#feature=2"
    browser.press("/")
    assert browser.js("document.activeElement.id") == "search"
    browser.write("keyword")
    browser.press("Enter")
    view_of(browser, 0)
    browser.press("Escape")
    browser.wait("document.getElementById('view').hidden")


def test_a_link_opens_a_feature_s_view_with_all_that_is_known(report: Path, browser: Browser) -> None:
    browser.open(report / PAGE, "#feature=270")  # of the second part
    view_of(browser, 270)
    text = browser.js("document.getElementById('view').innerText")
    for expected in ("Feature 270", "keyword", "token == <b>30</b> & in a string", "precision 0.90", "explains 60%",
                     "Promoted tokens", "Suppressed tokens", "Neighbours", "Fires together with", "topk-d300-k8-s1 270",
                     "Largest activations", "quantile group 1 of 2, the strongest"):  # fmt: skip
        assert expected in text, expected
    browser.wait("document.querySelectorAll('#view .plot rect').length >= 7")
    assert browser.js("document.querySelectorAll('.contexts li').length") == 7
    assert browser.js("document.querySelector('.contexts li').querySelectorAll('.t').length") == 21


def test_a_context_tells_each_token_s_activation_on_hover(report: Path, browser: Browser) -> None:
    browser.open(report / PAGE, "#feature=20")
    view_of(browser, 20)
    browser.point(".t.peak", click=False)
    assert browser.js("document.getElementById('tip').textContent").splitlines()[1:] == [
        "3.00",
        "token 20, position 20",
    ]
    browser.point(".contexts .t", click=True)
    assert "no activation is kept here" in browser.js("document.getElementById('tip').textContent")
    assert browser.js("getComputedStyle(document.querySelector('.t.peak')).backgroundColor") != "rgba(0, 0, 0, 0)"


def test_links_lead_to_neighbours_here_and_in_the_other_dictionaries(report: Path, browser: Browser) -> None:
    browser.open(report / PAGE, "#feature=20")
    view_of(browser, 20)
    browser.point(".columns a[href='#feature=21']", click=True)
    view_of(browser, 21)
    browser.point(".columns a[href*='s1/index.html']", click=True)
    browser.wait(
        "document.title.startsWith('topk-d300-k8-s1') && document.getElementById('view').dataset.feature === '21'"
    )
    assert "relu_l1" not in browser.js(
        "Array.from(document.querySelectorAll('.columns a'), (a) => a.href).join()"
    )  # no page


def test_hostile_text_is_seen_and_not_executed(report: Path, browser: Browser) -> None:
    browser.open(report / PAGE)
    for feature in range(len(made.HOSTILE)):
        browser.js(f"location.hash = 'feature={feature}'")
        view_of(browser, feature)
        top = browser.js("document.querySelector('.columns .chip').textContent")
        signs = {"\ud800": "U+D800", "\n": "↵", "\0": "U+0000", "\u202e": "U+202E", "\u2028": "U+2028"}
        assert top == signs.get(made.HOSTILE[feature], made.HOSTILE[feature].replace(" ", "·"))
        assert browser.js("document.querySelector('.t.peak').textContent").replace(" ", "·") == top
        assert browser.js("document.title").startswith("topk")
        assert (
            browser.js("document.querySelectorAll('.chip *:not(.sign), .t *:not(.sign), .row b, #view img').length")
            == 0
        )


def test_a_missing_part_is_told_in_place_of_the_view(report: Path, browser: Browser, tmp_path: Path) -> None:
    copy = shutil.copytree(report, tmp_path / "report")
    (copy / PAGE.parent / "data" / "part-1.js").unlink()
    browser.open(copy / PAGE, "#feature=299")
    view_of(browser, 299)
    assert "data/part-1.js is missing" in browser.js("document.getElementById('view').textContent")
    while not browser.errors:  # the console tells it too, perhaps later
        browser.js("1")
    browser.call("Log.clear")
    browser.errors.clear()


def test_a_narrow_screen_has_the_list_or_the_view_and_nothing_sticks_out(report: Path, browser: Browser) -> None:
    browser.resize(390, 844)
    for page, fragment in (("index.html", ""), (PAGE, ""), (PAGE, "#feature=3")):
        browser.open(report / page, fragment)
        if fragment:
            view_of(browser, 3)
            assert browser.js("document.getElementById('list').offsetWidth") == 0
        assert browser.js("document.documentElement.scrollWidth") <= 390


def test_the_theme_is_the_system_s_until_the_button_is_pressed(report: Path, browser: Browser) -> None:
    back = "getComputedStyle(document.body).backgroundColor"
    browser.open(report / "index.html")
    light = browser.js(back)
    browser.point("#theme", click=True)
    dark = browser.js(back)
    assert light != dark
    browser.open(report / PAGE)
    assert browser.js(back) == dark
    browser.point("#theme", click=True)
    assert browser.js(back) == light
