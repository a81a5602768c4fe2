"""What scores an integer network: seen by `paths`, forced by `use_reader`, equal whichever it is."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest
import torch
from torch import nn

import spikequant as sq
from spikequant.nn import integer_readers, use_reader
from spikequant.nn.integer_readers import READERS, choose_reader
from spikequant.readers import golden, native
from spikequant.training.integers import IntegerRunner

paths_module = importlib.import_module("spikequant.nn.paths")  # the package's name `paths` is the function


@pytest.fixture(scope="module")
def lowered():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.lif1 = nn.Conv2d(2, 4, 3, padding=1), sq.nn.LIF(leak=0.75)
            self.fc, self.lif2 = nn.Linear(4 * 25, 3), sq.nn.LIF(leak=0.5)
            with torch.no_grad():
                self.conv.weight.mul_(4)
                self.fc.weight.mul_(4)

        def forward(self, x):
            x = self.lif1(self.conv(x.flatten(0, 1)).unflatten(0, x.shape[:2]))
            return self.lif2(self.fc(x.flatten(2))).sum(0)

    model, x = Net(), (torch.rand(5, 9, 2, 5, 5) < 0.4).float()
    sq.quantize_(model, sq.Plan.uniform(weight_bits=4, membrane_bits=8), x, quiet=True)
    sq.freeze(model)
    return sq.lower(model, x), x


def test_the_network_names_its_paths(lowered):
    net, _ = lowered
    found = net.paths()
    assert found.reader == choose_reader(net).reader
    assert found == sq.paths(net)
    assert [row.layer for row in found.layers] == ["conv", "fc"]
    assert str(found).splitlines()[0] == f"scored by: {found.reader}"
    assert {row.path for row in found.layers} == {{"layers": "int8_vnni", "c99": "events"}.get(found.reader, "int64")}


def test_a_wide_matrix_may_be_walked(lowered, monkeypatch):
    net, _ = lowered
    if net.paths().reader != "layers":
        pytest.skip("this machine has no byte products")
    monkeypatch.setattr(paths_module, "LINE", 3)
    assert [row.path for row in net.paths().layers] == ["int8_vnni", "int8_vnni or events"]


@pytest.mark.parametrize("how", ["context", "environment"])
@pytest.mark.parametrize("reader", READERS)
def test_every_reader_gives_the_golden_scores(lowered, reader, how, monkeypatch):
    net, x = lowered
    if reader in choose_reader(net).refused:
        pytest.skip(choose_reader(net).refused[reader])
    wanted = golden.run(net, golden.encode(net, x.numpy())).scores
    assert wanted.sum() > 0
    if how == "environment":
        monkeypatch.setenv("SPIKEQUANT_READER", reader)
        runner, shown = IntegerRunner(net), net.paths()
    else:
        with use_reader(reader):
            runner, shown = IntegerRunner(net), net.paths()
    assert runner.reader == shown.reader == reader
    assert torch.equal(runner(x), torch.from_numpy(wanted))


def test_what_is_not_possible_is_refused(lowered, monkeypatch):
    net, _ = lowered
    monkeypatch.setattr(integer_readers, "layerwise", lambda net: (None, "a loop in time"))
    monkeypatch.setattr(native, "find_compiler", lambda: None)
    assert net.paths().reader == "golden"
    assert net.paths()["fc"].refused == {"layers": "a loop in time", "c99": "there is no C compiler"}
    with (
        use_reader("c99"),
        pytest.raises(sq.Unsupported, match="reader c99 is not possible .*: there is no C compiler"),
    ):
        sq.evaluate(net, [])
    with (
        pytest.raises(sq.Unsupported, match="no reader 'fast'; expected one of layers, c99, golden"),
        use_reader("fast"),
    ):
        pass
    monkeypatch.setenv("SPIKEQUANT_READER", "best")
    with pytest.raises(sq.Unsupported, match="no reader 'best'"):
        net.paths()


def test_a_network_read_from_its_file_alone_answers(lowered, tmp_path):
    net, _ = lowered
    net.save(tmp_path / "n.spq")
    program = f"from spikequant.law.network import IntNet; print(IntNet.load({str(tmp_path / 'n.spq')!r}).paths())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(net.paths())
