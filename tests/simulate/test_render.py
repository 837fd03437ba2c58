"""Rendered stamps: profiles, seeing and pixels, held against GalSim and against what is known of them."""

from __future__ import annotations

import galsim
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zmill.simulate import profiles
from zmill.simulate.render import Sources, render

SCALE = 0.396


def sources(n=1, **other):
    """n galaxies of flux 1 in each part and in one band, each in its own stamp."""
    made = {
        "stamp": np.arange(n),
        "x": np.zeros(n),
        "y": np.zeros(n),
        "flux": np.ones((n, 2, 1)),
        "radius": np.full((n, 2), 2.0),
        "axis_ratio": np.full((n, 2), 0.6),
        "angle": np.full(n, 0.7),
        "index": np.full(n, 2.5),
    }
    return Sources(**{**made, **other})


def by_galsim(of, row, size, fwhm):
    """The same stamp, drawn by GalSim, whose half-light radii are those of circles of the same area."""
    parts = []
    for part, make in enumerate(
        (
            lambda radius: galsim.Sersic(of.index[row], half_light_radius=radius),
            lambda radius: galsim.Exponential(half_light_radius=radius),
        )
    ):
        ratio = of.axis_ratio[row, part]
        shape = make(of.radius[row, part] * np.sqrt(ratio)).shear(q=ratio, beta=of.angle[row] * galsim.radians)
        parts.append(of.flux[row, part, 0] * shape)
    whole = galsim.Add(parts).shift(of.x[row], of.y[row])
    precise = galsim.GSParams(folding_threshold=5e-4, maximum_fft_size=16_384)
    return (
        galsim.Convolve(whole, galsim.Kolmogorov(fwhm=fwhm), gsparams=precise)
        .drawImage(nx=size, ny=size, scale=SCALE)
        .array
    )


def test_transforms_are_those_of_galsim():
    table = profiles.sersic()
    for row, n in enumerate(profiles.INDICES):
        exact = galsim.Sersic(n, half_light_radius=1.0, gsparams=galsim.GSParams(kvalue_accuracy=1e-8))
        places = range(0, len(profiles.LOG_K), 50)
        expected = [exact.kValue(np.exp(profiles.LOG_K[place]), 0).real for place in places]
        np.testing.assert_allclose(table[row, list(places)], expected, atol=2e-5)
    exact = galsim.Kolmogorov(fwhm=1.3)
    k = np.array([0.1, 1.0, 3.0, 7.0])
    np.testing.assert_allclose(
        profiles.kolmogorov(k, np.array(1.3)), [exact.kValue(one, 0).real for one in k], atol=1e-5
    )


@pytest.mark.parametrize("radius", [0.3, 2.0, 8.0])
@pytest.mark.parametrize("size", [33, 64])
def test_stamps_are_those_of_galsim(radius, size):
    of = sources(
        3,
        x=np.array([0.1, -0.15, 0.0]),
        y=np.array([-0.2, 0.05, 3.0]),
        flux=np.array([[[1.0], [0.5]], [[0.2], [2.0]], [[1.0], [0.0]]]),
        radius=np.array([[0.5, 1.0], [0.3, 1.0], [0.7, 1.0]]) * radius,
        axis_ratio=np.array([[0.9, 0.3], [0.8, 1.0], [0.5, 0.5]]),
        angle=np.array([0.3, 2.0, 1.2]),
        index=np.array([4.0, 1.0, 2.5]),
    )
    found = render(of, 3, size, SCALE, np.full((3, 1), 1.2))
    for row in range(3):
        expected = by_galsim(of, row, size, 1.2)
        np.testing.assert_allclose(found[row, 0], expected, atol=1e-3 * expected.max())


