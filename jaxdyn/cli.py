"""The `jaxdyn` command: list experiments and claims, run, show, report, examine the set-up. It prints and writes; it does no maths.

`run` computes (or resumes) the sweep of an experiment into a zarr store, draws its figure, prints the verdicts on its
claims, and ends with status 0 whatever they say: a verdict is a result. Status 2 means that something a person can mend is
wrong, 130 that the run was interrupted.
"""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxdyn import experiments

PRESETS = ("ci", "laptop", "desk", "paper")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: what stands behind `jaxdyn`; the process's own when None.

    Returns:
        The exit status.
    """
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command not in ("run", "plan"):
        parser.error(f"unrecognised arguments: {' '.join(rest)}")
    try:
        return int(options.action(options, rest))
    except KeyboardInterrupt:
        print("jaxdyn: interrupted; finished cells are kept, the same command goes on from there.", file=sys.stderr)
        return 130
    except (ValueError, TypeError, OSError, RuntimeError) as error:
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

    planning = commands.add_parser(
        "plan",
        help="what an experiment would run, and what it would cost on an accelerator",
        description="Print cells, members, flops and bytes of an experiment without running it. Further --flags change its configuration.",
        allow_abbrev=False,
    )
    planning.add_argument("name", choices=experiments.names(), metavar="NAME", help=", ".join(experiments.names()))
    planning.add_argument("--preset", choices=PRESETS, default="paper", help="size of the experiment (default: paper)")
    planning.add_argument("--on", default="H100", metavar="DEVICE", help="accelerator to budget for (default: H100)")
    planning.add_argument("--count", type=int, default=1, help="how many of them (default: 1)")
    planning.add_argument(
        "--efficiency", type=float, default=0.5, help="share of the published peak rate (default: 0.5)"
    )
    planning.set_defaults(action=_plan, command="plan")

    run = commands.add_parser(
        "run",
        help="run an experiment: a dataset on disk, a figure, verdicts",
        description="Run an experiment. Further --flags change its configuration: `jaxdyn run width --help-config` lists them.",
        allow_abbrev=False,
    )
    run.add_argument("name", choices=experiments.names(), metavar="NAME", help=", ".join(experiments.names()))
    run.add_argument("--preset", choices=PRESETS, default="laptop", help="size of the experiment (default: laptop)")
    run.add_argument("--store", type=Path, help="where the dataset goes (default: runs/NAME-PRESET.zarr)")
    run.add_argument("--log", action="store_true", help="progress as plain lines, as where there is no terminal")
    run.add_argument(
        "--distributed",
        action="store_true",
        help="share the sweep with the other processes of this job (Slurm, MPI, …)",
    )
    run.add_argument("--float64", action="store_true", help="compute in double precision")
    run.add_argument(
        "--until-decided",
        action="store_true",
        help="double the seeds until every claim is decided, or --hours are over",
    )
    run.add_argument("--hours", type=float, help="budget of --until-decided")
    run.add_argument("--help-config", action="store_true", help="list the flags of the experiment's configuration")
    run.set_defaults(action=_run, command="run")

    show = commands.add_parser("show", help="print what a store holds, and its verdicts")
    show.add_argument("store", type=Path, help="path of a zarr store")
    show.set_defaults(action=_show, command="show")

    claims = commands.add_parser(
        "claims",
        help="print every claim, its criterion and its last verdict",
        description="Print every claim of every experiment: statement, source, criterion, last verdict. The newest verdict wins.",
    )
    claims.add_argument(
        "places",
        nargs="*",
        type=Path,
        metavar="PLACE",
        help="files or folders of verdicts (default: runs, and in a checkout benchmarks/results)",
    )
    claims.add_argument("--experiment", choices=experiments.names(), metavar="NAME", help="only the claims of this one")
    claims.add_argument("--json", action="store_true", help="print JSON")
    claims.set_defaults(action=_claims, command="claims")

    report = commands.add_parser(
        "report",
        help="write stores as one page: claims, verdicts, figures, provenance",
        description="Write one self-contained HTML page, by the dissertation's chapters, with all that the stores hold.",
    )
    report.add_argument("stores", nargs="+", metavar="STORE", help="path or URL of a zarr store of an experiment")
    report.add_argument(
        "-o", "--output", type=Path, default=Path("report.html"), help="the page (default: report.html)"
    )
    report.set_defaults(action=_report, command="report")

    figure = commands.add_parser(
        "figure",
        help="draw the figure of a store again, for a paper",
        description="Draw the figure of an experiment's store. Nothing is computed; the suffix of the file says the format.",
    )
    figure.add_argument("store", help="path or URL of a zarr store of an experiment")
    figure.add_argument("-o", "--output", type=Path, help="pdf, svg or png (default: the store's name with .pdf, here)")
    figure.set_defaults(action=_figure, command="figure")

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
    from jaxdyn import catalogue

    part = ""
    for chapter, members in catalogue.arrange(experiments.names()):
        if chapter.part != part:
            part = chapter.part
            print(f"{part}\n")
        print(f"  {chapter.title}")
        for name in members:
            title = experiments.docstring(name).partition("\n")[0].rstrip(".")
            print(f"    {name:14} {title}")
        print()
    print(f"Presets: {', '.join(PRESETS)} (desk not of each). `jaxdyn claims` prints what they claim.")
    return 0


def _run(options: argparse.Namespace, rest: list[str]) -> int:
    if options.until_decided != (options.hours is not None):
        raise ValueError("--until-decided and --hours H go together: the budget is in hours, such as --hours 0.5.")
    if options.until_decided and options.distributed:
        raise ValueError("--until-decided runs in one process: leave out --distributed.")
    _set_up(options.float64, options.distributed)
    experiment, config = _configured(options, ["--help"] if options.help_config else rest)
    store = options.store or _default_store(options, experiment.presets[options.preset], config)

    import jax

    from jaxdyn import ensemble, tables
    from jaxdyn.analysis import figures
    from jaxdyn.results import StoreError

    who = f", process {jax.process_index()} of {jax.process_count()}" if jax.process_count() > 1 else ""
    print(f"{options.name} ({options.preset}) -> {store}{who}", file=sys.stderr)
    began = time.monotonic()
    if not options.distributed:
        ensemble.calibrate()
    store.parent.mkdir(parents=True, exist_ok=True)
    progress, found = ensemble.Lines() if options.log else ensemble.watch(), None
    try:
        if options.until_decided:
            found = experiments.decide(experiment, config, store=store, hours=options.hours, progress=progress)
        dataset = found.dataset if found else experiment.run(config, store=store, progress=progress)
    except StoreError as error:
        raise OSError(f"{error}{_rescue(error.dataset, store)}") from error
    if jax.process_index() > 0:  # the first process speaks for all
        return 0
    figure = figures.save(experiment.figure(dataset), store.with_suffix(".png"))
    verdicts = found.verdicts if found else experiment.verdicts(dataset)
    tables.print_run(experiment, dataset, verdicts)
    preset = options.preset if config == experiment.presets[options.preset] else f"{options.preset}, changed"
    if found:
        preset += f", until decided: {found.looks[-1].seeds} seeds"
    written = _write_verdicts(verdicts, dataset.attrs, store.with_suffix(".json"), preset)
    print(f"\nfigure:   {figure}\nverdicts: {written}\ndataset:  {store}   (xarray.open_zarr({str(store)!r}))")
    print(f"{time.monotonic() - began:.0f} s")
    return 0


def _configured(options: argparse.Namespace, flags: list[str]) -> tuple[Any, Any]:
    """The experiment and its configuration."""
    import tyro

    experiment = experiments.load(options.name)
    if options.preset not in experiment.presets:
        raise ValueError(
            f"{options.name} has no preset {options.preset!r} yet; it has {', '.join(experiment.presets)}."
        )
    preset = experiment.presets[options.preset]
    config = tyro.cli(type(preset), default=preset, args=flags, prog=f"jaxdyn {options.command} {options.name}")
    return experiment, config


def _plan(options: argparse.Namespace, rest: list[str]) -> int:
    from jaxdyn import ensemble
    from jaxdyn.ensemble.deciding import accelerators

    _set_up(float64=False, is_distributed=False)
    device = accelerators.named(options.on)
    experiment, config = _configured(options, rest)
    function, loop, vmap = experiment.ensemble(config)
    chosen = ensemble.plan(function, loop=loop, vmap=vmap, memory=device.memory)
    found = ensemble.budget(chosen, device, count=options.count, efficiency=options.efficiency)
    print(f"{chosen}\n\n{found}")
    return 0


def _show(options: argparse.Namespace, _: list[str]) -> int:
    from jaxdyn import results, tables

    dataset = results.open(options.store)
    print(dataset)
    total, done = int(dataset["done"].size), int(dataset["done"].sum())
    print(f"\n{done} of {total} members done")
    name = dataset.attrs.get("experiment")
    if name in experiments.names() and done == total:
        experiment = experiments.load(name)
        tables.print_run(experiment, dataset, experiment.verdicts(dataset))
    return 0


def _claims(options: argparse.Namespace, _: list[str]) -> int:
    import json

    from jaxdyn import catalogue, tables

    names = [options.experiment] if options.experiment else experiments.names()
    records = catalogue.records(options.places or catalogue.default_places())
    found = [
        (chapter, name, catalogue.status(name, records))
        for chapter, members in catalogue.arrange(names)
        for name in members
    ]
    if options.json:
        heads = [({"part": chapter.part, "chapter": chapter.title}, one) for chapter, _, rows in found for one in rows]
        print(json.dumps([head | one.as_dict() for head, one in heads], ensure_ascii=False, indent=1))
        return 0
    for chapter, name, rows in found:
        tables.print_statuses(f"{chapter.part} · {chapter.title} · {name}", rows)
    counts = Counter(one.outcome for _, _, rows in found for one in rows)
    print(f"{counts.total()} claims: {', '.join(f'{number} {outcome}' for outcome, number in counts.most_common())}")
    return 0


def _report(options: argparse.Namespace, _: list[str]) -> int:
    from jaxdyn import catalogue, report

    runs = [report.read(store) for store in options.stores]
    page = report.page(runs, catalogue.records(catalogue.default_places()))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(page, encoding="utf-8")
    size = len(page.encode()) / 1e6
    print(f"{options.output}: {len(runs)} {'store' if len(runs) == 1 else 'stores'}, {size:.1f} MB")
    return 0


def _figure(options: argparse.Namespace, _: list[str]) -> int:
    import jax

    from jaxdyn import report
    from jaxdyn.analysis import figures

    name, dataset = report.of_experiment(options.store)
    missing = int((~dataset["done"]).sum())
    if missing:
        raise ValueError(
            f"The store {options.store!r} lacks {missing} of {dataset['done'].size} members; the command that began it, run again, ends it."
        )
    output = options.output or Path(options.store.rstrip("/").rpartition("/")[2]).with_suffix(".pdf")
    with jax.enable_x64(bool(dataset.attrs.get("float64"))):
        drawn = experiments.load(name).figure(dataset)
    print(figures.save(drawn, output))
    return 0


def _doctor(_: argparse.Namespace, __: list[str]) -> int:
    from jaxdyn.doctor import advise, examine
    from jaxdyn.ensemble import calibrate, use_cores

    use_cores()
    found = examine(_cache())
    print(f"{found}\n{'training':18} {calibrate(again=True)}")
    advice = advise(found)
    print("\n" + ("\n".join(f"- {line}" for line in advice) if advice else "Nothing to complain about."))
    return 0


def _cache() -> str:
    from jaxdyn._cache import cache_folder

    return os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(cache_folder() / "xla")


def _set_up(float64: bool, is_distributed: bool) -> None:
    """Compile cache on, a CPU device a core, double precision and other processes where asked: the command owns its process."""
    import jax

    from jaxdyn.ensemble import connect, use_cores

    use_cores()
    if is_distributed:
        connect()
    jax.config.update("jax_compilation_cache_dir", _cache())
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    if float64:
        jax.config.update("jax_enable_x64", True)


def _default_store(options: argparse.Namespace, preset: Any, config: Any) -> Path:
    """Where a run lies: what differs in more than the number of seeds, by which a store grows, has a store of its own."""
    import dataclasses
    import hashlib

    if hasattr(preset, "seeds"):
        config = dataclasses.replace(config, seeds=preset.seeds)
    suffix = "" if config == preset else f"-{hashlib.sha256(repr(config).encode()).hexdigest()[:8]}"
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


def _write_verdicts(verdicts: Sequence[Any], attrs: Any, path: Path, preset: str) -> Path:
    """The verdicts, the preset, the time, and where the numbers come from, as JSON."""
    import datetime
    import json

    from jaxdyn.analysis import claims

    found = json.loads(claims.to_json(verdicts))
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    written = {"date": now, "preset": preset, "verdicts": found, "attributes": attrs}
    path.write_text(json.dumps(written, indent=2, default=str) + "\n")
    return path
