"""The run folder: what it refuses, what it removes, what it leaves after an error."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from spikequant.cli.run_folder import CONFIG, METRICS, RunConfig, RunFolder, read_config
from spikequant.cli.screen import json_ready
from spikequant.law.errors import ArtifactError


def config(**fields):
    return RunConfig(**{"command": "train", "command_line": "spikequant train", "seed": 0, **fields})


def run_that_raises(path, error, *, epochs=0):
    """A run of so many epochs that ends in an error."""
    with RunFolder.open(path, "train") as folder:
        folder.begin(config())
        for epoch in range(epochs):
            folder.add_metrics({"epoch": epoch + 1})
        raise error


def test_a_finished_run_lists_its_files_with_their_hashes(tmp_path):
    with RunFolder.open(tmp_path / "a" / "b", "train") as folder:
        folder.begin(config())
        (folder / "weights.safetensors").write_bytes(b"")
        folder.end("finished", ["weights.safetensors"])
    found = read_config(tmp_path / "a" / "b")
    assert found.state == "finished"
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert found.files == {"weights.safetensors": empty}


def test_an_error_before_anything_is_written_leaves_no_folder(tmp_path):
    with pytest.raises(ZeroDivisionError):
        run_that_raises(tmp_path / "a" / "b", ZeroDivisionError)
    assert list(tmp_path.iterdir()) == []


def test_an_error_after_something_was_written_leaves_it_and_says_failed(tmp_path):
    with pytest.raises(ZeroDivisionError):
        run_that_raises(tmp_path / "a", ZeroDivisionError, epochs=1)
    assert read_config(tmp_path / "a").state == "failed"
    assert json.loads((tmp_path / "a" / METRICS).read_text()) == {"epoch": 1}


def test_ctrl_c_is_written_down(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run_that_raises(tmp_path / "a", KeyboardInterrupt, epochs=1)
    assert read_config(tmp_path / "a").state == "interrupted"


def test_overwriting_removes_what_the_run_lists_and_nothing_outside(tmp_path):
    outside = tmp_path / "precious.txt"
    outside.write_text("mine")
    with RunFolder.open(tmp_path / "a", "train") as folder:
        folder.begin(config())
        (folder / "extra.bin").write_text("ours")
        (folder / "notes.txt").write_text("mine")
        folder.end("finished", ["extra.bin"])
    record = json.loads((tmp_path / "a" / CONFIG).read_text())
    record["files"]["../precious.txt"] = "0"  # a config that somebody wrote by hand
    (tmp_path / "a" / CONFIG).write_text(json.dumps(record))
    with RunFolder.open(tmp_path / "a", "train", overwrite=True) as folder:
        folder.begin(config())
        folder.end("finished")
    assert outside.read_text() == "mine"
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [CONFIG, "notes.txt"]


def test_nothing_is_removed_before_the_new_run_begins(tmp_path):
    with RunFolder.open(tmp_path, "train") as folder:
        folder.begin(config())
        folder.add_metrics({"epoch": 1})
        folder.end("finished", [METRICS])
    with pytest.raises(ZeroDivisionError), RunFolder.open(tmp_path, "train", overwrite=True):
        raise ZeroDivisionError
    assert (tmp_path / METRICS).is_file()
    assert read_config(tmp_path).state == "finished"


def test_resuming_wants_the_same_run(tmp_path):
    with RunFolder.open(tmp_path, "train") as folder:
        folder.begin(config(options={"lr": 0.1}, data={"name": "mnist", "folder": "/a"}))
        folder.add_metrics({"epoch": 1})
        folder.end("interrupted")
    with RunFolder.open(tmp_path, "train", resume=True) as folder:
        folder.begin(config(options={"lr": 0.1}, data={"name": "mnist", "folder": "/b"}))  # the data may move
    wrong = config(options={"lr": 0.2}, seed=1, data={"name": "digits"})
    with (
        pytest.raises(ArtifactError, match=r"seed was 0, is 1; lr was 0.1, is 0.2; data name was 'mnist', is 'digits'"),
        RunFolder.open(tmp_path, "train", resume=True) as folder,
    ):
        folder.begin(wrong)


def test_a_line_that_a_crash_cut_off_is_left_out(tmp_path):
    (tmp_path / METRICS).write_text('{"epoch": 1}\n{"epo')
    folder = RunFolder(tmp_path)
    assert folder.metrics() == [{"epoch": 1}]
    folder.keep_metrics(5)
    assert (tmp_path / METRICS).read_text() == '{"epoch": 1}\n'


@pytest.mark.parametrize(("field", "value"), [("version", 2), ("version", "1"), ("stat", "x")])
def test_a_config_of_another_version_is_refused(tmp_path, field, value):
    record = dataclasses.asdict(config()) | {field: value}
    (tmp_path / CONFIG).write_text(json.dumps(record))
    with pytest.raises(ArtifactError, match=CONFIG):
        read_config(tmp_path)


def test_documents_are_standard_json(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_json("a.json", {"x": math.nan, "y": (1, math.inf), "z": tmp_path})
    found = json.loads((tmp_path / "a.json").read_text(), parse_constant=lambda word: pytest.fail(word))
    assert found == {"x": None, "y": [1, None], "z": str(tmp_path)} == json_ready(found)


def test_overwriting_removes_the_trials_of_the_old_run_and_leaves_files_of_others(tmp_path):
    with RunFolder.open(tmp_path, "train") as folder:
        folder.begin(config())
        (folder / "trials").mkdir()
        for name in ("shrink.json", "trials.jsonl", "w4-u8-ptq-ebcce1.safetensors", "notes.txt"):
            (folder / "trials" / name).write_text("x")
        folder.end("finished")
    with RunFolder.open(tmp_path, "train", overwrite=True) as folder:
        folder.begin(config())
        folder.end("finished")
    assert [path.name for path in (tmp_path / "trials").iterdir()] == ["notes.txt"]
