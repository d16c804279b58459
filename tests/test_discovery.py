"""What users find by ``help``, a tab and a type checker."""

from __future__ import annotations

import doctest
import functools
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mids
from mids.accessor import MultiIndexAccessor
from mids.plot.accessor import PlotAccessor

ROOT = Path(mids.__file__).parents[1]


def public():
    """Everything public by name: that of the package, and of the modules it shows."""
    for name in mids.__all__:
        found = getattr(mids, name)
        if inspect.ismodule(found):
            yield from ((f"{name}.{inner}", getattr(found, inner)) for inner in found.__all__)
        else:
            yield name, found


NAMES = {**dict(public()), "MultiIndexAccessor": MultiIndexAccessor, "PlotAccessor": PlotAccessor}
ACCESSORS = ("MultiIndexAccessor", "PlotAccessor")  # whose methods name their functions
CLASSES = {name: found for name, found in NAMES.items() if inspect.isclass(found)}
METHODS = {
    f"{name}.{inner}": inspect.unwrap(getattr(member, "__func__", member))
    for name, found in CLASSES.items()
    for inner, member in vars(found).items()
    if not inner.startswith("_")
    and callable(getattr(member, "__func__", member))
    and not any(inner in vars(base) for base in found.__mro__[1:])  # explained there
}


def sections(text):
    return set(re.findall(r"^(\w+)\n-+$", text, re.MULTILINE))


def check_sections(function, text, owner=""):
    """Arguments and result are explained; what methods share, by the owner."""
    taken = [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]
    if taken and all(
        re.search(rf"^(\w+, )?{name}(, \w+)? : ", owner, re.MULTILINE) for name in taken
    ):
        return
    returned = inspect.signature(function).return_annotation
    assert not taken or "Parameters" in sections(text)
    assert returned == "None" or sections(text) & {"Returns", "Yields"}


@pytest.mark.parametrize("name", sorted(NAMES))
def test_help_explains_and_has_an_example(name):
    """The examples themselves are run with the tests, from the module they are in."""
    found = NAMES[name]
    text = inspect.getdoc(found) or ""
    if inspect.isfunction(found):
        check_sections(found, text)
    assert found.__module__.startswith("mids.")
    tests = doctest.DocTestFinder(recurse=False).find(found, name)
    assert sum(len(test.examples) for test in tests) > 0


def explained(found):
    """Methods and properties of a class, with all that any class above says of them."""
    for inner, member in inspect.getmembers(found):
        above = [kind for kind in found.__mro__ if inner in vars(kind)]
        own = above and above[-1].__module__.startswith("mids.")
        kinds = (property, functools.cached_property)
        if own and not inner.startswith("_") and (isinstance(member, kinds) or callable(member)):
            yield inner, [inspect.getdoc(vars(kind)[inner]) or "" for kind in above]


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_every_member_has_an_example_also_properties_and_inherited_ones(name):
    assert [inner for inner, texts in explained(CLASSES[name]) if ">>>" not in "".join(texts)] == []


@pytest.mark.parametrize("name", sorted(METHODS))
def test_help_on_methods(name):
    text = inspect.getdoc(METHODS[name]) or ""
    assert ">>>" in text
    if not name.startswith(ACCESSORS):
        check_sections(METHODS[name], text, inspect.getdoc(CLASSES[name.rpartition(".")[0]]))


def test_examples_run_with_the_tests(pytestconfig):
    assert pytestconfig.getini("testpaths")[0] == "mids"
    assert "--doctest-modules" in pytestconfig.getini("addopts")


def test_a_tab_shows_what_there_is():
    ds = mids.simulate("h2(z1)", dim=[100, 1000], runs=2)
    shown = {name for name in dir(ds.mi) if not name.startswith("_")}
    same = {name for name in mids.__all__ if name in vars(MultiIndexAccessor)}
    assert shown == same | {"target", "flow"}
    assert {"saddles", "compare", "scaling", "plot", "to_netcdf", "validate"} < shown
    plots = {name for name in dir(ds.mi.plot) if not name.startswith("_")}
    assert plots <= set(mids.plot.__all__) and len(plots) >= 7
    assert set(mids.__all__) <= set(dir(mids))
    assert "mi" in dir(ds)


SNIPPET = """
import mids
from mids.flows import Joint, OnlineSGD, TwoTimescale

ds = mids.simulate("h2(z1)", dim=[1e2, 1e4], runs=4, flow=TwoTimescale(ridge=[0.0, 1.0]))
mids.simulate(["h1(z1)", "h2(z1)"], dim=[100, 400], seed=[0, 1], student_rank=[1, 2], time=1e3)
mids.simulate({"a": lambda z: z[:, 0]}, rank=1, dim=100, flow=Joint(epsilon=[0.1, 1]))
sgd = OnlineSGD(step=[0.1, 0.2], batch=[10, 20], readout=["hermite-ridge", "random-features"])
mids.simulate(mids.Target.parse("h2(z1)"), dim=64, flow={"sgd": OnlineSGD(), "fast": "planted"})
mi = mids.accessor(ds)
reveal_type(ds)
reveal_type(mi.saddles())
reveal_type(mi.target)
reveal_type(mi.plot.loss(row="dim"))
reveal_type(mids.ladder(mi.target))
reveal_type(mids.open_catalog("folder").search(rank=2))
mi.plateaus(tolerance="small")
mids.simulate("h2(z1)", dimension=100)
TwoTimescale(penalty=0.1)
"""
REVEALED = ["Dataset", "Dataset", "Target", "ndarray", "Ladder", "Catalog"]


