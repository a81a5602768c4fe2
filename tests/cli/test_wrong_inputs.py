"""Whatever a person gets wrong: exit code 2, nothing on standard output, a sentence that says what to do, no folder left."""

from __future__ import annotations

import json
import math
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.cli.conftest import OWN_NETWORK

RAISES = "def build():\n    width = 3\n    return undefined_name(width)\n"
NETWORKS = {
    "no file": ("absent.py:build", ["is not a file", "net.py:build"]),
    "no function named": ("{own}", ["say which function builds the network", "net.py:build"]),
    "wrong function": ("{own}:biuld", ["has no function 'biuld'", "Did you mean", "net.py:build"]),
    "not a network name": ("mnist_nett", ["names no network", "Did you mean mnist_net?"]),
    "no such module": ("no_such_package.nets:build", ["there is no module 'no_such_package'"]),
    "build raises": ("{raises}:build", ["NameError", "raises.py, line 3, in build", "undefined_name(width)"]),
    "raises on import": ("{imports}:build", ["ModuleNotFoundError", "imports.py, line 1"]),
    "does not parse": ("{broken}:build", ["broken.py, line 1"]),
    "exits": ("{exits}:build", ["SystemExit", "exits.py, line 2"]),
    "wants arguments": ("{wants}:build", ["wants the arguments width", "give them defaults"]),
    "returns nothing": ("{nothing}:build", ["returned nothing (None)", "expected a torch nn.Module"]),
    "is no function": ("{nothing}:number", ["is a int", "expected a function"]),
    "other input size": (
        "{large}:build",
        ["cannot take a batch of shape [8, 1, 8, 8]", "large.py, line", "in forward"],
    ),
    "scores over time": ("{over_time}:build", ["forward returned shape", "sum or average over the time steps"]),
    "too few scores": ("{few}:build", ["forward returned shape [8, 3]", "expected scores of shape [8, 10]"]),
}
SOURCES = {
    "raises": RAISES,
    "imports": "import no_such_library_at_all\n\ndef build():\n    pass\n",
    "broken": "def build(:\n    pass\n",
    "exits": "import sys\nsys.exit('usage: net.py')\n",
    "wants": "def build(width):\n    pass\n",
    "nothing": "number = 3\n\ndef build():\n    pass\n",
    "large": OWN_NETWORK.replace("nn.Linear(64,", "nn.Linear(784,"),
    "over_time": OWN_NETWORK.replace("return count", "return torch.stack([count, count])"),
    "few": OWN_NETWORK.replace("nn.Linear(24, 10)", "nn.Linear(24, 3)"),
}


@pytest.fixture(scope="session")
def sources(tmp_path_factory, own):
    """Files with mistakes, by name."""
    folder = tmp_path_factory.mktemp("sources")
    for name, text in SOURCES.items():
        (folder / f"{name}.py").write_text(text)
    return {name: folder / f"{name}.py" for name in SOURCES} | {"own": own}


def refused(done, *words):
    """Whether a command ended as bad input does."""
    assert (done.code, done.out) == (2, "")
    for word in words:
        assert word in done.err
    assert "spikequant/cli" not in done.err  # a person's mistake is told with a person's lines
    return True


@pytest.mark.parametrize("mistake", NETWORKS)
@pytest.mark.parametrize("command", ["train", "quantize"])
def test_networks(run, sources, tmp_path, command, mistake):
    text, words = NETWORKS[mistake]
    out = tmp_path / "deep" / "out"
    bits = ["--weight-bits", "4"] if command == "quantize" else []
    done = run(command, text.format(**sources), "--data", "digits", *bits, "--out", out)
    assert refused(done, *words)
    assert not (tmp_path / "deep").exists()


