"""A hook of the documentation site: what lies outside docs/ is linked where the repository has it."""

from typing import Any


def on_page_markdown(markdown: str, *, config: Any, **_: Any) -> str:
    """Return a page whose links to ``../FILE`` and ``scripts/`` lead to the repository."""
    blob = f"{config.repo_url}/blob/main"
    return markdown.replace("](../", f"]({blob}/").replace("](scripts/", f"]({blob}/docs/scripts/")


def on_post_page(output: str, **_: Any) -> str:
    """Return a page that does not ask GitHub's server how many stars the repository has."""
    return output.replace(' data-md-component="source"', "")
