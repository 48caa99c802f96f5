"""Build a kernel: one script with the package and the recipe, wheels and weights beside it."""

import base64
import contextlib
import filecmp
import io
import json
import os
import shutil
import textwrap
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from comp import __version__
from comp.artifacts.files import read_json, replacing
from comp.artifacts.git import commit
from comp.artifacts.paths import (
    decision_path,
    duplicates_path,
    folds_path,
    model_path,
    oof_path,
    predicted_paths,
    wheel_cache_dir,
)
from comp.artifacts.safe_paths import inside, refuse_link, remove
from comp.artifacts.schemas import Blended, Decision
from comp.artifacts.stamps import digest, read_stamp
from comp.config.loading import PACKAGE_DIR, toml_text
from comp.config.recipe import Recipe
from comp.console import say
from comp.errors import CompError, some
from comp.kaggle.kernels.kernel import PARTS, Kernel
from comp.kaggle.kernels.wheels import fetch
from comp.models.weights import weights_file
from comp.training.model_stamp import check_models

PACKED = ("*.py", "*.toml", "*.html", "*.css", "*.js")  # of the package
Files = dict[str, bytes | Path]  # "folder/name": its content, or the file that it is a copy of

SCRIPT = '''\
"""comp {version}{commit}: {kind} {name}.

Made by `comp kernel build`, and made again rather than edited. It carries the package and the recipe, takes
wheels and weights from the mounted datasets, and needs no internet.
"""

import time

STARTED = time.time()
import base64
import io
import os
import sys
import tempfile
import zipfile
from pathlib import Path

PLAN = {plan}

RECIPE = """\\
{recipe}"""

PACKAGE = """
{package}
"""

home = Path(tempfile.mkdtemp(prefix="comp-"))
zipfile.ZipFile(io.BytesIO(base64.b64decode(PACKAGE))).extractall(home)
(home / "recipe.toml").write_text(RECIPE, encoding="utf-8")
sys.path.insert(0, str(home))

if __name__ == "__main__":
    from comp.kaggle.kernels.entrypoint import main

    if code := main(home, PLAN, STARTED):
        sys.exit(code)
'''


def build(kernel: Kernel) -> bool:
    """Write the folder of a kernel, kernel-metadata.json last; False where it was all there already. Raises
    CompError for what is lacking."""
    recipe, competition = kernel.recipe, kernel.recipe.competition
    if not competition.all_sources and not (competition.drawn and kernel.kind == "train"):
        raise CompError(f"{competition.name} has no files on Kaggle; set slug or sources of the competition")
    weights = finished_models(kernel) if kernel.kind == "infer" else training_inputs(recipe)
    if kernel.kind == "train":
        members = tuple(_with_packed_weights(member) for member in recipe.members)
        recipe = _with_packed_weights(recipe.model_copy(update={"members": members}))
    metadata = kernel.metadata(bool(weights))
    code = script(kernel, recipe, kernel.plan(bool(weights)))
    files: Files = {f"kernel/{metadata['code_file']}": code.encode()}
    wheels = {path.name: path for path in fetch(kernel.python, wheel_cache_dir(kernel.python))}
    contents: Mapping[str, Mapping[str, bytes | Path]] = {"weights": weights, "wheels": wheels}
    for part, name in (("weights", kernel.weights_id), ("wheels", kernel.wheels_id)):
        if contents[part]:
            about = {"title": name.split("/")[1], "id": name, "licenses": [{"name": "other"}]}
            files |= {f"{part}/{file}": content for file, content in contents[part].items()}
            files[f"{part}/dataset-metadata.json"] = _json(about)
    files["kernel/kernel-metadata.json"] = _json(metadata)
    return write(files, kernel.folder)


def _with_packed_weights(recipe: Recipe) -> Recipe:
    """Its own weights are beside recipe.toml, there."""
    return recipe.model_copy(update={"weights": "weights"}) if recipe.weights else recipe


def training_inputs(recipe: Recipe) -> Files:
    """The backbones' ImageNet weights, and the duplicates and folds, where they were made here."""
    files: Files = {}
    for one in recipe.members or (recipe,):
        if one.pseudo:
            raise CompError(
                f"{one.name} learns labels of the run {one.pseudo.run}, which a kernel doesn't have; "
                "train it here"
            )
        if one.pretrained:
            path, name = weights_file(one.backbone, one.weights), f"{one.backbone}.safetensors"
            if path is None:
                say(f"kernel: ImageNet weights of {one.backbone}")
                from comp.models.network import pretrained_weights

                files.setdefault(name, pretrained_weights(one.backbone))
            elif files.setdefault(name, path) != path:
                raise CompError(f"{recipe.name} has two members with other weights of {one.backbone}")
    tables = [
        folds_path(recipe.competition.name, recipe.n_folds, recipe.seed),
        duplicates_path(recipe.competition.name),
    ]
    found = [path for table in tables for path in (table, table.with_suffix(".json")) if path.exists()]
    return files | {path.name: path for path in found}


