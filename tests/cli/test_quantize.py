"""`spikequant quantize`, and what works on what it leaves: verify, compare, report."""

from __future__ import annotations

import json
import shutil

import pytest
from safetensors.torch import load_file

import spikequant as sq
from spikequant.analyse import Comparison
from spikequant.cli.networks import build_network, network_source


@pytest.fixture(scope="module")
def quantized(trained, tmp_path_factory):
    """Run folders of `quantize` by name."""
    from spikequant.cli import main

    root = tmp_path_factory.mktemp("quantized")
    options = {
        "w4u8": ["--weight-bits", "4", "--membrane-bits", "8"],
        "w2u6": ["--weight-bits", "2", "--membrane-bits", "6", "--weight-quantizer", "lsq", "--epochs", "1"],
    }
    for name, given in options.items():
        with pytest.raises(SystemExit) as caught:
            main(["quantize", str(trained), *given, "--limit", "200", "--out", str(root / name)])
        assert caught.value.code == 0
    return root


def test_what_a_run_leaves(quantized, trained):
    folder = quantized / "w4u8"
    record, config = (json.loads((folder / name).read_text()) for name in ("result.json", "config.json"))
    assert config["state"] == "finished"
    assert {*config["files"], "config.json"} == {p.name for p in folder.iterdir()} == set(record["files"])
    net, plan = sq.IntNet.load(folder / "network.spq"), sq.Plan.load(folder / "plan.toml")
    assert plan.to_dict() == record["plan"] == net.metadata["plan"]
    assert plan.layer("fc1").weight.bits == 4
    assert record["verify"]["differences"] == 0
    assert record["verify"]["spikes"] > 100
    comparison = Comparison.load(folder / "comparison.safetensors")
    assert comparison.to_dict()["quantized"]["accuracy"] == record["comparison"]["quantized"]["accuracy"]
    assert comparison.samples == 200
    assert comparison.reference.accuracy > 0.5
    assert (folder / "report.html").read_text().startswith("<!")
    assert (quantized / "w2u6" / "metrics.jsonl").read_text().count("\n") == 1


def test_one_shot_weights_and_matched_firing(run, trained, own, tmp_path):
    out = tmp_path / "shot"
    bits = ["--weight-bits", 3, "--weight-clipping", "max"]
    done = run(
        "quantize", trained, *bits, "--weight-solver", "second_order", "--match-firing", "--limit", 100, "--out", out
    )
    assert done.code == 0
    assert "fc1: response error" in done.out
    assert "channels moved" in done.out
    options = json.loads((out / "config.json").read_text())["options"]
    assert (options["weight_solver"], options["match_firing"]) == ("second_order", True)
    model = build_network(network_source(f"{own}:build"), seed=9)
    example, _ = next(iter(sq.data.load("digits").batches("test", batch_size=32)))
    sq.quantize_(model, sq.Plan.load(out / "plan.toml"), example, quiet=True)
    model.load_state_dict(load_file(out / "weights.safetensors"))
    sq.freeze(model.eval())
    again, net = sq.lower(model, example), sq.IntNet.load(out / "network.spq")
    assert [type(node) for node in again.nodes] == [type(node) for node in net.nodes]
    assert sq.verify(model, net, example).differences == 0


def test_the_weights_give_the_same_integers_again(quantized, own):
    folder = quantized / "w4u8"
    model = build_network(network_source(f"{own}:build"), seed=9)
    batches = sq.data.load("digits").batches("test", batch_size=32)
    example, _ = next(iter(batches))
    sq.quantize_(model, sq.Plan.load(folder / "plan.toml"), example, quiet=True)
    model.load_state_dict(load_file(folder / "weights.safetensors"))
    sq.freeze(model.eval())
    again, net = sq.lower(model, example), sq.IntNet.load(folder / "network.spq")
    for a, b in zip(again.nodes, net.nodes, strict=True):
        assert type(a) is type(b)
    assert sq.verify(model, net, example).differences == 0


def test_verify_a_run_folder_finds_another_file(run, quantized, tmp_path):
    assert run("verify", quantized / "w4u8").code == 0
    shutil.copytree(quantized / "w4u8", tmp_path / "run")
    shutil.copy(quantized / "w2u6" / "network.spq", tmp_path / "run" / "network.spq")
    done = run("verify", tmp_path / "run")
    assert done.code == 2
    assert "is not the file that its run wrote" in done.err


