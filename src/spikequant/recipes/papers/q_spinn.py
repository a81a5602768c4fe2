"""Q-SpiNN (Putra, Shafique, IJCNN 2021): quantize by significance, explore combinations, keep the target accuracy.

Supervised rows: a trained network, each role alone for its tolerance, then combinations of what was tolerated; the
smallest that keeps the accuracy on held-out data is measured on the test data.  Unsupervised rows: Diehl & Cook's
network, quantized while it learns, beside its own float run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from spikequant import data as sets
from spikequant.analyse import compare
from spikequant.data.places import root_of
from spikequant.explore.search import explore
from spikequant.law.errors import DataError
from spikequant.learn.config import DiehlCook, Precision
from spikequant.learn.experiment import Scheme as Learning
from spikequant.learn.experiment import experiment, precision_of
from spikequant.models import digits_net, gesture_net, mnist_net
from spikequant.models.adaptive_recurrent import AdaptiveRecurrent
from spikequant.quantize import lower, verify
from spikequant.recipes.finalists import apart, confirmed, so_many
from spikequant.recipes.finetuning import figures
from spikequant.recipes.reproduction import Bench, Line, Recipe, Row, Scale, plain_name
from spikequant.training import Batch, fit

MU = 1.0
"""All of the memory is worth all of the accuracy: among those that keep the target, the small ones win."""
IMAGES: dict[str, Any] = {
    "rules": [
        {
            "match": "*",
            "weight": {"bits": [2, 3, 4, 5, 6, 8], "clipping": ["mse", "max"]},
            "membrane": {"bits": [3, 4, 6, 8], "rounding": ["floor", "half_up", "stochastic"], "signed": False},
            "leak": {"bits": [2, 8]},
        }
    ]
}
SPOKEN: dict[str, Any] = {
    "rules": [
        {
            "match": "*",
            "weight": {"bits": [3, 4, 6, 8], "clipping": "mse"},
            "membrane": {"bits": [6, 8, 12, 16], "clipping": "max"},
            "leak": {"bits": [8, 12]},
        }
    ]
}
SUPERVISED = "about 2 x smaller within 2 points (DVS-Gesture)"
UNSUPERVISED = "about 4 x smaller within 1 point (MNIST)"
LINES = {
    "digits": Line(name="digits, conv", paper=SUPERVISED, goal_smaller=4, goal_points=2),
    "plastic digits": Line(name="digits, unsupervised", paper=UNSUPERVISED, goal_smaller=4, goal_points=5),
    "mnist": Line(name="mnist, conv", paper=SUPERVISED, goal_smaller=6, goal_points=1),
    "fashion-mnist": Line(name="fashion-mnist, conv", paper=SUPERVISED, goal_smaller=6, goal_points=1),
    "dvs-gesture": Line(name="DVS128 Gesture, PLIF", paper=SUPERVISED, goal_smaller=2, goal_points=2),
    "shd": Line(name="SHD, recurrent", paper=SUPERVISED, goal_smaller=4, goal_points=2),
    "plastic mnist": Line(name="MNIST, unsupervised", paper=UNSUPERVISED, goal_smaller=8, goal_points=1),
}
SAFE = 0.5
"""Share of the points of a goal that the interval of the choice may reach on the samples that decide."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """How much is tried in a supervised row, and what the choice is to keep.

    Attributes:
        space: of the candidates.
        epochs: of the float training.
        trials: combinations, besides single roles.
        validation: samples that candidates are explored on.
        confirmation: other samples, that finalists are judged on.
        training: samples to train on, the first of the shuffled ones; None: all.
        calibration: batches.
        max_drop: points that a candidate may lose while it is explored.
    """

    space: dict[str, Any]
    epochs: int
    trials: int
    validation: int
    confirmation: int
    training: int | None = None
    calibration: int = 8
    max_drop: float = 0.5


def images_row(bench: Bench, *, name: str, seed: int, how: Study) -> dict[str, Any]:
    """Train a conv network on images, explore on the validation split, measure the choice on the test split.

    ``dvs-gesture`` is shown in frames of equal duration, as long as `GESTURE_STEPS` of them.
    """
    seed += bench.seed
    gestures = name == "dvs-gesture"
    size, large = (16, 16) if gestures else (128, 500)
    loaded = sets.load(name, folder=bench.data_dir, steps=GESTURE_STEPS if gestures else None)
    train: Any = loaded.batches("train", batch_size=size, shuffle=True, seed=seed)
    held_out = list(loaded.batches("validation", batch_size=large))
    test = list(loaded.batches("test", batch_size=large))
    torch.manual_seed(seed)
    model: nn.Module = NETWORKS.get(name, mnist_net)()
    work = bench.work(plain_name(f"{name} {seed}"))
    bench.say(f"  {name}, seed {seed}: {how.epochs} epochs in float")
    checkpoint = work / "float.safetensors"
    few = None if how.training is None else so_many(train, how.training)
    done = fit(model, few or train, epochs=how.epochs, lr=3e-3, checkpoint=checkpoint, quiet=True)
    if done.interrupted:
        raise KeyboardInterrupt
    train.set_epoch(0)
    unseen = () if few is None else islice(train, len(few), None)
    explored, deciding = apart(held_out, unseen, how.validation, how.confirmation)
    learn = so_many(train, size * how.calibration)
    return _explored(bench, model, learn, explored, deciding, test, seed=seed, how=how, name=name)


def spoken_row(bench: Bench, *, fold: int, how: Study) -> dict[str, Any]:
    """SHD's trained recurrent network: explore on four folds, measure the choice on the fifth."""
    loaded = sets.load("shd", folder=bench.data_dir, fold=fold)
    example = "shd/srnn_700_128_128_20.npz"
    place = root_of("shd", bench.data_dir, example) / example
    if not place.is_file():
        raise DataError(f"{place} is not there: the trained network of SHD")
    model = AdaptiveRecurrent.load(place).eval()
    train = loaded.batches("train", batch_size=64)
    learn = so_many(train, 128)
    held_out, unseen = list(loaded.batches("validation", batch_size=125)), islice(train, len(learn), None)
    explored, deciding = apart(held_out, unseen, how.validation, how.confirmation)
    test = list(loaded.batches("test", batch_size=125))
    return _explored(bench, model, learn, explored, deciding, test, seed=fold + bench.seed, how=how, name="shd")


