"""MMRazor's predictor over a search space: every handler that can be had, and what is said about the others."""

import importlib.util

import numpy as np
import pytest
import torch

from pss_razor.core import ConfigError, Dimension, MissingPackageError, SearchSpace
from pss_razor.engine.loops.subnet_predictor import SubnetPredictor

from mmengine.registry import DefaultScope
from mmrazor.models.task_modules.predictor.handler import CartsHandler

SPACE = SearchSpace([Dimension(f"op{i}", "op", tuple("abcd"[:n])) for i, n in enumerate((4, 3, 4, 2))])
CARTS = dict(type="MetricPredictor", handler_cfg=dict(type="CartsHandler", num_trees=20), train_samples=12)
INDICES = np.random.default_rng(0).integers(SPACE.shape, size=(140, 4))
SCORES = INDICES @ np.array([1.0, 2.0, 0.5, 3.0])


@pytest.fixture(autouse=True)
def scope():
    with DefaultScope.overwrite_default_scope("mmrazor"):
        yield


def build(**options):
    return SubnetPredictor({**CARTS, **options}, SPACE, seed=0)


@pytest.mark.parametrize("encoding_type", ["onehot", "normal"])
@pytest.mark.parametrize(
    "handler",
    [dict(type="CartsHandler", num_trees=20), dict(type="GaussProcessHandler"), dict(type="MLPHandler", epochs=150)],
    ids=lambda handler: handler["type"],
)
def test_handlers_rank_subnets_that_they_have_not_seen(handler, encoding_type):
    """The score is a sum over places. A fit depends on nothing but samples and seed."""
    if handler["type"] == "GaussProcessHandler":
        pytest.importorskip("pydacefit", reason="pip install 'pss_razor[predictor]'")
    predictor = build(handler_cfg=handler, encoding_type=encoding_type)
    predictor.fit(INDICES[:60], SCORES[:60])
    predictions = predictor.predict(INDICES[60:])
    assert predictions.shape == (80,) and np.corrcoef(predictions, SCORES[60:])[0, 1] > 0.8
    np.random.seed(1), torch.manual_seed(1)
    again = build(handler_cfg=handler, encoding_type=encoding_type)
    again.fit(INDICES[:60], SCORES[:60])
    assert (again.predict(INDICES[60:]) == predictions).all()
    assert predictor.predict(INDICES[:0]).shape == (0,)


def test_fitting_draws_no_numbers_of_others():
    np.random.seed(3)
    before = np.random.random()
    np.random.seed(3)
    build().fit(INDICES, SCORES)
    assert np.random.random() == before


@pytest.mark.parametrize("encoding_type", ["onehot", "normal"])
def test_encodings(encoding_type, monkeypatch):
    """A one for each choice, or its number."""
    seen = []
    monkeypatch.setattr(CartsHandler, "fit", lambda self, data, label: seen.append((data, label)))
    monkeypatch.setattr(CartsHandler, "predict", lambda self, data: np.zeros(len(data)))
    build(encoding_type=encoding_type).fit(np.array([[3, 0, 1, 1]]), np.array([7.0]))
    ((data, label),) = seen
    expected = [3, 0, 1, 1] if encoding_type == "normal" else [0, 0, 0, 1, 1, 0, 0, 0, 1, 0, 0, 0, 1]
    assert data.tolist() == [expected] and label.tolist() == [7.0]


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        ("GaussProcessHandler", r"needs pydacefit, not installed here: pip install 'pss_razor\[predictor\]'"),
        ("mmrazor.GaussProcessHandler", r"needs pydacefit"),
        ("RBFHandler", r"needs pySOT, not installed here: pip install pySOT==0\.2\.3"),
    ],
)
def test_a_missing_package(monkeypatch, handler, message):
    find_spec = importlib.util.find_spec
    missing = ("pydacefit", "pySOT")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in missing else find_spec(name))
    with pytest.raises(MissingPackageError, match=message):
        build(handler_cfg=dict(type=handler))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(handler_ckpt="a.joblib"), r"handler_ckpt is a pickle.*train_samples"),
        (dict(train_samples=1), r"train_samples = 1 must be at least 2"),
    ],
)
def test_what_cannot_work(options, message):
    with pytest.raises(ConfigError, match=message):
        build(**options)


def fail(self, data, label):
    raise np.linalg.LinAlgError("singular")


@pytest.mark.parametrize(
    ("method", "replacement"), [("fit", fail), ("predict", lambda self, data: np.full(len(data), np.nan))]
)
def test_a_handler_that_cannot_be_fitted(monkeypatch, method, replacement):
    monkeypatch.setattr(CartsHandler, method, replacement)
    with pytest.raises(ConfigError, match=r"CartsHandler cannot be fitted to 5 subnets .*enlarge train_samples"):
        build().fit(INDICES[:5], SCORES[:5])
