"""The page of a study: what it says, and what it does in a real Chromium."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.report.made import comparison
from tests.report.made_study import study

import spikequant as sq
from spikequant.explore import Study, Tolerance, ToleranceRow, Trial
from spikequant.law.errors import DataError
from spikequant.report import Provenance, write_report
from spikequant.report.study_page import toml_of
from spikequant.report.study_plots import groups, importances, parallel, varied
from spikequant.report.study_tables import candidates_table, tolerance_table

pytest.importorskip("plotly", reason="the extra 'report' is not installed")
EVIL = "<img src=x onerror=window.pwned=1></script><b>lif</b>"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH")
DRAWN = """() => [...document.querySelectorAll('[data-plot]')]
    .map(e => [e.dataset.plot, e.querySelectorAll('svg .trace, svg .point, svg .bars path').length])"""
FITS = """() => [...document.querySelectorAll('[data-plot]')]
    .every(e => Math.abs(e.querySelector('svg').clientWidth - e.clientWidth) < 2)"""
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


def test_what_explains_the_figures_stands_first() -> None:
    made = study(96)
    rows = importances(made)
    assert rows[0][0] == "conv*:weight.bits"
    assert {name for name, _, _ in rows} == set(varied(made))
    assert all(0 <= share <= 1 for _, *shares in rows for share in shares)
    assert dict((name, a) for name, a, _ in rows)["fc:weight.quantizer"] < 0.05


def test_every_candidate_is_in_one_group_and_the_impossible_in_none() -> None:
    made = study(96, name="x")
    places = [place for group in groups(made) for place in group["trials"]]
    assert sorted(places) == [k for k, t in enumerate(made.trials) if not t.was_refused]
    assert {group["name"] for group in groups(made)} >= {"front", "chosen", "keeps the target", "stopped early"}


def test_who_was_given_up_has_no_reward_and_no_accuracy_among_the_tolerances() -> None:
    made = study(96)
    rows = zip(candidates_table(made).rows, sorted_trials(made), strict=True)
    assert all((row[7].value is None) == trial.measured.stopped_early for row, trial in rows)
    row = ToleranceRow(
        factor="fc:weight", option="bits 2", index=0, accuracy=0.9, drop=1.0, memory_bytes=1.0, kept=False,
        stopped_early=True,
    )  # fmt: skip
    cells = tolerance_table(Tolerance((row,))).rows[0]
    assert [cell.text for cell in cells[2:4]] == ["given up", "given up"]
    assert "90.00" not in str(Tolerance((row,)))


def test_what_was_given_up_moves_no_plot_of_accuracy() -> None:
    made = study(96)
    assert any(t.measured.stopped_early for t in made.trials)
    other = [
        dataclasses.replace(t, measured=dataclasses.replace(t.measured, accuracy=0.001))
        if t.measured.stopped_early
        else t
        for t in made.trials
    ]
    moved = dataclasses.replace(made, trials=tuple(other))
    assert importances(moved) == importances(made)
    assert parallel(moved) == parallel(made)
    lines = {line["name"]: line["y"] for line in parallel(made)["data"]}
    size = len(varied(made)) + 3  # memory, accuracy and a gap
    assert all(y is None for y in lines["stopped early"][size - 2 :: size])
    assert all(y is not None for y in lines["front"][size - 2 :: size])


def sorted_trials(made: Study) -> list[Trial]:
    """In the order of the table of all candidates."""
    front = {id(trial) for trial in made.front}
    return sorted(made.trials, key=lambda t: (id(t) not in front, -t.measured.accuracy))


def test_the_copied_plan_is_a_plan(tmp_path: Path) -> None:
    trial = study(20).trials[7]
    (tmp_path / "plan.toml").write_text(toml_of(trial), encoding="utf-8")
    assert sq.Plan.load(tmp_path / "plan.toml") == trial.candidate.plan()


def test_the_same_study_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (write_report(study(12), tmp_path / name).read_bytes() for name in ("a.html", "b.html"))
    assert first == second


@pytest.mark.parametrize(
    ("what", "options", "words"),
    [
        (3, {}, "got int; expected a Comparison"),
        (study(4), {"plan": sq.Plan()}, "belong to a comparison"),
        (study(4), {"links": {"page": "https://example.org/x"}}, "expected a path from the page"),
        (study(0), {}, "has no trial yet"),
        ({"a": 3}, {}, "got int as 'a'"),
    ],
)
def test_what_no_page_can_be_written_about(tmp_path: Path, what: object, options: dict, words: str) -> None:
    with pytest.raises(DataError, match=words):
        write_report(what, tmp_path / "p.html", **options)
    assert not (tmp_path / "p.html").exists()


def test_links_belong_to_a_study(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="belong to the page of a study"):
        write_report(comparison(), tmp_path / "p.html", links={"a": "b.html"})


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("studies")
    links = {"What it did to the network": "chosen.html", "Integers": "chosen.spq"}
    source = Provenance(command="spikequant explore net.py:build " + "--long " * 40, seed=0, data="digits")
    return {
        "many": write_report(study(96), folder / "many.html", links=links, provenance=source),
        "evil": write_report(
            study(30, name=EVIL, with_tolerance=False), folder / "e.html", title=EVIL, warnings=[EVIL]
        ),
        "none": write_report(study(1, target=1.0), folder / "none.html"),
    }


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield running
        running.close()


class Watched:
    """A page that remembers everything it complained about or asked for."""

    def __init__(self, browser, path: Path) -> None:
        self.context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
        self.context.grant_permissions(["clipboard-read", "clipboard-write"])
        self.page = self.context.new_page()
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

    def copied(self) -> str:
        return self.page.evaluate("navigator.clipboard.readText()")


@pytest.fixture(scope="module")
def opened(browser, pages) -> dict[str, Watched]:
    return {name: Watched(browser, path) for name, path in pages.items()}


@needs_browser
@pytest.mark.parametrize("name", ["many", "evil", "none"])
def test_quiet_drawn_and_no_wider_than_the_window(opened, name: str) -> None:
    seen = opened[name]
    for width, scheme in ((1280, "dark"), (400, "dark"), (400, "light"), (1280, "light")):
        seen.page.set_viewport_size({"width": width, "height": 900})
        seen.page.emulate_media(color_scheme=scheme)
        seen.page.wait_for_function(FITS)
        drawn = dict(seen.page.evaluate(DRAWN))
        assert all(drawn.values()), drawn
        assert seen.page.evaluate(OVERFLOW) == 0
    assert seen.page.evaluate("window.pwned") is None
    assert len(drawn) == (1 if name == "none" else 3)
    seen.check_quiet()


@needs_browser
def test_a_point_shows_its_plan_and_a_click_copies_it(opened) -> None:
    seen = opened["many"]
    point = seen.page.locator("[data-plot=front] .trace").nth(-2).locator(".point").first  # the chosen one
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    seen.page.mouse.move(box["x"] - 40, box["y"] - 40)
    seen.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=4)
    hover = seen.page.locator("[data-plot=front] .hoverlayer .hovertext").first
    hover.wait_for()
    assert "membrane.bits" in hover.text_content()
    seen.page.mouse.down()
    seen.page.mouse.up()
    seen.page.wait_for_function("() => document.querySelector('[data-copied]').textContent.startsWith('Copied')")
    chosen = study(96).chosen
    assert chosen is not None
    assert seen.copied() == toml_of(chosen)
    seen.check_quiet()


@needs_browser
def test_everything_works_with_the_keyboard(opened) -> None:
    seen = opened["many"]
    page, made = seen.page, study(96)
    other = made.front[0]
    page.get_by_label("Plan of").focus()
    page.get_by_label("Plan of").select_option(str(made.selection.front[0]))
    assert page.locator("[data-plan]").inner_text().strip() == toml_of(other).strip()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Copy the plan"
    page.keyboard.press("Enter")
    page.wait_for_function(
        "n => document.querySelector('[data-copied]').textContent.includes(n)", arg=f"trial {other.number},"
    )
    assert seen.copied() == toml_of(other)
    before = page.locator("[data-plot=front] .xtitle").text_content()
    page.get_by_label("Across").select_option("energy")
    assert page.locator("[data-plot=front] .xtitle").text_content() == "energy per sample, nJ" != before
    page.get_by_label("Across").select_option("memory")
    head = page.locator("#front-table-caption").locator("xpath=..").get_by_role("button", name="Sort by Accuracy")
    head.press("Enter")
    assert head.locator("xpath=ancestor::th").get_attribute("aria-sort") == "descending"
    seen.check_quiet()


@needs_browser
def test_what_is_there_has_a_name(opened) -> None:
    page = opened["many"].page
    for heading in ("The front", "What mattered", "What each role tolerates", "The chosen candidate", "All candidates"):
        assert page.get_by_role("heading", name=heading, exact=True).count() == 1
    assert page.get_by_role("link", name="Integers").get_attribute("href") == "chosen.spq"
    assert page.locator("h1").count() == 1
    ids = page.evaluate(
        "[...document.querySelectorAll('main [id]')].filter(e => e.matches('.plot') || !e.closest('.plot')).map(e => e.id)"
    )
    assert len(ids) == len(set(ids))
    assert "no candidate was chosen" in opened["none"].page.locator(".lead").inner_text()