def _explored(
    bench: Bench,
    model: nn.Module,
    learn: Sequence[Batch],
    explored: Sequence[Batch],
    deciding: Sequence[Batch],
    test: Sequence[Batch],
    *,
    seed: int,
    how: Study,
    name: str,
) -> dict[str, Any]:
    study = explore(
        model, how.space, learn, validation=explored, max_drop=how.max_drop,
        sampler="random", trials=how.trials,
        staged=True, mu=MU, seed=seed, folder=bench.work(plain_name(f"{name} {seed}")) / "study", quiet=True,
    )  # fmt: skip
    if study.interrupted:
        raise KeyboardInterrupt
    bench.say(f"  {study.words()[0]}")
    goal = LINES[name]
    least = -SAFE * (goal.goal_points or 0.0)
    chosen, looks = confirmed(study, deciding, least_smaller=goal.goal_smaller, least_points=least)
    network, _ = study.apply(chosen)
    found = compare(model, network, test)
    few = _narrow(test[0][0], study.materials.example)
    proof = verify(network, lower(network, few), few)
    return {
        **figures(found),
        "candidates": len(study.trials),
        "tolerance": None if study.tolerance is None else study.tolerance.to_dict(),
        "settings": dict(chosen.candidate.settings),
        "differences": proof.differences,
        "looks": [look.to_dict() for look in looks],
        "explored_on": _samples(explored),
        "decided_on": _samples(deciding),
        "kept_on_validation": any(look.trial is chosen and look.lower >= least for look in looks),
        "how": chosen.candidate.to_json(),
    }


