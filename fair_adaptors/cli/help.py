"""How the command line explains itself: options in groups, whole summaries, a word for each value, an example."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import typer
import typer.core

from fair_adaptors.errors import did_you_mean

METAVARS: Mapping[str, str] = {
    "adaptor": "NAME", "base": "BASE", "baseline": "METHOD", "prompts": "SET|FILE", "target": "NAME=SHARE,…",
    "fail_above": "NAME=X", "classifier": "KIND:SOURCE", "encoder": "KIND:SOURCE", "faces": "DETECTOR",
    "device": "DEVICE", "dtype": "DTYPE", "variant": "NAME", "base_config": "BASE", "settings": "KEY=VALUE",
    "config": "FILE", "checkpoint": "FILE", "source": "FILE", "out": "PATH", "attribute": "NAME",
    "attributes": "NAME,…", "revision": "REVISION", "dataset": "SOURCE", "model": "SOURCE", "format": "FORMAT",
    "namespace": "NAME", "host": "ADDRESS", "name": "NAME", "tag": "NAME", "benchmark": "ORG/NAME",
    "method": "METHOD", "weight": "X", "guidance": "X", "difference": "X", "lr": "X", "margin": "X",
    "recipe": "RECIPE", "prompt": "PROMPT", "folder": "FOLDER", "first": "RESULTS", "second": "RESULTS",
}  # fmt: skip
"""What stands for a value, wherever it is asked for; N for those that are not here: whole numbers."""

GROUPS: Mapping[str, tuple[str, ...]] = {
    "Model": ("adaptor", "weight", "baseline", "base", "model", "variant", "base_config", "device", "dtype"),
    "People and prompts": (
        "prompts", "images", "target", "classifier", "encoder", "faces", "unpadded", "limit", "dataset", "attributes",
        "margin",
    ),
    "Settings": ("config", "settings", "seed", "steps", "guidance", "batch_size", "epochs", "lr"),
    "Run": (
        "resume", "checkpoint", "num_processes", "with_numbers", "dry_run", "difference", "fail_above", "fail_on_harm",
    ),
    "Output": ("out", "overwrite", "keep_images", "as_json", "push_to"),
    "Page": ("host", "port", "browser", "max_waiting", "visitor_images", "all_images"),
}  # fmt: skip
"""What the options of a command with many of them are listed under; those that are not here under "Options"."""
MANY = 8
LEVELS = ("-v", "--verbose", "-q", "--quiet")
_RANGE = re.compile(r"(; )?(-?[\d.]+<=?)?x(<=?|>=?)-?[\d.]+")

EXAMPLES: Mapping[str, str] = {
    "demo": "fair-adaptors demo -n 60 --out demo",
    "generate": "fair-adaptors generate 'a hospital nurse' --adaptor sandbox-gender -n 8 --out grid.png",
    "make": "fair-adaptors make sandbox --attribute gender --out mine",
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
    """Lists its commands with their whole first sentence, in the order in which they were added.

    How much is shown may be said before the command or behind it.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        levels = [word for word in args[:end] if word in LEVELS]
        if len(levels) == len(args) and not ctx.resilient_parsing:
            print(ctx.get_help())
            ctx.exit()
        return super().parse_args(ctx, [*levels, *(word for word in args[:end] if word not in LEVELS), *args[end:]])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in self.commands and not ctx.resilient_parsing:
            hint = did_you_mean(args[0], self.commands)
            raise typer.BadParameter(f"there is no command {args[0]!r}.{hint} For all of them: fair-adaptors -h", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        helps = {name: " ".join((self.commands[name].help or "").split()) for name in self.list_commands(ctx)}
        rows = [(name, f"{text.partition('. ')[0].rstrip('.')}.") for name, text in helps.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


class Explained(typer.core.TyperCommand):
    """A command that lists its options in groups, and begins its usage with what has to be given."""

    def __init__(self, *args: Any, **settings: Any):
        super().__init__(*args, **settings)
        for one in self.params:
            if not getattr(one, "is_flag", False) and getattr(one, "metavar", None) is None:
                one.metavar = METAVARS.get(one.name or "", "N")

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [*(name for name, _ in _arguments(self)), "[OPTIONS]"]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": list(_arguments(self))}
        grouped = sum(isinstance(one, typer.core.TyperOption) for one in self.params) > MANY
        group_of = {name: group for group, names in GROUPS.items() for name in names if grouped}
        sections |= {group: [] for group in (*GROUPS, "Options")}
        for one in self.get_params(ctx):
            if one.param_type_name == "option" and (record := one.get_help_record(ctx)):
                words, text = record
                text = _RANGE.sub("", text).replace("  []", "")
                sections[group_of.get(one.name or "", "Options")].append((words, text))
        sections["Options"].append(("-v, --verbose / -q, --quiet", "Show more, or only errors."))
        for title, rows in sections.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


def _arguments(command: typer.core.TyperCommand) -> Iterator[tuple[str, str]]:
    for one in command.params:
        if isinstance(one, typer.core.TyperArgument):
            name = one.metavar or ""
            yield name if one.required else f"[{name}]", one.help or ""
