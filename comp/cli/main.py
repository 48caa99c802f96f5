"""The `comp` command: one subcommand a stage. Stages are imported when they are called, so that help is
instant."""

import argparse
import importlib
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from comp import __version__
from comp.errors import CompError, TimeIsUp
from comp.safe_text import told

STAGES = {
    "download": "get a competition's files in order",
    "duplicates": "find equal and nearly equal images, and show them",
    "folds": "cut the training images into multilabel-stratified folds",
    "train": "train one network a fold",
    "predict": "predict held-out and test images, averaged over test-time views",
    "blend": "put the folds of a recipe together",
    "decide": "find thresholds, scored honestly",
    "submit": "write and check the submission, and note it in the ledger",
    "report": "show the run as one page: scores, labels, images and what is wrong with them",
}
OTHERS = {
    "find-lr": "try rising learning rates for some steps, and suggest one",
    "tune": "search values of a recipe's keys, on one machine or on several",
    "infer": "test images to a submission with finished models, without training data",
    "explain": "labels, probabilities and heat maps of single images, as a picture",
    "kernel": "pack a recipe for a Kaggle kernel without internet, and run it there",
    "ledger": "show all submissions, cross-fitted beside leaderboard scores",
    "compare": "finished runs beside each other: what differs, scores, classes, cost, errors",
    "bench": "time what this machine makes of it, and measure what tricks are worth",
}
ACTIONS = {"kernel": ("build", "push", "watch")}

ABOUT = """\
From joining a multi-label image competition on Kaggle to a scored submission.

The stages, in order (each can be stopped at any moment and run again):
"""

BESIDES = "\nAnd besides them:\n"

EPILOG = """\
RECIPE is a name that ships (demo, planet, planet32, hpa, hpa-drawn), or the path of a TOML file: a recipe,
or a competition of your own. Try `./run.sh` for all stages on the drawn demo competition, and `comp STAGE
--help` for a stage's options.

Exit codes: 0 done, 1 failed (one line says why), 2 wrong usage, 3 the time budget is used up (what is done
is kept; run it again to go on), 4 no images here and no Kaggle credentials to download them with.
"""

