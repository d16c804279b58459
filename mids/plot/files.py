"""Files that pictures are written to."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError
from .panels import pyplot

__all__ = ["check_format"]


def check_format(path: Path) -> None:
    """Raise an error if no picture can be written to a file of this name.

    Parameters
    ----------
    path : pathlib.Path
        The file; its suffix decides on the format.

    Raises
    ------
    InputError
        If the suffix is unknown.
    MissingDependencyError
        If matplotlib is not installed.

    Examples
    --------
    >>> check_format(Path("ladder.png"))
    """
    pyplot()
    from matplotlib.backend_bases import FigureCanvasBase

    formats = FigureCanvasBase.get_supported_filetypes()
    if path.suffix[1:].lower() not in formats:
        raise InputError(
            f"cannot draw {path}: pictures are {', '.join(sorted(formats))} files; "
            f"name it for example {path.with_suffix('.png')}"
        )
