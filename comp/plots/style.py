"""What all pictures share: figures, names as text, PNG files with fonts for all characters."""

import io
import warnings
from pathlib import Path
from typing import Any

from comp.artifacts.files import atomic_write
from comp.console import info
from comp.errors import summarize
from comp.safe_text import visible

MAX_NAME = 60  # characters


def new_figure(**settings: Any) -> Any:
    """Return a matplotlib Figure, which needs no screen."""
    from matplotlib.figure import Figure

    class Picture(Figure):
        """A figure that notebooks show without any set-up."""

        def _repr_png_(self) -> bytes:
            png = io.BytesIO()
            self.savefig(png, format="png", dpi=70)
            return png.getvalue()

    return Picture(**settings)


def escape_text(name: object, most: int = MAX_NAME) -> str:
    """Return a name made safe to show, with $ escaped so that matplotlib does not read it as math."""
    return visible(name, most).replace("$", r"\$")


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
