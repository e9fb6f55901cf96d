"""Every error that Beamside raises on purpose.

The whole tree::

    BeamsideError
    ├── ConfigError            a setting is missing, unknown or impossible
    ├── InputError             the user's files cannot be used as they are
    │   ├── NotReadyError      a file that is still being written; try again later
    │   │   └── AwaitedError   another file that it needs has not come yet, and the session was told to wait for that
    │   ├── CorruptFileError   a file that is damaged or of the wrong kind
    │   └── GainError          the gain reference does not fit the movies
    │       └── GainNotReadyError   (also a NotReadyError) it cannot be read or written now
    │           └── GainAwaitedError   (also an AwaitedError) it has not come yet
    ├── ProjectError           the project on disk is in the way or damaged
    │   ├── ProjectBusyError   another process is writing to it
    │   ├── TransitionError    an item cannot go from its state to another one
    │   └── JournalError       what happened could not be written down; nothing has changed, so it can be tried again
    ├── TransferError          a copy could not be made or verified
    ├── ProcessingError        an item could not be processed (a fit that failed, for example)
    └── ProgramError           an external program is missing or failed

A message names the thing, says what is wrong, and says what to do. The command line prints it as one sentence, without a traceback.
"""

import errno


class BeamsideError(Exception):
    """Base of all errors that a user can do something about."""


class ConfigError(BeamsideError):
    """A setting is missing, unknown or impossible."""


class InputError(BeamsideError):
    """A file given by the user cannot be used as it is."""


class NotReadyError(InputError):
    """A file is not complete yet; looking again later may help."""


class AwaitedError(NotReadyError):
    """Another file that this one needs is not there, or not complete, and the session was told to wait for it."""


class CorruptFileError(InputError):
    """A file is damaged, truncated or not what its name says."""


class GainError(InputError):
    """The gain reference does not fit the movies."""


class GainNotReadyError(NotReadyError, GainError):
    """The gain reference or the defects cannot be read now; trying again later may help."""


class GainAwaitedError(GainNotReadyError, AwaitedError):
    """The gain reference is not there, or not complete, and the session was told to wait for it."""


class ProjectError(BeamsideError):
    """The project on disk is damaged or does not fit what was asked."""


class ProjectBusyError(ProjectError):
    """Another process is the project's writer."""


class TransitionError(ProjectError):
    """An item cannot go from the state that it has to another one: a mistake of the program, or of a damaged journal."""


class JournalError(ProjectError):
    """A journal cannot be written now, so that what it should have said has not happened."""


class TransferError(BeamsideError):
    """A file could not be copied, or its copy could not be verified."""


class ProcessingError(BeamsideError):
    """An item could not be processed."""


class ProgramError(BeamsideError):
    """An external program is missing, of an unsupported version, or failed."""


def in_words(error: BaseException) -> str:
    """Return what was wrong, for people: the sentence of an error of ours, what the system says of a file, or else the error's kind and text."""
    if isinstance(error, BeamsideError):
        return str(error)
    if not isinstance(error, OSError) or not error.strerror:
        return f"{type(error).__name__}: {error}"
    place = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        what = "the disk is full" if error.errno == errno.ENOSPC else "the quota on the disk is used up"
        return f"{what}: make room{place}"
    return f"{error.strerror}{place}"
