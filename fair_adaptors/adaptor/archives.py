"""The table of the archives that the paper's authors share on Google Drive: their checkpoints, and their data."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Archive:
    """A zip on Google Drive that anyone may fetch.

    Attributes:
        name: what it is called there, and in this package's cache.
        file_id: by which Google Drive knows it.
        holds: folders that are in it, by which a zip of something else is told.
        sha256: of its bytes, once known. The authors publish none.
    """

    name: str
    file_id: str
    holds: tuple[str, ...] = ()
    sha256: str | None = None

    @property
    def page(self) -> str:
        """Address at which a browser can fetch it."""
        return f"https://drive.google.com/file/d/{self.file_id}/view"


@dataclass(frozen=True)
class Checkpoint:
    """Weights of one training run of the authors, in one of their archives.

    Attributes:
        archive: name of the archive.
        run: what the authors call the run.
        step: iterations that it was trained for.
    """

    archive: str
    run: str
    step: int

    @property
    def member(self) -> str:
        """The folder in the archive that has its files."""
        return f"{self.run}/checkpoint-{self.step}_exported"


TEXT_ENCODER = Checkpoint("exp-1-checkpoints.zip", "from-paper_finetune-text-encoder_09190215", 9800)
UNET = Checkpoint("exp-1-checkpoints.zip", "from-paper_finetune-unet_09210552", 6200)
BOTH = Checkpoint("exp-1-checkpoints.zip", "from-paper_finetune-text-encoder-and-unet_09201743", 9000)
TOKENS = Checkpoint("exp-2-checkpoints.zip", "from-paper_finetune-prefix_09202102", 9400)
GENDER_RACE = Checkpoint("exp-3-checkpoints.zip", "from-paper_finetune-text-encoder_09190230", 12200)
GENDER_RACE_AGE = Checkpoint("exp-4-checkpoints.zip", "from-paper_finetune-text-encoder_09191750", 11800)
MANY_CONCEPTS = Checkpoint("exp-5-checkpoints.zip", "from-paper_finetune_text-encoder_09231716", 12600)
RACE = Checkpoint("exp-6-checkpoints.zip", "from-paper_finetune-text-encoder-09101712", 10600)
"""Those that they published: the first four make gender fair."""

ARCHIVES: Mapping[str, Archive] = {
    archive.name: archive
    for archive in (
        Archive("exp-1-checkpoints.zip", "1G6sl8Hv8ZX1poaqTHiBGDdz1Sqj1bs4u", (TEXT_ENCODER.run, UNET.run, BOTH.run)),
        Archive("exp-2-checkpoints.zip", "1jRgL5hCxeME5q2FOMUOmKbiGh0awKMq8", (TOKENS.run,)),
        Archive("exp-3-checkpoints.zip", "1aYCBNnIJlj3nrIYd8o-D4ob02JLVQnpk", (GENDER_RACE.run,)),
        Archive("exp-4-checkpoints.zip", "1KSd3BE67xq3LONH7rcBk6c0qEvQlRhDQ", (GENDER_RACE_AGE.run,)),
        Archive("exp-5-checkpoints.zip", "1oV5WBl8DKFEHrI4fzBJLekK1GPyNKRpF", (MANY_CONCEPTS.run,)),
        Archive("exp-6-checkpoints.zip", "1u1zy3Q4dINYU17YK3ckB3lMyrKe_20LA", (RACE.run,)),
        Archive("data.zip", "18FAu5rxGC2AlC3IN43lukE6Rgyyff3AR", ("1-prompts",)),
    )
}
"""By name: six of checkpoints, and one with prompts, classifiers and features of faces."""
DATA = ARCHIVES["data.zip"]
