"""A run as trackers see it."""

from dataclasses import dataclass
from typing import Any

from comp.artifacts.files import flat, read_json, write_json
from comp.artifacts.paths import decision_path, started_path, tensorboard_dir, tracked_path
from comp.artifacts.resumable import read_log
from comp.artifacts.schemas import Decision, Started, Told
from comp.artifacts.stamps import digest, plain, read_stamp
from comp.config.recipe import Recipe
from comp.errors import CompError


@dataclass(frozen=True)
class Run:
    """What is one run to a tracker: a fold's training, or with `fold` None the recipe's decision."""

    recipe: Recipe
    fold: int | None
    stamp: dict[str, Any]

    @property
    def id(self) -> str:
        """The same for what goes on, another one for what is trained anew."""
        path = None if self.fold is None else started_path(self.recipe.name, self.fold)
        begun = read_json(path, Started).get("begun") if path and path.exists() else None
        return digest(self.recipe.name, self.fold, plain(self.stamp), begun)

    @property
    def kind(self) -> str:
        return "decision" if self.fold is None else "fold"

    @property
    def name(self) -> str:
        return f"{self.recipe.name} {self.kind}" + ("" if self.fold is None else f" {self.fold}")

    @property
    def config(self) -> dict[str, Any]:
        """The recipe by dotted keys."""
        content = {**self.recipe.model_dump(mode="json", exclude={"track", "tune"}), "fold": self.fold}
        return {key: value for key, value in flat(content).items() if value not in (None, [], {})}

    @property
    def n_rows(self) -> int:
        """How many rows there will be."""
        return 1 if self.fold is None else sum(phase.epochs for phase in self.recipe.phases)

    def rows(self) -> list[dict[str, float]]:
        """The numbers of each epoch so far, or of the decision; none where files are of other settings."""
        name, fold = self.recipe.name, self.fold
        if fold is None:
            if read_stamp(path := decision_path(name)) != plain(self.stamp):
                return []
            contents = [read_json(path, Decision)["scores"]]
        else:
            if read_stamp(started_path(name, fold)) != plain(self.stamp):
                return []
            contents = read_log(name, fold)
        return [{key: value for key, value in row.items() if type(value) in (int, float)} for row in contents]

    def n_told(self, tracker: str) -> int:
        path = tracked_path(self.recipe.name, self.fold, tracker)
        if tracker == "tensorboard" and not tensorboard_dir(self.recipe.name, self.fold).exists():
            return 0
        try:
            told = read_json(path, Told) if path.exists() else {}
        except CompError:  # cut off, or edited: what is known already is told again
            told = {}
        return told["rows"] if told.get("run") == self.id else 0

    def note(self, tracker: str, n_told: int) -> None:
        write_json(tracked_path(self.recipe.name, self.fold, tracker), {"run": self.id, "rows": n_told})
