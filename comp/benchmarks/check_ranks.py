"""One of the processes that torchrun starts for `comp check`: train together, and write the weights."""

import pickle
import sys
from pathlib import Path

import torch

from comp.benchmarks.check_inputs import train
from comp.compute.distributed import ProcessGroup


def main(given: Path, answer: Path) -> None:
    """Train on the pickled inputs `given`; rank 0 writes the weights to `answer`."""
    inputs = pickle.loads(given.read_bytes())
    with ProcessGroup.join() as ranks:
        device = ranks.device()
        device.activate()
        weights = train(inputs, device)
        if ranks.is_first:
            torch.save(weights, answer)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