def unsupervised_row(
    bench: Bench,
    *,
    name: str,
    seed: int,
    samples: int | None,
    neurons: int,
    bits: dict[str, int],
    scheme: Learning = "itq",
    epochs: int = 1,
) -> dict[str, Any]:
    """Diehl & Cook's network quantized while it learns (``itq``) or after (``ptq``), beside its own float run."""
    seed += bench.seed
    loaded = sets.load_digits() if name == "digits" else sets.load_mnist(bench.data_dir)
    small = name == "digits"
    config = (
        DiehlCook(inputs=64, levels=16, neurons=neurons, seed=seed) if small else DiehlCook(neurons=neurons, seed=seed)
    )
    work = bench.work(plain_name(f"unsupervised {name} {neurons} {seed}"))
    found = {}
    for each in ("float", scheme):
        bench.say(f"  {neurons} neurons, seed {seed}: {each}")
        narrow = each == "itq" and bits["weight"] <= 4
        found[each] = experiment(
            loaded,
            config=config.replace(w_max=TOP, refractory=PAUSE) if narrow else config,
            precision=None if each == "float" else _registers(bits, each, narrow=narrow),
            scheme=each,
            epochs=epochs,
            samples=samples,
            label_samples=min(10_000, samples or 10_000),
            test_samples=None if samples is None else max(360, samples // 5),
            vote="proportional",
            checkpoint=work / f"{each}.safetensors" if each != "ptq" else None,
            float_network=work / "float.safetensors",
        )
    real, quantized = found["float"], found[scheme]
    return {
        "before": real.accuracy["proportional"],
        "after": quantized.accuracy["proportional"],
        "smaller": quantized.saving,
        "smaller_to_infer": quantized.inference_saving,
        "test_samples": quantized.tested_on,
        "settings": {"bits": bits, "scheme": scheme},
        "how": f"{neurons} neurons, {scheme}, bits {bits}",
    }


def _registers(bits: dict[str, int], scheme: Learning, *, narrow: bool) -> Precision:
    precision = precision_of(**bits, rounding="SR" if scheme == "itq" else "RN")
    return precision.replace(threshold_reach_mv=OWN, common_threshold=True) if narrow else precision


def _samples(batches: Iterable[Batch]) -> int:
    return sum(len(target) for _, target in batches)


def _narrow(x: Tensor, example: Tensor) -> Tensor:
    """As many samples as the example has, off a batch of the same layout."""
    axis = 1 if x.dim() == example.dim() and x.shape[0] == example.shape[0] and x.dim() == 3 else 0
    return x.narrow(axis, 0, min(16, x.shape[axis]))


EIGHT_TIMES = {"weight": 4, "membrane": 10, "threshold": 7, "trace": 1}
AFTERWARDS = {"weight": 6, "membrane": 8, "threshold": 8, "trace": 4}
TOP, PAUSE, OWN = 0.5, 3, 40.0
"""Where weights have 4 bits: the largest one, for few grow beyond it and the grid is twice as fine; the refractory
steps that a counter of 2 bits holds; and how far a threshold reaches above the part that all have in common, in mV."""
GESTURE_STEPS = 20
NETWORKS: dict[str, Callable[[], nn.Module]] = {"digits": digits_net, "dvs-gesture": gesture_net}
TINY = {"rules": [{"match": "*", "weight": {"bits": [3, 4, 8]}, "membrane": {"bits": [4, 8], "rounding": "half_up"}}]}
SMOKE = Study(space=TINY, epochs=4, trials=4, validation=180, confirmation=180, max_drop=1.0, training=1000)


def _rows(scale: Scale) -> list[Row]:
    if scale == "smoke":
        few = partial(unsupervised_row, name="digits", seed=0, samples=400, neurons=50, bits=AFTERWARDS, scheme="ptq")
        return [
            Row(name="digits-0", line=LINES["digits"].name, seed=0, run=_images("digits", 0, SMOKE)),
            Row(name="unsupervised-digits-0", line=LINES["plastic digits"].name, seed=0, run=few),
        ]
    local = scale == "local"
    images = Study(space=IMAGES, epochs=10, trials=1000, validation=2000, confirmation=3000)
    if local:
        images = Study(space=IMAGES, epochs=2, trials=40, validation=1000, confirmation=5000, training=12_000)
    gestures = Study(space=IMAGES, epochs=64, trials=200, validation=200, confirmation=200)
    spoken = Study(space=SPOKEN, epochs=0, trials=8 if local else 32, validation=450, confirmation=900, max_drop=1.0)
    plastic = partial(
        unsupervised_row, name="mnist", samples=None, neurons=400, bits=EIGHT_TIMES, epochs=1 if local else 3
    )
    rows = []
    for seed in range(3 if local else 5):
        for name in ("mnist", "fashion-mnist"):
            run = _images(name, seed, images)
            rows.append(Row(name=f"{name}-{seed}", line=LINES[name].name, seed=seed, run=run))
        if not local:
            run = _images("dvs-gesture", seed, gestures)
            rows.append(Row(name=f"dvs-gesture-{seed}", line=LINES["dvs-gesture"].name, seed=seed, run=run))
    for fold in range(5):
        run = partial(spoken_row, fold=fold, how=spoken)
        rows.append(Row(name=f"shd-fold-{fold}", line=LINES["shd"].name, seed=fold, run=run))
    for seed in range(3 if local else 5):
        run = partial(plastic, seed=seed)
        rows.append(Row(name=f"unsupervised-mnist-{seed}", line=LINES["plastic mnist"].name, seed=seed, run=run))
    return rows


def _images(name: str, seed: int, how: Study) -> partial[dict[str, Any]]:
    return partial(images_row, name=name, seed=seed, how=how)


RECIPE = Recipe(
    title="Q-SpiNN: a framework for quantizing spiking neural networks (Putra, Shafique, IJCNN 2021)",
    lines=tuple(LINES.values()),
    rows=_rows,
    differences=(
        "The paper's supervised network is for DVS-Gesture, whose terms allow no download by a program: the scale "
        "`paper` has rows for it (Fang's PLIF network, 20 frames), which are left out where it is not in the data "
        "folder, and were never run. MNIST, Fashion-MNIST and SHD stand beside it.",
        "Scale `local` trains the networks on 12,000 images, twice, and explores 40 combinations on 1,000 images.",
        "The choice: of the candidates that keep the accuracy while they are explored and are as small as the goal "
        "asks, up to eight of different size are shown samples that neither training nor exploration saw (some 5,000 "
        "images, at scale `paper` 3,000; SHD some 900; DVS-Gesture has too few, there the explored ones again), and "
        "the smallest whose paired 95 % interval ends within half of the goal's points is taken.",
        "Its networks, tables of tolerances and equation of the reward are not published; the order of its steps is: "
        "each role alone, then combinations of what was tolerated, then a reward of accuracy and memory.",
        "Memory counts weights, thresholds, leaks, biases, membranes and buffers in true bits, real ones at 32.",
        "SHD: the network was trained on SHD's own training set; folds divide its test set, four to calibrate and "
        "choose on and one to measure.",
        "Unsupervised rows have fixed bits and are not swept; on MNIST they are quantized while they learn (4-bit "
        "weights, stochastic rounding, thresholds above a common part), the small row on digits after it.",
    ),
)
