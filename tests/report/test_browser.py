"""The page in a real Chromium: drawn, quiet, readable, and operable without a mouse."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.report.made import ann_of, comparison

import spikequant as sq
from spikequant.report import Provenance, write_report

pytest.importorskip("plotly", reason="the extra 'report' is not installed")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH")

EVIL = "<img src=x onerror=window.pwned=1></script><b>lif</b>"
PLAN = sq.Plan.uniform(weight_bits=4, membrane_bits=8)
SOURCE = Provenance(
    command="spikequant demo --out " + "long/" * 40, seed=0, hashes={"weights": "ab" * 32}, data="digits"
)
DRAWN = """() => [...document.querySelectorAll('[data-plot]')].filter(e => e.offsetParent)
    .map(e => [e.dataset.plot, e.querySelectorAll('svg .trace, svg .point, svg .bars path').length])"""


FITS = """() => [...document.querySelectorAll('[data-plot]')].filter(e => e.offsetParent)
    .every(e => Math.abs(e.querySelector('svg').clientWidth - e.clientWidth) < 2)"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    options = {"plan": PLAN, "provenance": SOURCE, "warnings": [EVIL]}
    two = {
        "W4/U8": comparison(ann=ann_of(("lif1", "lif2"))),
        EVIL: comparison((EVIL, "lif2"), silent=("lif2",), difference=-40.0, after=0.58, notes=(EVIL,)),
    }
    sixty = tuple(f"features.stage{k // 10}.block{k % 10}.with_a_long_name.lif_{k}" for k in range(60))
    large = comparison(sixty, neurons=300)
    large = dataclasses.replace(large, rasters=large.rasters[:50])
    least = comparison(("lif",), diverge=False, moved=0.0, floor=float("nan"), seed_floor=None)
    return {
        "two": write_report(two, folder / "two.html", title=EVIL, **options),
        "sixty": write_report(large, folder / "sixty.html", **options),
        "least": write_report(least, folder / "least.html"),
    }  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield running
        running.close()


class Watched:
    """A page that remembers everything it complained about or asked for."""

    def __init__(self, browser, path: Path) -> None:
        self.page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
        self.page.set_default_timeout(60_000)
        self.heard: list[str] = []
        self.page.on("console", lambda message: self.heard.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.heard.append(str(error)))
        self.page.on("request", lambda request: self.heard.append(request.url))
        self.page.goto(path.as_uri())
        assert self.heard == [path.as_uri()]
        self.heard.clear()

    def check_quiet(self) -> None:
        assert [line for line in self.heard if not line.startswith("data:")] == []

    def check_drawn(self) -> None:
        drawn = dict(self.page.evaluate(DRAWN))
        assert drawn
        assert all(drawn.values()), drawn

    def overflow(self) -> int:
        return self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")

    def style(self, selector: str, name: str) -> str:
        return self.page.eval_on_selector(selector, f"e => getComputedStyle(e).{name}")


@pytest.fixture(scope="module")
def opened(browser, pages) -> dict[str, Watched]:
    """Every page, loaded once: plotly.js is the slow part. A test leaves a page as it found it."""
    return {name: Watched(browser, path) for name, path in pages.items()}


@pytest.mark.parametrize("name", ["two", "sixty", "least"])
def test_quiet_drawn_and_no_wider_than_the_window(opened, name):
    seen = opened[name]
    for width, scheme in ((1280, "dark"), (400, "dark"), (400, "light"), (1280, "light")):
        seen.page.set_viewport_size({"width": width, "height": 900})
        seen.page.emulate_media(color_scheme=scheme)
        seen.page.wait_for_function(FITS)
        for tab in seen.page.get_by_role("tab").all()[::-1]:
            tab.click()
            seen.check_drawn()
            assert seen.overflow() == 0
        seen.check_drawn()
        assert seen.overflow() == 0
    seen.check_quiet()


