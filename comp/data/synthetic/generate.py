"""A competition drawn from a seed: images, tables, sample submission and solution."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from comp.artifacts.files import write_text
from comp.artifacts.safe_paths import remove
from comp.config.competition import Competition, columns
from comp.console import progress
from comp.data.synthetic.cells import LABELS, cells
from comp.data.synthetic.scenes import Rng, scene
from comp.errors import CompError, some

PUBLIC = 0.4  # share of the test set that the public leaderboard scores


def draw(competition: Competition, folder: Path) -> None:
    """Write drawn/ into `folder`: the images and tables of a competition that says how it is drawn, under
    the names that it has for them."""
    drawn, labelled = competition.drawn, competition.labels
    id_column, column, _ = columns(competition)
    assert drawn
    if not (column and labelled.column):
        raise CompError(
            f"{competition.name} is drawn with labels as texts: set column of labels and submission"
        )
    if drawn.kind == "cells" and (unknown := {*labelled.classes, *drawn.in_yellow} - LABELS.keys()):
        raise CompError(
            f"cells can't be drawn with {some(sorted(unknown))}; they can with {some(LABELS, 28)}"
        )
    target, partial = folder / "drawn", folder / ".drawn.partial"
    try:
        remove(partial, inside=folder.resolve())
        with progress("drawing", drawn.n_train + drawn.n_test) as advance:
            for split, count in (("train", drawn.n_train), ("test", drawn.n_test)):
                template = getattr(competition.images, split)[0]
                (partial / template).parent.mkdir(parents=True)
                names, tags = [f"{split}_{i}" for i in range(count)], []
                for i, name in enumerate(names):
                    rng = np.random.default_rng([drawn.seed, split == "test", i])
                    pictures, labels = picture(rng, competition)
                    for channel, image in pictures.items():
                        image.save(partial / template.format(id=name, channel=channel), quality=90)
                    if labelled.indices:
                        labels = [str(labelled.classes.index(label)) for label in labels]
                    tags.append(labelled.separator.join(labels))
                    advance(1)
                rows = pd.DataFrame({labelled.id: names, labelled.column: tags})
                if split == "train":
                    example = tags[0]
                    write_text(partial / labelled.csv[0], rows.to_csv(index=False))
                    continue
                sample = pd.DataFrame({id_column: names, column: example})
                write_text(partial / competition.submission.sample[0], sample.to_csv(index=False))
                public = np.random.default_rng(drawn.seed).random(count) < PUBLIC
                rows["Usage"] = np.where(public, "Public", "Private")
                write_text(partial / "solution.csv", rows.to_csv(index=False))
        remove(target, inside=folder.resolve())
        partial.replace(target)
    except OSError as error:
        raise CompError(
            f"cannot write {target}: {error.strerror or error}; nothing was left half-written"
        ) from error
    finally:
        remove(partial, inside=folder.resolve())


def picture(rng: Rng, competition: Competition) -> tuple[Mapping[str, Image.Image], list[str]]:
    """({channel: image}, labels), of an RGB image with the one channel ""."""
    drawn = competition.drawn
    assert drawn
    if drawn.kind == "cells":
        return cells(rng, drawn.size, competition.labels.classes or tuple(LABELS), drawn.in_yellow)
    image, labels = scene(rng, drawn.size)
    return {"": image}, labels
