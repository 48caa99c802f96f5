"""Checks of `comp check` that compare results: precisions, compiled, resumed, on two devices, over views."""

import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch

from comp.batches.preprocessing import Preprocess
from comp.batches.tta import make_views
from comp.benchmarks.check_inputs import (
    Bench,
    Outcome,
    Skipped,
    distance,
    gradients,
    runs_in,
    small_phase,
    train,
)
from comp.compute.devices import Device, n_cores
from comp.compute.distributed import ProcessGroup
from comp.data.image_files import open_cache
from comp.models.inference import predict_views
from comp.models.precision import autocast, choose_precision
from comp.training.model_state import ModelState

# Largest distances of the gradients of a first step, relative to their length; those of wrong ones are 1 or
# more. On random images in batches of 16 at 64 px, on a CPU, ResNet-50's was 0.074 in bf16 and 0.027 in fp16,
# ConvNeXt-Tiny's 0.005 in bf16; in batches of 8 at 32 px test_resnet's was 0.20 in bf16.
TOLERANCE = {"fp32": 0.1, "fp16": 0.2, "bf16": 0.5}
LOSS_TOLERANCE = 0.01
COMPILED_TOLERANCE = 0.02  # of gradients, in fp32
# Where algorithms add in an order that changes: at most so many times as far as two equal trainings are apart
RESUMED_TIMES, RESUMED_LEAST = 3.0, 1e-3
VIEWS_TOLERANCE = 0.02  # of probabilities
RANKS_TOLERANCE = 0.02  # of gradients, in fp32
SMALL, NORM_FREE = "test_resnet", "test_convnext"  # timm's smallest; the second has no batch statistics
EPOCHS, STEPS = 2, 2  # of the short trainings
RANKS_SECONDS = 300.0


def batch_of(bench: Bench) -> int:
    return 16 if bench.on_gpu else 8


def backbone_of(bench: Bench) -> str:
    """Return the recipe's network, or a small one for what takes a CPU minutes and is the same for all."""
    return bench.recipe.backbone if bench.on_gpu else SMALL


def precision(bench: Bench, name: str) -> Outcome:
    """Compare the loss and the gradients of a step with those in fp32 on the CPU."""
    if bench.on_gpu and name == "bf16" and torch.cuda.get_device_capability(bench.place)[0] < 8:
        raise Skipped("this GPU computes bf16 in software only")
    if not bench.on_gpu and name == "fp16" and bench.recipe.precision != "fp16":
        raise Skipped("CPUs train in bf16 or fp32")
    n = batch_of(bench)
    reference = bench.inputs(small_phase(bench.recipe, n), n, precision="fp32")
    started = time.monotonic()
    loss, expected = gradients(reference, Device("cpu", n_cores()))
    bench.need(3 * (time.monotonic() - started))
    found_loss, found = gradients(bench.inputs(small_phase(bench.recipe, n), n, precision=name), bench.device)
    of_loss, of_gradients = abs(found_loss / loss - 1), distance(found, expected)
    good = of_loss <= LOSS_TOLERANCE and of_gradients <= TOLERANCE[name]
    return Outcome(
        "ok" if good else "differs",
        f"gradients {of_gradients:.3f} from fp32 on the CPU (limit {TOLERANCE[name]})",
        {"loss": of_loss, "gradients": of_gradients, "limit": TOLERANCE[name], "batch": n},
    )


def compiled(bench: Bench) -> Outcome:
    """Compare the gradients of a compiled network with those of the same one, both in fp32."""
    if not any(map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))):
        raise Skipped("torch.compile needs a C++ compiler, such as g++")
    bench.need(60 if bench.on_gpu else 120)
    backbone = backbone_of(bench)
    n, phase = batch_of(bench), small_phase(bench.recipe, batch_of(bench))
    plain, changed = (
        gradients(bench.inputs(phase, n, backbone=backbone, precision="fp32", compile=compile), bench.device)[
            1
        ]
        for compile in (False, True)
    )
    off = distance(changed, plain)
    return Outcome(
        "ok" if off <= COMPILED_TOLERANCE else "differs",
        f"{backbone}: gradients {off:.1e} off (limit {COMPILED_TOLERANCE})",
        {"gradients": off, "limit": COMPILED_TOLERANCE, "backbone": backbone},
    )


