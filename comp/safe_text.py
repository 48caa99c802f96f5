"""Make text from outside, such as names of classes and images, safe to show: without control characters,
formulas of spreadsheets, and passwords."""

import os
import re
from urllib.parse import unquote

SECRET_VARIABLES = (
    *("KAGGLE_API_TOKEN", "KAGGLE_API_V1_TOKEN", "KAGGLE_KEY", "WANDB_API_KEY", "HF_TOKEN"),
    *("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "PGPASSWORD", "MYSQL_PWD"),
)  # environment variables
MIN_SECRET_LENGTH = 6  # characters; shorter secrets would match inside many words
ACCOUNT_IN_URL = re.compile(r"""://[^\s/:@'"]{0,500}(?::[^\s'"]{0,500})?@""")
SECRET_IN_QUERY = re.compile(
    r"""(?i)([?&][\w.-]{0,40}(?:passw|pwd|token|key|secret|signature|credential)[\w.-]{0,40}=)[^\s&'"]+"""
)
FORMULA_START = r"[=+\-@\t\r\n＝＋－＠]"  # a cell that begins so is a formula to spreadsheets
NUMBER = re.compile(r"[-+]?\d*\.?\d+(?:[eE][-+]?\d+)?")


def visible(text: object, max_length: int = 2000) -> str:
    r"""Return the text as one printable line. Control characters, line ends and marks that turn the direction
    of writing become escapes such as \x1b; the middle of a text over `max_length` characters is left out."""
    text = str(text)
    if len(text) > max_length:
        text = f"{text[: max_length - max_length // 3 - 1]}…{text[-(max_length // 3) :]}"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def without_secrets(text: str) -> str:
    """Return the text without accounts and keys in URLs, and without the secrets in environment variables."""
    text = SECRET_IN_QUERY.sub(r"\1…", ACCOUNT_IN_URL.sub("://…@", text))
    for secret in sorted(_secrets(), key=len, reverse=True):
        text = text.replace(secret, "…")
    return text


def _secrets() -> set[str]:
    found = {part for name in SECRET_VARIABLES for part in os.environ.get(name, "").split()}
    for name, value in os.environ.items():
        if "@" in value and ("://" in value or name.lower().endswith("_proxy")):
            account = value.rpartition("@")[0].rpartition("://")[2]
            password = account.partition(":")[2] or account
            found |= {password, unquote(password)}
    return {secret for secret in found if len(secret) >= MIN_SECRET_LENGTH}


def sanitize(text: object) -> str:
    """Return the text as one printable line without secrets."""
    return visible(without_secrets(str(text)))


def escape_cell(text: str) -> str:
    """Return the text as a CSV cell that no spreadsheet takes for a formula; `unescape_cell` undoes it."""
    is_formula = re.match(f"'*{FORMULA_START}", text) and not NUMBER.fullmatch(text)
    return f"'{text}" if is_formula else text


def unescape_cell(text: str) -> str:
    """Return the text that `escape_cell` was given."""
    return text[1:] if re.match(f"'+{FORMULA_START}", text) else text
