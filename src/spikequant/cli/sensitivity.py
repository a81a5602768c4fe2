"""``spikequant sensitivity``: which layer needs which bits, and the plan that a budget makes of it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spikequant.cli import options
from spikequant.cli.datasets import DataChoice
from spikequant.cli.options import DATA, PLAN
from spikequant.cli.plan_options import TargetOption, one_of
from spikequant.cli.provenance import command_line, versions
from spikequant.cli.run_folder import PLAN as PLAN_FILE
from spikequant.cli.run_folder import RunConfig, RunFolder
from spikequant.cli.screen import Screen
from spikequant.cli.starting_point import Origin, StartingPoint, starting_point
from spikequant.cli.tables import Table
from spikequant.law.errors import DataError, PlanError, nearest

if TYPE_CHECKING:
    from spikequant.analyse import Allocated, Rises, Standing, Traces

Limits = str | float | dict[str, str | float]
METHODS = ("hessian", "gauss-newton", "fisher", "loss-rise", "emd-rise")
ROLES = ("weight", "membrane")
LOADS = ("memory", "flash", "ram", "synop_bits", "energy")
SENSITIVITY, PAGE = "sensitivity.json", "sensitivity.html"


MethodOption = Annotated[
    list[str],
    typer.Option(
        metavar="NAME",
        help=f"How sensitivity is measured: {', '.join(METHODS)}; may be given several times, the first one "
        "chooses bits.",
        autocompletion=one_of(METHODS),
        show_default="gauss-newton",
    ),
]
RoleOption = Annotated[
    list[str],
    typer.Option(
        metavar="NAME",
        help=f"What is quantized: {', '.join(ROLES)}; may be given twice.",
        autocompletion=one_of(ROLES),
        show_default="both",
    ),
]
BatchesOption = Annotated[
    int, typer.Option(metavar="N", min=1, help="Training batches to measure on.", rich_help_panel=DATA)
]
BatchSizeOption = Annotated[int, typer.Option(metavar="N", min=1, help="Samples per batch.", rich_help_panel=DATA)]
ProbesOption = Annotated[int, typer.Option(metavar="N", min=14, help="Most probes of a trace.")]
SurrogateOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Surrogate of the spikes in the traces, where the network's own has no second derivative: atan, sigmoid.",
        autocompletion=one_of(("atan", "sigmoid")),
        show_default="the network's own",
    ),
]
BudgetOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SIZE",
        help="Choose bits inside a budget and write plan.toml: 0.1x of the float network's memory, or bytes; or limits "
        f"by name, such as flash=0.1x, each given once ({', '.join(LOADS)}; energy in pJ).",
        show_default="no plan",
        rich_help_panel=PLAN,
    ),
]


def sensitivity(
    network: options.NetworkOrRun,
    weights: options.WeightsOption = None,
    data: options.OptionalData = None,
    data_dir: options.DataDirOption = None,
    limit: options.LimitOption = None,
    fold: options.FoldOption = None,
    steps: options.StepsOption = None,
    step_ms: options.StepMsOption = None,
    window_ms: options.WindowMsOption = None,
    counts: options.CountsOption = None,
    download: options.DownloadOption = False,
    method: MethodOption = ["gauss-newton"],  # noqa: B006 - read only
    role: RoleOption = list(ROLES),  # noqa: B006
    batches: BatchesOption = 4,
    batch_size: BatchSizeOption = 32,
    probes: ProbesOption = 200,
    surrogate: SurrogateOption = None,
    budget: BudgetOption = None,
    target: TargetOption = None,
    out: options.OutOption = Path("runs/sensitivity"),
    overwrite: options.OverwriteOption = False,
    seed: options.SeedOption = 0,
    as_json: options.JsonOption = False,
) -> None:
    """Measure which layer needs which bits; with a budget, choose them.

    Examples:
      spikequant sensitivity runs/mnist
      spikequant sensitivity runs/mnist --method loss-rise --method hessian
      spikequant sensitivity runs/mnist --budget 0.1x --out runs/bits
      spikequant sensitivity runs/mnist --budget flash=4096 --budget ram=0.2x --target mcu-int8 --out runs/mcu
      spikequant quantize runs/mnist --plan runs/bits/plan.toml

    A layer's sensitivity is what its loss (or its firing) is expected to suffer from few bits: from the curvature of
    the loss, or measured by quantizing that layer alone. The folder gets sensitivity.json, a page with all methods
    side by side, and with --budget the plan, whose size was counted on a quantized copy; with --target of the widths
    that the target holds.
    """
    _check(method, role)
    limits = _budget(budget)
    profile = _target(target, limits)
    choice = DataChoice(
        name=data, folder=data_dir, limit=limit, fold=fold, steps=steps, step_ms=step_ms,
        window_ms=window_ms, counts=counts, download=download,
    )  # fmt: skip
    screen = Screen(as_json=as_json)
    with RunFolder.open(out, "sensitivity", overwrite=overwrite) as folder:
        start = starting_point(Origin(network, weights, choice), screen, batch_size=batch_size, seed=seed)
        asked = {"method": method, "role": role, "batches": batches, "batch_size": batch_size, "probes": probes,
                 "surrogate": surrogate, "budget": budget, "target": profile}  # fmt: skip
        found = _measured(start, asked, seed, screen)
        chosen = None if limits is None else _allocated(found[0], limits, profile)
        config = RunConfig(
            command="sensitivity",
            command_line=command_line(),
            seed=seed,
            options=asked,
            network=start.source.record(),
            data=start.data.record,
            versions=versions(),
        )
        folder.begin(config)
        record = _written(found, chosen, folder, start, screen, seed)
    screen.document(record)


def _measured(start: StartingPoint, asked: dict[str, Any], seed: int, screen: Screen) -> list[Traces | Rises]:
    """Every method on the same batches."""
    import itertools

    import torch.nn.functional as F

    from spikequant.analyse import sensitivity as measure
    from spikequant.nn import Surrogate

    kept = list(itertools.islice(start.data.train, asked["batches"]))
    screen.note(str(start.data))
    found = []
    for name in asked["method"]:
        extra: dict[str, Any] = {}
        if not name.endswith("-rise"):
            extra = {"most_probes": max(asked["probes"], len(kept)), "seed": seed}
            if asked["surrogate"] is not None:
                extra["surrogate"] = Surrogate(asked["surrogate"], 2.0)
        screen.note(f"{name}: measuring on {sum(len(y) for _, y in kept)} training samples")
        found.append(measure(start.model, F.cross_entropy, kept, method=name, roles=tuple(asked["role"]), **extra))
    return found


def _allocated(found: Traces | Rises, limits: Limits, target: str | None) -> Allocated:
    from spikequant.analyse import allocation

    return allocation(found, limits, target=target)


def _written(
    found: list[Traces | Rises],
    chosen: Allocated | None,
    folder: RunFolder,
    start: StartingPoint,
    screen: Screen,
    seed: int,
) -> dict[str, Any]:
    """Files, tables on the screen, and the JSON document."""
    from spikequant.analyse import side_by_side
    from spikequant.report import Provenance, write_sensitivities

    standings = side_by_side(found)
    for name in dict.fromkeys(row.role for row in standings):
        screen.table(_table([row for row in standings if row.role == name]))
        screen.say()
    for one in found:
        for word in one.words:
            screen.say(f"{one.name}: {word}")
    record: dict[str, Any] = {
        "command": "sensitivity",
        "methods": [one.to_dict() for one in found],
        "side_by_side": [row.to_dict() for row in standings],
    }
    files = {SENSITIVITY: "all figures", PAGE: "the methods side by side"}
    provenance = Provenance(command=command_line(), seed=seed, data=str(start.data.record["input"]))
    write_sensitivities(found, folder / PAGE, provenance=provenance)
    if chosen is not None:
        chosen.plan.save(folder / PLAN_FILE)
        files[PLAN_FILE] = "the plan: spikequant quantize --plan takes it"
        record["allocation"] = {
            "share": chosen.share, "requested_bits": chosen.requested, "predicted_bits": chosen.predicted,
            "counted_bits": chosen.counted, "rise": chosen.allocation.rise, "proven": chosen.proven,
            "plan": chosen.plan.to_dict(),
            "bits": [{"layer": k[0], "role": k[1], "bits": b} for k, b in chosen.allocation.bits.items()],
        }  # fmt: skip
        screen.say(str(chosen))
    folder.write_json(SENSITIVITY, record)
    folder.end("finished", files)
    screen.files(folder.path, files)
    return record


def _table(rows: list[Standing]) -> Table:
    """A row a layer, score and rank by method."""
    methods = list(dict.fromkeys(row.method for row in rows))
    by = {(row.layer, row.method): row for row in rows}
    body = []
    for layer in dict.fromkeys(row.layer for row in rows):
        cells = [layer]
        for method in methods:
            row = by[layer, method]
            cells += [f"{row.score:.3g} ± {row.standard_error:.1g}", str(row.rank)]
        body.append(tuple(cells))
    header = [f"{rows[0].role} at {rows[0].bits} bits"]
    for method in methods:
        header += [method, "rank"] if len(methods) == 1 else [method, f"rank, {method}"]
    return Table(tuple(header), tuple(body))


def _budget(texts: list[str] | None) -> Limits | None:
    """``0.1x`` as it is, bytes as a number, limits by name in a table."""
    if not texts:
        return None
    if len(texts) == 1 and "=" not in texts[0]:
        return _size(texts[0], texts[0])
    limits: dict[str, str | float] = {}
    for text in texts:
        name, equals, size = text.partition("=")
        if not equals or name not in LOADS or name in limits:
            raise PlanError(
                f"--budget {text}: expected one size, or limits by name such as flash=0.1x, each name once; names are "
                f"{', '.join(LOADS)}{nearest(name, LOADS)}"
            )
        limits[name] = _size(size, text)
    return limits


def _size(text: str, given: str) -> str | float:
    """Looked at before hours of measuring."""
    try:
        size = float(text.removesuffix("x"))
    except ValueError:
        size = math.nan
    if not 0 < size < math.inf:
        raise PlanError(
            f"--budget {given}: expected 0.1x (of the float network's memory) or a number of bytes, above 0"
        )
    return text if text.endswith("x") else size


def _target(name: str | None, limits: Limits | None) -> str | None:
    """The profile's tag."""
    if name is None:
        return None
    if limits is None:
        raise PlanError("--target chooses widths for a plan; give a --budget too, such as --budget 1x")
    from spikequant.targets import target

    return target(name).tag


def _check(methods: list[str], roles: list[str]) -> None:
    for word, given, known in (("method", methods, METHODS), ("role", roles, ROLES)):
        for name in given:
            if name not in known:
                raise DataError(f"--{word} {name}: expected one of {', '.join(known)}{nearest(name, known)}")
        if len(set(given)) < len(given):
            raise DataError(f"--{word}: {', '.join(given)}: give each one once")
