"""Phases against the exact map of a quadratic model, whose phase is known from its rate, and a network that really dies."""

import numpy as np
import pytest
import xarray as xr

from jaxdyn.analysis import phases


def _quadratic_model(relative_rate, steps=400, width=1000):
    """Loss and kernel of a single-example quadratic model (arXiv 2205.11787, eq. g_evolve) with ηλ_0 = relative_rate."""
    g, kernel, y, a = np.float64(0.8), np.float64(1.0), 1.0, 1 / width
    losses, kernels = [], []
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(steps):
            losses.append((g - y) ** 2 / 2)
            kernels.append(kernel)
            r, eta = g - y, relative_rate
            g = y + (1 - eta * kernel + a * eta**2 * r * g) * r
            kernel = kernel + a * eta**2 * r**2 * kernel - 4 * a * eta * r * (r + y)
    return np.array(losses), np.array(kernels)


def _dying_network(steps=300):
    """f = Σ v relu(u) / √m with all v, u > 0 and target -1: one large step turns every neuron off."""
    u, v, m, eta = np.full(50, 0.5), np.full(50, 0.7), 50, 40.0
    losses, kernels = [], []
    for _ in range(steps):
        f = np.sum(v * np.maximum(u, 0)) / np.sqrt(m)
        losses.append((f + 1) ** 2 / 2)
        kernels.append(np.sum(np.maximum(u, 0) ** 2 + (v * (u > 0)) ** 2) / m)
        u, v = (u - eta * (f + 1) * v * (u > 0) / np.sqrt(m), v - eta * (f + 1) * np.maximum(u, 0) / np.sqrt(m))
    return np.array(losses), np.array(kernels)


def _arrays(rates):
    losses, kernels = (np.stack(a) for a in zip(*(_quadratic_model(rate) for rate in rates), strict=True))
    coords = {"ratio": list(rates), "step": np.arange(losses.shape[1])}
    return (xr.DataArray(a, dims=("ratio", "step"), coords=coords) for a in (losses, kernels))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("with_curvature", [True, False])
def test_the_quadratic_model_is_lazy_below_two_catapults_below_four_and_diverges_above(with_curvature, dtype):
    rates = (0.5, 1.5, 1.9, 2.2, 2.8, 3.5, 4.2, 5.0)
    with np.errstate(over="ignore"):
        loss, kernel = (array.astype(dtype) for array in _arrays(rates))
    found = phases.classify(loss, curvature=kernel if with_curvature else None)
    assert found.dims == ("ratio",)
    assert found.values.tolist() == ["lazy"] * 3 + ["catapult"] * 3 + ["divergent"] * 2
    assert set(found.values) <= set(phases.PHASES)


def test_the_evidence_is_what_the_curves_show():
    loss, kernel = _arrays((1.5, 2.8, 5.0))
    found = phases.evidence(loss, curvature=kernel)
    curve = loss.sel(ratio=2.8).values
    one = found.sel(ratio=2.8)
    assert one.peak == curve.max()
    assert one.peak_step == curve.argmax()
    assert curve[int(one.return_step)] < curve[0] <= curve[int(one.return_step) - 1]
    assert one.return_step > one.peak_step
    assert one.curvature_ratio == kernel.sel(ratio=2.8)[-1] < 2 / 2.8
    assert found.is_divergent.values.tolist() == [False, False, True]
    assert np.isnan(found.return_step.sel(ratio=5.0))


def test_the_evidence_tells_peak_and_final_curvature_against_two_over_the_rate():
    ratios = (1.5, 2.8, 5.0)
    loss, kernel = _arrays(ratios)
    lr = xr.DataArray(np.array(ratios) / 0.5, dims="ratio", coords={"ratio": list(ratios)})  # c = ½, λ_0 = 1
    found = phases.evidence(loss, curvature=kernel, lr=lr, c=0.5)
    np.testing.assert_allclose(found.relative_rate, ratios, rtol=1e-12)
    np.testing.assert_allclose(found.final_relative_rate[:2], (ratios * kernel.values[:, -1])[:2], rtol=1e-12)
    assert (found.final_relative_rate[:2] < 2).all()
    np.testing.assert_allclose(found.rise.sel(ratio=2.8), loss.sel(ratio=2.8).max() / loss.sel(ratio=2.8)[0])
    assert found.rise.sel(ratio=1.5) == 1
    assert phases.classify(loss, curvature=kernel).equals(found.phase)
    same = phases.evidence(loss.sel(ratio=2.8), curvature=kernel.sel(ratio=2.8), lr=2.8)
    np.testing.assert_allclose(same.final_relative_rate, found.final_relative_rate.sel(ratio=2.8), rtol=1e-12)
    for without in (phases.evidence(loss, lr=2.0), phases.evidence(loss, curvature=kernel)):
        assert np.isnan(without.final_relative_rate).all()
    with pytest.raises(ValueError, match="`lr` has the dimensions"):
        phases.evidence(loss, lr=xr.DataArray(np.ones(2), dims="seed"))


