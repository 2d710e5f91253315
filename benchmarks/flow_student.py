"""An adaptor of sandbox-flow on its student, which draws in four steps and without guidance, and the student's on it.

The student is distilled by ``python -m fair_adaptors.training.sandbox.student --base sandbox-flow``. An adaptor is
trained on either by the same recipe, the student's in its own steps, and both are measured on both, on prompts that
take no part in training, with the evaluation classifier.
"""

import argparse
import os
import shutil
from pathlib import Path
from typing import Any

from benchmarks._report import report
from benchmarks.sandbox_bias import figures, measure, train
from fair_adaptors.pipelines import load_pipeline
from fair_adaptors.sandbox.flow import PLACE, flow_folder
from fair_adaptors.sandbox.pipeline import GUIDANCE, STEPS

RECIPE = "sandbox-flow-gender"
STUDENT_STEPS = 4
DRAWN: dict[str, dict[str, Any]] = {
    "sandbox-flow": {"steps": STEPS, "guidance_scale": GUIDANCE},
    "student": {"steps": STUDENT_STEPS, "guidance_scale": 0.0},
}
SETTINGS = {
    "sandbox-flow": [],
    "student": [f"num_steps={STUDENT_STEPS}", "gradient_steps=2", "guidance_scale=0", "unguided=0"],
}
"""How an adaptor is trained on each."""
SHOWN = ("gender", "tone shift", "age shift", "occupation")


def student_pipeline(network: Path, folder: Path) -> Path:
    """Put the student's transformer in a copy of its teacher's pipeline; returns where sandbox-flow is read from."""
    if not (folder / "pipeline").exists():
        shutil.copytree(flow_folder() / "pipeline", folder / "pipeline")
        for file in (*network.glob("*.json"), *network.glob("*.safetensors")):
            if file.name != "student.json":
                shutil.copy(file, folder / "pipeline" / "transformer" / file.name)
    return folder


def main() -> None:
    """Train what is not there, measure both on both, and print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--student", type=Path, default=Path("build/student-sandbox-flow"), help="its network's folder"
    )
    parser.add_argument("--out", type=Path, default=Path("build/flow-student"), help="folder of pipeline and adaptors")
    parser.add_argument("--adaptor", type=Path, help="an adaptor of sandbox-flow, if there is one")
    parser.add_argument("--of", nargs="+", choices=list(DRAWN), default=list(DRAWN), help="whose adaptors take part")
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--set", nargs="+", default=[], help="other settings, such as iterations=2: does it run?")
    parser.add_argument("--name", default="flow_student", help="name of the JSON file")
    arguments = parser.parse_args()
    places = {"sandbox-flow": flow_folder(), "student": student_pipeline(arguments.student, arguments.out / "base")}
    adaptors = {name: arguments.out / f"of-{name}" for name in arguments.of}
    if arguments.adaptor:
        adaptors["sandbox-flow"] = arguments.adaptor
    rows = []
    for name in adaptors:
        os.environ[PLACE] = str(places[name])
        train(RECIPE, 0, adaptors[name], [*SETTINGS[name], *arguments.set])
    for name, place in places.items():
        os.environ[PLACE] = str(place)
        results = measure(
            load_pipeline("sandbox-flow"),
            arguments.split,
            adaptors,
            arguments.images,
            base="sandbox-flow",
            **DRAWN[name],
        )
        for variant in results.variants:
            found = figures(results, variant)
            rows.append(
                {"drawn by": name, "adaptor of": variant.name}
                | {what: round(found[what], 3) if what in found else "–" for what in SHOWN}
            )
    report(arguments.name, rows, images=arguments.images)


if __name__ == "__main__":
    main()
