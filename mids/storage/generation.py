"""Sweeps larger than memory: written block by block where they are simulated, resumed, grown."""

from __future__ import annotations

import os
import threading
import uuid
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from itertools import product
from math import ceil
from typing import Any

import numpy as np
import xarray as xr

from .. import schema, validation
from ..errors import ClusterError, FileError, InputError, MidsError
from ..simulation.progress import cluster_client
from ..simulation.progress import progress as showing
from ..simulation.simulate import from_spec, read_spec
from . import netcdf as io
from .files import sync
from .growth import block_dims, grown, in_layout, lazy_names, state_of
from .store import Location, claimed, digest, read_state, write_state

TEMPORARY = (".partial", ".mids-part")  # names that Zarr and `replacing` give first
OWN = {"lock", "writer", "claims"}  # what a store has before it holds anything
CUT_OFF = ("CancelledError", "FutureCancelledError", "CommClosedError")  # of distributed
FAILED = schema.STATUS.index("failed")


def generate(
    spec: Mapping[str, Any] | str | os.PathLike[str] | xr.Dataset,
    store: str | os.PathLike[str],
    *,
    compact: bool = False,
    progress: bool = True,
) -> xr.Dataset:
    """Simulate a sweep into a store, block by block, and open it.

    A store is one Zarr group. Each block of runs is simulated and written by the threads, processes
    or cluster that dask uses, and marked when it is complete: the memory needed is that of the
    blocks being worked on. Call it again with the same arguments after any interruption: blocks
    whose checksums hold are kept, the others are simulated. With more runs, dims or values of a
    sweep than before, only what is missing is simulated. Where new values bring modes, directions,
    columns of the student or variables, blocks that are there are written again with them, as NaN
    or 0.

    Parameters
    ----------
    spec : mapping, path or Dataset
        Arguments of `mids.simulate` by name; a TOML file of them; or a lazy dataset, such as
        ``mids.simulate(...)[["crossing_time", "status", "recipe"]]``, whose lazy variables all
        begin with the same dims, up to ``run``; it grows if it has the variable ``recipe``.
    store : str or path
        A new folder or one that an earlier call has begun, or a URL that fsspec knows.
    compact : bool
        Round the curves to float32, as in `mids.to_netcdf`.
    progress : bool
        Show progress as `mids.progress` does.

    Returns
    -------
    xarray.Dataset
        What `mids.open_dataset` gives for the store. New dims, runs and values of a sweep come
        after those that were there. Where runs failed, the attribute ``failures`` says how many.

    Raises
    ------
    InputError
        If an argument is wrong, or the store holds another sweep; the message says what differs.
    FileError
        If another process is writing the store, or a block cannot be written, for example because
        the disk is full. What is complete is kept.
    ClusterError
        If the cluster is lost, or workers die again and again.

    Examples
    --------
    >>> import os, tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> store = os.path.join(folder.name, "sweep")
    >>> ds = generate({"target": "h1(z1)", "dim": [100, 1e4], "runs": 20, "chunks": 10}, store)
    >>> ds.loss.dims, ds.chunks["run"]
    (('dim', 'run', 'time'), (10, 10))
    >>> generate({"target": "h1(z1)", "dim": [100, 1e4], "runs": 30}, store).sizes["run"]
    30
    >>> folder.cleanup()
    """
    ds = _lazy(spec, compact)
    location = Location(store)
    location.zarr()  # or say what is not installed
    location.create()
    with claimed(location) as lost:
        before = read_state(location)
        if before is not None:
            # A store keeps the block length of the first call, whatever chunks are asked for now.
            before, ds = grown(location, before, _lazy(spec, compact, before["chunk"]))
        elif any(not name.endswith(TEMPORARY) for name in {*location.names()} - OWN):
            raise InputError(
                f"{location.url} is neither empty nor a store; give a new folder, or empty it"
            )
        try:
            _complete(location, before, ds, progress, lost)
        except (MidsError, OSError) as error:
            kept = (
                f"{len(location.names('blocks'))} blocks are kept in {location.url}; the same call "
                "simulates the others"
            )
            if isinstance(error, MidsError):
                raise type(error)(f"{error}; {kept}") from None
            raise FileError(
                f"cannot write {location.url} ({error}); check permissions and free space; {kept}"
            ) from None
    return io.open_dataset(location.url)


