import pytest

from pss_razor.core import ConfigError, Rescoring, build_rescorings


def test_times_from_configs():
    built = build_rescorings([dict(at=0.25, images=8, fresh=3, keep=2), dict(at=0.5, images=16)])
    assert built == (Rescoring(0.25, 8, 3, 2), Rescoring(0.5, 16, 0, None))
    assert build_rescorings([]) == ()


@pytest.mark.parametrize(
    ("configs", "says"),
    [
        (dict(at=0.5, images=8), "must be a list of dicts"),
        ([0.5], "must be a list of dicts"),
        ([dict(at=0.5)], "needs at and images"),
        ([dict(at=0.5, images=8, count=3)], "needs at and images"),
        ([dict(at=1.0, images=8)], "at = 1.0 must be a share"),
        ([dict(at=-0.1, images=8)], "at = -0.1 must be a share"),
        ([dict(at="half", images=8)], "at = 'half' must be a share"),
        ([dict(at=0.5, images=0)], "images = 0 must be a whole number of at least 1"),
        ([dict(at=0.5, images=8, fresh=-1)], "fresh = -1 must be a whole number of at least 0"),
        ([dict(at=0.5, images=8, keep=0)], "keep = 0 must be a whole number of at least 1"),
        ([dict(at=0.5, images=8), dict(at=0.5, images=8)], r"at = \[0.5, 0.5\] must increase"),
    ],
)
def test_what_cannot_work(configs, says):
    with pytest.raises(ConfigError, match=says):
        build_rescorings(configs)
