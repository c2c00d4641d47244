"""What is claimed, run or not: verdicts belong to claims, the newest wins."""

import json
import subprocess
import sys

import pytest

from jaxdyn import catalogue, cli, experiments
from jaxdyn.analysis import claims
from jaxdyn.analysis.claims import AtMost, Claim

CLAIMS = (
    Claim("C1.1", "It falls.", "us", AtMost(1.0)),
    Claim("C1.1b", "It falls faster.", "us", AtMost(1.0)),
    Claim("C1.10", "It stays.", "us", AtMost(1.0)),
    Claim("B1/min", "It follows.", "us", AtMost(1.0)),
)


def _verdict(name, estimate=0.0, bound=1.0):
    return claims.judge({name: estimate}, [Claim(name, "S", "O", AtMost(bound))])[0]


def _write(path, experiment, verdicts, date="2026-11-24", **more):
    found = json.loads(claims.to_json(verdicts))
    path.write_text(json.dumps({"date": date, "verdicts": found, "attributes": {"experiment": experiment}} | more))
    return path


def _state(monkeypatch, *stated):
    monkeypatch.setattr(experiments, "claims", lambda _: stated)


@pytest.fixture
def stated(monkeypatch):
    _state(monkeypatch, *CLAIMS)


@pytest.mark.parametrize("name", experiments.names())
def test_every_experiment_states_claims_and_has_a_chapter(name):
    rows = experiments.claims(name)
    assert rows
    assert len({one.id for one in rows}) == len(rows)
    assert all(one.id and one.statement and one.source for one in rows)
    assert any(name in chapter.experiments for chapter in catalogue.CHAPTERS)


@pytest.mark.parametrize(
    "record", catalogue.records(catalogue.default_places()[:1]), ids=lambda one: f"{one.experiment}-{one.preset}"
)
def test_every_verdict_in_the_repository_is_on_a_stated_claim(record):
    rows = experiments.claims(record.experiment)
    assert [one.id for one in record.verdicts if claims.find(one.id, rows) is None] == []


def test_a_claim_never_run_is_not_run_and_a_verdict_on_no_claim_comes_last(stated, tmp_path):
    file = _write(tmp_path / "e-ci.json", "e", [_verdict("Z9"), _verdict("C1.1/tanh"), _verdict("C1.1", 2.0)])
    found = catalogue.status("e", catalogue.records([file]))
    assert [(one.id, one.outcome, one.claim is not None) for one in found] == [
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
    _state(
        monkeypatch, *(Claim(id, "S", "O", AtMost(1.0)) for id in ("C1", "C1/far", "C2/near", "C2", "C3/*/mean", "C3"))
    )
    file = _write(
        tmp_path / "e-ci.json",
        "e",
        [_verdict("C1/far/2"), _verdict("C1/tanh"), _verdict("C2/near"), _verdict("C3/a/mean/b")],
    )
    found = catalogue.status("e", catalogue.records([file]))
    assert [(one.id, one.outcome) for one in found] == [
        ("C1/tanh", "supported"),
        ("C1/far/2", "supported"),
        ("C2/near", "supported"),
        ("C2", "not run"),
        ("C3/a/mean/b", "supported"),
        ("C3", "not run"),
    ]
    assert [one.case for one in found] == ["tanh", "2", "", "", "a/b", ""]
    groups = catalogue.grouped([*found, *found[:1]])
    assert [len(group) for group in groups] == [2, 1, 1, 1, 1, 1]


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
    assert {name for name, _ in rows} == set(experiments.names())


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
