"""Whatever an adaptor folder holds, it is loaded or refused with an error of ours, and the pipeline is what it was.

Records, safetensors files and folder layouts, each drawn from valid ones with something wrong. Most of
the damaged files come with records of their true size and sha256, or else every case would end at the checksum.
"""

import contextlib
import copy
import hashlib
import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from fair_adaptors.adaptor.folder import write_adaptor
from fair_adaptors.adaptor.record import CONFIG_FILE, TOKENS_FILE, WEIGHTS_FILE
from fair_adaptors.errors import FairAdaptorError
from fair_adaptors.load import load_fair_adaptor
from tests.sizes import CASES
from tests.tiny import AIM, tiny_pipeline, write_tiny_adaptor

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**30, -1, 0, 2**63])
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["unet", "tokens", "../x", "\ud800", "\x1b[2J", "é" * 600, "", "nan"])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
noise = st.binary(max_size=200)


class World:
    """A pipeline with the fingerprint of its weights, and a valid folder of LoRAs and one of soft tokens."""

    def __init__(self, root: Path):
        self.pipe = tiny_pipeline()
        self.work = root / "work"
        small = write_tiny_adaptor(root / "lora", self.pipe, parts=("text_encoder",))
        tokens = write_adaptor(
            root / "tokens",
            {},
            tokens={"text_encoder": torch.ones(2, 32)},
            name="tokens",
            pipe=self.pipe,
            base_model="tiny",
            attributes=AIM,
            rank=1,
            training={},
        )
        self.folders = (small, tokens)
        self.weights = [
            value for part in (self.pipe.text_encoder, self.pipe.unet) for value in part.state_dict().values()
        ]
        self.before = [value.clone() for value in self.weights]

    def copy(self, folder: Path) -> Path:
        shutil.rmtree(self.work, ignore_errors=True)
        return Path(shutil.copytree(folder, self.work))

    def check(self) -> None:
        """Load the folder at work: it loads, and is taken out again, or is refused; nothing of it stays."""
        try:
            handle = load_fair_adaptor(self.pipe, self.work)
        except FairAdaptorError as error:
            event("refused")
            assert str(error) and str(error).isprintable()
        else:
            event("loaded")
            handle.unload()
        # By bits: a weight that is not a number is not equal to itself.
        assert all(
            torch.equal(now.view(torch.int32), was.view(torch.int32))
            for now, was in zip(self.weights, self.before, strict=True)
        )
        assert "encode_prompt" not in vars(self.pipe)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("fuzz"))


def often(check: Callable[[World, st.DataObject], None]) -> Callable[[World, int], None]:
    """Make a test that runs ``check`` as often as ``cases`` says, each time with other draws."""
    thorough = {"derandomize": True, "database": None, "suppress_health_check": list(HealthCheck)}

    def test(world: World, cases: int) -> None:
        @settings(max_examples=cases, deadline=timedelta(seconds=20), **thorough)  # longer is a hang
        @given(draw=st.data())
        def run(draw: st.DataObject) -> None:
            check(world, draw)

        run()

    return CASES(test)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container and key at which there is a value, at any depth."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(entries):
        yield value, key
        yield from places(inner)


def mangle(draw: st.DataObject, value: Any) -> Any:
    """Replace, remove, double or add up to three values anywhere in a JSON value."""
    value = copy.deepcopy(value)
    for _ in range(draw.draw(st.integers(1, 3), label="changes")):
        found = list(places(value))
        if not found:
            return value
        holder, key = draw.draw(st.sampled_from(found), label="place")
        how = draw.draw(st.sampled_from(["replace", "remove", "add", "near"]), label="how")
        if how == "remove":
            del holder[key]
        elif how == "add" and isinstance(holder, dict):
            holder[draw.draw(st.text(max_size=8) | st.sampled_from(["tokens", "unet"]))] = draw.draw(values)
        elif how == "near" and isinstance(holder[key], int | float):
            holder[key] += draw.draw(st.sampled_from([-1, 1, 0.5, 2**40]))
        else:
            holder[key] = draw.draw(values)
    return value


def record_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))


