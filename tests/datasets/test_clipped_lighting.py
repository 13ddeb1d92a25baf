"""The noise against numpy, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest

from pss_razor.datasets import ClippedLighting

EIGENVALUES = [55.4625, 4.7940, 1.1475]
EIGENVECTORS = [[-0.5836, -0.6948, 0.4203], [-0.5808, -0.0045, -0.8140], [-0.5675, 0.7192, 0.4009]]


def by_hand(image, strength):
    """Float sums of every pixel, rounded and clipped."""
    drawn = np.random.normal(0, strength, 3)
    noise = (np.array(EIGENVECTORS) * drawn * np.array(EIGENVALUES)).sum(1)
    return np.clip(np.rint(image.astype(np.float64) + noise), 0, 255)


@pytest.mark.parametrize("strength", [0.1, 3.0, 100.0])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_noise_is_added_rounded_and_clipped(strength, dtype):
    transform = ClippedLighting(EIGENVALUES, EIGENVECTORS, alphastd=strength)
    generator, clipped = np.random.default_rng(0), 0
    for number in range(100):
        image = generator.integers(0, 256, (*generator.integers(1, 30, 2), 3)).astype(dtype)
        np.random.seed(number)
        expected, after = by_hand(image, strength), np.random.randint(2**31)
        np.random.seed(number)
        found = transform(dict(img=image.copy()))["img"]
        assert found.dtype == dtype and np.random.randint(2**31) == after
        np.testing.assert_array_equal(found, expected)
        clipped += ((expected == 0) & (image > 0)).sum() + ((expected == 255) & (image < 255)).sum()
    assert clipped > 0


def test_to_rgb_swaps_the_channels():
    image = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    np.random.seed(0)
    expected = by_hand(image[..., ::-1], 0.1)
    np.random.seed(0)
    found = ClippedLighting(EIGENVALUES, EIGENVECTORS, alphastd=0.1, to_rgb=True)(dict(img=image))["img"]
    np.testing.assert_array_equal(found, expected)
