"""What a recipe costs: operations and memory of its network, and the time of training and prediction on a
machine. Networks are counted on PyTorch's meta device, which computes nothing."""

import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from comp.batches.view_names import view_names
from comp.config.recipe import Phase, Recipe
from comp.console import clock
from comp.data.disk_plan import ImageCounts
from comp.models import network as models

# Seconds of training per image on an RTX 3090 (AMP, channels last), by operations of the forward pass and
# bytes saved for the backward pass in fp32. Least squares over 18 networks, from MobileNetV3 to ViT-B, of
# results/benchmark-train-amp-nhwc-pt112-cu113-rtx3090.csv in huggingface/pytorch-image-models: off by 10 %
# on average, by 31 % (Swin-T) at most.
SECONDS_PER_FLOP, SECONDS_PER_BYTE = 46.1e-15, 6.12e-12
FORWARD = (
    1 / 3
)  # of a training step: ResNet-50 on an RTX 3090 predicts 3,730 and trains 1,218 images/s (timm)
SAVED_BY_AMP = (
    0.65  # of the bytes saved in fp32: 75 MiB a 256 px image of ResNet-50, 99 MiB a 512 px one of -34
)
BYTES_PER_PARAMETER = 4 * 5 + 2  # weights, gradients, two moments, EMA; a half-precision copy
GPU_RESERVE = 1.5e9  # bytes of the CUDA context, cuDNN's workspaces and fragments
SECONDS_PER_MEGAPIXEL = 0.04  # of decoding a JPEG or a grey PNG on one core of a Zen 4 server


@dataclass(frozen=True)
class Machine:
    """Where a recipe is trained; its rates are estimates unless they were measured."""

    name: str
    speed: float  # of one GPU, relative to an RTX 3090
    n_devices: int = 1
    # seconds that an operator of the network keeps the processor busy in a step: a floor for small images
    launch: float = 50e-6
    n_cores: float | None = None  # that decode images, as cores of a Zen 4 server; None: not known


# By a part of the GPU's name; each with its source. The speed is that of training ResNet-50, 224 px, AMP.
SPEEDS = {
    # predicts 1,190 images/s, × 0.355 as a V100 trains (NVIDIA's DeepLearningExamples), a third less at 70 W
    "T4": 0.23,
    "V100": 0.99,  # 1,200 images/s, the same
    "A100": 2.03,  # 2,470 images/s, the same
    "RTX 3090": 1.0,  # 1,218 images/s, timm
    "RTX 4090": 1.5,  # predicts 1.36 (ResNet-50) to 1.72 (ResNet-34) times as fast, timm
}
KAGGLE_T4 = Machine("Kaggle T4 ×2", SPEEDS["T4"], n_devices=2, launch=120e-6, n_cores=1.2)


@dataclass(frozen=True)
class NetworkCost:
    """A network on one image of a size."""

    flops: float  # of a forward pass; a multiplication with an addition counts as two
    saved_bytes: float  # for the backward pass, in fp32
    n_operators: int  # of a forward pass
    n_parameters: int


class _Counter(TorchDispatchMode):
    """Count operators and their floating-point operations."""

    def __init__(self) -> None:
        super().__init__()
        self.n_operators, self.flops = 0, 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        answer = operator(*args, **(kwargs or {}))
        self.n_operators += 1
        if count := flop_registry.get(operator._overloadpacket):
            self.flops += count(*args, **(kwargs or {}), out_val=answer)
        return answer


def count_network(recipe: Recipe, sizes: Iterable[int]) -> dict[int, NetworkCost]:
    """Return by size (pixels) the cost of the recipe's network on one image."""
    n_images, n_channels = 2, recipe.n_channels  # batch norms need two
    classes = recipe.competition.labels.classes or ("one",)
    half = (0.5,) * n_channels
    with torch.device("meta"):
        spec = models.ModelSpec(recipe.backbone, classes, n_channels, recipe.max_size, half, half)
        model = models.create(spec, pretrained=False, code=recipe.code).train()
    if recipe.gradient_checkpointing:
        models.checkpoint_gradients(model, recipe.backbone)
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    own = {part.untyped_storage()._cdata for part in (*model.parameters(), *model.buffers())}
    costs = {}
    for size in sizes:
        kept: dict[int, torch.UntypedStorage] = {}  # holds the storages, so that no address is used twice

        def keep(part: torch.Tensor, kept: dict[int, torch.UntypedStorage] = kept) -> torch.Tensor:
            storage = part.untyped_storage()
            if storage._cdata not in own:
                kept[storage._cdata] = storage
            return part

        images = torch.empty(n_images, n_channels, size, size, device="meta")
        with _Counter() as counter, saved_tensors_hooks(keep, lambda part: part):
            model(images)
        n_bytes = sum(storage.nbytes() for storage in kept.values())
        costs[size] = NetworkCost(
            counter.flops / n_images, n_bytes / n_images, counter.n_operators, n_parameters
        )
    return costs


