"""What all pictures share: one style, figures, names as text, PNG files with fonts for all characters."""

import functools
import io
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from rich.cells import cell_len

from comp.artifacts.files import atomic_write
from comp.console import info
from comp.errors import summarize
from comp.safe_text import visible

MAX_NAME = 60  # characters
MAIN, ACCENT, MUTED, GOOD, BAD = "#2a6fa8", "#d9700f", "#9aa0a6", "#2b8a4b", "#c0392b"
SHARES = "Blues"  # the colour map of shares from 0 to 1
STYLE: dict[str, Any] = {
    "figure.facecolor": "white", "savefig.facecolor": "white", "axes.facecolor": "white",
    "text.color": "#222222", "axes.labelcolor": "#222222", "axes.edgecolor": "#8a8f94",
    "axes.linewidth": 0.8, "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
    "axes.titlesize": 10, "axes.titlelocation": "left", "axes.labelsize": 9,
    "xtick.color": "#8a8f94", "ytick.color": "#8a8f94", "xtick.labelcolor": "#333333",
    "ytick.labelcolor": "#333333", "xtick.labelsize": 8, "ytick.labelsize": 8, "xtick.major.size": 3,
    "ytick.major.size": 3, "grid.color": "#e6e8ea", "grid.linewidth": 0.8,
    "legend.fontsize": 8, "legend.frameon": False, "font.size": 10, "image.cmap": SHARES,
}  # fmt: skip
P = ParamSpec("P")
R = TypeVar("R")


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Return a function that draws in comp's style; the program around it keeps its own."""

    @functools.wraps(draw)
    def drawn(*arguments: P.args, **keywords: P.kwargs) -> R:
        with _style():
            return draw(*arguments, **keywords)

    return drawn


def _style() -> Any:
    import matplotlib
    from cycler import cycler

    colours = [MAIN, ACCENT, GOOD, "#7b4fa3", BAD, "#17889b", "#8c6d31", "#c2559b", "#5b6770", "#a3b427"]
    settings: Any = STYLE | {"axes.prop_cycle": cycler(color=colours)}
    return matplotlib.rc_context(settings)


def new_figure(**settings: Any) -> Any:
    """Return a matplotlib Figure, which needs no screen."""
    from matplotlib.figure import Figure

    class Picture(Figure):
        """A figure that notebooks show without any set-up."""

        def savefig(self, *arguments: Any, **settings: Any) -> None:
            with _style():  # ticks are made when they are drawn
                super().savefig(*arguments, **settings)

        def _repr_png_(self) -> bytes:
            png = io.BytesIO()
            self.savefig(png, format="png", dpi=70)
            return png.getvalue()

    return Picture(**settings)


def escape_text(name: object, most: int = MAX_NAME) -> str:
    """Return a name made safe to show, with $ escaped so that matplotlib does not read it as math."""
    return visible(name, most).replace("$", r"\$")


def wrapped(text: object, width: int, n_lines: int) -> str:
    """Return a name as at most `n_lines` lines of `width` narrow characters, made safe to show."""
    safe = visible(text, width * n_lines * 2)
    fits = max(1, width * len(safe) // max(1, cell_len(safe)))  # wide characters take the place of two
    lines = textwrap.wrap(safe, fits, max_lines=n_lines, placeholder="…", break_on_hyphens=False)
    return "\n".join(lines).replace("$", r"\$")


def short_number(value: float, _: object = None) -> str:
    """Return a number of an axis, such as 0.003 or 1e-5."""
    return f"{value:.3g}".replace("e-0", "e-").replace("e+0", "e")


def number_log_axis(axis: Any) -> None:
    """Give a logarithmic axis numbers that can be read: each power of ten and, where these are few, 2, 3 and
    5 times it."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    low, high = sorted(axis.get_view_interval())
    ratio = high / low
    subs = (1.0,) if ratio > 1e4 else (1.0, 3.0) if ratio > 30 else (1.0, 2.0, 3.0, 5.0, 7.0)
    axis.set_major_locator(LogLocator(subs=subs, numticks=20))
    axis.set_major_formatter(FuncFormatter(short_number))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def bare(panel: Any) -> None:
    """Remove the frame and the ticks of a panel of cells."""
    panel.spines[:].set_visible(False)
    panel.tick_params(length=0)


def save(figure: Any, path: Path, dpi: int = 110) -> None:
    """Write the picture as PNG. Characters that its fonts lack are drawn by other installed fonts; those that
    no font has are printed."""
    from matplotlib.text import Text

    with atomic_write(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure.savefig(temporary, format="png", dpi=dpi)
        texts = figure.findobj(Text)
        if lacking := _lacking({c for text in texts for c in text.get_text() if not c.isascii()}):
            families, lacking = _fonts_with(lacking)
            for text in texts:
                text.set_fontfamily([*text.get_fontfamily(), *families])
            if families:
                figure.savefig(temporary, format="png", dpi=dpi)
    if lacking:
        info(
            f"{path}: boxes stand for characters that no installed font has: {summarize(sorted(lacking))}; "
            "install a font with them, such as Noto Sans CJK, and run the command again"
        )


def _lacking(characters: set[str]) -> set[str]:
    """Return the characters that matplotlib's default fonts lack."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    for family in FontProperties().get_family() if characters else ():
        font = get_font(findfont(FontProperties(family=[family])))
        characters = {c for c in characters if not font.get_char_index(ord(c))}
    return characters


def _fonts_with(lacking: set[str]) -> tuple[list[str], set[str]]:
    """Return the families of installed fonts that have these characters, and the characters that none has."""
    from matplotlib.font_manager import findSystemFonts, fontManager, get_font

    families: list[str] = []
    for path in sorted(findSystemFonts()):
        if not lacking:
            break
        try:
            font = get_font(path)
            covered = {c for c in lacking if font.get_char_index(ord(c)) and font.load_char(ord(c)).width}
            if not covered or "LastResort" in font.postscript_name:  # this font draws a box for any character
                continue
            fontManager.addfont(path)
        except (OSError, RuntimeError, ValueError, NotImplementedError):  # no font that matplotlib can draw
            continue
        families.append(font.family_name)
        lacking = lacking - covered
    return families, lacking
