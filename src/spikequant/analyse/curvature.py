"""Second derivatives of a loss by layer and role, through time by back-propagation.

`Curvature` is a context: while it is open, the model's weights, thresholds and the currents into its neurons are
leaves of the graph.  A perturbation of a neuron's current at step t is one of its membrane before it fires at t, so
the membrane's curvature is that with respect to such perturbations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self, final

import torch
from torch import Tensor, nn

from spikequant.analyse.by_sample import Tap, rademacher, taps_apart
from spikequant.analyse.inputs import loss_of
from spikequant.analyse.places import MOST_SCALE, Place, Role, kept_current, perturbed
from spikequant.frontends.registry import Readings, read_
from spikequant.law.errors import DataError, Unsupported
from spikequant.nn import SYNAPSES, NeuronLayer, Surrogate, Synapse
from spikequant.nn.reset import reset_states
from spikequant.training.evaluate import called

ROLES: tuple[Role, ...] = ("weight", "membrane", "threshold")
FLAT_SURROGATES = ("boxcar", "triangle", "straight_through")
"""Their second derivative is 0 almost everywhere."""
LEAST_EIGENVALUE = -1e-5

Loss = Callable[[Tensor, Tensor], Tensor]


@final
class Curvature:
    """A model, its loss on one batch, and products with second derivatives.

    Args:
        model: real or quantized (not frozen); put back as it was at the end.
        loss: of outputs and targets, a mean over samples.
        roles: some of ``"weight"``, ``"membrane"``, ``"threshold"``.
        surrogate: replaces the surrogate of every neuron while open; None leaves them.
        by_sample: probe weights with vectors of signs that differ from sample to sample, where that is possible.

    Raises:
        Unsupported: an unknown role.
        DataError: no layer has the roles.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        roles: Sequence[Role],
        surrogate: Surrogate | None,
        *,
        by_sample: bool = True,
    ) -> None:
        if isinstance(roles, str) or not roles or set(roles) - set(ROLES):
            raise Unsupported(f"roles = {roles!r}; expected some of {', '.join(ROLES)}, as a tuple")
        self.model, self.loss, self.roles, self.surrogate = model, loss, tuple(roles), surrogate
        self.by_sample = by_sample
        self.places: list[Place] = []
        self.surrogates: dict[str, str] = {}
        self.caveats: tuple[str, ...] = ()
        self._undo: list[Callable[[], object]] = []
        self._gradients: list[Tensor] = []
        self._outputs: Tensor | None = None
        self._x: Tensor | None = None
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
        self._gradients, self._outputs, self._x = [], None, None
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
            self._require(parameter, asked=False)
        for path, module in self.model.named_modules():
            if isinstance(module, (Synapse, *SYNAPSES)):
                self._add_weight(path, module)
            elif isinstance(module, NeuronLayer):
                self._add_neuron(path, module)
        if not self.places:
            raise DataError(f"the model has no layer with {' or '.join(self.roles)}")

    def _require(self, tensor: Tensor, *, asked: bool) -> None:
        before = tensor.requires_grad
        tensor.requires_grad_(asked)
        self._undo.append(lambda: tensor.requires_grad_(before))

    def _add_weight(self, path: str, module: nn.Module) -> None:
        if isinstance(module, Synapse) and module.is_frozen:
            raise Unsupported(
                f"{path} is frozen: its integers do not move with its weights; take the model before freeze"
            )
        if "weight" in self.roles:
            weight = module.weight
            assert isinstance(weight, Tensor)
            place = Place(path, "weight", [weight], count=weight.numel())
            self.places.append(place)
            if self.by_sample and type(module) in SYNAPSES:
                place.tap = Tap(module)
                self._undo.append(place.tap.remove)
            else:
                self._require(weight, asked=True)

    def _add_neuron(self, path: str, module: NeuronLayer) -> None:
        if self.surrogate is not None:
            before = module.surrogate
            self._undo.append(lambda: setattr(module, "surrogate", before))
            module.surrogate = self.surrogate
        self.surrogates[path] = module.surrogate.name
        if "membrane" in self.roles:
            place = Place(path, "membrane")
            self.places.append(place)
            handle = module.register_forward_pre_hook(lambda layer, given: perturbed(place, layer, given))
            self._undo.append(handle.remove)
            if module.neuron_spec.has_current and kept_current(module) is None:
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
        if value is leaf:
            self._require(leaf, asked=True)
        return leaf

    # -- a batch ---------------------------------------------------------------------------

    def run(self, x: Tensor, y: Tensor) -> None:
        """Run the model on a batch and keep the graph of its outputs; nothing where it is the batch that is held.

        Raises:
            DataError: an input that the model cannot take, outputs that are not ``[N, classes]``, or a loss that is not
                finite.
        """
        if x is self._x:
            return None
        self._gradients, self._outputs, self._x = [], None, None
        for place in self.places:
            if place.role == "membrane" or place.tap is not None:
                place.tensors = []
            if place.tap is not None:
                place.tap.calls = []
        reset_states(self.model)
        with torch.enable_grad():
            self._outputs = called(self.model, x)
        self._targets, self._batch_size = y, len(y)
        if self._outputs.dim() < 2 or len(self._outputs) != len(y):
            raise DataError(f"expected outputs [N, classes] for {len(y)} targets, got {tuple(self._outputs.shape)}")
        taps = [place.tap for place in self.places if place.tap is not None]
        apart = taps_apart(taps, self._outputs, self._value)
        if len(apart) < len(taps):
            self._untap(apart)
            return self.run(x, y)
        self._x = x
        for place in self.places:
            if place.tap is not None:
                place.tap.seal(len(y))
                place.tensors = place.tap.leaves
        return None

    def _untap(self, kept: Sequence[Tap]) -> None:
        """Layers whose samples cannot be told apart are probed through their weights."""
        for place in self.places:
            if place.tap is not None and place.tap not in kept:
                weight = place.tap.module.weight
                assert isinstance(weight, Tensor)
                place.tap.remove()
                place.tap, place.tensors = None, [weight]
                self._require(weight, asked=True)

    @property
    def outputs(self) -> Tensor:
        """Of the model, with their graph."""
        assert self._outputs is not None
        return self._outputs

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
        value = loss_of(self.loss, outputs[which], self._targets[which])
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
        vectors = [vector for place in self.places for vector in self._vectors(place, generator)]
        return [q / p.scale**2 for q, p in zip(self.sums(self.times(vectors), vectors), self.places, strict=True)]

    def _vectors(self, place: Place, generator: torch.Generator) -> list[Tensor]:
        if place.tap is not None:
            return [place.scale * v for v in place.tap.directions(self._batch_size, generator)]
        return [place.scale * rademacher(t, generator) for t in place.tensors]

    def balance(self, sizes: Sequence[float]) -> None:
        """Probe flat places with longer vectors, so that steep ones do not drown them.

        A sample of one place holds ``s_m / s_l v_l' H_lm v_m`` of every other one, of mean 0; lengths
        ``s_l = |size_l|^-1/2`` make that as large for all places beside their own size.
        """
        largest = max((abs(size) for size in sizes), default=0.0)
        for place, size in zip(self.places, sizes, strict=True):
            place.scale = min(math.sqrt(largest / abs(size)), MOST_SCALE) if size else 1.0

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
        squares, start = [], 0
        for place in self.places:
            mine = found[start : start + len(place.tensors)]
            start += len(place.tensors)
            if place.tap is not None:
                squares.append(place.tap.squares(mine, self._batch_size))
            else:
                squares.append(sum(float((one.double() ** 2).sum()) for one in mine))
        return squares

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
            except DataError:  # it holds tensors of the outputs' own type, such as class weights
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


def _set_modes(modes: Sequence[tuple[nn.Module, bool]]) -> None:
    for module, mode in modes:
        module.training = mode
