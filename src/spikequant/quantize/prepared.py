"""A quantized model in one file: its tensors, and a JSON record of what every layer became.

No pickle, and no plan: the file says for each layer which quantizer, registers and
branches it has.  The real model is built by the user's own code, as for any `state_dict`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from spikequant.frontends import CellReading, read_
from spikequant.law.artifact import MALFORMED
from spikequant.law.atomic import replacing
from spikequant.law.errors import ArtifactError, NotFrozen, SpikequantError
from spikequant.law.formats import IntFormat
from spikequant.law.spec import NeuronSpec
from spikequant.nn import Branch, FoldedNorm, Neuron, NeuronChoice, Normalize, QuantizedNeuron, Register, Synapse
from spikequant.nn.chip import chip_from_dict
from spikequant.nn.reset import reset_states
from spikequant.quantize.chips import chip_readings
from spikequant.quantizers import Quantizer, quantizer_from_dict, quantizer_to_dict

FORMAT = "spikequant-prepared"
VERSION = 1
KEY = "spikequant"
SYNAPSE_FIELDS = ("per_channel", "unit", "input_bound", "input_limit", "checks_input", "readout_bits")
NEURON_FIELDS = ("seed", "layer", "fraction_bits", "last_axis")
REGISTERS = ("membrane", "current", "input", "adaptation")
QUANTIZERS = ("threshold", "leak", "bias")


def save_prepared(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write a quantized model, frozen or not, with everything that `load_prepared` needs besides the real model's code.

    Raises:
        NotFrozen: nothing of the model is quantized.
        ArtifactError: the file cannot be written; an older one stays whole.
    """
    layers = [_record(model, path_, module) for path_, module in model.named_modules() if isinstance(module, KINDS)]
    if not layers:
        raise NotFrozen(
            "nothing of this model is quantized; call spikequant.quantize_(model, plan, example_input) first"
        )
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}
    folded = [name for name, m in model.named_modules() if isinstance(m, Normalize) and m.folded]
    text = json.dumps({"format": FORMAT, "version": VERSION, "layers": layers, "folded": folded}, sort_keys=True)
    header = {KEY: json.dumps({"record": text, "sha256": _digest(text, tensors)})}
    with replacing(path) as temporary:
        try:
            save_file(tensors, temporary, metadata=header)
        except SafetensorError as error:
            raise ArtifactError(f"cannot write {path}: {error}; nothing was changed") from error


def load_prepared(build_model: Callable[[], nn.Module] | nn.Module, path: str | os.PathLike[str]) -> nn.Module:
    """The quantized model of a file: same codes, same outputs.

    Args:
        build_model: a function without arguments that makes the real model (its weights do
            not matter), or the model itself, which is then changed in place.
        path: what `save_prepared` wrote.

    Raises:
        ArtifactError: missing, truncated or changed file, unknown version, or a model with
            other layers or shapes than the one that was saved.
    """
    record, tensors = _read(path)
    model = build_model if isinstance(build_model, nn.Module) else build_model()
    if any(isinstance(module, KINDS) for module in model.modules()):
        raise ArtifactError("load_prepared: this model is quantized already; expected the real one")
    readings = read_(model)
    before = dict(model.named_modules())
    try:
        for layer in record["layers"]:
            _place(model, layer)
        for layer in record["layers"]:
            if layer["kind"] == "neuron":
                _link(model, layer)
        for name in record["folded"]:
            _module(model, name, Normalize).folded = True
        _fill(model, tensors)
        for layer in record["layers"]:
            _finish(model, layer)
    except BaseException as error:
        for name, module in before.items():
            if name:
                _put(model, name, module)
        readings.undo()
        if isinstance(error, (*MALFORMED, RuntimeError)) and not isinstance(error, ArtifactError):
            raise ArtifactError(
                f"load_prepared: {path}: its record does not describe this model ({type(error).__name__}: {error}); "
                "save the model again"
            ) from error
        raise
    reset_states(model)
    return model


KINDS = (Synapse, FoldedNorm, QuantizedNeuron)


