"""Pictures that matplotlib draws."""

from typing import Any


def new_figure(**settings: Any) -> Any:
    """A matplotlib Figure, whose texts are shown as they are: a $ in a name begins no formula."""
    from matplotlib import rcParams
    from matplotlib.figure import Figure

    rcParams["text.parse_math"] = False
    return Figure(**settings)
