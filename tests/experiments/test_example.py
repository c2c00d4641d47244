"""The worked example of CONTRIBUTING.md runs as it stands there, and measures what is planted."""

import re
from pathlib import Path

import numpy as np
import pytest
from experiments import planting


@pytest.fixture(scope="module")
def example():
    text = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    namespace = {"__name__": "toy"}
    exec(compile(code, "CONTRIBUTING.md", "exec"), namespace)
    return namespace


def test_the_example_runs_and_judges_its_claim(example):
    (one,) = example["toy"].verdicts(example["dataset"])
    assert (one.id, np.isfinite([one.low, one.high]).all()) == ("T1", True)
    assert example["toy"].figure(example["dataset"]).axes[0].has_data()


@pytest.mark.parametrize(("exponent", "outcome"), [(-0.5, "supported"), (-0.1, "not supported")])
def test_its_claim_follows_planted_data(example, exponent, outcome):
    fake = example["dataset"].copy(deep=True)
    numbers = planting.members(exponent, fake.sizes["seed"])
    fake["change"] = fake["change"].transpose("step", "width", "seed").astype(float)
    fake["change"].loc[{"step": 20}] = planting.power_law(fake.width.values, numbers)
    planting.assert_planted(example["toy"].verdicts(fake), {"T1": numbers}, outcome, rtol=1e-9)
