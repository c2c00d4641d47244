"""The figure of the graph experiment."""

from collections.abc import Mapping
from typing import Any

from jaxdyn.analysis import figures
from jaxdyn.analysis.scaling import power_law
from jaxdyn.experiments.dag.networks import DIM, GRAPHS
from jaxdyn.experiments.dag.sweep import FUNCTIONS, POINTS, Config, random_graph
from jaxdyn.models import graphs


def draw(config: Config, found: Any) -> Any:
    """Exponents with the line of slope -1/2, in-degree laws against Hessian norms, and a graph."""
    names = [name for name in found["architecture"].values.tolist() if name != "fixed budget"]
    page, axes = figures.figure(2, 3, size=(3.8, 3.0))
    norm = found["linearity_norm"].isel(step=0)

    def panel(place: Any, title: str, arrays: Mapping[str, Any], reference: float | None = -0.5) -> None:
        for label, array in arrays.items():
            fit = power_law(array, "width", over="seed")
            figures.power_law(place, array, "width", over="seed", fit=fit, label=label, reference=reference)
        figures.leave_room(place, len(arrays) + 1)
        place.set_title(title)
        place.set_xlabel("smallest in-degree m")

    flat = axes.flat
    panel(flat[0], "‖H_f(w0)‖", {name: norm.sel(architecture=name).isel(point=0, function=0) for name in names})
    shown = "uniform" if "uniform" in names else names[0]
    here = found.sel(architecture=shown)
    points = {point: norm.sel(architecture=shown).isel(point=i, function=0) for i, point in enumerate(POINTS)}
    gap = {f"sup |f − f_lin|, R = {config.radius:g}": here["linearity_gap"].isel(step=0)}
    panel(flat[1], f"{shown}: ‖H_f‖ in the ball", points | gap)
    others = {name: norm.sel(architecture=shown).isel(point=0, function=i) for i, name in enumerate(FUNCTIONS) if i}
    gradient = {"‖∇f‖": here["linearity_gradient"].isel(step=0, function=0)}
    panel(flat[2], f"{shown}: what falls and what does not", others | gradient)
    change = {name: found["change"].sel(architecture=name).isel(time=-1) for name in names}
    panel(flat[3], f"kernel change after {config.steps} steps", change)
    if "fixed budget" in found["architecture"].values.tolist():
        array = norm.sel(architecture="fixed budget").isel(point=0, function=0)
        array = array.assign_coords(width=[max(1, width // 4) for width in config.widths])
        panel(flat[4], f"mean in-degree {max(config.widths) / 4:g}: ‖H_f(w0)‖", {"fixed budget": array})
    else:
        flat[4].set_visible(False)
    smallest = next((name for name in GRAPHS if name in names), None)
    if smallest is not None:
        drawn = graphs.random_layered(**random_graph(config, smallest, min(config.widths)), seed=0)
        figures.vertices(flat[5], drawn, max_edges=800)
    page.suptitle(f"Transition to linearity on graphs: tanh, d = {DIM}, {config.seeds} seeds")
    return page
