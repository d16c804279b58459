"""Functions of one recipe at a time on datasets of several, by run or, where lazy, by block."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from ..errors import DatasetError
from .joining import FILLS, joined, padded
from .recipe import Recipe, recipes_of, uniform_axes_cut

Kernel = Callable[[xr.Dataset, Recipe], xr.Dataset]
Dims = tuple[Hashable, ...]
OF_A_TARGET = ("direction", "axis", "axis_t", "saddle")


def by_recipe(
    ds: xr.Dataset,
    kernel: Kernel,
    *,
    of: tuple[str, ...] = ("flow", "student_rank", "initial"),
    over: tuple[str, ...] = (),
    lazy: bool = False,
) -> xr.Dataset:
    """Apply a function to the runs of one recipe after the other, and join what it returns.

    The function gets a dataset whose runs agree in the target and the parts `of` the recipe, the
    only ones that its second argument has, without the padding that larger targets need. `over`
    names dims that it reduces, along which these parts must not vary. On a lazy dataset it is
    called block by block, unless it is `lazy` itself.
    """
    cells, recipes = recipes_of(ds, of)
    if lazy or all(a.chunks is None for name, a in ds.data_vars.items() if name != "recipe"):
        return _apply(ds, cells, recipes, kernel, over)
    _check_over(cells, over)
    return _by_block(ds, cells, recipes, kernel, over)


def _apply(
    ds: xr.Dataset,
    cells: xr.Variable,
    recipes: Sequence[Recipe],
    kernel: Kernel,
    over: tuple[str, ...],
) -> xr.Dataset:
    if not cells.ndim:
        recipe = recipes[int(cells)]
        return kernel(trimmed(ds, recipe.target, recipe.student_rank), recipe)
    _check_over(cells, over)
    dim, size = cells.dims[0], cells.shape[0]
    # Split along the first dim on which recipes vary; the recursion splits the others.
    rows = cells.values.reshape(size, -1)
    masked = (rows < 0).all(axis=1)
    found, group = np.unique(rows[~masked], axis=0, return_inverse=True)
    parts, taken = [], []
    for code in range(len(found)):
        at = np.flatnonzero(~masked)[group.ravel() == code]
        # The rows of a group are equal, so the first stands for all.
        inner = uniform_axes_cut(cells.isel({dim: at[0]}))
        part = _apply(ds.isel({dim: _slice(at)}), inner, recipes, kernel, over)
        # What a kernel gives once for a recipe is repeated for each of its runs to be joined.
        without = [name for name, array in part.data_vars.items() if dim not in array.dims]
        parts.append(
            part.assign({name: part[name].expand_dims({dim: len(at)}) for name in without})
        )
        taken += at.tolist()
    out = joined(parts, dim) if len(parts) > 1 else parts[0]
    # Groups were joined one after the other: back to the order of the dataset.
    if taken != [*range(size)]:
        position = np.zeros(size, dtype=np.int64)  # of the masked: any
        position[taken] = np.arange(len(taken))
        out = out.isel({dim: position})
        if dim in ds.coords:
            out = out.assign_coords(ds[[dim]].coords)
    # So far masked runs have the numbers of another run.
    if masked.any():
        there = xr.DataArray(~masked, dims=[dim])
        for name, array in out.data_vars.items():
            fill = FILLS.get(array.dtype.kind, np.nan)
            out[name] = array.where(there, fill).assign_attrs(array.attrs)
    return out


def _check_over(cells: xr.Variable, over: tuple[str, ...]) -> None:
    for dim in cells.dims:
        if dim in over:
            raise DatasetError(
                f"runs with different targets or flows are joined along {dim!r}, over which this "
                "is computed; join them along a dim of their own: mids.concat([...], dim='target')"
            )


def _slice(at: np.ndarray) -> Any:
    """Positions as a slice where they follow each other, which keeps chunks."""
    if len(at) == at[-1] - at[0] + 1:
        return slice(int(at[0]), int(at[-1]) + 1)
    return at


def trimmed(ds: xr.Dataset, target: Any, student_rank: int | None) -> xr.Dataset:
    """Return a dataset without the padding along directions and modes that a target lacks."""
    cut: dict[str, Any] = {
        dim: slice(target.rank) for dim in OF_A_TARGET if ds.sizes.get(dim, 0) > target.rank
    }
    if student_rank is not None and ds.sizes.get("student", 0) > student_rank:
        cut["student"] = slice(student_rank)
    if ds.sizes.get("mode", 0) > len(target.modes) and "mode" in ds.indexes:
        cut["mode"] = np.flatnonzero(np.isin(ds["mode"].values, target.labels))
    return ds.isel(cut) if cut else ds


# -- lazy datasets ------------------------------------------------------------------------------


def _by_block(
    ds: xr.Dataset,
    cells: xr.Variable,
    recipes: Sequence[Recipe],
    kernel: Kernel,
    over: tuple[str, ...],
) -> xr.Dataset:
    """Apply a kernel with one task for each block of runs."""
    import dask.array as da
    from dask.base import annotate, tokenize

    data = ds.drop_vars("recipe")
    used = {*cells.dims, *(dim for array in data.data_vars.values() for dim in array.dims)} - {
        *over
    }
    blocked = [dim for dim in ds["recipe"].dims if dim in used]
    # A task has all of a run, and all along the dims that the kernel reduces.
    data = data.chunk({dim: -1 for dim in data.chunksizes if dim not in blocked})
    # Arrays are not aligned by blockwise below, so their blocks have to agree here.
    chunks = data.unify_chunks().chunksizes
    data = data.chunk({dim: chunks.get(dim, -1) for dim in data.dims})
    coords = {n: c.variable for n, c in data.coords.items() if not set(c.dims) & set(blocked)}
    # What a kernel returns has its shape and attributes before anything is computed.
    unknown = [_of_unknown(data, coords, blocked, recipe, kernel) for recipe in recipes]
    like = joined(unknown, "recipe") if len(unknown) > 1 else unknown[0]
    like = like.isel(dict.fromkeys(["recipe", *blocked], 0), missing_dims="ignore", drop=True)
    # A result keeps a dim of the runs only if recipes differ along it or the kernel returned it.
    kept = {
        name: [dim for dim in blocked if dim in cells.dims or dim in unknown[0][name].dims]
        for name in like.data_vars
    }
    # dask names axes by letters or numbers; those that variables have of their own come after.
    letters = {dim: at for at, dim in enumerate(dict.fromkeys([*blocked, *data.dims]))}
    arrays = {name: array.variable for name, array in data.data_vars.items()}
    inputs: list[Any] = [x for v in arrays.values() for x in (v.data, [letters[d] for d in v.dims])]
    of_cells = tuple(chunks.get(dim, (data.sizes[dim],)) for dim in cells.dims)
    # Recipes are hashed as text, which is the same in every process.
    said = [(recipe.target.to_dict(), repr(recipe)) for recipe in recipes]
    token = tokenize(kernel, over, said, cells.values, [array.name for array in inputs[::2]])
    # The annotation keeps what several variables need out of reach of dask's fusion.
    with annotate(mids="analysis"):
        results = da.blockwise(
            _of_block,
            [letters[dim] for dim in blocked],
            da.from_array(cells.values, of_cells, name=f"cells-{token}"),
            [letters[dim] for dim in cells.dims],
            *inputs,
            name=f"by-recipe-{token}",
            dtype=object,
            meta=np.empty((0,) * len(blocked), dtype=object),
            concatenate=True,
            align_arrays=False,
            along=cells.dims,
            dims={name: variable.dims for name, variable in arrays.items()},
            coords=coords,
            recipes=recipes,
            kernel=kernel,
            over=over,
            like=like,
            kept=kept,
        )
    out = {}
    for name, variable in like.data_vars.items():
        # A result is the same in all blocks along a dim that it lacks: take the first.
        first = tuple(slice(None) if dim in kept[name] else 0 for dim in blocked)
        own = {len(letters) + at: size for at, size in enumerate(variable.shape)}
        array = da.blockwise(
            _pick,
            [*(letters[dim] for dim in kept[name]), *own],
            results if len(kept[name]) == len(blocked) else results.blocks[first],
            [letters[dim] for dim in blocked],
            new_axes=own,
            name=f"{name}-{token}",
            dtype=variable.dtype,
            meta=np.empty((0,) * (len(kept[name]) + len(own)), dtype=variable.dtype),
            align_arrays=False,
            variable=name,
        )
        out[name] = xr.Variable([*kept[name], *variable.dims], array, variable.attrs)
    labels = ds.coords.to_dataset()
    labels = labels.drop_vars(
        [n for n, c in labels.variables.items() if not {*c.dims} <= {*blocked}]
    )
    found = xr.Dataset(out, labels.coords, like.attrs)
    return found.assign_coords({n: c for n, c in like.coords.items() if n not in found.coords})


def _of_unknown(
    data: xr.Dataset,
    coords: Mapping[Hashable, xr.Variable],
    blocked: Sequence[Hashable],
    recipe: Recipe,
    kernel: Kernel,
) -> xr.Dataset:
    """Return what a kernel makes of one run of which nothing is known."""
    one = {*blocked, "run"}
    part = xr.Dataset(
        {
            name: xr.Variable(
                array.dims,
                np.full(
                    [1 if dim in one else size for dim, size in array.sizes.items()],
                    FILLS.get(array.dtype.kind, np.nan),
                    array.dtype,
                ),
            )
            for name, array in data.data_vars.items()
        },
        {n: v.isel(run=slice(1)) if "run" in v.dims else v for n, v in coords.items()},
        data.attrs,
    )
    return kernel(trimmed(part, recipe.target, recipe.student_rank), recipe)


def _of_block(
    codes: np.ndarray,
    *arrays: np.ndarray,
    along: Dims,
    dims: Mapping[Hashable, Dims],
    coords: Mapping[Hashable, xr.Variable],
    recipes: Sequence[Recipe],
    kernel: Kernel,
    over: tuple[str, ...],
    like: xr.Dataset,
    kept: Mapping[Hashable, list[Hashable]],
) -> dict[Hashable, np.ndarray]:
    """Apply a kernel to a block of runs; variables in the shapes of the whole."""
    part = xr.Dataset(dict(zip(dims, zip(dims.values(), arrays, strict=True), strict=True)), coords)
    # Masked runs have no recipe to compute with.
    if codes.size and (codes < 0).all():
        found = like
    else:
        cells = uniform_axes_cut(xr.Variable(along, codes))
        found = _apply(part, cells, recipes, kernel, over)
    # Targets of lower rank or fewer modes have shorter axes than the whole.
    if any(found.sizes.get(dim) != size for dim, size in like.sizes.items()):
        found = padded([like, found], "")[1]
    out = {}
    for name, whole in like.data_vars.items():
        sizes = {dim: part.sizes[dim] for dim in kept[name]} | dict(whole.sizes)
        array = found[name].variable.set_dims(sizes).transpose(*sizes)
        out[name] = np.array(array.values, dtype=whole.dtype)
    return out


def _pick(block: Any, *, variable: Hashable) -> np.ndarray:
    """Return a variable of a block."""
    # dask passes the axes that a result lacks as nested lists of one block.
    while isinstance(block, list):
        block = block[0]
    array: np.ndarray = block[variable]
    return array