def test_plots_follow_the_theme(opened):
    seen = opened["least"]
    colours = {}
    for scheme in ("light", "dark"):
        seen.page.emulate_media(color_scheme=scheme)
        seen.page.wait_for_function(
            "s => getComputedStyle(document.querySelector('.xtick text')).fill !== s", arg=colours.get("light", "")
        )
        colours[scheme] = seen.style(".xtick text", "fill")
        assert (
            seen.style("body", "backgroundColor") == {"light": "rgb(252, 252, 250)", "dark": "rgb(20, 23, 26)"}[scheme]
        )
    assert colours == {"light": "rgb(91, 100, 112)", "dark": "rgb(165, 174, 185)"}
    seen.check_quiet()


def test_the_table_sorts_by_keyboard(opened):
    seen = opened["sixty"]
    table = seen.page.locator("table[data-sorts]").first
    button = table.get_by_role("button", name="Sort by EMD", exact=True)
    head = button.locator("xpath=ancestor::th")
    column = button.evaluate("b => b.closest('th').cellIndex")

    def values():
        return [float(v) for v in table.evaluate(f"t => [...t.tBodies[0].rows].map(r => r.cells[{column}].dataset.v)")]

    before = values()
    button.focus()
    seen.page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert values() == sorted(before, reverse=True) != before
    seen.page.keyboard.press("Space")
    assert head.get_attribute("aria-sort") == "ascending"
    assert values() == sorted(before)
    assert table.locator("th[aria-sort=ascending], th[aria-sort=descending]").count() == 1
    table.get_by_role("button", name="Sort by Layer").press("Enter")
    assert values() == before  # the order of the network is one press away
    seen.check_quiet()


def test_what_was_not_measured_sorts_last_in_both_directions(browser, tmp_path):
    c = comparison(("a", "b", "c"))
    rows = (
        dataclasses.replace(c.layers[0], floor=float("nan")),
        dataclasses.replace(c.layers[1], floor=0.001),
        c.layers[2],
    )
    seen = Watched(browser, write_report(dataclasses.replace(c, layers=rows), tmp_path / "p.html"))
    button = seen.page.get_by_role("button", name="Sort by EMD floor between, halves")
    for expected in (["c", "b", "a"], ["b", "c", "a"]):
        button.press("Enter")
        assert seen.page.locator("table[data-sorts]").first.locator("tbody th").all_inner_texts() == expected


def test_tabs_work_by_arrows_home_and_end(opened):
    seen = opened["two"]
    first, second = seen.page.get_by_role("tab").all()
    first.focus()
    for key, chosen, other in (("ArrowRight", second, first), ("ArrowRight", first, second), ("End", second, first), ("Home", first, second), ("ArrowLeft", second, first)):  # fmt: skip
        seen.page.keyboard.press(key)
        assert (chosen.get_attribute("aria-selected"), other.get_attribute("aria-selected")) == ("true", "false")
        assert (chosen.get_attribute("tabindex"), other.get_attribute("tabindex")) == ("0", "-1")
        assert chosen.evaluate("e => document.activeElement === e")
        assert seen.page.get_by_role("tabpanel").all()[0].get_attribute("id") == chosen.get_attribute("aria-controls")
        assert seen.page.get_by_role("tabpanel").count() == 1
    assert "Layer lif2 fell silent" in seen.page.get_by_role("tabpanel").inner_text()
    seen.check_drawn()


def test_another_layer_is_one_key_away(opened):
    seen = opened["sixty"]
    select = seen.page.get_by_label("Layer", exact=True)
    before = seen.page.locator("[data-text=words]").inner_text()
    curve = seen.page.locator("[data-plot=ecdf] .trace path.js-line").first.get_attribute("d")
    select.focus()
    select.select_option("7")
    assert seen.page.locator("[data-text=name]").inner_text().endswith("lif_7")
    assert seen.page.locator("[data-text=words]").inner_text() != before
    assert seen.page.locator("[data-plot=ecdf] .trace path.js-line").first.get_attribute("d") != curve
    select.select_option("55")
    assert seen.page.locator("[data-text=raster]").inner_text() == "This layer was not recorded."
    assert not seen.page.locator("[data-rasters]").is_visible()
    select.select_option("0")
    assert seen.page.locator("[data-rasters]").is_visible()
    seen.check_drawn()
    seen.check_quiet()


