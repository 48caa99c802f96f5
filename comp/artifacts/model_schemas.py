"""Schemas of the header of a model's file."""

from typing import Self

from pydantic import ConfigDict, Field, model_validator

from comp.artifacts.schemas import Count, Positive, Stored


class Tensor(Stored):
    """A tensor in a safetensors header."""

    shape: list[Count]


class SafetensorsHeader(Stored):
    """The header of a safetensors file."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Tensor] = Field(init=False)

    metadata: dict[str, str] = Field({}, alias="__metadata__")


class NumberScale(Stored):
    """comp.models.numbers.NumberScale."""

    model_config = ConfigDict(extra="forbid")

    mean: list[float] = Field(min_length=1)
    std: list[Positive]
    y_range: list[float] = []

    @model_validator(mode="after")
    def _check_lengths(self) -> Self:
        if len(self.mean) != len(self.std) or len(self.y_range) not in (0, 2):
            raise ValueError("as many std as means, and a y_range of two numbers or none, are expected")
        return self


class Spec(Stored):
    """comp.models.network.ModelSpec. Unknown fields are refused, since they could change the network."""

    model_config = ConfigDict(extra="forbid")

    backbone: str
    classes: list[str] = Field(min_length=1)
    n_channels: int = Field(ge=1)
    size: int = Field(ge=1)
    mean: list[float]
    std: list[Positive]
    drop_rate: float = Field(0.0, ge=0, lt=1)
    groups: list[list[Count]] = []
    numbers: NumberScale | None = None
    cosine: float = Field(0.0, ge=0)
    feature_mean: list[float] = []
    feature_std: list[Positive] = []

    @model_validator(mode="after")
    def _check_lengths(self) -> Self:
        if not len(self.mean) == len(self.std) or len(self.mean) not in (0, self.n_channels):
            raise ValueError(
                f"{self.n_channels} channels have {len(self.mean)} means and {len(self.std)} std"
            )
        if any(c >= len(self.classes) for group in self.groups for c in group):
            raise ValueError(f"groups have a number beyond the {len(self.classes)} classes")
        if self.numbers and len(self.numbers.mean) != len(self.classes):
            raise ValueError(f"numbers have {len(self.numbers.mean)} means for {len(self.classes)} columns")
        if len(self.feature_mean) != len(self.feature_std):
            raise ValueError("feature_mean and feature_std differ in length")
        return self
