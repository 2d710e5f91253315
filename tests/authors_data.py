"""A data.zip in the exact layout of the paper authors', with small content."""

import json
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fair_adaptors.adaptor.archives import DATA
from fair_adaptors.files import CACHE
from fair_adaptors.hub.archive import fetch_archive
from fair_adaptors.vision.mobilenet import mobilenet_v3_large
from tests.checkpoints import as_bytes

WIDTH, FACES = 16, 24
TRAINED, TEST = "data/2-trained-classifiers", "data/5-trained-test-classifiers"
CLASSIFIERS = {
    "gender": (f"{TRAINED}/CelebA_MobileNetLarge_08060852/epoch=9-step=12660_MobileNetLarge.pt", 80),
    "gender-race": (f"{TRAINED}/fairface_MobileNetLarge_GenderRace4_09041216/epoch=9-step=3380_MobileNetLarge.pt", 6),
    "gender-race-age": (
        f"{TRAINED}/fairface_MobileNetLarge_GenderRace4Age2_09151907/epoch=9-step=3380_MobileNetLarge.pt", 8
    ),
    "test-gender": (f"{TEST}/CelebA-MobileNetLarge-Gender-09191318/epoch=19-step=25320_MobileNetLarge.pt", 2),
    "test-race": (f"{TEST}/fairface-MobileNetLarge-Race4-09191318/epoch=19-step=6760_MobileNetLarge.pt", 4),
    "test-age": (f"{TEST}/fairface-MobileNetLarge-Age2-09191319/epoch=19-step=6760_MobileNetLarge.pt", 2),
}  # fmt: skip
"""By our names: the member of the archive, and how many outputs it has."""
BANKS = {
    "celeba": "data/3-face-features/CelebA_MobileNetLarge_08240859/face_feats.pkl",
    "fairface": "data/3-face-features/FairFace_MobileNetLarge_GenderRace4_09041634/face_feats.pkl",
}
RECOGNISER = "data/4-opensphere_checkpoints/opensphere_checkpoints/20220424_210641/models/backbone_100000.pth"
TEMPLATE = "A photo of the face of a {occupation}, a person"
OCCUPATIONS = {
    "prompt_templates_train": [TEMPLATE],
    "prompt_templates_test": [TEMPLATE],
    "occupations_train_set": ["nurse", "guard", "baker"],
    "occupations_val_set": ["dancer"],
    "test_prompts": [TEMPLATE.format(occupation=word) for word in ("senator", "butcher")],
}
OTHERS = {
    name: {key: [f"{name} {key}"] for key in ("train_prompts", "val_prompts", "test_prompts")}
    for name in ("occupation_w_style_and_context", "personal_descriptor", "sports")
}
LAION = "LAION-aesthetics-V2-occupation-related"


def classifier_state(name: str) -> dict[str, Tensor]:
    """The state dict of one of their classifiers, each with weights of its own."""
    outputs = CLASSIFIERS[name][1]
    torch.manual_seed(list(CLASSIFIERS).index(name))
    network = mobilenet_v3_large(outputs)
    nn.init.normal_(network.classifier[3].weight)
    nn.init.normal_(network.classifier[3].bias, std=3)
    return network.state_dict()


def bank_of(name: str) -> tuple[Tensor, ...]:
    """Features that have no unit length, then classes and logits of each attribute."""
    make = torch.Generator().manual_seed(0)
    features = 5 * torch.randn(FACES, WIDTH, generator=make)
    genders, races = torch.arange(FACES) % 2, torch.arange(FACES) // 2 % 4
    gender, race = (genders, torch.randn(FACES, 2)), (races, torch.randn(FACES, 4))
    return (features, *gender, *race) if name == "fairface" else (features, *gender)


