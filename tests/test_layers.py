"""The order of the package's wings, and what importing it costs."""

from __future__ import annotations

import ast
import functools
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mids

ROOT = Path(mids.__file__).parent

WINGS = (
    "errors",
    "validation",
    "schema",
    "targets",
    "flows",
    "simulation",
    "analysis",
    "storage",
    "catalog",
    "plot",
    "report",
    "accessor",
    "__init__",
    "cli",
    "__main__",
)
"""A module imports only from wings before its own."""

MODULES = {
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts): path
    for path in sorted(ROOT.rglob("*.py"))
}


def wing(module: str) -> str:
    """Return the wing of a module, given as ``mids.wing.name``."""
    return module.removeprefix("mids.").partition(".")[0]


def statements(node: ast.AST, typing: bool) -> Iterator[ast.AST]:
    """Yield the statements in a node, also inside functions, with or without those for types."""
    for name in ("body", "orelse", "handlers", "finalbody", "cases"):
        for inner in getattr(node, name, ()):
            yield inner
            if typing or not (isinstance(inner, ast.If) and is_for_types(inner)):
                yield from statements(inner, typing)


def is_for_types(node: ast.If) -> bool:
    return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


@functools.cache
def imports(module: str, typing: bool = True) -> set[str]:
    """Return what a module imports, also inside functions, with or without types alone."""
    package = module.split(".")[:-1]
    found = set()
    for node in statements(ast.parse(MODULES[module].read_text(encoding="utf-8")), typing):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *(node.module or "").split(".")]).rstrip(".")
            for alias in node.names:
                name = f"{origin}.{alias.name}"
                found.add(name if name in MODULES or f"{name}.__init__" in MODULES else origin)
    return {f"{name}.__init__" if f"{name}.__init__" in MODULES else name for name in found}


def imported(typing: bool = True) -> dict[str, set[str]]:
    return {module: imports(module, typing) for module in MODULES}


def test_imports_point_down_the_wings():
    upward = [
        f"{module} imports {other}"
        for module, others in imported().items()
        for other in others & MODULES.keys()
        if WINGS.index(wing(other)) > WINGS.index(wing(module))
    ]
    assert upward == []


def test_there_are_no_circles():
    """Also none inside a wing, nor through the package itself."""
    graph = {
        module: others & MODULES.keys() - {module}
        for module, others in imported(typing=False).items()
    }
    graphlib.TopologicalSorter(graph).prepare()


def test_private_modules_are_imported_by_their_wing_alone():
    for module, others in imported().items():
        for other in others & MODULES.keys():
            private = any(part[:1] == "_" and part[:2] != "__" for part in other.split("."))
            assert not private or wing(other) == wing(module), f"{module} imports {other}"


def test_the_root_is_small_and_public():
    root = [path.name for path in ROOT.glob("*.py")]
    assert len(root) <= 10
    assert not [name for name in root if name.startswith("_") and not name.startswith("__")]


def test_arrays_only_below_the_datasets():
    for module in MODULES:
        if wing(module) in ("targets", "flows"):
            labelled = {"xarray", "dask", "pandas", "distributed", "matplotlib"}
            packages = {name.partition(".")[0] for name in imports(module, typing=False)}
            assert not packages & labelled, module


@pytest.mark.parametrize("statement", ["import mids", "from mids import simulate, Target"])
def test_import_is_light(statement):
    heavy = ("numba", "dask.array", "matplotlib", "distributed", "netCDF4", "scipy.stats", "zarr")
    code = f"{statement}; import sys; print([n for n in {heavy} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_exists():
    for name in mids.__all__:
        assert getattr(mids, name) is not None
        assert name in dir(mids)
