"""Rows of `reproduce hessian-aware`: a network, its traces, its layers at few bits, plans of equal size trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikequant import data as sets
from spikequant.analyse import hessian_trace, measured_rises
from spikequant.analyse.local_hessian import local_hessian_trace
from spikequant.data.places import root_of
from spikequant.law.errors import DataError
from spikequant.models import mnist_net
from spikequant.models.adaptive_recurrent import AdaptiveRecurrent
from spikequant.models.decolle import Decolle
from spikequant.plan import Plan
from spikequant.recipes.bits_and_losses import accuracy_and_loss, alone
from spikequant.recipes.budgeted import PATTERNS, Trial, by_hand, compared
from spikequant.recipes.plans_of_a_size import Widths
from spikequant.recipes.reproduction import Bench, plain_name
from spikequant.training import Batch, Batches, Distillation, KeptBatches, Loss, LossTerm, fit, parameter_groups
from spikequant.training.local import fit_local

LOCAL_RATE = 3e-4
"""Of quantized networks that learn by local losses."""
CROP = slice(1, -1)
"""N-MNIST has 34 x 34 pixels, the paper's network 32 x 32."""


def trained_on(*, signed: bool = False, **options: Any) -> Plan:
    """What a layer's rule says besides its bits.

    Steps are learned; the rounding of the membrane is fixed, so that the training and the count of memory meet one
    neuron.
    """
    return Plan.uniform(
        weight_bits=4, weight_quantizer="lsq", membrane_bits=8, membrane_signed=signed, membrane_rounding="half_up",
        **options,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Amount:
    """How much of everything a row does.

    Attributes:
        epochs: of the real network.
        samples: of these epochs; None: all.
        slower: epochs more of the real network at the rate of the quantized ones, where it learns by local losses.
        again: epochs of each quantized network, which learns from the real one's answers, too.
        again_samples: of these; None: all.
        briefly: samples on which a plan is trained before it is chosen.
        probes: of the traces, at most.
        batches: of the traces.
        alone: bits of a layer's weights that are lowered alone.
        tested_alone: test samples for that.
        burn_in: steps without a local loss.
        step_ms: of event data.
    """

    epochs: int
    samples: int | None = None
    slower: int = 0
    again: int = 1
    again_samples: int | None = None
    briefly: int = 2048
    probes: int = 32
    batches: int = 2
    alone: tuple[int, ...] = (1, 2, 3)
    tested_alone: int = 1000
    burn_in: int = 10
    step_ms: float = 5.0
    quantized: Widths = field(default_factory=lambda: Widths(template=trained_on()))


def images_row(
    bench: Bench, *, name: str, seed: int, how: Amount, network: Callable[[], nn.Module] = mnist_net
) -> dict[str, Any]:
    """A conv network on images: trained, its traces taken, quantized twice to a tenth of the memory, trained on."""
    seed += bench.seed
    loaded = sets.load(name, folder=bench.data_dir)
    train = loaded.batches("train+validation", batch_size=128, shuffle=True, seed=seed)
    test = list(loaded.batches("test", batch_size=500))
    torch.manual_seed(seed)
    model = network()
    work = bench.work(plain_name(f"{name} {seed}"))
    bench.say(f"  {name}, seed {seed}: {how.epochs} epochs")
    _fitted(model, _part(train, how.samples, seed), how.epochs, 3e-3, work / "float.safetensors")
    train.set_epoch(0)
    learn = first(train, 1024)
    traces = hessian_trace(
        model, F.cross_entropy, learn[: how.batches], roles=("weight", "membrane"), curvature="gauss-newton",
        most_probes=how.probes, seed=seed,
    )  # fmt: skip
    bench.say(f"  {traces}")
    single = alone(model, traces, how.alone, first(test, how.tested_alone), F.cross_entropy)
    trial = Trial(
        model=model, traces=traces, learn=learn, test=test, widths=how.quantized,
        **trained(model, train, how, lr=1.5e-3, seed=seed, work=work),
    )  # fmt: skip
    return {**compared(trial, bench.say), "alone": single, "by_hand": by_hand(trial, bench.say, PATTERNS[:1])}


def events_row(bench: Bench, *, fold: int, how: Amount) -> dict[str, Any]:
    """The paper's network on N-MNIST: local losses from the real network to the quantized ones, and their traces."""
    seed = fold + bench.seed
    loaded = sets.load("n-mnist", folder=bench.data_dir, fold=fold, step_ms=how.step_ms, steps=int(300 / how.step_ms))
    train = Cropped(loaded.batches("train+validation", batch_size=72, shuffle=True, seed=seed))
    test = list(Cropped(loaded.batches("test", batch_size=100)))
    torch.manual_seed(seed)
    model = Decolle(classes=8, step_ms=how.step_ms)
    work = bench.work(f"n-mnist-{fold}")
    bench.say(f"  n-mnist, fold {fold}: {how.epochs} epochs of local losses")
    for epochs, lr, file in ((how.epochs, 1e-3, "float"), (how.slower, LOCAL_RATE, "float-slower")):
        if epochs:
            fit_local(
                model, _part(train, how.samples, seed), epochs=epochs, lr=lr, burn_in=how.burn_in, seed=seed,
                checkpoint=work / f"{file}.safetensors",
            )  # fmt: skip
    model.eval()
    train.set_epoch(0)
    learn = first(train, 144)
    traces = local_hessian_trace(model, learn[: how.batches], probes=how.probes, burn_in=how.burn_in, seed=seed)
    bench.say(f"  {traces}")
    single = alone(model, traces, how.alone, first(test, how.tested_alone), F.cross_entropy)
    trial = Trial(
        model=model, traces=traces, learn=learn, test=test,
        widths=replace(how.quantized, template=trained_on(signed=True)),
        **trained_locally(train, how, lr=LOCAL_RATE, seed=seed, work=work),
    )  # fmt: skip
    return {
        **compared(trial, bench.say), "alone": single, "by_hand": by_hand(trial, bench.say),
        "states": {form: model.states(form) for form in ("original", "training", "inference")},
    }  # fmt: skip


def spoken_row(bench: Bench, *, fold: int, how: Amount) -> dict[str, Any]:
    """SHD's trained recurrent network: traces and training on four folds of its test set, measured on the fifth."""
    loaded = sets.load("shd", folder=bench.data_dir, fold=fold)
    example = "shd/srnn_700_128_128_20.npz"
    place = root_of("shd", bench.data_dir, example) / example
    if not place.is_file():
        raise DataError(f"{place} is not there: the trained network of SHD")
    model = AdaptiveRecurrent.load(place)
    work = bench.work(f"shd-{fold}")
    train = loaded.batches("train+validation", batch_size=64, shuffle=True, seed=fold + bench.seed)
    if how.epochs:  # the network comes trained on SHD's training set; the folds are other samples
        bench.say(f"  shd, fold {fold}: {how.epochs} epochs more in float")
        _fitted(model, _part(train, how.samples, fold), how.epochs, 1e-3, work / "float.safetensors")
    model.eval()
    train.set_epoch(0)
    learn = first(train, 128)
    test = list(loaded.batches("test", batch_size=125))
    temperature = best_temperature(model, learn)
    loss = partial(tempered, temperature=temperature)
    bench.say(f"  temperature of the scores: {temperature:.3g}")
    traces = hessian_trace(
        model, loss, learn[: how.batches], roles=("weight", "membrane"), curvature="gauss-newton",
        most_probes=how.probes, seed=fold,
    )  # fmt: skip
    bench.say(f"  {traces}")
    single = alone(model, traces, how.alone, test, loss)
    widths = replace(how.quantized, template=trained_on(signed=True, leak_bits=12))
    rises = measured_rises(model, loss, learn, weight_widths=widths.weight, membrane_widths=widths.membrane)
    bench.say(f"  {rises}")
    trial = Trial(
        model=model, traces=traces, rises=rises, learn=learn, test=test, loss=loss, widths=widths,
        **trained(model, train, how, lr=1e-3, seed=fold, work=work, temperature=temperature),
    )  # fmt: skip
    return {**compared(trial, bench.say), "alone": single, "temperature": temperature}


def tempered(scores: Tensor, target: Tensor, *, temperature: float) -> Tensor:
    """Cross entropy of ``scores / temperature``.

    >>> tempered(torch.tensor([[0.0, 0.0]]), torch.tensor([1]), temperature=10.0)
    tensor(0.6931)
    """
    return F.cross_entropy(scores / temperature, target)


def best_temperature(model: nn.Module, batches: Sequence[Batch]) -> float:
    """Of powers of the root of two the one with the least cross entropy on training batches.

    Scores that are sums over time are so far apart that their probabilities are 0 and 1: such a loss has no curvature
    to speak of.  Source: Guo et al., *On calibration of modern neural networks*, 2017, section 4.2.
    """
    tried = [2 ** (k / 2) for k in range(17)]
    return min(tried, key=lambda t: accuracy_and_loss(model, batches, partial(tempered, temperature=t))[1])


def trained(
    model: nn.Module, train: Any, how: Amount, *, lr: float, seed: int, work: Path, temperature: float = 1.0
) -> dict[str, Any]:
    """How a `Trial` trains the quantized copies of `model`: on targets and on its answers, alike for every plan."""
    again, few = _part(train, how.again_samples, seed), _part(train, how.briefly, seed)
    loss = partial(tempered, temperature=temperature)
    soft = 2.0 * temperature
    term = Distillation(model, temperature=soft, weight=1 / temperature**2)  # T^2 is the term's own

    def on(net: nn.Module, called: str) -> None:
        _fitted(net, again, how.again, lr, work / f"{called}.safetensors", loss, (term,))

    def briefly(net: nn.Module) -> None:
        _fitted(net, few, 1, lr, None, loss, (term,))

    return {"train": on, "briefly": briefly}


def trained_locally(train: Any, how: Amount, *, lr: float, seed: int, work: Path) -> dict[str, Any]:
    """How a `Trial` trains quantized copies by local losses alone, an update at every step, as the paper does."""
    again, few = _part(train, how.again_samples, seed), _part(train, how.briefly, seed)

    def learn(net: nn.Module, samples: Batches, epochs: int, checkpoint: Path | None) -> None:
        net.train()
        fit_local(net, samples, epochs=epochs, lr=lr, burn_in=how.burn_in, seed=seed, checkpoint=checkpoint)
        net.eval()

    def on(net: nn.Module, called: str) -> None:
        learn(net, again, how.again, work / f"{called}.safetensors")

    def briefly(net: nn.Module) -> None:
        learn(net, few, 1, None)

    return {"train": on, "briefly": briefly}


def _fitted(
    model: nn.Module,
    on: Batches,
    epochs: int,
    lr: float,
    checkpoint: Path | None,
    loss: Loss = F.cross_entropy,
    terms: Sequence[LossTerm] = (),
) -> None:
    done = fit(
        model, on, epochs=epochs, optimizer=torch.optim.Adam(parameter_groups(model, lr), lr=lr), loss=loss,
        terms=terms, checkpoint=checkpoint, quiet=True,
    )  # fmt: skip
    if done.interrupted:
        raise KeyboardInterrupt


def _part(train: Any, samples: int | None, seed: int) -> Batches:
    """All of the batches, or the first samples of their first order, kept."""
    if samples is None:
        found: Batches = train
        return found
    train.set_epoch(0)
    return KeptBatches(tuple(first(train, samples)), seed)


def first(batches: Iterable[Batch], samples: int) -> list[Batch]:
    """Whole batches until so many samples are there."""
    found: list[Batch] = []
    count = 0
    for x, y in batches:
        if count >= samples:
            break
        found.append((x, y))
        count += len(y)
    return found


@final
class Cropped:
    """Batches of 34 x 34 frames without their border."""

    def __init__(self, batches: Any) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def set_epoch(self, epoch: int) -> None:
        """Passed on."""
        self.batches.set_epoch(epoch)

    def __iter__(self) -> Iterator[Batch]:
        return ((x[..., CROP, CROP].contiguous(), y) for x, y in self.batches)
