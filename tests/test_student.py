"""A student of few steps: its levels are its scheduler's, its teacher's way is the sampler's, and it learns it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from fair_adaptors.training.engine.sampling import encode_prompts, initial_noise, sample
from fair_adaptors.training.engine.schedule import scheduler_for
from fair_adaptors.training.sandbox.student import distil, levels, student_scheduler, taught

from tests.tiny import tiny_pipeline, tiny_v_pipeline
from tests.tiny_flow import tiny_sd3

PIPELINES = [tiny_pipeline, tiny_v_pipeline, tiny_sd3]
PROMPTS = ["a nurse", "a guard", "a nurse"]


def students(make: Callable[[], Any]) -> Any:
    pipe = make()
    pipe.scheduler = student_scheduler(pipe)
    return pipe


@pytest.mark.parametrize("make", PIPELINES)
def test_a_step_lands_where_the_scheduler_s_does_and_parts_are_between(make: Callable[[], Any]) -> None:
    pipe = students(make)
    at, fine, scheduler = levels(pipe, 4, 1), levels(pipe, 4, 3), scheduler_for(pipe, 4)
    x = torch.randn(1, 4, 8, 8)
    for number, time in enumerate(scheduler.timesteps):
        output = torch.randn(x.shape)
        of_input, of_output = at.step(torch.tensor([number]), torch.tensor([number + 1]))
        landed = scheduler.step(output, time, x, return_dict=False)[0]
        torch.testing.assert_close(of_input * x + of_output * output, landed, rtol=1e-4, atol=1e-5)
        x = landed
    assert torch.equal(fine.timesteps[::3], at.timesteps) and (fine.timesteps.diff() < 0).all()
    assert (fine.signal[-1], fine.noise[-1]) == (1, 0)


@pytest.mark.parametrize("make", PIPELINES)
def test_the_teacher_s_way_is_that_of_the_sampler_with_guidance(make: Callable[[], Any]) -> None:
    pipe = students(make)
    noise = initial_noise(pipe, range(3))
    ways, conditions = taught(pipe, PROMPTS, noise, levels(pipe, 2, 1), guidance_scale=3.0, parts=1, batch=2)
    both = encode_prompts(pipe, PROMPTS, guidance_scale=3.0)
    run = sample(pipe, both, noise, num_steps=2, guidance_scale=3.0)
    assert torch.equal(ways[0], noise) and len(conditions[0]) == 3
    torch.testing.assert_close(ways[-1], run.latents, rtol=1e-3, atol=1e-4)
    halves, _ = taught(pipe, PROMPTS, noise, levels(pipe, 1, 2), guidance_scale=3.0, parts=2)
    assert halves.shape[0] == 2, "of two parts of one step, the last is kept"


@pytest.mark.parametrize("make", [tiny_pipeline, tiny_sd3])
def test_it_learns_to_draw_in_few_steps_what_its_teacher_draws_in_many(make: Callable[[], Any]) -> None:
    pipe = students(make)
    noise, at = initial_noise(pipe, range(3)), levels(pipe, 2, 3)
    ways, conditions = taught(pipe, PROMPTS, noise, at, guidance_scale=3.0, parts=3)

    def error() -> float:
        alone = encode_prompts(pipe, PROMPTS, guidance_scale=0.0)
        run = sample(pipe, alone, noise, num_steps=2, guidance_scale=0.0)
        return (run.latents - ways[-1]).square().mean().item()

    before = error()
    settings = {"updates": 40, "batch": 6, "rate": 3e-3}
    losses = distil(pipe, ways, conditions, at, parts=3, generator=torch.Generator().manual_seed(0), **settings)
    assert losses[-1] < losses[0] and error() < before / 2
