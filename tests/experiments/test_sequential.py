"""Seeds until decided, on a toy whose claims are decidable by construction, with a clock that counts the seeds computed."""

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import xarray as xr

from jaxdyn import cli, experiments
from jaxdyn.analysis import levels, looks
from jaxdyn.analysis.claims import AtLeast, AtMost, Claim, Within
from jaxdyn.analysis.scaling import mean_interval

CLAIMS = (
    Claim("clear", "Far below the bound.", "toy", AtMost(10.0)),
    Claim("false", "Far above the bound.", "toy", AtMost(-10.0)),
    Claim("near", "A little above the bound.", "toy", AtLeast(-0.9)),
    Claim("edge", "On the bound.", "toy", Within(-5.0, 0.0)),
    Claim("exact", "A worst member.", "toy", AtMost(100.0)),
    Claim("none", "Not a number.", "toy", AtMost(0.0)),
)


NUMBERS = np.random.default_rng(0).normal(size=64)


@dataclass(frozen=True)
class Config:
    seeds: int
    names: tuple[str, ...]
    scatter: float = 1.0


@dataclass(frozen=True)
class Seedless:
    width: int


class Toy:
    """Numbers of mean 0; a store is a set that remembers which seeds it has, and a seed that is missing takes a second of the clock."""

    name, narrow = "toy", None

    def __init__(self, claims=CLAIMS):
        self.claims, self.now = claims, 0.0

    def run(self, config, *, store=None, progress=None):
        missing = set(range(config.seeds)) - (store if store is not None else set())
        if store is not None:
            store |= missing
        self.now += len(missing)
        return xr.Dataset({"number": ("seed", NUMBERS[: config.seeds] * config.scatter)})

    def intervals(self, config, dataset):
        numbers = dataset["number"].values
        special = {"exact": float(numbers.max()), "none": math.nan}
        return {name: special.get(name, mean_interval(numbers)) for name in config.names}


def _decide(names, *, hours=1.0, store=None, scatter=1.0, **options):
    toy, told = Toy(), []
    found = experiments.decide(
        toy, Config(8, names, scatter), hours=hours, store=store, report=told.append, clock=lambda: toy.now, **options
    )  # fmt: skip
    assert tuple(told) == found.looks
    return found


def _by_id(found):
    return {one.id: one for one in found.verdicts}


@pytest.mark.parametrize("name", [one for one in experiments.names() if "desk" in experiments.load(one).presets])
def test_desk_decides_with_seeds_that_no_laptop_run_has_seen(name):
    experiment = experiments.load(name)
    seeds = {preset: experiment.ensemble(experiment.presets[preset])[2]["seed"] for preset in ("laptop", "desk")}
    assert not set(np.asarray(seeds["laptop"]).tolist()) & set(np.asarray(seeds["desk"]).tolist())
    assert len(seeds["desk"]) == experiment.presets["desk"].seeds > experiment.presets["laptop"].seeds


@pytest.mark.parametrize(
    ("name", "axes"), [("flatness", (1.0, 0)), ("rates", ("relu 2 gaussian 32 gd network", 1.0, 0))]
)
def test_a_unit_gain_multiplies_the_outputs_by_root_two_a_hidden_layer_of_relu(name, axes):
    experiment = experiments.load(name)
    outputs = []
    for unit_gain in (False, True):
        function, _, _ = experiment.ensemble(dataclasses.replace(experiment.presets["ci"], unit_gain=unit_gain))
        training = function(*axes)
        outputs.append(np.asarray(training.model.apply(training.params0, training.task.x)))
    num_hidden = 3 if name == "flatness" else 2
    np.testing.assert_allclose(outputs[1], outputs[0] * 2 ** (num_hidden / 2), rtol=1e-4)


def test_what_is_clear_is_decided_at_the_first_look_with_its_interval_and_the_run_ends():
    found = _decide(("clear", "false"), store=set(), scatter=0.1)
    (look,) = found.looks
    assert (look.seeds, look.seconds, look.ending) == (8, 8.0, "every claim is decided")
    verdicts = _by_id(found)
    assert (verdicts["clear"].verdict, verdicts["false"].verdict) == ("supported", "not supported")
    numbers = NUMBERS[:8] * 0.1
    alpha = looks.plan([8, 16, 32, 64]).nominal[0]
    reach = scipy.stats.t.isf(alpha / 2, 7) * scipy.stats.sem(numbers)
    np.testing.assert_allclose(verdicts["clear"].high, numbers.mean() + reach, rtol=1e-6)
    assert "decided at look 1 of 4, 8 seeds" in verdicts["clear"].note
    assert "obrien-fleming spending of 0.05" in verdicts["clear"].note