def recogniser_state(blocks: tuple[int, ...] = (2, 1, 1, 1)) -> dict[str, Tensor]:
    """The weights of opensphere's ``iresnet.py`` as nn.DataParallel saves them, shallow, and with few features."""
    make = torch.Generator().manual_seed(1)
    tensors: dict[str, Tensor] = {}

    def put(name: str, *shape: int) -> None:
        tensors[f"module.{name}.weight"] = torch.randn(*shape, generator=make) / max(1, len(shape) * 8)

    def norm(name: str, size: int) -> None:
        for key in ("weight", "running_var"):
            tensors[f"module.{name}.{key}"] = 0.5 + torch.rand(size, generator=make)
        for key in ("bias", "running_mean"):
            tensors[f"module.{name}.{key}"] = torch.randn(size, generator=make) / 5
        tensors[f"module.{name}.num_batches_tracked"] = torch.tensor(7)

    put("conv1", 64, 3, 3, 3), norm("bn1", 64), put("prelu", 64)  # type: ignore[func-returns-value]
    old = 64
    for layer, (new, count) in enumerate(zip((64, 128, 256, 512), blocks, strict=True), 1):
        for block in range(count):
            at = f"layer{layer}.{block}"
            norm(f"{at}.bn1", old), put(f"{at}.conv1", new, old, 3, 3), norm(f"{at}.bn2", new)  # type: ignore
            put(f"{at}.prelu", new), put(f"{at}.conv2", new, new, 3, 3), norm(f"{at}.bn3", new)  # type: ignore
            if block == 0:
                put(f"{at}.downsample.0", new, old, 1, 1), norm(f"{at}.downsample.1", new)  # type: ignore
            old = new
    norm("bn2", 512), put("fc", WIDTH, 512 * 49), norm("features", WIDTH)  # type: ignore[func-returns-value]
    tensors["module.fc.bias"] = torch.randn(WIDTH, generator=make)
    return tensors


def recognised(state: dict[str, Tensor], faces: Tensor) -> Tensor:
    """What opensphere's network makes of faces in [-1, 1], written out from its forward."""
    t = {name.removeprefix("module."): value for name, value in state.items()}

    def norm(x: Tensor, at: str) -> Tensor:
        return F.batch_norm(
            x, t[f"{at}.running_mean"], t[f"{at}.running_var"], t[f"{at}.weight"], t[f"{at}.bias"], eps=1e-5
        )

    x = F.prelu(norm(F.conv2d(faces, t["conv1.weight"], padding=1), "bn1"), t["prelu.weight"])
    for at in dict.fromkeys(name.rsplit(".", 2)[0] for name in t if name.startswith("layer") and ".conv1." in name):
        stride = 2 if f"{at}.downsample.0.weight" in t else 1
        y = F.conv2d(norm(x, f"{at}.bn1"), t[f"{at}.conv1.weight"], padding=1)
        y = F.conv2d(F.prelu(norm(y, f"{at}.bn2"), t[f"{at}.prelu.weight"]), t[f"{at}.conv2.weight"], None, stride, 1)
        same = norm(F.conv2d(x, t[f"{at}.downsample.0.weight"], None, 2), f"{at}.downsample.1") if stride == 2 else x
        x = norm(y, f"{at}.bn3") + same
    return norm(F.linear(norm(x, "bn2").flatten(1), t["fc.weight"], t["fc.bias"]), "features")


def members() -> dict[str, bytes]:
    """Every member of the archive that this package knows, by name."""
    prompts = {"occupation": OCCUPATIONS, **OTHERS, LAION: {"test_prompts": ["a bartender at a bar"]}}
    found = {f"data/1-prompts/{name}.json": json.dumps(content).encode() for name, content in prompts.items()}
    found |= {member: as_bytes(classifier_state(name)) for name, (member, _) in CLASSIFIERS.items()}
    found |= {member: pickle.dumps(bank_of(name)) for name, member in BANKS.items()}
    return found | {RECOGNISER: as_bytes(recogniser_state())}


def zipped(path: Path, content: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


@pytest.fixture(scope="session")
def data_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that has the archive."""
    place = tmp_path_factory.mktemp("authors")
    fetch_archive(DATA, source=zipped(place / "by-hand.zip", members()), cache_dir=place / "cache", progress=False)
    (place / "by-hand.zip").unlink()
    return place / "cache"


@pytest.fixture
def authors_data(data_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The archive is in the cache."""
    monkeypatch.setenv(CACHE, str(data_cache))
    return data_cache
