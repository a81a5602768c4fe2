"""The page as text: what it holds, what it must never hold, and how it is written."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import sys

import pytest
from tests.report.made import ann_of, comparison

import spikequant as sq
from spikequant.measure import MemoryRow
from spikequant.report import Provenance, versions_here, write_report
from spikequant.report.cost_tables import bits_table, layer_operations_table, operations_table
from spikequant.report.tables import layer_table

pytest.importorskip("plotly", reason="the extra 'report' is not installed")
pytest.importorskip("jinja2", reason="the extra 'report' is not installed")

EVIL = "</script><img src=x onerror=window.pwned=1>"
FROM = Provenance(
    command="spikequant demo",
    seed=3,
    versions={"torch": "2.13.0"},
    hashes={"weights": "ab" * 32},
    data="digits",
    split="360 test images",
)
PLAN = sq.Plan.uniform(weight_bits=4, membrane_bits=8)


def own(text: str) -> str:
    """The page without plotly.js."""
    return re.sub(r"<script>/\*\*\n\* plotly\.js.*?</script>", "", text, flags=re.S)


def test_plotly_is_inlined_once_and_nothing_is_loaded(tmp_path):
    text = write_report(comparison(), tmp_path / "page.html").read_text(encoding="utf-8")
    assert text.count("* plotly.js v") == 1
    rest = own(text)
    assert len(rest) < 200_000
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//", rest)
    assert "@import" not in rest
    assert "url(" not in rest
    assert "default-src &#39;none&#39;" in rest


def test_the_page_is_the_same_for_the_same_input(tmp_path):
    one, two = (
        (write_report(comparison(ann=ann_of(("lif1",))), tmp_path / name, plan=PLAN, provenance=FROM)).read_bytes()
        for name in "ab"
    )
    assert one == two


def test_everything_is_on_the_page(tmp_path):
    c = comparison(ann=ann_of(("lif1", "lif2")), notes=("no seed was given",))
    text = own(
        write_report(
            c, tmp_path / "p.html", title="My net", plan=PLAN, provenance=FROM, warnings=["mind the gap"]
        ).read_text("utf-8")
    )
    for part in ("My net", "Accuracy did not change measurably", "mind the gap", "no seed was given", "spikequant demo", "ab" * 32, "360 test images",
                 "[[rules]]", "Horowitz", "ReLU instead of spikes", "Step 2, layer lif1", "Earth mover", "Matched L1", "SynOps"):  # fmt: skip
        assert part in text, part


def test_no_name_title_plan_or_warning_can_become_markup(tmp_path):
    plan = sq.Plan.from_dict({"rules": [{"match": EVIL, "weight": {"bits": 4}}]})
    c = comparison((EVIL, "lif2"), silent=(EVIL,), notes=(EVIL,))
    source = Provenance(command=EVIL, versions={EVIL: EVIL}, hashes={EVIL: EVIL}, data=EVIL, split=EVIL, date=EVIL)
    text = own(
        write_report(
            {EVIL: c, "b": c}, tmp_path / "p.html", title=EVIL, plan={EVIL: plan}, provenance=source, warnings=[EVIL]
        ).read_text("utf-8")
    )
    assert "<img" not in text
    assert text.count("</script>") == text.count("<script") == 4  # the data, and scripts of our own
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])
    assert data[0]["layers"][0]["name"] == EVIL


def test_the_data_are_json_without_nan(tmp_path):
    c = comparison(floor=math.nan, seed_floor=None, interval=math.nan)
    text = own(write_report(c, tmp_path / "p.html").read_text("utf-8"))
    data = re.search(r'id="data">(.*?)</script>', text, re.S)[1]

    def refuse(word):
        raise AssertionError(word)

    json.loads(data, parse_constant=refuse)
    assert "not measured" in text
    assert re.search(r"\bnan\b", text, re.I) is None


def test_sixty_large_layers_make_a_page_of_bounded_size(tmp_path):
    c = comparison(tuple(f"block{k}.lif" for k in range(60)), neurons=4000)
    text = own(write_report(c, tmp_path / "p.html").read_text("utf-8"))
    assert len(text) < 4_000_000
    assert "400 of 4,000 neurons: the 200 that changed most" in text


def test_the_layer_table_holds_the_figures_and_sorts_by_numbers():
    table = layer_table(comparison(floor=math.nan, seed_floor=None, silent=("lif2",)))
    heads = [column.name for column in table.columns]
    first, second = ({h: cell for h, cell in zip(heads, row, strict=True)} for row in table.rows)
    assert first["State bits"].text == "32 → 8"
    assert first["EMD floor between, halves"].text == "not measured"
    assert first["EMD floor between, halves"].value is None
    assert second["Silent, after"].alarm
    assert second["Layer"].alarm
    assert not first["Layer"].alarm
    assert second["Silent, after"].value == 1.0
    assert sum(span for _, span in table.groups()) == len(heads)


def test_two_numbers_of_one_role_are_added_not_dropped():
    c = comparison()
    both = {row[0].text + " " + row[1].text: row for row in bits_table(c.reference, c.quantized).rows}
    assert both["lif1 membrane"][4].text == "32"
    assert both["lif1 membrane"][5].text == "8"
    doubled = dataclasses.replace(
        c.quantized, memory=(MemoryRow("l", "threshold", 10, 8), MemoryRow("l", "threshold", 10, 16))
    )
    rows = {row[0].text: [cell.text for cell in row] for row in bits_table(c.reference, doubled).rows}
    assert rows["l"] == ["l", "threshold", "\u2013", "20", "\u2013", "16, 8", "\u2013", "30\u00a0B"]


def test_different_references_are_refused(tmp_path):
    with pytest.raises(sq.DataError, match="'a' and 'b' have different references"):
        write_report({"a": comparison(), "b": comparison(accuracy=0.5)}, tmp_path / "p.html")
    assert not list(tmp_path.iterdir())


def test_no_comparison_and_no_layer_are_refused(tmp_path):
    with pytest.raises(sq.DataError, match="no comparison was given"):
        write_report({}, tmp_path / "p.html")
    with pytest.raises(sq.DataError, match="compares no neuron layer"):
        write_report(dataclasses.replace(comparison(), layers=()), tmp_path / "p.html")


def test_a_plan_for_an_unknown_network_is_refused(tmp_path):
    with pytest.raises(sq.DataError, match=r"plan names \['c'\], the comparisons are \['a'\]"):
        write_report({"a": comparison()}, tmp_path / "p.html", plan={"c": PLAN})


def test_an_old_page_stays_whole_when_the_new_one_cannot_be_written(tmp_path):
    with pytest.raises(sq.ArtifactError, match="cannot write"):
        write_report(comparison(), tmp_path / "missing" / "p.html")
    (tmp_path / "p.html").mkdir()
    with pytest.raises(sq.ArtifactError, match="nothing was changed"):
        write_report(comparison(), tmp_path / "p.html")
    assert os.listdir(tmp_path) == ["p.html"]


@pytest.mark.parametrize("missing", ["plotly.offline", "jinja2"])
def test_a_missing_library_is_named_with_the_extra(tmp_path, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(sq.Unsupported, match=rf"{missing.split('.')[0]} is not installed.*spikequant\[report\]"):
        write_report(comparison(), tmp_path / "p.html")


def test_provenance_is_kept_in_a_file_and_read_back():
    assert Provenance.from_dict(json.loads(json.dumps(FROM.to_dict()))) == FROM
    assert Provenance(seed=0).versions == versions_here()
    with pytest.raises(sq.ArtifactError, match=r"unknown fields \['sede'\]"):
        Provenance.from_dict({"sede": 1})


def test_operations_are_those_of_the_sides():
    c = comparison()
    rows = {row[0].text: [cell.text for cell in row[1:]] for row in operations_table(c.reference, c.quantized).rows}
    assert rows["Accumulates (effective ACs)"] == ["2,000", "1,800", "1.11 times less"]
    assert rows["If no zero could be skipped (dense)"] == ["8,000", "8,000", "the same"]
    assert rows["Zeros among spikes"] == ["80.0\u00a0%", "80.0\u00a0%", ""]
    by_layer = layer_operations_table(
        c.reference, dataclasses.replace(c.quantized, operations=c.quantized.operations[:1])
    )
    assert [cell.text for cell in by_layer.rows[0]] == ["fc0", "1,000", "900", "10", "10", "4,000", "4,000"]
    assert [cell.text for cell in by_layer.rows[1]] == ["fc1", "1,000", "\u2013", "10", "\u2013", "4,000", "\u2013"]


def test_one_network_with_a_name_is_called_by_it(tmp_path):
    text = own(write_report({"W4/U8": comparison()}, tmp_path / "p.html").read_text("utf-8"))
    assert "<h1>What quantization changed: W4/U8</h1>" in text
    assert 'role="tablist"' not in text


def test_a_saved_comparison_gives_the_same_page(tmp_path):
    c = comparison(ann=ann_of(("lif1", "lif2")), floor=math.nan)
    c.save(tmp_path / "c.safetensors")
    again = type(c).load(tmp_path / "c.safetensors")
    assert write_report(c, tmp_path / "a.html").read_bytes() == write_report(again, tmp_path / "b.html").read_bytes()
