"""Every proven path of a layer's product on real shapes: time, ratio to float32, the chosen one; the weight gradient.

    python benchmarks/product_paths.py [--rounds 7]

Paths run interleaved in one process on one thread, operands as they stand in a network (spikes channels last, codes
packed before); minima of processor time, so that a busy machine says the same.  Prints Markdown tables.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from spikequant.nn import use_path
from spikequant.nn.products import PATHS, Geometry, LayerProduct, Widths, event_gradients, gradients, kernels
from spikequant.nn.products.byte_input import as_bytes


@dataclass(frozen=True)
class Shape:
    """A layer of a network, its merged input and the share of live inputs."""

    name: str
    geometry: Geometry
    x: tuple[int, ...]
    density: float


def conv(out: int, inputs: int, size: int, images: int, density: float, kernel: int = 3) -> Shape:
    geometry = Geometry((out, inputs, kernel, kernel), (1, 1), (kernel // 2, kernel // 2), (1, 1))
    name = f"conv {inputs}-{out} {kernel}x{kernel}, {size}x{size}, {images} images"
    return Shape(name, geometry, (images, inputs, size, size), density)


def linear(out: int, inputs: int, rows: int, density: float) -> Shape:
    return Shape(f"linear {inputs}-{out}, {rows} rows", Geometry((out, inputs)), (rows, inputs), density)


SHAPES = (
    conv(16, 2, 34, 512, 0.1), conv(32, 16, 17, 512, 0.1), conv(64, 64, 32, 32, 0.1), conv(64, 64, 8, 128, 0.2),
    conv(128, 128, 4, 128, 0.2), conv(256, 256, 2, 128, 0.2), conv(512, 512, 1, 128, 0.2), linear(1000, 784, 1, 0.02),
    linear(1000, 784, 32, 0.02), linear(1000, 784, 32, 0.2), linear(1000, 784, 512, 0.13), linear(10, 2048, 512, 0.1),
)  # fmt: skip


def operands(shape: Shape) -> tuple[Tensor, Tensor, Widths]:
    torch.manual_seed(0)
    x = (torch.rand(shape.x) < shape.density).float()
    if x.dim() == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    codes = torch.randint(-127, 128, shape.geometry.weight_shape).float()
    return x, codes, Widths(0, 1, -127, 127, shape.geometry.fan_in * 127)


def least(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Milliseconds of each, the least of `rounds`, interleaved."""
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(rounds + 1):
        for name, run in runs.items():
            started = time.process_time()
            run()
            best[name] = min(best[name], 1e3 * (time.process_time() - started))
    return best


def forward_row(shape: Shape, rounds: int) -> str:
    x, codes, widths = operands(shape)
    runs: dict[str, Callable[[], object]] = {}
    layers: dict[str, tuple[LayerProduct, dict[str, object]]] = {}

    def runner(path: str | None) -> Callable[[], Tensor]:
        layer, packs = layers.setdefault(str(path), (LayerProduct(shape.geometry), {}))

        def run() -> Tensor:
            if path is None:
                return layer.sums(x, codes, None, widths=widths, packs=packs)
            with use_path(path):
                return layer.sums(x, codes, None, widths=widths, packs=packs)

        return run

    wanted = runner("float32")()
    for path in PATHS:
        try:
            same = torch.equal(runner(path)().float(), wanted)
        except Exception:  # not proven here
            continue
        assert same, (shape, path)
        runs[path] = runner(path)
    chosen = runner(None)
    chosen()
    times = least(runs, rounds)
    cells = [f"{times[p]:.2f} ({times[p] / times['float32']:.2f})" if p in times else "" for p in PATHS]
    return f"| {shape.name} | {shape.density:.0%} | {' | '.join(cells)} | {layers['None'][0].path} |"


def gradient_row(shape: Shape, rounds: int) -> str | None:
    x, _, widths = operands(shape)
    geometry = shape.geometry.in_two_axes()
    x = x if x.dim() == 4 else x[:, :, None, None]
    packed = as_bytes(x, geometry, widths)
    assert packed is not None
    g = torch.randn(packed.output_shape).contiguous(memory_format=torch.channels_last)
    if not kernels.has_vnni():
        return None
    weight = torch.zeros(geometry.weight_shape)
    matrix = not shape.geometry.is_conv
    by_events = event_gradients.matrix_gradient_of_events if matrix else event_gradients.weight_gradient_of_events
    runs = {
        "dense": lambda: gradients.weight_gradient(g, packed.floats(torch.float32), weight, geometry),
        "events": lambda: by_events(g, packed),
    }
    with torch.no_grad():
        times = least(runs, rounds)
        rule = "dense" if event_gradients.event_gradient(g, packed) is None else "events"
    ratio = times["events"] / times["dense"]
    return (
        f"| {shape.name} | {shape.density:.0%} | {times['dense']:.2f} | {times['events']:.2f} | {ratio:.2f} | {rule} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print("## Forward: milliseconds (ratio to float32)\n")
    print(f"| product | live | {' | '.join(PATHS)} | chosen |\n|{' --- |' * (len(PATHS) + 3)}")
    for shape in SHAPES:
        print(forward_row(shape, given.rounds), flush=True)
    print("\n## Gradient of the weights: milliseconds\n")
    print("| product | live | dense float32 | events | ratio | rule |\n| --- | --- | --- | --- | --- | --- |")
    for shape in SHAPES:
        row = gradient_row(shape, given.rounds)
        if row is not None:
            print(row, flush=True)


if __name__ == "__main__":
    main()