def gpu_bytes(cost: NetworkCost, phase: Phase, n_images: int = 0) -> float:
    """Return the memory that a GPU needs for a step of a phase, by estimate; for micro-batches of `n_images`
    instead of the phase's own."""
    n_images = n_images or -(-phase.batch_size // phase.accumulate)
    return n_images * SAVED_BY_AMP * cost.saved_bytes + BYTES_PER_PARAMETER * cost.n_parameters + GPU_RESERVE


# --- time ---------------------------------------------------------------------------------------------------


def image_seconds(cost: NetworkCost, machine: Machine) -> float:
    """Return the seconds of training per image on one device, by estimate."""
    return (SECONDS_PER_FLOP * cost.flops + SECONDS_PER_BYTE * cost.saved_bytes) / machine.speed


def launched_images(cost: NetworkCost, machine: Machine) -> int:
    """Return the images of a step that takes a GPU as long as its launches take the processor, by estimate.
    A smaller batch takes as long."""
    return int(machine.launch * cost.n_operators / image_seconds(cost, machine))


@dataclass(frozen=True)
class RunTime:
    """Seconds of all stages of a recipe on a machine."""

    phases: tuple[float, ...]  # of one fold
    train: float  # all networks
    predict: float
    decode: float | None  # None: not known

    @property
    def fold(self) -> float:
        return sum(self.phases)

    @property
    def total(self) -> float:
        return self.train + self.predict + (self.decode or 0.0)


def run_time(
    recipe: Recipe,
    counts: ImageCounts,
    machine: Machine,
    costs: Mapping[int, NetworkCost],
    measured: Mapping[int, float] | None = None,
) -> RunTime:
    """Return the time of a recipe on a machine, by the cost of its network at each size, or by the `measured`
    seconds of training per image at each size. Networks run side by side, one on each device; validation and
    prediction are forward passes; an epoch of the head alone is one as well."""
    seconds = {size: (measured or {}).get(size) or image_seconds(costs[size], machine) for size in costs}
    n_valid = counts.n_train / recipe.n_folds
    n_train = counts.n_train - n_valid
    phases = []
    for phase in recipe.phases:
        image, cost = seconds[phase.size], costs[phase.size]
        floor = 0.0 if measured else machine.launch * cost.n_operators
        step = max(image * phase.batch_size, floor)
        epochs = phase.epochs - phase.head_epochs * (1 - FORWARD)
        valid = phase.epochs * n_valid * FORWARD * image
        phases.append(epochs * n_train / phase.batch_size * step + valid)
    rounds = -(-recipe.n_networks // machine.n_devices)
    n_views = len(view_names(recipe.views)) * (counts.n_train + recipe.n_networks * counts.n_test)
    predict = n_views * FORWARD * seconds[recipe.phases[-1].size] / machine.n_devices
    decode = None
    if machine.n_cores:
        n_pixels = (counts.n_train + counts.n_test) * counts.size**2 * max(1, len(recipe.channels))
        decode = SECONDS_PER_MEGAPIXEL * n_pixels / 1e6 / machine.n_cores
    return RunTime(tuple(phases), rounds * sum(phases), predict, decode)


def count_sizes(recipe: Recipe) -> dict[int, NetworkCost]:
    """Return the cost of the network at each size of the phases."""
    return count_network(recipe, recipe.cached_sizes)


def outline(recipe: Recipe, n_train: int, n_test: int) -> str:
    """Return a line about the training of a recipe: its steps and, on GPUs of a known kind, its time."""
    n_learned = n_train * (recipe.n_folds - 1) // recipe.n_folds
    n_steps = sum(phase.epochs * (n_learned // phase.batch_size) for phase in recipe.phases)
    line = f"{recipe.name}: about {n_steps:,} steps for each of {recipe.n_networks} networks"
    machine = known_machine(gpu_names())
    if machine is None:
        return f"{line}; `comp plan` says how long they take"
    counts = ImageCounts(n_train, n_test, recipe.max_size, 0.0, "")
    time = run_time(recipe, counts, machine, count_sizes(recipe))
    return f"{line}, {clock(time.fold)} each and {clock(time.train)} in all on {machine.name}, by estimate"


def gpu_names() -> list[str]:
    """Return the names of the GPUs, without starting CUDA in this process."""
    if not (n_gpus := torch.cuda.device_count()):
        return []
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return answer.stdout.split("\n")[:n_gpus]


def known_machine(names: Sequence[str]) -> Machine | None:
    """Return the machine with these GPUs, by their names; None where there is none or one is not known."""
    found = [next((speed for part, speed in SPEEDS.items() if part in name), None) for name in names]
    speeds = [speed for speed in found if speed]
    if not speeds or len(speeds) < len(found):
        return None
    several = f" ×{len(names)}" if len(names) > 1 else ""
    return Machine(names[0] + several, min(speeds), len(names))
