"""adversarial: how well test images can be told from training images (adversarial validation).

Reads models, folds and the resized images; writes runs/<recipe>/adversarial.csv (id, fold, p_test, weight),
the picture adversarial.png, and adversarial.json last.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from comp.artifacts.csv_tables import read_table
from comp.artifacts.files import read_json, write_json, write_text
from comp.artifacts.paths import adversarial_path, model_path, oof_path
from comp.artifacts.schemas import AdversarialScores, BlendStamp
from comp.artifacts.stamps import digest, is_done, read_stamp
from comp.commands.predict import checked_stamp
from comp.config.recipe import Recipe
from comp.console import info, progress, table
from comp.data.duplicates import with_duplicate_groups
from comp.data.labels import Labels
from comp.data.manifest import CompetitionFiles, read_training
from comp.data.thumbnails import thumbnail
from comp.errors import CompError
from comp.evaluation.adversarial import (
    HIGH_AUC,
    Separation,
    effective_number,
    mean_auc,
    separate,
    weights_of,
)
from comp.evaluation.features import read_features, resized_images
from comp.plots.adversarial import N_COLUMNS, draw
from comp.training.training_data import model_stamps

N_LISTED = 10  # training images that look most like test images
PICTURE_SIZE = 160  # pixels


def run(recipe: Recipe, *, force: bool) -> None:
    made = read_stamp(oof_path(recipe.name), BlendStamp) or {}
    if recipe.members or "how" in made:
        names = ", ".join([member.name for member in recipe.members] or made["members"])
        raise CompError(f"{recipe.name} is a blend of {names}; adversarial takes the recipe of one of them")
    data, labels, fold_of = read_training(recipe)
    folds = [fold for fold in range(recipe.n_folds) if model_path(recipe.name, fold).exists()]
    if not folds:
        raise CompError(f"{model_path(recipe.name, 0)} is missing; run `comp train` first")
    models = {
        str(fold): digest(checked_stamp(model_path(recipe.name, fold), wanted))
        for fold, wanted in model_stamps(recipe, folds, data, labels, fold_of).items()
    }
    groups = groups_of(recipe, data, labels)
    test_ids = data.test_ids(recipe.competition)
    stamp = {"models": models, "test": digest(test_ids), "groups": groups and digest(*groups)}
    path = adversarial_path(recipe.name)
    if is_done(path, stamp, force=force) and path.with_suffix(".csv").exists():
        info(f"adversarial: {recipe.name} done already")
        show(path)
        return
    rows = rows_of(recipe, fold_of, len(test_ids), folds)
    n_train, n_test = (sum(map(len, part)) for part in zip(*rows.values()))
    info(
        f"adversarial: {recipe.name}, {n_train:,} held-out and {n_test:,} test images, "
        f"{len(folds)} network{'s' * (len(folds) > 1)}"
    )
    found = separations(recipe, data, labels, rows, groups)
    frame = scores_frame(labels, rows, found)
    auc, low, high = mean_auc(np.stack([part.aucs for part in found.values()]))
    write_text(path.with_suffix(".csv"), frame.to_csv(index=False, lineterminator="\n", float_format="%.6g"))
    of_test = np.concatenate([part.p_test_of_test for part in found.values()])
    title = f"{recipe.name}: AUC {auc:.3f} (95 % interval {low:.3f} to {high:.3f})"
    draw_picture(title, recipe, data, frame, of_test, path.with_suffix(".png"))
    content = {"auc": auc, "low": low, "high": high, "stamp": stamp}
    content["effective"] = effective_number(frame["weight"].to_numpy())
    content["folds"] = [
        {"fold": fold, "train": len(part.p_test), "test": len(part.p_test_of_test), "auc": part.aucs.mean()}
        for fold, part in found.items()
    ]
    write_json(path, content)
    show(path)
    if len(folds) < recipe.n_folds:
        info(
            f"adversarial: {path.with_suffix('.csv')} has the images of these folds only; to train with its "
            "weights, train all folds first"
        )


Rows = dict[int, tuple[np.ndarray, np.ndarray]]  # of training and of test images, by fold


def rows_of(recipe: Recipe, fold_of: np.ndarray, n_test: int, folds: list[int]) -> Rows:
    """Return the rows that each network has held out, and those of at most as many test images. A test image
    is shown to one network only, so that what the networks say is independent."""
    order = np.random.default_rng(recipe.seed).permutation(n_test)
    held_out = {fold: np.flatnonzero(fold_of == fold) for fold in folds}
    return {
        fold: (rows, np.sort(order[fold :: recipe.n_folds][: len(rows)])) for fold, rows in held_out.items()
    }


def groups_of(recipe: Recipe, data: CompetitionFiles, labels: Labels) -> tuple[np.ndarray, np.ndarray] | None:
    """Return (N,) and (M,) str: the groups of training and of test images; None if there are none. Test
    images are known to belong together where they have one answer."""
    train = with_duplicate_groups(labels, recipe.competition.name, data.fingerprint).fold_groups
    if train is None:
        return None
    answers = data.test_answer_ids(recipe.competition)
    test = data.test_ids(recipe.competition) if answers is None else answers
    return train, np.char.add("test ", test)


def separations(
    recipe: Recipe,
    data: CompetitionFiles,
    labels: Labels,
    rows: Rows,
    groups: tuple[np.ndarray, np.ndarray] | None,
) -> dict[int, Separation]:
    """Return by fold how well its network's features tell test images from held-out ones."""
    caches = resized_images(recipe, data, labels, build=True)
    assert caches
    with progress("features", sum(len(part) for parts in rows.values() for part in parts)) as advance:
        features = read_features(recipe, caches, rows, advance)
    found = {}
    with progress("classifiers", len(features)) as advance:
        for of in features:
            group_of = groups and np.concatenate([groups[0][of.train_rows], groups[1][of.test_rows]])
            found[of.fold] = separate(
                of.train, of.test, group_of, seed=recipe.seed, where=f"fold {of.fold} of {recipe.name}"
            )
            advance(1)
    return found


