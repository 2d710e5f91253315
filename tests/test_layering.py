"""The house keeps its order: inference never needs training, and importing the package costs nothing."""

import ast
import re
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.rooms import ROOMS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "fair_adaptors"
IMPORTED_AS = {"opencv-python-headless": "cv2", "pillow": "PIL", "PyYAML": "yaml", "Jinja2": "jinja2"}
EXTRAS = {
    "fair_adaptors.training": ("train", "classifier", "8bit"),
    "fair_adaptors.evaluation": ("eval",),
    "fair_adaptors.vision": ("eval",),
    "fair_adaptors.prompts": ("eval",),
    "fair_adaptors.report": ("eval",),
    "fair_adaptors.app": ("app",),
}

Import = tuple[str, int, bool]  # absolute module name, line, inside a function?


def imports_of(path: Path, package: str) -> Iterator[Import]:
    """Every import in a file, relative ones resolved against its `package`."""

    def visit(node: ast.AST, in_function: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno, in_function) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*parents, *([node.module] if node.module else [])])
            yield from ((f"{module}.{alias.name}", node.lineno, in_function) for alias in node.names)
        inside = in_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, inside)

    return visit(ast.parse(path.read_text(encoding="utf-8")), False)


def inference_files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def package_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).parent.parts)


def is_training(module: str) -> bool:
    return f"{module}.".startswith(("fair_adaptors.training.", "training."))


@pytest.mark.parametrize(
    ("source", "module"),
    [
        ("from fair_adaptors.training import loop", "fair_adaptors.training.loop"),
        ("from fair_adaptors import training", "fair_adaptors.training"),
        ("from ..training.loop import train", "fair_adaptors.training.loop.train"),
        ("from .. import training", "fair_adaptors.training"),
        ("import fair_adaptors.training.loop as loop", "fair_adaptors.training.loop"),
    ],
)
def test_every_spelling_of_an_import_of_training_is_recognised(tmp_path: Path, source: str, module: str) -> None:
    file = tmp_path / "module.py"
    file.write_text(f"def f():\n    {source}\n{source}\n")
    found = list(imports_of(file, "fair_adaptors.sandbox"))
    assert found == [(module, 2, True), (module, 3, False)]
    assert is_training(module)


FRONT = PACKAGE / "__init__.py"
"""Names ``train`` for type checkers only: what importing it loads is tested below."""


def test_only_the_handlers_of_the_command_line_import_training() -> None:
    offenders = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in inference_files()
        for module, line, in_function in imports_of(path, package_of(path))
        if is_training(module) and not (path.parent == PACKAGE / "cli" and in_function) and path != FRONT
    ]
    assert not offenders


KNOW_THE_SANDBOX = {
    "fair_adaptors/adaptor/bases.py": "the table of bases",
    "fair_adaptors/adaptor/registry.py": "its adaptors' rows",
    "fair_adaptors/cli/app.py": "the default",
    "fair_adaptors/cli/demo.py": "the demo",
    "fair_adaptors/cli/generate.py": "the default",
    "fair_adaptors/cli/help.py": "examples",
    "fair_adaptors/cli/train.py": "help",
    "training/recipes.py": "its recipes' rows",
}
"""All that may name the sandbox, beside its own two folders; everything else goes through the table of bases."""


