"""One of the processes that torchrun starts for `comp check`: do a step together, and write its gradients."""

import pickle
import sys
from pathlib import Path

import torch

from comp.benchmarks.check_inputs import gradients
from comp.compute.distributed import ProcessGroup


def main(given: Path, answer: Path) -> None:
    """Do the first step on the pickled inputs `given`. Rank 0 writes its gradients to `answer`."""
    inputs = pickle.loads(given.read_bytes())
    with ProcessGroup.join() as ranks:
        device = ranks.device()
        device.activate()
        _, found = gradients(inputs, device, ranks)
        if ranks.is_first:
            torch.save(found, answer)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
