"""download: a competition's files, from Kaggle, from a folder, or synthetic.

Reads data/<competition>, a folder or archive (--from), and what a Kaggle kernel mounts; downloads what is
missing from Kaggle; writes data/<competition>/downloads/ and unpacked/, and manifest.json last.
"""

from pathlib import Path

from comp.artifacts.files import free_bytes, lock, write_json
from comp.artifacts.paths import data_dir, downloads_dir, manifest_path, mounted
from comp.artifacts.stamps import read_stamp
from comp.config.competition import Competition
from comp.config.recipe import Recipe
from comp.console import info
from comp.data.discovery import source_path
from comp.data.disk_plan import describe_download, listed_cache_bytes
from comp.data.manifest import (
    CompetitionFiles,
    competition_files,
    describe_files,
    has_all_images,
    is_downloaded,
    manifest_stamp,
    read_manifest,
)
from comp.data.path_tables import write_tables
from comp.data.synthetic.generate import generate_files
from comp.errors import CompError, NoImages
from comp.kaggle.download import read_notes, sha256_of
from comp.kaggle.errors import NoCredentials
from comp.kaggle.integrity import find_files, remove_changed_files
from comp.kaggle.sources import fetch_missing
from comp.kaggle.submission_file import check_sample


def run(recipe: Recipe, *, source: str | None, force: bool) -> None:
    competition = recipe.competition
    if source is not None:
        source_path(source)
    path, folder = manifest_path(competition.name), data_dir(competition.name)
    stamp = manifest_stamp(competition, source)
    with lock(folder / ".lock", f"downloading {competition.name}"):
        unchanged = remove_changed_files(competition)
        if (
            is_downloaded(path, stamp, source, force=force)
            and unchanged
            and _is_there(competition, force=force)
        ):
            info(f"download: {competition.name} done already")
            _check_contents(read_manifest(competition), competition)
            return
        known = (read_stamp(path) or {}).get("from")
        if source is None and known and Path(known).exists():
            source, stamp = known, manifest_stamp(competition, known)
        if competition.drawn:
            generate_files(competition, folder)
        in_kernel = [place for name in competition.all_sources if (place := mounted(name))]
        places = [folder, *([Path(source)] if source else []), *in_kernel]
        reserve = listed_cache_bytes(recipe)
        finder, found, missing = find_files(competition, places, reserve)
        from_kaggle = competition.all_sources and not source and not in_kernel
        if from_kaggle and missing and not has_all_images(found, missing, competition):
            if line := describe_download(recipe, free_bytes(folder)):
                info(f"download: {line}")
            try:
                fetch_missing(competition, missing)
            except NoCredentials as error:
                if any(found["images"].values()):
                    raise
                raise NoImages(f"{competition.name}: no images in {folder}, and {error}") from error
            finder, found, missing = find_files(competition, places, reserve)
        if missing and not has_all_images(found, missing, competition):
            raise CompError(
                f"{competition.name}: no {' and no '.join(map(str, missing))} in "
                f"{', '.join(map(str, places))}; put the competition's archives or folders there, or name "
                f"their folder with --from{finder.hints(missing)}"
            )
        found["files"] |= write_tables(found, folder, competition, ("labels", "sample"))
        notes = read_notes(downloads_dir(competition.name))
        tables = {name: sha256_of(folder / file) for name, file in found["files"].items()}
        content = {"competition": competition.name, **found, "tables": tables, "downloads": notes}
        _check_contents(competition_files(content, folder, competition), competition)
        write_json(path, {**content, "stamp": stamp})
        finder.remove_unused()
    for line in describe_files(found):
        info(f"download: {line}")


def _is_there(competition: Competition, *, force: bool) -> bool:
    """Return whether all files of the manifest exist. Raise CompError if one does not, unless `force`."""
    try:
        read_manifest(competition)
    except CompError:
        if not force:
            raise
        return False
    return True


def _check_contents(data: CompetitionFiles, competition: Competition) -> None:
    """Check the labels, the table of the test images, the sample submission and the form of the images before
    anything is trained on them."""
    line = check_sample(data.sample_csv, competition, data.labels(competition).classes)
    data.test_features(competition)
    data.test_answer_ids(competition)
    data.check_form()
    if line:
        info(f"download: {line}")
