"""Texts from outside, such as names of classes and images, as people may see them: nothing in them acts on a
terminal, a picture or a spreadsheet, and no password stays in them."""

import os
import re
from urllib.parse import unquote

SECRETS = (
    *("KAGGLE_API_TOKEN", "KAGGLE_API_V1_TOKEN", "KAGGLE_KEY", "WANDB_API_KEY", "HF_TOKEN"),
    *("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "PGPASSWORD", "MYSQL_PWD"),
)  # variables of the environment
LEAST = 6  # characters of a secret: shorter ones would be found in many words
ACCOUNT = re.compile(r"""://[^\s/:@'"]{0,500}(?::[^\s'"]{0,500})?@""")  # of an address
OPTION = re.compile(
    r"""(?i)([?&][\w.-]{0,40}(?:passw|pwd|token|key|secret|signature|credential)[\w.-]{0,40}=)[^\s&'"]+"""
)
FORMULA = r"[=+\-@\t\r\n＝＋－＠]"  # what a cell begins with that a spreadsheet works out
NUMBER = re.compile(r"[-+]?\d*\.?\d+(?:[eE][-+]?\d+)?")


def visible(text: object, most: int = 2000) -> str:
    r"""One line: what does not print, such as control characters, ends of lines and marks that turn the
    direction of writing, is an escape such as \x1b; of more than `most` characters the middle is left out."""
    text = str(text)
    if len(text) > most:
        text = f"{text[: most - most // 3 - 1]}…{text[-(most // 3) :]}"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def without_secrets(text: str) -> str:
    """The text without the accounts and keys in its addresses, and without the secrets of the environment."""
    text = OPTION.sub(r"\1…", ACCOUNT.sub("://…@", text))
    for secret in sorted(_secrets(), key=len, reverse=True):
        text = text.replace(secret, "…")
    return text


def _secrets() -> set[str]:
    found = {part for name in SECRETS for part in os.environ.get(name, "").split()}
    for name, value in os.environ.items():
        if "@" in value and ("://" in value or name.lower().endswith("_proxy")):
            account = value.rpartition("@")[0].rpartition("://")[2]
            password = account.partition(":")[2] or account
            found |= {password, unquote(password)}
    return {secret for secret in found if len(secret) >= LEAST}


def told(text: object) -> str:
    """A line for people."""
    return visible(without_secrets(str(text)))


def as_cell(text: str) -> str:
    """What stands in a CSV for people: no spreadsheet takes it for a formula. `of_cell` is the inverse."""
    is_formula = re.match(f"'*{FORMULA}", text) and not NUMBER.fullmatch(text)
    return f"'{text}" if is_formula else text


def of_cell(text: str) -> str:
    return text[1:] if re.match(f"'+{FORMULA}", text) else text
