"""The commands that talk to the Hub: push, pull and search."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from fair_adaptors.progress import waiting

from .common import AsJson, print_json, quiet

Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit.")]


def push(
    folder: Annotated[Path, typer.Argument(help="Folder of the adaptor.")],
    repo_id: Annotated[str, typer.Argument(metavar="ORG/NAME", help="Repository on the Hub; created if needed.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch; created if needed.")] = None,
    tag: Annotated[str | None, typer.Option(help="Name of this version, such as v1.")] = None,
    benchmark: Annotated[str | None, typer.Option(help="Benchmark on the Hub that should list the results.")] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Check the folder and print what would be published; the Hub is not asked."),
    ] = False,
) -> None:
    """Publish an adaptor on the Hub, as one commit. Log in with `hf auth login`, or set HF_TOKEN."""
    from fair_adaptors.hub import push as push_adaptor

    quiet()
    if dry_run:
        from fair_adaptors.hub.publish import check

        with waiting("checking"):
            sizes, base = check(folder, repo_id, benchmark=benchmark)
        print("\n".join(f"{size:>12,} bytes  {name}" for name, size in sorted(sizes.items())))
        print(f"Nothing was published. Its files were checked, and it was {_tried(base)}.")
        return
    result = push_adaptor(folder, repo_id, private=private, revision=revision, tag=tag, benchmark=benchmark)
    done = f"{len(result.files)} files pushed" if result.changed else "Nothing to push: the same files are there"
    print(f"{done}. {result.url}, commit {result.commit}" + (f", tag {result.tag}" if result.tag else ""))
    print(f"Its files were checked first, and it was {_tried(result.tried_on)}.")
    print(f'load_fair_adaptor(pipe, "{repo_id}", revision="{result.tag or result.commit}")')


def _tried(base: str | None) -> str:
    return f"loaded into {base}" if base else "not loaded, since its base is not on this machine"


def push_trained(folder: Path, repo_id: str) -> None:
    """Publish what a run has just left in a folder; if that fails, say how to do it later.

    Raises:
        HubError: it could not be published. The folder is as it was.
    """
    from fair_adaptors.errors import FairAdaptorError, HubError

    try:
        push(folder, repo_id)
    except FairAdaptorError as error:
        again = shlex.join(["fair-adaptors", "push", str(folder), repo_id])
        raise HubError(f"{error}. The adaptor is safe in {folder}; publish it with: {again}") from error


def pull(
    name: Annotated[str, typer.Argument(help="ORG/NAME on the Hub, a known name, or an archive such as data.zip.")],
    out: Annotated[Path | None, typer.Option(help="Folder to copy it to; by default it stays in the cache.")] = None,
    revision: Revision = None,
    source: Annotated[
        Path | None, typer.Option("--from", help="The authors' archive, if you have downloaded it yourself.")
    ] = None,
) -> None:
    """Download an adaptor from the Hub or from the paper's authors, with its card and results, and check it."""
    from fair_adaptors.hub import pull as pull_adaptor

    with waiting(f"looking for {name}"):
        done = pull_adaptor(name, out=out, revision=revision, source=source)
    print(done)


def search(
    base: Annotated[str | None, typer.Option(help="Only for this base model.")] = None,
    attribute: Annotated[str | None, typer.Option(help="Only those that make this fair, such as gender.")] = None,
    namespace: Annotated[str | None, typer.Option(help="Only of this user or organisation.")] = None,
    as_json: AsJson = False,
) -> None:
    """Find adaptors on the Hub."""
    from dataclasses import asdict

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from fair_adaptors.hub.find import search as search_hub

    with waiting("asking the Hub"):
        found = search_hub(base=base, attribute=attribute, namespace=namespace)
    if as_json:
        print_json([asdict(one) for one in found])
        return
    if not found:
        print("No adaptor was found.")
        return
    table = Table("repository", "base", "attributes", "commit")
    for one in found:
        cells = (one.repo_id, one.base_model, ", ".join(one.attributes), one.commit[:12])
        table.add_row(*(Text(cell) for cell in cells))  # as it is: strangers wrote it
    Console().print(table)
