"""`comp check`: what the machine has, and whether training on it is right, resumable and fast. No data of a
competition is needed.

Prints a table, and writes runs/check.json to attach to a report of a fault.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from comp.artifacts.files import write_json
from comp.artifacts.paths import check_path
from comp.benchmarks import check_equality as equality
from comp.benchmarks import check_rates as rates
from comp.benchmarks.check_inputs import Bench, Outcome, Skipped
from comp.benchmarks.machine import describe, facts
from comp.compute.devices import Device, devices, n_cores
from comp.config.recipe import Recipe
from comp.console import info, progress, table
from comp.deadline import deadline_in
from comp.errors import CompError, summarize
from comp.models.precision import choose_precision

Check = Callable[[Bench], Outcome]


def run(recipe: Recipe, *, budget: float) -> None:
    """Run all checks that the budget (in seconds) has time for. Raise CompError if one fails."""
    if recipe.members:
        recipe = recipe.members[0]
    started = time.time()
    rows: list[dict[str, Any]] = []
    try:
        found = devices(1)
    except CompError as error:
        found = [Device("cpu", n_cores())]
        rows.append(_row("GPUs and driver", "failed", str(error)))
    machine = describe(found[0])
    table(["machine", ""], facts(machine), shortened=1)
    place = found[0].activate()
    with tempfile.TemporaryDirectory(prefix="comp-check-") as folder:
        n_gpus = len(found) if place.type == "cuda" else 0
        bench = Bench(recipe, found[0], n_gpus, Path(folder), deadline_in(budget))
        dtype = choose_precision(recipe.precision, place, nn.Identity(), recipe.phases[0].size)
        info(f"check: {recipe.name}; networks without depthwise layers train in {equality.dtype_name(dtype)}")
        checks = dict(_checks(bench))
        with progress("check", len(checks)) as advance:
            for name, check in checks.items():
                rows.append(_outcome(name, check, bench))
                found[0].release()
                advance(1)
    shown = [[row["check"], row["verdict"], row["found"], f"{row['seconds']:.0f}"] for row in rows]
    table(["check", "", "found", "s"], shown, shortened=2)
    path, seconds = check_path(), time.time() - started
    settings = {"recipe": recipe.name, "backbone": recipe.backbone, "dtype": equality.dtype_name(dtype)}
    write_json(path, {"machine": machine, **settings, "checks": rows, "seconds": round(seconds, 1)})
    info(f"check: {path}, after {seconds:.0f} s")
    wrong = [row for row in rows if row["verdict"] in ("differs", "failed")]
    for row in wrong:
        info(f"check: {row['check']} {row['verdict']}: {row['found']}")
    if wrong:
        raise CompError(
            f"{summarize(row['check'] for row in wrong)} failed; report it with {path}, unless a line above "
            "says what to do"
        )


def _checks(bench: Bench) -> Iterator[tuple[str, Check]]:
    """Yield the checks by name; those that tell the most come first."""
    yield "resumed, deterministic", partial(equality.resumed, deterministic=True)
    yield "resumed", partial(equality.resumed, deterministic=False)
    for name in ("fp32", "bf16", "fp16") if bench.on_gpu else ("bf16", "fp16"):
        yield f"step in {name}", partial(equality.precision, name=name)
    yield "views", equality.views
    yield "two devices against one", equality.two_devices
    for size in rates.SIZES[:2]:
        yield from _rates(size)
    yield "compiled", equality.compiled
    yield from _rates(rates.SIZES[2])
    yield "prediction", rates.prediction_rate
    yield "JPEGs by the GPU", rates.jpeg_decoding
    yield "memory", rates.memory
    yield "largest batch", rates.largest_batch


def _rates(size: int) -> Iterator[tuple[str, Check]]:
    for backbone in rates.BACKBONES:
        yield f"{backbone} at {size} px", partial(rates.training_rate, backbone=backbone, size=size)


def _outcome(name: str, check: Check, bench: Bench) -> dict[str, Any]:
    started = time.monotonic()
    try:
        bench.need(0.0)
        outcome = check(bench)
    except Skipped as why:
        return _row(name, "skipped", str(why), time.monotonic() - started)
    except Exception as error:  # whatever a machine can do wrong is what is looked for
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        return _row(name, "failed", f"{type(error).__name__}: {reason}", time.monotonic() - started)
    seconds = time.monotonic() - started
    return _row(name, outcome.verdict, outcome.found, seconds) | {"numbers": outcome.numbers}


def _row(name: str, verdict: str, found: str, seconds: float = 0.0) -> dict[str, Any]:
    return {"check": name, "verdict": verdict, "found": found, "seconds": round(seconds, 1)}
