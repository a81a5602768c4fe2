"""`export`: whole or nothing, nobody's files touched, clear refusals."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conformance.handmade import net as handmade

import spikequant as sq
from spikequant.law import atomic
from spikequant.readers.export import FORMATS
from spikequant.readers.names import identifier, plain


@pytest.fixture
def network():
    return handmade(1)[:2]


def test_an_unknown_format_names_those_that_exist(network, tmp_path):
    with pytest.raises(sq.Unsupported, match=rf"format = 'vhdl'; expected one of {', '.join(FORMATS)}"):
        sq.export(network[0], tmp_path / "out", format="vhdl")
    with pytest.raises(sq.Unsupported, match=r"format 'vectors' has no option 'speed'; it has inputs"):
        sq.export(network[0], tmp_path / "out", format="vectors", speed=9)
    assert not (tmp_path / "out").exists()


def test_parents_are_made_and_a_second_export_replaces_the_first(network, tmp_path):
    net, codes = network
    folder = tmp_path / "a" / "b"
    sq.export(net, folder, format="vectors", inputs=codes)
    other, other_codes, _ = handmade(5)
    stale = {path.name for path in folder.iterdir()}
    (folder / "mine.txt").write_text("keep")
    done = sq.export(other, folder, format="vectors", inputs=other_codes)
    assert {path.name for path in folder.iterdir()} == {*done.files, "mine.txt"}
    assert stale - set(done.files)
    assert list(tmp_path.glob("**/.*")) == []


def test_files_of_other_people_are_not_replaced(network, tmp_path):
    (tmp_path / "scores.hex").write_text("mine")
    with pytest.raises(
        sq.ArtifactError, match=r"scores.hex is there and was not written by an export; nothing was changed"
    ):
        sq.export(network[0], tmp_path, format="vectors", inputs=network[1])
    assert [path.name for path in tmp_path.iterdir()] == ["scores.hex"]


def test_a_manifest_that_is_not_ours_protects_nothing(network, tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps({"format": "pwa", "files": {"scores.hex": ""}}))
    with pytest.raises(sq.ArtifactError, match="was not written by an export"):
        sq.export(network[0], tmp_path, format="vectors", inputs=network[1])


def test_a_manifest_cannot_name_files_elsewhere(network, tmp_path):
    outside, folder = tmp_path / "precious", tmp_path / "out"
    outside.write_text("keep")
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps({"format": "vectors", "files": {"../precious": ""}}))
    sq.export(network[0], folder, format="vectors", inputs=network[1])
    assert outside.read_text() == "keep"


def test_a_file_in_the_place_of_the_folder(network, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(sq.ArtifactError, match="is a file; expected a folder"):
        sq.export(network[0], tmp_path / "out", format="vectors", inputs=network[1])


@pytest.mark.parametrize("there", [False, True])
def test_a_full_disk_leaves_nothing(network, tmp_path, monkeypatch, there):
    net, codes = network
    folder = tmp_path / "out"
    if there:
        sq.export(net, folder, format="vectors", inputs=codes)
    before = {path.name: path.read_bytes() for path in folder.iterdir()} if there else None
    calls = []

    def fsync(_):
        calls.append(1)
        if len(calls) > 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", fsync)
    with pytest.raises(sq.ArtifactError, match="No space left on device"):
        sq.export(net, folder, format="vectors", inputs=codes)
    assert (before is None and not folder.exists()) or before == {p.name: p.read_bytes() for p in folder.iterdir()}
    assert [path.name for path in tmp_path.iterdir()] == (["out"] if there else [])


def test_the_folder_can_be_read_by_others(network, tmp_path):
    umask = os.umask(0o022)
    try:
        sq.export(network[0], tmp_path / "out", format="vectors", inputs=network[1])
    finally:
        os.umask(umask)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "out" / "manifest.json").stat().st_mode & 0o777 == 0o644


@given(st.text())
def test_plain_names_are_plain(name):
    assert plain(name).replace("_", "").isalnum()
    assert plain(name).isascii()


@pytest.mark.parametrize("name", ["", "1net", "a-b", "while", 'x"', "a" * 41, "é", "../x"])
def test_names_that_c_cannot_take(name):
    with pytest.raises(sq.Unsupported, match="cannot stand before C symbols"):
        identifier(name)
