"""The table of the archives that the paper's authors share on Google Drive: their checkpoints, and their data."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Archive:
    """A zip on Google Drive that anyone may fetch.

    Attributes:
        name: what it is called there, and in this package's cache.
        file_id: by which Google Drive knows it.
        sha256: of its bytes, once known. The authors publish none.
    """

    name: str
    file_id: str
    sha256: str | None = None

    @property
    def page(self) -> str:
        """Address at which a browser can fetch it."""
        return f"https://drive.google.com/file/d/{self.file_id}/view"


ARCHIVES: Mapping[str, Archive] = {
    archive.name: archive
    for archive in (
        Archive("exp-1-checkpoints.zip", "1G6sl8Hv8ZX1poaqTHiBGDdz1Sqj1bs4u"),
        Archive("exp-2-checkpoints.zip", "1jRgL5hCxeME5q2FOMUOmKbiGh0awKMq8"),
        Archive("exp-3-checkpoints.zip", "1aYCBNnIJlj3nrIYd8o-D4ob02JLVQnpk"),
        Archive("exp-4-checkpoints.zip", "1KSd3BE67xq3LONH7rcBk6c0qEvQlRhDQ"),
        Archive("exp-5-checkpoints.zip", "1oV5WBl8DKFEHrI4fzBJLekK1GPyNKRpF"),
        Archive("exp-6-checkpoints.zip", "1u1zy3Q4dINYU17YK3ckB3lMyrKe_20LA"),
        Archive("data.zip", "18FAu5rxGC2AlC3IN43lukE6Rgyyff3AR"),
    )
}
"""By name: six of checkpoints, and one with prompts, classifiers and features of faces."""
DATA = ARCHIVES["data.zip"]