def names_the_sandbox(path: Path) -> bool:
    """Whether a file imports the sandbox, or has its name in a text that is not documentation."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documented = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    words = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and id(n) not in documented]
    names = [n.id for n in ast.walk(tree) if isinstance(n, ast.Name)]
    imported = [module for module, _, _ in imports_of(path, "fair_adaptors.room")]
    return any("sandbox" in str(word).lower() for word in (*words, *names, *imported))


def test_only_the_table_of_bases_the_defaults_and_the_demo_know_the_sandbox() -> None:
    files = [*inference_files(), *sorted((ROOT / "training").rglob("*.py"))]
    own = [path for path in files if path.parent.name == "sandbox"]
    known = {str(path.relative_to(ROOT)) for path in files if names_the_sandbox(path)} - {
        str(path.relative_to(ROOT)) for path in own
    }
    templates = [path for path in PACKAGE.rglob("*.jinja") if "sandbox" in path.read_text(encoding="utf-8").lower()]
    assert own and known == set(KNOW_THE_SANDBOX) and not templates


GROUND_FLOOR = {"attributes", "devices", "errors", "files", "progress", "seeds"}
ROOM_OF = {
    **{f"hub/{name}.py": "publishing" for name in ("__init__", "publish", "load_check")},
    **{f"hub/{name}.py": "resolving" for name in ("resolve", "published", "fetch")},
    **{f"convert/{name}.py": "importing" for name in ("importing", "layouts", "original_names", "translate")},
    "convert/stacked.py": "importing",
}
"""Files in a room of their own: what is published is loaded and described first, so publishing stands above; the door
of the Hub opens to it too. What is converted may come from the Hub, and what the authors published is converted on its
way here: so importing stands above the Hub, and resolving above importing."""

MAY_IMPORT = {line.split()[0]: set(line.split()[1:]) | GROUND_FLOOR for line in ROOMS.strip().splitlines()}
MAY_IMPORT |= dict.fromkeys(("attributes", "errors", "seeds"), set())
MAY_IMPORT |= {"devices": {"errors"}, "files": {"errors"}, "progress": {"files"}}
MAY_IMPORT["cli"] = set(MAY_IMPORT)


def modules() -> dict[str, Path]:
    """Every module of the package by its name."""
    files = [*PACKAGE.rglob("*.py"), *(ROOT / "training").rglob("*.py")]
    named = {path: path.relative_to(PACKAGE if path.is_relative_to(PACKAGE) else ROOT) for path in files}
    return {".".join(["fair_adaptors", *path.with_suffix("").parts]).removesuffix(".__init__"): file
            for file, path in named.items()}  # fmt: skip


def imports_between(known: dict[str, Path]) -> dict[str, set[str]]:
    """Which modules of the package each one imports, wherever in it the import stands."""
    found: dict[str, set[str]] = {}
    for name, path in known.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        targets = set()
        for module, _, _ in imports_of(path, package):
            while module and module not in known:
                module = module.rpartition(".")[0]
            targets.add(module)
        found[name] = targets - {name, "", "fair_adaptors"}
    return found


def room_of(path: Path) -> str:
    """The room that a file is in: its folder in the package, or for a file in the package its own name."""
    parts = path.relative_to(PACKAGE if path.is_relative_to(PACKAGE) else ROOT).with_suffix("").parts
    if "/".join(parts) + ".py" in ROOM_OF:
        return ROOM_OF["/".join(parts) + ".py"]
    return "training.sandbox" if parts[:2] == ("training", "sandbox") else parts[0]


def circles(graph: dict[str, set[str]]) -> list[str]:
    """The nodes from which an arrow leads back."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [*graph[start]]
        while waiting:
            if (node := waiting.pop()) not in seen:
                seen.add(node)
                waiting += graph.get(node, ())
        return seen

    return sorted(node for node in graph if node in reached(node))


def runs_against_the_arrows(imports: dict[str, set[str]], known: dict[str, Path]) -> list[str]:
    wrong = []
    for name, targets in imports.items():
        here = room_of(known[name])
        for target in targets:
            there = room_of(known[target])
            if there != here and here not in ("__init__", "__main__") and there not in MAY_IMPORT[here]:
                wrong.append(f"{name} imports {target}: {here} may not import {there}")
    return sorted(wrong)


def test_no_file_imports_itself_in_a_circle() -> None:
    known = modules()
    assert circles(imports_between(known)) == []
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]


