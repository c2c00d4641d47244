"""An experiment put together from the modules of its folder: run it, judge what it measured, draw it."""

import dataclasses
import importlib
import json
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxdyn.analysis.claims import Claim, Verdict
else:  # `names` and `docstring` load nothing
    Claim = Verdict = Any


@dataclass(frozen=True)
class Experiment:
    """One published phenomenon: made by `load` from a folder of this package, or by anyone from functions of their own.

    Attributes:
        name: its folder.
        claims: what it claims.
        presets: configurations by name: `ci` (a minute), `laptop`, `desk` (an hour on two cores; not of every experiment), `paper`.
        ensemble: config -> function of the axes, loop axes, vmap axes: what `jd.sweep` and `jd.ensemble.plan` take.
        intervals: (config, dataset) -> `{id: estimate}`, as `analysis.claims.judge` takes it.
        draw: (config, dataset) -> a figure.
        options: config -> further keywords of `jd.sweep`, whose `attrs` join the experiment's own, and under `inputs` further keywords of
            `ensemble`, dear ones that a plan does without; None where there are none.
        summary: (config, dataset) -> rows of strings under a row of headings; None where there is none.
        narrow: (config, ids of claims with their cases) -> a configuration with only what those need, such as `by_case` makes; None where
            every claim needs all.
    """

    name: str
    claims: tuple[Claim, ...]
    presets: Mapping[str, Any]
    ensemble: Callable[..., tuple[Any, dict[str, Any], dict[str, Any]]]
    intervals: Callable[[Any, Any], Mapping[str, Any]]
    draw: Callable[[Any, Any], Any]
    options: Callable[[Any], dict[str, Any]] | None = None
    summary: Callable[[Any, Any], list[tuple[str, ...]]] | None = None
    narrow: Callable[[Any, Iterable[str]], Any] | None = None

    def run(self, config: Any, *, store: Any = None, progress: Any = None) -> Any:
        """Run the sweep.

        Args:
            config: one of the presets, or a changed one.
            store: path of a zarr store, or None.
            progress: see `jd.sweep`.

        Returns:
            The dataset that the docstring of `ensemble` describes; its attributes hold the configuration.
        """
        from jaxdyn.ensemble.sweep import sweep

        options = dict(self.options(config)) if self.options else {}
        attrs = {"experiment": self.name, "config": json.dumps(dataclasses.asdict(config))} | options.pop("attrs", {})
        function, loop, vmap = self.ensemble(config, **options.pop("inputs", {}))
        return sweep(function, loop=loop, vmap=vmap, store=store, progress=progress, attrs=attrs, **options)

    def config(self, dataset: Any) -> Any:
        """The configuration that a dataset was made with; its sequences are tuples again."""
        fields = json.loads(dataset.attrs["config"]).items()
        kind = type(next(iter(self.presets.values())))
        return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in fields})

    def verdicts(self, dataset: Any) -> list[Verdict]:
        """What a dataset says of the claims."""
        from jaxdyn.analysis.claims import judge

        return judge(self.intervals(self.config(dataset), dataset.load()), self.claims)

    def figure(self, dataset: Any) -> Any:
        """The figure of a dataset."""
        from jaxdyn.analysis import figures

        with figures.style():
            return self.draw(self.config(dataset), dataset.load())


def by_case(field: str, also: Mapping[str, Sequence[Any]] | None = None) -> Callable[[Any, Iterable[str]], Any]:
    """A `narrow` for claims whose case is an entry of a field of the configuration.

    Args:
        field: name of a field that holds a tuple. A claim needs the entries that are parts of its id: `uniform` in "C3.1/uniform/anchor".
        also: entries that a claim without such a part needs, by the first part of its id. A claim that neither tells needs everything.

    Example:
        >>> width = load("width")
        >>> by_case("depths")(width.presets["laptop"], ["W1/3", "W2/3"]).depths
        (3,)
    """

    def narrow(config: Any, ids: Iterable[str]) -> Any:
        entries, wanted = getattr(config, field), []
        for id in ids:
            parts = id.split("/")
            needed = [one for one in entries if str(one) in parts] or list((also or {}).get(parts[0], ()))
            if not needed:
                return config
            wanted += needed
        return dataclasses.replace(config, **{field: tuple(one for one in entries if one in wanted)})

    return narrow


def names() -> tuple[str, ...]:
    """The experiments there are: the folders beside this file."""
    return tuple(one.name for one in pkgutil.iter_modules([str(Path(__file__).parent)]) if one.ispkg)


def load(name: str) -> Experiment:
    """The experiment of a name.

    Raises:
        ValueError: where there is none.

    Example:
        >>> load("width").presets["ci"].seeds
        8
    """
    sweep, measure, figure = (_module(name, part) for part in ("sweep", "measure", "figure"))
    return Experiment(
        name=name,
        claims=claims(name),
        presets=sweep.PRESETS,
        ensemble=sweep.ensemble,
        intervals=measure.intervals,
        draw=figure.draw,
        options=getattr(sweep, "options", None),
        summary=getattr(measure, "summary", None),
        narrow=getattr(sweep, "narrow", None),
    )


def claims(name: str) -> tuple[Claim, ...]:
    """What an experiment claims; loads no JAX."""
    found: tuple[Claim, ...] = _module(name, "claims").CLAIMS
    return found


def docstring(name: str) -> str:
    """What an experiment is, in words; loads no JAX."""
    return _module(name).__doc__ or ""


def _module(name: str, part: str = "") -> Any:
    if name not in names():
        raise ValueError(f"There is no experiment {name!r}; there are {', '.join(names())}.")
    return importlib.import_module(".".join(filter(None, ("jaxdyn.experiments", name, part))))
