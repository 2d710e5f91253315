"""What the benchmark of operations counts at the modules is what the formulas of a run's cost say."""

import argparse

import pytest
from fair_adaptors.training.cost import passes
from fair_adaptors.training.recipes import get_recipe

from benchmarks import efficiency


@pytest.mark.slow
def test_the_operations_of_an_iteration_are_those_of_the_formula() -> None:
    tried = "K steps of each image"
    points: list[dict[str, float]] = []
    asked = argparse.Namespace(iterations=1, every=1, images=1, split="validation")
    for _ in efficiency.run(tried, 0, asked, points):
        pass
    config, costs = get_recipe("sandbox-gender", {}), efficiency.operations()
    rows = passes(config.num_steps, config.gradient_steps)
    terms = (rows[model].teraflops(cost) for model, cost in costs.items() if model in rows)
    named = points[0]["teraflops"] / (config.prompts_per_step * config.images_per_prompt)
    assert points[0]["iteration"] == 1 and points[0]["gender bias"] >= 0
    assert named == pytest.approx(sum(terms), rel=0.15)