@pytest.mark.parametrize("with_curvature", [True, False])
def test_a_network_without_a_living_neuron_is_dead(with_curvature):
    loss, kernel = (xr.DataArray(a, dims="step") for a in _dying_network())
    assert kernel[-1] == 0
    assert loss[-1] < loss[0]  # loss alone would call it lazy
    assert phases.classify(loss, curvature=kernel if with_curvature else None) == "dead"


def test_a_loss_that_has_converged_to_rounding_is_not_dead():
    loss = np.maximum(np.exp(-np.arange(500.0)), 1e-15)
    assert phases.classify(xr.DataArray(loss, dims="step")) == "lazy"
    assert phases.classify(xr.DataArray(np.where(np.arange(500) > 90, 0.0, loss), dims="step")) == "lazy"


def test_curvature_tells_a_loss_that_converged_above_zero_from_a_dead_one():
    loss = xr.DataArray(0.2 + np.exp(-np.arange(500.0)), dims="step")
    assert phases.classify(loss) == "dead"
    assert phases.classify(loss, curvature=xr.ones_like(loss)) == "lazy"


def test_three_records_in_the_last_tenth_are_needed_to_call_a_loss_dead():
    steps = np.array([0, 1, 10, 100, 1000])
    loss = xr.DataArray([1.0, 3.0, 0.5, 0.5, 0.5], dims="step", coords={"step": steps})
    assert phases.classify(loss) == "catapult"


def test_a_loss_that_has_not_come_back_is_undecided():
    rising = xr.DataArray(1.01 ** np.arange(50), dims="step")
    level = xr.DataArray(np.ones(50), dims="step")
    assert phases.classify(rising) == "undecided"
    assert phases.classify(level, curvature=level) == "undecided"


def test_a_dip_before_the_peak_is_no_return():
    loss = xr.DataArray([1.0, 0.5, 40.0, 30.0, 20.0], dims="step")
    assert phases.classify(loss) == "undecided"
    assert np.isnan(phases.evidence(loss).return_step)


def test_a_run_never_begun_is_undecided():
    assert phases.classify(xr.DataArray(np.full(9, np.nan), dims="step")) == "undecided"


def test_a_finite_loss_frozen_by_diverge_above_is_divergent():
    loss = xr.DataArray([[1.0, 9.0, 99.0, 99.0], [1.0, 0.5, 0.2, 0.1]], dims=("seed", "step"))
    assert phases.classify(loss, diverged_at=xr.DataArray([2, -1], dims="seed")).values.tolist() == [
        "divergent",
        "lazy",
    ]


def test_criteria_are_parameters_and_reported():
    loss = xr.DataArray([1.0, 1.5, 0.5], dims="step")
    assert phases.classify(loss) == "catapult"
    found = phases.classify(loss, rise=2)
    assert found == "lazy"
    assert found.attrs == {"rise": 2.0, "dead_below": 1e-6, "converged_below": 1e-6, "dead_by": "loss"}
    faded = xr.DataArray([1.0, 0.5, 1e-3], dims="step")
    assert phases.classify(loss, curvature=faded, dead_below=1e-2) == "dead"


def test_members_are_judged_each_alone_whatever_the_order_of_dimensions():
    rates = (1.5, 2.8, 5.0)
    loss, kernel = _arrays(rates)
    both = xr.concat([loss, loss.isel(ratio=slice(None, None, -1)).assign_coords(ratio=loss.ratio)], "seed")
    found = phases.classify(both.transpose("ratio", "step", "seed"), curvature=kernel)  # one curvature for both seeds
    expected = ["lazy", "catapult", "divergent"]
    assert found.sel(ratio=list(rates)).transpose("seed", "ratio").values.tolist() == [expected, expected[::-1]]


