"""A fake Kaggle on 127.0.0.1 for the real client: competitions, submissions, datasets and kernels over the
client's own protocol, with failures on demand. `python -m tests.fake_kaggle` starts it by hand."""

from tests.fake_kaggle.failures import TRANSIENT
from tests.fake_kaggle.fake import FakeKaggle
from tests.fake_kaggle.samples import MIRROR, PLANET, hpa, old_planet, planet

__all__ = ["MIRROR", "PLANET", "TRANSIENT", "FakeKaggle", "hpa", "old_planet", "planet"]