def test_rooms_import_only_what_lies_below_them() -> None:
    assert circles({room: set(below) - {room} for room, below in MAY_IMPORT.items()}) == []
    known = modules()
    assert runs_against_the_arrows(imports_between(known), known) == []


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("fair_adaptors.adaptor.folder", "fair_adaptors.load"),
        ("fair_adaptors.vision.types", "fair_adaptors.evaluation.spec"),
        ("fair_adaptors.hub.resolve", "fair_adaptors.hub.publish"),
        ("fair_adaptors.evaluation.spec", "fair_adaptors.sandbox.world"),
        ("fair_adaptors.training.run.train", "fair_adaptors.training.sandbox.build"),
    ],
)
def test_an_import_that_runs_against_the_arrows_is_found(name: str, target: str) -> None:
    (wrong,) = runs_against_the_arrows({name: {target}}, modules())
    assert wrong.startswith(f"{name} imports {target}")


def test_every_room_has_its_line() -> None:
    assert {room_of(path) for path in modules().values()} - {"__init__", "__main__"} <= set(MAY_IMPORT)


SAYS = {"print", "say", "info", "warning", "error"}


def words_of(source: str) -> Iterator[tuple[int, str]]:
    """Every docstring, and every text of an error, of a log or on the terminal, of a module, with its line."""
    for node in ast.walk(ast.parse(source)):
        called = node.func if isinstance(node, ast.Call) else None
        if isinstance(node, ast.Raise) or getattr(called, "attr", getattr(called, "id", "")) in SAYS:
            constants = [one.value for one in ast.walk(node) if isinstance(one, ast.Constant)]
            yield node.lineno, "".join(value for value in constants if isinstance(value, str))
        elif isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            yield getattr(node, "lineno", 1), ast.get_docstring(node) or ""


def speaks_of_options(text: str) -> bool:
    """Whether a text names an option of the command line, other than in a whole command that the reader may copy."""
    return bool(re.search(r"(?<![\w-])--[a-z]", text)) and not re.search(r"fair-adaptors \w|torchrun", text)


def test_the_library_speaks_of_arguments_not_of_options() -> None:
    files = [path for path in [*inference_files(), *(ROOT / "training").rglob("*.py")] if path.parent.name != "cli"]
    wrong = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in files
        for line, text in words_of(path.read_text(encoding="utf-8"))
        if speaks_of_options(text)
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ('def f(out):\n    raise ValueError(f"--out {out} exists")', True),
        ('def f(out):\n    "As --faces has it."', True),
        ('def f(out):\n    logger.warning("%s: give another --out", out)', True),
        ('def f(out):\n    raise ValueError(f"{out} exists, name another out")', False),
        ('def f():\n    raise ValueError("see `fair-adaptors evaluate --help`")', False),
    ],
)
def test_an_option_in_a_text_is_found(source: str, found: bool) -> None:
    assert any(speaks_of_options(text) for _, text in words_of(source)) == found


def requirements() -> dict[str, set[str]]:
    """Import names of the third-party packages that the base install and each extra bring."""
    config = ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    listed = {"base": config["options"]["install_requires"], **config["options.extras_require"]}
    return {
        group: {IMPORTED_AS.get(name, name) for name in (Requirement(line).name for line in lines.split("\n") if line)}
        for group, lines in listed.items()
    }


def test_every_third_party_import_is_a_declared_requirement() -> None:
    declared = requirements()
    own = {"fair_adaptors", *sys.stdlib_module_names}
    undeclared = []
    for path in [*inference_files(), *sorted((ROOT / "training").rglob("*.py"))]:
        package = package_of(path) if path.is_relative_to(PACKAGE) else f"fair_adaptors.{package_of(path)}"
        extras = next((wanted for room, wanted in EXTRAS.items() if f"{package}.".startswith(f"{room}.")), ())
        allowed = own.union(declared["base"], *(declared[extra] for extra in extras))
        for module, line, _ in imports_of(path, package):
            if module.split(".")[0] not in allowed:
                undeclared.append(f"{path.relative_to(ROOT)}:{line} {module}")
    assert not undeclared
