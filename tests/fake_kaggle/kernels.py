"""Kernels: push, run on this machine as on Kaggle, serve output and logs."""

import contextlib
import json
import os
import re
import shutil
import signal
import site
import subprocess
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

from tests.fake_kaggle.replies import Json, Refusal, Reply, iso, page_of
from tests.fake_kaggle.state import Kernel, KernelRun
from tests.fake_kaggle.storage import Storage


class Kernels(Storage):
    """The kernel service."""

    def _kernel(self, owner: str, slug: str) -> Kernel:
        if f"{owner}/{slug}" not in self.kernels:
            raise Refusal(403, f"Permission 'kernels.get' was denied for {owner}/{slug}")
        return self.kernels[f"{owner}/{slug}"]

    def _run_of(self, request: Json) -> KernelRun:
        return self._kernel(request.get("userName", ""), request.get("kernelSlug", "")).runs[-1]

    def _kernels_save_kernel(self, request: Json, user: str) -> Json:
        ref, title = request.get("slug", ""), request.get("newTitle", "")
        if not ref.startswith(f"{user}/"):
            raise Refusal(403, f"Permission 'kernels.update' was denied for {ref}")
        if ref not in self.kernels and title:  # a new kernel is named by its title, not by its id
            ref = f"{user}/{re.sub('[^a-z0-9]+', '-', title.lower()).strip('-')}"
        known = {
            "Dataset": lambda s: s in self.datasets and self.datasets[s].current is not None,
            "Competition": lambda s: s in self.competitions and self.competitions[s].accepted,
            "Kernel": lambda s: s in self.kernels,
            "Model": lambda s: False,
        }
        sources, invalid = {}, {}
        for kind, is_known in known.items():
            named = request.get(f"{kind.lower()}DataSources", [])
            sources[f"{kind.lower()}DataSources"] = [s for s in named if is_known(s)]
            invalid[f"invalid{kind}Sources"] = [s for s in named if not is_known(s)]
        with self._lock:
            if ref not in self.kernels:
                self.kernels[ref] = Kernel(ref, self._new_id(), title)
            kernel = self.kernels[ref]
            number = len(kernel.runs) + 1
            folder = self.folder / "kernels" / ref / str(number)
            run = KernelRun(number, {**request, **sources}, folder)
            kernel.runs.append(run)
        threading.Thread(target=self._run, args=(run,), daemon=True).start()
        url = f"https://www.kaggle.com/code/{ref}"
        return {"ref": f"/code/{ref}", "url": url, "versionNumber": number, "kernelId": kernel.id, **invalid}

    def _kernels_get_accelerator_quota_statistics(self, _request: Json, _user: str) -> Json:
        return {"gpuQuota": {"timeUsed": "45000s", "totalTimeAllowed": "108000s"}}

    def _kernels_get_kernel_session_status(self, request: Json, _user: str) -> Json:
        run = self._run_of(request)
        return {"status": run.status, "failureMessage": run.failure}

    def _kernels_list_kernel_session_output(self, request: Json, _user: str) -> Json:
        run = self._run_of(request)
        if not run.done:
            return {"files": [], "log": ""}
        files = run.files
        page, token = page_of(list(files), request)
        listed = [{"fileName": n, "url": self._store(files[n], Path(n).name)} for n in page]
        return {"files": listed, "log": run.log, "nextPageToken": token}

    def _kernels_list_kernel_files(self, request: Json, _user: str) -> Json:
        files = self._run_of(request).files
        page, token = page_of(list(files), request)
        listed = [
            {"name": n, "size": files[n].stat().st_size, "creationDate": iso(datetime.now(UTC))} for n in page
        ]
        return {"files": listed, "nextPageToken": token}

    def _kernels_download_kernel_output(self, request: Json, _user: str) -> Reply:
        run = self._kernel(request.get("ownerSlug", ""), request.get("kernelSlug", "")).runs[-1]
        name = request.get("filePath", "")
        if name not in run.files:
            raise Refusal(404, f"The output has no file {name}")
        return self._hand_out(run.files[name], Path(name).name)

    def log_of(self, owner: str, slug: str) -> Reply:
        """Return the log of a kernel's last run."""
        return Reply(200, [("Content-Type", "text/plain")], self._kernel(owner, slug).runs[-1].log.encode())

    def _run(self, run: KernelRun) -> None:
        """Run a pushed kernel as on Kaggle: with its inputs mounted and without credentials."""
        try:
            if self.stopping.wait(self.queued_for):
                return
            for name in ("src", "input", "working", "home"):
                (run.folder / name).mkdir(parents=True)
            self._mount(run)
            code = run.folder / "src" / "script.py"
            text = run.request.get("text", "")
            code.write_text(_notebook_code(text) if run.request.get("kernelType") == "notebook" else text)
            run.status = "RUNNING"
            run.process = subprocess.Popen(
                [str(self.python), str(code)], cwd=run.working, env=self._environment(run), text=True,
                errors="replace", stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
            started = time.monotonic()
            readers = [
                threading.Thread(target=self._read, args=(run, name, started), daemon=True)
                for name in ("stdout", "stderr")
            ]
            for reader in readers:
                reader.start()
            limit = run.request.get("sessionTimeoutSeconds")
            try:
                code_of_exit = run.process.wait(limit or None)
            except subprocess.TimeoutExpired:
                kill(run.process)
                code_of_exit, run.failure = run.process.wait(), "Your notebook was stopped: it took too long"
            for reader in readers:
                reader.join(5)
            if code_of_exit and not run.failure:
                run.failure = f"Your notebook exited with code {code_of_exit}"
        except Exception as error:
            run.failure = f"The notebook could not be run: {error}"
        run.status = "ERROR" if run.failure else "COMPLETE"

    def _read(self, run: KernelRun, name: str, started: float) -> None:
        assert run.process
        for line in getattr(run.process, name):
            seconds = round(time.monotonic() - started, 6)
            run.events.append({"stream_name": name, "time": seconds, "data": line})

    def _environment(self, run: KernelRun) -> dict[str, str]:
        kept = {
            k: v
            for k, v in os.environ.items()
            if not k.startswith(("KAGGLE_", "COMP_")) and k != "PYTHONPATH"
        }
        if run.request.get("enableInternet") is False:  # point proxies to a closed port
            kept = {k: v for k, v in kept.items() if k.lower() not in ("no_proxy", "all_proxy")}
            proxies = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
            kept |= dict.fromkeys(proxies, "http://127.0.0.1:9")
        scratch = run.folder / "tmp"  # a session's own, as on Kaggle: its files count for the session's disk
        scratch.mkdir(parents=True, exist_ok=True)
        return kept | {
            "TMPDIR": str(scratch),
            "COMP_KAGGLE_INPUT": str(run.folder / "input"),
            "COMP_KAGGLE_WORKING": str(run.working),
            "KAGGLE_KERNEL_RUN_TYPE": "Batch",
            "HOME": str(run.folder / "home"),
            "PYTHONUSERBASE": site.getuserbase(),
            "PYTHONUNBUFFERED": "1",
        }

    def _mount(self, run: KernelRun) -> None:
        """Mount the inputs: files under their listed names, a competition's archives unpacked."""
        mounts: dict[str, dict[str, Path]] = {}
        for slug in run.request["competitionDataSources"]:
            files: dict[str, Path] = {}
            for name, path in self.competitions[slug].files.items():
                files |= self._unpacked(name, path)
            mounts[f"competitions/{slug}"] = files
        for ref in run.request["datasetDataSources"]:
            current = self.datasets[ref].current
            mounts[f"datasets/{ref}"] = current.files if current else {}
        for ref in run.request["kernelDataSources"]:
            finished = next((r for r in reversed(self.kernels[ref].runs) if r.status == "COMPLETE"), None)
            mounts[f"notebooks/{ref}"] = finished.files if finished else {}
        for place, files in mounts.items():
            flat = self.mount_layout == "flat"
            folder = run.folder / "input" / (place.split("/")[-1] if flat else place)
            folder.mkdir(parents=True, exist_ok=True)
            for name, path in files.items():
                _link(path, folder / name)


def kill(process: subprocess.Popen[str] | None) -> None:
    if process is not None and process.poll() is None:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _notebook_code(text: str) -> str:
    """Return a notebook's code cells as a script; "!" lines run in a shell, "%" lines are left out."""
    lines = []
    for cell in json.loads(text).get("cells", []):
        if cell.get("cell_type") != "code":
            continue
        for line in "".join(cell.get("source", "")).splitlines():
            bare = line.lstrip()
            indent = line[: len(line) - len(bare)]
            if bare.startswith("!"):
                line = f"{indent}__import__('subprocess').run({bare[1:]!r}, shell=True)"
            elif bare.startswith("%"):
                line = f"{indent}pass"
            lines.append(line)
    return "\n".join(lines) + "\n"
