"""Pictures that matplotlib draws, with names in them from outside."""

import warnings
from pathlib import Path
from typing import Any

from comp.artifacts.files import replacing
from comp.console import say
from comp.errors import some
from comp.safe_text import visible

MOST_OF_NAME = 60  # characters


def new_figure(**settings: Any) -> Any:
    """A matplotlib Figure, which needs no screen."""
    from matplotlib.figure import Figure

    return Figure(**settings)


def written(name: object, most: int = MOST_OF_NAME) -> str:
    """A name as it is to be read in a picture, where a $ begins no formula."""
    return visible(name, most).replace("$", r"\$")


def save(figure: Any, path: Path, dpi: int = 110) -> None:
    """Write the picture as PNG. Characters that its fonts lack are taken from others that are installed, and
    those that no font has are named."""
    from matplotlib.text import Text

    with replacing(path) as temporary, warnings.catch_warnings():
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
        say(
            f"{path}: boxes stand for characters that no font here has: {some(sorted(lacking))}; install one "
            "that has them, such as Noto Sans CJK, and draw it again"
        )


def _lacking(characters: set[str]) -> set[str]:
    """Those that matplotlib's own font, or the user's, does not have."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    for family in FontProperties().get_family() if characters else ():
        font = get_font(findfont(FontProperties(family=[family])))
        characters = {c for c in characters if not font.get_char_index(ord(c))}
    return characters


def _fonts_with(lacking: set[str]) -> tuple[list[str], set[str]]:
    """Installed fonts that have these characters, by family, and the characters that none has."""
    from matplotlib.font_manager import findSystemFonts, fontManager, get_font

    families: list[str] = []
    for path in sorted(findSystemFonts()):
        if not lacking:
            break
        try:
            font = get_font(path)
            drawn = {c for c in lacking if font.get_char_index(ord(c)) and font.load_char(ord(c)).width}
            if not drawn or "LastResort" in font.postscript_name:  # which has a box for everything
                continue
            fontManager.addfont(path)
        except (OSError, RuntimeError, ValueError, NotImplementedError):  # no font that matplotlib can draw
            continue
        families.append(font.family_name)
        lacking = lacking - drawn
    return families, lacking
