"""Do the tests notice? Semantic mutations of the library, each with the test that kills it; run by hand before a release.

    python tests/mutations.py [word ...]

tries every mutation whose file or test contains one of the words (all without words) in a copy of the tree, and ends with status 1 where
one survives its test, or its old text is no longer there. pytest does not collect this file.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def _of(name, *rows, tests=""):
    """Mutations of the measurements of one experiment; `tests` where they are not in the file of its name."""
    folder, test = f"jaxdyn/experiments/{name}", f"tests/experiments/test_{name}{tests}.py"
    return [(f"{folder}/{file}.py", old, new, f"{test}::{node}") for file, old, new, node in rows]


PLANTED, WRITTEN = "test_planted_numbers_are_found_and_judged", "test_criteria_are_those_written_down"

EXPERIMENTS = [
    *_of(
        "width",
        ("claims", "AtMost(-0.4)", "AtMost(-0.3)", WRITTEN),
        ("claims", "Within(-0.6, -0.4)", "Within(-0.7, -0.4)", WRITTEN),
        ("measure", "lowest=False", "lowest=True", PLANTED),
        ("measure", 'network["change"].max("step")', 'network["change"].isel(step=-1)', PLANTED),
        ("measure", "power_law(here[name],", 'power_law(here[name].mean("seed").expand_dims(seed=3),', PLANTED),
        ("measure", '"W2": "linear"', '"W2": "quadratic"', PLANTED),
    ),
    *_of(
        "dag",
        ("claims", "FALLS, FLAT = Within(-0.6, -0.4)", "FALLS, FLAT = Within(-0.7, -0.4)", WRITTEN),
        ("measure", 'norm.isel(point=i, function=0)', 'norm.isel(point=0, function=0)', "test_planted_exponents_are_found_with_the_scatter_of_seeds"),
        ("measure", "norm.isel(point=0, function=2)", "norm.isel(point=0, function=1)", "test_planted_exponents_are_found_with_the_scatter_of_seeds"),
        ("measure", '"heavy-tailed", "uniform")', '"uniform", "heavy-tailed")', "test_planted_exponents_are_found_with_the_scatter_of_seeds"),
        ("measure", 'isel(time=-1)', 'isel(time=0) + 1.0', "test_planted_exponents_are_found_with_the_scatter_of_seeds"),
    ),
    *_of(
        "breaking",
        ("claims", "AtMost(0.01)", "AtMost(0.1)", WRITTEN),
        ("measure", "lowest=False", "lowest=True", "test_planted_exponents_are_found_with_the_scatter_of_seeds"),
        ("measure", '.max("point")', '.mean("point")', "test_planted_exponents_are_found_with_the_scatter_of_seeds"),
        ("measure", 'dataset["change"].max("step")', 'dataset["change"].isel(step=-1)', "test_planted_exponents_are_found_with_the_scatter_of_seeds"),
    ),
    *_of(
        "pl",
        ("claims", "AtMost(1e-3)", "AtMost(1e-2)", WRITTEN),
        ("measure", 'data["kernel"].min("step")', 'data["kernel"].isel(step=0)', "test_planted_inequalities_are_judged_at_their_worst"),
        ("measure", '"C5.2": ("speed", np.min)', '"C5.2": ("speed", np.max)', "test_planted_inequalities_are_judged_at_their_worst"),
        ("measure", 'data["sharpness"].max("probe_step")', 'data["sharpness"].isel(probe_step=0) * 0.5', "test_planted_inequalities_are_judged_at_their_worst"),
        ("measure", "lowest=False", "lowest=True", "test_planted_losses_exponents_and_conditions_are_found_with_the_scatter_of_seeds"),
    ),
    *_of(
        "generalization",
        ("claims", "Within(0.9, 1.1)", "Within(0.8, 1.1)", WRITTEN),
        ("measure", 'idxmax("rate")', 'idxmin("rate")', "test_planted_ratios_are_found_with_the_scatter_of_seeds"),
        ("measure", "others = values.sum(axis=1, keepdims=True) - values", "others = values", "test_choosing_the_best_rate_favours_nobody"),
        ("measure", "np.exp(mean_interval(above - below))", "np.exp(mean_interval(below - above))", "test_planted_ratios_are_found_with_the_scatter_of_seeds"),
    ),
    *_of(
        "rates",
        ("claims", "Within(3.6, 4.4)", "Within(3.6, 4.8)", WRITTEN),
        ("measure", 'ends[max(ends)], "at no width', 'ends[min(ends)], "at no width', "test_planted_foresight_is_judged_at_the_largest_width"),
        ("measure", 'a["low"] / b["high"], a["high"] / b["low"]', 'a["low"] / b["low"], a["high"] / b["high"]', "test_planted_maximal_rates_are_found_and_judged"),
        ("measure", "_over(found, second, base)", "_over(found, base, second)", "test_planted_maximal_rates_are_found_and_judged"),
        ("measure", 'width=max(config.widths), model="quadratic"', 'width=min(config.widths), model="linear"', "test_planted_maximal_rates_are_found_and_judged"),
    ),
    *_of(
        "spikes",
        ("claims", "AtMost(2.0)", "AtMost(4.0)", WRITTEN),
        ("claims", "Within(0.1, 0.3)", "Within(0.1, 0.4)", WRITTEN),
        ("measure", 'rows["share"].sel(subspace=SMALL)', 'rows["share"].sel(subspace=10)', PLANTED),
        ("measure", 'rows["curvature_after"] / rows["curvature_before"]', 'rows["curvature_before"] / rows["curvature_after"]', PLANTED),
        ("measure", "most[:, num - 1] / most[:, num - 2]", "most[:, num - 2] / most[:, num - 1]", PLANTED),
        ("measure", 'here["step"] >= since', 'here["step"] >= 0', PLANTED),
        ("measure", "(position > last)", "(position >= 0)", PLANTED),
        ("measure", '(here["raises"] >= asked)', '(here["raises"] >= 0)', "test_a_forced_run_that_never_comes_down_or_was_not_raised_is_left_out"),
        ("measure", "(1 - weight) * look(values, before) + weight * look(values, at)", "look(values, at) + 0 * weight", PLANTED),
        ("events", "is_seen & ~is_super", "is_seen", PLANTED),
        ("events", "batch[:, :-1]", "batch[:, 1:]", PLANTED),
        ("events", "BLOCK = 50", "BLOCK = 100", "test_planted_numbers_are_found_and_judged"),
    ),
    *_of(
        "spikes",
        ("measure", "estimates.mean(effect - placebo)", "estimates.mean(effect)", "test_what_drift_does_is_taken_off_by_the_placebo"),
        ("events", "training[:, :-1] > SEEN", "training[:, :-1] > 0", "test_steps_of_runs_that_diverged_or_ended_do_not_count"),
        ("events", "one - _spread(one, is_seen)", "one - np.nanmean(one)", "test_drift_alone_is_seen_by_the_placebo"),
        tests="_events",
    ),
    *_of(
        "spikes",
        ("probes", "jnp.log(after / before)", "jnp.log(before / after)", "test_an_event_is_the_step_that_its_batch_makes"),
        ("probes", "SWEEPS = 32, 6", "SWEEPS = 32, 1", "test_block_iteration_finds_the_leading_eigenvectors_of_a_clustered_kernel"),
        ("sweep", "config.margin * jnp.quantile", "jnp.quantile", "test_an_event_is_the_step_that_its_batch_makes"),
        tests="_runs",
    ),
    *_of(
        "agop",
        ("claims", "AtLeast(0.9)", "AtLeast(0.5)", WRITTEN),
        ("measure", "-math.log2(size)", "math.log2(size)", "test_planted_slopes_are_found_and_judged"),
        ("measure", "(x - x.mean()) ** 2", "x**2", "test_planted_slopes_are_found_and_judged"),
        ("measure", 'seen["raised"] >= asked', 'seen["raised"] >= 0', "test_a_run_that_was_not_raised_in_time_is_left_out"),
        ("references", "(fold + 1 + jnp.arange(num - 1)) % num", "(fold + jnp.arange(num - 1)) % num", "test_a_reference_is_trained_on_all_images_but_its_fold"),
    ),
    *_of(
        "optimizers",
        ("claims", "AtMost(-0.5)", "AtMost(-0.2)", WRITTEN),
        ("measure", 'log_test.max("optimizer") - log_test.min("optimizer")', 'log_test.max() - log_test.min("optimizer")', "test_a_planted_spread_of_test_losses_is_found_within_seeds"),
        ("measure", 'dataset["loss"].isel(step=-1', 'dataset["test"].isel(step=-1', "test_rates_are_chosen_by_the_final_training_loss_among_those_that_hold"),
        ("measure", 'association.rank_correlation(alignment, log_test, "optimizer")', 'association.rank_correlation(alignment, -log_test, "optimizer")', "test_planted_rankings_are_found_and_judged"),
    ),
    *_of(
        "mediation",
        ("claims", "AtLeast(0.5)", "AtLeast(0.2)", WRITTEN),
        ("sweep", "jd.geometry.agop(task.target, task.x_test)", "jd.geometry.agop(lambda x: x[:, :1] * x[:, 2:3], task.x_test)", "test_alignment_is_with_the_true_target_at_the_test_inputs"),
        ("measure", 'f"slow b = {b}"', 'f"b = {b}"', "test_planted_effects_of_the_interventions_are_found_and_judged"),
        ("measure", 'pair["y"] - slope * pair["a"]', 'pair["y"] + slope * pair["a"]', "test_full_mediation_is_recognised"),
        ("arms", "SHARE * _critical(setting, params, state.count)", "SHARE * _critical(setting, setting.params0, state.count)", "test_a_capped_run_is_that_of_a_plain_loop"),
    ),
    *_of(
        "rfm",
        ("claims", "AtMost(1 / 3)", "AtMost(1 / 2)", WRITTEN),
        ("measure", 'here["share"].isel(iteration=-1)', 'here["share"].isel(iteration=0)', PLANTED),
        ("measure", "mean_interval(after - before)", "mean_interval(after)", PLANTED),
        ("measure", 'mse.isel(iteration=-1) / mse.isel(iteration=0)', 'mse.isel(iteration=-1) / mse.isel(iteration=1)', PLANTED),
        ("measure", 'estimates.geometric_mean(here["fall"].values)', 'estimates.mean(here["fall"].values)', PLANTED),
    ),
    *_of(
        "catapult",
        ("measure", "parts.values >= least", "parts.values >= 0.5", PLANTED),
        ("measure", "edge.low.clip(0), edge.high)", "edge.low.clip(0), edge.low)", PLANTED),
        ("measure", '(phase == "catapult") & is_below', 'phase == "catapult"', PLANTED),
        ("measure", "sel(rate=slice(0.0, 1.7))", "sel(rate=slice(0.0, 1.9))", PLANTED),
        ("measure", "is_swapped = first.isel(direction=1) > first", "is_swapped = first.isel(direction=1) < first", PLANTED),
        ("measure", "edge.low * unit, edge.high * unit", "edge.low, edge.high", PLANTED),
        ("measure", "FALL = 0.97", "FALL = 0.999", PLANTED),
        ("claims", "Within(0.9, 1.1)", "Within(0.8, 1.1)", WRITTEN),
        ("measure", "rate=slice(0.0, 3.8))", "rate=slice(0.0, 4.0))", "test_the_error_of_a_map_is_that_of_its_worst_record"),
    ),
    *_of(
        "flatness",
        ("measure", "side[np.delete(side, s, axis=1).mean(axis=1).argmax(), s]", "side[side.mean(axis=1).argmax(), s]", PLANTED),
        ("measure", "rate = max(logs", "rate = min(logs", PLANTED),
        ("measure", 'steps["relative"].max("rate")', 'steps["relative"].mean("rate")', PLANTED),
        ("measure", 'power_law(array, "rate"', 'power_law(array.mean("seed").expand_dims(seed=2), "rate"', PLANTED),
        ("measure", "slice(2.4, 3.6)", "slice(2.1, 3.6)", PLANTED),
        ("measure", 'best(accuracy.sel(horizon="time"), trains)', 'best(accuracy.sel(horizon="steps"), trains)', PLANTED),
        ("claims", "AtLeast(-0.01)", "AtLeast(-0.1)", WRITTEN),
    ),
    *_of(
        "subspace",
        ("measure", "rate = max(sound", "rate = min(sound", PLANTED),
        ("measure", "abs(mean - 1)", "abs(mean)", PLANTED),
        ("measure", "over_seeds=estimates.geometric_mean", "over_seeds=estimates.mean", PLANTED),
        ("measure", "isel(mode=size - 1)", "isel(mode=0)", PLANTED),
        ("measure", "(correction > 0) & (decrease > 0)", "correction > 0", PLANTED),
        ("measure", ".shift(step=-1)", ".shift(step=0)", PLANTED),
    ),
]  # fmt: skip

TRAINING, PHASES, CLAIMS = (
    "tests/dynamics/test_training.py",
    "tests/analysis/test_phases.py",
    "tests/analysis/test_claims.py",
)
DIVERGED = f"{TRAINING}::test_a_diverged_run_keeps_its_parameters_and_its_optimizer_as_they_were"
PATIENCE = "tests/dynamics/test_catapults.py::test_with_patience_a_raise_ends_whether_a_catapult_came_or_not"

LIBRARY = [
    ("jaxdyn/dynamics/training.py", "params=jax.tree.map(keep, params, state.params)", "params=params", DIVERGED),
    ("jaxdyn/dynamics/training.py", "opt_state=jax.tree.map(keep, opt_state, state.opt_state)", "opt_state=opt_state", DIVERGED),
    ("jaxdyn/dynamics/training.py", "is_live = (diverged_at < 0) & is_due", "is_live = diverged_at < 0", f"{TRAINING}::test_the_optimizer_updates_once_a_step_and_no_more"),
    ("jaxdyn/dynamics/training.py", "x, y = self.batch(state.step)\n        return Snapshot(", "x, y = self.batch(state.step + 1)\n        return Snapshot(", f"{TRAINING}::test_a_snapshot_shows_the_batch_that_enters_the_next_step"),
    ("jaxdyn/dynamics/training.py", "value <= self.training.diverge_above", "value < 2 * self.training.diverge_above", TRAINING),
    ("jaxdyn/dynamics/catapults.py", "(is_armed & ~is_raised) | is_ended", "is_armed & ~is_raised", PATIENCE),
    ("jaxdyn/dynamics/catapults.py", "is_back | is_ended", "is_back", PATIENCE),
    ("jaxdyn/dynamics/catapults.py", "& ~is_down", "", "tests/dynamics/test_catapults.py::test_patience_does_not_touch_catapults_that_come_in_time"),
    ("jaxdyn/dynamics/optimizers.py", 'name != "grad_fn"', "True", "tests/dynamics/test_optimizers.py"),
    ("jaxdyn/analysis/phases.py", "is_dead = last <= dead_below * first", "is_dead = last < dead_below * first", PHASES),
    ("jaxdyn/analysis/phases.py", "has_risen = peak > rise * start", "has_risen = peak > start", PHASES),
    ("jaxdyn/analysis/claims.py", "elif lower <= low and high <= upper:", "elif lower <= value <= upper:", CLAIMS),
    ("jaxdyn/analysis/claims.py", "key=lambda one: len(one.id)", "key=lambda one: -len(one.id)", CLAIMS),
    ("jaxdyn/analysis/claims.py", "return -math.inf, self.bound", "return -math.inf, self.bound + 0.1", CLAIMS),
    ("jaxdyn/analysis/estimates.py", "kept = values[np.isfinite(values)]", "kept = values", CLAIMS),
    ("jaxdyn/analysis/estimates.py", "min(lows), max(highs)", "max(lows), min(highs)", "tests/experiments/test_agop.py::test_planted_slopes_are_found_and_judged"),
    ("jaxdyn/analysis/brackets.py", "mean_interval(np.log(low)).low", "mean_interval(np.log(high)).low", f"tests/experiments/test_catapult.py::{PLANTED}"),
    ("jaxdyn/analysis/scaling.py", "slopes[cell][kept]", "slopes[cell][kept][:1].repeat(2)", "tests/analysis/test_scaling.py"),
    ("jaxdyn/losses.py", "terms = jnp.where(y == 0, 0.0, y *", "terms = (y *", "tests/test_losses.py"),
    ("jaxdyn/losses.py", "return 2.0 / n\n", "return 2.0 / (n + 1)\n", "tests/test_losses.py"),
    ("jaxdyn/theory/linearized.py", "response = jnp.where(_behind(system.values, response) == 0, 0.0, response)", "pass", "tests/theory/test_linearized.py"),
    ("jaxdyn/theory/radial.py", "found = jax.lax.cond(jnp.any(is_lost & ~is_nearest), differences, lambda: exact)", "found = exact", "tests/theory/test_radial.py"),
    ("jaxdyn/theory/radial.py", "if a.shape[1] <= FEW:", "if False:", "tests/theory/test_radial.py"),
    ("jaxdyn/theory/critical.py", "return 2.0 / curvature(", "return 1.0 / curvature(", "tests/theory/test_critical.py"),
    ("jaxdyn/geometry/lanczos.py", "(threat <= standing[:num] + slack[:num])", "(threat <= jnp.inf)", "tests/geometry/test_spectrum.py"),
    ("jaxdyn/tasks/sampling.py", "stream = jax.random.fold_in(key, _EPOCH)\n        place", "stream = key\n        place", "tests/tasks/test_sampling.py"),
    ("jaxdyn/models/taylor.py", "term / math.factorial(j)", "term / j", "tests/models/test_taylor.py"),
]  # fmt: skip


def tried(file: str, old: str, new: str, test: str) -> str:
    """What became of one mutation: `killed`, `SURVIVED`, or why it could not be tried."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in ("jaxdyn", "tests"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "CONTRIBUTING.md"):
            shutil.copy(ROOT / name, copy / name)
        text = (copy / file).read_text(encoding="utf-8")
        if text.count(old) < 1:
            return "GONE: the old text is not in the file"
        (copy / file).write_text(text.replace(old, new), encoding="utf-8")
        environment = os.environ | {"PYTHONPATH": str(copy), "JAX_PLATFORMS": "cpu", "MPLBACKEND": "agg"}
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-x",
            "-n",
            "0",
            "-p",
            "no:cacheprovider",
            "-m",
            "slow or not slow",
            test,
        ]
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
        return {0: "SURVIVED", 1: "killed"}.get(done.returncode, f"BROKEN: {done.stdout.splitlines()[-1:]}")


def main(words: list[str]) -> int:
    """Try them and print what became of each."""
    chosen = [row for row in (*EXPERIMENTS, *LIBRARY) if not words or any(word in row[0] + row[3] for word in words)]
    bad = 0
    for row in chosen:
        outcome = tried(*row)
        bad += outcome != "killed"
        print(f"{outcome:9} {row[0]}: {row[1]!r} -> {row[2]!r}", flush=True)
    print(f"{len(chosen) - bad} of {len(chosen)} killed")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
