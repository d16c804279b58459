"""The command line, called as a user would."""

from __future__ import annotations

import re

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

import mids
from mids.cli import main

TARGET = "h1(z1) + h1(z1)*h3(z2)"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a command in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        return CliRunner().invoke(main, [str(argument) for argument in arguments])

    return call


@pytest.fixture
def file(run):
    arguments = ("--dim", "1e2,1e4", "--runs", 5, "--seed", 2, "-o", "ladder.nc")
    done = run("simulate", "--target", TARGET, *arguments)
    assert done.exit_code == 0, done.output
    return "ladder.nc"


def recipe_of(ds):
    """One recipe of a dataset."""
    return next(iter(mids.schema.recipes(ds).values()))


def rows(output):
    """Return the lines of a table that begin with a dimension."""
    return [line.split() for line in output.splitlines() if re.match(r"\s*\d+(e\d+)? ", line)]


def test_the_main_job(run, tmp_path):
    arguments = ("--dim", "1e2,1e4", "--runs", 5, "-o", "ladder.nc", "--plot", "ladder.png")
    done = run("simulate", "--target", TARGET, *arguments)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == "wrote ladder.nc and ladder.png"
    assert done.stderr == ""
    assert [row[0] for row in rows(done.stdout)] == ["100", "100", "1e4", "1e4"]
    assert (tmp_path / "ladder.png").read_bytes().startswith(b"\x89PNG")
    with mids.open_dataset(tmp_path / "ladder.nc") as ds:
        mids.validate(ds)
        assert dict(ds.sizes)["run"] == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ladder.nc", "ladder.png"]


def test_without_output_only_the_table_is_printed(run, tmp_path):
    done = run("simulate", "--target", "h2(z1)", "--dim", "100", "--runs", 3)
    assert done.exit_code == 0, done.output
    assert [row[0] for row in rows(done.stdout)] == ["100"]
    assert "wrote" not in done.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_table_can_be_printed_again(run, file):
    first = run("simulate", "--target", TARGET, "--dim", "1e2,1e4", "--runs", 5, "--seed", 2)
    again = run("saddles", file)
    assert again.exit_code == 0
    assert rows(again.stdout) == rows(first.stdout)


def test_options_reach_the_simulation(run, tmp_path):
    arguments = ["--student-rank", 3, "--rtol", "1e-5", "--flow", "two-timescale", "--ridge", 0.1]
    done = run("simulate", "--target", TARGET, "--dim", 500, "--runs", 2, *arguments, "-o", "o.nc")
    assert done.exit_code == 0, done.output
    with mids.open_dataset(tmp_path / "o.nc") as ds:
        spec = recipe_of(ds)
    assert (spec["student_rank"], spec["rtol"], spec["flow"]["ridge"]) == (3, 1e-5, 0.1)


def test_a_spec_holds_a_sweep_and_options_go_before_it(run, tmp_path):
    (tmp_path / "sweep.toml").write_text(
        'target = "staircase(2)"\ndim = [1e2, 1e3]\nruns = 4\nseed = 9\n'
        '[flow]\nname = "two-timescale"\nridge = 0.2\n'
    )
    done = run("simulate", "--spec", "sweep.toml", "--runs", 2, "--ridge", 0.3, "-o", "o.nc")
    assert done.exit_code == 0, done.output
    with mids.open_dataset(tmp_path / "o.nc") as ds:
        spec = recipe_of(ds)
    assert (ds.dim.values.tolist(), ds.sizes["run"], spec["seed"]) == ([100, 1000], 2, 9)
    assert spec["flow"]["ridge"] == 0.3


