"""Reading arguments; errors of the package as one line and exit code 2."""

from __future__ import annotations

from typing import Any

import click

from ..errors import InputError, MidsError, TargetSyntaxError

__all__ = ["Main", "UserError", "numbers"]


class UserError(click.ClickException):
    """A user's mistake: one line, exit code 2."""

    exit_code = 2


class Main(click.Group):
    """A group of commands that reports the package's errors without traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a user's mistake ends with one line."""
        try:
            return super().invoke(ctx)
        except TargetSyntaxError as error:
            raise UserError(
                f"cannot read the target: {error.reason}, at character {error.position + 1} of "
                f"{error.text!r}"
            ) from None
        except MidsError as error:
            raise UserError(" ".join(str(error).split())) from None


def numbers(text: str, name: str) -> list[float]:
    """Read numbers with commas between them; `name` is the option that gave them."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(
            f"{name} must be numbers with commas between them, got {text!r}; "
            f"pass for example {name} 1e2,1e4,1e6"
        ) from None