def resumed(bench: Bench, *, deterministic: bool) -> Outcome:
    """Compare the weights of a training that is resumed after its first epoch with those of one that is not.
    They are equal bit for bit on a CPU, and with `deterministic` on a GPU, unless torch names an operation
    that can't be."""
    if deterministic and not bench.on_gpu:
        raise Skipped("only GPUs have other algorithms for it")
    bench.device.activate(deterministic=deterministic)
    phase = small_phase(bench.recipe, batch_of(bench), epochs=EPOCHS)
    changes = {"backbone": backbone_of(bench), "deterministic": deterministic}
    inputs = bench.inputs(phase, STEPS * phase.batch_size, **changes)
    try:
        with runs_in(bench.folder), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            started = time.monotonic()
            whole = train(inputs, bench.device)
            bench.need(2.5 * (time.monotonic() - started))
            again = train(inputs, bench.device, resumed=True)
            named = sorted(
                {str(w.message).split(" ")[0] for w in caught if "deterministic" in str(w.message)}
            )
            exact = not bench.on_gpu or (deterministic and not named)
            apart = 0.0 if exact else distance(train(inputs, bench.device), whole)
    finally:
        bench.device.activate()
    off = distance(again, whole)
    limit = 0.0 if exact else max(RESUMED_LEAST, RESUMED_TIMES * apart)
    text = (
        "equal bit for bit" if torch.equal(again, whole) else f"weights {off:.1e} apart (limit {limit:.1e})"
    )
    if named:
        text += f"; not deterministic: {', '.join(named)}"
    numbers = {"weights": off, "of_equal_trainings": apart, "limit": limit, "not_deterministic": named}
    return Outcome("ok" if off <= limit else "differs", text, numbers)


def two_devices(bench: Bench) -> Outcome:
    """Compare the gradients of a batch that two GPUs (or on a CPU two processes) share with those of one."""
    if bench.on_gpu and bench.n_gpus < 2:
        raise Skipped("one GPU")
    if not bench.on_gpu and n_cores() < 2:
        raise Skipped("one core")
    phase = small_phase(bench.recipe, 16)
    inputs = bench.inputs(phase, phase.batch_size, backbone=NORM_FREE, precision="fp32")
    started = time.monotonic()
    _, one = gradients(inputs, bench.device)
    bench.need(30 + 3 * (time.monotonic() - started))
    given, answer = bench.folder / "inputs.pickle", bench.folder / "gradients.pt"
    given.write_bytes(pickle.dumps(inputs))
    _run_ranks(given, answer, min(RANKS_SECONDS, max(30.0, bench.deadline - time.time())))
    off = distance(torch.load(answer, weights_only=True), one)
    what = "GPUs" if bench.on_gpu else "processes"
    return Outcome(
        "ok" if off <= RANKS_TOLERANCE else "differs",
        f"two {what}: gradients {off:.1e} from one's (limit {RANKS_TOLERANCE})",
        {"gradients": off, "limit": RANKS_TOLERANCE},
    )


def _run_ranks(given: Path, answer: Path, seconds: float) -> None:
    """Do a step in the two processes of a torchrun. Raise Skipped where they take longer than `seconds`."""
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, "-m", *launcher, "-m", "comp.benchmarks.check_ranks", str(given), str(answer)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as launched:
        try:
            said, _ = launched.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(launched.pid, signal.SIGKILL)
            raise Skipped(f"was not done after {seconds:.0f} s") from None
    if launched.returncode:
        lines = [line for line in said.splitlines() if "Error" in line] or said.splitlines() or [""]
        raise RuntimeError(f"torchrun: {lines[0].strip()}")


def views(bench: Bench) -> Outcome:
    """Compare the probabilities over the recipe's views, as `comp predict` computes them, with those view by
    view in fp32 on the CPU."""
    recipe, place, n = bench.recipe, bench.place, 4
    phase = small_phase(recipe, n)
    inputs = bench.inputs(phase, n)
    state = ModelState(inputs, place, ProcessGroup())
    model, spec = state.averages.averaged.eval(), state.spec
    chosen = make_views(recipe.views, recipe.code)
    images = torch.from_numpy(np.array(open_cache(inputs.caches[phase.size][0])[:n]))
    prepare = Preprocess(spec.mean, spec.std, phase.size)
    dtype = choose_precision(recipe.precision, place, model)
    with torch.inference_mode():
        with autocast(place, dtype):
            x = prepare.to(place)(images.to(place))
            found = predict_views(model, x, chosen, spec).cpu()
        x, model = prepare.cpu()(images), model.cpu()
        each = [predict_views(model, x, [view], spec) for view in chosen]
    off = float((found - torch.stack(each).mean(0)).abs().max())
    return Outcome(
        "ok" if off <= VIEWS_TOLERANCE else "differs",
        f"{dtype_name(dtype)}: {off:.1e} from fp32, view by view (limit {VIEWS_TOLERANCE})",
        {"probabilities": off, "limit": VIEWS_TOLERANCE, "views": len(chosen)},
    )


def dtype_name(dtype: torch.dtype) -> str:
    """Return the recipe's name of a type."""
    return {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}[dtype]