@pytest.mark.slow
def test_sweeps_on_the_command_line_and_in_files_are_those_of_python(run, tmp_path):
    time = [0.0, 1.0, 10.0]
    (tmp_path / "sweep.toml").write_text(
        'target = ["h1(z1)", "He3(z1)"]\ndim = [50]\nruns = 2\nseed = [0, 3]\n'
        f'time = {time}\n[flow]\nname = "two-timescale"\nridge = [0.0, 0.5]\n'
    )
    (tmp_path / "point.toml").write_text(f"dim = [50]\nruns = 2\ntime = {time}\n")
    options = [
        "--sweep",
        "target=h1(z1);He3(z1)",
        "--sweep",
        "seed=0,3",
        "--sweep",
        "ridge=0.0,0.5",
    ]
    for arguments in (["--spec", "sweep.toml"], ["--spec", "point.toml", *options]):
        done = run("simulate", *arguments, "-o", "o.nc")
        assert done.exit_code == 0, done.output
        with mids.open_dataset(tmp_path / "o.nc") as ds:
            expected = mids.simulate(
                ["h1(z1)", "He3(z1)"],
                dim=50,
                runs=2,
                seed=[0, 3],
                flow=mids.flows.TwoTimescale(ridge=[0.0, 0.5]),
                time=time,
            )
            assert mids.simulation.simulate.differences(ds.compute(), expected) == []
            assert ds.target.values.tolist() == ["h1(z1)", "He3(z1)"]
            assert ds.ridge.values.tolist() == [0.0, 0.5]
        (tmp_path / "o.nc").unlink()
        head = done.stdout.splitlines()[0].split()
        assert head[:3] == ["target", "seed", "ridge"]


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ("ridge", "--sweep must be NAME=V,V,..."),
        ("epsilon=1,2", "epsilon"),
        ("ridge=0.1,0.1", "more than once"),
        ("seed=1,1", "some are equal"),
        ("target=h1(z1);h1(y)", "cannot read the target"),
    ],
)
def test_sweeps_without_sense_are_one_line(run, sweep, message):
    done = run("simulate", "--target", "h1(z1)", "--dim", 50, "--runs", 1, "--sweep", sweep)
    assert done.exit_code == 2 and message in done.output


FLOWS = {
    "planted": ([], {"name": "planted"}),
    "joint": (
        ["--flow-option", "epsilon=1e-3", "--flow-option", "link=zero", "--ridge", 0.1],
        {"name": "joint", "ridge": 0.1, "kernel": None, "epsilon": 1e-3, "link": "zero"},
    ),
    "ambient": (
        ["--flow-option", "ridge=0.5", "--flow-option", "kernel.polynomial=2"],
        {"name": "ambient", "ridge": 0.5, "kernel": {"polynomial": 2.0}},
    ),
    "two-timescale": (
        ["--ridge", 0.2, "--flow-option", "kernel={eigenvalues=[1, 0.5, 0.3]}"],
        {"name": "two-timescale", "ridge": 0.2, "kernel": {"eigenvalues": [1.0, 0.5, 0.3]}},
    ),
}


@pytest.mark.parametrize("name", FLOWS)
def test_flows_and_their_parameters_reach_the_simulation_and_replay(run, tmp_path, name):
    options, recorded = FLOWS[name]
    text = "h1(z1) + h1(z1)*h1(z2)"
    done = run(
        "simulate",
        "--target",
        text,
        "--dim",
        30,
        "--runs",
        2,
        "--flow",
        name,
        *options,
        "-o",
        "o.nc",
    )
    assert done.exit_code == 0, done.output
    with mids.open_dataset(tmp_path / "o.nc") as ds:
        assert recipe_of(ds)["flow"] == recorded
        mids.validate(ds)
    assert "identical bit by bit" in run("replay", "o.nc").stdout


