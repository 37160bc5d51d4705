"""The rooms of the package import each other in one direction only, and heavy extras only where they are used."""

import ast
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import polyloss_lightning

PACKAGE = Path(polyloss_lightning.__file__).parent
ROOT = "polyloss_lightning"

LOSSES = {"_checks", "core", "losses"}
# A room is a module or a subpackage of the package. Each may import itself and what is named here.
ALLOWED = {
    "_checks": set(),
    "schedules": {"_checks"},
    "_class_groups": set(),
    "core": {"_checks"},
    "losses": {"_checks", "core"},
    "functional": {"losses"},
    "terms": {"core"},
    "metrics": {"_checks", "core", "terms"},
    "_files": set(),
    "record": {"_files"},
    "provider": {"_checks", "losses"},
    "plotting": {"_checks", "core", "_files", "record", "schedules", "_class_groups"},
    "interception": LOSSES | {"schedules"},
    "callbacks": LOSSES
    | {"schedules", "metrics", "_files", "record", "interception", "plotting", "provider", "_class_groups"},
    "data": {"_checks", "_class_groups"},
    "models": {"_checks", "losses", "provider"},
    "search": LOSSES | {"schedules", "plotting", "callbacks", "provider", "_class_groups"},
    "_shipped_configs": set(),
}
# The command may import everything; only `python -m polyloss_lightning` imports it.
ALLOWED["cli"] = set(ALLOWED) | {ROOT}
ALLOWED["__main__"] = {"cli"}
# The public names: everything that needs no extra.
ALLOWED[ROOT] = set(ALLOWED) - {"cli", "__main__", "data", "models", "search", "_shipped_configs"}

LAZY_ONLY = {("callbacks", "plotting"), ("metrics", "plotting"), (ROOT, "plotting")}
EXTRAS = {"matplotlib", "sklearn", "optuna", "torchvision", "jsonargparse", "rich", "pandas", "scipy", "jinja2"}
# The extra `cli` brings these.
EXTRAS_AT_THE_TOP = {"cli": {"jsonargparse", "rich"}}
TORCH_ONLY = LOSSES | {"functional", "interception", "provider"}

MODULES = sorted(PACKAGE.rglob("*.py"))
ROOMS = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in MODULES} - {"__init__"}
per_module = pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))


def room_of(path):
    first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return ROOT if first == "__init__" else first


def is_type_checking(node):
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


@cache
def imports(path):
    """``(dotted name, whether it is imported when the module is)`` for every import in the file."""

    def walk(node, at_the_top):
        if isinstance(node, ast.Import):
            yield from ((alias.name, at_the_top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno}: relative import"
            yield from ((f"{node.module}.{alias.name}", at_the_top) for alias in node.names)
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or is_type_checking(node)
        for child in ast.iter_child_nodes(node):
            yield from walk(child, at_the_top and not inside)

    return list(walk(ast.parse(path.read_text(encoding="utf-8")), True))


def rooms_imported(path):
    """``(room, whether it is imported when the module is)``; a public name of the package counts as the package."""
    for name, at_the_top in imports(path):
        package, _, inside = name.partition(".")
        if package == ROOT:
            first = inside.split(".")[0]
            yield (first if first in ROOMS else ROOT), at_the_top


def test_the_table_has_one_direction():
    TopologicalSorter(ALLOWED).prepare()  # raises CycleError


@per_module
def test_rooms_import_downwards_only(path):
    room = room_of(path)
    assert room in ALLOWED, f"{room} is a new room: say in the table what it may import"
    for other, at_the_top in rooms_imported(path):
        assert other == room or other in ALLOWED[room], f"{room} may not import {other}"
        assert not (at_the_top and (room, other) in LAZY_ONLY), f"{room} may import {other} only inside a function"


@per_module
def test_extras_are_imported_only_where_they_are_used(path):
    room = room_of(path)
    at_the_top = {name.split(".")[0] for name, top in imports(path) if top}
    assert not at_the_top & (EXTRAS - EXTRAS_AT_THE_TOP.get(room, set()))


@per_module
def test_the_losses_need_torch_only_and_schedules_nothing(path):
    tops = {name.split(".")[0] for name, top in imports(path) if top} - {ROOT}
    if room_of(path) in TORCH_ONLY:
        assert tops <= sys.stdlib_module_names | {"torch", "typing_extensions"}
    if room_of(path) == "schedules":
        assert tops <= sys.stdlib_module_names


def test_no_file_is_longer_than_300_lines():
    folders = [PACKAGE, *(Path(__file__).parents[1] / name for name in ("tests", "benchmarks", "examples", "docs"))]
    files = [path for folder in folders for path in folder.rglob("*.py")]
    assert not [path for path in files if len(path.read_text(encoding="utf-8").splitlines()) > 300]


@per_module
def test_public_names_are_sorted_and_exist(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]:
            names = ast.literal_eval(node.value)
            # Constants, then classes, then functions, each by name: the order that ruff keeps.
            assert names == sorted(names, key=lambda name: (not name.isupper(), not name[0].isupper(), name))
            assert len(set(names)) == len(names)
            return
    only_docstring = len(tree.body) == 1
    assert path.name != "__init__.py" or only_docstring, "a package says what it offers"


def test_every_public_name_exists():
    for name in polyloss_lightning.__all__:
        assert getattr(polyloss_lightning, name) is not None


def test_importing_the_package_loads_none_of_its_command_and_no_extra_of_its_own():
    code = f"import sys, {ROOT}; print(*(name for name in sys.modules if name.startswith('{ROOT}.')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    rooms = {module.split(".")[1] for module in done.stdout.split()}
    assert "losses" in rooms
    assert not rooms & {"cli", "data", "models", "search", "plotting", "_shipped_configs"}
