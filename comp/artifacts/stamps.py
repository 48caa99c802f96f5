"""Every file that stages leave for each other: where it is, how it is written so that it is whole or absent,
and the stamp inside it that says what it was made from."""

import contextlib
import fcntl
import hashlib
import json
import math
import os
import re
import shutil
import time
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from comp.artifacts.schemas import Epoch, SafetensorsHeader, Spec
from comp.config.loading import problem, shortened
from comp.errors import CompError

Stamp = Mapping[str, Any]
REMAKE = "remove it and run the stage that writes it again"

# --- places -------------------------------------------------------------------------------------------------


def data_dir(competition: str) -> Path:
    return Path(os.environ.get("COMP_DATA", "data")) / competition


def manifest_path(competition: str) -> Path:
    return data_dir(competition) / "manifest.json"


def cache_dir(competition: str) -> Path:
    return data_dir(competition) / "cache"


def downloads_dir(competition: str) -> Path:
    return data_dir(competition) / "downloads"


def unpacked_dir(competition: str) -> Path:
    return data_dir(competition) / "unpacked"


def mounted(source: str) -> Path | None:
    """The folder in which a Kaggle kernel mounts a source (competitions/<slug>, datasets/<owner>/<slug>,
    notebooks/<owner>/<slug>), in any of the layouts that Kaggle has used."""
    root = Path(os.environ.get("COMP_KAGGLE_INPUT", "/kaggle/input"))
    places = (root / source, root / source.rpartition("/")[2])
    return next((path for path in places if path.is_dir()), None)


def wheel_cache_dir(python: str) -> Path:
    """Wheels that were fetched for kernels of this Python, as 3.12."""
    return Path(os.environ.get("COMP_DATA", "data")) / ".wheels" / python


def kernel_dir(recipe: str, kind: str) -> Path:
    return run_dir(recipe) / f"kernel-{kind}"


def folds_path(competition: str, n_folds: int, seed: int) -> Path:
    return Path("folds") / f"{competition}-k{n_folds}-s{seed}.csv"


def duplicates_path(competition: str) -> Path:
    return Path("folds") / f"{competition}-duplicates.csv"


def runs_dir() -> Path:
    return Path(os.environ.get("COMP_RUNS", "runs"))


def run_dir(recipe: str) -> Path:
    return below(runs_dir(), recipe, "the name of a run")


def finished_runs() -> list[str]:
    """Names of runs with held-out predictions."""
    return sorted(path.parent.name for path in runs_dir().glob("*/oof.npz"))


def compared_path(names: Iterable[str]) -> Path:
    joined = "-".join(names)
    return runs_dir() / f"compare-{joined if len(joined) < 200 else digest(joined)}.png"


def tricks_dir(recipe: str) -> Path:
    return run_dir(recipe) / "tricks"


def fold_dir(recipe: str, fold: int) -> Path:
    return run_dir(recipe) / f"fold{fold}"


def log_path(recipe: str, fold: int) -> Path:
    return fold_dir(recipe, fold) / "log.jsonl"


def tensorboard_dir(recipe: str, fold: int | None) -> Path:
    """A TensorBoard run of a fold, or of the decision."""
    return run_dir(recipe) / "tensorboard" / ("decision" if fold is None else f"fold{fold}")


def mlflow_path() -> Path:
    """The database of MLflow runs, where no server is named."""
    return runs_dir() / "mlflow.db"


def tracked_path(recipe: str, fold: int | None, tracker: str) -> Path:
    """What a tracker has been told of a fold, or of the decision."""
    return (run_dir(recipe) if fold is None else fold_dir(recipe, fold)) / f"tracked-{tracker}.json"


def checkpoint_path(recipe: str, fold: int) -> Path:
    return fold_dir(recipe, fold) / "last.pt"


def started_path(recipe: str, fold: int) -> Path:
    return fold_dir(recipe, fold) / "started.json"


def model_path(recipe: str, fold: int) -> Path:
    return fold_dir(recipe, fold) / "model.safetensors"


