"""Code of a recipe's author. A reference such as loss.py:soft or module:soft names a function, a class or an
object. The texts of files travel in the recipe, and run only where a recipe names them."""

import functools
import hashlib
import importlib
import importlib.util
import inspect
import linecache
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

from comp.errors import CompError, TimeIsUp

Code = Mapping[str, str]  # by a file's name its text
NO_CODE: Code = MappingProxyType({})

FILE = re.compile(r"(?P<file>[^:+]+\.py):(?P<name>[^\W\d]\w*)")
MODULE = re.compile(r"(?P<module>[^\W\d]\w*(?:\.[^\W\d]\w*)*):(?P<name>[^\W\d]\w*)")
PIPELINE = re.compile(r"(?P<file>[^:+]+\.(?:json|ya?ml))")  # albumentations' own form of a pipeline
KEYS = frozenset({"backbone", "loss", "augment", "filter", "schedule", "views"})
FORMS = "FILE.py:NAME or module:NAME"

_files: set[str] = set()  # where code of users came from, as tracebacks name it


# --- references ---------------------------------------------------------------------------------------------


def is_reference(value: str) -> bool:
    """Return whether a value names a user's function, class or object."""
    return bool(FILE.fullmatch(value) or MODULE.fullmatch(value))


def is_pipeline(value: str) -> bool:
    """Return whether a value names a file of albumentations' own form."""
    return bool(PIPELINE.fullmatch(value))


def beside(reference: str, folder: Path) -> str:
    """Return a reference in a file of this folder, with its path from here."""
    return str(folder / reference) if FILE.fullmatch(reference) else reference


def one_of(*known: str) -> Callable[[str], str]:
    """Return a check that a value is one of `known` or a reference. It raises ValueError."""

    def check(value: str) -> str:
        if value in known or is_reference(value):
            return value
        listed = ", ".join(map(repr, known))
        raise ValueError(f"input should be {listed}, {FORMS}, found {value!r}")

    return check


def _file_in(value: str) -> re.Match[str] | None:
    return FILE.fullmatch(value) or PIPELINE.fullmatch(value)


def _replaced(value: Any, key: str, change: Callable[[str, str], str]) -> Any:
    """Return TOML content with each value that may be a reference changed by change(value, key)."""
    if isinstance(value, str):
        return "+".join(change(part, key) for part in value.split("+")) if key in KEYS else value
    if isinstance(value, list | tuple):
        return [_replaced(item, key, change) for item in value]
    if not isinstance(value, dict) or key == "code":
        return value
    if key in ("competition", "metric"):  # metric.name alone
        below = {"competition": "metric", "metric": "name"}[key]
        if below not in value:
            return value
        if key == "competition":
            return {**value, below: _replaced(value[below], below, change)}
        return {
            **value,
            below: change(name, "metric.name") if isinstance(name := value[below], str) else name,
        }
    inner = {name: name.rpartition(".")[2] for name in value}  # `tune` has dotted names
    if key == "augment":
        inner = {name: key if name == "extends" else "" for name in value}
    return {name: _replaced(item, inner[name], change) for name, item in value.items()}


