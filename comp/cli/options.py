"""Every option once, with the commands that read it."""

from typing import Any

from comp.cli.help import OTHERS, STAGES

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