DETAILS = {
    "download": "What data/<competition>/ lacks is fetched from Kaggle, or taken from a folder with --from. "
    "Cut downloads go on where they were; archives (zip, tar, 7z, tar.7z) are unpacked into "
    "data/<competition>/; folders that are unpacked already are used where they are. manifest.json, written "
    "last, says what was found. The demo is drawn.",
    "duplicates": "Compares all images of train, test and external ones with each other by perceptual hash. "
    "Writes folds/<competition>-duplicates.csv (split, id, group, likeness), by which `comp folds` keeps "
    "duplicates in one fold and `comp train` leaves out external ones of what is held out, and a page with "
    "their pictures beside it. Images are resized on the way for training too.",
    "folds": "Writes folds/<competition>-k<folds>-s<seed>.csv and prints every class's count by fold. "
    "Duplicates stay together, and with labels.group in the competition file the images of one group.",
    "train": "Writes runs/<recipe>/fold<k>/: log.jsonl, last.pt after each epoch, model.safetensors last. "
    'One fold a GPU, or as many folds as CPU cores, at once. With track = "tensorboard" in the recipe, or '
    "wandb, mlflow, trackio, or a list of them, the epochs are shown there as well.",
    "predict": "Writes runs/<recipe>/fold<k>/oof.npz and test.npz: probabilities by id, before thresholds.",
    "blend": "Writes runs/<recipe>/oof.npz, every held-out id once, and test.npz, the mean of the folds. Of "
    "several recipes it weighs means of probabilities, logits and ranks, fitted weights and stacking across "
    "labels, cross-fitted on their common folds, and writes runs/<name>/ with a recipe.toml.",
    "decide": "Weighs rules: 0.5, 0.2, global (one threshold for all labels), per-class (exact ones), drawn "
    "(those, drawn towards the global one), expected (best expected F-beta of each image), prevalence, and "
    "with --rule also optuna, and each with +exclusive, +limits or +temperature. Where each image has "
    "exactly one label: most-probable, and drawn and per-class, which add to each label's logit. Rules are "
    "scored in-sample and cross-fitted (every fold decided by the rule as fitted to the others). Optuna's "
    "studies stay in runs/<recipe>/study.log, which optuna-dashboard opens; decision.png shows thresholds.",
    "submit": "Writes submissions/<name>.csv in the sample submission's order, checked against it, a .json "
    "beside it, and a row in submissions/ledger.csv. With --send it goes to Kaggle, at most once: killed on "
    "the way, it is looked for there first.",
    "report": "Writes runs/<recipe>/report.html, which opens anywhere without a network: scores and their "
    "spread, learning curves, each label's scores and threshold, calibration, labels that come together, "
    "held-out against test counts, the images that are answered worst, with heat maps of where the evidence "
    "lies, and labels that may be wrong. Needs what `comp decide` left; heat maps need the models.",
    "find-lr": "Trains for some steps in memory, on the batches of one fold and phase and from the weights "
    "that training starts with, at rates that grow until the loss is lost (Smith 2017). Suggests the rate at "
    "which the smoothed loss falls fastest; writes runs/<recipe>/find-lr-<phase>.png and .json. A "
    "run's weights are not touched.",
    "tune": "Trains trials with what Optuna proposes for the keys of the recipe's [tune] table, such as "
    '"phases.0.lr" = { low = 1e-4, high = 1e-2, log = true } or augment = ["dihedral", "satellite"], and the '
    "recipe's own first; the score is the held-out mAP after the last epoch. What falls behind is pruned. "
    "A trial is trained on one device: for several GPUs or machines start as many processes, each with its "
    "CUDA_VISIBLE_DEVICES, on one --storage. Killed, it goes on where it was. Writes "
    "runs/<recipe>/tune.png and tuned.toml, the recipe with the best values.",
    "infer": "Reads runs/<recipe>/fold<k>/model.safetensors and decision.json, the sample submission and the "
    "test images, which may be others than those that the models were made with. The folds' mean, decided "
    "and checked, becomes a CSV.",
    "explain": "For any image on disk: the mean of the finished networks runs/<recipe>/fold<k>/, over the "
    "recipe's test-time views, decided by decision.json, and for up to four labels, wrong ones first, "
    "where in the image the evidence for them lies (Grad-CAM). A training image is explained by the network "
    "that held it out, with its true labels. Where each channel is a file, the path of one finds the others. "
    "Writes runs/<recipe>/explain-<image>.png, a row an image; no training data is needed.",
    "kernel": "build writes runs/<recipe>/kernel-<kind>/ without running anything: kernel/ (one script that "
    "carries the package and the recipe, and kernel-metadata.json), and the dataset folders weights/ and "
    "wheels/. train runs all stages and goes on from an earlier version's output; infer makes "
    "submission.csv with the folds that are trained here. push builds, uploads the datasets that changed, "
    "runs the kernel and watches it; watch follows the last one again. Output and log come to "
    "runs/<recipe>/kernel-<kind>-v<version>/.",
}

# `comp decide` on tables instead of a recipe
TABLES: dict[str, dict[str, Any]] = {
    "--probs": {"metavar": "FILE", "help": "without a recipe: out-of-fold probabilities, a column a class"},
    "--labels": {"metavar": "FILE", "help": "with --probs: the truth, as tags or as a 0/1 column a class"},
    "--beta": {"type": float, "default": 2.0, "help": "with --probs (default: 2)"},
    "--average": {
        "choices": ("samples", "macro", "micro"),
        "default": "samples",
        "help": "with --probs (default: samples)",
    },
    "--empty": {
        "type": float,
        "default": 0.0,
        "metavar": "SCORE",
        "help": "with --probs: of samples, the score of no label where none is there (default: 0)",
    },
    "--fold-file": {"metavar": "FILE", "help": "with --probs: a table of id and fold (default: at random)"},
    "--apply": {"metavar": "FILE", "help": "with --probs: test probabilities to decide, into a CSV"},
    "--exclusive": {
        "metavar": "CLASS,CLASS",
        "action": "append",
        "default": [],
        "help": "with --probs: classes of which exactly one holds; may be given several times. All classes: "
        "exactly one label an image",
    },
}