def oof_path(recipe: str, fold: int | None = None) -> Path:
    return (run_dir(recipe) if fold is None else fold_dir(recipe, fold)) / "oof.npz"


def test_path(recipe: str, fold: int | None = None) -> Path:
    return (run_dir(recipe) if fold is None else fold_dir(recipe, fold)) / "test.npz"


def predicted_paths(recipe: str, fold: int, n_folds: int) -> list[Path]:
    """What `predict` writes for a network: one beyond the folds holds nothing out."""
    return [*([oof_path(recipe, fold)] if fold < n_folds else []), test_path(recipe, fold)]


def decision_path(recipe: str) -> Path:
    return run_dir(recipe) / "decision.json"


def explanation_path(recipe: str, image: str) -> Path:
    return run_dir(recipe) / f"explain-{image.replace('/', '-')}.png"


def report_path(recipe: str) -> Path:
    return run_dir(recipe) / "report.html"


def inferred_path(recipe: str, fold: int) -> Path:
    return fold_dir(recipe, fold) / "infer.npz"


def find_lr_path(recipe: str, phase: int) -> Path:
    return run_dir(recipe) / f"find-lr-{phase}.json"


def study_path(recipe: str) -> Path:
    return run_dir(recipe) / "study.log"


def tune_study_path(recipe: str) -> Path:
    return run_dir(recipe) / "tune.log"


def tune_picture_path(recipe: str) -> Path:
    return run_dir(recipe) / "tune.png"


def tuned_path(recipe: str) -> Path:
    return run_dir(recipe) / "tuned.toml"


def trials_dir(recipe: str) -> Path:
    return run_dir(recipe) / "tune"


def trial_run(recipe: str, trial: str) -> str:
    """The name under which a trial of `tune` is trained: its files come into trials_dir(recipe)."""
    return f"{recipe}/tune/{trial}"


def kernel_output_dir(recipe: str, kind: str, version: int) -> Path:
    return below(run_dir(recipe), f"kernel-{kind}-v{version}", pushed_path(recipe, kind))


def pushed_path(recipe: str, kind: str) -> Path:
    return run_dir(recipe) / f"kernel-{kind}-pushed.json"


def submissions_dir() -> Path:
    return Path("submissions")


def submission_path(name: str) -> Path:
    return below(submissions_dir(), f"{name}.csv", "the name of a submission")


def ledger_path() -> Path:
    return submissions_dir() / "ledger.csv"


# --- names from outside -------------------------------------------------------------------------------------

OWN = re.compile(r"\.(.*\.)?(lock|partial|partial\.json|fetched\.json|done|stamp\.json)")

LEADS_OUT = "{}: {!r} leads out of {}, and nothing there is touched; mend or remove it"


def is_own(name: str) -> bool:
    """Whether a name, with its folders, holds one that comp keeps for its notes, locks and unfinished files,
    or one that some file system takes for such a name."""
    seen = "".join(c for c in unicodedata.normalize("NFKC", name) if unicodedata.category(c) != "Cf")
    return any(OWN.fullmatch(part) for part in seen.casefold().replace("\\", "/").split("/"))


def below(folder: Path, name: str, named_by: object) -> Path:
    """`folder`/`name`. Raises CompError where the name that `named_by` gives leads out of the folder; links
    are not looked at."""
    if not isinstance(name, str) or "\0" in name or ".." in (way := PurePosixPath(name)).parts or way.root:
        raise CompError(LEADS_OUT.format(named_by, name, folder))
    return folder / name


def inside(folder: Path, name: str, named_by: object) -> Path:
    """As `below`, and links are followed: what they lead to lies in the folder too."""
    path = below(folder, name, named_by)
    with contextlib.suppress(OSError, RuntimeError):  # a name too long, links in a circle
        if path.resolve().is_relative_to(folder.resolve()):
            return path
    raise CompError(LEADS_OUT.format(named_by, name, folder))


