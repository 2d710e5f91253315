"""How the command line explains itself: whole summaries, one word for each kind of value, an example per command."""

from collections.abc import Mapping
from typing import Any

import typer.core

METAVARS: Mapping[str, str] = {
    "adaptor": "NAME", "base": "BASE", "baseline": "METHOD", "prompts": "SET|FILE", "target": "NAME=SHARE,…",
    "fail_above": "NAME=X", "classifier": "KIND:SOURCE", "encoder": "KIND:SOURCE", "faces": "DETECTOR",
    "device": "DEVICE", "dtype": "DTYPE", "variant": "NAME", "base_config": "BASE", "settings": "KEY=VALUE",
    "config": "FILE", "checkpoint": "FILE", "source": "FILE", "out": "PATH", "attribute": "NAME",
    "attributes": "NAME,…", "revision": "REVISION", "dataset": "SOURCE", "model": "SOURCE", "format": "FORMAT",
    "namespace": "NAME", "host": "ADDRESS", "name": "NAME", "tag": "NAME", "benchmark": "ORG/NAME",
    "weight": "X", "guidance": "X", "difference": "X", "lr": "X", "margin": "X",
}  # fmt: skip
"""What stands for the value of an option, wherever the option is; N for those that are not here: whole numbers."""

EXAMPLES: Mapping[str, str] = {
    "demo": "fair-adaptors demo -n 60 --out demo",
    "generate": "fair-adaptors generate 'a hospital nurse' --adaptor sandbox-gender -n 8 --out grid.png",
    "train": "fair-adaptors train sandbox-gender --out runs/mine\n"
    "  fair-adaptors train gender-race --dry-run      what it would fetch, take and need",
    "evaluate": "fair-adaptors evaluate sandbox --adaptor sandbox-gender -n 20 --out audit\n"
    "  fair-adaptors evaluate sd15 --adaptor gender-race --prompts mine.txt",
    "reproduce": "fair-adaptors reproduce gender-race --out reproduction",
    "app": "fair-adaptors app --base sandbox",
    "list": "fair-adaptors list | grep sandbox",
    "info": "fair-adaptors info sandbox-gender",
    "card": "fair-adaptors card runs/mine",
    "compare": "fair-adaptors compare audit-before audit-after",
    "push": "fair-adaptors push runs/mine ORG/NAME --tag v1",
    "pull": "fair-adaptors pull ORG/NAME --out folder",
    "search": "fair-adaptors search --base sd15 --attribute gender",
    "convert": "fair-adaptors convert lora.safetensors --base sd15 --attribute gender --out mine",
    "export": "fair-adaptors export sandbox-gender --format kohya --out mine.safetensors",
    "train-classifier": "fair-adaptors train-classifier --dataset fairface --attributes gender,race --out faces",
    "face-bank": "fair-adaptors face-bank --dataset fairface --out bank.safetensors",
    "doctor": "fair-adaptors doctor",
}


def epilog(name: str) -> str:
    """Return what stands below the help of a command; \\b keeps its lines as they are."""
    return f"\b\nExample:\n  {EXAMPLES[name]}"


class Group(typer.core.TyperGroup):
    """Lists its commands with their whole first sentence, in the order in which they were added."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        helps = {name: " ".join((self.commands[name].help or "").split()) for name in self.list_commands(ctx)}
        rows = [(name, f"{text.partition('. ')[0].rstrip('.')}.") for name, text in helps.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def name_values(command: typer.core.TyperCommand) -> None:
    """Give every option that takes a value the word that stands for it."""
    for one in command.params:
        if isinstance(one, typer.core.TyperOption) and not one.is_flag and one.metavar is None:
            one.metavar = METAVARS.get(one.name or "", "N")
