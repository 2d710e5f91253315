"""What a trained classifier is worth: how often it is right, for whom, and how far its confidence can be believed."""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fair_adaptors.evaluation.estimates import estimate_rate

BINS = 15


def measure(
    logits: Mapping[str, Tensor],
    labels: Mapping[str, Tensor],
    temperatures: Mapping[str, float],
    classes: Mapping[str, tuple[str, ...]],
) -> dict[str, Any]:
    """Measure a classifier on images it has not seen.

    Args:
        logits: of each attribute, [N, K], before the temperature.
        labels: the true class indices, [N].
        temperatures: by attribute.
        classes: names.

    Returns:
        ``attributes``: by name the classes, the temperature, the accuracy overall and by true class, and the
        calibration error before and after the temperature. ``groups``: for every combination of true classes that
        there is, how many images and the accuracy of each attribute. Accuracies have 95 % intervals (Wilson).
    """
    right = {name: (logits[name].argmax(1) == labels[name]).numpy() for name in logits}
    truth = {name: labels[name].numpy() for name in labels}
    attributes = {}
    for name, names in classes.items():
        before, after = (
            calibration_error((logits[name] / t).softmax(1), labels[name]) for t in (1.0, temperatures[name])
        )
        attributes[name] = {
            "classes": list(names),
            "temperature": temperatures[name],
            "accuracy": _rate(right[name]),
            "by_class": {each: _rate(right[name][truth[name] == index]) for index, each in enumerate(names)},
            "calibration_error": {"before": before, "after": after},
        }
    groups = []
    for cell in itertools.product(*(range(len(names)) for names in classes.values())):
        inside = np.all([truth[name] == index for name, index in zip(classes, cell, strict=True)], axis=0)
        if len(classes) > 1 and inside.any():
            group = {name: classes[name][index] for name, index in zip(classes, cell, strict=True)}
            rates = {name: _rate(right[name][inside]) for name in classes}
            groups.append({"group": group, "images": int(inside.sum()), "accuracy": rates})
    return {"attributes": attributes, "groups": groups}


def calibration_error(probabilities: Tensor, labels: Tensor) -> float:
    """Return the expected calibration error (Guo et al. 2017): how far confidence is from accuracy, in 15 bins.

    Args:
        probabilities: [N, K].
        labels: true class indices, [N].

    Returns:
        The mean over images of |accuracy − mean confidence| of their bin, in [0, 1].
    """
    confidence, said = probabilities.double().max(1)
    place = (confidence * BINS).ceil().long().clamp(1, BINS) - 1
    gap = torch.zeros(BINS, dtype=torch.float64).index_add(0, place, (said == labels).double() - confidence)
    return float(gap.abs().sum() / len(labels))


def card(name: str, results: Mapping[str, Any]) -> str:
    """Return the model card in Markdown, from what ``train_classifier`` returns."""
    data, training, images = results["data"], results["training"], results["images"]
    kind = "mobilenet" if training["model"].partition(":")[0] == "mobilenet" else "transformers"
    source = f"{data['place']}{', ' + data['config'] if data['config'] else ''}"
    lines = [
        "---",
        "pipeline_tag: image-classification",
        *(["library_name: transformers"] if kind == "transformers" else []),
        "tags: [fairness, fair-adaptors]",
        "---",
        f"# {name}",
        "",
        f"Tells {_listed(list(results['attributes']))} of pictures of faces, as labels of the data name them: what"
        " people look like to it, not who they are.",
        "",
        f"`fair-adaptors evaluate BASE --classifier {kind}:FOLDER`",
        "",
        "## Numbers",
        "",
        f"On {images['numbers']} images that it was not trained on. Intervals are 95 % (Wilson).",
        "",
        "| | right | calibration error | after calibration | temperature |",
        "|---|---|---|---|---|",
    ]
    for attribute, row in results["attributes"].items():
        error = row["calibration_error"]
        lines.append(
            f"| {attribute} | {_said(row['accuracy'])} | {error['before']:.1%} | {error['after']:.1%} |"
            f" {row['temperature']:.2f} |"
        )
    lines += ["", "For whom:", "", *_groups_table(results), "", "## How it was made", ""]
    lines += [
        f"- Data: {source}, revision {data['revision'] or 'not pinned'}. Licence: {data['licence']}.",
        f"- From {training['model']}: {training['steps']} steps of {training['batch_size']} images, half of them"
        f" mirrored, AdamW at {training['learning_rate']:g} (warm-up, cosine), seed {training['seed']}. In an"
        " attribute's loss every class has equal weight.",
        f"- Each attribute's logits are divided by its temperature, fitted on {images['temperature']} more held-out"
        " images: it is in the weights. The calibration error is the mean difference of confidence and accuracy, in"
        f" {BINS} bins (Guo et al. 2017).",
        "",
        "## Limits",
        "",
        "It repeats its data's labels, which people gave to other people by their looks, and its mistakes differ"
        " between groups as the table says. Use it to count pictures, never to judge a person.",
    ]
    return "\n".join(lines) + "\n"


def _groups_table(results: Mapping[str, Any]) -> list[str]:
    names = list(results["attributes"])
    if len(names) == 1:
        (row,) = results["attributes"].values()
        body = [f"| {each} | {_said(rate)} |" for each, rate in row["by_class"].items()]
        return [f"| {names[0]} | right |", "|---|---|", *body]
    head = " | ".join(f"{name} right" for name in names)
    lines = [f"| group | images | {head} |", "|---" * (len(names) + 2) + "|"]
    for name in names:
        for each, rate in results["attributes"][name]["by_class"].items():
            cells = [_said(rate) if other == name else "" for other in names]
            lines.append(f"| {name}: {each} | {rate['images'] if rate else 0} | {' | '.join(cells)} |")
    for row in results["groups"]:
        cells = [_said(row["accuracy"][name]) for name in names]
        lines.append(f"| {' × '.join(row['group'].values())} | {row['images']} | {' | '.join(cells)} |")
    return lines


def _rate(hits: NDArray[np.bool_]) -> dict[str, Any] | None:
    """Return a share of hits with its interval and number; None of none."""
    return {**dataclasses.asdict(estimate_rate(hits[None])), "images": len(hits)} if len(hits) else None


def _said(rate: Mapping[str, float] | None) -> str:
    return "–" if rate is None else f"{rate['value']:.1%} ({rate['low']:.1%}–{rate['high']:.1%})"


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