def test_an_early_verdict_is_kept_while_others_stay_open_to_the_last_look():
    found = _decide(("clear", "edge"), store=set())
    assert [one.seeds for one in found.looks] == [8, 16, 32, 64]
    assert found.looks[-1].ending == "this was the last of the 4 looks planned"
    verdicts = _by_id(found)
    first = next(one for one in found.looks if "clear" in one.decided)
    assert f"decided at look {first.number} of 4, {first.seeds} seeds" in verdicts["clear"].note
    assert verdicts["edge"].verdict == "inconclusive"
    assert "open at look 4 of 4, 64 seeds" in verdicts["edge"].note
    wide = verdicts["clear"].high - verdicts["clear"].low
    assert wide > verdicts["edge"].high - verdicts["edge"].low  # the interval of the look at which it fell


def test_a_store_that_grows_pays_only_for_new_seeds_and_none_pays_for_all_again():
    assert [one.seconds for one in _decide(("edge",), store=set()).looks] == [8, 16, 32, 64]
    assert [one.seconds for one in _decide(("edge",)).looks] == [8, 24, 56, 120]


@pytest.mark.parametrize(("store", "budget", "taken"), [(set(), 31, 2), (set(), 32, 3), (None, 23, 1), (None, 24, 2)])
def test_a_look_that_does_not_fit_into_the_budget_is_not_begun(store, budget, taken):
    store = None if store is None else set()
    found = _decide(("none",), hours=budget / 3600, store=store)
    assert len(found.looks) == taken
    assert "of the budget are left" in found.looks[-1].ending


def test_the_forecast_is_the_number_of_seeds_at_which_the_same_scatter_decides():
    first = _decide(("near",), store=set(), hours=8 / 3600).looks[0]
    numbers = NUMBERS[:8]
    critical = looks.plan([8, 16, 32, 64]).critical[-1]
    expected = (critical * numbers.std(ddof=1) / (numbers.mean() + 0.9)) ** 2
    np.testing.assert_allclose(first.needed["near"], expected, rtol=1e-6)
    np.testing.assert_allclose(first.hours["near"], max(expected - 8, 0) / 3600, rtol=1e-6)


def test_a_claim_beyond_ten_times_the_budget_is_named_and_ends_the_run():
    claim = Claim(
        "near",
        "Hardly above the bound.",
        "toy",
        AtLeast(float(NUMBERS[:8].mean()) - 0.01),
    )
    toy = Toy((claim,))
    found = experiments.decide(
        toy, Config(8, ("near",)), hours=100 / 3600, store=set(), report=lambda _: None, clock=lambda: toy.now
    )  # fmt: skip
    (look,) = found.looks
    assert look.hopeless == ("near",)
    assert "more than 10 times the budget" in look.ending
    assert "open near: needs about" in str(look)
    assert look.needed["near"] > 1000


def test_a_number_without_an_interval_is_judged_anew_at_every_look():
    verdict = _by_id(_decide(("exact", "edge"), store=set()))["exact"]
    assert verdict.estimate == NUMBERS.max()
    assert "no interval, as of look 4 of 4" in verdict.note


class Cases(Toy):
    """Claims of two cases and of both together; a run remembers which cases were asked for with which seeds."""

    narrow = staticmethod(experiments.by_case("names", {"both": ("edge", "clear")}))

    def __init__(self, claims):
        super().__init__(claims)
        self.asked = []

    def run(self, config, *, store=None, progress=None):
        self.asked.append((config.names, config.seeds))
        return super().run(config, store=store)

    def intervals(self, config, dataset):
        numbers = dataset["number"].values
        found = {f"mean/{name}": mean_interval(numbers + (10.0 if name == "clear" else 0.0)) for name in config.names}
        return found | ({"both": mean_interval(numbers - 20.0)} if len(config.names) == 2 else {})


def test_from_the_second_look_on_only_cases_of_open_claims_are_computed_and_the_others_keep_their_verdicts():
    toy = Cases((Claim("mean", "Below 0.", "toy", AtMost(0.0)), Claim("both", "Below 0.", "toy", AtMost(0.0))))
    config = Config(8, ("edge", "clear"))
    found = experiments.decide(
        toy, config, hours=1.0, looks=3, spending="pocock", store=set(), report=lambda _: None, clock=lambda: toy.now
    )  # fmt: skip
    assert toy.asked == [(("edge", "clear"), 8), (("edge",), 16), (("edge",), 32)]
    verdicts = _by_id(found)
    assert {name: one.verdict for name, one in verdicts.items()} == {
        "mean/edge": "inconclusive",
        "mean/clear": "not supported",
        "both": "supported",
    }
    assert "look 1 of 3, 8 seeds" in verdicts["mean/clear"].note
    assert "look 3 of 3, 32 seeds" in verdicts["mean/edge"].note
    assert found.dataset.sizes["seed"] == 8  # the last that held every case


