"""Networks of a person's own, in all the forms in which they may come."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from tests.cli.conftest import OWN_NETWORK
from torch import nn

from spikequant.cli.networks import build_network, network_source
from spikequant.law.errors import DataError

SMALL = "from torch import nn\n\ndef build(width=3):\n    return nn.Linear(2, width)\n"


def built(text, seed=0):
    return build_network(network_source(str(text)), seed=seed)


def test_a_function_a_class_and_an_object(tmp_path):
    file = tmp_path / "net.py"
    file.write_text(
        SMALL + "\nclass Net(nn.Linear):\n    def __init__(self):\n        super().__init__(2, 4)\n\nmodel = Net()\n"
    )
    assert built(f"{file}:build").out_features == 3
    assert built(f"{file}:Net").out_features == 4
    assert built(f"{file}:model").out_features == 4


def test_the_seed_decides_the_weights(tmp_path):
    (tmp_path / "net.py").write_text(SMALL)
    a, b, c = (built(f"{tmp_path}/net.py:build", seed=seed).weight for seed in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_files_beside_it_can_be_imported_also_late(tmp_path):
    (tmp_path / "my_parts.py").write_text("width = 5\n")
    (tmp_path / "my_late_parts.py").write_text("more = 2\n")
    (tmp_path / "net.py").write_text(
        "from torch import nn\nimport my_parts\n\ndef build():\n    import my_late_parts\n"
        "    return nn.Linear(2, my_parts.width + my_late_parts.more)\n"
    )
    before = list(sys.path)
    assert built(f"{tmp_path}/net.py:build").out_features == 7
    assert sys.path == before


def test_two_files_of_one_name(tmp_path):
    for folder, width in (("a", 3), ("b", 8)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.py").write_text(SMALL.replace("width=3", f"width={width}"))
    assert [built(f"{tmp_path}/{folder}/same.py:build").out_features for folder in "ab"] == [3, 8]


def test_a_file_that_has_the_name_of_a_library(tmp_path):
    (tmp_path / "json.py").write_text(SMALL)
    import json

    assert built(f"{tmp_path}/json.py:build").out_features == 3
    assert sys.modules["json"] is json


def test_a_module_of_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "__init__.py").write_text("")
    (tmp_path / "my_package" / "nets.py").write_text(SMALL)
    monkeypatch.chdir(tmp_path)
    assert built("my_package.nets:build").out_features == 3


def test_networks_of_spikequant():
    assert isinstance(built("digits_net"), nn.Module)


def test_an_error_is_told_with_the_lines_of_the_file_and_of_what_it_imports(tmp_path):
    (tmp_path / "broken_parts.py").write_text("def part():\n    return 1 / 0\n")
    (tmp_path / "net.py").write_text("from broken_parts import part\n\ndef build():\n    return part()\n")
    with pytest.raises(DataError) as caught:
        built(f"{tmp_path}/net.py:build")
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("raised: ZeroDivisionError: division by zero")
    assert [line.split(", in ")[0].rsplit("/")[-1] for line in lines[1:]] == [
        "net.py, line 4",
        "broken_parts.py, line 2",
    ]


@pytest.mark.parametrize("library", ["snntorch"])
def test_neurons_of_another_library_are_read_and_the_reading_is_checked(run, tmp_path, library):
    pytest.importorskip(library)
    text = OWN_NETWORK.replace("import spikequant as sq", "import snntorch as snn")
    text = text.replace('sq.nn.LIF(leak=0.75, step_mode="s")', "snn.Leaky(beta=0.75)")
    text = text.replace('sq.nn.LIF(leak=0.75, reset="subtract", step_mode="s")', "snn.Leaky(beta=0.75)")
    text = text.replace(
        "        count = 0\n", "        count, a, b = 0, self.lif1.init_leaky(), self.lif2.init_leaky()\n"
    )
    text = text.replace(
        "            count = count + self.lif2(self.fc2(self.lif1(self.fc1(x))))\n",
        "            s, a = self.lif1(self.fc1(x), a)\n            s, b = self.lif2(self.fc2(s), b)\n"
        "            count = count + s\n",
    )
    (tmp_path / "snn_net.py").write_text(text)
    given = ["--data", "digits", "--limit", "200"]
    net = f"{tmp_path}/snn_net.py:build"
    assert run("train", net, *given, "--epochs", 4, "--lr", "0.01", "--out", tmp_path / "run").code == 0
    done = run("quantize", tmp_path / "run", "--weight-bits", "4", "--membrane-bits", "8", "--out", tmp_path / "small")
    assert done.code == 0
    assert "read lif1: snnTorch Leaky, exact, 0 of" in done.err
    assert run("verify", tmp_path / "small").code == 0


def test_hidden_states_of_snntorch_are_reset_between_the_batches(run, tmp_path):
    """`forward` never resets, as in snnTorch's tutorials, where the training loop does."""
    pytest.importorskip("snntorch")
    text = OWN_NETWORK.replace("import spikequant as sq", "import snntorch as snn")
    hidden = "snn.Leaky(beta=0.75, init_hidden=True)"
    text = text.replace('sq.nn.LIF(leak=0.75, step_mode="s")', hidden)
    text = text.replace('sq.nn.LIF(leak=0.75, reset="subtract", step_mode="s")', hidden)
    assert text.count(hidden) == 2
    (tmp_path / "hidden_net.py").write_text(text)
    given = ["--data", "digits", "--limit", "200"]
    train = ["train", f"{tmp_path}/hidden_net.py:build", *given, "--epochs", 4, "--lr", "0.01"]
    done = run(*train, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    stated = json.loads((tmp_path / "run" / "result.json").read_text())["accuracy"]
    small = tmp_path / "small"
    done = run("quantize", tmp_path / "run", "--weight-bits", "8", "--membrane-bits", "12", "--out", small)
    assert done.code == 0, done.err
    found = json.loads((small / "result.json").read_text())["comparison"]
    # `train` has measured the same network, from rest for each batch, as the reading of it that is compared
    assert found["reference"]["accuracy"] == pytest.approx(stated, abs=1e-6)
    assert stated > 0.3  # of 10 classes: it has learned
    assert run("verify", small).code == 0