def _lazy(spec: Any, compact: bool, chunk: int | None = None) -> xr.Dataset:
    """Return the lazy dataset that is asked for, cut into the blocks of a store."""
    if isinstance(spec, str | os.PathLike):
        spec = read_spec(spec)
    if isinstance(spec, Mapping) and not isinstance(spec, xr.Dataset):
        ds = from_spec({**spec, "chunks": chunk} if chunk else spec)
    elif isinstance(spec, xr.Dataset):
        ds = spec.unify_chunks()
    else:
        raise InputError(
            f"spec must be a mapping of mids.simulate's arguments, a TOML file or a lazy dataset, "
            f'got {validation.shown(spec)}; pass for example {{"target": "h2(z1)", "dim": [100]}}'
        )
    # What is not cut along the dims of the blocks is written whole, with the header.
    given = {
        name: ds[name].compute()
        for name in ("recipe", "initial")
        if name in ds
        and (name == "recipe" or ds[name].dims[: len(block_dims(ds))] != block_dims(ds))
    }
    ds = ds.assign(given)
    lazy = lazy_names(ds)
    if not lazy or "run" not in ds.chunksizes:
        raise InputError(
            "a store is written from a lazy dataset; write one in memory with mids.to_netcdf, or "
            'chunk it first: ds.chunk({"dim": 1, "run": 1000})'
        )
    along = block_dims(ds)
    for name, variable in ds.data_vars.items():
        if variable.dtype.kind not in "iufb" or (
            name in lazy and variable.dims[: len(along)] != along
        ):
            raise InputError(
                f"a store holds numbers, and its lazy variables begin with the same dims up to "
                f"run, here {along}, but {name} has {variable.dtype} of {variable.dims}; drop or "
                "transpose it"
            )
    if validation.flag(compact, "compact"):
        ds = io.narrowed(ds)
    blocks = dict.fromkeys(along, 1) | {"run": chunk or max(ds.chunksizes["run"])}
    return ds.assign(
        {
            name: ds[name].chunk({dim: blocks.get(str(dim), -1) for dim in ds[name].dims})
            for name in lazy
        }
    )


# -- writing ------------------------------------------------------------------------------------


def _template(ds: xr.Dataset, chunk: int) -> dict[str, bytes]:
    """Return the objects of a Zarr group that has all but the blocks, by name."""
    from zarr.codecs import BloscCodec, Crc32cCodec
    from zarr.errors import ZarrUserWarning
    from zarr.storage import MemoryStore

    # NumPy's text of fixed length is not in Zarr's specification.
    coords = ds.coords.to_dataset().compute().coords.items()
    ds = ds.assign_coords({n: c.astype(object) if c.dtype.kind in "UT" else c for n, c in coords})
    blocks = dict.fromkeys(block_dims(ds), 1) | {"run": chunk}
    encoding = {
        name: {
            "_FillValue": None,  # integers stay integers
            "chunks": tuple(
                blocks.get(str(dim), size) if variable.chunks else max(size, 1)
                for dim, size in variable.sizes.items()
            ),
            # The checksum comes last, so that it covers the bytes as they lie on disk.
            "compressors": (BloscCodec(cname="zstd", clevel=1, shuffle="shuffle"), Crc32cCodec()),
            "chunk_key_encoding": {"name": "default", "separator": "."},
        }
        for name, variable in ds.variables.items()
    }
    objects: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ZarrUserWarning)  # consolidated metadata are an extension
        ds.drop_encoding().to_zarr(
            MemoryStore(objects),
            mode="w",
            compute=False,
            zarr_format=3,
            consolidated=True,
            encoding=encoding,
            # A chunk of nothing but fill values is written, too, for an absent one means lost data.
            write_empty_chunks=True,
        )
    return {name: content.to_bytes() for name, content in objects.items()}


