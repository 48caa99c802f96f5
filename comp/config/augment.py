"""The augmentation settings: named sets, and tables that extend one."""

from typing import Any, Literal

from pydantic import Field, model_serializer, model_validator

from comp.config.schema import Strict, did_you_mean
from comp.user_code import is_pipeline, is_reference

# Named sets: the keys that differ from no augmentation. "satellite" is for views from above, with small
# changes of position and light; "microscopy" rotates further, and varies the staining of each channel.
AUGMENTATIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "dihedral": {"symmetry": "d4"},
    "satellite": {"symmetry": "d4", "zoom": 0.1, "shift": 0.06, "turn": 15.0, "light": 0.1},
    "microscopy": {"symmetry": "d4", "zoom": 0.15, "shift": 0.06, "turn": 45.0, "light": 0.1, "gain": 0.2},
}


class Augment(Strict):
    """How training changes images: a named set, or a table of the keys that differ from one. Each image gets
    its own values, uniformly distributed. Serialized as it was written: a name, or a table."""

    extends: str = "satellite"
    """The named set that it differs from; or, without other keys, albumentations of your own: FILE.py:NAME,
    or a YAML or JSON file."""
    symmetry: Literal["none", "flip_h", "flips", "d4"] = "none"
    """One of these flips and turns, at random."""
    zoom: float = Field(0.0, ge=0, lt=1)
    """Zoom in or out by up to this share."""
    shift: float = Field(0.0, ge=0, lt=1)
    """Shift by up to this share of the side; borders are mirrored."""
    turn: float = Field(0.0, ge=0, le=180)
    """Rotate by up to so many degrees, either way."""
    light: float = Field(0.0, ge=0, lt=1)
    """Change contrast and brightness by up to this share."""
    gain: float = Field(0.0, ge=0, lt=1)
    """Scale each channel by up to this share."""
    crop: float = Field(1.0, gt=0, le=1)
    """Smallest area share of a random resized crop; 1: no crop."""
    p: float = Field(0.5, ge=0, le=1)
    """Probability of each of: moves, light, gain."""

    @model_validator(mode="before")
    @classmethod
    def _extend_named_set(cls, value: Any) -> Any:
        value = {"extends": value} if isinstance(value, str) else value
        if not isinstance(value, dict):
            return value
        name = str(value.get("extends", cls.model_fields["extends"].default))
        if is_reference(name) or is_pipeline(name):
            if more := sorted(value.keys() - {"extends"}):
                raise ValueError(f"{name} is used as it is, without other keys; remove {', '.join(more)}")
            return value
        if name not in AUGMENTATIONS:
            hint = did_you_mean(name, AUGMENTATIONS) or f"; there are {', '.join(AUGMENTATIONS)}"
            raise ValueError(f"unknown augmentation {name!r}{hint}")
        return {**AUGMENTATIONS[name], **value}

    @model_serializer
    def _as_written(self) -> str | dict[str, Any]:
        named = Augment(extends=self.extends)
        differs = {key: value for key, value in self if value != getattr(named, key)}
        return {"extends": self.extends, **differs} if differs else self.extends

    @property
    def own(self) -> bool:
        """Whether it is a pipeline of the user's."""
        return self.extends not in AUGMENTATIONS

    @property
    def moves(self) -> bool:
        """Whether it zooms, shifts or rotates."""
        return bool(self.zoom or self.shift or self.turn)

    @property
    def nothing(self) -> bool:
        """Whether it leaves all images as they are."""
        changes = self.moves or self.light or self.gain or self.crop < 1 or self.symmetry != "none"
        return not changes and not self.own
