"""Measure fastai's training rate. `comp bench speed --fastai PYTHON` runs this file with a Python that has
fastai and timm: `fastai_speed.py BACKBONE SIZE BATCH THREADS`, with one image file per line on standard
input. It prints the images per second of the second epoch, with fastai's satellite augmentation."""

import sys
import time

import numpy as np
import timm
import torch
from fastai.data.block import DataBlock, MultiCategoryBlock
from fastai.data.transforms import IndexSplitter
from fastai.learner import Learner
from fastai.losses import BCEWithLogitsLossFlat
from fastai.vision.augment import Resize, aug_transforms
from fastai.vision.data import ImageBlock


def main() -> None:
    backbone, size, batch, n_threads = sys.argv[1], *map(int, sys.argv[2:5])
    torch.set_num_threads(n_threads)
    files = sys.stdin.read().splitlines()
    classes = [f"c{i}" for i in range(17)]
    rng = np.random.default_rng(0)
    labels = [[c for c in classes if rng.random() < 0.2] for _ in files]
    block = DataBlock(
        blocks=(ImageBlock, MultiCategoryBlock(vocab=classes)),
        get_x=lambda i: files[i],
        get_y=lambda i: labels[i],
        splitter=IndexSplitter([0, 1]),
        item_tfms=Resize(size),
        batch_tfms=aug_transforms(flip_vert=True, max_lighting=0.1, max_zoom=1.05, max_warp=0.0),
    )
    loaders = block.dataloaders(range(len(files)), bs=batch, num_workers=n_threads)
    learner = Learner(loaders, timm.create_model(backbone, num_classes=17), loss_func=BCEWithLogitsLossFlat())
    with learner.no_logging():
        learner.fit(1)
        started = time.perf_counter()
        learner.fit(1)
    print(len(loaders.train) * batch / (time.perf_counter() - started))


main()