BENCH = (
    "decide: threshold searches against each other, and rules on rows that they were not fitted on; on drawn "
    "matrices, or on --probs FILE with --labels FILE. speed: images a second of decoding, cache, loading, "
    "augmentation, the bare training step, whole training and prediction, at each size of the RECIPE, on its "
    "images if they were downloaded and on drawn ones of 256 px if not; names what holds training up. "
    "tricks: the RECIPE as it is and with each change of --tricks, trained with several seeds on the same "
    "part of its images, one fold held out; stopped anywhere, it goes on from there."
)

LEDGER = (
    "All submissions with their cross-fitted, public and private scores. Draws them against each other in "
    "submissions/ledger.png."
)

COMPARE = (
    "Finished runs of one competition beside each other, on the images that all of them held out: the "
    "settings that differ, as the runs' own files have them; cross-fitted scores, and their differences to "
    "the first run, with 95 % intervals by paired bootstrap; average precision and F-beta by class; training "
    "time, rate, memory and parameters; how alike they err, and what the mean of two gains. Draws scores and "
    "errors in runs/compare-<names>.png."
)

FOLDS = "only these, with commas between, counted from 0 (default: all)"

# option: (stages that read it, arguments). Where the help is a table, it says another thing for each of the
# commands that have the option.
OPTIONS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "--send": (("submit",), {"action": "store_true", "help": "send it to Kaggle and wait for its score"}),
    "-m": (
        ("submit",),
        {"metavar": "TEXT", "dest": "message", "help": "with --send: the description that Kaggle shows"},
    ),
    "--again": (
        ("submit",),
        {"action": "store_true", "help": "with --send: send also what was sent before"},
    ),
    "--wait": (
        ("submit",),
        {
            "metavar": "SECONDS",
            "type": float,
            "default": 600.0,
            "help": "with --send: how long to wait for the score (default: 600)",
        },
    ),
    "--name": (
        ("blend",),
        {"metavar": "NAME", "help": "of several recipes: the blend's name (default: theirs, joined)"},
    ),
    "--how": (
        ("blend",),
        {
            "choices": ("auto", "mean", "logits", "ranks", "greedy", "weights", "stack"),
            "default": "auto",
            "help": "of several recipes: how they are blended (default: the cross-fitted best)",
        },
    ),
    "--rule": (
        ("decide",),
        {
            "metavar": "RULE",
            "help": "weigh this rule alone, such as drawn or expected+limits (default: auto)",
        },
    ),
    "--from": (
        ("download", "infer"),
        {
            "metavar": "FOLDER",
            "dest": "source",
            "help": {
                "download": "take the files from this folder, archives or unpacked, or from this archive",
                "infer": "the folder of the sample submission and the test images (default: where `comp "
                "download` found them)",
            },
        },
    ),
    "--likeness": (
        ("duplicates",),
        {
            "metavar": "SHARE",
            "type": float,
            "default": 0.9,
            "help": "how alike images must be, where 1 is equal, to be called duplicates (default: 0.9)",
        },
    ),
    "--folds": (
        ("train", "predict", "blend", "find-lr", "infer", "explain", "kernel", "tune"),
        {
            "metavar": "K,K",
            "help": {
                "train": f"the folds to train: {FOLDS}",
                "predict": f"the folds whose networks predict: {FOLDS}",
                "blend": f"of one recipe, the folds to put together: {FOLDS}",
                "find-lr": "the fold to train, counted from 0 (default: 0)",
                "infer": f"the folds whose networks predict: {FOLDS}",
                "explain": f"the folds whose networks are asked: {FOLDS}",
                "kernel": f"the folds to train there, or whose networks infer there: {FOLDS}",
                "tune": f"the folds that each trial is trained and scored on: {FOLDS}",
            },
        },
    ),
    "--force": (
        (
            "download",
            "duplicates",
            "folds",
            "train",
            "predict",
            "blend",
            "decide",
            "report",
            "find-lr",
            "infer",
            "explain",
        ),
        {
            "action": "store_true",
            "help": {
                **dict.fromkeys(
                    ("download", "duplicates", "folds", "train", "predict", "blend", "find-lr"),
                    "replace output that was made with other settings or inputs",
                ),
                "decide": "replace a decision that was made with other settings or inputs; without a recipe, "
                "the files that are there",
                "report": "make the page again, also where it is of this decision",
                "infer": "replace predictions that were made with other settings or inputs, and the CSV",
                "explain": "replace the picture that --to names",
            },
        },
    ),
    "--phase": (
        ("find-lr",),
        {"metavar": "N", "type": int, "default": 0, "help": "the phase, counted from 0 (default: 0)"},
    ),
    "--rates": (
        ("find-lr",),
        {"metavar": "LOW,HIGH", "default": "1e-6,1", "help": "of the head (default: 1e-6,1)"},
    ),
    "--steps": (
        ("find-lr",),
        {"metavar": "N", "type": int, "default": 150, "help": "how many rates there are (default: 150)"},
    ),
    "--time-budget": (
        ("duplicates", "train", "predict", "infer", "kernel", "tune"),
        {
            "metavar": "TIME",
            "dest": "budget",
            "help": {
                **dict.fromkeys(
                    ("duplicates", "train", "predict", "infer", "tune"),
                    "stop cleanly before this much time is over, with exit code 3: 8.5h, 90m or 3600s",
                ),
                "kernel": "the time that all stages have in the kernel: 8.5h, 90m or 3600s (default: 11h for "
                "train, 8.5h for infer)",
            },
        },
    ),
    "--on": (
        ("train", "predict"),
        {
            "choices": ("local", "ray"),
            "default": "local",
            "help": "where the folds run: on this machine, or on the Ray cluster that it is part of "
            "($RAY_ADDRESS, or the one that runs here), each with a GPU or a share of the CPUs, whose "
            "number changes how results on CPUs round (default: local)",
        },
    ),
    "--to": (
        ("infer", "explain"),
        {
            "metavar": "FILE",
            "help": {
                "infer": "the CSV to write (default: submission.csv)",
                "explain": "the picture to write (default: runs/<recipe>/explain-<first image>.png)",
                "decide": "without a recipe: the JSON to write, with a .png and, with --apply, a .csv beside "
                "it (default: decision.json)",
            },
        },
    ),
    "--kind": (
        ("kernel",),
        {"choices": ("train", "infer"), "default": "train", "help": "what the kernel does (default: train)"},
    ),
    "--owner": (
        ("kernel",),
        {
            "metavar": "NAME",
            "help": "the Kaggle user name (default: $KAGGLE_USERNAME, kaggle.json, or whose token it is)",
        },
    ),
    "--python": (
        ("kernel",),
        {"metavar": "X.Y", "default": "3.12", "help": "the Python of Kaggle's image (default: 3.12)"},
    ),
    "--resume": (
        ("kernel",),
        {"action": "store_true", "help": "go on from the output of the version of this kernel that ran last"},
    ),
    "--trials": (
        ("tune",),
        {
            "metavar": "N",
            "type": int,
            "default": 20,
            "help": "how many trials of the whole study end, complete or pruned (default: 20)",
        },
    ),
    "--storage": (
        ("tune",),
        {
            "metavar": "FILE|URL",
            "help": "where the study is kept, for all processes that share it: a file, also on a shared "
            "disk, or a database as sqlite:///FILE or postgresql://…; or $NAME, the variable that holds it "
            "(default: runs/<recipe>/tune.log)",
        },
    ),
    "--set": (
        (*STAGES, *OTHERS),
        {
            "metavar": "KEY=VALUE",
            "action": "append",
            "default": [],
            "dest": "overrides",
            "help": "change a key of the recipe, such as phases.0.epochs=2; may be given several times",
        },
    ),
}


