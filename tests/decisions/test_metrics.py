import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import fbeta_score

from comp.decisions.metrics import FBeta

pairs = st.tuples(st.integers(1, 12), st.integers(2, 6)).flatmap(
    lambda shape: st.tuples(*[arrays(np.uint8, shape, elements=st.integers(0, 1))] * 2)
)


@given(pairs, st.sampled_from(["samples", "macro", "micro"]), st.sampled_from([0.5, 1.0, 2.0]))
def test_fbeta_is_scikit_learns(pair, average, beta):
    targets, decisions = pair
    expected = fbeta_score(targets, decisions, beta=beta, average=average, zero_division=0)
    assert FBeta(beta=beta, average=average).score(targets, decisions) == pytest.approx(expected, abs=1e-12)


@given(pairs)
def test_fbeta_per_class_is_scikit_learns(pair):
    targets, decisions = pair
    expected = fbeta_score(targets, decisions, beta=2, average=None, zero_division=0)
    assert FBeta(beta=2).per_class(targets, decisions) == pytest.approx(expected, abs=1e-12)


def test_an_unknown_average_is_refused():
    with pytest.raises(ValueError, match="weighted"):
        FBeta(beta=1, average="weighted").score(np.ones((1, 2)), np.ones((1, 2)))
