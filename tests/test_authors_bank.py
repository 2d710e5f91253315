"""The authors' banks of faces are pickles: they convert, and nothing in one is run."""

import io
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from fair_adaptors.training.faces.authors import convert_published_bank
from fair_adaptors.training.faces.bank import load_face_bank

from fair_adaptors.errors import ConfigError
from tests.checkpoints import Hostile
from tests.commands import Command
from tests.face_networks import ENCODER, WIDTH


def published(tmp_path: Path, parts: Any) -> Path:
    path = tmp_path / "face_feats.pkl"
    path.write_bytes(pickle.dumps(parts))
    return path


def test_the_authors_banks_convert(command: Command, tmp_path: Path) -> None:
    """They are pickles of (features, genders, logits), or with races and their logits too."""
    features, genders, races = torch.randn(9, WIDTH), torch.arange(9) % 2, torch.arange(9) % 4
    path = published(tmp_path, (features, genders, torch.randn(9, 2), races.tolist(), torch.randn(9, 4)))
    out = tmp_path / "bank.safetensors"
    words = ["face-bank", "--dataset", str(path), "--out", str(out), "--encoder", "tests.face_networks:ENCODER"]
    status, said, _ = command(*words)
    assert status == 0
    bank = load_face_bank(out, encoder=ENCODER)
    assert torch.allclose(bank.features.float(), F.normalize(features, dim=1), atol=1e-3)
    assert torch.equal(bank.labels["gender"].long(), genders) and torch.equal(bank.labels["race"].long(), races)
    assert bank.classes == {"gender": ("female", "male"), "race": ("WMELH", "Black", "Indian", "Asian")}
    assert "female WMELH: 3 faces" in said
    few = convert_published_bank(published(tmp_path, (features, genders, torch.randn(9, 2))), ENCODER)
    assert few.classes == {"gender": ("female", "male")}


def test_nothing_in_a_pickle_is_run(tmp_path: Path) -> None:
    harm = tmp_path / "harm"
    inside = io.BytesIO()
    torch.save(Hostile(harm), inside, _use_new_zipfile_serialization=False)

    class Hidden:
        def __reduce__(self) -> Any:
            return torch.storage._load_from_bytes, (inside.getvalue(),)

    for parts in (Hostile(harm), (torch.ones(2, WIDTH), Hostile(harm), 1), Hidden(), (Hidden(), 1, 2)):
        with pytest.raises(ConfigError, match="is not a pickle of tensors alone"):
            convert_published_bank(published(tmp_path, parts), ENCODER)
    assert not harm.exists()


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((torch.randn(4, WIDTH), torch.zeros(4)), "does not look like the authors'"),
        ({"features": torch.randn(4, WIDTH)}, "does not look like the authors'"),
        ((torch.randn(4, 7), torch.zeros(4), torch.zeros(4, 2)), "has features of 7 numbers; those of small have 48"),
        ((torch.randn(4, WIDTH), torch.zeros(3), torch.zeros(4, 2)), "gender is not a list of 4 classes"),
        ((torch.randn(4, WIDTH), torch.full((4,), 2), torch.zeros(4, 2)), "gender is not a list of 4 classes"),
        ((torch.randn(4, WIDTH), ["a"] * 4, torch.zeros(4, 2)), "the classes of gender are not numbers"),
        ((torch.ones(1, 1).expand(99_999, WIDTH), 1, 2), "is cut off: it is smaller than the features"),
    ],
)
def test_other_pickles_are_refused(parts: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        convert_published_bank(published(tmp_path, parts), ENCODER)
