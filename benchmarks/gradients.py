"""Memory and time of the gradient pass: per step, against one graph and the published form with its checkpoints.

Every case runs in a process of its own. Memory is the peak above what the process held before the pass (Linux).
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks._report import report

PROMPT = "A photo of the face of a hospital nurse, a person"


def measure(form: str, num_steps: int, gradient_steps: int, images: int, repeats: int) -> dict[str, Any]:
    """Measure what training iterations do on the sampler: the pass without gradient, then the gradient."""
    import torch
    from fair_adaptors.training.engine import lora
    from fair_adaptors.training.engine.gradients import accumulate_gradients, affine_coefficients, step_weights
    from fair_adaptors.training.engine.sampling import encode_prompts, initial_noise, sample
    from fair_adaptors.training.engine.schedule import scheduler_for

    from fair_adaptors.sandbox.pipeline import GUIDANCE, load_sandbox_pipeline
    from tests.reference import whole_graph_gradients

    torch.manual_seed(0)
    pipe = load_sandbox_pipeline()
    parameters = list(lora.attach(pipe, ["text_encoder"], rank=8).values())
    noise = initial_noise(pipe, range(images))
    v = torch.randn_like(noise)
    scheduler = scheduler_for(pipe, num_steps)
    weights = step_weights(scheduler)
    factors = weights / affine_coefficients(scheduler)
    generator = torch.Generator().manual_seed(0)

    def iteration() -> float:
        with torch.no_grad():
            embeds = encode_prompts(pipe, [PROMPT], guidance_scale=GUIDANCE)
        run = sample(pipe, embeds, noise, num_steps=num_steps, guidance_scale=GUIDANCE)
        _reset_peak()
        if form == "per-step":
            chosen = torch.randperm(num_steps, generator=generator)[:gradient_steps].sort().values
            settings = {"guidance_scale": GUIDANCE, "weights": weights, "steps": chosen}
            accumulate_gradients(pipe, run, v, [PROMPT], **settings)
        else:
            settings = {"num_steps": num_steps, "guidance_scale": GUIDANCE, "factors": factors}
            whole_graph_gradients(pipe, PROMPT, noise, v, **settings, checkpointing=form == "published")
        peak = _memory("VmHWM")
        for parameter in parameters:
            parameter.grad = None
        return peak

    held = _memory("VmRSS")
    peak = iteration()
    seconds = []
    for _ in range(repeats):
        started = time.process_time()
        iteration()
        seconds.append(time.process_time() - started)
    return {"megabytes": peak - held, "process_megabytes": peak, "cpu_seconds": min(seconds, default=None)}


def _reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _memory(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field + ":"))


def in_process(*case: object) -> dict[str, Any]:
    """Measure one case in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.gradients", "--case", json.dumps(case)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def main() -> None:
    """Print the bars' ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure(*json.loads(arguments.case))))
        return
    n, k = arguments.images, arguments.repeats
    cases = {
        "per step, T=10": ("per-step", 10, 10, n, 0),
        "per step, T=40": ("per-step", 40, 40, n, 0),
        "per step, T=20": ("per-step", 20, 20, n, k),
        "5 of 20 steps": ("per-step", 20, 5, n, k),
        "whole graph, T=20": ("whole", 20, 20, n, 0),
        "published form, T=20": ("published", 20, 20, n, k),
    }
    found = {name: in_process(*case) for name, case in cases.items()}
    ours, whole, published = (found[f"{form}, T=20"] for form in ("per step", "whole graph", "published form"))
    bars = {
        "memory T=40 / T=10": (_ratio(found, "per step, T=40", "per step, T=10", "megabytes"), 1.1),
        "memory / whole graph at T=20": (ours["megabytes"] / whole["megabytes"], 0.35),
        "memory / published form at T=20": (ours["megabytes"] / published["megabytes"], 0.35),
        "CPU time / published form": (ours["cpu_seconds"] / published["cpu_seconds"], 0.8),
        "CPU time with 5 of 20 / published form": (
            found["5 of 20 steps"]["cpu_seconds"] / published["cpu_seconds"],
            0.5,
        ),
    }
    report(
        "gradients",
        [{"what": what, "ratio": ratio, "bar": bar, "held": ratio <= bar} for what, (ratio, bar) in bars.items()],
        cases=found,
        images=n,
    )


def _ratio(found: dict[str, dict[str, Any]], one: str, other: str, field: str) -> float:
    return found[one][field] / found[other][field]


if __name__ == "__main__":
    main()