def test_compare_two_runs(run, quantized, tmp_path):
    done = run("compare", quantized / "w4u8", quantized / "w2u6", "--out", tmp_path / "page")
    assert done.code == 0
    rows = {line.split("  ")[0]: line for line in done.out.splitlines()}
    assert done.out.splitlines()[0].split() == ["float32", "W4/U8", "W2/U6"]
    assert rows["fc1 weight"].split()[-2:] == ["4", "2"]
    assert rows["lif1 membrane"].split()[-2:] == ["8", "6"]
    assert "─" not in done.out
    assert (tmp_path / "page" / "report.html").is_file()
    facts = json.loads(run("compare", quantized / "w4u8", quantized / "w2u6", "--json").out)
    assert [row["name"] for row in facts["networks"]] == ["W4/U8", "W2/U6"]


def test_compare_one_run_with_its_reference(run, quantized):
    done = run("compare", quantized / "w4u8")
    assert done.code == 0
    assert "layer" in done.out
    assert "lif2" in done.out


def test_compare_refuses_what_cannot_be_compared(run, quantized, trained, own, tmp_path):
    assert "is named twice" in run("compare", quantized / "w4u8", quantized / "w4u8").err
    done = run("quantize", trained, "--weight-bits", "4", "--limit", "100", "--out", tmp_path / "other data")
    assert done.code == 0
    done = run("compare", quantized / "w4u8", tmp_path / "other data")
    assert done.code == 2
    assert "200 samples of digits" in done.err
    assert "100 samples of digits" in done.err


def test_report_makes_the_same_page_again(run, quantized):
    page = quantized / "w4u8" / "report.html"
    before = page.read_bytes()
    page.unlink()
    done = run("report", quantized / "w4u8")
    assert done.code == 0
    assert page.read_bytes() == before
    assert run("verify", quantized / "w4u8").code == 0


def test_report_of_a_run_without_figures(run, trained):
    done = run("report", trained)
    assert done.code == 2
    assert "holds no comparison" in done.err


def test_a_smallest_network_is_searched_and_goes_on_after_ctrl_c(run, trained, tmp_path, monkeypatch):
    from spikequant.cli.screen import Screen

    arguments = ["quantize", trained, "--max-drop", "5", "--epochs", "0", "--limit", "100", "--out", tmp_path / "small"]
    note = Screen.note

    def stop_after_three(self, text):
        note(self, text)
        tried.append(text)
        if sum(text.startswith("tried ") for text in tried) == 3:
            raise KeyboardInterrupt

    tried = []
    with monkeypatch.context() as patch:
        patch.setattr(Screen, "note", stop_after_three)
        done = run(*arguments)
    assert done.code == 130
    assert done.err.rstrip().endswith("--resume")
    done = run(*arguments, "--resume")
    assert done.code == 0
    assert done.err.count("tried ") > 0
    assert done.err.count("tried ") == done.err.count("(trial ") == done.err.count(" of at most ")
    record = json.loads((tmp_path / "small" / "result.json").read_text())
    trials = record["search"]["trials"]
    assert len({trial["name"] for trial in trials}) == len(trials) >= done.err.count("tried ") + 2
    assert "> " in done.out
    assert "Below, on the test data" in done.out
    assert run("verify", tmp_path / "small").code == 0


def test_untrained_weights_are_told(run, own, tmp_path):
    done = run("quantize", f"{own}:build", "--data", "digits", "--weight-bits", "8", "--limit", "100",
               "--out", tmp_path / "a")  # fmt: skip
    assert done.code in (0, 2)
    assert "no --weights" in done.err
    if done.code == 0:
        assert "which is guessing; was it trained?" in done.out


def test_overwrite_with_a_wrong_plan_keeps_the_old_run(run, quantized, trained, tmp_path):
    shutil.copytree(quantized / "w4u8", tmp_path / "run")
    (tmp_path / "dead.toml").write_text('[[rules]]\nmatch = "conv9"\nweight = { bits = 4 }\n')
    done = run("quantize", trained, "--plan", tmp_path / "dead.toml", "--out", tmp_path / "run", "--overwrite")
    assert done.code == 2
    assert (tmp_path / "run" / "network.spq").read_bytes() == (quantized / "w4u8" / "network.spq").read_bytes()


