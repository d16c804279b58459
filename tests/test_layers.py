"""The layers of the package, and what importing it costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mids

ROOT = Path(mids.__file__).parent

# A module imports only from levels below its own; within a level, only where noted in SIBLINGS.
LEVELS = {
    "errors": 0,
    "_validate": 0,
    "hermite": 1,
    "schema": 1,
    "_coefficients": 1,
    "_parser": 2,
    "targets": 2,
    "operators": 3,
    "initial": 3,
    "ladder": 3,
    "flows": 4,
    "_block": 5,
    "_files": 5,
    "_interruption": 5,
    "_read_block": 6,
    "_graph": 5,
    "_phase_diagram": 5,
    "_sweep": 5,
    "progress": 5,
    "simulate": 5,
    "named_files": 5,
    "_run_tasks": 6,
    "_write_block": 7,
    "_against": 6,
    "analysis": 6,
    "catalog": 6,
    "generation": 7,
    "io": 6,
    "store": 6,
    "trajectories": 6,
    "plot": 7,
    "accessor": 8,
    "page": 9,
    "cli": 10,
    "__main__": 11,
}
SIBLINGS = {
    ("_validate", "errors"),
    ("targets", "_parser"),
    ("_graph", "_block"),
    ("generation", "_write_block"),
    ("io", "store"),
    ("progress", "_block"),
    ("named_files", "_files"),
    ("store", "_read_block"),
    ("_graph", "_sweep"),
    ("simulate", "_graph"),
    ("_phase_diagram", "_graph"),
    ("_phase_diagram", "_sweep"),
    ("simulate", "_sweep"),
    ("simulate", "_phase_diagram"),
    ("catalog", "io"),
}
MODULES = sorted(ROOT.rglob("*.py"))


def name_of(path: Path) -> str:
    """Return the module's entry in LEVELS: its own name, or that of its subpackage."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Return every import of a file, also inside functions, as an absolute dotted name."""
    package = ["mids", *path.relative_to(ROOT).parts[:-1]]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *(node.module or "").split(".")]).rstrip(".")
            found |= {f"{origin}.{alias.name}" for alias in node.names}
    return found


def at_top_level(path: Path) -> set[str]:
    """Return the packages a file imports when it is itself imported."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add((node.module or "").partition(".")[0])
    return found


def at_run_time(path: Path) -> set[str]:
    """Return the packages a file imports at any time but while types are checked."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for child in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add((node.module or "").partition(".")[0])
    return found


def test_every_module_has_a_level():
    assert {name_of(path) for path in MODULES} - {"__init__"} <= LEVELS.keys()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path):
    module = name_of(path)
    if module == "__init__":
        return
    for name in imported(path):
        if not name.startswith("mids."):
            # The accessor's methods are the public functions, which the package imports late.
            assert name != "mids" or module == "accessor"
            continue
        other = name.split(".")[1]
        if other in ("__version__", module):
            continue
        allowed = LEVELS[other] < LEVELS[module] or (module, other) in SIBLINGS
        assert allowed, f"{module} (level {LEVELS[module]}) imports {other} ({LEVELS[other]})"


@pytest.mark.parametrize(
    "path",
    [path for path in MODULES if LEVELS.get(name_of(path), 9) < 5],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_arrays_only_below_the_datasets(path):
    assert not at_run_time(path) & {"xarray", "dask", "pandas", "distributed", "matplotlib"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_heavy_packages_are_imported_inside_functions(path):
    heavy = {"dask", "distributed", "matplotlib", "netCDF4"}
    if path.parent.name != "flows" or not path.name.startswith("_"):  # where numba's code lives
        heavy.add("numba")
    assert not at_top_level(path) & heavy


@pytest.mark.parametrize("statement", ["import mids", "from mids import simulate, Target"])
def test_import_is_light(statement):
    code = (
        f"{statement}; import sys; "
        "print([n for n in ('numba', 'dask', 'matplotlib', 'distributed', 'netCDF4', 'scipy.stats')"
        " if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_exists():
    for name in mids.__all__:
        assert getattr(mids, name) is not None
        assert name in dir(mids)
    with pytest.raises(AttributeError, match="nothing"):
        mids.nothing  # noqa: B018


def test_functions_are_not_hidden_by_the_modules_they_come_from():
    """``mids.simulate`` is a function and a module; the function wins, however it is imported."""
    code = (
        "import mids.simulate, mids.analysis; from mids.simulate import replay; import mids; "
        "assert callable(mids.simulate) and callable(mids.saddles) and callable(mids.compare)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
