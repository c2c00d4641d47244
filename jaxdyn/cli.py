"""The `jaxdyn` command: list experiments, run one, show what a store holds, examine the set-up. It prints and writes; it does no maths.

`run` computes (or resumes) the sweep of an experiment into a zarr store, draws its figure, prints the verdicts on its
claims, and ends with status 0 whatever they say: a verdict is a result. Status 2 means that something a person can mend is
wrong, 130 that the run was interrupted.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

EXPERIMENTS = {
    "dag": "transition to linearity on directed acyclic graphs: Hessian norms against the smallest in-degree",
    "width": "wide networks against their Taylor models and the infinite-width NTK, on real images",
}
"""Names of the experiments, with a line each. `jaxdyn.experiments` holds a module of each name."""

PRESETS = ("ci", "laptop", "paper")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: what stands behind `jaxdyn`; the process's own when None.

    Returns:
        The exit status.
    """
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command != "run":
        parser.error(f"unrecognised arguments: {' '.join(rest)}")
    try:
        return int(options.action(options, rest))
    except KeyboardInterrupt:
        print("jaxdyn: interrupted; finished cells are kept, the same command goes on from there.", file=sys.stderr)
        return 130
    except (ValueError, TypeError, OSError) as error:
        if os.environ.get("JAXDYN_TRACEBACK"):
            raise
        print(f"jaxdyn: error: {error}\n(JAXDYN_TRACEBACK=1 shows where)", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jaxdyn", description="Training dynamics of over-parameterised neural networks.", allow_abbrev=False
    )
    parser.add_argument("--version", action="store_true", help="print versions and exit")
    parser.set_defaults(action=_start, command=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    listing = commands.add_parser("list", help="list the experiments and their presets")
    listing.set_defaults(action=_list, command="list")

    run = commands.add_parser(
        "run",
        help="run an experiment: a dataset on disk, a figure, verdicts",
        description="Run an experiment. Further --flags change its configuration: `jaxdyn run width --help-config` lists them.",
        allow_abbrev=False,
    )
    run.add_argument("name", choices=list(EXPERIMENTS), metavar="NAME", help=", ".join(EXPERIMENTS))
    run.add_argument("--preset", choices=PRESETS, default="laptop", help="size of the experiment (default: laptop)")
    run.add_argument("--store", type=Path, help="where the dataset goes (default: runs/NAME-PRESET.zarr)")
    run.add_argument("--log", action="store_true", help="progress as plain lines, as where there is no terminal")
    run.add_argument("--float64", action="store_true", help="compute in double precision")
    run.add_argument("--help-config", action="store_true", help="list the flags of the experiment's configuration")
    run.set_defaults(action=_run, command="run")

    show = commands.add_parser("show", help="print what a store holds, and its verdicts")
    show.add_argument("store", type=Path, help="path of a zarr store")
    show.set_defaults(action=_show, command="show")

    doctor = commands.add_parser("doctor", help="print what this set-up is, and what is slow about it")
    doctor.set_defaults(action=_doctor, command="doctor")
    return parser


def _start(options: argparse.Namespace, _: list[str]) -> int:
    if options.version:
        from jaxdyn.results.provenance import versions

        print("\n".join(f"{name} {version}" for name, version in versions().items()))
        return 0
    _parser().print_help()
    return 0


def _list(_: argparse.Namespace, __: list[str]) -> int:
    for name, line in EXPERIMENTS.items():
        print(f"{name:12} {line}\n{'':12} presets: {', '.join(PRESETS)}")
    return 0


def _run(options: argparse.Namespace, rest: list[str]) -> int:
    import importlib

    import tyro

    _set_up(options.float64)
    experiment = importlib.import_module(f"jaxdyn.experiments.{options.name}")
    preset = experiment.PRESETS[options.preset]
    flags = ["--help"] if options.help_config else rest
    config = tyro.cli(experiment.Config, default=preset, args=flags, prog=f"jaxdyn run {options.name}")
    store = options.store or _default_store(options, config == preset, config)

    from jaxdyn import ensemble
    from jaxdyn.analysis import figures
    from jaxdyn.results import StoreError

    print(f"{options.name} ({options.preset}) -> {store}", file=sys.stderr)
    began = time.monotonic()
    store.parent.mkdir(parents=True, exist_ok=True)
    try:
        dataset = experiment.run(config, store=store, progress=ensemble.Lines() if options.log else ensemble.watch())
    except StoreError as error:
        raise OSError(f"{error}{_rescue(error.dataset, store)}") from error
    figure = figures.save(experiment.figure(dataset), store.with_suffix(".png"))
    verdicts = experiment.claims(dataset)
    _print_verdicts(verdicts)
    written = _write_verdicts(verdicts, dataset.attrs, store.with_suffix(".json"))
    print(f"\nfigure:   {figure}\nverdicts: {written}\ndataset:  {store}   (xarray.open_zarr({str(store)!r}))")
    print(f"{time.monotonic() - began:.0f} s")
    return 0


def _show(options: argparse.Namespace, _: list[str]) -> int:
    import importlib

    from jaxdyn import results

    dataset = results.open(options.store)
    print(dataset)
    total, done = int(dataset["done"].size), int(dataset["done"].sum())
    print(f"\n{done} of {total} members done")
    name = dataset.attrs.get("experiment")
    if name in EXPERIMENTS and done == total:
        _print_verdicts(importlib.import_module(f"jaxdyn.experiments.{name}").claims(dataset))
    return 0


def _doctor(_: argparse.Namespace, __: list[str]) -> int:
    from jaxdyn.doctor import advise, examine

    found = examine(_cache())
    print(found)
    advice = advise(found)
    print("\n" + ("\n".join(f"- {line}" for line in advice) if advice else "Nothing to complain about."))
    return 0


def _cache() -> str:
    return os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(Path.home() / ".cache" / "jaxdyn" / "xla")


def _set_up(float64: bool) -> None:
    """Compile cache on, a CPU device a core, and double precision where asked: the command owns its process, the library owns nothing."""
    import jax

    from jaxdyn.ensemble import use_cores

    use_cores()
    jax.config.update("jax_compilation_cache_dir", _cache())
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    if float64:
        jax.config.update("jax_enable_x64", True)


def _default_store(options: argparse.Namespace, is_preset: bool, config: Any) -> Path:
    import hashlib

    suffix = "" if is_preset else f"-{hashlib.sha256(repr(config).encode()).hexdigest()[:8]}"
    return Path("runs") / f"{options.name}-{options.preset}{'-float64' if options.float64 else ''}{suffix}.zarr"


def _rescue(dataset: Any, store: Path) -> str:
    """Write what was computed somewhere else, and say where."""
    import tempfile

    if dataset is None:
        return ""
    try:
        path = Path(tempfile.mkdtemp(prefix="jaxdyn-")) / f"{store.stem}.npz"
        import numpy as np

        np.savez(path, **{str(name): value.values for name, value in dataset.variables.items()})
    except OSError:
        return ""
    return f" A copy as numpy arrays: {path}"


def _write_verdicts(verdicts: Sequence[Any], attrs: Any, path: Path) -> Path:
    """The verdicts, the day, and where the numbers come from, as JSON."""
    import datetime
    import json

    from jaxdyn.analysis import claims

    found = json.loads(claims.to_json(verdicts))
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    path.write_text(json.dumps({"date": today, "verdicts": found, "attributes": attrs}, indent=2, default=str) + "\n")
    return path


def _print_verdicts(verdicts: Sequence[Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from jaxdyn.analysis import claims

    table = Table(title="Verdicts", title_justify="left")
    for column in claims.COLUMNS:
        table.add_column(column, overflow="fold")
    style = {"supported": "green", "not supported": "red", "inconclusive": "yellow"}
    for one, row in zip(verdicts, claims.table(verdicts), strict=True):
        table.add_row(*row, style=style[one.verdict])
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    console.print(table)