@pytest.mark.slow
def test_a_spec_may_hold_a_flow_with_a_kernel(run, tmp_path):
    (tmp_path / "sweep.toml").write_text(
        'target = "h1(z1) + h2(z2)"\ndim = 100\nruns = 2\n[flow]\nname = "joint"\n'
        "epsilon = 0.1\nridge = 0.3\nkernel = {exponential = 0.5}\n"
    )
    done = run("simulate", "--spec", "sweep.toml", "--flow-option", "epsilon=0.2", "-o", "o.nc")
    assert done.exit_code == 0, done.output
    with mids.open_dataset(tmp_path / "o.nc") as ds:
        flow = recipe_of(ds)["flow"]
    assert (flow["epsilon"], flow["kernel"]) == (0.2, {"exponential": 0.5})


@pytest.mark.slow
def test_traps_are_counted(run):
    done = run(
        "simulate", "--target", "h3(z1)", "--dim", "1e2,1e6", "--runs", 20, "--flow", "planted"
    )
    assert done.exit_code == 0, done.output
    assert "trapped" in done.stdout and "theory" in done.stdout


def test_saddles_without_theory_are_printed(run, tmp_path):
    time = np.append(0, np.logspace(-1, 5, 300))
    loss = 0.5 / (1 + (time / 20) ** 8) + 0.5 / (1 + (time / 2000) ** 8)
    mids.to_netcdf(mids.from_trajectories(time=time, loss=loss, dim=50), tmp_path / "outside.nc")
    done = run("saddles", "outside.nc")
    assert done.exit_code == 0, done.output
    assert done.stdout.split()[:4] == ["d", "saddle", "loss", "escape"]
    found = [line.split() for line in done.stdout.splitlines()[1:]]
    assert [row[:2] for row in found] == [["50", "0"], ["50", "1"]]
    np.testing.assert_allclose([float(row[3]) for row in found], [20, 2000], rtol=0.05)


def test_plateaus_with_a_level_of_no_other_run_are_counted(run, tmp_path):
    time = np.append(0, np.logspace(-1, 5, 300))
    loss = np.stack([0.5 / (1 + (time / 20) ** 8) + 0.5 / (1 + (time / 2000) ** 8)] * 3)
    loss[0] += 0.3 / (1 + (time / 2) ** 8)
    mids.to_netcdf(mids.from_trajectories(time=time, loss=loss, dim=50), tmp_path / "runs.nc")
    done = run("saddles", "runs.nc", "--scale", "log", "--confidence", "0.99")
    assert done.exit_code == 0, done.output
    assert "left out: 1 plateau with a level of no other run" in done.stdout


def test_flows_are_listed_with_their_parameters(run):
    done = run("flows")
    assert done.exit_code == 0
    for name in mids.flows.names():
        assert f"{name}: " in done.stdout
    assert "  epsilon = 0.01\n" in done.stdout and "  n has no default\n" in done.stdout


def test_a_parameter_without_default_is_asked_for(run):
    done = run("simulate", "--target", "h1(z1)", "--dim", 10, "--flow", "empirical")
    assert done.exit_code == 2
    assert "needs the parameter 'n'" in done.stderr and "--flow-option n=" in done.stderr
    with pytest.raises(mids.errors.InputError, match=r"mids\.flows\.Empirical\(n="):
        mids.flows.get("empirical")