TRAIN = {
    "no data": (["{own}:build"], ["missing option '--data'", "Usage: spikequant train NETWORK --data NAME"]),
    "unknown data": (["{own}:build", "--data", "minst"], ["no such data set", "Did you mean mnist?", "cifar10"]),
    "no data folder": (["{own}:build", "--data", "mnist", "--data-dir", "{tmp}/no"], ["does not exist", "--data-dir"]),
    "empty data folder": (["{own}:build", "--data", "mnist", "--data-dir", "{tmp}"], ["looked in", "train-images"]),
    "an option of other data": (["{own}:build", "--data", "digits", "--steps", "4"], ["digits has no steps"]),
    "no epochs": (["{own}:build", "--data", "digits", "--epochs", "0"], ["'--epochs'", "got '0'"]),
    "epochs in words": (["{own}:build", "--data", "digits", "--epochs", "two"], ["'--epochs'", "'two'"]),
    "no rate": (["{own}:build", "--data", "digits", "--lr", "0"], ["a number above 0, got 0"]),
    "rate not a number": (["{own}:build", "--data", "digits", "--lr", "nan"], ["a number above 0, got nan"]),
    "batch of none": (["{own}:build", "--data", "digits", "--batch-size", "0"], ["'--batch-size'", "got '0'"]),
    "limit of none": (["{own}:build", "--data", "digits", "--limit", "0"], ["'--limit'", "got '0'"]),
    "negative seed": (["{own}:build", "--data", "digits", "--seed", "-1"], ["'--seed'", "got '-1'"]),
    "misspelt option": (["{own}:build", "--data", "digits", "--epoch", "3"], ["no such option", "--epochs"]),
    "resume and overwrite": (["{own}:build", "--data", "digits", "--resume", "--overwrite"], ["choose one of them"]),
    "no weights file": (["{own}:build", "--data", "digits", "--weights", "{tmp}/w.pt"], ["w.pt is not a file"]),
    "out is a file": (["{own}:build", "--data", "digits", "--out", "{own}"], ["is a file; choose a folder"]),
    "out below a file": (["{own}:build", "--data", "digits", "--out", "{own}/x"], ["cannot make or write the folder"]),
    "out of another run": (["{own}:build", "--data", "digits", "--out", "{trained}"], ["(finished)", "--overwrite"]),
}  # fmt: skip


def filled(arguments, **names):
    return [str(a).format(**names) for a in arguments]


@pytest.mark.parametrize("mistake", TRAIN)
def test_train(run, sources, trained, tmp_path, mistake):
    arguments, words = TRAIN[mistake]
    given = filled(arguments, tmp=tmp_path, trained=trained, **sources)
    out = [] if "--out" in given else ["--out", tmp_path / "out"]
    assert refused(run("train", *given, *out), *words)
    assert not (tmp_path / "out").exists()


