"""A dataset on one self-contained page: pictures, saddles against theory, where it comes from."""

from __future__ import annotations

import base64
import io
import json
import shlex
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from . import plot, schema, validation
from .analysis.compare import compare, summary
from .analysis.describe import description
from .analysis.plateaus import Scale, plateaus
from .analysis.scaling import scaling
from .errors import DatasetError

WIDTH = 4.8  # of the pictures in inches: so wide that their text can be read on a telephone

RATIO = "measured / theory"
COLUMNS = {
    "dim": "d",
    "saddle": "directions learned",
    "loss": "loss",
    "escape_time": "escape time, measured",
    "escape_time_theory": "escape time, theory",
    "ratio": RATIO,
    "runs": "runs",
    "censored": "censored",
    "trapped": "trapped",
    "unmatched": "unmatched",
}
SLOPES = {
    "saddle": "directions learned",
    "slope": "slope in log d",
    "low": "95 % interval from",
    "high": "to",
    "expected": "theory",
}


def page(
    ds: xr.Dataset,
    file: str = "dataset.nc",
    *,
    scale: Scale | None = None,
    confidence: float = 0.95,
) -> str:
    """Return a page of HTML about a dataset; keywords as for `plateaus`."""
    if "loss" not in ds:
        raise DatasetError(
            f"a page shows the loss over time, but the dataset has {', '.join(map(str, ds))}"
            + ("; draw it with ds.mi.plot.success()" if "success" in ds else "")
        )
    template = _template()
    chunks = ds.chunksizes
    ds = ds.compute()
    parts = ds.chunk(chunks)  # analysed block by block
    found = plateaus(parts, scale=scale, confidence=confidence)
    comparison = fit = table = None
    reason = ""
    try:
        comparison = compare(parts).compute()
        table = summary(comparison)
        table = table.drop(columns=[n for n in ("trapped", "failed") if not table[n].any()])
        if ds.sizes.get("dim", 1) > 1:
            fit = scaling(parts).compute()
    except DatasetError as error:
        reason = str(error).rstrip(".")
    heading, rows = description(ds)
    listed = ("source", "date_created", "history", "references", "license")
    return str(
        template.render(
            title=ds.attrs.get("title", heading),
            summary=ds.attrs.get("summary", ""),
            described=[(name, text) for name, text in rows if name != "next"],
            saddles=None if table is None else _table(table.rename(columns=COLUMNS)),
            reason=reason,
            slopes=None if fit is None else _table(_slopes(fit)),
            pictures=list(_pictures(ds, comparison, found, fit)),
            provenance=[(name, ds.attrs[name]) for name in listed if name in ds.attrs],
            file=shlex.quote(file),
            simulated=_simulated(ds),
            recipe=recipe(ds) if _simulated(ds) else None,
        )
    )


def recipe(ds: xr.Dataset) -> str | None:
    """Return the sweep a dataset was made by as TOML, which ``mids simulate --spec`` reads."""
    recorded = list(schema.recipes(ds).values())
    # A sweep as text has one recipe, and no room for starts that each run was given.
    if len(recorded) != 1 or "flow" not in recorded[0] or recorded[0]["initial"] == "variable":
        return None
    if not {"dim", "run", "time"} <= ds.coords.keys():
        return None
    spec = {name: value for name, value in recorded[0].items() if name != "versions"}
    spec |= {"dim": np.atleast_1d(ds["dim"].values).tolist(), "time": ds["time"].values.tolist()}
    runs = np.atleast_1d(ds["run"].values)
    spec["runs"] = len(runs) if np.array_equal(runs, np.arange(len(runs))) else runs.tolist()
    return "\n".join(
        f"{name} = {_toml(value)}" for name, value in spec.items() if value is not None
    )


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        given = {name: entry for name, entry in value.items() if entry is not None}
        return f"{{{', '.join(f'{name} = {_toml(entry)}' for name, entry in given.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value)


def _template() -> Any:
    jinja2 = validation.package("jinja2", "a page needs jinja2", "plot")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(files("mids").joinpath("report.html").read_text("utf-8"))


def _simulated(ds: xr.Dataset) -> bool:
    """Tell whether the dataset names a flow that makes it again."""
    try:
        return any("flow" in entry for entry in schema.recipes(ds).values())
    except DatasetError:
        return False


def _table(frame: pd.DataFrame) -> dict[str, Any]:
    """Return names of columns and rows of texts."""
    columns = list(frame.columns)
    return {
        "columns": columns,
        "rows": [
            [_cell(name, value) for name, value in zip(columns, row, strict=True)]
            for row in frame.itertuples(index=False)
        ],
    }


def _cell(column: str, value: Any) -> str:
    if pd.isna(value):
        return "-"
    if column == "d":
        return schema.dim_text(value)
    if column == RATIO:
        return f"{value:.4f}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _slopes(fit: xr.Dataset) -> pd.DataFrame:
    frame = fit[list(SLOPES)[1:]].to_dataframe().reset_index()
    others = [name for name in frame.columns if name not in SLOPES]
    return frame[[*others, *SLOPES]].rename(columns=SLOPES)


def _pictures(
    ds: xr.Dataset, comparison: xr.Dataset | None, found: xr.Dataset, fit: xr.Dataset | None
) -> Iterator[dict[str, str]]:
    yield _figure(
        plot.loss(ds, comparison, found),
        "Loss of every run. Black: the run closest to the median of those not trapped, with its "
        "plateaus in yellow.",
    )
    if comparison is not None:
        yield _figure(
            plot.escape_times(comparison),
            "Measured escape time of each saddle of each run against the predicted one.",
        )
        if fit is not None:
            yield _figure(
                plot.timescales(comparison, fit),
                "Escape times against the ambient dimension: medians, with bars from the 10 % to "
                "the 90 % quantile.",
            )
    if "overlap" in ds:
        yield _figure(
            plot.overlap(ds), "Squared cosines between student and target, direction by direction."
        )
    if "energy" in ds:
        yield _figure(
            plot.modes(ds),
            "What each Hermite degree contributes to h(G), the norm learned, in one run.",
        )
    if "overlap" in ds and ds.sizes.get("direction", 1) > 1:
        several = ds.sizes.get("dim", 1) > 1
        yield _figure(
            plot.phase(ds, col="dim", col_wrap=2) if several else plot.phase(ds),
            "The two leading overlaps against each other.",
        )


def _figure(axes: np.ndarray, caption: str) -> dict[str, str]:
    """Return a picture as SVG in base64, and its caption."""
    from matplotlib import pyplot, rc_context
    from matplotlib.collections import LineCollection

    figure = axes.flat[0].figure
    figure.set_figwidth(WIDTH)
    for lines in figure.findobj(LineCollection):
        lines.set_rasterized(True)  # thousands of thin lines: as paths they are megabytes
    content = io.BytesIO()
    # The same dataset gives the same page, byte by byte.
    with rc_context({"svg.hashsalt": "mids"}):
        figure.savefig(content, format="svg", dpi=200, metadata={"Date": None})
    pyplot.close(figure)
    return {"svg": base64.b64encode(content.getvalue()).decode("ascii"), "caption": caption}
