"""The version of the code that writes a file."""

import subprocess


def commit() -> str | None:
    """Return the git commit of the working directory; None outside a repository."""
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
