"""The card of an adaptor: the page of its repository, made of its record, its results and its row in the registry.

No number stands in it that is not in one of them. Their words are strangers' words: whatever the template prints is
escaped, unless it was made here.
"""

import html
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

from fair_adaptors.adaptor.archives import ARCHIVES
from fair_adaptors.adaptor.bases import find_base, imported, plugin_of
from fair_adaptors.adaptor.record import TAG, AdaptorRecord, read_record
from fair_adaptors.adaptor.registry import AdaptorInfo
from fair_adaptors.adaptor.results import Results
from fair_adaptors.adaptor.results_file import read_results
from fair_adaptors.evaluation.published import comparisons
from fair_adaptors.evaluation.wording import fine

from .card_tables import figures, metrics
from .markdown import Markdown, line

TEMPLATE = "card.md.jinja"
METHODS = ("directions", "edit", "words")
"""Of ``make``, as the record's ``training`` has them."""
OTHERS = {"tokens", "directions", "words"}
"""What an adaptor can be of that is no LoRA."""

_HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?", re.ASCII)
_WORD = re.compile(r"[\w./:+-]+", re.ASCII)
_IMAGE = re.compile(r"\w[\w.-]*\.(png|jpg|jpeg|webp)", re.ASCII)
_MARKUP = re.compile(r"[\\`*_{}\[\]#|!~$@]|:(?=//)|(?<=www)\.")


def card_of(folder: str | Path, *, info: AdaptorInfo | None = None, repo_id: str | None = None) -> str:
    """Return the card of an adaptor folder, with its results and its pictures if it has some; see ``render_card``.

    Raises:
        InvalidAdaptorError: the record or the results cannot be read, or the results are of other weights.
    """
    folder = Path(folder)
    images = sorted(path.name for path in (folder / "images").glob("*") if _IMAGE.fullmatch(path.name))
    return render_card(read_record(folder).public(), read_results(folder), images=images, info=info, repo_id=repo_id)


