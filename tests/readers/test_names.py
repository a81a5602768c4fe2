"""The readers that the guides name are there in a fresh process, which has made no network."""

from __future__ import annotations

import subprocess
import sys

import pytest

import spikequant as sq


def test_named_readers_need_no_import_of_their_own():
    script = (
        "import spikequant as sq; sq.readers.golden.run, sq.readers.registry.verify_readers, sq.readers.onnx_.build"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_unknown_reader_is_told_with_those_that_are_there():
    with pytest.raises(AttributeError, match="'gold'; it has golden"):
        sq.readers.gold  # noqa: B018


@pytest.mark.parametrize("verb", [sq.compile, sq.targets.check])
def test_what_is_no_integer_network_is_said(verb):
    with pytest.raises(sq.Unsupported, match="expected an IntNet, got dict"):
        verb({})


def test_a_missing_file_is_named_once(tmp_path):
    with pytest.raises(sq.ArtifactError) as told:
        sq.load_nir(tmp_path / "none.nir")
    assert str(told.value).count("none.nir") == 1