def _record(model: nn.Module, path: str, module: nn.Module) -> dict[str, Any]:
    """What a layer became, as plain data."""
    if isinstance(module, FoldedNorm):
        return {"kind": "norm", "path": path, "statistics": module.statistics}
    if isinstance(module, Synapse):
        bias, fmt = module.bias_quantizer, module.input_format
        return {
            "kind": "synapse",
            "path": path,
            "quantizer": quantizer_to_dict(module.quantizer),
            "bias_quantizer": None if bias is None else quantizer_to_dict(bias),
            "input_format": None if fmt is None else dataclasses.asdict(fmt),
            **{name: getattr(module, name) for name in SYNAPSE_FIELDS},
        }
    assert isinstance(module, QuantizedNeuron)
    names = {id(m): name for name, m in model.named_modules()}
    branches = [
        {
            "synapse": names[id(branch.synapse)],
            "norm": None if branch.norm is None else names[id(branch.norm)],
            "pool_unit": branch.pool_unit,
            "shared": branch.shared,
        }
        for branch in module.branches
    ]
    return {
        "kind": "neuron",
        "path": path,
        "real_spec": module.real_spec.to_dict(),
        "spec": None if module.spec is None else module.spec.to_dict(),
        "choice": _choice_to_dict(module.choice),
        "branches": branches,
        **{name: getattr(module, name) for name in NEURON_FIELDS},
    }


def _choice_to_dict(choice: NeuronChoice) -> dict[str, Any]:
    record: dict[str, Any] = {f.name: getattr(choice, f.name) for f in dataclasses.fields(choice)}
    for name in REGISTERS:
        record[name] = None if record[name] is None else dataclasses.asdict(record[name])
    for name in QUANTIZERS:
        record[name] = None if record[name] is None else quantizer_to_dict(record[name])
    record["chip"] = None if choice.chip is None else dataclasses.asdict(choice.chip)
    return record


def _choice_from_dict(record: dict[str, Any]) -> NeuronChoice:
    fields = dict(record)
    for name in REGISTERS:
        fields[name] = None if fields[name] is None else Register(**fields[name])
    for name in QUANTIZERS:
        fields[name] = _quantizer(fields[name])
    fields["chip"] = chip_from_dict(fields.get("chip"))
    return NeuronChoice(**fields)


def _quantizer(record: dict[str, Any] | None) -> Quantizer | None:
    return None if record is None else quantizer_from_dict(record)


