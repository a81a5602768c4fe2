"""How long `quantize_` takes on SpikingJelly's SEW-ResNet-18, with one thread and with two.

python benchmarks/quantize_time.py        # writes benchmarks/quantize_time.md
"""

from __future__ import annotations

import copy
import statistics
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

import spikequant as sq

TARGET = Path(__file__).with_suffix(".md")
RUNS = 5
PAGE = """# Time of quantize_

`python benchmarks/quantize_time.py`: SpikingJelly 2.0's SEW-ResNet-18 (ADD, IF, 10 classes), input 2 x 3 x 32 x 32,
T = 4, plan W4/U8 with scales of least squared error; seconds, median of {runs} runs (least to most).
Commit {commit}, torch {torch}, 2-core x86 CPU.

| threads | wall | processor |
|---|---|---|
{rows}
"""


class OverTime(nn.Module):
    """The network on an image shown for four steps."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.unsqueeze(0).repeat(4, 1, 1, 1, 1)).mean(0)


def network() -> nn.Module:
    for name in ("torchvision", "torchvision._internally_replaced_utils"):  # the zoo needs one function of it
        stub = ModuleType(name)
        stub.load_state_dict_from_url = torch.hub.load_state_dict_from_url
        sys.modules.setdefault(name, stub)
    from spikingjelly.activation_based import functional, neuron, surrogate
    from spikingjelly.activation_based.model import sew_resnet

    torch.manual_seed(0)
    options = {"spiking_neuron": neuron.IFNode, "surrogate_function": surrogate.ATan(), "detach_reset": True}
    net = sew_resnet.sew_resnet18(pretrained=False, cnf="ADD", num_classes=10, **options)
    functional.set_step_mode(net, "m")
    return OverTime(net)


def seconds(net: nn.Module, x: Tensor) -> tuple[float, float]:
    model = copy.deepcopy(net)
    wall, processor = time.perf_counter(), time.process_time()
    sq.quantize_(model, sq.Plan.uniform(weight_bits=4, membrane_bits=8), x, quiet=True)
    return time.perf_counter() - wall, time.process_time() - processor


def shown(times: list[float]) -> str:
    return f"{statistics.median(times):.2f} ({min(times):.2f} to {max(times):.2f})"


def main() -> None:
    net, x, rows = network(), torch.rand(2, 3, 32, 32), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        seconds(net, x)
        wall, processor = zip(*(seconds(net, x) for _ in range(RUNS)), strict=True)
        rows.append(f"| {threads} | {shown(list(wall))} | {shown(list(processor))} |")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True).stdout
    page = PAGE.format(runs=RUNS, commit=commit.strip(), torch=torch.__version__, rows="\n".join(rows))
    TARGET.write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