def test_type_checkers_see_functions_and_accessor(tmp_path):
    """As editors do; tests/verification/slow.py asks mypy."""
    check_types(tmp_path, ["pyright", "--pythonpath", sys.executable], r'Type of ".*" is "(.*)"')


def check_types(folder, checker, reveals):
    (folder / "snippet.py").write_text(SNIPPET, "utf-8")
    checked = subprocess.run(
        [sys.executable, "-m", *checker, str(folder / "snippet.py")],
        cwd=ROOT,
        env=os.environ | {"MYPYPATH": str(ROOT), "PYTHONPATH": str(ROOT)},
        text=True,
        capture_output=True,
        check=False,
    )
    revealed = re.findall(reveals, checked.stdout)
    kinds = [re.sub(r"\[.*", "", kind).rpartition(".")[2] for kind in revealed]
    assert kinds == REVEALED, checked.stdout + checked.stderr
    wrong = re.findall(r"snippet.py:(\d+).*error: ", checked.stdout)
    last = len(SNIPPET.splitlines())
    assert sorted(set(map(int, wrong))) == [last - 2, last - 1, last], checked.stdout


@pytest.mark.parametrize(
    ("call", "cure"),
    [
        (lambda ds: mids.simulate(abs, dim=100), "rank="),
        (lambda ds: mids.theory(mids.Target.parse("h1(z1)")), r"pass dim="),
        (lambda ds: mids.compare("ladder.nc"), r"mids\.open_dataset"),
        (lambda ds: mids.saddles("h2(z1)"), r"mids\.simulate\(target"),
        (lambda ds: mids.plateaus(ds.loss), "the whole dataset"),
        (lambda ds: mids.scaling(None), r"mids\.simulate"),
        (lambda ds: mids.traps(3), r"mids\.simulate"),
        (lambda ds: mids.describe(3), r"mids\.simulate"),
        (lambda ds: mids.plot.timescales(ds), r"ds\.mi\.plot\.timescales\(\)"),
        (lambda ds: mids.plot.loss("ladder.nc"), "xarray.Dataset"),
        (lambda ds: ds.mi.plot(), r"call one of .*\.loss\(\) .*\.traps\(\)$"),
        (
            lambda ds: mids.simulate("h2(z1)", dim=9, ridge=[0, 1]),
            r"flow=mids\.flows\.TwoTimescale\(",
        ),
        (lambda ds: mids.simulate("h2(z1)", dim=9, n_runs=3), "did you mean 'runs'"),
        (lambda ds: mids.simulate("h2(z1)", dim=9, flow=mids.flows.Planted), r"pass Planted\(\)"),
        (lambda ds: mids.simulate(lambda x, y: x * y, rank=2, dim=9), r"one array, .*z\[:, 0\]"),
        (lambda ds: mids.simulate("tanh(z1)", dim=9), r"lambda z: \.\.\. with rank="),
        (lambda ds: mids.flows.Joint(eps=0.1), "did you mean 'epsilon'"),
        (lambda ds: mids.ladder(ds), r"ds\.mi\.target"),
        (lambda ds: mids.ladder(abs), "from_function"),
        (lambda ds: mids.exponents(abs), "rank="),
        (lambda ds: mids.plot.loss(ds.loss), "the whole dataset"),
        (lambda ds: mids.plot.loss(ds, mids.theory(ds)), r"what mids\.compare returns"),
        (lambda ds: ds.mi.plot.overlap(title="a"), "layout 'title'; allowed: .*'hue'"),
    ],
)
def test_near_misses_name_the_cure(call, cure):
    ds = mids.simulate("h2(z1)", dim=[100, 1000], runs=2)
    with pytest.raises(mids.errors.MidsError, match=cure):
        call(ds)


@pytest.mark.parametrize(
    ("owner", "name", "cure"),
    [
        (lambda ds: mids, "Planted", r"it is mids\.flows\.Planted"),
        (lambda ds: mids, "saddle", "did you mean 'saddles'"),
        (lambda ds: ds.mi, "plateau", "did you mean 'plateaus'"),
        (lambda ds: ds.mi.plot, "overlaps", "did you mean 'overlap'"),
        (lambda ds: ds.mi.plot, "bars", r"dir\(ds\.mi\.plot\)"),
    ],
)
def test_names_that_are_not_there_name_the_one_that_was_meant(owner, name, cure):
    """Notebooks do not show what Python itself suggests."""
    ds = mids.simulate("h2(z1)", dim=[100, 1000], runs=2)
    with pytest.raises(AttributeError, match=cure):
        getattr(owner(ds), name)


def test_the_ladder_of_a_text():
    assert repr(mids.ladder("h3(z1)")) == "3: d^2"
