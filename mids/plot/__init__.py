"""Pictures of datasets and of their analyses; nothing is analysed here.

Every function makes a figure, or draws into the axes it is given, and returns the array of axes,
shape (rows, columns). Dimensions that a picture has no room for become panels: ``row`` and ``col``
say which, as in xarray's own plots, and what they leave open takes the free one. Colours fall in
lightness and lines differ in dashes, points in markers, so that the pictures read in grey.
"""

from .files import check_format
from .flows import against
from .outcomes import traps
from .phase import phase
from .success import success
from .times import escape_times, timescales
from .trajectories import loss, modes, overlap

__all__ = [
    "against",
    "check_format",
    "escape_times",
    "loss",
    "modes",
    "overlap",
    "phase",
    "success",
    "timescales",
    "traps",
]
