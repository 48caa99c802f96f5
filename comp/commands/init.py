"""init: the TOML of a competition of one's own, from its files.

Reads a folder, or a competition's files on Kaggle (their list, and its tables, which go to
data/<name>/downloads/); writes NAME.toml and, where there are no test images, a list of some training images
in data/<name>/."""

import re
import tempfile
from pathlib import Path

from comp.artifacts.files import write_text
from comp.artifacts.paths import data_dir, downloads_dir
from comp.config.loading import load_competition, load_recipe, shipped
from comp.config.schema import NAME_PATTERN
from comp.console import info
from comp.data.inspection.contents import IS_TABLE, MAX_TABLE, Contents, listed, look_into
from comp.data.inspection.findings import Guess
from comp.data.inspection.guess import guess
from comp.data.inspection.toml_file import toml_of
from comp.data.labels import parse_labels, read_labels
from comp.errors import CompError
from comp.kaggle.client import Kaggle
from comp.kaggle.submission_file import check_sample


def run(source: str, *, name: str | None, to: str | None, force: bool) -> None:
    folder = Path(source)
    if folder.is_file():
        raise CompError(f"{source} is a file; name its folder: archives in it are looked into")
    if not folder.is_dir() and not re.fullmatch(r"[\w-]+", source):
        raise CompError(f"{source}: no such folder, and not the end of a competition's address on Kaggle")
    shown = source if folder.name else str(folder.resolve())  # . has no name to search for
    slug = folder.resolve().name if folder.is_dir() else source
    target = Path(to or f"{name or _name_of(slug)}.toml")
    name = name or _name_of(target.stem if to else slug)
    if not re.fullmatch(NAME_PATTERN, name):
        raise CompError(f"--name {name}: letters, digits, '.', '_' and '-' are expected")
    if target.exists() and not force:
        raise CompError(f"{target} exists; --force replaces it, --to and --name choose another name")
    if known := _shipped_recipe(slug, is_folder=folder.is_dir()):
        write_text(target, f'# {slug} comes with comp: change what differs.\nextends = "{known}"\n')
        more = f" --from {shown}" if folder.is_dir() else ""
        info(f"init: {slug} comes with comp; {target} extends its recipe {known}")
        info(f"init: next: comp run {target}{more}")
        return
    with tempfile.TemporaryDirectory(prefix="comp-init-") as scratch:
        contents = look_into(folder, Path(scratch)) if folder.is_dir() else _from_kaggle(slug, name)
        found = guess(contents, slug)
        if target.stem != name:
            found.add("", "name", name)
        found.add("", "title", slug.replace("-", " ").replace("_", " ").strip().capitalize())
        if not folder.is_dir():
            found.add("", "slug", slug, "the end of its address on Kaggle")
        else:
            found.proposals[""].append(
                'slug = "…"  # the end of its address on Kaggle, to download and submit'
            )
        for line in found.said:
            info(f"init: {line}")
        for line in found.unknown:
            if line not in found.blockers[:1]:
                info(f"init: not certain: {line}")
        _write_tables(found, name, force=force)
        write_text(target, toml_of(found, source))
        _check(found, contents, name, target)
    more = f" --from {shown}" if folder.is_dir() else ""
    also = " and the sample" if found.sample else ""
    info(f"init: {target} was read back with its labels{also}; next: comp run {target}{more}")


def _shipped_recipe(slug: str, *, is_folder: bool) -> str | None:
    """Return the recipe that comes with comp for this competition. A folder must have the name that the
    competition has on Kaggle: `demo` may be anything."""
    for name in (*shipped("recipes"), *shipped("competitions")):
        if slug == load_recipe(name).competition.slug or (slug == name and not is_folder):
            return name
    return None


def _name_of(text: str) -> str:
    """Return a name for files, of a folder's name or a slug."""
    return (
        re.sub(r"^[^A-Za-z0-9]+|[^A-Za-z0-9]+$", "", re.sub(r"[^A-Za-z0-9._-]+", "-", text)) or "competition"
    )


def _from_kaggle(slug: str, name: str) -> Contents:
    """Return what Kaggle lists of a competition; its tables are downloaded."""
    kaggle, source, folder = Kaggle(), f"competitions/{slug}", downloads_dir(name)
    files, all_listed = kaggle.list_files(source)
    tables = {}
    for file in files:
        plain = file.name.removesuffix(".zip")
        if IS_TABLE.fullmatch(plain) and file.bytes <= MAX_TABLE:
            tables[file.name] = folder / kaggle.fetch(source, file, folder).file
    more = "" if all_listed else ", and there are more"
    info(
        f"init: kaggle.com/{source} lists {len(files):,} files{more}; read {', '.join(tables) or 'no table'}"
    )
    contents = listed((file.name for file in files), tables, is_complete=all_listed)
    if not all_listed:
        contents.notes.append(
            f"Kaggle lists {len(files):,} files and has more; what it doesn't list was not seen"
        )
    return contents


def _write_tables(found: Guess, name: str, *, force: bool) -> None:
    for file, text in found.written.items():
        path = data_dir(name) / file
        if path.exists() and path.read_text(encoding="utf-8") != text and not force:
            raise CompError(f"{path} exists with other content; --force replaces it")
        write_text(path, text)
        info(f"init: {path} is written")


def _check(found: Guess, contents: Contents, name: str, target: Path) -> None:
    """Read the file back, its labels and the sample, as `comp download` does. Raise CompError for what stops
    it."""

    if found.blockers:
        raise CompError(f"{target} is written, but does not run: {found.blockers[0]}")
    try:
        competition = load_competition(str(target))
        kind = competition.metric.kind
        if found.in_paths is None:
            classes = read_labels(contents.paths[found.table], competition.labels, kind).classes
        else:
            classes, _ = parse_labels(found.in_paths, competition.labels, target)
        if found.sample and found.sample not in found.written:
            check_sample(contents.paths[found.sample], competition, classes)
    except CompError as error:
        raise CompError(f"{target} is written, but does not run yet: {error}") from error
