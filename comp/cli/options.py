"""Every option of the commands, once, with the commands that read it."""

import argparse
from typing import Any

from comp.cli.command_help import OTHERS, STAGES

NOT_OF_RUN = ("--name", "--thresholds")  # of the options of stages, those that `comp run` does not read

# options of `comp decide` without a recipe, on the tables of another program
TABLES: dict[str, dict[str, Any]] = {
    "--probs": {"metavar": "FILE", "help": "without a recipe: out-of-fold probabilities, a column per class"},
    "--labels": {
        "metavar": "FILE",
        "help": "with --probs: true labels, as tags or as a 0/1 column per class",
    },
    "--metric": {
        "metavar": "NAME",
        "help": "with --probs: a metric as [metric] name has it, such as roc_auc (default: fbeta)",
    },
    "--beta": {"type": float, "help": "with --probs: beta of F-beta (default: 2)"},
    "--average": {
        "choices": ("samples", "macro", "micro"),
        "help": "with --probs: how F-beta is averaged (default: samples)",
    },
    "--zero-division": {
        "type": float,
        "metavar": "SCORE",
        "help": "with --probs, for --average samples: the score of an image with no true and no predicted "
        "label (default: 0)",
    },
    "--empty": {"type": float, "dest": "zero_division", "help": argparse.SUPPRESS},  # its old name
    "--fold-file": {
        "metavar": "FILE",
        "help": "with --probs: a table of id and fold (default: random folds)",
    },
    "--apply": {
        "metavar": "FILE",
        "help": "with --probs: test probabilities; write the predicted labels to a CSV",
    },
    "--sample": {
        "metavar": "FILE",
        "help": "with --apply: a sample submission, whose ids, columns and form the CSV gets",
    },
    "--exclusive": {
        "metavar": "CLASS,CLASS",
        "action": "append",
        "default": [],
        "help": "with --probs: mutually exclusive classes, exactly one of which is true; repeatable. List "
        "all classes for single-label data",
    },
}
FOLDS = "separated by commas, counted from 0 (default: all)"
# option: (commands that read it, arguments). If the help is a table, it is the text for each command.
OPTIONS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "--send": (("submit",), {"action": "store_true", "help": "send it to Kaggle, and wait for its score"}),
    "-m": (
        ("submit",),
        {"metavar": "TEXT", "dest": "message", "help": "with --send: the description on Kaggle"},
    ),
    "--again": (
        ("submit",),
        {"action": "store_true", "help": "with --send: send again what was sent before"},
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
        {"metavar": "NAME", "help": "for several recipes: the blend's name (default: their names, joined)"},
    ),
    "--how": (
        ("blend",),
        {
            "choices": ("auto", "mean", "logits", "ranks", "greedy", "weights", "stack"),
            "default": "auto",
            "help": "for several recipes: how to blend (default: the best cross-fitted score)",
        },
    ),
    "--rule": (
        ("decide",),
        {
            "metavar": "RULE",
            "help": "use this rule, such as shrunk or expected+limits (default: auto)",
        },
    ),
    "--thresholds": (
        ("decide",),
        {
            "metavar": "FILE",
            "help": "decide by the thresholds or cut points of a TOML file, as the report's threshold lab "
            "copies them; their score is in-sample, the cross-fitted one is the automatic rule's",
        },
    ),
    "--from": (
        ("download", "infer"),
        {
            "metavar": "FOLDER",
            "dest": "source",
            "help": {
                "download": "take the files from this folder (archives or unpacked), or from this archive",
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
            "help": "how similar duplicates are, where 1 is equal (default: 0.9; 0.95 is stricter)",
        },
    ),
    "--folds": (
        ("train", "predict", "blend", "look", "find-lr", "infer", "explain", "kernel", "tune"),
        {
            "metavar": "K,K",
            "help": {
                "train": f"the folds to train: {FOLDS}",
                "predict": f"the folds whose networks predict: {FOLDS}",
                "blend": f"for one recipe: the folds to combine: {FOLDS}",
                "look": "the fold whose batches are shown, counted from 0 (default: 0)",
                "find-lr": "the fold to train, counted from 0 (default: 0)",
                "infer": f"the folds whose networks predict: {FOLDS}",
                "explain": f"the folds whose networks explain: {FOLDS}",
                "kernel": f"the folds to train there, or whose networks predict there: {FOLDS}",
                "tune": f"the folds to train and score each trial on: {FOLDS}",
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
            "submit",
            "report",
            "find-lr",
            "infer",
            "explain",
            "adversarial",
        ),
        {
            "action": "store_true",
            "help": {
                **dict.fromkeys(
                    (
                        "download",
                        "duplicates",
                        "folds",
                        "train",
                        "predict",
                        "blend",
                        "find-lr",
                        "adversarial",
                    ),
                    "overwrite output that was made with other settings or inputs",
                ),
                "decide": "overwrite a decision that was made with other settings or inputs; without a "
                "recipe, overwrite existing files",
                "submit": "write the CSV again, with settings that differ from the run's",
                "report": "write the page again, even if it is up to date",
                "infer": "overwrite predictions that were made with other settings or inputs, and the CSV",
                "explain": "overwrite the picture that --to names",
            },
        },
    ),
    "--phase": (
        ("find-lr",),
        {"metavar": "N", "type": int, "default": 0, "help": "the phase, counted from 0 (default: 0)"},
    ),
    "--rates": (
        ("find-lr",),
        {
            "metavar": "LOW,HIGH",
            "default": "1e-6,1",
            "help": "range of the head's learning rate (default: 1e-6,1)",
        },
    ),
    "--steps": (
        ("find-lr",),
        {
            "metavar": "N",
            "type": int,
            "default": 150,
            "help": "how many learning rates to try (default: 150)",
        },
    ),
    "--time-budget": (
        ("duplicates", "train", "predict", "infer", "kernel", "tune"),
        {
            "metavar": "TIME",
            "dest": "budget",
            "help": {
                **dict.fromkeys(
                    ("duplicates", "train", "predict", "infer", "tune"),
                    "stop cleanly within this time, with exit code 3: 8.5h, 90m or 3600s",
                ),
                "kernel": "time for all stages in the kernel: 8.5h, 90m or 3600s (default: 11h for train, "
                "8.5h for infer)",
            },
        },
    ),
    "--on": (
        ("train", "predict"),
        {
            "choices": ("local", "ray"),
            "default": "local",
            "help": "where the folds run: on this machine, or on its Ray cluster ($RAY_ADDRESS, or the one "
            "that runs here). There each fold gets a GPU or a share of the CPUs; results vary slightly "
            "(rounding) with the number of CPUs (default: local)",
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
            "help": "the Kaggle user name (default: $KAGGLE_USERNAME, kaggle.json, or the token's owner)",
        },
    ),
    "--accelerator": (
        ("kernel",),
        {
            "metavar": "NAME",
            "default": "NvidiaTeslaT4",
            "help": "the GPU as Kaggle's client names it, such as NvidiaL4 (default: NvidiaTeslaT4: two T4)",
        },
    ),
    "--resume": (
        ("kernel",),
        {"action": "store_true", "help": "resume from the output of this kernel's last version"},
    ),
    "--trials": (
        ("tune",),
        {
            "metavar": "N",
            "type": int,
            "default": 20,
            "help": "number of trials of the whole study, complete or pruned (default: 20)",
        },
    ),
    "--storage": (
        ("tune",),
        {
            "metavar": "FILE|URL",
            "help": "where the study is stored: a file, which may be on a shared disk; or a database, such "
            "as sqlite:///FILE or postgresql://…; or $NAME, the environment variable that holds it. "
            "Processes with the same storage share the study (default: runs/<recipe>/tune.log)",
        },
    ),
    "--set": (
        (*STAGES, *OTHERS),
        {
            "metavar": "KEY=VALUE",
            "action": "append",
            "default": [],
            "dest": "overrides",
            "help": "change a key of the recipe, such as phases.0.epochs=2; repeatable",
        },
    ),
    "--as": (
        (*STAGES, *OTHERS),
        {
            "metavar": "NAME",
            "dest": "as_run",
            "help": "the run's name, runs/NAME/ (default: the recipe's); later commands take NAME as RECIPE",
        },
    ),
}


def readers_of(option: str) -> tuple[str, ...]:
    """Return the commands that read an option."""
    readers = OPTIONS[option][0]
    of_stage = option not in NOT_OF_RUN and any(stage in readers for stage in STAGES)
    return (*readers, "run") if of_stage and "run" not in readers else readers


def help_by_command(arguments: dict[str, Any]) -> dict[str, str]:
    """Return the help texts of an option that differ by command; {} if one text is for all."""
    return arguments["help"] if isinstance(arguments["help"], dict) else {}


def help_of(option: str, command: str) -> str:
    """Return the help text of an option that a command reads."""
    texts = help_by_command(OPTIONS[option][1])
    return next((texts[name] for name in (command, *STAGES) if name in texts), OPTIONS[option][1]["help"])
