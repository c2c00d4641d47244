"""Figures show the numbers they were given, and leave matplotlib's global state alone."""

import subprocess
import sys

import matplotlib
import numpy as np
import pytest
import xarray as xr

from jaxdyn.analysis import figures, scaling

WIDTHS = np.array([32, 64, 128, 256, 512])


def _power(exponent=-0.5, seed=0):
    noise = np.exp(0.1 * np.random.default_rng(seed).normal(size=(5, 8)))
    return xr.DataArray(2.0 * WIDTHS[:, None] ** exponent * noise, dims=("width", "seed"), coords={"width": WIDTHS})


def _line(axes, label):
    (line,) = (line for line in axes.lines if line.get_label() == label)
    return np.asarray(line.get_xdata()), np.asarray(line.get_ydata())


def test_a_power_law_shows_means_members_fit_and_one_reference():
    _, axes = figures.figure()
    place = axes[0, 0]
    for exponent, label in ((-0.5, "two"), (-1.0, "three")):
        array = _power(exponent)
        fit = scaling.power_law(array, "width", over="seed")
        figures.power_law(place, array, "width", over="seed", fit=fit, label=label)
        name = f"{label}: {fit.exponent:.2f} [{fit.low:.2f}, {fit.high:.2f}]".replace("-", "−")
        x, y = _line(place, name)
        np.testing.assert_allclose(y, np.exp(np.log(array).mean("seed")))
        assert any(np.allclose(line.get_ydata(), fit(WIDTHS)) for line in place.lines if len(line.get_xdata()) == 5)
    x, y = _line(place, "slope −1/2")  # fails if it was drawn twice
    np.testing.assert_allclose(np.diff(np.log(y)) / np.diff(np.log(x)), -0.5)
    assert (place.get_xscale(), place.get_yscale()) == ("log", "log")
    shown = {label.get_text() for label in place.get_legend().get_texts()}
    assert len(shown) == 3


def test_members_that_diverged_are_left_out_of_a_power_law():
    array = _power()
    array[2, 3] = np.inf
    _, axes = figures.figure()
    figures.power_law(axes[0, 0], array, "width", over="seed", label="all", reference=None)
    np.testing.assert_allclose(
        _line(axes[0, 0], "all")[1], np.exp(np.log(array.where(np.isfinite(array))).mean("seed"))
    )


def test_curves_are_medians_in_a_band_and_end_where_most_members_diverged():
    steps = np.arange(20)
    values = np.exp(-steps / 5) * np.arange(1.0, 10)[:, None]
    values[2:, 15:] = np.nan  # seven of nine
    array = xr.DataArray(np.stack([values, 2 * values]), dims=("rate", "seed", "step"), coords={"rate": [0.5, 1.0]})
    _, axes = figures.figure()
    figures.curves(axes[0, 0], array, hue="rate", over="seed")
    for rate, factor in (("0.5", 1), ("1", 2)):
        _, y = _line(axes[0, 0], rate)
        np.testing.assert_allclose(y[:15], factor * 5 * np.exp(-steps / 5)[:15])
        assert np.isnan(y[15:]).all()
    assert len(axes[0, 0].collections) == 2


def test_names_get_distinct_colours_and_numbers_shades_in_order():
    def colours(labels):
        array = xr.DataArray(np.ones((3, 4)), dims=("hue", "step"), coords={"hue": labels})
        _, axes = figures.figure()
        figures.curves(axes[0, 0], array, hue="hue")
        return [matplotlib.colors.to_hex(line.get_color()) for line in axes[0, 0].lines]

    assert colours(["full", "linear", "quadratic"]) == [c.lower() for c in figures.COLORS[:3]]
    brightness = [sum(matplotlib.colors.to_rgb(c)) for c in colours([1, 2, 3])]
    assert brightness == sorted(brightness)


