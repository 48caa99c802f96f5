"""Faults that the tests of GPU code must catch: `python -m tests.gpu.planted_faults [WORD …]`.

For each fault, comp/ and tests/ are copied to a temporary folder, the fault is planted there, and its test is
run in a process of its own; it must fail. Before that, all of the tests must pass without a fault. With
words, only faults whose name has one of them are planted. Exit code 1: a fault is not caught, or its text is
not found."""

import importlib
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "timm", "albumentations", "pandas", "sklearn.metrics", "rich.progress")
TRAINING, MEMORY, LOADING, DECODING, PREDICTION, COMMANDS = (
    f"tests/gpu/test_{name}.py::"
    for name in ("training", "memory", "loading", "decoding", "prediction", "commands")
)
RANKS = "tests/benchmarks/test_speed.py::test_micro_batches_ranks_and_checkpointing_give_the_same_weights"
STEP = TRAINING + "test_no_step_waits_for_the_gpu"
HALF = TRAINING + "test_half_precision_is_chosen_by_the_gpu_and_ends_near_fp32"
CLIPPED = TRAINING + "test_the_optimizer_sees_clipped_gradients_without_the_scale"
LAST = TRAINING + "test_images_weights_and_gradients_stay_channels_last"
SKIPPED = TRAINING + "test_a_step_with_infinite_gradients_is_skipped"
RESUMED = TRAINING + "test_a_run_goes_on_from_its_checkpoint"
LOOKED = TRAINING + "test_the_loss_is_looked_at_without_waiting"
A_RANK = TRAINING + "test_a_rank_takes_its_own_gpu_and_few_images_synchronise_batch_norms"
SIGNS = MEMORY + "test_each_way_to_say_out_of_memory_makes_batches_smaller"
BATCH = PREDICTION + "test_a_batch_waits_for_nothing_but_the_probabilities_of_the_one_before"


@dataclass(frozen=True)
class Fault:
    name: str
    file: str  # in comp/
    old: str  # occurs once in the file
    new: str
    test: str  # which catches it


