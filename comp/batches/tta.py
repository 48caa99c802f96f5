"""The functions of test-time views (TTA)."""

from collections.abc import Callable, Sequence

import torch
from torch.nn import functional

from comp.batches.view_names import view_names
from comp.errors import CompError
from comp.user_code import Code, load_function

View = Callable[[torch.Tensor], torch.Tensor]
# Views of square batches (B, channels, H, W): the symmetries of a square, and crops.
SYMMETRIES: dict[str, View] = {
    "identity": lambda x: x,
    "flip_h": lambda x: x.flip(3),
    "flip_v": lambda x: x.flip(2),
    "rot90": lambda x: x.rot90(1, (2, 3)),
    "rot180": lambda x: x.rot90(2, (2, 3)),
    "rot270": lambda x: x.rot90(3, (2, 3)),
    "transpose": lambda x: x.transpose(2, 3),
    "antitranspose": lambda x: x.rot90(2, (2, 3)).transpose(2, 3),
}


def _crop(top: float, left: float) -> View:
    """Return the view of a window of 7/8 of each side, resized bilinearly to the full size. `top` and `left`
    are the shares, 0 … 1, of the cut-off pixels on those sides."""

    def view(x: torch.Tensor) -> torch.Tensor:
        n_rows, n_columns = (round(length * 7 / 8) for length in x.shape[2:])
        row, column = round((x.shape[2] - n_rows) * top), round((x.shape[3] - n_columns) * left)
        part = x[:, :, row : row + n_rows, column : column + n_columns]
        return functional.interpolate(part, x.shape[2:], mode="bilinear", align_corners=False)

    return view


CROPS = {
    "crop_center": _crop(0.5, 0.5),
    "crop_tl": _crop(0, 0),
    "crop_tr": _crop(0, 1),
    "crop_bl": _crop(1, 0),
    "crop_br": _crop(1, 1),
}


VIEWS = SYMMETRIES | CROPS


def make_views(names: Sequence[str], code: Code) -> list[View]:
    """Return the functions of the views, in the order of `view_names`. Raise CompError for an unknown one."""
    return [VIEWS[name] if name in VIEWS else _own_view(name, code) for name in view_names(names)]


def _own_view(name: str, code: Code) -> View:
    function = load_function(name, code, "batch")

    def view(x: torch.Tensor) -> torch.Tensor:
        seen = function(x)
        if not isinstance(seen, torch.Tensor) or seen.shape != x.shape or seen.dtype != x.dtype:
            found = (
                f"{seen.dtype} {tuple(seen.shape)}" if isinstance(seen, torch.Tensor) else type(seen).__name__
            )
            raise CompError(
                f"{name} returned {found}; {x.dtype} {tuple(x.shape)} is expected, as it was given"
            )
        return seen

    return view
