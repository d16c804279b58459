"""Sweeps written block by block where they are simulated, and resumed where they were cut off."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, Literal

import numpy as np
import xarray as xr

from .. import validation
from ..errors import FileError, InputError, MidsError
from ..simulation.progress import Progress, cluster_client, deserted_cluster
from ..simulation.simulate import from_spec, read_spec
from . import netcdf as io
from .interruption import noting_interruptions
from .named_files import NamedFiles, sha256
from .run_tasks import run_tasks
from .store import STORE_VERSION, Block, Layout, begun, recorded
from .write_block import FORMATS, NOT_IN_BLOCKS, intact, write_block, write_header

__all__ = ["generate"]


def generate(
    spec: Mapping[str, Any] | str | os.PathLike[str] | xr.Dataset,
    store: str | os.PathLike[str],
    *,
    format: Literal["netcdf", "zarr"] | None = None,
    compact: bool = False,
    progress: bool = True,
) -> xr.Dataset:
    """Simulate a sweep into a store, block by block, and open it.

    Each block of runs is simulated and written by one task, in threads or wherever dask computes:
    the memory needed is that of the blocks being worked on. Call it again with the same arguments
    after any interruption: blocks whose checksums hold are kept, the others are simulated, and the
    finished store has the same bytes, but for the date in ``store.json``, as an uninterrupted one.
    Files that are damaged count as missing; without ``store.json`` there is no going on.

    Parameters
    ----------
    spec : mapping, path or Dataset
        Arguments of `mids.simulate` by name; a TOML file of them; or a lazy dataset, such as
        ``mids.simulate(...)[["crossing_time", "status"]]``, whose variables all have the dims
        ``dim`` and ``run`` first.
    store : str or path
        A new folder or one that an earlier call has begun, or a URL that fsspec knows.
    format : {"netcdf", "zarr"}, optional
        One NetCDF file for each block, the default in folders, or a Zarr group, the default of
        URLs.
    compact : bool
        Round the curves to float32, as in `mids.to_netcdf`.
    progress : bool
        Show runs done, rate, time left and failures on the standard error stream, after two
        seconds; where that is no terminal, once a minute.

    Returns
    -------
    xarray.Dataset
        What `mids.open_dataset` gives for the store. Where runs failed, its attribute ``failures``
        says how many and why.

    Raises
    ------
    InputError
        If an argument is wrong, or the store holds another sweep; the message says what differs.
    FileError
        If a block cannot be written, for example because the disk is full. What is complete is
        kept.
    ClusterError
        If the cluster is lost, or workers die again and again.
    KeyboardInterrupt
        After Ctrl-C, once running blocks are complete; it says what is kept.

    Examples
    --------
    >>> import os, tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> place = os.path.join(folder.name, "sweep")
    >>> ds = generate({"target": "h1(z1)", "dim": [100, 1e4], "runs": 20, "chunks": 10}, place)
    >>> sorted(os.listdir(place))
    ['d100', 'd10000', 'header.nc', 'manifest.json', 'store.json']
    >>> sorted(os.listdir(os.path.join(place, "d100")))
    ['r000000000.nc', 'r000000010.nc']
    >>> ds.status.max().compute().item()
    0
    >>> folder.cleanup()
    """
    ds, chosen = _dataset(spec), _format(format, store)
    if compact:
        ds = io.narrowed(ds)
    layout = _layout(ds)
    uneven = layout.chunks["run"]
    if chosen == "zarr" and len({*uneven[:-1], max(uneven)}) > 1:
        raise InputError(
            f"Zarr needs blocks of one length, but run is cut into {validation.shown(uneven)}; "
            f'rechunk first: ds.chunk({{"run": {max(uneven)}}})'
        )
    recipe = _recipe(ds, layout)
    files = NamedFiles(store)
    _begin(files, ds, recipe, chosen)
    shown = Progress(ds.sizes["dim"] * ds.sizes["run"]) if progress else None
    with ExitStack() as stack:
        if shown is not None:
            stack.callback(shown.finish)
        manifest = _manifest(files, shown)
        records: dict[str, dict[str, Any]] = {}
        try:
            with noting_interruptions() as check:
                _complete(files, ds, layout, chosen, shown, check, manifest, records)
        except (KeyboardInterrupt, MidsError) as error:
            # Running blocks have finished; where none has been checked, those of before are there.
            found = (records or manifest.get("blocks", {})).keys() | recorded(files)[0].keys()
            least = "" if cluster_client() is None else "at least "  # workers finish what they do
            kept = (
                f"{least}{len(found)} of {len(layout)} blocks are kept in {files.place}; the "
                "same call simulates the others"
            )
            if isinstance(error, KeyboardInterrupt):
                raise KeyboardInterrupt(kept) from None
            raise type(error)(f"{error}; {kept}") from None
    return io.open_dataset(files.place)


def _dataset(spec: Mapping[str, Any] | str | os.PathLike[str] | xr.Dataset) -> xr.Dataset:
    """Return the lazy dataset that is asked for."""
    if isinstance(spec, str | os.PathLike):
        spec = read_spec(spec)
    if isinstance(spec, Mapping) and not isinstance(spec, xr.Dataset):
        return from_spec(spec)
    if not isinstance(spec, xr.Dataset):
        raise InputError(
            f"spec must be a mapping of mids.simulate's arguments, a TOML file or a lazy dataset, "
            f'got {validation.shown(spec)}; pass for example {{"target": "h2(z1)", "dim": [100]}}'
        )
    for name, variable in spec.data_vars.items():
        if variable.dims[:2] != ("dim", "run") or variable.dtype.kind not in "iufb":
            raise InputError(
                f"a store holds numbers with the dims dim and run first, but {name} has "
                f"{variable.dtype} of {variable.dims}; drop or transpose it"
            )
    if not spec.data_vars or not spec.chunksizes:
        raise InputError(
            "a store is written from a lazy dataset; write one in memory with mids.to_netcdf, or "
            'chunk it first: ds.chunk({"dim": 1, "run": 1000})'
        )
    return spec.unify_chunks().chunk({"dim": 1})


def _format(format: str | None, store: str | os.PathLike[str]) -> str:
    remote = "://" in os.fspath(store)
    if format is None:
        return "zarr" if remote else "netcdf"
    if validation.one_of(format, FORMATS, "format") == "netcdf" and remote:
        raise InputError(
            f'NetCDF files are written into folders, not to {os.fspath(store)}; pass format="zarr"'
        )
    return format


def _layout(ds: xr.Dataset) -> Layout:
    labels = ds["dim"].values.tolist() if "dim" in ds.coords else list(range(ds.sizes["dim"]))
    chunks = {
        name: list(ds.chunksizes[name]) if name in ds.chunksizes else [ds.sizes[name]]
        for name in ("dim", "run")
    }
    return Layout(labels, chunks)


def _recipe(ds: xr.Dataset, layout: Layout) -> dict[str, Any]:
    """Return what makes a store this store and no other."""
    coordinates = {str(name): _digest(array.values) for name, array in ds.coords.items()}
    recipe = {
        "spec": ds.attrs.get("mids_recipes", ""),
        "variables": {
            str(name): {
                "dims": list(variable.dims),
                "dtype": variable.dtype.str,
                "shape": list(variable.shape),
                "attributes": {key: np.asarray(v).tolist() for key, v in variable.attrs.items()},
            }
            for name, variable in ds.data_vars.items()
        },
        "coordinates": coordinates,
        "labels": layout.labels,
        "chunks": dict(layout.chunks),
    }
    if "initial" in ds:  # too large for the spec
        recipe["initial"] = _digest(ds["initial"].values)
    plain: dict[str, Any] = json.loads(json.dumps(recipe))
    return plain


def _digest(values: np.ndarray) -> str:
    if values.dtype.kind not in "iufb":  # text, as any of NumPy's types
        return sha256(json.dumps(values.astype(str).tolist()).encode())
    return sha256(np.ascontiguousarray(values).tobytes())


def _begin(files: NamedFiles, ds: xr.Dataset, recipe: dict[str, Any], format: str) -> None:
    """Begin a store, or check that it has been begun with the same arguments."""
    files.create()
    store = begun(files)
    if store is None:
        if any(not name.endswith(".part") for name in files.names()):
            raise InputError(
                f"{files.place} is neither empty nor a store; give a new folder, or empty it"
            )
        attributes = {name: ds.attrs[name] for name in NOT_IN_BLOCKS if name in ds.attrs}
        store = {
            "mids_store": STORE_VERSION,
            "format": format,
            "begun": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "attributes": attributes,
            "recipe": recipe,
        }
        files.write_document("store.json", store)
    else:
        here = {"format": format, **recipe}
        there = {"format": store["format"], **store["recipe"]}
        found = _differing(there, here)
        if found:
            raise InputError(
                f"{files.place} holds another sweep: "
                + "; ".join(found[:4])
                + (f"; and {len(found) - 4} more" if len(found) > 4 else "")
                + "; give the same arguments to complete it, or a new store"
            )
    files.remove_unfinished()


def _differing(there: Any, here: Any, place: str = "") -> list[str]:
    """Return what differs between two nested structures, in words."""
    if isinstance(there, dict) and isinstance(here, dict):
        return [
            text
            for key in sorted(there.keys() | here.keys())
            for text in _differing(
                there.get(key), here.get(key), f"{place}.{key}" if place else str(key)
            )
        ]
    if there == here:
        return []
    name = place.removeprefix("spec.")
    return [f"{name} is {validation.shown(there)} there and {validation.shown(here)} here"]


def _complete(
    files: NamedFiles,
    ds: xr.Dataset,
    layout: Layout,
    format: str,
    progress: Progress | None,
    check: Callable[[], None],
    manifest: Mapping[str, Any],
    records: dict[str, dict[str, Any]],
) -> None:
    """Simulate the blocks that are missing, collecting the records of all; write the manifest."""

    def tick() -> None:
        check()
        if progress is not None:
            progress.wait_for_workers(deserted_cluster())
            progress.tick()

    static = ds.drop_attrs(deep=False).assign_attrs(
        {name: value for name, value in ds.attrs.items() if name not in NOT_IN_BLOCKS}
    )
    known = manifest.get("blocks", {}) | recorded(files)[0]
    names = {block.name(layout.labels) for block in layout}
    checks = ((name, (files.place, record)) for name, record in known.items() if name in names)
    for name, good in run_tasks(intact, checks, tick):
        if good:
            records[name] = record = known[name]
            if progress is not None:
                progress.keep(record["runs"], record["causes"])
    missing = {
        name: block for block in layout if (name := block.name(layout.labels)) not in records
    }
    header = manifest.get("header", {})
    if not intact(files.place, header):
        header = write_header(static, files, format)
    tasks = ((name, _payload(static, block)) for name, block in missing.items())
    for name, record in run_tasks(
        write_block,
        ((name, (payload, files.place, format, name)) for name, payload in tasks),
        tick,
    ):
        records[name] = record
        if progress is not None:
            progress.add(record["runs"], record["causes"])
    blocks = dict(sorted(records.items()))
    files.remove_unfinished()
    complete = {"mids_store": STORE_VERSION, "header": header, "blocks": blocks}
    if manifest != complete:
        files.write_document("manifest.json", complete)
    for folder in files.names("records"):
        for name in files.names(f"records/{folder}"):
            files.remove(f"records/{folder}/{name}")
        files.remove(f"records/{folder}")
    files.remove("records")


def _manifest(files: NamedFiles, progress: Progress | None) -> dict[str, Any]:
    """Return the manifest of an earlier call; nothing of one that is damaged."""
    try:
        return files.document("manifest.json") or {}
    except FileError as error:
        if progress is not None:
            progress.say(f"{error}: all blocks are simulated again")
        return {}


def _payload(ds: xr.Dataset, block: Block) -> bytes:
    """Return one block of a lazy dataset with its part of the graph, pickled."""
    import cloudpickle
    from dask.base import optimize

    (small,) = optimize(ds.isel(dim=block.dims, run=block.runs))
    payload: bytes = cloudpickle.dumps((small, block))
    return payload