def finished_models(kernel: Kernel) -> Files:
    """Each fold's model, and the decision: of this recipe, and the decision about these models' predictions.
    Raises CompError that names what is lacking or doesn't belong."""
    from comp.batches.tta import view_names

    recipe = kernel.recipe
    name, folds, decision_file = recipe.name, list(kernel.folds), decision_path(recipe.name)
    models = {fold: model_path(name, fold) for fold in folds}
    if absent := [fold for fold, path in models.items() if not path.exists()]:
        raise CompError(
            f"{name}: folds without a model: {some(absent)}; run `comp train`, or name others with --folds"
        )
    blend = read_stamp(oof_path(name), Blended)
    if blend is None or not decision_file.exists():
        raise CompError(f"{decision_file} or {oof_path(name)} is not there; run `comp blend` and `decide`")
    decision = read_json(decision_file, Decision)
    check_models(recipe, models, decision, decision_file)
    if decision["stamp"]["oof"] != digest(blend):
        raise CompError(f"{decision_file} was made for other predictions; run `comp decide`")
    if blend.get("folds") != folds:
        listed = ",".join(map(str, blend.get("folds") or ()))
        raise CompError(f"{decision_file} is about the folds {listed}; name them with --folds {listed}")
    for fold, model in models.items():
        stamps = [read_stamp(path) for path in predicted_paths(name, fold, recipe.n_folds)]
        wanted = {"views": list(view_names(recipe.views)), "train": digest(read_stamp(model))}
        if digest(stamps) != blend["members"][f"fold {fold}"] or any(
            stamp is None or {key: stamp.get(key) for key in wanted} != wanted for stamp in stamps
        ):
            raise CompError(
                f"{decision_file} is not about what {model} predicts; run the stages from `comp predict` on"
            )
    return {"decision.json": decision_file, **{f"fold{fold}.safetensors": p for fold, p in models.items()}}


def script(kernel: Kernel, recipe: Recipe, plan: Mapping[str, Any]) -> str:
    """The kernel's code: readable but for the package, which is a base64 zip."""
    text = toml_text(recipe).replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    packed = base64.b64encode(package()).decode()
    made_at = commit()
    return SCRIPT.format(
        version=__version__,
        commit=f", commit {made_at[:7]}" if made_at else "",
        kind=kernel.kind,
        name=recipe.name,
        plan="{\n" + "".join(f"    {key!r}: {value!r},\n" for key, value in plan.items()) + "}",
        recipe=text,
        package=textwrap.fill(packed, 110),
    )


def package() -> bytes:
    """A zip of this package, the same for the same files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in sorted(path for kind in PACKED for path in PACKAGE_DIR.rglob(kind)):
            entry = zipfile.ZipInfo(f"comp/{path.relative_to(PACKAGE_DIR).as_posix()}")
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, path.read_bytes())
    return buffer.getvalue()


def write(files: Files, folder: Path) -> bool:
    """Make `folder` hold exactly these files, the last of them written last; False where it did already."""
    refuse_link(folder)
    last = folder / list(files)[-1]
    there = {path for path in folder.rglob("*") if path.is_file()}
    wanted = {inside(folder, name, folder): content for name, content in files.items()}
    todo = [path for path, content in wanted.items() if not _holds(path, content)]
    extra = there - wanted.keys()
    if not todo and not extra:
        return False
    for path in (last, *extra):
        remove(path, inside=folder)
    for path in dict.fromkeys([*todo, last]):
        content = wanted[path]
        with replacing(path) as temporary:
            if isinstance(content, bytes):
                temporary.write_bytes(content)
                continue
            temporary.unlink(missing_ok=True)
            try:
                os.link(content.resolve(), temporary)
            except OSError:  # on another disk
                shutil.copyfile(content, temporary)
    for part in PARTS:
        with contextlib.suppress(OSError):  # gone, or not empty
            (folder / part).rmdir()
    return True


def _holds(path: Path, content: bytes | Path) -> bool:
    if not path.is_file():
        return False
    return path.read_bytes() == content if isinstance(content, bytes) else filecmp.cmp(path, content, False)


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=1) + "\n").encode()
