"""A catalog as an object: search, open, add, remove, verify, merge."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from .. import schema, validation
from ..errors import FileError, InputError
from ..simulation.recipe import held
from ..storage import foreign
from ..storage import netcdf as io
from ..storage.files import sync
from ..targets.ladder import leaps
from ..targets.target import Target
from . import table
from .folder import Folder, describe
from .index import Entry, check_key, suggest_key, unknown_key
from .remote import Remote, is_url
from .verify import Verification, equal, verify


def open_catalog(
    path: str | os.PathLike[str],
    *,
    create: bool = False,
    cache: str | os.PathLike[str] | None = None,
) -> Catalog:
    """Open a catalog: a folder, or one behind http(s).

    Opening reads the index only and executes nothing. Datasets are opened when asked for, once
    their size and checksum are those of the index.

    Parameters
    ----------
    path : str or path
        The folder, or a URL that begins with ``http://`` or ``https://``.
    create : bool
        Start an empty catalog if the folder has none.
    cache : str or path, optional
        Where files from a URL are kept; by default the user's cache folder, or that of the
        environment variable ``MIDS_CACHE``.

    Returns
    -------
    Catalog

    Raises
    ------
    FileError
        If there is no catalog, its index is damaged, or the server does not answer.
    MissingDependencyError
        If a URL is given and pooch is not installed.

    Examples
    --------
    >>> import mids, tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> catalog = open_catalog(folder.name, create=True)
    >>> catalog.add(mids.simulate("h2(z1)", dim=[100, 1000], runs=4), key="s2")
    's2'
    >>> list(catalog.search(information_exponent=2, dims=slice(500, None)))
    ['s2']
    >>> with catalog["s2"] as ds:
    ...     ds.mi.target
    <Target of rank 1, degree 2, norm 1: h2(z1)>
    >>> folder.cleanup()
    """
    create = validation.flag(create, "create")
    if is_url(path):
        if create:
            raise InputError(f"cannot create a catalog at {path}; make it in a folder and copy it")
        return Catalog(Remote(os.fspath(path), cache))
    folder = Folder(path)
    if create:
        folder.create()
    # An index that is missing or damaged is an error now, not at the first dataset.
    folder.entries()
    folder.recover()
    return Catalog(folder)


def reindex(path: str | os.PathLike[str]) -> Catalog:
    """Make the index of a folder from its files ``data/*.nc`` alone.

    Parameters
    ----------
    path : str or path
        The folder of the catalog; an index that is there is not read but for what an interrupted
        change left unfinished.

    Returns
    -------
    Catalog

    Raises
    ------
    FileError
        If files in it are no datasets; all are named, and the index stays as it was.

    Examples
    --------
    >>> import mids, tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> mids.open_catalog(folder.name, create=True).add(
    ...     mids.simulate("h2(z1)", dim=100, runs=4), key="s2"
    ... )
    's2'
    >>> list(reindex(folder.name))
    ['s2']
    >>> folder.cleanup()
    """
    folder = Folder(path)
    folder.reindex()
    return Catalog(folder)


class Catalog(Mapping[str, xr.Dataset]):
    """Datasets by key, in a folder or behind a URL; `mids.open_catalog` opens one.

    ``catalog[key]`` is a lazy Dataset, to be closed or used in a ``with`` statement;
    ``xarray.DataTree.from_dict(catalog)`` is a tree of all. In a folder, every access sees what
    others have added or removed in the meantime; of a URL, the index is the one that was there when
    the catalog was opened. Methods that change it raise InputError where it is behind a URL.

    Notes
    -----
    The methods have these arguments:

    key, keys : str
        Names of datasets; InputError if there is none of this name.
    chunks : int, mapping, "auto" or None
        As in `mids.open_dataset`.
    ds : xarray.Dataset
        A dataset of the schema, lazy or not.
    overwrite : bool
        Whether to replace a dataset of this key.
    other : Catalog, str or path
        A catalog, a selection of one, or where it is.

    Examples
    --------
    >>> import mids, tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> catalog = open_catalog(folder.name, create=True)
    >>> catalog.add(mids.simulate("h2(z1)", dim=100, runs=4), key="s2")
    's2'
    >>> catalog.to_dataframe().loc["s2", "target"], "s2" in catalog, catalog.verify().ok
    ('h2(z1)', True, True)
    >>> catalog.remove("s2")
    >>> len(catalog)
    0
    >>> folder.cleanup()
    """

    def __init__(self, source: Folder | Remote, keys: frozenset[str] | None = None) -> None:
        self._source = source
        self._keys = keys

    # -- reading --------------------------------------------------------------------------------

    @property
    def location(self) -> str:
        """The folder or the URL.

        Examples
        --------
        >>> import mids, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     mids.open_catalog(f"{folder}/mine", create=True).location.endswith("mine")
        True
        """
        return str(self._source.root)

    @property
    def entries(self) -> dict[str, Entry]:
        """Rows of the index by key, sorted.

        Examples
        --------
        >>> import mids, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     mids.open_catalog(folder, create=True).entries
        {}
        """
        found, keys = self._source.entries(), self._keys
        return {key: entry for key, entry in found.items() if keys is None or key in keys}

    def to_dataframe(self) -> pd.DataFrame:
        """Return the index as a table, one row for each dataset, with the keys as index.

        Returns
        -------
        pandas.DataFrame

        Examples
        --------
        >>> import mids, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     catalog = mids.open_catalog(folder, create=True)
        ...     key = catalog.add(mids.simulate("h2(z1)", dim=100, runs=2))
        ...     catalog.to_dataframe()[["target", "runs"]].values.tolist()
        [['h2(z1)', 2]]
        """
        return table.frame(self.entries.values())

    def search(self, *, scaled: bool = False, **conditions: object) -> Catalog:
        """Select the datasets that meet all conditions.

        Parameters
        ----------
        scaled : bool
            Whether multiples of a target that is searched for count, too.
        **conditions
            By column of the index (`to_dataframe`): a value; a text in which ``*`` stands for
            anything; a range ``slice(lowest, highest)``, both included, with None for no bound; or
            a list of alternatives. A column of several numbers, ``dims`` or ``leaps``, matches if
            one of them does, and a tuple, ``leaps=(1, 3)``, if all of them are these in this order.
            ``target`` and ``flow`` match if one of those of a sweep does.
            ``target`` may be a `Target`, which is compared by its function, not by its name.

        Returns
        -------
        Catalog
            To read from; its `add`, `remove` and `merge` are those of the whole catalog.

        Raises
        ------
        InputError
            If a column is unknown or a condition makes no sense for it.

        Examples
        --------
        >>> import mids, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     catalog = mids.open_catalog(folder, create=True)
        ...     for target in ("h2(z1)", "h3(z1)"):
        ...         key = catalog.add(mids.simulate(target, dim=100, runs=2), key=target[:2])
        ...     list(catalog.search(target="h3*")), len(catalog.search(rank=slice(1, 2), runs=2))
        (['h3'], 2)
        """
        given = conditions.get("target")
        target = given if isinstance(given, Target) else None
        meets = table.query(
            {n: c for n, c in conditions.items() if n != "target" or target is None}
        )
        found = [key for key, entry in self.entries.items() if meets(entry)]
        if target is not None:
            # The index tells most of the others apart without opening their files.
            steps = leaps(target).steps if len(target.modes) else ()
            # Sweeps over targets have no ladder in the index, so their files have to be opened.
            exponents = ((), tuple(step.exponent for step in steps))
            found = [
                key
                for key in found
                if self.entries[key].leaps in exponents
                and any(table.same_function(target, one, scaled) for one in self._targets(key))
            ]
        return Catalog(self._source, frozenset(found))

    def _targets(self, key: str) -> list[Target]:
        """Targets of a dataset, by the recipes in its file."""
        with self[key] as ds:
            return [Target.from_dict(recipe["target"]) for recipe in held(ds)]

    def open(self, key: str, *, chunks: int | Mapping[Any, Any] | str | None = None) -> xr.Dataset:
        """Open a dataset, to be closed with its method ``close`` or used in a ``with`` statement.

        Raises
        ------
        FileError
            If the file is missing, damaged, or not the one that the index means.

        Examples
        --------
        >>> import mids, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     catalog = mids.open_catalog(folder, create=True)
        ...     key = catalog.add(mids.simulate("h2(z1)", dim=100, runs=2))
        ...     with catalog.open(key) as ds:
        ...         ds.sizes["run"]
        2
        """
        return io.open_dataset(self.path(key), chunks=chunks)

    def path(self, key: str) -> Path:
        """Return the file of a dataset on this machine, checked and safe to open; errors as `open`.

        Examples
        --------
        >>> import mids, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     catalog = mids.open_catalog(folder, create=True)
        ...     key = catalog.add(mids.simulate("h2(z1)", dim=100, runs=2))
        ...     catalog.path(key).suffix
        '.nc'
        """
        entry = self._entry(key)
        try:
            path = self._source.file(entry)
        except FileError:
            if self._entry(key) == entry:
                raise
            return self.path(key)  # replaced in the meantime
        foreign.check(path, entry.sha256)
        return path

    def _entry(self, key: str) -> Entry:
        entries = self.entries
        if key not in entries:
            raise unknown_key(self.location, key, entries)
        return entries[key]

    def __getitem__(self, key: str) -> xr.Dataset:
        return self.open(key, chunks={})

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __contains__(self, key: object) -> bool:
        return key in self.entries

    def __repr__(self) -> str:
        return table.text(self.location, self.entries.values())

    def _repr_html_(self) -> str:
        return table.html(self.location, self.entries.values())

    # -- writing --------------------------------------------------------------------------------

    def add(self, ds: xr.Dataset, *, key: str | None = None, overwrite: bool = False) -> str:
        """Add a dataset, as a compact file; return its key, made of target and flow if not given.

        Raises
        ------
        InputError
            If the key is taken or cannot be a file name.
        DatasetError
            If the dataset breaks the schema.
        FileError
            If the folder cannot be written.

        Examples
        --------
        >>> import mids, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     catalog = mids.open_catalog(folder, create=True)
        ...     catalog.add(mids.simulate("h2(z1)", dim=100, runs=2), key="square")
        'square'
        """
        folder = self._folder("add to")
        overwrite = validation.flag(overwrite, "overwrite")
        validation.dataset(ds)
        schema.validate(ds)
        name = check_key(key) if key is not None else suggest_key(ds)
        # Before anything is computed: can the index describe this dataset at all?
        Entry.of(name, ds)
        if not overwrite:
            folder.check_free(folder.entries(), name)
        with folder.workshop() as workshop:
            file = workshop / "new.nc"
            io.to_netcdf(ds, file, compact=True)
            sha256 = foreign.checksum(file)
            # This process has just written the file, so no other need read it first.
            foreign.vouch(sha256)
            with io.open_dataset(file) as written:
                entry = Entry.of(name, written, sha256=sha256, size=file.stat().st_size)

            def put(entries: dict[str, Entry]) -> Mapping[Path, Entry]:
                # Again, under the lock: another writer may have taken the key in the meantime.
                if not overwrite:
                    folder.check_free(entries, name)
                entries[name] = entry
                return {file: entry}

            folder.change(put)
        return name

    def remove(self, *keys: str) -> None:
        """Remove datasets and their files, all of them or, after an error, none.

        Examples
        --------
        >>> import mids, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     catalog = mids.open_catalog(folder, create=True)
        ...     catalog.remove(catalog.add(mids.simulate("h2(z1)", dim=100, runs=2)))
        ...     len(catalog)
        0
        """

        def drop(entries: dict[str, Entry]) -> Mapping[Path, Entry]:
            for key in dict.fromkeys(keys):
                if entries.pop(key, None) is None:
                    raise unknown_key(self.location, key, self.entries)
            return {}

        self._folder("remove from").change(drop)

    def merge(self, other: Catalog | str | os.PathLike[str]) -> list[str]:
        """Take over the datasets of another catalog, all of them or, after an error, none.

        Return the keys that are new here. Datasets that both have, equal in all variables and in
        how they were made, stay as they are here.

        Raises
        ------
        InputError
            If a key has different content in the two; the message lists all such keys.
        FileError
            If a file of `other` is damaged.

        Examples
        --------
        >>> import mids, tempfile
        >>> with tempfile.TemporaryDirectory() as ours, tempfile.TemporaryDirectory() as theirs:
        ...     other = mids.open_catalog(theirs, create=True)
        ...     key = other.add(mids.simulate("h2(z1)", dim=100, runs=2), key="square")
        ...     mids.open_catalog(ours, create=True).merge(other)
        ['square']
        """
        folder = self._folder("merge into")
        other = other if isinstance(other, Catalog) else open_catalog(other)
        # Foreign files are checked and described before the lock is taken.
        paths = {key: other.path(key) for key in other.entries}
        new = {key: describe(path, key) for key, path in paths.items()}
        added: list[str] = []
        with folder.workshop() as workshop:
            copies = {
                key: Path(shutil.copyfile(path, workshop / f"{key}.nc"))
                for key, path in paths.items()
            }
            # The index must name only files that are whole on disk.
            for path in copies.values():
                sync(path)

            def join(entries: dict[str, Entry]) -> Mapping[Path, Entry]:
                conflicts = [
                    key
                    for key in new.keys() & entries.keys()
                    if entries[key].sha256 != new[key].sha256
                    and not equal(folder.file(entries[key]), copies[key])
                ]
                if conflicts:
                    raise InputError(
                        f"{folder.root} and {other.location} have different datasets of the same "
                        f"key: {', '.join(sorted(conflicts))}; nothing was merged; remove them "
                        "from one, or add them under another key"
                    )
                added.extend(key for key in new if key not in entries)
                for key in added:
                    folder.check_free(entries, key)
                    # Catalogs of 0.1 name files by key alone: here each gets a name of its own.
                    path = Entry.path_of(key, new[key].sha256)
                    entries[key] = dataclasses.replace(new[key], path=path)
                return {copies[key]: entries[key] for key in added}

            folder.change(join)
        return added

    def verify(
        self, *, replay: int = 1, progress: Callable[[str], None] | None = None
    ) -> Verification:
        """Check files, schema and index, and simulate a sample of runs again.

        Parameters
        ----------
        replay : int
            Runs of each dataset that are simulated again, spread over its dimensions; 0 for none.
            A run that would take more than a minute is not.
        progress : callable, optional
            Called with each key before its turn.

        Returns
        -------
        Verification

        Examples
        --------
        >>> import mids, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     catalog = mids.open_catalog(folder, create=True)
        ...     key = catalog.add(mids.simulate("h2(z1)", dim=100, runs=2))
        ...     catalog.verify().ok
        True
        """
        replay = validation.integer(replay, "replay", at_least=0)
        source = self._source
        strays = source.strays() if isinstance(source, Folder) and self._keys is None else []
        return verify(self.entries, self.path, strays, replay=replay, progress=progress)

    def _folder(self, verb: str) -> Folder:
        if not isinstance(self._source, Folder):
            raise InputError(
                f"cannot {verb} {self.location}: it is behind a URL; merge it into a folder with "
                "mids.open_catalog(folder, create=True).merge(url)"
            )
        return self._source
