"""Small pictures of the worst held-out images, made from the image files when they are first shown."""

import base64
from collections import OrderedDict
from collections.abc import Collection
from threading import Lock
from typing import TYPE_CHECKING

from comp.artifacts.paths import manifest_path
from comp.config.recipe import Recipe
from comp.errors import CompError
from comp.watch.fold_logs import FileCache

if TYPE_CHECKING:  # it imports pandas, which takes a second
    from comp.data.image_files import ImageSet

PICTURE_SIZE = 160  # pixels
MAX_KEPT = 2000  # pictures of about 6 kB
Key = tuple[str, str]  # competition, id


class Pictures:
    """JPEGs by competition and id, the latest kept in memory."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.files = FileCache()
        self.places: dict[Key, tuple[ImageSet, int] | None] = {}
        self.kept: OrderedDict[Key, bytes] = OrderedDict()

    def get(self, recipe: Recipe, image_id: str, others: Collection[str] = ()) -> bytes | None:
        """Return the JPEG of a training image, by its id as log.jsonl has it; None if it can't be read. Files
        of `others` are looked for at the same time, since folders may be large."""
        with self.lock:
            key = recipe.competition.name, image_id
            if key not in self.kept:
                if key not in self.places:
                    self._find(recipe, {image_id, *others})
                self.kept[key] = self._made(key)
                while len(self.kept) > MAX_KEPT:
                    self.kept.popitem(last=False)
            return self.kept[key] or None

    def encoded(self, recipe: Recipe, image_ids: Collection[str]) -> dict[str, str]:
        """Return the JPEGs in base64 by id, without those that can't be read."""
        found = {image_id: self.get(recipe, image_id, image_ids) for image_id in image_ids}
        return {image_id: base64.b64encode(jpeg).decode() for image_id, jpeg in found.items() if jpeg}

    def _find(self, recipe: Recipe, image_ids: Collection[str]) -> None:
        """Find the files of images: all at once, or where some have none, one by one."""
        import numpy as np

        from comp.data.manifest import read_manifest

        competition = recipe.competition
        lacking = sorted(one for one in image_ids if (competition.name, one) not in self.places)
        self.places |= {(competition.name, one): None for one in lacking}
        for part in (lacking, *([one] for one in lacking)):
            try:
                data = self.files.read(manifest_path(competition.name), lambda _: read_manifest(competition))
                if data is None:
                    return
                images = data.images("train", np.array(part), competition.images.channel_names)
            except (CompError, OSError):
                continue
            self.places |= {(competition.name, one): (images, row) for row, one in enumerate(part)}
            if part is lacking:
                return

    def _made(self, key: Key) -> bytes:
        """Return a JPEG; b"" for an image without a file, or one that can't be read."""
        import cv2

        from comp.data.thumbnails import encode_jpeg, thumbnail

        cv2.setNumThreads(1)  # the cores are the training's
        if not (place := self.places[key]):
            return b""
        try:
            return base64.b64decode(encode_jpeg(thumbnail(*place, PICTURE_SIZE), 85))
        except OSError:
            return b""
