"""What a terminal sees: one line for a failure, bars only where someone watches."""

from __future__ import annotations

import errno
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import click

__all__ = ["Failure", "Stopped", "in_one_line", "shows_bars"]

_REASONS = {
    errno.EACCES: "permission denied; check its permissions, or choose another path",
    errno.EEXIST: "exists already and is not a folder; choose another path",
    errno.EISDIR: "is a folder; expected a file",
    errno.ENAMETOOLONG: "the name is too long for a file",
    errno.ENOENT: "no such file or folder",
    errno.ENOSPC: "no space is left there; choose another path",
    errno.ENOTDIR: "a part of this path is a file; expected folders",
    errno.EPERM: "not permitted; choose another path",
    errno.EROFS: "cannot be written to; choose another path",
}


class Failure(click.ClickException):
    """Bad input: one clear line and exit code 2."""

    exit_code = 2

    def format_message(self) -> str:
        """The message without line breaks."""
        return " ".join(self.message.split())


class Stopped(Failure):
    """The user pressed Ctrl-C: a line that is no error, and the exit code of the signal."""

    exit_code = 128 + 2

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the message alone."""
        click.echo(self.format_message(), file=file, err=file is None)


@contextmanager
def in_one_line() -> Iterator[None]:
    """Turn what bad input raises into a :class:`Failure`, and warnings into lines."""
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            yield
        except getattr(click.exceptions, "NoArgsIsHelpError", ()):
            raise  # click 8.2 and newer: the help
        except click.UsageError as error:
            raise Failure(_usage(error)) from error
        except BrokenPipeError:
            raise  # click ends quietly, as a filter should
        except KeyboardInterrupt as error:
            raise Stopped("stopped") from error
        except MemoryError as error:
            raise Failure(f"not enough memory ({error})") from error
        except (ValueError, TypeError, OSError, ImportError) as error:
            raise Failure(_message(error)) from error


def shows_bars(quiet: bool) -> bool:
    """Whether to draw progress bars: not when asked to be quiet, nor into a file or a pipe."""
    return not quiet and sys.stderr.isatty()


def _usage(error: click.UsageError) -> str:
    where = f" (see: {error.ctx.command_path} --help)" if error.ctx else ""
    return error.format_message().rstrip(".") + where


def _message(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno and error.filename:
        return f"{error.filename}: {_REASONS.get(error.errno, error.strerror)}"
    return str(error) or type(error).__name__


def _show_warning(message: Warning | str, *_where: Any, **_more: Any) -> None:
    click.echo(f"Warning: {' '.join(str(message).split())}", err=True)
