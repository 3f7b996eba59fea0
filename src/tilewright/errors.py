"""Errors a user can meet. Each class is one kind of failure and knows its exit code."""

from __future__ import annotations


class TilewrightError(Exception):
    """Base of all errors that are shown to the user as one sentence, without a traceback."""

    exit_code = 1


class UsageError(TilewrightError):
    """The request itself is wrong: an unknown name, a value out of range."""

    exit_code = 2


class Unavailable(TilewrightError):
    """It could not be decided or done on this machine; the message says why and what would help."""

    exit_code = 3


class Refused(TilewrightError):
    """A backend declines a case it does not implement; the message is the reason `list` shows."""

    exit_code = 3


class CheckFailed(TilewrightError):
    """An output disagrees with the reference."""

    exit_code = 1


class VerificationFailed(TilewrightError):
    """A bundle is not what its manifest says."""

    exit_code = 1


class BuildFailed(TilewrightError):
    """A compiler rejected generated or user code; the message carries its first error line."""

    exit_code = 1


class KernelFailed(TilewrightError):
    """A kernel raised, or could not be launched, instead of leaving an output."""

    exit_code = 1


class OutOfPages(TilewrightError):
    """A page pool has fewer free pages than were asked for."""

    exit_code = 3


class PageMisuse(TilewrightError):
    """A page was released or shared by a handle that does not hold it."""

    exit_code = 1


# What broken code of a family may raise besides our own errors: it fails the case, not the run.
CRASHES: tuple[type[Exception], ...] = (
    TilewrightError,
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    NameError,
    ImportError,
    LookupError,
    AssertionError,
    ArithmeticError,
    MemoryError,
    OSError,
)


# The same while it is imported.
IMPORT_CRASHES: tuple[type[Exception], ...] = (SyntaxError, *CRASHES)


def unknown(kind: str, value: object, accepted: object) -> UsageError:
    """The one sentence for a name that does not exist: the value, and what would be accepted."""
    names = (
        [str(name) for name in accepted]
        if isinstance(accepted, list | tuple | set)
        else [str(accepted)]
    )
    return UsageError(f"unknown {kind} '{value}'; accepted: {', '.join(names) or 'none'}")