def _digest(text: str, tensors: dict[str, Tensor]) -> str:
    found = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    source = Path(path)
    if not source.is_file():
        raise ArtifactError(f"{source}: no such file; expected what spikequant.save_prepared wrote")
    try:
        with safe_open(str(source), framework="pt") as file:
            header = (file.metadata() or {}).get(KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        if header is None:
            raise ArtifactError(f"{source}: a safetensors file without a spikequant record; expected a prepared model")
        envelope = json.loads(header)
        text = envelope.get("record", "{}")
        record = json.loads(text) if isinstance(text, str) else {}
    except (SafetensorError, *MALFORMED) as error:
        if isinstance(error, ArtifactError):
            raise
        raise ArtifactError(f"{source}: damaged or no safetensors file ({error}); save the model again") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ArtifactError(f"{source}: not a prepared model; an integer network is read by spikequant.IntNet.load")
    if record.get("version") != VERSION:
        raise ArtifactError(f"{source}: version {record.get('version')!r}, this release reads {VERSION}")
    if envelope.get("sha256") != _digest(text, tensors):
        raise ArtifactError(f"{source}: its content does not match its hash; the file was changed or damaged")
    return record, tensors


def _module(model: nn.Module, path: str, kind: Any) -> Any:
    """The layer at a path, of a kind."""
    try:
        module = model.get_submodule(path)
    except AttributeError:
        raise ArtifactError(
            f"load_prepared: the model has no layer {path!r}; expected the model that was saved"
        ) from None
    if not isinstance(module, kind):
        raise ArtifactError(f"load_prepared: {path} is a {type(module).__name__}; expected the one that was saved")
    return module


def _put(model: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    holder = model.get_submodule(parent)
    module.train(getattr(holder, name).training) if isinstance(module, KINDS) else None
    setattr(holder, name, module)


def _place(model: nn.Module, layer: dict[str, Any]) -> None:
    """Put the quantized form of one layer in its place."""
    path = layer["path"]
    source = _module(model, path, nn.Module)
    try:
        if layer["kind"] == "norm":
            norm = FoldedNorm(source)
            norm.statistics = layer["statistics"]
            _put(model, path, norm)
        elif layer["kind"] == "synapse":
            quantizer = _quantizer(layer["quantizer"])
            assert quantizer is not None
            synapse = Synapse(source, quantizer, per_channel=layer["per_channel"])
            for name in SYNAPSE_FIELDS:
                setattr(synapse, name, layer[name])
            fmt = layer["input_format"]
            synapse.input_format = None if fmt is None else IntFormat(**fmt)
            synapse.bias_quantizer = _quantizer(layer["bias_quantizer"])
            _put(model, path, synapse)
        else:
            _place_neuron(model, path, _module(model, path, Neuron), layer)
    except SpikequantError as error:
        if isinstance(error, ArtifactError):
            raise
        raise ArtifactError(f"load_prepared: {path}: {error}") from error


def _place_neuron(model: nn.Module, path: str, source: Neuron, layer: dict[str, Any]) -> None:
    saved = NeuronSpec.from_dict(layer["real_spec"])
    chip = layer["choice"].get("chip")
    if chip is not None and saved in chip_readings(source.spec, chip["target"]):
        source.spec = saved
    if source.spec != saved:
        raise ArtifactError(
            f"load_prepared: {path} is another neuron than the saved one: {source.spec} instead of {saved}"
        )
    neuron = QuantizedNeuron(source, _choice_from_dict(layer["choice"]), seed=layer["seed"])
    for name in NEURON_FIELDS:
        setattr(neuron, name, layer[name])
    _put(model, path, neuron)


def _link(model: nn.Module, layer: dict[str, Any]) -> None:
    """Join a neuron with the synapses that meet in it."""
    neuron = _module(model, layer["path"], QuantizedNeuron)
    for saved in layer["branches"]:
        synapse = _module(model, saved["synapse"], Synapse)
        norm = None if saved["norm"] is None else _module(model, saved["norm"], FoldedNorm)
        neuron.add_branch(Branch(synapse, norm, neuron, pool_unit=saved["pool_unit"], shared=saved["shared"]))
        if saved["shared"] and isinstance(synapse.weight_scale, nn.Parameter):
            synapse.weight_scale = neuron.branches[0].synapse.weight_scale


def _fill(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Every tensor of the file into its place; integers of frozen layers become new buffers."""
    for layer in (m for m in model.modules() if isinstance(m, QuantizedNeuron)):
        layer.spec = None
    for path, module in model.named_modules():
        if isinstance(module, KINDS):
            start = f"{_name_in_file(model, path)}."
            for name in [n[len(start) :] for n in tensors if n.startswith(start) and "." not in n[len(start) :]]:
                if name not in ("_extra_state", *_around(model, path)) and getattr(module, name, None) is None:
                    module.register_buffer(name, torch.empty_like(tensors[start + name]))
    try:
        model.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise ArtifactError(f"load_prepared: the tensors do not fit the model: {error}") from error


def _around(model: nn.Module, path: str) -> tuple[str, ...]:
    """Names under a layer's prefix that belong to the module around it."""
    around = model.get_submodule(path.rpartition(".")[0])
    return around.own_names if isinstance(around, CellReading) else ()


def _name_in_file(model: nn.Module, path: str) -> str:
    """A layer's prefix in a `state_dict`: the neurons of a recurrent layer stand under the layer's own name."""
    parent, _, name = path.rpartition(".")
    return parent if name == "cell" and isinstance(model.get_submodule(parent), CellReading) else path


def _finish(model: nn.Module, layer: dict[str, Any]) -> None:
    """What follows from the tensors: frozen specs, and the float type that carries the integers."""
    if layer["kind"] != "neuron":
        return
    neuron = _module(model, layer["path"], QuantizedNeuron)
    neuron.spec = None if layer["spec"] is None else NeuronSpec.from_dict(layer["spec"])
    with torch.no_grad():
        neuron.prove(neuron.integers())
