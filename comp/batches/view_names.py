"""Names of test-time views (TTA), without torch."""

from collections.abc import Sequence

from comp.errors import CompError
from comp.user_code import Code, is_reference, stamped

SYMMETRIES = (
    "identity", "flip_h", "flip_v", "rot90", "rot180", "rot270", "transpose", "antitranspose",
)  # fmt: skip
CROPS = ("crop_center", "crop_tl", "crop_tr", "crop_bl", "crop_br")
SETS = {
    "d4": SYMMETRIES,
    "flips": ("identity", "flip_h", "flip_v", "rot180"),
    "crops": ("identity", *CROPS),
}


def view_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return the views for names of views and of sets ("d4", "flips", "crops"), each once; a user's own view
    is named FILE.py:NAME. Raise CompError for an unknown name."""
    known = (*SYMMETRIES, *CROPS)
    views = [view for name in names for view in SETS.get(name, (name,))]
    if unknown := [view for view in views if view not in known and not is_reference(view)]:
        raise CompError(f"unknown view {unknown[0]!r}; there are {', '.join([*SETS, *known])}")
    return tuple(dict.fromkeys(views))


def stamped_views(names: Sequence[str], code: Code) -> list[str]:
    """Return the views as stamps have them: a user's own with the digest of its source."""
    return stamped(view_names(names), code)
