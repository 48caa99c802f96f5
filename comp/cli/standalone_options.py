"""The arguments of the commands that take none of the stages' options."""

from typing import Any

from comp.cli.options import OPTIONS

STANDALONE_OPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "init": {
        "source": {
            "metavar": "SLUG|FOLDER",
            "help": "the end of a competition's address on Kaggle, or a folder of its files",
        },
        "--name": {
            "metavar": "NAME",
            "help": "the competition's name here (default: that of the folder, or the slug)",
        },
        "--to": {"metavar": "FILE", "help": "the TOML to write (default: NAME.toml)"},
        "--force": {"action": "store_true", "help": "overwrite the file"},
    },
    "show": {
        "recipe": {
            "metavar": "RECIPE",
            "help": "the name of a recipe or run, or the path of a recipe or competition TOML",
        },
        "--set": OPTIONS["--set"][1],
    },
    "keys": {
        "word": {
            "metavar": "WORD",
            "nargs": "?",
            "help": "only keys with this in their name or text",
        },
        "--markdown": {"action": "store_true", "help": "as the page KEYS.md"},
    },
    "ledger": {
        "--sync": {"action": "store_true", "help": "first fetch missing scores from Kaggle"},
        "--pick": {"action": "store_true", "help": "name two submissions to end with, and why"},
    },
    "runs": {
        "--by": {"choices": ("time", "score"), "default": "time", "help": "the order (default: time)"},
    },
    "watch": {
        "names": {
            "metavar": "RUN",
            "nargs": "*",
            "help": "a run's name, or a recipe that will be trained (default: all runs in runs/)",
        },
        "--port": {
            "metavar": "N",
            "type": int,
            "help": "the port to listen on (default: 8470, or a free one if that is in use)",
        },
        "--host": {
            "metavar": "HOST",
            "help": "the address to listen on (default: 127.0.0.1, which only this machine reaches)",
        },
        "--static": {
            "action": "store_true",
            "help": "write runs/watch.html after each epoch instead of serving a page",
        },
    },
    "compare": {
        "names": {
            "metavar": "RUN",
            "nargs": "+",
            "help": "a finished run's name in runs/, or its recipe's TOML",
        },
        "--to": {"metavar": "FILE", "help": "the picture (default: runs/compare-<names>.png)"},
        "--force": {"action": "store_true", "help": "overwrite the file that --to names"},
    },
    "check": {
        "recipe": {
            "metavar": "RECIPE",
            "nargs": "?",
            "default": "planet",
            "help": "whose network and batches are checked (default: planet)",
        },
        "--set": OPTIONS["--set"][1],
        "--time-budget": {
            "metavar": "TIME",
            "dest": "budget",
            "default": "10m",
            "help": "such as 20m (default: 10m)",
        },
    },
    "bench": {
        "subject": {"choices": ("decide", "speed", "tricks"), "help": "what to measure"},
        "recipe": {
            "metavar": "RECIPE",
            "nargs": "?",
            "default": "demo",
            "help": "for speed and tricks (default: demo)",
        },
        "--set": OPTIONS["--set"][1],
        "--fastai": {
            "metavar": "PYTHON",
            "help": "for speed: also time fastai, which this Python has",
        },
        "--tricks": {
            "metavar": "FILE",
            "help": 'for tricks: a file of TOML lines such as mixup = ["mixup=0.2"]',
        },
        "--images": {
            "type": int,
            "default": 12_000,
            "help": "for tricks: how many images, sampled once (default: 12000)",
        },
        "--seeds": {"type": int, "default": 3, "help": "for tricks: how many seeds (default: 3)"},
        "--probs": {"metavar": "FILE", "help": "for decide: out-of-fold probabilities"},
        "--labels": {"metavar": "FILE", "help": "for decide, with --probs: the true labels"},
        "--large": {
            "action": "store_true",
            "help": "for decide: also 110,000 images with 1,103 classes",
        },
    },
}
