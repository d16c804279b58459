"""A dataset on one self-contained page: pictures, saddles against theory, where it comes from."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from string import Template
from typing import TYPE_CHECKING, Any

import pandas as pd
import xarray as xr

from . import plot, schema
from .analysis.compare import compare, summary
from .analysis.describe import description
from .analysis.plateaus import plateaus
from .analysis.scaling import scaling
from .errors import DatasetError

if TYPE_CHECKING:
    import numpy as np

__all__ = ["page", "recipe"]

WIDTH = 4.8
"""Of the pictures in inches: so wide that their text can be read on a telephone."""

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

TEMPLATE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<link rel="icon" href="data:,">
<style>
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 80rem; margin: 0 auto;
  padding: 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; } h2 { font-size: 1.2rem; margin-top: 2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .75rem .25rem 0; text-align: left; vertical-align: top; }
th { white-space: nowrap; }
.numbers th, .numbers td { text-align: right; border-bottom: 1px solid #ccc; white-space: nowrap; }
.numbers th { white-space: normal; overflow-wrap: normal; vertical-align: bottom; }
.wide { overflow-x: auto; }
.pictures { columns: 2 26rem; column-gap: 2rem; }
figure { margin: 0 0 1.5rem; break-inside: avoid; }
figure img { width: 100%; max-width: 36rem; height: auto; }
figcaption { color: #444; font-size: .9rem; max-width: 36rem; }
pre { background: #f4f4f4; padding: .75rem; overflow-x: auto; }
</style>
</head>
<body>
<h1>$title</h1>
<p>$summary</p>
<div class="wide"><table>$facts</table></div>
<h2>Measured against theory</h2>
$comparison
<h2>Pictures</h2>
<div class="pictures">
$pictures
</div>
<h2>Where it comes from</h2>
<div class="wide"><table>$provenance</table></div>
$again
</body>
</html>
""")


def page(ds: xr.Dataset, file: str = "dataset.nc") -> str:
    """Return a page of HTML about a dataset that needs no other file."""
    if "loss" not in ds:
        raise DatasetError(
            f"a page shows the loss over time, but the dataset has {', '.join(map(str, ds))}"
            + ("; draw it with ds.mi.plot.success()" if "success" in ds else "")
        )
    chunks = ds.chunksizes
    ds = ds.compute()
    parts = ds.chunk(chunks)  # analysed block by block
    comparison: xr.Dataset | None = None
    try:
        comparison = compare(parts).compute()
        found = summary(comparison)
        found = found.drop(columns=[n for n in ("trapped", "failed") if not found[n].any()])
        table = _table(found.rename(columns=COLUMNS)) + _slopes(parts)
    except DatasetError as error:
        table = f"<p>Not held against theory: {escape(str(error))}.</p>"
    heading, rows = description(ds)
    quoted = file if re.fullmatch(r"[\w./-]+", file) else "'" + file.replace("'", "'\\''") + "'"
    listed = ("source", "date_created", "history", "references", "license")
    return TEMPLATE.substitute(
        title=escape(str(ds.attrs.get("title", heading))),
        summary=escape(str(ds.attrs.get("summary", ""))),
        facts=_facts((name, text) for name, text in rows if name != "next"),
        comparison=table,
        pictures="\n".join(_pictures(ds, parts, comparison)),
        provenance=_facts((name, str(ds.attrs[name])) for name in listed if name in ds.attrs),
        again=_again(ds, quoted),
    )


def recipe(ds: xr.Dataset) -> str | None:
    """Return the sweep a dataset was made by as TOML, which ``mids simulate --spec`` reads."""
    spec = {name: value for name, value in schema.spec(ds).items() if name != "versions"}
    if not {"target", "flow", "dim"} <= spec.keys() or isinstance(spec.get("initial"), str):
        return None
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


def _again(ds: xr.Dataset, file: str) -> str:
    """Say how the page and, if they were simulated, the data are made again."""
    try:
        text, simulated = recipe(ds), "flow" in schema.spec(ds)
    except DatasetError:
        text, simulated = None, False
    report = escape(f"mids report {file} -o report.html")
    if not simulated:
        return f"<p>Make this page again:</p><pre>{report}</pre>"
    page = (
        "<p>Simulate the file again and compare it bit by bit; make this page again:</p>"
        f"<pre>mids replay {escape(file)}\n{report}</pre>"
    )
    if text is None:
        return page
    return (
        f"{page}<p>Make the data anew, from <code>sweep.toml</code>:</p>"
        "<pre>mids simulate --spec sweep.toml -o again.nc</pre>"
        f"<details><summary>sweep.toml</summary><pre>{escape(text)}</pre></details>"
    )


def _facts(rows: Iterable[tuple[str, str]]) -> str:
    return "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in rows
    )


def _table(frame: pd.DataFrame) -> str:
    if "d" in frame:
        frame = frame.assign(d=frame["d"].map(schema.dim_text, na_action="ignore"))
    text = frame.to_html(
        index=False,
        border=0,
        na_rep="-",
        classes="numbers",
        float_format=lambda x: f"{x:.4g}",
        formatters={RATIO: "{:.4f}".format},
    )
    return f'<div class="wide">{text}</div>'


def _slopes(ds: xr.Dataset) -> str:
    if ds.sizes.get("dim", 1) < 2:
        return ""
    fit = scaling(ds).compute()
    frame = pd.DataFrame(
        {
            "directions learned": fit["saddle"].values,
            "slope in log d": fit["slope"].values,
            "95 % interval from": fit["low"].values,
            "to": fit["high"].values,
            "theory": fit["expected"].values,
        }
    )
    text = "Growth of the escape times with d, as d^slope; a theory of 0 stands for log d:"
    return f"<p>{text}</p>" + _table(frame)


def _pictures(ds: xr.Dataset, parts: xr.Dataset, comparison: xr.Dataset | None) -> Iterator[str]:
    yield _figure(
        plot.loss(ds, comparison, plateaus(parts)),
        "Loss of every run. Dark: a typical run of those not trapped, with its plateaus shaded.",
    )
    if comparison is not None:
        yield _figure(
            plot.escape_times(comparison),
            "Measured escape time of each saddle of each run against the predicted one.",
        )
        if comparison.sizes.get("dim", 1) > 1:
            yield _figure(
                plot.timescales(comparison, scaling(parts)),
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
            "What each Hermite degree contributes to the norm learned, in the same typical run.",
        )
    if "overlap" in ds and ds.sizes.get("direction", 1) > 1:
        several = ds.sizes.get("dim", 1) > 1
        yield _figure(
            plot.phase(ds, col="dim", col_wrap=2) if several else plot.phase(ds),
            "The two leading overlaps against each other.",
        )


def _figure(axes: np.ndarray, caption: str) -> str:
    from matplotlib import pyplot, rc_context
    from matplotlib.collections import LineCollection

    figure = axes.flat[0].figure
    figure.set_figwidth(WIDTH)
    for lines in figure.findobj(LineCollection):
        lines.set_rasterized(True)  # thousands of thin lines: as paths they are megabytes
    content = io.BytesIO()
    with rc_context({"svg.hashsalt": "mids"}):
        figure.savefig(content, format="svg", dpi=200, metadata={"Date": None})
    pyplot.close(figure)
    source = base64.b64encode(content.getvalue()).decode("ascii")
    return (
        f'<figure><img src="data:image/svg+xml;base64,{source}" alt="{escape(caption)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )
