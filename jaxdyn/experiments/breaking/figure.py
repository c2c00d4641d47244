"""The figure of the breaking experiment."""

from typing import Any

from jaxdyn.analysis import figures
from jaxdyn.analysis.scaling import power_law
from jaxdyn.experiments.breaking.measure import measures
from jaxdyn.experiments.breaking.networks import NETWORKS
from jaxdyn.experiments.breaking.sweep import Config


def draw(config: Config, dataset: Any) -> Any:
    """Hessian norms and kernel changes against the width, and the multilinearity of linear networks, with the -1/2 line."""
    found, names = measures(dataset), dataset["network"].values.tolist()

    def of(*claims: str) -> list[str]:
        return [name for name in names if NETWORKS[name].claim in claims]

    bottlenecks = [name for name in of("M") if len(NETWORKS[name].blocks) > 1]
    panels = [
        ("kernel change max‖K_t − K_0‖/‖K_0‖", "change", of("C4.1", "C4.2")),
        ("‖H‖ on the ball: outputs, bottlenecks", "curvature", of("C4.1", "C4.2")),
        ("‖H‖ on the ball: assemblies", "curvature", of("C4.3", "C4.4", "C4.5")),
        ("second-order remainder within a block", "remainder", of("M")),
        ("mixed difference of all blocks", "mixed", bottlenecks),
        ("|f − f_multilinear| on the ball", "beyond", of("M")),
    ]
    page, axes = figures.figure(2, 3, size=(4.4, 3.6))
    for place, (title, variable, members) in zip(axes.flat, panels, strict=True):
        for name in members:
            array = found[variable].sel(network=name, drop=True)
            fit = power_law(array, "width", over="seed")
            figures.power_law(place, array, "width", over="seed", fit=fit, label=NETWORKS[name].title)
        place.set_title(title)
        figures.leave_room(place, len(members) + 1)
    page.suptitle(
        f"n = {config.num_train}, {config.steps} steps at η c λ_max(K_0) = {config.rate:g}, ball of radius "
        f"{config.radius:g}, {config.seeds} seeds"
    )
    return page
