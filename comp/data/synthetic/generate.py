"""Generate a synthetic competition from a seed: images, tables, sample submission and solution."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from comp.artifacts.files import write_text
from comp.artifacts.safe_paths import remove
from comp.config.competition import Competition, columns
from comp.console import progress
from comp.data.synthetic.cells import LABELS, render_cells
from comp.data.synthetic.scenes import Rng, render_scene
from comp.errors import CompError, summarize

PUBLIC_SHARE = 0.4  # share of the test set that the public leaderboard scores


def generate_files(competition: Competition, folder: Path) -> None:
    """Write drawn/ into `folder`: the images and tables of a synthetic competition, under the names that its
    TOML gives them. Raise CompError for labels that can't be generated."""
    drawn, labelled = competition.drawn, competition.labels
    id_column, column, _ = columns(competition)
    assert drawn
    if not (column and labelled.column):
        raise CompError(
            f"{competition.name} is synthetic with labels as texts: set labels.column and submission.column"
        )
    if drawn.kind == "cells" and (unknown := {*labelled.classes, *drawn.in_yellow} - LABELS.keys()):
        raise CompError(
            f"cells can't show {summarize(sorted(unknown))}; they can show {summarize(LABELS, 28)}"
        )
    target, partial = folder / "drawn", folder / ".drawn.partial"
    try:
        remove(partial, inside=folder.resolve())
        with progress("generating images", drawn.n_train + drawn.n_test) as advance:
            for split, count in (("train", drawn.n_train), ("test", drawn.n_test)):
                template = getattr(competition.images, split)[0]
                (partial / template).parent.mkdir(parents=True)
                names, tags = [f"{split}_{i}" for i in range(count)], []
                for i, name in enumerate(names):
                    rng = np.random.default_rng([drawn.seed, split == "test", i])
                    pictures, labels = generate_image(rng, competition)
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
                public = np.random.default_rng(drawn.seed).random(count) < PUBLIC_SHARE
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


def generate_image(rng: Rng, competition: Competition) -> tuple[Mapping[str, Image.Image], list[str]]:
    """Return ({channel: image}, labels); an RGB image has one channel, ""."""
    drawn = competition.drawn
    assert drawn
    if drawn.kind == "cells":
        return render_cells(rng, drawn.size, competition.labels.classes or tuple(LABELS), drawn.in_yellow)
    image, labels = render_scene(rng, drawn.size)
    return {"": image}, labels
