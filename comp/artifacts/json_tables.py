"""Read JSON as a table of texts: records, values by id, and images with annotations as COCO has them."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from comp.errors import CompError

MAX_ITEMS = 1000  # of a list in a record; longer ones are pixels or outlines, not labels
FORMS = "a list of records, values by id, or `images` and `annotations` as COCO has them are expected"


def read_json_table(path: Path, read_text: Callable[[Path], str]) -> pd.DataFrame:
    """Return a table with every cell as text, and the records' positions, from 1, as index.

    The forms are a list of records; {id: record} and {id: value}, with the columns id and label; and COCO's
    images, annotations and categories, joined: a row for each annotation, and one for each image without any,
    with the columns of the image, of the annotation besides its own id, and of the category, whose names
    begin with category_. Raise CompError for anything else."""
    try:
        content = json.loads(read_text(path), object_pairs_hook=_small)
    except (ValueError, RecursionError) as error:
        raise CompError(f"{path} cannot be read as JSON: {str(error).splitlines()[0]}") from error
    if isinstance(content, dict) and isinstance(content.get("images"), list):
        frame = _coco(content, path)
    else:
        if isinstance(content, dict):
            content = [
                {"id": name, **(value if isinstance(value, dict) else {"label": value})}
                for name, value in content.items()
            ]
        frame = _records(content, path)
    if frame.empty:
        raise CompError(f"{path} has no rows; {FORMS}")
    frame.index = pd.RangeIndex(1, len(frame) + 1)
    return frame


def _small(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object without its long lists and those of fractions, as soon as it is read: a file of 300 MB
    with outlines would take several gigabytes."""
    return {key: value for key, value in pairs if not (type(value) is list and _is_long(value))}


def _is_long(values: list[Any]) -> bool:
    return bool(values) and (
        isinstance(values[0], list | float) or (len(values) > MAX_ITEMS and not isinstance(values[0], dict))
    )


def _records(rows: Any, path: Path, part: str = "") -> pd.DataFrame:
    """Return the records as texts."""
    if not isinstance(rows, list) or not all(type(row) is dict for row in rows):
        raise CompError(f"{path} holds {part or type(rows).__name__}, not records; {FORMS}")
    frame = pd.DataFrame(rows, dtype=object)
    rows.clear()  # a table of a million records takes a gigabyte
    return pd.DataFrame({name: list(map(_text, column)) for name, column in frame.items()}, dtype=object)


def _text(value: Any) -> str:
    """Return a cell as CSV would have it."""
    if isinstance(value, str):
        return value
    if type(value) in (int, float):
        return "" if value != value else str(value)
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def _coco(content: dict[str, Any], path: Path) -> pd.DataFrame:
    read = partial(_records, path=path)
    images = read(content["images"], part="images")
    if not content.get("annotations"):
        return images
    annotations = read(content["annotations"], part="annotations")
    key = "id" if "id" in images and "image_id" not in images else "image_id"
    for name, frame, column in (("images", images, key), ("annotations", annotations, "image_id")):
        if column not in frame:
            raise CompError(f"{path}: {name} have no {column}; they have {', '.join(frame.columns[:20])}")
    if images[key].duplicated().any():
        raise CompError(f"{path}: {images[key][images[key].duplicated()].iloc[0]} is there twice in images")
    if len(lost := annotations["image_id"][~annotations["image_id"].isin(images[key])]):
        raise CompError(f"{path} has an annotation of the image {lost.iloc[0]}, which is not in images")
    own = [c for c in annotations if c not in images and not (c == "id" and "image_id" in annotations)]
    own = [c for c in own if c != "image_id"]
    joined = images.merge(
        annotations[["image_id", *own]].rename(columns={"image_id": key}), how="left", on=key
    )
    if content.get("categories") and "category_id" in joined:
        joined = _with_categories(joined, read(content["categories"], part="categories"))
    return joined.fillna("")


def _with_categories(frame: pd.DataFrame, categories: pd.DataFrame) -> pd.DataFrame:
    if "id" in categories and "category_id" not in categories:
        categories = categories.rename(columns={"id": "category_id"})
    if "category_id" not in categories or categories["category_id"].duplicated().any():
        return frame
    categories = categories.rename(
        columns={c: f"category_{c}" for c in categories if not str(c).startswith("category_")}
    )
    kept = ["category_id", *(c for c in categories if c not in frame)]
    return frame.merge(categories[kept], how="left", on="category_id")
