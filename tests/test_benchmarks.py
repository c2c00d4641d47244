"""Every benchmark runs at toy size, asserts its own correctness there, and writes what its numbers need to be trusted."""

import json

import pytest

from benchmarks import catapult, coverage, curvature, dag, ensemble, growth, infinite, ntk, quadratic, spikes


@pytest.mark.parametrize(
    "benchmark",
    [ensemble, ntk, curvature, infinite, dag, catapult, quadratic, spikes, coverage, growth],
    ids=lambda module: module.__name__,
)
@pytest.mark.filterwarnings("ignore")  # peers warn
def test_benchmark_runs_at_toy_size(benchmark, tmp_path, capsys):
    benchmark.main(quick=True, path=tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["table"]
    assert found["environment"].keys() >= {"date", "processor", "jax", "python"}
    assert str(tmp_path) in capsys.readouterr().out