@pytest.mark.slow
def test_phase_diagrams(run, tmp_path):
    options = ("--dim", "8,16", "--n", "10,400", "--runs", 4, "--flow-option", "noise=0.5")
    written = ("--duration", 5, "-o", "o.nc", "--plot", "o.png")
    done = run("phase-diagram", "--target", "h1(z1)", *options, *written)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == "wrote o.nc and o.png"
    assert done.stdout.split()[:6] == ["d", "n", "n/d", "succeed", "runs", "fraction"]
    with mids.open_dataset(tmp_path / "o.nc") as ds:
        mids.validate(ds)
        counts = ds.success.sum("run").values.ravel().tolist()
        assert recipe_of(ds)["flow"]["noise"] == 0.5
    assert [(row[:3], int(row[3])) for row in rows(done.stdout)] == list(
        zip(
            [["8", "10", "1.25"], ["8", "400", "50"], ["16", "10", "0.625"], ["16", "400", "25"]],
            counts,
            strict=True,
        )
    )
    assert (tmp_path / "o.png").read_bytes().startswith(b"\x89PNG")
    assert "o.nc: 16 runs simulated again, identical bit by bit" in run("replay", "o.nc").stdout
    (tmp_path / "diagram.toml").write_text(
        'target = "h1(z1)"\ndim = [8, 16]\nn = [10, 400]\nruns = 2\nduration = 5\n'
        "[flow]\nnoise = 0.1\n"
    )
    done = run("phase-diagram", "--spec", "diagram.toml", *options[4:], "-o", "again.nc")
    assert done.exit_code == 0, done.output
    with mids.open_dataset(tmp_path / "again.nc") as ds:
        spec = recipe_of(ds)
    assert (ds.sizes["run"], spec["flow"]["noise"]) == (4, 0.5)
    (tmp_path / "named.toml").write_text('target = "h1(z1)"\ndim = 8\nn = 9\nflow = "empirical"\n')
    for wrong, message in (
        (["--spec", "named.toml", "--flow-option", "noisy=1"], "did you mean 'noise'"),
        (["--dim", 8, "--n", 5], "needs target"),
        (["--target", "h1(z1)", "--dim", 8, "--n", "5,x"], "--n must be numbers"),
        (["--target", "h1(z1)", "--dim", 8, "--n", "9", "--level", 2], "level"),
    ):
        done = run("phase-diagram", *wrong, "-o", "never.nc")
        assert done.exit_code == 2 and message in done.stderr
    assert not (tmp_path / "never.nc").exists()


def test_info(run, file):
    done = run("info", file)
    assert done.exit_code == 0
    for part in ("rank 2", "10 converged", "two-timescale", "10.1002/cpa.70006"):
        assert part in done.stdout


def test_replay_of_a_file(run, file, tmp_path):
    done = run("replay", file)
    assert (done.exit_code, done.stdout) == (
        0,
        "ladder.nc: 10 runs simulated again, identical bit by bit\n",
    )
    assert "2 runs simulated again" in run("replay", file, "--runs", 1).stdout
    with mids.open_dataset(tmp_path / file) as opened:
        ds = opened.load()
    ds["loss"] = ds.loss + xr.where(ds.run == 3, 1e-12, 0.0)
    mids.to_netcdf(ds, tmp_path / file)
    done = run("replay", file)
    assert done.exit_code == 1
    assert "loss differs in 2 of 10 runs, first at dim 100, run 3" in done.stdout
    assert run("replay", file, "--runs", 3).exit_code == 0


def test_targets(run):
    listed = run("targets").stdout
    for name in mids.targets.names():
        assert name in listed
    one = run("targets", "leaps(1,3)").stdout
    assert "rank 2, degree 4" in one
    assert "leaps 1 -> 3: log d, d^2" in one


@pytest.mark.parametrize("command", [None, *main.commands])
def test_help_has_an_example(run, command):
    done = run(*([command] if command else []), "--help")
    assert done.exit_code == 0
    if command:
        assert f"Example: mids {command}" in done.stdout


