"""A built kernel's way to Kaggle and its output's way back: datasets first, uploaded only where they changed,
then the kernel, which is watched until it ends."""

import time
from pathlib import Path

from comp.artifacts.files import read_json, write_json, write_text
from comp.artifacts.paths import kernel_output_dir, pushed_path
from comp.artifacts.schemas import Pushed
from comp.console import clock, say
from comp.errors import CompError
from comp.kaggle.client import Kaggle
from comp.kaggle.download import sha256_of
from comp.kaggle.kernels.kernel import Kernel

POLL = (2.0, 30.0)  # seconds between two looks at what Kaggle does: at first, and later
READY_WITHIN = 3600.0  # seconds that Kaggle may take over an uploaded dataset
ENDED = ("complete", "error", "cancel_acknowledged")
LOG_LINES = 20  # of a kernel's log that are shown at the end


def push(kernel: Kernel) -> None:
    """Upload the datasets that changed, run the kernel, and follow it to its end. Raises CompError where
    Kaggle refuses something, or the kernel fails."""
    kaggle = Kaggle()
    record = pushed_path(kernel.recipe.name, kernel.kind)
    pushed = read_json(record, Pushed) if record.exists() else {}
    for part, ref in (("wheels", kernel.wheels_id), ("weights", kernel.weights_id)):
        folder = kernel.folder / part
        if not folder.is_dir():
            continue
        files = {p.name: p for p in sorted(folder.iterdir()) if p.name != "dataset-metadata.json"}
        hashes = {name: sha256_of(path) for name, path in files.items()}
        if is_there(kaggle, ref, files, hashes, pushed.get(ref)):
            say(f"kernel: datasets/{ref} is on Kaggle already")
            continue
        say(f"kernel: uploading datasets/{ref}, {len(files)} files")
        kaggle.upload_dataset(folder, ref, f"for {kernel.id}")
        pushed[ref] = hashes
        write_json(record, pushed)
    for part, ref in (("wheels", kernel.wheels_id), ("weights", kernel.weights_id)):
        if (kernel.folder / part).is_dir():
            wait_until_ready(kaggle, ref)
    ref, version, lacking = kaggle.push_kernel(kernel.folder / "kernel")
    write_json(record, {**pushed, "kernel": ref, "version": version})
    say(f"kernel: version {version} of https://www.kaggle.com/code/{ref} is on its way")
    if lacking:
        raise CompError(
            f"version {version} runs without {', '.join(lacking)}, which Kaggle does not give you: join the "
            "competition, or push without --resume where there is no earlier version; `comp kernel watch` "
            "follows it all the same"
        )
    watch(kernel)


def is_there(
    kaggle: Kaggle, ref: str, files: dict[str, Path], hashes: dict[str, str], pushed: dict[str, str] | None
) -> bool:
    """Whether the dataset holds these very files: of the names and sizes that Kaggle lists, and uploaded from
    here, or wheels, whose names say what is in them."""
    if kaggle.dataset_status(ref) is None:
        return False
    listed, _ = kaggle.files(f"datasets/{ref}")
    if {file.name: file.bytes for file in listed} != {n: p.stat().st_size for n, p in files.items()}:
        return False
    return pushed == hashes or all(name.endswith(".whl") for name in files)


def wait_until_ready(kaggle: Kaggle, ref: str) -> None:
    started, pause = time.monotonic(), POLL[0]
    while (status := kaggle.dataset_status(ref)) != "ready":
        if status in ("error", "failed", "deleted") or time.monotonic() - started > READY_WITHIN:
            raise CompError(f"datasets/{ref} is not ready on Kaggle ({status}); run again to upload it anew")
        time.sleep(pause)
        pause = min(1.5 * pause, POLL[1])


def watch(kernel: Kernel) -> None:
    """Follow the version that was pushed last to its end, and fetch its output and log."""
    record = pushed_path(kernel.recipe.name, kernel.kind)
    pushed = read_json(record, Pushed) if record.exists() else {}
    if not pushed.get("kernel"):
        raise CompError(f"no {kernel.kind} kernel of {kernel.recipe.name} was pushed; run `comp kernel push`")
    kaggle, ref, version = Kaggle(), pushed["kernel"], pushed["version"]
    started, pause, before = time.monotonic(), POLL[0], ""
    while True:
        status, reason = kaggle.kernel_status(ref)
        if status != before:
            say(f"kernel: {status} after {clock(time.monotonic() - started)}")
            before = status
        if status in ENDED:
            break
        time.sleep(pause)
        pause = min(1.2 * pause, POLL[1])
    folder = kernel_output_dir(kernel.recipe.name, kernel.kind, version)
    log = kaggle.kernel_output(ref, folder)
    log_file = folder / f"{ref.split('/')[1]}.log"
    write_text(log_file, log)
    for line in log.splitlines()[-LOG_LINES:]:
        say(f"  {line}")
    if status != "complete":
        raise CompError(
            f"the kernel ended as {status} ({reason or 'see its log'}); all of its log: {log_file}"
        )
    say(f"kernel: its output and log are in {folder}")
    if (folder / "submission.csv").exists():
        say(f"kernel: its answer is {folder}/submission.csv")
    if kernel.kind == "train":
        say(f"kernel: to go on here with what it trained: cp -r {folder}/runs {folder}/folds .")