def remove(path: Path, *, inside: Path) -> None:
    """Remove a file, a link, or a folder with all that is in it; nothing where it isn't there. Raises
    CompError where it does not lie below the folder `inside`, links on the way followed, or where that is a
    link itself: what is removed by a name from outside is never anything but comp's own."""
    refuse_link(inside)
    if path.name in ("", "..") or not path.parent.resolve().is_relative_to(inside.resolve()):
        raise CompError(f"{path} is not removed: it does not lie in {inside}")
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise CompError(f"cannot remove {path}: {error.strerror or error}") from error


def refuse_link(path: Path) -> None:
    """Raise CompError where what comp writes on in place, or a folder in which it removes, is a link."""
    if path.is_symlink():
        raise CompError(
            f"{path} is a link, and comp writes and removes there; remove the link (all of data/ or runs/ "
            "lies elsewhere by COMP_DATA or COMP_RUNS)"
        )


# --- whole or absent ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is flushed to disk and renamed to `path`, on an
    error it is removed and `path` stays as it was."""
    temporary = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if temporary.is_symlink():  # it would be written through
            temporary.unlink()
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise CompError(
            f"cannot write {path}: {error.strerror or error}; nothing was left half-written"
        ) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path, schema: Any = dict[str, Any], cure: str = REMAKE) -> dict[str, Any]:
    """What a JSON file holds, once it was found to fit `schema`, one of comp.artifacts.schemas. Raises CompError."""
    return parse_json(path.read_bytes(), path, schema, cure)


def parse_json(text: str | bytes, where: object, schema: Any, cure: str = REMAKE) -> Any:
    """What a JSON text holds, as it stands there. Raises CompError that names the field which does not fit
    `schema`, a pydantic type, or holds a number that isn't finite."""
    try:
        TypeAdapter(schema).validate_json(text)
        content = json.loads(text)
        for field, value in flat(content).items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{field!r} is {value}, and a finite number is expected")
            if "\0" in field or (isinstance(value, str) and "\0" in value):
                raise ValueError(f"{field!r} holds a NUL character")
        return content
    except ValidationError as error:
        raise CompError(f"{where}: {problem(error)}; {cure}") from error
    except (ValueError, RecursionError) as error:
        raise CompError(f"{where}: {error}; {cure}") from error


def read_log(recipe: str, fold: int) -> list[dict[str, Any]]:
    """The epochs of a fold's log.jsonl; none where it is absent."""
    path = log_path(recipe, fold)
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [
        parse_json(line, f"{path}, line {number}", Epoch, "mend it, or train again")
        for number, line in enumerate(lines, 1)
    ]


def read_arrays(
    path: Path, names: Collection[str] | None = None, cure: str = REMAKE
) -> dict[str, np.ndarray]:
    """The arrays of an npz file, all or those of `names` that are there. Raises CompError."""
    try:
        with path.open("rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files if names is None or name in names}
    except Exception as error:  # damaged files make zipfile and numpy raise nearly anything
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CompError(f"{path} cannot be read as npz ({reason}); {cure}") from error
    if wrong := [name for name, array in found.items() if not isinstance(array, np.ndarray)]:
        raise CompError(f"{path}: {wrong[0]!r} is no array; {cure}")
    return found


PATIENCE = 10.0  # seconds that the helpers of a killed process may take to notice


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


@contextlib.contextmanager
def locked(path: Path, doing: str) -> Iterator[None]:
    """Hold `path` (made if absent) so that a second process fails instead of writing the same files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + PATIENCE
    with open(path, "a", opener=_no_link) as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if time.monotonic() > deadline:
                    raise CompError(
                        f"another process is {doing} ({path} is held); wait for it or stop it"
                    ) from error
                time.sleep(0.2)
        yield


def is_held(path: Path) -> bool:
    """Whether a process holds `path` as `locked` does."""
    if not path.exists():
        return False
    with open(path, "a", opener=_no_link) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


@contextlib.contextmanager
def waiting_lock(path: Path) -> Iterator[None]:
    """Hold `path` (made if absent), waiting for whoever holds it: for files that several processes append
    to."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", opener=_no_link) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True)