def test_flux_is_that_of_the_catalogue_but_for_the_light_outside_of_the_stamp():
    radius = np.array([0.5, 1.0, 2.0, 4.0, 8.0])
    of = sources(
        5,
        radius=np.stack([radius, radius], axis=1),
        axis_ratio=np.ones((5, 2)),
        flux=np.repeat([[[0.0], [3.0]]], 5, axis=0),
    )
    total = render(of, 5, 64, SCALE, np.full((5, 1), 1.0)).sum(axis=(1, 2, 3))
    edge = profiles.EXPONENTIAL * 32 * SCALE / radius
    inscribed = 3 * (1 - (1 + edge) * np.exp(-edge))
    assert (total < 3.01).all()
    assert (total > 0.99 * inscribed).all()
    np.testing.assert_allclose(total[:3], 3, rtol=5e-3)


@pytest.mark.parametrize("fwhm", [0.8, 1.5])
def test_a_point_has_the_width_of_the_seeing(fwhm):
    of = sources(radius=np.full((1, 2), 1e-4))
    stamp = render(of, 1, 128, 0.05, np.full((1, 1), fwhm))[0, 0]
    area = np.count_nonzero(stamp > stamp.max() / 2) * 0.05**2
    assert 2 * np.sqrt(area / np.pi) == pytest.approx(fwhm, rel=0.02)


@given(
    dx=st.integers(-5, 5),
    dy=st.integers(-5, 5),
    flux=st.floats(0.1, 100),
    radius=st.floats(0.2, 3),
    angle=st.floats(0, 3.1),
)
@settings(max_examples=15, deadline=None)
def test_stamps_are_linear_in_flux_and_move_with_the_galaxy(dx, dy, flux, radius, angle):
    shape = {"radius": np.full((2, 2), radius), "angle": np.full(2, angle)}
    fluxes = np.ones((2, 2, 1))
    fluxes[1] *= flux
    of = sources(2, flux=fluxes, x=np.array([0, dx * SCALE]), y=np.array([0, dy * SCALE]), **shape)
    first, second = render(of, 2, 32, SCALE, np.full((2, 1), 1.3))[:, 0]
    moved = np.roll(first, (dy, dx), axis=(0, 1))
    inner = slice(6, -6)
    np.testing.assert_allclose(second[inner, inner], flux * moved[inner, inner], rtol=0, atol=2e-4 * second.max())


def test_galaxies_of_a_stamp_add_up_and_bands_have_their_own_seeing():
    fwhm = np.array([[1.0, 2.0]])
    flux = np.ones((2, 2, 2))
    both = sources(2, stamp=np.zeros(2, np.int64), x=np.array([0.0, 2.0]), flux=flux)
    alone = [render(sources(1, x=np.array([x]), flux=flux[:1]), 1, 32, SCALE, fwhm) for x in (0.0, 2.0)]
    stamp = render(both, 1, 32, SCALE, fwhm)
    np.testing.assert_allclose(stamp, alone[0] + alone[1], atol=1e-5 * stamp.max())
    assert alone[0][0, 0].max() > 1.2 * alone[0][0, 1].max()
    assert render(both, 3, 32, SCALE, np.repeat(fwhm, 3, axis=0))[1:].max() == 0


def test_half_of_the_light_is_within_the_radius_of_the_galaxy():
    fraction, ratio, index = np.array([0.0, 0.3, 0.6, 1.0]), np.array([0.2, 0.1, 0.5, 0.3]), np.array([4, 2.0, 3.5, 4])
    disc = profiles.disc_size(fraction, ratio, index)
    of = sources(
        4,
        radius=np.stack([ratio * disc, disc], axis=1) * 3,
        axis_ratio=np.ones((4, 2)),
        flux=np.stack([fraction, 1 - fraction], axis=1)[..., None],
        index=index,
    )
    stamps = render(of, 4, 256, 0.1, np.full((4, 1), 0.25))[:, 0]
    y, x = np.mgrid[:256, :256]
    inside = np.hypot(x - 127.5, y - 127.5) * 0.1 < 3
    np.testing.assert_allclose((stamps * inside).sum(axis=(1, 2)), 0.5, atol=0.01)
