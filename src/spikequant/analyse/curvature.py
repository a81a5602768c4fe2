"""Second derivatives of a loss by layer and role, through time by back-propagation.

`Curvature` is a context: while it is open, the model's weights, thresholds and the currents into its neurons are
leaves of the graph.  A perturbation of a neuron's current at step t is one of its membrane before it fires at t, so
the membrane's curvature is that with respect to such perturbations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self, final

import torch
from torch import Tensor, nn

from spikequant.frontends.registry import Readings, read_
from spikequant.law.errors import DataError, Unsupported
from spikequant.nn import SYNAPSES, NeuronLayer, Surrogate, Synapse
from spikequant.nn.neuron import over_features
from spikequant.nn.reset import reset_states
from spikequant.training import first_output

Role = Literal["weight", "membrane", "threshold"]
ROLES: tuple[Role, ...] = ("weight", "membrane", "threshold")
FLAT_SURROGATES = ("boxcar", "triangle", "straight_through")
"""Their second derivative is 0 almost everywhere."""
LEAST_EIGENVALUE = -1e-5

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(eq=False)
class Place:
    """One layer in one role and the tensors of the graph that stand for it."""

    layer: str
    role: Role
    tensors: list[Tensor] = field(default_factory=list)

    @property
    def numel(self) -> int:
        """Numbers in it."""
        return sum(t.numel() for t in self.tensors)


@final
class Curvature:
    """A model, its loss on one batch, and products with second derivatives.

    Args:
        model: real or quantized (not frozen); put back as it was at the end.
        loss: of outputs and targets, a mean over samples.
        roles: some of ``"weight"``, ``"membrane"``, ``"threshold"``.
        surrogate: replaces the surrogate of every neuron while open; None leaves them.

    Raises:
        Unsupported: an unknown role.
        DataError: no layer has the roles.
    """

    def __init__(self, model: nn.Module, loss: Loss, roles: Sequence[Role], surrogate: Surrogate | None) -> None:
        if isinstance(roles, str) or not roles or set(roles) - set(ROLES):
            raise Unsupported(f"roles = {roles!r}; expected some of {', '.join(ROLES)}, as a tuple")
        self.model, self.loss, self.roles, self.surrogate = model, loss, tuple(roles), surrogate
        self.places: list[Place] = []
        self.surrogates: dict[str, str] = {}
        self.caveats: tuple[str, ...] = ()
        self._undo: list[Callable[[], object]] = []
        self._gradients: list[Tensor] = []
        self._outputs: Tensor | None = None
        self._targets: Tensor | None = None
        self._batch_size = 0

    # -- the model as leaves of a graph --------------------------------------------------

    def __enter__(self) -> Self:
        try:
            self._open()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._gradients, self._outputs = [], None
        reset_states(self.model)  # they hang on the graph of the last batch
        for undo in reversed(self._undo):
            undo()
        self._undo = []

    def _open(self) -> None:
        modes = [(module, module.training) for module in self.model.modules()]
        self._undo.append(lambda: _set_modes(modes))
        readings: Readings = read_(self.model)
        self._undo.append(readings.undo)
        self.caveats = tuple(f"{one.path}: {text}" for one in readings.replaced for text in one.reading.caveats)
        self.model.eval()
        for parameter in self.model.parameters():
            self._require(parameter)
        for path, module in self.model.named_modules():
            if isinstance(module, (Synapse, *SYNAPSES)):
                self._add_weight(path, module)
            elif isinstance(module, NeuronLayer):
                self._add_neuron(path, module)
        if not self.places:
            raise DataError(f"the model has no layer with {' or '.join(self.roles)}")

    def _require(self, tensor: Tensor) -> None:
        asked = tensor.requires_grad
        tensor.requires_grad_(True)
        self._undo.append(lambda: tensor.requires_grad_(asked))

    def _add_weight(self, path: str, module: nn.Module) -> None:
        if isinstance(module, Synapse) and module.is_frozen:
            raise Unsupported(
                f"{path} is frozen: its integers do not move with its weights; take the model before freeze"
            )
        if "weight" in self.roles:
            weight = module.weight
            assert isinstance(weight, Tensor)
            self.places.append(Place(path, "weight", [weight]))

    def _add_neuron(self, path: str, module: NeuronLayer) -> None:
        if self.surrogate is not None:
            before = module.surrogate
            self._undo.append(lambda: setattr(module, "surrogate", before))
            module.surrogate = self.surrogate
        self.surrogates[path] = module.surrogate.name
        if "membrane" in self.roles:
            place = Place(path, "membrane")
            self.places.append(place)
            handle = module.register_forward_pre_hook(lambda layer, given: _perturbed(place, layer, given))
            self._undo.append(handle.remove)
            if module.neuron_spec.has_current:
                self.caveats += (f"{path} membrane: the curvature is that of its synaptic current, which feeds it",)
        if "threshold" in self.roles and "threshold" in module.sources and module.neuron_spec.output == "spike":
            tensors = [self._leaf(module, name) for name in module.sources["threshold"].attributes]
            self.places.append(Place(path, "threshold", tensors))

    def _leaf(self, module: nn.Module, name: str) -> Tensor:
        """A parameter as it is; a buffer as a copy with a gradient."""
        value = getattr(module, name)
        assert isinstance(value, Tensor)
        if not isinstance(value, nn.Parameter):
            setattr(module, name, value.detach().clone().requires_grad_())
            self._undo.append(lambda: setattr(module, name, value))
        leaf = getattr(module, name)
        assert isinstance(leaf, Tensor)
        return leaf

    # -- a batch ---------------------------------------------------------------------------

    def run(self, x: Tensor, y: Tensor) -> None:
        """Run the model on a batch and keep the graph of its outputs.

        Raises:
            DataError: outputs that are not ``[N, classes]``, or a loss that is not finite.
        """
        self._gradients = []
        for place in self.places:
            if place.role == "membrane":
                place.tensors = []
        reset_states(self.model)
        with torch.enable_grad():
            self._outputs = first_output(self.model(x))
        self._targets, self._batch_size = y, len(y)
        if self._outputs.dim() < 2 or len(self._outputs) != len(y):
            raise DataError(f"expected outputs [N, classes] for {len(y)} targets, got {tuple(self._outputs.shape)}")

    @property
    def tensors(self) -> list[Tensor]:
        """All leaves, place by place."""
        return [tensor for place in self.places for tensor in place.tensors]

    def gradients(self) -> list[Tensor]:
        """Of the loss by every leaf, with their own graph; computed once a batch."""
        if not self._gradients:
            assert self._outputs is not None
            with torch.enable_grad():
                value = self._value(self._outputs)
                self._gradients = list(
                    torch.autograd.grad(value, self.tensors, create_graph=True, materialize_grads=True)
                )
        return self._gradients

    def _value(self, outputs: Tensor, which: slice = slice(None)) -> Tensor:
        """The loss of some samples, checked."""
        assert self._targets is not None
        value = self.loss(outputs[which], self._targets[which])
        if value.dim() or not bool(torch.isfinite(value)):
            raise DataError(f"the loss is {value.detach()}; expected one finite number, a mean over samples")
        return value

    def times(self, vectors: Sequence[Tensor]) -> list[Tensor]:
        """The Hessian times a vector given as one tensor a leaf."""
        gradients = self.gradients()
        moving = [(g, v) for g, v in zip(gradients, vectors, strict=True) if g.requires_grad]
        if not moving:
            return [torch.zeros_like(v) for v in vectors]
        found = torch.autograd.grad(
            [g for g, _ in moving], self.tensors, grad_outputs=[v for _, v in moving], retain_graph=True,
            materialize_grads=True,
        )  # fmt: skip
        return list(found)

    def sums(self, products: Sequence[Tensor], others: Sequence[Tensor]) -> list[float]:
        """Inner product by place."""
        parts = iter(float((a * b).sum()) for a, b in zip(products, others, strict=True))
        return [sum(next(parts) for _ in place.tensors) for place in self.places]

    # -- samples whose mean is a trace ---------------------------------------------------------

    def hessian_sample(self, generator: torch.Generator) -> list[float]:
        """``v' H v`` by place for one vector of signs: Hutchinson (1989)."""
        signs = [rademacher(t, generator) for t in self.tensors]
        return self.sums(self.times(signs), signs)

    def gauss_newton_sample(self, generator: torch.Generator) -> list[float]:
        """``|J' S r|^2`` by place, where ``S S'`` is the loss's Hessian by the outputs and ``r`` are signs."""
        assert self._outputs is not None
        factor = self._output_factor()
        signs = rademacher(factor[:, :, 0], generator)
        seeds = torch.einsum("nij,nj->ni", factor, signs).reshape(self._outputs.shape).to(self._outputs)
        return self._squares(self._outputs, seeds)

    def fisher_sample(self, generator: torch.Generator) -> list[float]:
        """``|sum_n r_n g_n|^2 / N`` by place with signs ``r``: its mean is that of ``|g_n|^2`` over the samples."""
        assert self._outputs is not None
        assert self._targets is not None
        with torch.enable_grad():
            losses = torch.stack([self._value(self._outputs, slice(n, n + 1)) for n in range(self._batch_size)])
        signs = rademacher(losses, generator)
        return self._squares(losses, signs / self._batch_size**0.5)

    def _squares(self, of: Tensor, seeds: Tensor) -> list[float]:
        found = torch.autograd.grad(of, self.tensors, grad_outputs=seeds, retain_graph=True, materialize_grads=True)
        return self.sums(found, found)

    def _output_factor(self) -> Tensor:
        """``S_n`` with ``S_n S_n' = d2 loss / d outputs_n2``, ``[N, C, C]``; in float64 if the loss can.

        Raises:
            Unsupported: a loss that is not convex in the outputs.
        """
        assert self._outputs is not None
        outputs = self._outputs.detach().double().requires_grad_()
        with torch.enable_grad():
            try:
                value = self._value(outputs)
            except RuntimeError:  # it holds tensors of the outputs' own type, such as class weights
                outputs = self._outputs.detach().clone().requires_grad_()
                value = self._value(outputs)
            (gradient,) = torch.autograd.grad(value, outputs, create_graph=True)
            flat = gradient.flatten(1)
            columns = [
                torch.autograd.grad(flat[:, c].sum(), outputs, retain_graph=True, materialize_grads=True)[0].flatten(1)
                for c in range(flat.shape[1])
            ]
        values, vectors = torch.linalg.eigh(torch.stack(columns, dim=2).double())
        if float(values.min()) < LEAST_EIGENVALUE * max(1.0, float(values.max())):
            raise Unsupported(
                "the loss is not convex in the outputs, so it has no Gauss-Newton matrix; use the Hessian"
            )
        factor: Tensor = vectors * values.clamp_min(0).sqrt()[:, None, :]
        return factor


def rademacher(like: Tensor, generator: torch.Generator) -> Tensor:
    """Signs in the shape and type of a tensor."""
    signs = torch.randint(0, 2, like.shape, generator=generator, dtype=torch.int8)
    return (2 * signs - 1).to(like)


def _set_modes(modes: Sequence[tuple[nn.Module, bool]]) -> None:
    for module, mode in modes:
        module.training = mode


def _perturbed(place: Place, layer: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    """The current plus a perturbation of zeros that the graph goes through, in units of the membrane."""
    assert isinstance(layer, NeuronLayer)
    moved = torch.zeros_like(given[0], memory_format=torch.contiguous_format, requires_grad=True)
    place.tensors.append(moved)
    if "gain" not in layer.sources:
        return (given[0] + moved, *given[1:])
    features = moved.dim() - (1 if layer.step_mode == "s" else 2)
    gain = over_features(layer.real_value("gain").detach(), features).to(moved)
    return (given[0] + moved / gain, *given[1:])