def render_card(
    record: AdaptorRecord,
    results: Results | None = None,
    *,
    images: Sequence[str] = (),
    info: AdaptorInfo | None = None,
    repo_id: str | None = None,
) -> str:
    """Return a card in Markdown, with the Hub's metadata.

    Args:
        record: ``fair_adaptor.json``.
        results: what ``read_results`` returns; None if it was not measured.
        images: names of the pictures in ``images/``.
        info: its row in the registry.
        repo_id: where it will be on the Hub.

    Raises:
        InvalidAdaptorError: the results are of other weights.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # ``escape`` does it, for HTML and Markdown both
        finalize=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    training, plugin = record.training, plugin_of(record.base_model)
    known = {name: value for name, value in training.items() if name != "converted_from"}
    loadable = info is not None and info.status != "recipe-only"
    return environment.get_template(TEMPLATE).render(
        record=record,
        metadata=_metadata(record, results, images),
        info=info,
        base=find_base(record.base_model),
        plugin=plugin,
        note=Markdown(fill(imported(plugin.note), 122, initial_indent="* ", subsequent_indent="  ")) if plugin else "",
        images=[(Markdown(name), _caption(name)) for name in images],
        found=figures(record, results) if results is not None else None,
        lora=[part for part in record.trained_parts if part not in OTHERS],
        made=training.get("method") if training.get("method") in METHODS else None,
        name=code(info.name if info is not None and loadable else repo_id or "ORG/NAME"),
        for_others=is_for_others(record),
        converted=_sources(training),
        archive=_archive(info),
        published=_published(info),
        cost=_cost(training),
        stays=_stays(training),
        obeys=_obeys(training),
        settings=[(name, json.dumps(value, ensure_ascii=False)) for name, value in sorted(known.items())],
        rows=_rows,
        code=code,
        number=plain,
        percent=lambda share: Markdown(fine(share)),
    )


def is_for_others(record: AdaptorRecord) -> bool:
    """Whether ComfyUI and A1111 can use an adaptor: they know LoRAs, and no embedded base."""
    return OTHERS.isdisjoint(record.trained_parts) and plugin_of(record.base_model) is None


def escape(value: object) -> str:
    """Return text as one line that Markdown and HTML show as it is; ``Markdown`` as it is itself."""
    if isinstance(value, Markdown):
        return value
    return _MARKUP.sub(lambda found: "\\" + found[0], html.escape(line(value), quote=False))


def _rows(table: Sequence[Sequence[object]]) -> Markdown:
    """Return the rows of a table, each of its cells escaped."""
    return Markdown("\n".join(f"| {' | '.join(map(escape, row))} |" for row in table))


def code(value: object) -> Markdown:
    """Return a word for a block of code, in which nothing can be escaped; what is not a plain word is left out."""
    return Markdown(value if isinstance(value, str) and _WORD.fullmatch(value) else "…")


def plain(value: object) -> str:
    """Return a number as it is written in a text; what is none is escaped."""
    if isinstance(value, float):
        return Markdown(f"{value:g}")
    return Markdown(value) if isinstance(value, int) else escape(value)


def _metadata(record: AdaptorRecord, results: Results | None, images: Sequence[str]) -> Markdown:
    """Return the metadata as YAML."""
    from huggingface_hub import ModelCardData

    base = find_base(record.base_model)
    kinds = ["textual_inversion"] if "tokens" in record.trained_parts else []
    if not OTHERS.issuperset(record.trained_parts):
        kinds = ["lora", "template:sd-lora"]
    measured = metrics(record, results) if results is not None else []
    card = ModelCardData(
        base_model=record.base_model if _HUB_NAME.fullmatch(record.base_model) else None,
        license=base.licence if base else None,
        license_name=(base.licence_name or None) if base else None,
        license_link=f"https://huggingface.co/{base.names[0]}" if base and base.licence_name else None,
        library_name="diffusers",
        pipeline_tag="text-to-image",
        tags=[*kinds, "fairness", TAG],
        model_name=record.name if measured else None,
        eval_results=measured or None,
        base_model_relation="adapter",
        widget=[{"text": _caption(name), "output": {"url": f"images/{name}"}} for name in images] or None,
    )
    return Markdown(card.to_yaml())


def _sources(training: Mapping[str, Any]) -> list[tuple[str, str]] | None:
    """Return name and sha256 of the files that an adaptor was converted from; None if it was not."""
    origin = training.get("converted_from")
    files = origin.get("files") if isinstance(origin, dict) else None
    if not isinstance(files, list):
        return None
    return [(str(file.get("name")), str(file.get("sha256"))) for file in files if isinstance(file, dict)]


def _published(info: AdaptorInfo | None) -> list[tuple[str, ...]]:
    """Return the paper's figures of an adaptor of its authors: prompts, figure, original model, adaptor."""
    if info is None or info.checkpoint is None:
        return []
    return [(*names, str(before or "–"), str(after)) for *names, before, after in comparisons(info.name)]


def _archive(info: AdaptorInfo | None) -> Markdown:
    """Return a link to the archive of the paper's authors that has an adaptor."""
    archive = ARCHIVES[info.checkpoint.archive] if info is not None and info.checkpoint is not None else None
    return Markdown(f"[{archive.name}]({archive.page})" if archive else "")


def _cost(training: Mapping[str, Any]) -> str | None:
    """Return what the training took, as far as the record says."""
    many = "es" if training.get("processes") != 1 else ""
    units = {"seconds": "s", "processes": f"process{many}", "peak_megabytes": "MB of memory at most"}
    told = {key: value for key in units if isinstance(value := training.get(key), int | float)}
    return Markdown(", ".join(f"{plain(value)} {units[key]}" for key, value in told.items())) if told else None


def _stays(training: Mapping[str, Any]) -> str | None:
    """Say which other attributes the training kept, by which rule and weight; None where the record does not say."""
    kept = training.get("kept_attributes")
    if not isinstance(kept, list):
        return None
    how = f"by {training.get('keep_by')}, weight {training.get('keep_weight')}"
    return f"{', '.join(map(str, kept))} ({how})" if kept else "no other attribute"


def _obeys(training: Mapping[str, Any]) -> str | None:
    """Return the attributes of which training prompts named a class, to be obeyed; None where the record has none."""
    named = training.get("named_attributes")
    return " or ".join(map(str, named)) if isinstance(named, list) and named else None


def _caption(image: str) -> str:
    if image == "before_after.png":
        return "Rows before and after, the same noise in each column"
    return re.sub("[_-]+", " ", Path(image).stem)