def sign(folder: Path) -> None:
    """Let the record say what the files are."""
    record = record_of(folder)
    for name in record["files"]:
        if (folder / name).is_file():  # neither a device nor a pipe, which have no end
            data = (folder / name).read_bytes()
            record["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    (folder / CONFIG_FILE).write_text(json.dumps(record), encoding="utf-8")


@often
def test_any_record(world: World, draw: st.DataObject) -> None:
    folder = world.copy(draw.draw(st.sampled_from(world.folders)))
    path = folder / CONFIG_FILE
    kind = draw.draw(st.sampled_from(["mangled"] * 8 + ["any JSON", "bytes", "cut", "deep"]))
    text = path.read_text(encoding="utf-8")
    if kind == "mangled":
        text = json.dumps(mangle(draw, json.loads(text)))
    elif kind == "any JSON":
        text = json.dumps(draw.draw(values))
    elif kind == "deep":
        text = '{"training":' * draw.draw(st.sampled_from([100, 100_000])) + "1"
    elif kind == "cut":
        text = text[: draw.draw(st.integers(0, len(text)))]
    data = draw.draw(noise) if kind == "bytes" else text.encode("utf-8", errors="surrogatepass")
    path.write_bytes(data)
    world.check()


@often
def test_any_file_of_weights(world: World, draw: st.DataObject) -> None:
    folder = world.copy(draw.draw(st.sampled_from(world.folders)))
    (path,) = folder.glob("*.safetensors")
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    kind = draw.draw(
        st.sampled_from(["header"] * 6 + ["fields"] * 3 + ["length", "cut", "flipped", "bytes", "longer"])
    )
    if kind == "header":
        raw = json.dumps(mangle(draw, header)).encode()
        data = struct.pack("<Q", len(raw)) + raw + body
    elif kind == "fields":
        row = header[draw.draw(st.sampled_from(sorted(header.keys() - {"__metadata__"})))]
        what = draw.draw(st.sampled_from(["dtype", "shape", "data_offsets"]))
        row[what] = draw.draw(
            {
                "dtype": st.sampled_from(["F64", "F16", "BF16", "I8", "BOOL", "F8_E4M3", "U64", "C64", "X"]),
                "shape": st.lists(st.sampled_from([0, 1, 2, 8, 32, 64, 2**31, 2**62]), max_size=5),
                "data_offsets": st.tuples(*[st.sampled_from([0, 1, 8, 256, len(body), 2**40])] * 2),
            }[what]
        )
        raw = json.dumps(header).encode()
        data = struct.pack("<Q", len(raw)) + raw + body
    elif kind == "length":
        data = struct.pack("<Q", draw.draw(st.integers(0, 2**64 - 1) | st.integers(0, 300))) + data[8:]
    elif kind == "cut":
        data = data[: draw.draw(st.integers(0, len(data)))]
    elif kind == "flipped":
        at = draw.draw(st.integers(0, len(data) - 1))
        data = data[:at] + bytes([data[at] ^ draw.draw(st.integers(1, 255))]) + data[at + 1 :]
    else:
        data = draw.draw(noise) if kind == "bytes" else data + draw.draw(noise)
    path.write_bytes(data)
    if draw.draw(st.booleans() | st.just(True)):
        sign(folder)
    world.check()


@often
def test_any_layout_of_a_folder(world: World, draw: st.DataObject) -> None:
    folder = world.copy(draw.draw(st.sampled_from(world.folders)))
    names = [CONFIG_FILE, WEIGHTS_FILE, TOKENS_FILE, "README.md", "model.pth", "images"]
    for _ in range(draw.draw(st.integers(1, 3))):
        path = folder / draw.draw(st.sampled_from(names))
        how = draw.draw(
            st.sampled_from(["absent", "folder", "empty", "bytes", "link", "loop", "swap", "pickle", "pipe"])
        )
        other = draw.draw(st.sampled_from([file for valid in world.folders for file in sorted(valid.iterdir())]))
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        if how == "folder":
            path.mkdir()
        elif how in ("empty", "bytes", "pickle"):
            path.write_bytes({"empty": b"", "pickle": b"\x80\x02}q\x00.", "bytes": draw.draw(noise)}[how])
        elif how == "link":
            path.symlink_to(draw.draw(st.sampled_from([other, Path("/dev/zero"), Path("nowhere"), folder.parent])))
        elif how == "loop":
            path.symlink_to(path.name)
        elif how == "swap":
            shutil.copyfile(other, path)
        elif how == "pipe":
            os.mkfifo(path)
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        if draw.draw(st.booleans()) and (folder / CONFIG_FILE).is_file():
            sign(folder)
    world.check()
