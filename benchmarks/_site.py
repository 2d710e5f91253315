"""A hook of the documentation site: what lies outside docs/ is linked where the repository has it."""

from typing import Any


def on_page_markdown(markdown: str, *, config: Any, **_: Any) -> str:
    """Return a page whose links to ``../FILE`` and ``scripts/`` lead to the repository."""
    blob = f"{config.repo_url}/blob/main"
    return markdown.replace("](../", f"]({blob}/").replace("](scripts/", f"]({blob}/docs/scripts/")