def parser() -> argparse.ArgumentParser:
    width = argparse.RawDescriptionHelpFormatter
    lists = ["".join(f"  {name:<12}{line}\n" for name, line in part.items()) for part in (STAGES, OTHERS)]
    top = argparse.ArgumentParser(
        prog="comp", description=ABOUT + BESIDES.join(lists), epilog=EPILOG, formatter_class=width
    )
    top.add_argument("--version", action="version", version=f"comp {__version__}")
    stages = top.add_subparsers(dest="stage", metavar="STAGE", required=True, help="one of the above")
    for name, details in DETAILS.items():
        line = (STAGES | OTHERS)[name]
        note = "Options of other stages are taken and passed over, so that run.sh can hand one line to all."
        stage = stages.add_parser(name, description=f"{line.capitalize()}. {details}", epilog=note)
        if name in ACTIONS:
            stage.add_argument("action", choices=ACTIONS[name], help="what to do")
        tables: dict[str, Any] = {"nargs": "?"} if name == "decide" else {}
        stage.add_argument(
            "recipe",
            metavar="RECIPE",
            help="a recipe's name, or the path of a recipe or competition TOML",
            **tables,
        )
        if name == "blend":
            stage.add_argument("others", metavar="RECIPE", nargs="*", help="further recipes to blend with it")
        if name == "explain":
            stage.add_argument("images", metavar="IMAGE", nargs="+", help="an image file")
        for option, arguments in TABLES.items() if name == "decide" else ():
            stage.add_argument(option, **arguments)
        for option, (readers, arguments) in OPTIONS.items():
            text = arguments["help"] if name in readers else argparse.SUPPRESS
            if isinstance(arguments["help"], dict):
                text = arguments["help"].get(name, argparse.SUPPRESS)
            stage.add_argument(option, **{**arguments, "help": text})
    command = stages.add_parser("ledger", description=LEDGER)
    command.add_argument(
        "--sync", action="store_true", help="first fetch scores that arrived later from Kaggle"
    )
    command = stages.add_parser("compare", description=COMPARE)
    command.add_argument(
        "names", metavar="RUN", nargs="+", help="a finished run's name in runs/, or its recipe's TOML"
    )
    command.add_argument("--to", metavar="FILE", help="the picture (default: runs/compare-<names>.png)")
    command.add_argument("--force", action="store_true", help="replace the file that --to names")
    command = stages.add_parser("bench", description=BENCH)
    command.add_argument("subject", choices=("decide", "speed", "tricks"), help="what to measure")
    command.add_argument(
        "recipe", metavar="RECIPE", nargs="?", default="demo", help="for speed and tricks (default: demo)"
    )
    command.add_argument("--set", **OPTIONS["--set"][1])
    command.add_argument(
        "--fastai", metavar="PYTHON", help="for speed: also time fastai, in the environment of this Python"
    )
    command.add_argument(
        "--tricks", metavar="FILE", help='for tricks: TOML lines such as mixup = ["mixup=0.2"]'
    )
    command.add_argument(
        "--images", type=int, default=12_000, help="for tricks: how many, drawn once (default: 12000)"
    )
    command.add_argument("--seeds", type=int, default=3, help="for tricks (default: 3)")
    command.add_argument("--probs", metavar="FILE", help="for decide: out-of-fold probabilities")
    command.add_argument("--labels", metavar="FILE", help="for decide, with --probs: the truth")
    command.add_argument(
        "--large", action="store_true", help="for decide: also 110,000 images with 1,103 classes"
    )
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    try:
        if arguments is None and (storage := getattr(given, "storage", None)):
            _keep_to_itself(storage)
        _run(given)
    except CompError as error:
        print(told(f"comp {given.stage}: {error}"), file=sys.stderr)
        return error.code
    except TimeIsUp as stop:
        print(told(f"comp {given.stage}: the time is up ({stop}); run it again to go on"), file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        print(f"comp {given.stage}: stopped; run it again to go on", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        reason = f"{error.filename or 'system'}: {error.strerror or error}"
        print(told(f"comp {given.stage}: {reason}"), file=sys.stderr)
        return 1
    return 0


def _keep_to_itself(storage: str) -> None:
    """Begin again with the address of a database, which may hold a password, in the environment: everyone on
    the machine can list arguments, and trackers write them down."""
    if os.name == "posix" and ("@" in storage or "=" in storage):
        os.environ["COMP_STORAGE"] = storage
        os.execv(sys.executable, [part.replace(storage, "$COMP_STORAGE") for part in sys.orig_argv])


def _stage(name: str) -> Any:
    """The stage's module: libraries that take seconds to load come with it."""
    from comp.console import said_if_slow

    with said_if_slow(f"{name}: loading its libraries"):
        return importlib.import_module(f"comp.commands.{name.replace('-', '_')}")


def _run(given: argparse.Namespace) -> None:
    if given.stage == "ledger":
        _stage("ledger").run(sync=given.sync)
        return
    if given.stage == "compare":
        _stage("compare").run(given.names, to=given.to, force=given.force)
        return
    if given.stage == "bench":
        asked = {name: value for name, value in vars(given).items() if name != "stage"}
        _stage("bench").run(**asked)
        return
    if given.stage == "decide" and given.recipe is None:
        if not (given.probs and given.labels):
            raise CompError("a RECIPE is expected, or --probs FILE with --labels FILE")
        names = (
            "probs",
            "labels",
            "beta",
            "average",
            "empty",
            "rule",
            "fold_file",
            "apply",
            "exclusive",
            "force",
        )
        _stage("decide").run_on_files(
            **{name: getattr(given, name) for name in names}, to=given.to or "decision.json"
        )
        return
    from comp.config.loading import load_recipe
    from comp.deadline import parse_budget

    recipe = load_recipe(given.recipe, given.overrides)
    options = {
        **vars(given),
        "folds": _folds(given.folds, recipe.n_networks),
        "to": given.to or ("submission.csv" if given.stage == "infer" else None),
        "budget": None if given.budget is None else parse_budget(given.budget),
    }
    wanted = {
        (name := arguments.get("dest", option.lstrip("-"))): options[name]
        for option, (readers, arguments) in OPTIONS.items()
        if given.stage in readers and option != "--set"
    }
    if given.stage in ACTIONS:
        wanted["action"] = given.action
    if given.stage == "blend":
        wanted["others"] = given.others
    if given.stage == "explain":
        wanted["images"] = given.images
    run = _stage(given.stage).run
    if given.stage not in ("train", "predict") or not recipe.members:
        run(recipe, **wanted)
        return
    started = time.monotonic()
    for member in recipe.members:
        if wanted["budget"] is not None and time.monotonic() - started > wanted["budget"]:
            raise TimeIsUp(f"{member.name}: not started")
        left = None if wanted["budget"] is None else wanted["budget"] - (time.monotonic() - started)
        run(member, **{**wanted, "budget": left})


def _folds(text: str | None, n_folds: int) -> list[int]:
    if text is None:
        return list(range(n_folds))
    numbers = text.replace(" ", "").split(",")
    if not all(n.isdigit() and int(n) < n_folds for n in numbers):
        raise CompError(f"--folds {text}: numbers from 0 to {n_folds - 1} with commas between are expected")
    return sorted({int(n) for n in numbers})