class JobFiles:
    """What one job writes: its files, in an order in which they can be copied at any moment (what marks the
    job complete comes last), and the lock that is held meanwhile."""

    paths: tuple[Path, ...]
    lock: Path
    doing: str
    every: float = math.inf  # seconds after which a copy is worth it, besides those when the job says so

    def locked(self) -> contextlib.AbstractContextManager[None]:
        return locked(self.lock, self.doing)


def training_files(recipe: str, fold: int) -> JobFiles:
    paths = [f(recipe, fold) for f in (log_path, started_path, checkpoint_path, model_path)]
    return JobFiles(tuple(paths), fold_dir(recipe, fold) / ".lock", f"training fold {fold} of {recipe}")


def prediction_files(path: Path) -> JobFiles:
    """Of predictions that will be at `path`, an npz file, and grow in an npy file beside it."""
    paths = (*growing_paths(path.with_suffix(".npy")), path)
    return JobFiles(paths, path.with_name(f".{path.name}.lock"), f"predicting {path}", every=30.0)


# --- stamps -------------------------------------------------------------------------------------------------


def digest(*parts: object) -> str:
    """16 hexadecimal digits that stand for arrays, strings and JSON-like values."""
    state = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            if part.dtype.kind in "OUT":
                part = "\0".join(part.astype(str).tolist())
            else:
                state.update(f"{part.dtype.str}{part.shape}".encode())
                state.update(np.ascontiguousarray(part).tobytes())
                continue
        text = part if isinstance(part, str) else json.dumps(part, sort_keys=True, default=str)
        state.update(f"{len(text)}:".encode() + text.encode())
    return state.hexdigest()[:16]


def plain(stamp: Stamp) -> dict[str, Any]:
    """The stamp as JSON gives it back (tuples become lists), so that it compares equal to a stored one."""
    return json.loads(json.dumps(stamp, default=str))


def read_stamp(path: Path, schema: Any = dict[str, Any]) -> dict[str, Any] | None:
    """The stamp inside a JSON, npz, safetensors or HTML file, once it was found to fit `schema`; None where
    it is absent or carries none."""
    if not path.exists():
        return None
    text: str | bytes = "null"
    if path.suffix == ".json":
        text = json.dumps(read_json(path).get("stamp"))
    elif path.suffix == ".npz":
        text = str(read_arrays(path, ["stamp"]).get("stamp", text))
    elif path.suffix == ".html":
        with path.open("rb") as file:  # the second line, a comment
            lines = file.readlines(100_000)
        text = lines[1].strip().removeprefix(b"<!--").removesuffix(b"-->") if len(lines) > 1 else b""
    elif path.suffix == ".safetensors":
        text = read_safetensors_header(path)[0].get("stamp", text)
    else:
        raise ValueError(f"no stamp is kept in {path.suffix} files")
    return parse_json(text, f"{path}, stamp", schema | None)


def read_safetensors_header(path: Path) -> tuple[dict[str, str], dict[str, list[int]]]:
    """The texts under __metadata__ of a safetensors file, and by a tensor's name its shape, read without
    torch (format: 8 bytes of length, then JSON)."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= path.stat().st_size - 8:
            raise CompError(f"{path} is not a whole safetensors file; {REMAKE}")
        header = parse_json(file.read(length), path, SafetensorsHeader)
    return header.pop("__metadata__", {}), {name: tensor["shape"] for name, tensor in header.items()}


def read_spec(path: Path) -> dict[str, Any]:
    """What rebuilds the network whose weights a safetensors file holds: comp.models.network.ModelSpec."""
    return parse_json(read_safetensors_header(path)[0].get("spec", "{}"), f"{path}, spec", Spec)


def is_done(path: Path, stamp: Stamp, *, force: bool) -> bool:
    """Whether `path` was made from `stamp` already. Made from another one, it is an error that names what
    differs, unless `force` says that it may be replaced."""
    found = read_stamp(path)
    if found is None or found == plain(stamp):
        return found is not None
    if force:
        return False
    raise CompError(f"{path} was made with {difference(found, plain(stamp))}; --force replaces it")


def difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """'phases.0.epochs = 4, not 6 (and 2 more differences)'."""
    before, now = flat(found), flat(wanted)
    keys = [key for key in {**now, **before} if before.get(key, "nothing") != now.get(key, "nothing")]
    if not keys:
        return "settings of another form"
    key = keys[0]
    more = f" (and {len(keys) - 1} more)" if len(keys) > 1 else ""
    if re.fullmatch(r"[0-9a-f]{16}", str(before.get(key, ""))):
        return f"other {key}{more}"
    return f"{key} = {shortened(json.dumps(before.get(key)))}, not {json.dumps(now.get(key))}{more}"


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings and lists as one mapping with dotted keys."""
    if isinstance(value, Mapping) and value:
        pairs = list(value.items())
    elif isinstance(value, list | tuple) and value:
        pairs = list(enumerate(value))
    else:
        return {prefix: value}
    return {
        k: v for key, item in pairs for k, v in flat(item, f"{prefix}.{key}" if prefix else str(key)).items()
    }


