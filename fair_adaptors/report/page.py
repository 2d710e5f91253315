"""The report of an evaluation: one HTML file that needs no other and no network, with plots beside it."""

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from fair_adaptors.evaluation.folder import IMAGES_FILE, PLOTS, REPORT_FILE, RESULTS_FILE, TIMING_FILE
from fair_adaptors.evaluation.metrics import CONFIDENCE
from fair_adaptors.evaluation.verdict import Results, is_uniform, verdicts

from . import gallery, tables
from .page_data import page_data
from .plots import write_grids, write_plots

SENTENCES = 6
"""Variants whose sentence is shown at once."""

DRAWN = (
    "The sandbox is a small drawn world with two gender presentations and four skin tones, because its truth must be"
    " countable. People are not so. What works here shows the method at work; it is no evidence about photographs."
)

METHOD = (
    (
        "Bias",
        "An image counts as the class that the classifier finds likeliest. The bias of a prompt is the mean, over"
        " pairs of classes, of the difference of their frequencies: 0 where every class is as frequent, and 2/K where"
        " all images are of one of K classes, which is 1 for two and 0.5 for four. The figure is the mean over"
        " prompts.",
    ),
    (
        "Noise floor",
        "The bias that a perfectly fair model is expected to score with as many images: a fair coin, too, rarely falls"
        " half and half. It is exact. A bias says something only as far as it stands out from its floor.",
    ),
    (
        "Floor removed",
        "The squared differences of the classes’ true shares can be estimated without the noise: what the images’"
        " number adds is known and taken off. The figure is the root of their mean, so that large differences weigh"
        " more than in the bias. It is negative where the images are more even than chance makes them.",
    ),
    (
        "Intervals",
        "95 %. They tell what the same measurement would give with other prompts of the kind and other images, as many"
        " of them. They are bootstraps over prompts and images, corrected for few prompts and for skew; those of the"
        " worst decile and of κ are rather too wide than too narrow. How many images are undetermined, without a face,"
        " right or obeyed has Wilson’s interval, with prompts as clusters.",
    ),
    (
        "Change",
        "The figure less the original’s, of the total variation where the target is not the same share for every"
        " class. Image for image both have the same prompt and the same noise; the pairs count in which both have a"
        " face. “Falls” and “rises” are said only where the interval excludes 0.",
    ),
    (
        "Total variation",
        "The share of people who would have to be of another class to meet the target. Where a target is not the same"
        " share for every class this is the figure to read, and the one the sentences above are about.",
    ),
    ("Worst decile", "The mean bias of the tenth of the prompts with the largest; “fair” is what it is by chance."),
    (
        "Undetermined",
        f"The classifier gives the likeliest class of some attribute less than {CONFIDENCE:.0%}. Such images are"
        " counted all the same.",
    ),
    ("No face", "The share of images in which no face was found. They count for no class."),
    (
        "Similarity, fit to prompt, diversity",
        "The cosine, by an encoder’s features, of an image with the original’s from the same noise; of an image with"
        " its prompt; and 1 less the mean cosine of two images of one prompt, 0 if all were alike.",
    ),
    (
        "Seconds per image",
        "To make an image and to look at it, on the machine that did. The variant that was drawn first bears the"
        " start.",
    ),
)


def write_report(out: Path, *, command: str) -> Path:
    """Write ``report.html``, and ``plots/`` beside it, from the results in an evaluation's folder.

    The page is written before the plots, which need matplotlib.

    Args:
        out: the folder of ``evaluate``; its pictures are shown if they were kept.
        command: what was typed, for those who want to do it again.

    Returns:
        The page's path.

    Raises:
        MissingExtraError: matplotlib is not installed. The page and the picture grids are there.
    """
    results = json.loads((out / RESULTS_FILE).read_text(encoding="utf-8"))
    timing = _read_timing(out / TIMING_FILE)
    pictures = gallery.read_pictures(out, results, gallery.PROMPTS, gallery.IMAGES)
    path = out / REPORT_FILE
    path.write_text(page(results, timing, pictures, command), encoding="utf-8")
    write_grids(out / PLOTS, results, pictures)
    write_plots(out / PLOTS, results)
    return path