def test_everything_has_a_name_and_the_page_has_landmarks(opened):
    seen = opened["two"]
    page = seen.page
    unnamed = page.evaluate("""() => [...document.querySelectorAll('[role=img],[role=region],button,select,section,[role=tabpanel]')]
        .filter(e => !(e.getAttribute('aria-label') || e.textContent.trim() && !e.matches('section,[role=region],[role=tabpanel]')
            || (e.getAttribute('aria-labelledby') || '').split(' ').some(i => document.getElementById(i)?.textContent.trim()) || e.labels?.length))
        .map(e => e.outerHTML.slice(0, 90))""")
    assert unnamed == []
    identifiers = page.evaluate(
        "[...document.querySelectorAll('main [id]')].filter(e => e.matches('.plot') || !e.closest('.plot')).map(e => e.id)"
    )
    assert len(identifiers) == len(set(identifiers))
    for role, count in (("main", 1), ("banner", 1), ("contentinfo", 1), ("tablist", 1)):
        assert page.get_by_role(role).count() == count, role
    assert page.locator("h1").count() == 1
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.evaluate("document.querySelector('a, button, select, [tabindex]').className") == "skip"
    page.get_by_role("tab").first.focus()
    page.keyboard.press("Tab")
    assert seen.style(":focus", "outlineStyle") == "solid"


def test_names_stay_names(opened):
    seen = opened["two"]
    tab = seen.page.get_by_role("tab").nth(1)
    tab.click()
    panel = seen.page.get_by_role("tabpanel")
    panel.get_by_label("Layer", exact=True).select_option("0")
    assert seen.page.evaluate("window.pwned") is None
    assert seen.page.locator("img").count() == 0
    assert EVIL in seen.page.title()
    assert tab.inner_text() == panel.locator("[data-text=name]").inner_text() == EVIL
    label = panel.locator("[data-plot=emd] .ytick text").first.text_content()
    assert label.startswith("<img src=x")
    assert label.endswith("lif</b>")
    seen.page.get_by_role("tab").first.click()
    seen.check_quiet()


def test_print_shows_every_network_in_light_colours(opened):
    seen = opened["two"]
    assert len(seen.page.pdf()) > 50_000
    seen.page.emulate_media(media="print")
    seen.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert seen.page.locator("[role=tabpanel]:visible").count() == 2
    assert not seen.page.locator("[role=tablist]").is_visible()
    seen.check_drawn()
    assert seen.style(".xtick text", "fill") == "rgb(91, 100, 112)"
    seen.page.evaluate("dispatchEvent(new Event('afterprint'))")
    seen.page.emulate_media(media="screen")
    assert seen.page.locator("[role=tabpanel]:visible").count() == 1
    seen.check_quiet()


# --- contrast, read off the style sheet: no browser needed, but the same file -------------------------------------


def palettes() -> list[dict[str, str]]:
    text = (Path(sq.__file__).parent / "report" / "page.css").read_text(encoding="utf-8")
    blocks = re.findall(r"\{\s*(--paper:.*?)\}", text, re.S)
    assert len(blocks) == 3  # light, dark, print
    return [dict(re.findall(r"--(\w[\w-]*): (#[0-9a-f]{6})", block)) for block in blocks]


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("palette", palettes(), ids=["light", "dark", "print"])
def test_contrast_is_aa(palette):
    def contrast(a: str, b: str) -> float:
        high, low = sorted((luminance(palette[a]), luminance(palette[b])), reverse=True)
        return (high + 0.05) / (low + 0.05)

    for paper in ("paper", "card"):
        assert min(contrast(text, paper) for text in {"ink", "muted", "alarm", "link"} & palette.keys()) >= 4.5
        assert min(contrast(mark, paper) for mark in ("reference", "quantized", "alarm")) >= 3
    assert contrast("alarm", "alarm-paper") >= 4.5
    assert contrast("card", "alarm") >= 4.5