QUANTIZE = {
    "no data": (["{own}:build", "--weight-bits", "4"], ["no data set was named", "--data NAME"]),
    "zero bits": (["{trained}", "--weight-bits", "0"], ["'--weight-bits'", "got '0'"]),
    "99 bits": (["{trained}", "--weight-bits", "99"], ["'--weight-bits'", "got '99'"]),
    "99 membrane bits": (["{trained}", "--membrane-bits", "99"], ["'--membrane-bits'", "got '99'"]),
    "unknown quantizer": (["{trained}", "--weight-bits", "4", "--weight-quantizer", "magic"], ["'magic'", "uniform"]),
    "unknown clipping": (["{trained}", "--weight-bits", "4", "--weight-clipping", "magic"], ["'magic'", "mse"]),
    "unknown rounding": (["{trained}", "--membrane-bits", "4", "--membrane-rounding", "up"], ["'up'", "half_up"]),
    "rounding of nothing": (["{trained}", "--weight-bits", "4", "--membrane-rounding", "floor"], ["--membrane-bits"]),
    "unknown solver": (["{trained}", "--weight-bits", "4", "--weight-solver", "gptq"], ["'gptq'", "second_order"]),
    "solver of nothing": (["{trained}", "--weight-solver", "second_order"], ["--weight-solver needs a plan"]),
    "firing of nothing": (["{trained}", "--match-firing"], ["--match-firing needs a plan"]),
    "firing, then training": (["{trained}", "--weight-bits", "4", "--match-firing", "--epochs", "1"], ["--epochs would"]),
    "no plan file": (["{trained}", "--plan", "{tmp}/plan.toml"], ["cannot read the plan"]),
    "bad plan field": (["{trained}", "--plan", "{bad_field}"], ["unknown field", "bitz"]),
    "bad plan value": (["{trained}", "--plan", "{bad_value}"], ["rules.0.weight.bits", "99"]),
    "not a plan": (["{trained}", "--plan", "{own}"], ["is not valid"]),
    "empty plan": (["{trained}", "--plan", "{empty}"], ["asks for nothing"]),
    "dead rule": (["{trained}", "--plan", "{dead}"], ["matches no layer"]),
    "plan and bits": (["{trained}", "--plan", "{good}", "--weight-bits", "4"], ["exclude each other", "--weight-bits"]),
    "plan and search": (["{trained}", "--plan", "{good}", "--max-drop", "1"], ["--max-drop searches for a plan"]),
    "bits and strict": (["{trained}", "--weight-bits", "4", "--strict"], ["--strict searches for a plan"]),
    "negative drop": (["{trained}", "--max-drop", "-1"], ["expected points of accuracy from 0 to 100"]),
    "drop not a number": (["{trained}", "--max-drop", "nan"], ["expected points of accuracy from 0 to 100"]),
    "not a run folder": (["{tmp}", "--weight-bits", "4"], ["is not a run folder"]),
    "unfit weights": (["{own}:build", "--weights", "{unfit}", "--data", "digits", "--weight-bits", "4"],
                      ["does not fit this network", "missing: fc1.bias", "unexpected: head.weight", "fc2.weight is [5, 24]"]),
    "NaN weights": (["{own}:build", "--weights", "{nan}", "--data", "digits", "--weight-bits", "4"],
                    ["fc1.weight holds NaN"]),
    "weights of text": (["{own}:build", "--weights", "{text}", "--data", "digits", "--weight-bits", "4"],
                        ["is not a readable safetensors file"]),
    "weights that are code": (["{own}:build", "--weights", "{code}", "--data", "digits", "--weight-bits", "4"],
                              ["cannot be read as plain weights", "state_dict"]),
    "weights that are a number": (["{own}:build", "--weights", "{number}", "--data", "digits", "--weight-bits", "4"],
                                  ["not named tensors"]),
    "weights of another kind": (["{own}:build", "--weights", "{own}", "--data", "digits", "--weight-bits", "4"],
                                ["weights end in .safetensors, .pt or .pth"]),
    "no spiking neuron": (["{ann}:build", "--data", "digits", "--weight-bits", "4"], ["has no spiking neuron"]),
}  # fmt: skip


class Code:
    """Something that plain weights must not hold."""

    def __reduce__(self):
        return os.getcwd, ()