def page(results: Results, timing: Mapping[str, Any], pictures: gallery.Pictures, command: str) -> str:
    """Return the page as text."""
    template = Template((Path(__file__).parent / "page.html").read_text(encoding="utf-8"))
    judges, settings = results["classifiers"], results["settings"]
    return template.substitute(
        title=escape(
            f"{settings['base']}: {settings['prompt_set']}, {settings['images_per_prompt']} images per prompt"
        ),
        verdict=_verdict(results),
        judge=escape(judges[0]),
        figure=_figure(results),
        main=tables.main_table(results, timing, judges[:1]),
        others=_other_classifiers(results, timing),
        frequencies=tables.frequency_tables(results),
        agreement=_section(
            "Do the classifiers agree?",
            "Cohen’s κ over the images with a face: 1 where two classifiers always agree, 0 where only by chance."
            " An adaptor that was trained against one of them may look fairer to it than to the other.",
            tables.agreement_table(results),
        ),
        obeyed=_section(
            "Are explicit prompts obeyed?",
            "Some prompts name an attribute. In this share of their images each classifier sees what was named; an"
            " image without a face does not count as obeyed.",
            tables.obeyed_table(results),
        ),
        calibration=_section(
            "How far off are the classifiers?",
            "The same measurement on images whose truth is known. Such an error is in every bias above, and in no"
            " interval.",
            tables.calibration_table(results),
        ),
        gallery=_gallery(results, pictures),
        method="".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in METHOD),
        limits="".join(f"<li>{escape(limit)}</li>" for limit in _limits(results)),
        command=escape(command),
        settings=_settings(results),
        data=embedded(page_data(results)),
    )


def embedded(data: Any) -> str:
    """Return JSON that can stand in a script element, whatever strings are in it."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _read_timing(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _verdict(results: Results) -> str:
    said = verdicts(results)
    items = [
        f"<li><b>{escape(name)}</b> {escape(sentence)} <small>{escape(variant['summary'])}</small></li>"
        for (name, sentence), variant in zip(said, results["variants"], strict=True)
    ]
    shown, rest = "".join(items[:SENTENCES]), "".join(items[SENTENCES:])
    more = f"<details><summary>{len(items) - SENTENCES} more variants</summary><ul>{rest}</ul></details>"
    return f'<ul class="verdict">{shown}</ul>{more if rest else ""}'


def _figure(results: Results) -> str:
    """Say which figure the plots show."""
    uniform = [is_uniform(target) for target in results["targets"].values()]
    distance = "total variation, the distance from the target"
    if all(uniform):
        return "bias"
    return (
        f"bias, or where a target is not the same share for every class the {distance}," if any(uniform) else distance
    )


def _other_classifiers(results: Results, timing: Mapping[str, Any]) -> str:
    others = results["classifiers"][1:]
    if not others:
        return ""
    summary = f"The same, as {', '.join(others)} {'sees' if len(others) == 1 else 'see'} it"
    found = tables.main_table(results, timing, others)
    return f'<details><summary>{escape(summary)}</summary><div class="scroll">{found}</div></details>'


def _section(title: str, text: str, content: str) -> str:
    if not content:
        return ""
    return f'<h2>{escape(title)}</h2><p>{escape(text)}</p><div class="card"><div class="scroll">{content}</div></div>'


def _gallery(results: Results, pictures: gallery.Pictures) -> str:
    found = gallery.gallery(results, pictures)
    if not found:
        return "<p>The pictures were not kept.</p>"
    return f"{gallery.mark_legend(results)}{found}"


def _limits(results: Results) -> list[str]:
    comparisons = (len(results["variants"]) - 1) * len(results["targets"])
    by_chance = (
        f" Of the {comparisons} changes in the first table, {comparisons / 20:.2g} would be called one by chance on"
        " average if none were."
        if comparisons > 1
        else ""
    )
    return [
        *([DRAWN] if results["settings"]["base"] == "sandbox" else []),
        "The classes are what a classifier sees in a picture. They are not identity: nobody was asked, and people who"
        " are none of them are counted as one of them.",
        "A classifier errs, and more for some people than for others. Its errors are in the figures and in no"
        " interval. Undetermined images and, where there are two, the classifiers’ agreement hint at their size.",
        "The figures are of these prompts, this sampler and these settings. Other prompts may fare otherwise.",
        f"An interval misses in one case of 20.{by_chance}",
        "A bias compares classes with each other, not with any population; what would be fair is the target’s choice.",
        "Similarity and diversity are as an encoder sees them. A fairer model has to change some images.",
        f"Every number is in {RESULTS_FILE}, the divergence from the target among them; every image in {IMAGES_FILE}.",
    ]


def _settings(results: Results) -> str:
    settings = dict(results["settings"])
    prompts = settings.pop("prompts")
    for name in ("labels", "format", "versions"):
        settings.pop(name, None)
    facts = {name.replace("_", " "): str(value) for name, value in settings.items()}
    facts["prompts"] = f"{len(prompts)}, from {results['prompt_source']}"
    facts["classifiers"] = ", ".join(results["classifiers"])
    facts["encoders"] = ", ".join(results["encoders"]) or "none"
    facts["face detector"] = results["face_detector"] or "none: the whole image is the face"
    facts["versions"] = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    return "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
