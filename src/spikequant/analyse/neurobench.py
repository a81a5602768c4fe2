"""NeuroBench's harness on our networks: its own metrics on integer layers, and memory in true bits.

NeuroBench 2.3 looks for `nn.Linear` and `nn.ConvNd` and takes bytes from the type of a tensor, so quantized layers do
not exist for it and four bits cost four bytes.  `neurobench_model` shows it, for each quantized layer, a plain layer
that holds the codes, fed with the integers that the quantized layer multiplies.  neurobench is imported on use.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spikequant.analyse.memory import memory_rows
from spikequant.capture import capture
from spikequant.frontends import library_of, read_
from spikequant.law.errors import DataError, Unsupported
from spikequant.law.network import IntNet
from spikequant.measure import FLASH_ROLES, MemoryRow, network_memory
from spikequant.nn import SYNAPSES, NeuronLayer, Synapse
from spikequant.nn.copying import copied
from spikequant.nn.reset import reset_states
from spikequant.readers import golden

REAL_BITS = 32


def neurobench_model(
    model: nn.Module | IntNet, example_input: Tensor | None = None, *, time_axis: int | None = None
) -> Any:
    """A `NeuroBenchModel` for ``Benchmark(model, dataloader, preprocessors, postprocessors, metrics)``.

    NeuroBench's Footprint stays what it is (elements times the size of their type); `neurobench_footprint` is ours.
    SynapticOperations and ConnectionSparsity see codes, ActivationSparsity the spikes of every neuron layer.

    Args:
        model: real, quantized or frozen; or an integer network, which answers what needs no look inside
            (ClassificationAccuracy, ConnectionSparsity, our footprint).
        example_input: one batch as the model itself takes it; our footprint needs it (not for an integer network).
        time_axis: axis of time in the data, which the model takes first: 1 for NeuroBench's ``[batch, time, ...]``;
            None for data that are handed on as they are, such as images.

    Raises:
        Unsupported: neurobench is not installed, or `model` is neither.

    Example::

        metrics = [[Footprint, sq.neurobench_footprint(), ConnectionSparsity],
                   [ClassificationAccuracy, ActivationSparsity, SynapticOperations]]
        Benchmark(sq.neurobench_model(model, example, time_axis=1), loader, [], [], metrics).run()
    """
    if isinstance(model, IntNet):
        mixin: type = _IntegerAnswers
    elif isinstance(model, nn.Module):
        mixin = _Answers
    else:
        raise Unsupported(f"neurobench_model: got a {type(model).__name__}; expected a torch module or an IntNet")
    kind = type("SpikequantModel", (mixin, _neurobench("models").NeuroBenchModel), {})
    return kind(model, example_input, time_axis)


def neurobench_footprint() -> type:
    """The metric of true bits, for NeuroBench's list of static metrics.

    Gives ``{"Flash": bytes, "RAM": bytes, "Total": bytes}``: codes at the bits of their quantizer, integer thresholds,
    states and buffers, as `measure.network_memory` counts them; 32 bits for what is real.
    """

    def call(self: Any, model: Any) -> dict[str, float]:
        rows = model.memory()
        flash = sum(row.count * row.bits for row in rows if row.role in FLASH_ROLES) / 8
        total = sum(row.count * row.bits for row in rows) / 8
        return {"Flash": flash, "RAM": total - flash, "Total": total}

    base = _neurobench("metrics.abstract").StaticMetric
    return type("BitTrueFootprint", (base,), {"__call__": call, "__doc__": "Memory in true bits, in bytes."})


def _neurobench(part: str) -> Any:
    import importlib

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it imports torchaudio, snntorch and more, which warn
            return importlib.import_module(f"neurobench.{part}")
    except ImportError as error:
        raise Unsupported(f"NeuroBench's harness needs neurobench: pip install neurobench ({error})") from error


class CountedLayers(nn.Module):
    """What NeuroBench walks: plain layers with the codes, the neurons; parameters and buffers are the model's own."""

    def __init__(self, layers: list[tuple[str, nn.Module]], models: list[nn.Module]) -> None:
        super().__init__()
        for name, layer in layers:
            self.add_module(name.replace(".", "_") or "model", layer)
        self.models = tuple(models)  # no children: their layers would be counted twice

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """Of the model that was given, for NeuroBench's Footprint and ParameterCount."""
        return self.models[0].parameters(recurse) if self.models else iter(())

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """Of the model that was given."""
        return self.models[0].buffers(recurse) if self.models else iter(())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> CountedLayers:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for model in self.models:
            model._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