@pytest.fixture(scope="session")
def files(tmp_path_factory, trained):
    """Files with mistakes for `quantize`."""
    folder = tmp_path_factory.mktemp("files")
    texts = {
        "good.toml": '[[rules]]\nmatch = "*"\nweight = { bits = 4 }\n',
        "bad_field.toml": '[[rules]]\nmatch = "*"\nweight = { bitz = 4 }\n',
        "bad_value.toml": '[[rules]]\nmatch = "*"\nweight = { bits = 99 }\n',
        "dead.toml": '[[rules]]\nmatch = "conv9"\nweight = { bits = 4 }\n',
        "empty.toml": "",
        "text.safetensors": "hello",
        "ann.py": "from torch import nn\n\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    weights = load_file(trained / "weights.safetensors")
    save_file(weights | {"fc1.weight": torch.full_like(weights["fc1.weight"], math.nan)}, folder / "nan.safetensors")
    unfit = {k: v for k, v in weights.items() if k != "fc1.bias"}
    save_file(unfit | {"fc2.weight": torch.ones(5, 24), "head.weight": torch.ones(2)}, folder / "unfit.safetensors")
    torch.save({"weight": Code()}, folder / "code.pt")
    torch.save(3, folder / "number.pt")
    return {path.stem: path for path in folder.iterdir()}


@pytest.mark.parametrize("mistake", QUANTIZE)
def test_quantize(run, sources, trained, files, tmp_path, mistake):
    arguments, words = QUANTIZE[mistake]
    given = filled(arguments, tmp=tmp_path, trained=trained, **sources, **files)
    assert refused(run("quantize", *given, "--out", tmp_path / "out"), *words)
    assert not (tmp_path / "out").exists()


def test_a_network_that_changed_since_it_was_trained_is_told(run, trained, own, tmp_path):
    file, folder = tmp_path / "net.py", tmp_path / "run"
    file.write_text(OWN_NETWORK)
    shutil.copytree(trained, folder)
    config = json.loads((folder / "config.json").read_text())
    config["network"]["file"] = str(file)
    (folder / "config.json").write_text(json.dumps(config))
    file.write_text(OWN_NETWORK.replace("64, 24", "64, 25").replace("24, 10", "25, 10"))
    done = run("quantize", folder, "--weight-bits", "4", "--out", tmp_path / "out")
    assert refused(done, "was changed after the run", "fc1.weight is [24, 64], the network has [25, 64]")


@pytest.mark.parametrize("command", [["verify"], ["export", "--format", "vectors"]])
@pytest.mark.parametrize("how", ["missing", "truncated", "text", "other", "folder"])
def test_networks_that_are_none(run, network, trained, tmp_path, command, how):
    path = tmp_path / "net.spq"
    if how == "truncated":
        path.write_bytes(network.read_bytes()[:200])
    elif how == "text":
        path.write_text("hello, world")
    elif how == "other":
        shutil.copy(trained / "weights.safetensors", path)
    elif how == "folder":
        path.mkdir()
    out = ["--out", tmp_path / "out"] if command[0] == "export" else []
    done = run(command[0], path, *command[1:], *out)
    assert refused(done, str(path))
    assert not (tmp_path / "out").exists()


OTHERS = {
    "unknown reader": (["verify", "{network}", "--readers", "magic"], ["expected 'all' or some of golden"]),
    "no reader": (["verify", "{network}", "--readers", ","], ["expected 'all'"]),
    "unknown format": (["export", "{network}", "--format", "pdf"], ["'pdf'", "vectors"]),
    "no format": (["export", "{network}"], ["missing option '--format'"]),
    "export over a file": (["export", "{network}", "--format", "vectors", "--out", "{network}"], ["net.spq"]),
    "compare nothing": (["compare"], ["missing argument"]),
    "compare what was not quantized": (["compare", "{trained}"], ["holds no comparison", "spikequant quantize"]),
    "compare no folder": (["compare", "{tmp}/no"], ["is not a folder"]),
    "option without value": (["train", "net.py:build", "--data"], ["'--data' requires an argument", "train --help"]),
    "an unknown command": (["paint"], ["no such command"]),
}


@pytest.mark.parametrize("mistake", OTHERS)
def test_other_commands(run, network, trained, tmp_path, mistake):
    arguments, words = OTHERS[mistake]
    assert refused(run(*filled(arguments, network=network, trained=trained, tmp=tmp_path)), *words)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"version": 1}', "\x00\x01"], ids=["empty", "cut off", "list", "few fields", "binary"]
)
@pytest.mark.parametrize("command", [["compare"], ["quantize", "--weight-bits", "4"], ["verify"]])
def test_a_damaged_config(run, network, tmp_path, command, text):
    (tmp_path / "config.json").write_text(text)
    shutil.copy(network, tmp_path / "network.spq")
    done = run(command[0], tmp_path, *command[1:], *(["--out", tmp_path / "o"] if command[0] == "quantize" else []))
    assert refused(done, "config.json")