def collect(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the content of a recipe, with the texts of the files that it names under `code`, and the files
    by name alone. Paths are relative to `folder`. A name that `code` has already means that text.

    Raise CompError for a file that can't be read, and for two files of one name."""
    code = content.get("code", {})
    if not isinstance(code, dict):  # reported with the other keys
        return content
    code = dict(code)

    def change(value: str, key: str) -> str:
        found = _file_in(value)
        if not found or found["file"] in code or (key != "augment" and not FILE.fullmatch(value)):
            return value
        path = folder / found["file"]
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise CompError(f"{path}: {reason}; {key} = {value!r} names this file") from error
        if code.setdefault(path.name, text) != text:
            raise CompError(f"{path} and another file of this name are used; rename one of them")
        return value.replace(found["file"], path.name)

    content = _replaced(content, "", change)
    return {**content, "code": code} if code else content


def merge_code(base: Mapping[str, Any], over: Mapping[str, Any], path: Path) -> None:
    """Raise CompError where a recipe and the one it extends name different files alike."""
    first, second = base.get("code", {}), over.get("code", {})
    if isinstance(first, dict) and isinstance(second, dict):
        for name in first.keys() & second.keys():
            if first[name] != second[name]:
                raise CompError(f"{path} and the recipe it extends use two files {name}; rename one of them")


def keep_used(content: dict[str, Any]) -> None:
    """Remove the texts that no key of the content names."""
    if isinstance(content.get("code"), dict):
        used = set(files_in(content))
        content["code"] = {name: text for name, text in content["code"].items() if name in used}


def files_in(content: dict[str, Any]) -> list[str]:
    """Return the names of the files that a recipe's content refers to."""
    found: list[str] = []

    def note(value: str, key: str) -> str:
        found.extend(match["file"] for match in [_file_in(value)] if match)
        return value

    _replaced(content, "", note)
    return found


def digests(values: Iterable[str], code: Code) -> dict[str, str]:
    """Return 16 hexadecimal digits of each file and module that values refer to, by name, for stamps."""
    found = {}
    for value in values:
        if match := _file_in(value):
            if match["file"] in code:
                found[match["file"]] = _digest(code[match["file"]].encode())
        elif match := MODULE.fullmatch(value):
            found[match["module"]] = _digest(_source(match["module"], value).read_bytes())
    return found


def stamped(values: Iterable[str], code: Code) -> list[str]:
    """Return values as stamps have them: references with the digest of their source."""
    return ["@".join([value, *digests([value], code).values()]) for value in values]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _source(module: str, reference: str) -> Path:
    try:
        spec = importlib.util.find_spec(module)
    except ImportError:
        spec = None
    if spec is None or not spec.origin or not Path(spec.origin).is_file():
        raise CompError(f"{reference}: there is no module {module} here; install it, or write FILE.py:NAME")
    return Path(spec.origin)


# --- loading ------------------------------------------------------------------------------------------------


def load(reference: str, code: Code) -> Any:
    """Return what a reference names. Raise CompError where there is nothing of this name, or its file or
    module can't be run."""
    if match := FILE.fullmatch(reference):
        module = _run(match["file"], text_of(reference, code))
    elif match := MODULE.fullmatch(reference):
        path = _source(match["module"], reference)
        _files.add(str(path))
        try:
            module = importlib.import_module(match["module"])
        except Exception as error:
            raise CompError(f"{reference}: {_said(error)}") from error
    else:
        raise ValueError(f"{reference!r} is no reference")
    if not hasattr(module, match["name"]):
        names = [name for name, value in vars(module).items() if callable(value) and name[0] != "_"]
        raise CompError(
            f"{reference}: there is no {match['name']}; there are {', '.join(names[:8]) or 'none'}"
        )
    return getattr(module, match["name"])


def load_function(reference: str, code: Code, *args: str, **kwargs: Any) -> Callable[..., Any]:
    """Return the function, class or object that a reference names. Raise CompError unless it can be called
    with so many arguments, whose names are for the message, and these keywords."""
    function = load(reference, code)
    given = ", ".join([*args, *kwargs])
    if not callable(function):
        raise CompError(f"{reference} is a {type(function).__name__}; a function of ({given}) is expected")
    try:
        inspect.signature(function).bind(*args, **kwargs)
    except ValueError:  # compiled functions need not say what they take
        pass
    except TypeError as error:
        raise CompError(f"{reference} can't be called with ({given}): {error}") from error
    return function


def text_of(reference: str, code: Code) -> str:
    """Return the text of the file of a reference. Raise CompError where the recipe doesn't hold it."""
    match = _file_in(reference)
    if match is None or match["file"] not in code:
        raise CompError(f"{reference}: this recipe doesn't hold the file; name it in the recipe's TOML file")
    return code[match["file"]]


@functools.lru_cache(maxsize=64)
def _run(file: str, text: str) -> ModuleType:
    """Return the module that a file's text makes. Tracebacks show its lines."""
    _files.add(file)
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    module = ModuleType(f"comp_user_{_digest(f'{file}:{text}'.encode())}")
    module.__file__ = file
    try:
        sys.modules[module.__name__] = module  # dataclasses and pickle look it up
        exec(compile(text, file, "exec", dont_inherit=True), vars(module))
    except SyntaxError as error:
        raise CompError(f"{file}, line {error.lineno}: SyntaxError: {error.msg}") from error
    except Exception as error:
        if isinstance(error, ImportError):
            raise CompError(
                f"{users_line(error) or _said(error)}; a file may import installed modules, not other files"
            ) from error
        raise CompError(users_line(error) or f"{file}: {_said(error)}") from error
    return module


def checked_image(answer: Any, image: Any, reference: str) -> Any:
    """Return what a user's function made of a NumPy image. Raise CompError unless it is uint8 of the same
    shape."""
    shape, dtype = getattr(answer, "shape", None), getattr(answer, "dtype", None)
    if shape != image.shape or str(dtype) != "uint8":
        found = type(answer).__name__ if shape is None else f"{dtype} {tuple(shape)}"
        raise CompError(
            f"{reference} returned {found}; an image uint8 {image.shape} is expected, as it was given"
        )
    return answer


# --- errors -------------------------------------------------------------------------------------------------


def users_line(error: BaseException) -> str | None:
    """Return 'loss.py, line 7 (x = y): NameError: …' for an error that arose in a user's code or in what it
    called; else None."""
    if isinstance(error, CompError | TimeIsUp):
        return None
    at = None
    for frame, line in _frames(error):
        if frame in _files:
            at = frame, line
    if at is None:
        return None
    text = linecache.getline(*at).strip()
    return f"{Path(at[0]).name}, line {at[1]} ({text[:100]}): {_said(error)}"


def as_users_error(error: Exception, reference: str) -> CompError:
    """Return the error as one line: with the user's line, or after the reference where no line is the
    user's."""
    return (
        error
        if isinstance(error, CompError)
        else CompError(users_line(error) or f"{reference}: {_said(error)}")
    )


def _frames(error: BaseException) -> Iterator[tuple[str, int]]:
    trace = error.__traceback__
    while trace:
        yield trace.tb_frame.f_code.co_filename, trace.tb_lineno
        trace = trace.tb_next


def _said(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