# --- arrays that are filled in over a long time -------------------------------------------------------------


def growing_paths(path: Path) -> tuple[Path, Path, Path]:
    """A growing array's rows, its flags, and its stamp: a copy made in this order flags no row that it
    lacks."""
    partial, flags, meta = (
        path.with_name(f".{path.name}.{end}") for end in ("partial", "done", "stamp.json")
    )
    return partial, flags, meta


class GrowingArray:
    """A memory-mapped array at `path`, filled row by row in any order, that a killed process leaves
    resumable.

    Until `finish` it is `.<name>.partial` with one flag a row in `.<name>.done`; `finish` renames it to
    `path`. Space is reserved at the start, so that a full disk is an error here and not a crash in the
    middle."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: str, stamp: Stamp):
        self.path = path
        self.partial, self.flags, self.meta = growing_paths(path)
        meta = self.meta
        wanted = plain({"shape": shape, "dtype": dtype, **stamp})
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            kept = all(p.is_file() and not p.is_symlink() for p in (meta, self.partial, self.flags))
            if not (kept and self._is_whole(wanted)):
                self.remove()
                np.lib.format.open_memmap(self.partial, "w+", dtype, shape)
                self.flags.write_bytes(b"")
                for file_path, size in ((self.partial, self.partial.stat().st_size), (self.flags, shape[0])):
                    with file_path.open("r+b") as file:
                        if hasattr(os, "posix_fallocate"):  # not on macOS
                            os.posix_fallocate(file.fileno(), 0, max(size, 1))
                        file.truncate(max(size, 1))
                write_json(meta, wanted)
            self.rows = np.lib.format.open_memmap(self.partial, "r+")
            self.done = np.memmap(self.flags, np.uint8, "r+")
        except OSError as error:
            self.remove()
            raise CompError(
                f"cannot write {path}: {error.strerror or error}; nothing was left half-written"
            ) from error

    def _is_whole(self, wanted: Stamp) -> bool:
        """Whether there is something to go on from, made from the same."""
        try:
            if read_json(self.meta) != wanted:
                return False
            rows = np.lib.format.open_memmap(self.partial, "r")
            n_flags = self.flags.stat().st_size
        except (CompError, OSError, ValueError):  # absent, or damaged
            return False
        same = list(rows.shape) == wanted["shape"] and rows.dtype == np.dtype(wanted["dtype"])
        return same and n_flags == max(len(rows), 1)

    def remove(self) -> None:
        for file_path in (self.partial, self.flags, self.meta):
            with contextlib.suppress(OSError):
                file_path.unlink(missing_ok=True)

    def missing(self) -> np.ndarray:
        """Indices of the rows that are still to be filled, ascending."""
        return np.flatnonzero(self.done[: len(self.rows)] == 0)

    def put(self, index: np.ndarray | int, rows: np.ndarray) -> None:
        self.rows[index] = rows
        self.done[index] = 1

    def finish(self) -> None:
        self.rows.flush()
        self.partial.replace(self.path)
        self.remove()


def free_bytes(path: Path) -> int:
    """Free space, in bytes, where `path` is or will be."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free
