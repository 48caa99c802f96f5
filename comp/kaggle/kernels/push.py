"""Push a built kernel to Kaggle: upload the datasets that changed, run the kernel, follow it to its end, and
download its output."""

import time
from pathlib import Path

from comp.artifacts.files import read_json, write_json, write_text
from comp.artifacts.paths import kernel_output_dir, pushed_path
from comp.artifacts.schemas import Pushed
from comp.console import clock, info
from comp.errors import CompError
from comp.kaggle.download import sha256_of
from comp.kaggle.kernels.client import KernelClient
from comp.kaggle.kernels.kernel import Kernel

POLL_SECONDS = (2.0, 30.0)  # seconds between two polls: at first, and at most
READY_TIMEOUT = 3600.0  # seconds until an uploaded dataset must be ready
FINAL_STATUS = ("complete", "error", "cancel_acknowledged")
LOG_LINES = 20  # printed from the end of a kernel's log


def push(kernel: Kernel) -> None:
    """Upload the datasets that changed, run the kernel, and follow it to its end. Raise CompError if Kaggle
    refuses something or the kernel fails."""
    kaggle = KernelClient()
    record = pushed_path(kernel.recipe.name, kernel.kind)
    pushed = read_json(record, Pushed) if record.exists() else {}
    for part, ref in (("wheels", kernel.wheels_id), ("weights", kernel.weights_id)):
        folder = kernel.folder / part
        if not folder.is_dir():
            continue
        files = {p.name: p for p in sorted(folder.iterdir()) if p.name != "dataset-metadata.json"}
        hashes = {name: sha256_of(path) for name, path in files.items()}
        if is_uploaded(kaggle, ref, files, hashes, pushed.get(ref)):
            info(f"kernel: datasets/{ref} is on Kaggle already")
            continue
        info(f"kernel: uploading datasets/{ref}, {len(files)} files")
        kaggle.upload_dataset(folder, ref, f"for {kernel.id}")
        pushed[ref] = hashes
        write_json(record, pushed)
    for part, ref in (("wheels", kernel.wheels_id), ("weights", kernel.weights_id)):
        if (kernel.folder / part).is_dir():
            wait_until_ready(kaggle, ref)
    if hours := kaggle.gpu_hours():
        left = max(0.0, hours[1] - hours[0])
        info(f"kernel: {left:.1f} of {hours[1]:.0f} GPU hours are left; it may take {clock(kernel.budget)}")
    ref, version, lacking = kaggle.push_kernel(kernel.folder / "kernel", kernel.session_limit)
    write_json(record, {**pushed, "kernel": ref, "version": version})
    info(f"kernel: version {version} of https://www.kaggle.com/code/{ref} is pushed")
    if lacking:
        raise CompError(
            f"version {version} runs without {', '.join(lacking)}, to which you have no access: join the "
            "competition, or push without --resume if there is no earlier version; `comp kernel watch` "
            "follows this version"
        )
    watch(kernel)


def is_uploaded(
    kaggle: KernelClient,
    ref: str,
    files: dict[str, Path],
    hashes: dict[str, str],
    pushed: dict[str, str] | None,
) -> bool:
    """Return whether the dataset contains exactly these files: names and sizes equal Kaggle's list, and the
    hashes equal those of the last upload from here. Wheels need no hashes: their names have versions."""
    if kaggle.dataset_status(ref) is None:
        return False
    listed, _ = kaggle.list_files(f"datasets/{ref}")
    if {file.name: file.bytes for file in listed} != {n: p.stat().st_size for n, p in files.items()}:
        return False
    return pushed == hashes or all(name.endswith(".whl") for name in files)


def wait_until_ready(kaggle: KernelClient, ref: str) -> None:
    """Wait until Kaggle has processed an uploaded dataset. Raise CompError if it fails or takes too long."""
    started, pause = time.monotonic(), POLL_SECONDS[0]
    while (status := kaggle.dataset_status(ref)) != "ready":
        if status in ("error", "failed", "deleted") or time.monotonic() - started > READY_TIMEOUT:
            raise CompError(f"datasets/{ref} is not ready on Kaggle ({status}); run again to upload it anew")
        time.sleep(pause)
        pause = min(1.5 * pause, POLL_SECONDS[1])


def watch(kernel: Kernel) -> None:
    """Follow the last pushed version to its end, and download its output and log. Raise CompError if it
    fails."""
    record = pushed_path(kernel.recipe.name, kernel.kind)
    pushed = read_json(record, Pushed) if record.exists() else {}
    if not pushed.get("kernel"):
        raise CompError(f"no {kernel.kind} kernel of {kernel.recipe.name} was pushed; run `comp kernel push`")
    kaggle, ref, version = KernelClient(), pushed["kernel"], pushed["version"]
    started, pause, before = time.monotonic(), POLL_SECONDS[0], ""
    while True:
        status, reason = kaggle.kernel_status(ref)
        if status != before:
            info(f"kernel: {status} after {clock(time.monotonic() - started)}")
            before = status
        if status in FINAL_STATUS:
            break
        time.sleep(pause)
        pause = min(1.2 * pause, POLL_SECONDS[1])
    folder = kernel_output_dir(kernel.recipe.name, kernel.kind, version)
    log = kaggle.kernel_output(ref, folder)
    log_file = folder / f"{ref.split('/')[1]}.log"
    write_text(log_file, log)
    for line in log.splitlines()[-LOG_LINES:]:
        info(f"  {line}")
    if status != "complete":
        raise CompError(
            f"the kernel ended with status {status} ({reason or 'see its log'}); the whole log: {log_file}"
        )
    info(f"kernel: output and log are in {folder}")
    if (folder / "submission.csv").exists():
        info(f"kernel: its submission is {folder}/submission.csv")
    if kernel.kind == "train":
        info(f"kernel: to continue here with the trained run: cp -r {folder}/runs {folder}/folds .")