@pytest.mark.parametrize(
    ("name", "ids", "field", "expected"),
    [
        ("dag", ["C3.1/uniform/anchor", "C3.6/deep"], "architectures", ("deep", "uniform")),
        ("dag", ["B1/mean"], "architectures", ("fixed budget",)),
        ("dag", ["B2", "C3.4"], "architectures", ("fully connected", "deep", "uniform", "heavy-tailed")),
        ("breaking", ["C4.2h/tanh", "M1/linear0"], "networks", ("tanh", "linear0")),
        ("width", ["W1/3"], "depths", (3,)),
    ],
)
def test_a_claim_needs_the_cases_of_its_name(name, ids, field, expected):
    experiment = experiments.load(name)
    config = experiment.presets["laptop"]
    assert getattr(experiment.narrow(config, ids), field) == expected
    assert experiment.narrow(config, [*ids, "another"]) == config


@pytest.mark.parametrize("name", [one for one in experiments.names() if experiments.load(one).narrow])
def test_every_claim_of_an_experiment_that_narrows_says_what_it_needs(name):
    experiment = experiments.load(name)
    file = next((Path(__file__).parents[2] / "benchmarks" / "results").glob(f"{name}-laptop.json"))
    for verdict in json.loads(file.read_text(encoding="utf-8"))["verdicts"]:
        assert experiment.narrow(experiment.presets["laptop"], [verdict["id"]]) != experiment.presets["laptop"]


class AtTheBound(Toy):
    """Fresh numbers of mean 0 for every run, and a claim whose bound is 0."""

    def __init__(self, seed):
        super().__init__((Claim("bound", "The mean lies on the bound.", "toy", AtMost(0.0)),))
        self.numbers = np.random.default_rng(seed).normal(size=64)

    def run(self, config, *, store=None, progress=None):
        return xr.Dataset({"number": ("seed", self.numbers[: config.seeds])})

    def intervals(self, config, dataset):
        numbers = dataset["number"].values
        reach = levels.student(len(numbers) - 1) * scipy.stats.sem(numbers)
        return {"bound": (numbers.mean(), numbers.mean() - reach, numbers.mean() + reach)}


def test_a_claim_on_its_bound_is_decided_in_about_5_percent_of_runs_over_all_looks():
    found = [
        experiments.decide(
            AtTheBound(seed), Config(8, ()), hours=1.0, store=set(), spending="pocock", report=lambda _: None, clock=lambda: 0.0
        ).verdicts[0].verdict
        for seed in range(400)
    ]  # fmt: skip
    decided = np.mean([one != "inconclusive" for one in found])
    assert abs(decided - 0.05) < 3 * np.sqrt(0.05 * 0.95 / 400)
    assert {"supported", "not supported"} <= set(map(str, found))  # either way


def test_what_is_not_a_number_stays_open_and_is_not_forecast():
    look = _decide(("none",), store=set()).looks[0]
    assert math.isnan(look.needed["none"])
    assert "not a number" in str(look)


@pytest.mark.parametrize(
    ("config", "options", "words"),
    [
        (Seedless(8), {}, "'toy' has no number of seeds"),
        (Config(8, ()), {"hours": 0.0}, "above 0"),
        (Config(8, ()), {"looks": 0}, "at least 1"),
    ],
)
def test_what_cannot_be_decided_is_refused(config, options, words):
    with pytest.raises(ValueError, match=words):
        experiments.decide(Toy(), config, **{"hours": 1.0} | options)


def test_every_experiment_has_seeds_to_add():
    for name in experiments.names():
        assert all(isinstance(config.seeds, int) for config in experiments.load(name).presets.values())


@pytest.mark.parametrize(
    "flags", [["--until-decided"], ["--hours", "1"], ["--until-decided", "--hours", "1", "--distributed"]]
)
def test_the_command_wants_a_budget_and_one_process(flags, capsys):
    assert cli.main(["run", "width", "--preset", "ci", *flags]) == 2
    assert "--until-decided" in capsys.readouterr().err


def test_the_command_prints_its_looks_and_writes_the_verdicts_with_them(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cli, "_set_up", lambda *_, **__: None)  # this process is not the command's
    monkeypatch.setattr("jaxdyn.ensemble.calibrate", lambda: None)
    sizes = [
        "--widths",
        "4",
        "8",
        "16",
        "--seeds",
        "3",
        "--steps",
        "5",
        "--num-train",
        "16",
        "--num-test",
        "8",
        "--depths",
        "1",
    ]
    store = str(tmp_path / "w.zarr")
    assert (
        cli.main(["run", "width", "--preset", "ci", "--store", store, "--until-decided", "--hours", "1e-9", *sizes])
        == 0
    )
    out = capsys.readouterr().out
    assert "look 1 of 4: 3 seeds" in out
    assert "of the budget are left" in out
    written = json.loads((tmp_path / "w.json").read_text())
    assert written["preset"] == "ci, changed, until decided: 3 seeds"
    assert all("at look 1 of 4, 3 seeds" in one["note"] for one in written["verdicts"])