@pytest.mark.parametrize("draw", [figures.power_law, figures.curves])
def test_an_array_with_a_forgotten_dimension_is_refused(draw):
    _, axes = figures.figure()
    array = _power().expand_dims(depth=[2])
    options = {"over": "seed"} | ({"dim": "width"} if draw is figures.power_law else {"x": "width"})
    with pytest.raises(ValueError, match="depth"):
        draw(axes[0, 0], array, **options)


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_a_figure_is_written_in_the_format_of_its_suffix(suffix, tmp_path):
    page, axes = figures.figure(1, 2)
    figures.power_law(axes[0, 0], _power(), "width", over="seed")
    path = figures.save(page, tmp_path / "new" / f"width.{suffix}")
    assert path.read_bytes()[:5] == {"png": b"\x89PNG\r", "pdf": b"%PDF-", "svg": b"<?xml"}[suffix]


def test_an_unknown_suffix_is_refused_before_anything_is_written(tmp_path):
    page, _ = figures.figure()
    with pytest.raises(ValueError, match=r"'\.zarr'"):
        figures.save(page, tmp_path / "new" / "width.zarr")
    assert not (tmp_path / "new").exists()


def test_neither_pyplot_nor_a_setting_of_matplotlib_is_touched(tmp_path):
    code = (
        "import sys, matplotlib; before = dict(matplotlib.rcParams)\n"
        "from jaxdyn.analysis import figures\n"
        "page, axes = figures.figure(); axes[0, 0].plot([1, 2])\n"
        f"figures.save(page, {str(tmp_path / 'a.png')!r})\n"
        "assert dict(matplotlib.rcParams) == before\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_importing_the_analysis_loads_neither_matplotlib_nor_xarray():
    code = "import sys, jaxdyn.analysis; assert not {'matplotlib', 'xarray', 'jax'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_graph_shows_vertices_edges_and_in_degrees():
    from jaxdyn.models import graphs

    found = graphs.random_layered((3, 30, 30, 30, 1), law=graphs.uniform(5), seed=0)
    page = figures.graph(found, max_edges=100)
    left, right = page.axes[:2]
    assert [len(part.get_offsets()) for part in left.collections[1:]] == [3, 91]
    assert len(left.collections[0].get_segments()) == 100
    assert left.get_title(loc="left") == f"94 vertices, {found.num_edges} edges (100 drawn)"
    assert sum(bar.get_height() for bar in right.patches) == 61  # vertices beyond the first layer
    named = figures.graph(graphs.graph((["x", "x", "a"], ["a", "y", "y"])))
    assert {text.get_text() for text in named.axes[0].texts} == {"x", "a", "y"}


def test_a_phase_diagram_colours_every_cell_by_its_majority():
    names = [["lazy"] * 10 + ["catapult"] * 10, ["lazy"] * 5 + ["catapult"] * 4 + ["divergent"] * 11]
    rows = [[names[0], names[1]], [["catapult"] * 20, ["divergent"] * 20], [["catapult"] * 20, ["dead"] * 20]]
    phase = xr.DataArray(
        rows, dims=("rate", "width", "seed"), coords={"rate": [1.0, 3.0, 9.0], "width": [8, 64]},
    )  # fmt: skip
    _, axes = figures.figure()
    figures.phase_diagram(axes[0, 0], phase, x="rate", y="width", over="seed", lines=(2.0, 4.0))
    (mesh,) = axes[0, 0].collections
    colors = np.asarray(mesh.get_array()).reshape(2, 3, 3)  # [width, rate, rgb]
    np.testing.assert_array_equal(colors[0, 1], colors[0, 2])  # both catapult
    orange = np.array(matplotlib.colors.to_rgb(figures.COLORS[1]))
    np.testing.assert_allclose(colors[1, 1], orange)
    np.testing.assert_allclose(colors[1, 0], 0.5 * orange + 0.5)  # eleven of twenty: pale
    assert not colors[1, 2].any()
    assert sorted(float(line.get_xdata()[0]) for line in axes[0, 0].lines) == [2.0, 4.0]
    edges = mesh.get_coordinates()[0, :, 0]
    np.testing.assert_allclose(edges, 3.0 ** np.array([-0.5, 0.5, 1.5, 2.5]))
    assert [label.get_text() for label in axes[0, 0].get_yticklabels()] == ["8", "64"]
    with pytest.raises(ValueError, match="dimensions"):
        figures.phase_diagram(axes[0, 0], phase.isel(seed=0), x="rate", y="width", over="seed")
