"""Pictures of datasets and of their analyses; nothing is analysed here.

Every function returns the array of axes, shape (rows, columns), raises `mids.errors.DatasetError`
where the dataset lacks what is drawn, and `mids.errors.InputError` where an argument or the layout
does not fit it. All of them take these keywords, which mean what they mean in xarray's plots:

row, col : str
    Dims that change from panel to panel, downwards and to the right; any dim of a sweep will do.
    Dims that a picture has no room for take what is free, first `row`, then `col`, then `hue`.
col_wrap : int
    Number of columns, where `col` alone divides the figure.
hue : str
    Dim that changes from colour to colour within a panel.
ax : Axes
    Draw the only panel here. `axes`, an iterable, has one for each panel.
figsize : (float, float)
    Width and height of the figure in inches.
size, aspect : float
    Height of a panel in inches, and its width divided by its height; instead of `figsize`.
xlim : (float, float)
    Ends of the horizontal axis.

Colours fall in lightness and lines differ in dashes, points in markers, so that the pictures can be
printed in grey. Light grey lines are always runs, the black one the run closest to their median,
yellow its plateaus, and red the theory. Where an escape falls between two times of the grid, lines
pass through the exact times at which overlaps are 0.1, 0.5 and 0.9; a loss changes there as the
overlaps do.
"""

from .analyses import escape_times, exponents, success, timescales, traps
from .layout import check_format
from .trajectories import animate, loss, modes, overlap, phase

__all__ = [
    "animate",
    "check_format",
    "escape_times",
    "exponents",
    "loss",
    "modes",
    "overlap",
    "phase",
    "success",
    "timescales",
    "traps",
]