class _Answers:
    """What a `NeuroBenchModel` answers, for a torch model."""

    activation_hooks: list[Any]
    connection_hooks: list[Any]

    def __init__(self, given: nn.Module, example_input: Tensor | None, time_axis: int | None) -> None:
        super().__init__()
        self.example_input, self.time_axis = example_input, time_axis
        self.model = model = _with_our_neurons(given.eval())
        self.seen = {name: m for name, m in model.named_modules() if isinstance(m, (Synapse, *SYNAPSES))}
        self.plain = {name: plain_layer(m) if isinstance(m, Synapse) else m for name, m in self.seen.items()}
        spiking = [
            (name, m)
            for name, m in model.named_modules()
            if isinstance(m, NeuronLayer) and m.neuron_spec.output == "spike"
        ]
        self.view = CountedLayers(
            [*self.plain.items(), *spiking], [given] if given is self.model else [given, self.model]
        )
        self.spiking = spiking

    def __call__(self, batch: Tensor) -> Any:
        """Predictions for one batch of NeuroBench's data, from rest."""
        self.refresh()
        reset_states(self.model)
        with torch.no_grad():
            result = self.model(_time_first(batch, self.time_axis))
        reset_states(self.model)
        return result

    def __net__(self) -> nn.Module:
        self.refresh()
        return self.view

    def refresh(self) -> None:
        """The codes of now: they follow the weights until the model is frozen."""
        for name, module in self.seen.items():
            if isinstance(module, Synapse):
                self.plain[name].weight.data = module.codes().detach()

    def memory(self) -> tuple[MemoryRow, ...]:
        """All rows of what must be stored."""
        if self.example_input is None:
            raise DataError("the footprint in true bits needs example_input=, one batch as the model takes it")
        try:
            graph = capture(self.model, self.example_input)
        finally:
            for hook in (*self.activation_hooks, *self.connection_hooks):
                hook.reset()  # they heard the example, which is no data
        whole = bool((self.example_input == self.example_input.to(torch.int64)).all())
        bits = int(self.example_input.max()).bit_length() if whole and bool((self.example_input >= 0).all()) else 0
        return memory_rows(self.model, {}, graph=graph, input_bits=bits or REAL_BITS, steps=graph.steps)

    # NeuroBench's lists of what it hooks into

    def activation_layers(self) -> list[dict[str, Any]]:
        """Spiking layers, at any depth."""
        return [{"layer_name": name, "layer": layer} for name, layer in self.spiking]

    def connection_layers(self) -> list[nn.Module]:
        """Weighted layers; a quantized one as a plain layer with its codes."""
        return list(self.plain.values())

    def register_hooks(self) -> None:
        """Its hooks; those of quantized layers hand over the integers that the layer multiplies."""
        hooks = _neurobench("hooks.neuron"), _neurobench("hooks.layer")
        self.activation_hooks += [hooks[0].NeuronHook(layer, name) for name, layer in self.spiking]
        for name, module in self.seen.items():
            plain = self.plain[name]
            is_ours = isinstance(module, Synapse)
            self.connection_hooks.append(_CodesHook(module, plain) if is_ours else hooks[1].LayerHook(plain))


class _CodesHook:
    """A `LayerHook` whose layer is the plain one, and which listens at the quantized one."""

    def __init__(self, module: Any, layer: nn.Module) -> None:
        self.module, self.layer, self.inputs = module, layer, []  # type: ignore[var-annotated]
        self.hook: Any = None
        self.register_hook()

    def hook_fn(self, module: Any, given: tuple[Tensor, ...]) -> None:
        """Keep the integers; a convolution's steps go into its batch."""
        x = module.integer_input(given[0])
        self.inputs.append((x.flatten(0, x.dim() - module.weight.dim()) if module.kind == "conv" else x,))

    def register_hook(self) -> None:
        """Listen."""
        self.hook = self.module.register_forward_pre_hook(self.hook_fn)

    def reset(self) -> None:
        """Forget the inputs."""
        self.inputs.clear()

    def close(self) -> None:
        """Listen no more."""
        self.hook.remove()


class _IntegerAnswers:
    """What a `NeuroBenchModel` answers, for an integer network."""

    def __init__(self, net: IntNet, example_input: Tensor | None, time_axis: int | None) -> None:
        super().__init__()
        self.net, self.time_axis = net, time_axis
        layers = [(node.name, _plain(node.product.kind, node.product.codes, node.product)) for node in net.synapses]
        self.view = CountedLayers(list(layers), [])

    def __call__(self, batch: Tensor) -> Tensor:
        """Scores ``[N, ...]`` in whole numbers."""
        codes = golden.encode(self.net, _time_first(batch, self.time_axis).numpy(force=True))
        return torch.from_numpy(np.ascontiguousarray(golden.run(self.net, codes, trace=False).scores))

    def __net__(self) -> nn.Module:
        return self.view

    def memory(self) -> tuple[MemoryRow, ...]:
        """All rows of what must be stored."""
        return network_memory(self.net)

    def register_hooks(self) -> None:
        """Refused: an integer network has no modules to listen at."""
        raise Unsupported(
            "NeuroBench's SynapticOperations and ActivationSparsity listen at torch modules; an IntNet has none. "
            "Give neurobench_model the frozen torch model that it came from: it has the same spikes"
        )


def _with_our_neurons(model: nn.Module) -> nn.Module:
    """The model, or a copy in which the neurons of another library are read, whose spikes NeuroBench would not see."""
    if all(library_of(module) is None for module in model.modules()):
        return model
    read = copied(model)
    read_(read)
    return read


def plain_layer(module: Synapse) -> Any:
    """A plain layer that holds the codes of a quantized one."""
    return _plain(module.kind, module.codes().detach().numpy(force=True), module)


def _plain(kind: str, codes: Any, shape: Any) -> Any:
    outputs, inputs = codes.shape[:2]
    layer: Any
    if kind == "linear":
        layer = nn.Linear(inputs, outputs, bias=False)
    else:
        convolution: Any = nn.Conv1d if codes.ndim == 3 else nn.Conv2d
        options = {name: tuple(getattr(shape, name)) for name in ("stride", "padding", "dilation")}
        layer = convolution(inputs * shape.groups, outputs, codes.shape[2:], groups=shape.groups, bias=False, **options)
    layer.weight.data = torch.from_numpy(np.asarray(codes, dtype=np.float32).copy())
    return layer


def _time_first(batch: Tensor, time_axis: int | None) -> Tensor:
    if time_axis is None:
        return batch
    if not 0 <= time_axis < batch.dim():
        raise DataError(f"time_axis={time_axis} of data of the shape {tuple(batch.shape)}")
    return batch.movedim(time_axis, 0)