FAULTS = [
    # what makes a step wait for the GPU
    Fault(
        "a list as an index in the loss groups",
        "training/loss_terms.py",
        "true = targets.index_select(1, group)",
        "true = targets[:, group.tolist()]",
        TRAINING + "test_no_loss_waits_for_the_gpu[groups]",
    ),
    Fault(
        "class weights that stay on the CPU",
        "training/trainer.py",
        "self.weights.to(self.device)",
        "self.weights",
        TRAINING + "test_no_loss_waits_for_the_gpu[bce]",
    ),
    Fault(
        "random numbers sent from memory that isn't pinned",
        "batches/augmentation.py",
        "tensor.pin_memory().to(device, non_blocking=True) if",
        "tensor.to(device) if",
        STEP + "[resident]",
    ),
    Fault(
        "a loss that is read at each look",
        "training/step.py",
        "float(self.copy) if self.copied and self.event.query() else 0.0",
        "float(self.total)",
        STEP + "[resident]",
    ),
    Fault(
        "a loss that is read before it has arrived",
        "training/step.py",
        "self.copied and self.event.query()",
        "self.copied",
        LOOKED,
    ),
    # decoding
    Fault(
        "JPEGs decoded into memory that work on others still reads",
        "data/gpu_decoding.py",
        "with self._lock:",
        "if True:",
        DECODING + "test_threads_decode_one_after_the_other",
    ),
    Fault(
        "a JPEG without its last part, decoded to one colour there",
        "data/gpu_decoding.py",
        "if bool((last == last[:, :1, :1]).all()):",
        "if False:",
        DECODING + "test_damaged_files_are_refused_as_on_a_cpu[cut]",
    ),
    Fault(
        "small JPEGs decoded by nvJPEG, which repeats their colours",
        "data/gpu_decoding.py",
        "if coarser == 1 or",
        "if",
        DECODING + "test_what_nvjpeg_may_read_otherwise_is_left_to_the_cpu[small]",
    ),
    Fault(
        "a cache that a GPU decoded, taken for a CPU's",
        "data/image_cache.py",
        '*(["nvjpeg"] if on_gpu else [])',
        "",
        DECODING + "test_pixels_are_those_of_a_cpu_up_to_rounding[32-4:2:0]",
    ),
    # batches
    Fault(
        "rows of a batch sent from memory that isn't pinned",
        "batches/loader.py",
        "index = index.pin_memory().to(self.device, non_blocking=True)",
        "index = index.to(self.device)",
        STEP + "[resident]",
    ),
    Fault(
        "batches sent from memory that isn't pinned",
        "batches/loader.py",
        "pinned = self.stream is not None",
        "pinned = False",
        STEP + "[streamed]",
    ),
    Fault(
        "a batch that is worked on before it has arrived",
        "batches/loader.py",
        "main.wait_stream(stream)",
        "pass",
        LOADING + "test_batches_are_those_of_a_cpu[streamed]",
    ),
    Fault(
        "a cache that may take all of the GPU's memory",
        "batches/loader.py",
        "n_bytes <= MAX_SHARE_OF_GPU *",
        "n_bytes <=",
        LOADING + "test_a_cache_stays_on_the_gpu_where_a_third_of_its_free_memory_holds_it",
    ),
    Fault(
        "images that are not channels last",
        "batches/preprocessing.py",
        "return x.contiguous(memory_format=torch.channels_last)",
        "return x.contiguous()",
        HALF + "[H100]",
    ),
    # speed of kernels
    Fault(
        "weights that are not channels last in training",
        "training/model_state.py",
        "self.model.to(device, memory_format=torch.channels_last)",
        "self.model.to(device)",
        LAST + "[fp32]",
    ),
    Fault(
        "views that are not channels last",
        "models/inference.py",
        ".contiguous(memory_format=torch.channels_last)",
        ".contiguous()",
        PREDICTION + "test_views_and_weights_stay_channels_last[fp32]",
    ),
    Fault(
        "an optimizer of many operations",
        "training/optimizer.py",
        "lr=1e-3, fused=True",
        "lr=1e-3, foreach=True",
        TRAINING + "test_a_step_of_the_optimizer_is_one_fused_operation_for_each_group",
    ),
    Fault(
        "fp32 without TF32",
        "compute/devices.py",
        'torch.set_float32_matmul_precision("high")',
        'torch.set_float32_matmul_precision("highest")',
        TRAINING + "test_fp32_is_tf32_where_the_gpu_has_it",
    ),
    Fault(
        "algorithms of cuDNN that are not timed",
        "compute/devices.py",
        "torch.backends.cudnn.benchmark = not deterministic",
        "torch.backends.cudnn.benchmark = False",
        TRAINING + "test_a_phase_trains_with_one_size_of_batches_so_that_cudnn_times_its_algorithms_once",
    ),
    Fault(
        "images that are turned and moved one after the other",
        "batches/preprocessing.py",
        'at_once: tuple[str, ...] = ("cuda",)',
        "at_once: tuple[str, ...] = ()",
        TRAINING + "test_a_batch_is_prepared_in_few_operations",
    ),
    Fault(
        "turned images that are moved as if they were not",
        "batches/augmentation.py",
        "SQUARE[self.symmetry] @ moves",
        "moves",
        TRAINING + "test_a_run_in_fp32_ends_with_the_weights_of_a_cpu[resident]",
    ),
    # precision and the gradient scaler
    Fault(
        "no autocast",
        "models/precision.py",
        "enabled=dtype != torch.float32",
        "enabled=False",
        HALF + "[H100]",
    ),
    Fault("bf16 on a T4", "models/precision.py", "[0] >= 8", "[0] >= 7", HALF + "[T4]"),
    Fault(
        "fp16 without a scaler",
        "training/model_state.py",
        "enabled=torch.float16 in dtypes",
        "enabled=False",
        HALF + "[T4]",
    ),
    Fault(
        "a loss that is not scaled",
        "training/step.py",
        "self.state.scaler.scale(loss).backward()",
        "self.state.scaler.scale(loss); loss.backward()",
        CLIPPED,
    ),
    Fault(
        "scaled gradients are clipped",
        "training/optimizer.py",
        "    scaler.unscale_(optimizer)\n    flats",
        "    flats",
        CLIPPED,
    ),
    Fault(
        "weights are cast once and never again",
        "training/flat_parameters.py",
        "self.cast_joined.copy_(self.joined[0].data)",
        "pass",
        HALF + "[H100]",
    ),
    Fault(
        "the CPU's norm is asked for on a GPU",
        "training/optimizer.py",
        "return on_cpu and math.hypot(",
        "return math.hypot(",
        STEP + "[resident]",
    ),
    Fault(
        "gradients are not clipped",
        "training/optimizer.py",
        "nn.utils.clip_grads_with_norm_(flats, clip_norm, norm)",
        "pass",
        CLIPPED,
    ),
    Fault(
        "a step with infinite gradients is taken",
        "training/optimizer.py",
        "scaler.step(optimizer)",
        "optimizer.step()",
        SKIPPED,
    ),
    Fault("a scale that is never lowered", "training/optimizer.py", "scaler.update()", "pass", SKIPPED),
    Fault(
        "gradients that stay for the next step",
        "training/model_state.py",
        "        self.drop_gradients()\n        self.n_steps_done",
        "        self.n_steps_done",
        SKIPPED,
    ),
    Fault(
        "batch norms that learn while the head is trained alone",
        "training/model_state.py",
        "self.model.train(not head_only)",
        "self.model.train()",
        TRAINING + "test_epochs_of_the_head_alone_leave_the_body_as_it_was",
    ),
    # resume
    Fault(
        "a checkpoint that is loaded to the CPU",
        "training/checkpoint.py",
        "map_location=device",
        'map_location="cpu"',
        RESUMED,
    ),
    Fault(
        "a scaler that starts again",
        "training/model_state.py",
        'self.scaler.load_state_dict(state["scaler"])',
        "pass",
        RESUMED,
    ),
    Fault(
        "an optimizer that starts again",
        "training/model_state.py",
        'self.optimizer.load_state_dict(state["optimizer"])',
        "pass",
        RESUMED,
    ),
    Fault(
        "an EMA that starts again",
        "training/model_state.py",
        'self.averages.ema.load_state_dict(state["ema"])',
        "pass",
        RESUMED,
    ),
    # out of memory
    Fault(
        "a sign of cuDNN that is not known",
        "compute/devices.py",
        '    "unable to find a valid cudnn algorithm",',
        "   ",
        SIGNS + "[algorithm]",
    ),
    Fault(
        "signs that are compared by case",
        "compute/devices.py",
        "str(error).lower()",
        "str(error)",
        SIGNS + "[cublas]",
    ),
    Fault(
        "gradients of a part that was done before memory ran out",
        "training/trainer.py",
        "self.state.drop_gradients()",
        "pass",
        MEMORY + "test_gradients_of_a_part_that_was_done_before_are_not_added_twice",
    ),
    Fault(
        "validation that gives up when memory runs out",
        "training/trainer.py",
        "self.micro_valid = MicroBatches()",
        "self.micro_valid = MicroBatches(smallest=math.inf)",
        MEMORY + "test_a_run_that_is_out_of_memory_goes_on_in_micro_batches[validation]",
    ),
    # prediction and heat maps
    Fault(
        "probabilities that are kept before they have arrived",
        "models/inference.py",
        "earlier[2].synchronize()",
        "pass",
        PREDICTION + "test_predictions_have_arrived_when_they_are_kept",
    ),
    Fault(
        "probabilities whose copy the CPU waits for",
        "models/inference.py",
        'mean.to("cpu", non_blocking=True)',
        "mean.cpu()",
        BATCH,
    ),
    Fault(
        "a list as an index in prediction",
        "models/inference.py",
        "logits.index_select(1, columns)",
        "logits[:, list(group)]",
        BATCH,
    ),
    Fault(
        "heat maps of images that stay on the CPU",
        "models/gradcam.py",
        "prepare(torch.from_numpy(np.array(images[start : start + BATCH_SIZE])).to(device))",
        "prepare(torch.from_numpy(np.array(images[start : start + BATCH_SIZE])))",
        PREDICTION + "test_heat_maps_are_those_of_a_cpu",
    ),
    # several GPUs
    Fault(
        "all folds on the first GPU",
        "compute/devices.py",
        'Device(f"cuda:{i}", ',
        'Device("cuda:0", ',
        COMMANDS + "test_each_gpu_gets_a_fold_in_a_process_of_its_own",
    ),
    Fault(
        "a rank that takes the GPU of its number among all machines",
        "compute/distributed.py",
        "os.environ.get('LOCAL_RANK', 0)",
        "os.environ.get('RANK', 0)",
        A_RANK,
    ),
    Fault(
        "batch norms that are not synchronised",
        "compute/distributed.py",
        "return convert_sync_batchnorm(model) if few else model",
        "return model",
        A_RANK,
    ),
    Fault(
        "gradients that are divided by the ranks twice",
        "training/step.py",
        "* self.ranks.size / n_images",
        "/ n_images",
        RANKS,
    ),
    Fault(
        "statistics of batch norms that ranks do not share",
        "training/trainer.py",
        "self.ranks.add_up(statistic).div_(self.ranks.size)",
        "pass",
        RANKS,
    ),
    # speed
    Fault(
        "a bare step that is timed before the GPU is done",
        "benchmarks/bare_step.py",
        "torch.cuda.synchronize(place)",
        "pass",
        COMMANDS + "test_the_bare_step_waits_only_before_and_after[fp16]",
    ),
]


