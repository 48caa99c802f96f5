"""A run in one line: settings, folds that are done, scores, training time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from comp.artifacts.decision_schema import Decision
from comp.artifacts.files import read_json
from comp.artifacts.paths import decision_path, has_results, model_path, run_recipe_path, run_recipes
from comp.artifacts.resumable import read_log
from comp.config.loading import load_recipe
from comp.config.recipe import Recipe


@dataclass(frozen=True)
class RunSummary:
    recipe: Recipe
    begun: float  # modification time of recipe.toml, seconds
    n_done: int  # networks that are trained
    n_networks: int
    seconds: float  # training time of all folds, summed
    cross_fitted: float | None
    corrected: float | None  # the same by corrected labels
    public: float | None
    private: float | None

    @property
    def backbones(self) -> str:
        return "+".join(dict.fromkeys(r.backbone for r in self.recipe.members or (self.recipe,)))

    @property
    def sizes(self) -> str:
        """The sizes of the phases, such as '64-128'; of members, those of the first."""
        phases = (self.recipe.members or (self.recipe,))[0].phases
        return "-".join(dict.fromkeys(str(phase.size) for phase in phases))


def summarize_run(recipe: Recipe, submissions: Sequence[Mapping[str, str]]) -> RunSummary:
    """Return the summary of a run. `submissions` are rows of the ledger; of the run's, the last one with a
    public score counts."""
    name, path = recipe.name, decision_path(recipe.name)
    scores = read_json(path, Decision)["scores"] if path.exists() else {}
    networks = [(r.name, fold) for r in recipe.members or (recipe,) for fold in range(r.n_networks)]
    logs = [read_log(*network) for network in networks]
    scored = [row for row in submissions if row["recipe"] == name and row["public"]]
    board = scored[-1] if scored else {"public": "", "private": ""}
    return RunSummary(
        recipe=recipe,
        begun=run_recipe_path(name).stat().st_mtime if run_recipe_path(name).exists() else 0.0,
        n_done=sum(model_path(*network).exists() for network in networks),
        n_networks=len(networks),
        seconds=sum(epoch["seconds"] for log in logs for epoch in log),
        cross_fitted=scores.get("cross_fitted"),
        corrected=scores.get("corrected"),
        public=float(board["public"]) if board["public"] else None,
        private=float(board["private"]) if board["private"] else None,
    )


def summarize_runs(submissions: Sequence[Mapping[str, str]]) -> list[RunSummary]:
    """Return the summaries of all runs that have results, the newest first."""
    begun = {name: path for name, path in run_recipes().items() if has_results(name)}
    found = [summarize_run(load_recipe(str(path)), submissions) for path in begun.values()]
    return sorted(found, key=lambda run: -run.begun)