def test_export(run, quantized, tmp_path):
    done = run("export", quantized / "w4u8", "--format", "vectors", "--out", tmp_path / "build", "--json")
    facts = json.loads(done.out)
    assert done.code == 0
    assert {p.name for p in (tmp_path / "build").iterdir()} == set(facts["files"])


def test_export_to_onnx_with_its_options(run, quantized, tmp_path):
    pytest.importorskip("onnx")
    out = tmp_path / "onnx"
    done = run("export", quantized / "w4u8", "--format", "onnx", "--packed", "--no-trace", "--out", out, "--json")
    facts = json.loads(done.out)["facts"]
    assert done.code == 0
    assert (facts["opset"], facts["packed"], facts["trace"]) == (25, True, False)
    assert {"step.onnx", "sequence.onnx"} <= {p.name for p in out.iterdir()}
    wrong = run("export", quantized / "w4u8", "--format", "vectors", "--opset", "17", "--out", tmp_path / "other")
    assert wrong.code == 2
    assert "format 'vectors' has no option 'opset'; it has inputs" in " ".join(wrong.err.split())


def test_verify_shows_onnx_beside_the_other_readers(run, quantized):
    pytest.importorskip("onnxruntime")
    done = run("verify", quantized / "w4u8", "--readers", "all", "--json")
    found = json.loads(done.out)
    assert done.code == 0
    assert '"onnx"' in json.dumps(found)


def test_training_on_goes_on_after_ctrl_c_and_ends_with_the_same_integers(run, trained, tmp_path, monkeypatch):
    from spikequant.cli.training_loop import EpochLog

    add, whole, cut = EpochLog.add, tmp_path / "whole", tmp_path / "cut"
    arguments = ["quantize", trained, "--weight-bits", "3", "--membrane-bits", "6", "--epochs", "3", "--limit", "100"]
    assert run(*arguments, "--out", whole).code == 0

    def stop_after_one(self, epoch):
        add(self, epoch)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(EpochLog, "add", stop_after_one)
        done = run(*arguments, "--out", cut)
    assert done.code == 130
    assert "1 of 3 epochs are kept" in done.err
    assert not (cut / "network.spq").exists()
    assert run(*arguments, "--out", cut, "--resume").code == 0
    assert (cut / "network.spq").read_bytes() == (whole / "network.spq").read_bytes()
    assert len((cut / "metrics.jsonl").read_text().splitlines()) == 3


def test_verify_on_the_samples_of_a_data_set(run, quantized, network):
    folder = quantized / "w4u8"
    file = folder / "network.spq"
    own_vectors = json.loads(run("verify", file, "--json").out)
    done = run("verify", file, "--data", "digits", "--limit", "250", "--json")  # two batches
    assert done.code == 0, done.err
    facts = json.loads(done.out)
    assert facts["data"]["samples"]["test"] == 250
    assert "On 250 test samples of digits:" in done.err
    golden, vectors = facts["readers"]["golden"], own_vectors["readers"]["golden"]
    per_sample = golden["neuron_steps"] / 250
    assert vectors["neuron_steps"] % per_sample == 0
    assert golden["spikes"] > vectors["spikes"] > 0
    for report in facts["readers"].values():
        assert report.get("skipped") or (report["differences"], report["spikes"]) == (0, golden["spikes"])
    assert run("verify", folder, "--data", "digits", "--limit", "20").code == 0
    done = run("verify", network, "--data", "digits")
    assert (done.code, "expected" in done.err) == (2, True)
    done = run("verify", network, "--limit", "3")
    assert done.code == 2
    assert "--data NAME" in done.err


def test_verify_on_data_tells_where_a_reader_differs(run, quantized, monkeypatch):
    from spikequant.readers import golden, registry

    def wrong(net, codes):
        found = golden.run(net, codes)
        found.scores[0, 0] += 1
        return found

    monkeypatch.setattr(registry, "READERS", {**registry.READERS, "c99": wrong})
    monkeypatch.setattr(registry, "MISSING", {})
    done = run("verify", quantized / "w4u8", "--data", "digits", "--limit", "250")
    assert done.code == 1
    assert "c99 differs from the golden model, first scores at [0, 0] (batch 0)" in done.err
    assert "2 differences." in done.out  # one in each of two batches