def copy_to(folder: Path) -> None:
    for name in ("comp", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)


def run_tests(folder: Path, tests: list[str]) -> int:
    """Run tests of the copy in a process of its own. Return pytest's exit code; the output is in output.txt.

    The process is a fork: it has torch and others already, whose import takes longer than most tests."""
    process = multiprocessing.get_context("fork").Process(target=_run, args=(folder, tests))
    process.start()
    process.join()
    return process.exitcode or 0


def _run(folder: Path, tests: list[str]) -> None:
    with (folder / "output.txt").open("w") as output:
        for stream in (1, 2):
            os.dup2(output.fileno(), stream)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("tests", "comp")]:
        del sys.modules[name]
    sys.path[:] = [str(folder), *(path for path in sys.path if path and Path(path).resolve() != ROOT)]
    os.environ |= {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    os.chdir(folder)
    sys.exit(pytest.main(["-x", "-n", "0", "-p", "no:cacheprovider", *tests]))


def plant(fault: Fault) -> str:
    """Return "caught", or what is wrong."""
    with tempfile.TemporaryDirectory(prefix="comp-fault-") as name:
        folder = Path(name)
        copy_to(folder)
        path = folder / "comp" / fault.file
        text = path.read_text()
        if text.count(fault.old) != 1:
            return f"its text occurs {text.count(fault.old)} times in comp/{fault.file}"
        path.write_text(text.replace(fault.old, fault.new))
        code = run_tests(folder, [fault.test])
        output = (folder / "output.txt").read_text()
    if code == pytest.ExitCode.TESTS_FAILED:
        return "caught"
    return "not caught" if code == pytest.ExitCode.OK else f"no result: {output[-1000:]}"


def main(words: list[str]) -> int:
    faults = [fault for fault in FAULTS if not words or any(word in fault.name for word in words)]
    if not faults:
        print(f"no fault has {' or '.join(words)} in its name; the names are:")
        print(*(fault.name for fault in FAULTS), sep="\n")
        return 2
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else it asks the network
    for module in HEAVY:
        importlib.import_module(module)
    with tempfile.TemporaryDirectory(prefix="comp-fault-") as name:
        folder = Path(name)
        copy_to(folder)
        if run_tests(folder, sorted({fault.test for fault in faults})):
            print(f"the tests fail without a fault:\n{(folder / 'output.txt').read_text()[-4000:]}")
            return 1
    width, n_caught = max(len(fault.name) for fault in faults), 0
    for fault in faults:
        started = time.monotonic()
        result = plant(fault)
        n_caught += result == "caught"
        seconds = time.monotonic() - started
        print(f"{fault.name:<{width}}  {fault.file:<24}  {seconds:4.0f} s  {result}", flush=True)
    print(f"{n_caught} of {len(faults)} faults are caught")
    return int(n_caught < len(faults))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
