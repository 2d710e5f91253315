"""The figures of an adaptor as a benchmark on the Hub collects them: ``.eval_results/fair-adaptors.yaml``."""

import re

from fair_adaptors.adaptor.record import AdaptorRecord
from fair_adaptors.adaptor.results import Results

from .card_tables import metrics
from .markdown import line


def eval_results(record: AdaptorRecord, results: Results, benchmark: str) -> str:
    """Return the figures of the card's metadata as YAML, in the Hub's format of evaluation results.

    Args:
        benchmark: the data set on the Hub that keeps the leaderboard. Its ``eval.yaml`` has to have a task for each
            figure, called after it: ``gender-bias``, ``tone-shift``, ``gender-obeyed``.

    Raises:
        InvalidAdaptorError: the results are of other weights.
    """
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml
    from huggingface_hub.utils import yaml_dump

    settings = results.settings
    images = (
        f"{len(results.labels)} prompts of {line(settings.prompt_set)}, {settings.images_per_prompt} images of each"
    )
    seen_by = f"as {line(results.classifier)} sees them"
    entries = []
    for row in metrics(record, results):
        told = row.metric_args or {}
        before = f", before {told['before']}" if "before" in told else ""
        task = re.sub(r"[^a-z0-9]+", "-", str(row.metric_name).lower()).strip("-")
        floor = f", floor {told['floor']}" if "floor" in told else ""
        notes = f"95 % interval {told['low']} to {told['high']}{floor}{before}; {images}, {seen_by}"
        entries.append(EvalResultEntry(dataset_id=benchmark, task_id=task, value=row.metric_value, notes=notes))
    text: str = yaml_dump(eval_result_entries_to_yaml(entries))
    return text
