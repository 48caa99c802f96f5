"""Generate a synthetic competition from a seed: images, tables, sample submission and solution."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from comp.artifacts.files import write_text
from comp.artifacts.safe_paths import remove
from comp.config.competition import Competition, columns
from comp.console import progress
from comp.data.synthetic.cells import LABELS, render_cells
from comp.data.synthetic.landscapes import FLAGS, render_clouds, render_flag, render_lakes
from comp.data.synthetic.scenes import Rng, render_scene
from comp.errors import CompError, summarize

PUBLIC_SHARE = 0.4  # share of the test set that the public leaderboard scores


def generate_files(competition: Competition, folder: Path) -> None:
    """Write drawn/ into `folder`: the images and tables of a synthetic competition, under the names that its
    TOML gives them. Raise CompError for labels that can't be generated."""
    drawn, labelled = competition.drawn, competition.labels
    assert drawn
    of_column = columns(competition)[1] or competition.metric.kind == "probabilities"
    if not (of_column and labelled.column and labelled.csv and competition.submission.sample):
        raise CompError(
            f"{competition.name} is synthetic with labels as texts: set csv and column of [labels], sample "
            "and column of [submission]"
        )
    if drawn.kind == "cells" and (unknown := {*labelled.classes, *drawn.in_yellow} - LABELS.keys()):
        raise CompError(
            f"cells can't show {summarize(sorted(unknown))}; they can show {summarize(LABELS, 28)}"
        )
    if drawn.kind == "flags" and (unknown := {*labelled.classes} - {*FLAGS}):
        raise CompError(f"there are no flags {summarize(sorted(unknown))}; there are {summarize(FLAGS)}")
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
                    tags.append(labelled.separator.join(labels) or labelled.none or "")
                    advance(1)
                rows = pd.DataFrame({labelled.id: names, labelled.column: tags})
                if split == "train":
                    example = tags[0]
                    write_text(partial / labelled.csv[0], rows.to_csv(index=False))
                    continue
                sample = pd.DataFrame(sample_rows(competition, names, example))
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
    classes = competition.labels.classes
    if drawn.kind == "cells":
        return render_cells(rng, drawn.size, classes or tuple(LABELS), drawn.in_yellow)
    if drawn.kind == "scenes":
        image, labels = render_scene(rng, drawn.size)
        return {"": image}, [label for label in labels if label in classes or not classes]
    if drawn.kind == "flags":
        image, label = render_flag(rng, drawn.size, classes or FLAGS)
    else:
        image, label = (render_clouds if drawn.kind == "clouds" else render_lakes)(rng, drawn.size)
    return {"": image}, [label]


def sample_rows(competition: Competition, ids: Sequence[str], example: str) -> dict[str, Any]:
    """Return the columns of a sample submission, all of whose rows are alike; `example` is the text of a
    training image."""
    id_column, column, separator = columns(competition)
    kind, classes = competition.metric.kind, competition.labels.classes
    if kind == "probabilities" and (len(classes) > 1 or not column):
        return {id_column: ids, **dict.fromkeys(classes, 0.5)}
    assert column
    if kind == "ranking":
        example = (separator or " ").join(classes[: competition.metric.k])
    return {id_column: ids, column: {"probabilities": 0.5, "numbers": 0.0}.get(kind, example)}
