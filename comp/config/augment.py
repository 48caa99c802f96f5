"""Augmentation as settings: named sets, and what differs from one."""

from typing import Any, Literal

from pydantic import Field, model_serializer, model_validator

from comp.config.schema import Strict, _nearest

# Augmentation by name, each by what differs from nothing. "satellite": seen from above, small differences of
# place and light; "microscopy": turned any way, and stained more in one channel and less in another.
AUGMENTATIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "dihedral": {"symmetry": "d4"},
    "satellite": {"symmetry": "d4", "zoom": 0.1, "shift": 0.06, "turn": 15.0, "light": 0.1},
    "microscopy": {"symmetry": "d4", "zoom": 0.15, "shift": 0.06, "turn": 45.0, "light": 0.1, "gain": 0.2},
}


class Augment(Strict):
    """What training changes about images, each with its own draw, evenly distributed: a named set, or a table
    of what differs from one. Written down as it was named."""

    extends: str = "satellite"  # one of AUGMENTATIONS
    symmetry: Literal["none", "flip_h", "flips", "d4"] = "none"  # one of these views, always drawn
    zoom: float = Field(0.0, ge=0, lt=1)  # share by which images become larger or smaller
    shift: float = Field(0.0, ge=0, lt=1)  # share of the side, each way; what is laid bare is mirrored
    turn: float = Field(0.0, ge=0, le=180)  # degrees, either way
    light: float = Field(0.0, ge=0, lt=1)  # of contrast and of brightness, share of their range, either way
    gain: float = Field(0.0, ge=0, lt=1)  # of each channel by itself, share of its values, either way
    crop: float = Field(1.0, gt=0, le=1)  # least share of the area of a random resized crop, always drawn
    p: float = Field(0.5, ge=0, le=1)  # share of images that are moved; that are lit; that have gains

    @model_validator(mode="before")
    @classmethod
    def _over_its_set(cls, value: Any) -> Any:
        value = {"extends": value} if isinstance(value, str) else value
        if not isinstance(value, dict):
            return value
        name = str(value.get("extends", cls.model_fields["extends"].default))
        if name not in AUGMENTATIONS:
            hint = _nearest(name, AUGMENTATIONS) or f"; there are {', '.join(AUGMENTATIONS)}"
            raise ValueError(f"unknown augmentation {name!r}{hint}")
        return {**AUGMENTATIONS[name], **value}

    @model_serializer
    def _by_name(self) -> str | dict[str, Any]:
        named = Augment(extends=self.extends)
        differs = {key: value for key, value in self if value != getattr(named, key)}
        return {"extends": self.extends, **differs} if differs else self.extends

    @property
    def moves(self) -> bool:
        return bool(self.zoom or self.shift or self.turn)

    @property
    def nothing(self) -> bool:
        """Whether it leaves all images as they are."""
        changes = self.moves or self.light or self.gain or self.crop < 1 or self.symmetry != "none"
        return not changes