def test_version(run):
    assert mids.__version__ in run("--version").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--target", "h1(y)", "--dim", "100"],
            r"cannot read the target.* character 4 of 'h1\(y\)'",
        ),
        (["--dim", "100"], "needs target"),
        (["--target", "h1(z1)"], "needs dim"),
        (["--target", "h1(z1)", "--dim", "0"], "dim must be a whole number"),
        (["--target", "h1(z1)", "--dim", "1e2;1e3"], "commas"),
        (["--target", "h1(z1)", "--dim", "100", "--runs", "0"], "runs must be"),
        (["--target", "h1(z1)", "--dim", "100", "--flow", "slow"], "allowed: .*two-timescale"),
        (["--target", "h1(z1)", "--dim", "100", "--ridge", "-1"], "ridge"),
        (
            ["--target", "h1(z1)", "--dim", "100", "--flow", "joint", "--flow-option", "eps=1"],
            "unknown parameter of the flow 'joint' 'eps'.*did you mean 'epsilon'",
        ),
        (["--target", "z1", "--dim", "9", "--flow-option", "ridge"], "must be NAME=VALUE"),
        (["--target", "z1", "--dim", "9", "--flow-option", "a b=1"], "cannot be read"),
        (["--target", "z1", "--dim", "9", "--flow", "planted", "--ridge", "1"], "no parameters"),
        (
            ["--target", "z1", "--dim", "9", "--flow", "planted", "--student-rank", "2"],
            "needs student_rank = 1",
        ),
        (
            ["--target", "z1", "--dim", "9", "--flow-option", "kernel=3", "--ridge", "1"],
            "kernel must be",
        ),
        (["--target", "h1(z1)", "--dim", "100", "-o", "no/where.nc"], "folder .* does not exist"),
        (["--target", "h1(z1)", "--dim", "100", "--plot", "no/where.png"], "does not exist"),
        (["--target", "h1(z1)", "--dim", "100", "--plot", "loss.docx"], "png"),
        (["--spec", "none.toml"], "cannot read none.toml"),
        (["--spec", "bad.toml"], "bad.toml is no TOML file"),
        (["--spec", "typo.toml"], "unknown argument of a sweep 'rums'.*did you mean 'runs'"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_two(run, tmp_path, arguments, message):
    (tmp_path / "bad.toml").write_text("target = ")
    (tmp_path / "typo.toml").write_text('target = "h1(z1)"\ndim = 100\nrums = 3\n')
    done = run("simulate", *arguments)
    assert done.exit_code == 2
    assert re.fullmatch(rf"Error: .*{message}.*\n", done.output)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("command", ["saddles", "info", "replay"])
@pytest.mark.parametrize("content", [None, b"text"])
def test_unusable_files_are_one_line_and_exit_code_two(run, tmp_path, command, content):
    if content is not None:
        (tmp_path / "thing.nc").write_bytes(content)
    done = run(command, "thing.nc")
    assert done.exit_code == 2
    assert re.fullmatch(r"Error: thing\.nc .*\n", done.output)


def test_an_interruption_leaves_nothing(run, tmp_path, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("mids.storage.netcdf._write", interrupted)
    done = run("simulate", "--target", "h1(z1)", "--dim", "100", "-o", "o.nc")
    assert done.exit_code == 130
    assert done.stderr == "interrupted\n"
    assert list(tmp_path.iterdir()) == []


def test_tables_have_no_infinite_or_missing_numbers_spelled_out(run):
    done = run("simulate", "--target", "h1(z1)", "--dim", "100", "--runs", 2)
    numbers = [float(cell) for row in rows(done.stdout) for cell in row if cell[0].isdigit()]
    assert np.isfinite(numbers).all()


def test_lists_of_commands_have_whole_sentences(run):
    for group, name in ((main, ""), (main.commands["catalog"], "catalog")):
        lines = run(*([name] if name else []), "--help").output.splitlines()
        listed = lines[lines.index("Commands:") + 1 :][: len(group.commands)]
        assert all(line.endswith(".") and not line.endswith("...") for line in listed), listed


@pytest.mark.parametrize("columns", ["60", "100"])
def test_what_a_file_holds_fits_the_terminal(run, file, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    lines = run("info", file).output.splitlines()
    assert max(map(len, lines)) <= int(columns)
    assert " ".join(" ".join(lines).split()).endswith("https://doi.org/10.1002/cpa.70006")
    assert any(line.startswith("  title         Gradient flow") for line in lines)


def test_tables_fit_eighty_columns(run, file):
    done = run("saddles", file)
    assert max(map(len, done.output.splitlines())) <= 80
