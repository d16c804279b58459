"""The exception classes of the package.

Every error that a user can cause is a :class:`MidsError`, so ``except mids.errors.MidsError``
catches all of them and nothing else. Each class is also the built-in exception one would
expect (`ValueError`, `OSError`, `ImportError`). Messages quote files, servers and arguments that
cannot be trusted; `printable` makes their text safe for a terminal.
"""

import re

__all__ = [
    "ClusterError",
    "DatasetError",
    "FileError",
    "InputError",
    "MidsError",
    "MissingDependencyError",
    "TargetSyntaxError",
    "printable",
]

LONGEST_MESSAGE = 20_000
PASSWORD = re.compile(r"(?<=://)[^/\s@]*@")


def printable(text: object) -> str:
    r"""Return text without control characters and passwords of URLs; line ends are kept.

    Parameters
    ----------
    text : object
        Whatever is to be printed; its ``str`` is taken.

    Returns
    -------
    str
        At most 20 000 characters, all of which a terminal shows and none of which it obeys.

    Examples
    --------
    >>> printable("title\x1b[31m from http://me:secret@example.org/")
    'title [31m from http://***@example.org/'
    """
    clean = PASSWORD.sub("***@", str(text)[:LONGEST_MESSAGE])
    return "".join(c if c.isprintable() or c == "\n" else " " for c in clean)


class MidsError(Exception):
    """Base class of all errors raised on purpose by this package.

    Examples
    --------
    >>> import mids
    >>> try:
    ...     mids.simulate("h2(z1)", dim=-5)
    ... except mids.errors.MidsError as error:
    ...     print(type(error).__name__)
    InputError
    """

    def __str__(self) -> str:
        """Return the message, safe for a terminal."""
        return printable(super().__str__())


class InputError(MidsError, ValueError):
    """An argument is wrong; the message names it, what is allowed and the remedy.

    Examples
    --------
    >>> import mids
    >>> try:
    ...     mids.simulate("h2(z1)", dim=100, runs=0)
    ... except mids.errors.InputError as error:
    ...     print(error)
    runs must be an integer of at least 1, got 0; pass a whole number such as 1
    """


class TargetSyntaxError(InputError):
    """A target's text cannot be read.

    Parameters
    ----------
    reason : str
        What was found and what is expected instead.
    text : str
        The whole text of the target.
    position : int
        Index into `text` of the offending character (``len(text)`` for its end).

    Examples
    --------
    >>> print(TargetSyntaxError("expected a number, a variable or '('", "h1(z1) + ", 9))
    cannot read the target: expected a number, a variable or '('
      h1(z1) +
               ^
    """

    def __init__(self, reason: str, text: str, position: int) -> None:
        # All three are the exception's args, which is what lets it cross process boundaries.
        super().__init__(reason, text, position)
        self.reason = reason
        self.text = text
        self.position = position

    def __str__(self) -> str:
        """Return the reason, the text around the position and a caret under it."""
        first = max(0, self.position - 50)
        last = self.position + 30
        window = "".join(c if c.isprintable() else " " for c in self.text[first:last])
        before = "..." if first > 0 else ""
        after = "..." if last < len(self.text) else ""
        caret = " " * (len(before) + self.position - first) + "^"
        shown = f"{before}{window}{after}".rstrip()
        return f"cannot read the target: {self.reason}\n  {shown}\n  {caret}"


class DatasetError(MidsError, ValueError):
    """A Dataset lacks something that is needed, or breaks the schema.

    Examples
    --------
    >>> import mids
    >>> try:
    ...     mids.simulate("h2(z1)", dim=100, runs=2).mi.scaling()
    ... except mids.errors.DatasetError as error:
    ...     print(str(error).partition(";")[0])
    scaling needs at least two dimensions along 'dim', but the dataset has 1
    """


class FileError(MidsError, OSError):
    """A file cannot be used: truncated, foreign, of a newer schema, or not writable.

    Examples
    --------
    >>> import mids
    >>> mids.open_dataset("nowhere.nc")
    Traceback (most recent call last):
    mids.errors.FileError: nowhere.nc does not exist; check the path
    """


class ClusterError(MidsError, RuntimeError):
    """Workers or their scheduler cannot be reached, or are lost again and again.

    Examples
    --------
    >>> import mids
    >>> raise mids.errors.ClusterError("no worker came within 60 s; start one")
    Traceback (most recent call last):
    mids.errors.ClusterError: no worker came within 60 s; start one
    """


class MissingDependencyError(MidsError, ImportError):
    """An optional package is not installed; the message gives the command that installs it.

    Examples
    --------
    >>> import mids
    >>> isinstance(mids.errors.MissingDependencyError("plots need matplotlib"), ImportError)
    True
    """
