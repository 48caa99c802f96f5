"""Train one fold, from its last checkpoint to its model file."""

import time
from contextlib import nullcontext

from comp import __version__
from comp.artifacts.files import read_json, write_json
from comp.artifacts.git import commit_of_comp
from comp.artifacts.paths import checkpoint_path, model_path, started_path
from comp.artifacts.resumable import training_files
from comp.artifacts.schemas import TrainingStart
from comp.artifacts.stamps import is_done
from comp.compute.devices import Device, processor_name
from comp.compute.distributed import ProcessGroup
from comp.compute.jobs import Report
from comp.deadline import NEVER
from comp.errors import TimeIsUp
from comp.models import network as models
from comp.training.epoch_lines import header
from comp.training.trainer import Trainer
from comp.training.training_data import FoldInputs


def train_fold(inputs: FoldInputs, force: bool, *, device: Device, report: Report, deadline: float) -> None:
    """Train one fold and write its model file. Resume from last.pt where its stamp is the same. Raise
    TimeIsUp where the next epoch would end after the deadline."""
    recipe, fold, stamp = inputs.recipe, inputs.fold, inputs.stamp
    ranks = ProcessGroup.from_torchrun()
    with training_files(recipe.name, fold).locked() if ranks.is_first else nullcontext():
        if ranks.broadcast(is_done(model_path(recipe.name, fold), stamp, force=force)):
            report(line="finished by another process")
            return
        place = device.activate(deterministic=recipe.deterministic)
        trainer = Trainer(inputs, place, device.n_loaders, ranks)
        resumed = trainer.resume()
        ranks.wait()  # all ranks have read the files that are replaced now
        if ranks.is_first:
            model_path(recipe.name, fold).unlink(missing_ok=True)
            trainer.write_log()  # before started.json, which says whose log it is
            path = started_path(recipe.name, fold)
            kept = read_json(path, TrainingStart) if resumed and path.exists() else {"begun": time.time_ns()}
            about = {"recipe": recipe.model_dump(mode="json"), "stamp": stamp, "begun": kept.get("begun")}
            about |= {"comp": __version__, "commit": commit_of_comp(), "processor": processor_name(place)}
            n_processors = ranks.size if place.type == "cuda" else device.n_threads
            write_json(path, about | {"processors": n_processors})
        if line := models.lacks_graphs(recipe.compile, place, ranks.size):
            report(line=line)
        if resumed:
            report(line=f"resuming after epoch {trainer.n_epochs_done} of {trainer.n_epochs}")
        else:
            report(line=header(trainer.scores.columns))
        while trainer.n_epochs_done < trainer.n_epochs:
            if ranks.broadcast(time.time() + trainer.expected_seconds() > deadline):
                raise TimeIsUp(trainer.progress())
            report(line=trainer.epoch(report, deadline if ranks.size == 1 else NEVER))
            if ranks.is_first:
                trainer.save()
                report(saved=True)
        if ranks.is_first:
            trainer.write_log()
            state = trainer.state
            extra = {"pseudo": inputs.pseudo_source} if inputs.pseudo_source else {}
            models.save(model_path(recipe.name, fold), state.averages.averaged, state.spec, stamp, extra)
            checkpoint_path(recipe.name, fold).unlink(missing_ok=True)
