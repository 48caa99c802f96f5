"""The version of the code that writes a file."""

import subprocess
from pathlib import Path


def commit() -> str | None:
    """Return the git commit of the working directory; None outside a repository."""
    return _git("rev-parse", "HEAD")


def commit_of_comp() -> str | None:
    """Return the git commit of comp itself; None where it runs from no repository of its own."""
    folder = str(Path(__file__).parent)
    tracked = _git("-C", folder, "ls-files", "--error-unmatch", Path(__file__).name)
    return _git("-C", folder, "rev-parse", "HEAD") if tracked else None


def _git(*words: str) -> str | None:
    try:
        answer = subprocess.run(["git", *words], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