def _complete(
    location: Location,
    before: dict[str, Any] | None,
    ds: xr.Dataset,
    progress: bool,
    lost: threading.Event,
) -> None:
    """Write what is missing of a store; its state says that it is complete once it is."""
    state = state_of(ds)
    sizes, chunk = state["sizes"], state["chunk"]
    if before is not None:
        new = [] if state["layouts"] == before["layouts"][-1:] else state["layouts"]
        state["layouts"] = [*before["layouts"], *new]
    changed = before is None or any(before[name] != state[name] for name in state)
    short = 0 if before is None else before["sizes"]["run"]
    # Marks are removed before the new size is written: after a kill no short block counts as whole.
    if short < sizes["run"] and short % chunk:  # the last blocks along ``run`` become longer
        for name in location.names("blocks"):
            if name.rpartition(".")[2] == str(short // chunk):
                location.remove(f"blocks/{name}")
    # From here on readers refuse the store until all blocks are there.
    if changed:
        write_state(location, {**state, "complete": False})
    template = _template(ds, chunk)
    for name, content in template.items():
        if location.read(name) != content:
            location.write(name, content)
    if location.folder is not None:  # what killed processes had begun to write
        for path in location.folder.rglob("*"):
            if path.suffix in TEMPORARY:
                path.unlink(missing_ok=True)
    # Marked blocks count only if their checksums hold.
    failed = _intact_blocks(location, ds, state)
    lengths = {**dict.fromkeys(sizes, 1), "run": chunk}
    blocks = product(*(range(ceil(size / lengths[name])) for name, size in sizes.items()))
    missing = [block for block in blocks if block not in failed]
    if missing:
        # Something of a finished store was lost: it is unfinished while that is repaired.
        if not changed and before is not None and before["complete"]:
            write_state(location, {**state, "complete": False})
        tasks = _tasks(ds, location.url, chunk, len(state["layouts"]) - 1)
        with showing() if validation.flag(progress, "progress") else nullcontext():
            counts = _computed([tasks[block] for block in missing])
        failed.update(zip(missing, (int(count.item()) for count in counts), strict=True))
    # Suspended for long, this process was taken for dead: the state is now the other's to write.
    if lost.is_set():
        raise FileError(f"another process writes {location.url} now, for this one was suspended")
    state |= {
        "complete": True,
        "header": digest(template["zarr.json"]),
        "failed": sum(failed.values()),
    }
    if before is None or missing or any(before.get(name) != state[name] for name in state):
        write_state(location, state)


def _intact_blocks(
    location: Location, ds: xr.Dataset, state: Mapping[str, Any]
) -> dict[tuple[int, ...], int]:
    """Return the marked blocks that are intact, in the last layout, and how many runs failed."""
    from dask.delayed import delayed

    names = location.names("blocks")
    about = {name: state[name] for name in ("sizes", "chunk", "layouts")}
    about["dims"] = {name: ds[name].dims for name in lazy_names(ds)}
    about["types"] = {name: ds[name].dtype for name in lazy_names(ds)}
    # One task that all blocks share, instead of a copy in each.
    given = delayed(about)
    found = _computed([delayed(_intact_block)(location.url, name, given) for name in names])
    return {
        tuple(map(int, name.split("."))): count
        for name, count in zip(names, found, strict=True)
        if count is not None
    }


def _intact_block(url: str, block: str, about: Mapping[str, Any]) -> int | None:
    """Return how many runs of a block failed if it is intact; write it in the last layout."""
    from .chunks import decoded, intact

    location, along, layouts = Location(url), tuple(about["sizes"]), about["layouts"]
    try:
        mark = [*map(int, (location.read(f"blocks/{block}") or b"").split())]
        # A mark without a layout is of the first one.
        failed, layout = mark if len(mark) > 1 else (*mark, 0)
        there, here = layouts[layout], layouts[-1]
    except (ValueError, IndexError):  # cut off by a loss of power
        return None
    ndim = {name: len(along) + len(shape) for name, shape in there["shapes"].items()}
    keys = _chunk_names(block, ndim, len(along))
    contents = {name: location.read(key) or b"" for name, key in keys.items()}
    if not all(map(intact, contents.values())):
        return None
    if there == here:
        return failed
    *at, last = map(int, block.split("."))
    runs = np.arange(last * about["chunk"], min((last + 1) * about["chunk"], about["sizes"]["run"]))
    types = about["types"]
    try:
        arrays = {
            name: decoded(content, types[name], (about["chunk"], *there["shapes"][name]))
            for name, content in contents.items()
        }
    except ValueError:  # one is in another layout: a process was killed that changed it
        return None
    moved = in_layout({name: array[: len(runs)] for name, array in arrays.items()}, there, here)
    values = (moved[n].astype(types[n])[(np.newaxis,) * len(at)] for n in moved)
    written = _write(
        *(np.array([k]) for k in at),
        runs,
        *values,
        url=url,
        chunk=about["chunk"],
        layout=len(layouts) - 1,
        along=along,
        dims=about["dims"],
    )
    return int(written.item())


def _chunk_names(block: str, ndim: Mapping[str, int], along: int) -> dict[str, str]:
    return {name: f"{name}/c.{block}{'.0' * (n - along)}" for name, n in ndim.items()}


def _tasks(ds: xr.Dataset, url: str, chunk: int, layout: int) -> np.ndarray:
    """Return one task for each block, which writes it and returns how many of its runs failed."""
    import dask.array as da

    along, names = block_dims(ds), lazy_names(ds)
    arguments: list[Any] = []
    # Positions travel beside the values: from them a task knows where its block lies.
    for name in along:
        positions = da.arange(ds.sizes[name], chunks=chunk if name == "run" else 1, dtype=np.int64)
        arguments += [positions, (name,)]
    for name in names:
        arguments += [ds[name].data, ds[name].dims]
    written = da.blockwise(
        _write,
        along,
        *arguments,
        # A new name for every call: a cluster must not take an earlier write for this one.
        name=f"write-{uuid.uuid4().hex}",
        dtype=np.int64,
        meta=np.empty((0,) * len(along), dtype=np.int64),
        adjust_chunks=dict.fromkeys(along, 1),
        concatenate=True,
        align_arrays=False,
        url=url,
        chunk=chunk,
        layout=layout,
        along=along,
        dims={name: ds[name].dims for name in names},
    )
    tasks: np.ndarray = written.to_delayed()
    return tasks


def _write(
    *arrays: np.ndarray,
    url: str,
    chunk: int,
    layout: int,
    along: tuple[str, ...],
    dims: Mapping[str, Any],
) -> np.ndarray:
    """Write a block of all variables, then its mark; arrays: positions along each dim, values."""
    location = Location(url)
    at = arrays[: len(along)]
    ds = xr.Dataset({n: (dims[n], v) for n, v in zip(dims, arrays[len(along) :], strict=True)})
    region = {name: slice(int(p[0]), int(p[-1]) + 1) for name, p in zip(along, at, strict=True)}
    block = ".".join(str(s.start // (chunk if n == "run" else 1)) for n, s in region.items())
    ds.to_zarr(
        location.zarr(), region=region, zarr_format=3, consolidated=True, write_empty_chunks=True
    )
    # The mark must not reach the disk before the chunks for which it vouches.
    if location.folder is not None:
        ndim = {name: len(dims[name]) for name in dims}
        for name in _chunk_names(block, ndim, len(along)).values():
            sync(location.folder / name)
            sync((location.folder / name).parent)
    failed = int((ds["status"] == FAILED).sum()) if "status" in ds else 0
    location.write(f"blocks/{block}", f"{failed} {layout}".encode())
    return np.full((1,) * len(along), failed)


def _computed(tasks: list[Any]) -> tuple[Any, ...]:
    """Compute tasks where dask computes; what happens to a cluster is a ClusterError."""
    from dask.base import compute

    try:
        found: tuple[Any, ...] = compute(*tasks)
        return found
    except MidsError:
        raise
    except Exception as error:
        kind = type(error).__name__  # of an optional package
        if kind == "KilledWorker":
            raise ClusterError(
                "a block has lost its worker again and again; give the workers more memory, or "
                "use fewer runs in a task (chunks=...)"
            ) from None
        if cluster_client() and kind in CUT_OFF:
            raise ClusterError(f"the workers are gone ({error})") from None
        raise
