"""What is claimed, run or not: criteria are read where they stand, verdicts belong to them, the newest wins."""

import json
import subprocess
import sys

import pytest

from jaxdyn import catalogue, cli
from jaxdyn.analysis import claims
from jaxdyn.analysis.claims import at_most

TABLE = """A title.

| architecture | what it is |
|---|---|
| deep | no claim |

| claim | networks | criterion |
|---|---|---|
| C1.1 sup|f| falls | all: |a|, b | |x| below 1 |
| C1.1b | | exponent below -0.4 |
| C1.10 | tanh | |f − g|: below 2 |

| Claim | source | criterion |
|---|---|---|
| B1/min it follows | us | |

References:
    Somebody, arXiv 0000.00000,
    and others.

More.
"""


def _verdict(name, estimate=0.0, bound=1.0):
    return at_most(name, statement="S", source="O", estimate=estimate, low=estimate, high=estimate, bound=bound)


def _write(path, experiment, verdicts, date="2026-11-24", **more):
    found = json.loads(claims.to_json(verdicts))
    path.write_text(json.dumps({"date": date, "verdicts": found, "attributes": {"experiment": experiment}} | more))
    return path


@pytest.fixture
def stated(monkeypatch):
    monkeypatch.setattr(catalogue, "docstring", lambda _: TABLE)


def test_criteria_are_the_rows_under_the_heading_claim_with_bars_and_repeated_cells():
    first, second, third, fourth = catalogue.criteria(TABLE)
    assert first == catalogue.Criterion(
        "C1.1", "sup|f| falls (all: |a|, b)", "|x| below 1", "Somebody, arXiv 0000.00000, and others."
    )
    assert (second.id, second.statement, second.criterion) == ("C1.1b", "all: |a|, b", "exponent below -0.4")
    assert (third.id, third.statement, third.criterion) == ("C1.10", "tanh", "|f − g|: below 2")
    assert (fourth.id, fourth.statement, fourth.source) == ("B1/min", "it follows", "us")


@pytest.mark.parametrize("name", list(cli.EXPERIMENTS))
def test_every_experiment_states_claims_and_has_a_chapter(name):
    rows = catalogue.criteria(catalogue.docstring(name))
    assert rows
    assert all(one.id and one.statement and one.criterion and one.source for one in rows)
    assert any(name in chapter.experiments for chapter in catalogue.CHAPTERS)


@pytest.mark.parametrize(
    "record", catalogue.records(catalogue.default_places()[:1]), ids=lambda one: f"{one.experiment}-{one.preset}"
)
def test_every_verdict_in_the_repository_is_on_a_stated_claim(record):
    rows = catalogue.criteria(catalogue.docstring(record.experiment))
    assert [one.id for one in record.verdicts if not any(row.covers(one.id) for row in rows)] == []


def test_a_claim_never_run_is_not_run_and_a_verdict_on_no_claim_comes_last(stated, tmp_path):
    file = _write(tmp_path / "e-ci.json", "e", [_verdict("Z9"), _verdict("C1.1/tanh"), _verdict("C1.1", 2.0)])
    found = catalogue.status("e", catalogue.records([file]))
    assert [(one.id, one.outcome, one.is_stated) for one in found] == [
        ("C1.1/tanh", "supported", True),
        ("C1.1", "not supported", True),
        ("C1.1b", "not run", True),
        ("C1.10", "not run", True),
        ("B1/min", "not run", True),
        ("Z9", "supported", False),
    ]
    assert {one.outcome for one in catalogue.status("other", catalogue.records([file]))} == {"not run"}
    assert found[2].as_dict()["estimate"] is None
    assert found[1].as_dict()["estimate"] == 2.0


def test_a_verdict_belongs_to_the_longest_id_that_covers_it_and_is_shown_once(monkeypatch, tmp_path):
    rows = "| claim | criterion |\n|---|---|\n| C1 a | x |\n| C1 b | y |\n| C1/far c | z |\n| C2/near d | z |\n| C2 e | z |"
    monkeypatch.setattr(catalogue, "docstring", lambda _: rows)
    file = _write(tmp_path / "e-ci.json", "e", [_verdict("C1/far/2"), _verdict("C1/tanh"), _verdict("C2/near")])
    found = catalogue.status("e", catalogue.records([file]))
    assert [(one.id, one.outcome) for one in found] == [
        ("C1/tanh", "supported"),
        ("C1/far/2", "supported"),
        ("C2/near", "supported"),
        ("C2", "not run"),
    ]


def test_the_newest_verdict_of_each_claim_wins_and_later_places_win_a_tie(stated, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    _write(tmp_path / "a" / "e-laptop.json", "e", [_verdict("C1.1", 0.25), _verdict("C1.1b", 0.25)], "2026-11-20")
    _write(tmp_path / "a" / "e-ci.json", "e", [_verdict("C1.1", 0.75)], "2026-11-21T08:00:00+00:00")
    _write(tmp_path / "b" / "old.json", "e", [_verdict("C1.10", 0.125)], "2026-11-20")
    _write(tmp_path / "a" / "x.json", "e", [_verdict("C1.10", 0.0)], "2026-11-20")
    found = {one.id: one for one in catalogue.status("e", catalogue.records([tmp_path / "a", tmp_path / "b"]))}
    assert (found["C1.1"].verdict.estimate, found["C1.1"].record.preset) == (0.75, "ci")
    assert (found["C1.1b"].verdict.estimate, found["C1.1b"].record.preset) == (0.25, "laptop")
    assert (found["C1.10"].verdict.estimate, found["C1.10"].record.preset) == (0.125, "?")


def test_the_preset_is_the_written_one_before_that_of_the_file_name(tmp_path):
    (one,) = catalogue.records([_write(tmp_path / "e-ci-12ab.json", "e", [], preset="ci, changed")])
    assert one.preset == "ci, changed"


def test_folders_may_hold_other_files_but_a_named_file_must_hold_verdicts(tmp_path):
    other = tmp_path / "a.json"
    other.write_text('{"rows": []}')
    (tmp_path / "b.json").write_text("{")
    assert catalogue.records([tmp_path]) == []
    for place, words in ((other, "holds no verdicts"), (tmp_path / "none.json", "no file or folder")):
        with pytest.raises(ValueError, match=words):
            catalogue.records([place])


def test_the_command_prints_all_claims_and_json_without_loading_jax(tmp_path):
    file = _write(tmp_path / "pl-ci.json", "pl", [_verdict("C5.4", 2.0)])
    program = (
        "import sys, jaxdyn.cli as cli; "
        f"cli.main(['claims', {str(file)!r}, '--json']); print(sorted(set(sys.modules) & {{'jax', 'xarray'}}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    rows = {(row["experiment"], row["id"]): row for row in json.loads(done.stdout)}
    assert rows["pl", "C5.4"]["verdict"] == "not supported"
    assert rows["pl", "C5.6"]["verdict"] == "not run"
    assert {name for name, _ in rows} == set(cli.EXPERIMENTS)


def test_the_command_prints_a_table_of_one_experiment(tmp_path, capsys):
    assert (
        cli.main(["claims", str(_write(tmp_path / "pl-ci.json", "pl", [_verdict("C5.4")])), "--experiment", "pl"]) == 0
    )
    out = capsys.readouterr().out
    assert "C5.5" in out
    assert "8 not run, 1 supported" in out
    assert "W1" not in out
    assert cli.main(["claims", str(tmp_path / "nowhere")]) == 2
    assert "no file or folder" in capsys.readouterr().err