def scores_frame(labels: Labels, rows: Rows, found: dict[int, Separation]) -> pd.DataFrame:
    """Return a row per held-out image, in the order of the labels."""
    at = np.concatenate([rows[fold][0] for fold in found])
    p_test = np.concatenate([part.p_test for part in found.values()])
    fold = np.repeat(list(found), [len(part.p_test) for part in found.values()])
    columns = {"id": labels.ids[at], "fold": fold, "p_test": p_test, "weight": weights_of(p_test)}
    return pd.DataFrame(columns).iloc[np.argsort(at)].reset_index(drop=True)


def draw_picture(
    title: str,
    recipe: Recipe,
    data: CompetitionFiles,
    frame: pd.DataFrame,
    of_test: np.ndarray,
    path: Path,
) -> None:
    """Draw the distributions, and the training images that look the most and the least like test images."""
    falling = frame.sort_values("p_test", ascending=False, kind="stable")
    rows = []
    for name, part in (
        ("training images most like test images", falling[:N_COLUMNS]),
        ("training images least like test images", falling[::-1][:N_COLUMNS]),
    ):
        files = data.images("train", part["id"].to_numpy(str), recipe.channels)
        images = [thumbnail(files, i, PICTURE_SIZE) for i in range(len(part))]
        rows.append((name, images, part["id"].tolist(), part["p_test"].tolist()))
    draw(title, frame["p_test"].to_numpy(), of_test, rows, path)


def show(path: Path) -> None:
    """Print what was found."""
    content = read_json(path, AdversarialScores)
    auc, low, high = content["auc"], content["low"], content["high"]
    info(
        f"adversarial: AUC {auc:.3f} (95 % interval {low:.3f} to {high:.3f}): how often a test image looks "
        "more like the test set than a training image does; 0.5 is no difference, 1 is always"
    )
    table(
        ["fold", "training images", "test images", "AUC"],
        [
            [f"fold {f['fold']}", f"{f['train']:,}", f"{f['test']:,}", f"{f['auc']:.3f}"]
            for f in content["folds"]
        ],
    )
    info(f"adversarial: {verdict(low, high)}")
    frame = read_table(path.with_suffix(".csv"), ["id", "fold", "p_test", "weight"])
    numbers = frame[["p_test", "weight"]].astype(float)
    first = np.argsort(-numbers["p_test"].to_numpy(), kind="stable")[:N_LISTED]
    info("adversarial: training images that look most like test images")
    table(
        ["id", "fold", "p(test)", "weight"],
        [
            [
                frame["id"].iloc[i],
                frame["fold"].iloc[i],
                f"{numbers['p_test'].iloc[i]:.3f}",
                f"{numbers['weight'].iloc[i]:.2f}",
            ]
            for i in first
        ],
    )
    info(
        f"adversarial: {path.with_suffix('.csv')}, weights that count as {content['effective']:,.0f} of "
        f"{len(frame):,} images; labels.weight_csv trains with them; the picture: {path.with_suffix('.png')}"
    )


def verdict(low: float, high: float) -> str:
    """Return what the interval of the AUC means for the competition."""
    if low > HIGH_AUC:
        return (
            f"warning: test images differ from training images: the whole interval is above {HIGH_AUC}, "
            "which is a third of a standard deviation; held-out scores may be off, and thresholds too. Look "
            "at the picture, and weigh or choose training images that look like test images"
        )
    if low > 0.5:
        return "test images differ a little from training images; held-out scores should hold"
    if high > HIGH_AUC:
        return "no difference is shown, but there are too few images to rule one out"
    return "no difference between training and test images is shown"
