"""One run of a tracker, its rows, and how many of them were sent."""

from dataclasses import dataclass
from typing import Any

from comp.artifacts.decision_schema import Decision
from comp.artifacts.files import flatten, read_json, write_json
from comp.artifacts.paths import decision_path, started_path, tensorboard_dir, tracked_path
from comp.artifacts.resumable import read_log
from comp.artifacts.schemas import TrackedRows, TrainingStart
from comp.artifacts.stamps import digest, read_stamp, to_json
from comp.config.recipe import Recipe
from comp.errors import CompError


@dataclass(frozen=True)
class Run:
    """One run of a tracker: a fold's training, or with `fold` None the recipe's decision."""

    recipe: Recipe
    fold: int | None
    stamp: dict[str, Any]

    @property
    def id(self) -> str:
        """Return the run's id. It stays the same when training resumes, and changes when it starts again."""
        path = None if self.fold is None else started_path(self.recipe.name, self.fold)
        begun = read_json(path, TrainingStart).get("begun") if path and path.exists() else None
        return digest(self.recipe.name, self.fold, to_json(self.stamp), begun)

    @property
    def kind(self) -> str:
        return "decision" if self.fold is None else "fold"

    @property
    def name(self) -> str:
        return f"{self.recipe.name} {self.kind}" + ("" if self.fold is None else f" {self.fold}")

    @property
    def config(self) -> dict[str, Any]:
        """Return the recipe's settings by dotted keys, without empty ones."""
        content = {
            **self.recipe.model_dump(mode="json", exclude={"track", "tune", "code"}),
            "fold": self.fold,
        }
        content["competition"]["labels"].pop("corrections", None)  # a text, with names of people
        return {key: value for key, value in flatten(content).items() if value not in (None, [], {})}

    @property
    def n_rows(self) -> int:
        """Return the number of rows of the finished run."""
        return 1 if self.fold is None else sum(phase.epochs for phase in self.recipe.phases)

    def rows(self) -> list[dict[str, float]]:
        """Return the numbers of each epoch so far, or of the decision. Return no rows if files have another
        stamp."""
        name, fold = self.recipe.name, self.fold
        if fold is None:
            if read_stamp(path := decision_path(name)) != to_json(self.stamp):
                return []
            contents = [read_json(path, Decision)["scores"]]
        else:
            if read_stamp(started_path(name, fold)) != to_json(self.stamp):
                return []
            contents = read_log(name, fold)
        return [{key: value for key, value in row.items() if type(value) in (int, float)} for row in contents]

    def n_sent(self, tracker: str) -> int:
        """Return how many rows were sent to a tracker."""
        path = tracked_path(self.recipe.name, self.fold, tracker)
        if tracker == "tensorboard" and not tensorboard_dir(self.recipe.name, self.fold).exists():
            return 0
        try:
            sent = read_json(path, TrackedRows) if path.exists() else {}
        except CompError:  # truncated or edited: send all rows again
            sent = {}
        return sent["rows"] if sent.get("run") == self.id else 0

    def mark_sent(self, tracker: str, n_sent: int) -> None:
        """Record how many rows were sent to a tracker."""
        write_json(tracked_path(self.recipe.name, self.fold, tracker), {"run": self.id, "rows": n_sent})