@pytest.mark.parametrize(
    ("loss", "curvature", "words"),
    [
        (xr.DataArray([1.0, 2.0], dims="time"), None, "no dimension `step`"),
        (xr.DataArray([1.0], dims="step"), None, "at least 2 records"),
        (xr.DataArray([1.0, 2.0], dims="step", coords={"step": [5, 3]}), None, "in order"),
        (xr.DataArray([1.0, 2.0], dims="step"), xr.DataArray([1.0, 2.0], dims="probe_step"), "rename"),
        (xr.DataArray([1.0, 2.0], dims="step"), xr.DataArray([[1.0, 2.0]], dims=("seed", "step")), "dimensions"),
        (
            xr.DataArray(np.ones((2, 3)), dims=("seed", "step"), coords={"seed": [0, 1]}),
            xr.DataArray(np.ones((2, 3)), dims=("seed", "step"), coords={"seed": [1, 2]}),
            "different coordinates",
        ),
    ],
)
def test_what_does_not_belong_together_is_refused(loss, curvature, words):
    with pytest.raises(ValueError, match=words):
        phases.classify(loss, curvature=curvature)


def test_a_run_that_was_stopped_is_judged_by_what_it_recorded():
    nan = np.nan
    losses = [
        [1.0, 0.5, 0.2, nan, nan],
        [1.0, 30.0, 0.1, nan, nan],
        [1.0, 30.0, np.inf, nan, nan],
        [1.0, 0.9, 0.8, 0.7, 0.6],
    ]
    loss = xr.DataArray(losses, dims=("seed", "step"), coords={"step": [0, 10, 20, 30, 40]})
    stopped = xr.DataArray([20, 20, 20, -1], dims="seed")
    assert phases.classify(loss, stopped_at=stopped).values.tolist() == ["lazy", "catapult", "divergent", "lazy"]
    assert phases.classify(loss).values.tolist()[:2] == ["divergent", "divergent"]
    kernel = xr.DataArray(
        [[4.0, 3.0, 1.0, nan, nan]] * 3 + [[4.0, 4.0, 4.0, 4.0, 2.0]], dims=loss.dims, coords=loss.coords
    )
    found = phases.evidence(loss, curvature=kernel, lr=1.0, stopped_at=stopped)
    assert found.final_relative_rate.values.tolist() == [1.0, 1.0, 1.0, 2.0]
    assert found.final.values.tolist()[:2] == [0.2, 0.1]


def test_a_bracket_is_the_first_value_at_which_a_condition_holds():
    holds = xr.DataArray(
        [[False, False, True, False], [True, True, True, True], [False] * 4], dims=("seed", "rate"),
        coords={"rate": [1.0, 2.0, 3.0, 4.0], "seed": [5, 6, 7]},
    )  # fmt: skip
    found = phases.bracket(holds, dim="rate")
    assert found.low.values.tolist() == [2.0, -np.inf, 4.0]
    assert found.high.values.tolist() == [3.0, 1.0, np.inf]
    assert found.low.seed.values.tolist() == [5, 6, 7]
    above = phases.bracket(holds.T, dim="rate", above=3.0)
    assert above.high.values.tolist() == [np.inf, 4.0, np.inf]


def test_a_bracket_needs_a_sorted_coordinate():
    holds = xr.DataArray([True, False], dims="rate", coords={"rate": [2.0, 1.0]})
    with pytest.raises(ValueError, match="in order"):
        phases.bracket(holds, dim="rate")
    with pytest.raises(ValueError, match="in order"):
        phases.bracket(holds.sortby("rate"), dim="rate", above=2.0)
    with pytest.raises(ValueError, match="no dimension `step`"):
        phases.bracket(holds, dim="step")


def test_a_curvature_of_exactly_the_fraction_is_dead_and_one_above_is_not():
    loss = xr.DataArray([1.0, 0.5, 0.25], dims="step")
    for end, phase in ((0.25, "dead"), (np.nextafter(0.25, 1.0), "lazy")):
        kernel = xr.DataArray([1.0, 1.0, end], dims="step")
        assert phases.classify(loss, curvature=kernel, dead_below=0.25) == phase
