"""Measure the gate on prompts that its lexicon was not written from: what it steers, and what it leaves alone.

``gate_prompts.json`` says of each prompt which attributes are open, that is, should be steered. It was written before
the gate had seen it, the part of another hand by somebody who had not seen the gate either. By the halves that are
called development the lexicon was mended; by the others, held out, it was not. Two things can go wrong. *Overridden*:
an attribute is steered that should be left alone, so that a picture shows other than what was asked for. *Missed*: an
attribute is left alone that should be steered, so that the picture is as biased as the base's.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks._report import RESULTS, report, table, write_tables
from fair_adaptors.steering.gate import Gate

PROMPTS = Path(__file__).with_name("gate_prompts.json")
ATTRIBUTES = ("gender", "race", "age")
HALVES = ("development", "held out")
OTHERS = "another hand, {}"
"""What halves are called whose prompts were not written by those who wrote the lexicon."""
BOTH = "both halves, before"
BEFORE, OTHERS_BEFORE = "gate_before", "gate_others_before"
"""The JSON files of the gate as it was before its lexicon was mended by either development half."""


def looked_at(prompts: Sequence[Mapping[str, Any]], gate: Gate) -> list[dict[str, Any]]:
    """Return of each prompt the attributes that are steered and should not be, and those that are not and should."""
    found = []
    for one in prompts:
        reasons = gate.look(one["prompt"], ATTRIBUTES).reasons
        steered, wanted = {name for name in ATTRIBUTES if name not in reasons}, set(one["open"])
        found.append({**one, "overridden": sorted(steered - wanted), "missed": sorted(wanted - steered)})
    return found


def counted(half: str, kind: str, looks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a row: counts are of pairs of a prompt and an attribute."""
    wanted = sum(len(one["open"]) for one in looks)
    overridden, missed = (sum(len(one[what]) for one in looks) for what in ("overridden", "missed"))
    left = len(looks) * len(ATTRIBUTES) - wanted
    steered = wanted - missed + overridden
    return {
        "half": half,
        "prompts that": kind,
        "prompts": len(looks),
        "to steer": wanted,
        "missed": missed,
        "recall": 1 - missed / wanted if wanted else "–",
        "to leave": left,
        "overridden": overridden,
        "left alone": 1 - overridden / left if left else "–",
        "precision": 1 - overridden / steered if steered else "–",
    }


def measured() -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    """Return what the gate does with each prompt, a row for each half and kind, and one for each language held out."""
    looks, rows = looked_at(json.loads(PROMPTS.read_text(encoding="utf-8")), Gate()), []
    halves = [*HALVES, *map(OTHERS.format, HALVES)]
    for half in halves:
        mine = [one for one in looks if one["half"] == half]
        for kind in dict.fromkeys(one["kind"] for one in mine):
            rows.append(counted(half, kind, [one for one in mine if one["kind"] == kind]))
        rows.append(counted(half, "all", mine))
    others = [one for one in looks if one["half"] in halves[2:]]
    rows.append(counted(OTHERS.format(HALVES[1]), BOTH, others))
    languages = [
        counted(half, name, [one for one in looks if (one["half"], one["language"]) == (half, name)])
        for half in halves[1::2]
        for name in dict.fromkeys(one["language"] for one in looks)
    ]
    return looks, rows, languages


def main() -> None:
    """Print and write a row for each half and kind of prompts, and each prompt that went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="gate", help="name of the JSON file")
    parser.add_argument("--wrong", action="store_true", help="print what went wrong in the development halves")
    arguments = parser.parse_args()
    looks, rows, languages = measured()
    report(arguments.name, rows, languages=languages)
    for one in looks if arguments.wrong else ():
        if one["half"].endswith("development") and (one["overridden"] or one["missed"]):
            print(one["prompt"], "| overridden:", *one["overridden"], "| missed:", *one["missed"])
    if arguments.name == "gate":
        write_tables("steering", tables(rows, languages))


def tables(rows: Sequence[Mapping[str, Any]], languages: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the document's tables: of the prompts of another hand, then of ours."""
    halves = {OTHERS_BEFORE: OTHERS.format(HALVES[1]), BEFORE: HALVES[1]}
    return [_shown([*rows, *languages], half, before) for before, half in halves.items()]


def _shown(rows: Sequence[Mapping[str, Any]], half: str, name: str) -> str:
    """Return the document's table of a held-out half, before (in a JSON file) and after the lexicon was mended."""
    names = {"en": "in English", "de": "in German", "fr": "in French", "es": "in Spanish"}
    record = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    before = {(row["half"], row["prompts that"]): row for row in (*record["rows"], *record["languages"])}
    mended = half.replace(HALVES[1], HALVES[0])
    lines = []
    for row in rows:
        key = row["half"], row["prompts that"]
        if key == (mended, "all"):
            label = "the half it was mended by"
        elif row["half"] == half:
            label = names.get(key[1], key[1])
        else:
            continue
        both = [
            f"{before[key][wrong]}{'' if label == BOTH else f' → {row[wrong]}'} of {row[of]}" if row[of] else "–"
            for wrong, of in (("missed", "to steer"), ("overridden", "to leave"))
        ]
        lines.append((label, row["prompts"], *both))
    return table(
        ("held-out prompts", "prompts", "missed", "overridden"), sorted(lines, key=lambda one: one[0] == BOTH)
    )


if __name__ == "__main__":
    main()
