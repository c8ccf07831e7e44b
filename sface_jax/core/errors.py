"""Exceptions that end a run with one clear line in place of a traceback, and the statuses it ends with.

| status | exception | what happened |
|---|---|---|
| 2 | `UserError` | a mistake in the input or the config, or no space left: mend what the line says |
| 75 | `Lost` | another process, a device, a collective or the storage was lost or hangs: start again |
| 130 | `KeyboardInterrupt` | ^C: start again, when wanted |
| 143 | `Interrupted` | SIGTERM, the scheduler wants the machine: start again |

To start again is to run the same command: it goes on from what is saved. 75 is EX_TEMPFAIL of sysexits.h; 130 and 143
are what shells tell of a process that SIGINT or SIGTERM ended. Anything else is a bug, told with a traceback.
"""

MISTAKEN, LOST, STOPPED, ASKED = 2, 75, 130, 143


class UserError(Exception):
    """A mistake in the input or configuration, told in one line that says what to do.

    `sface_jax.main` prints the line without a traceback and exits with status 2.
    """


class Damaged(UserError):
    """A file, a record or a picture is not what its format says: cut short, altered, or something else altogether."""


class Unfinished(UserError):
    """A `UserError` that comes while a stage is at work: what it has made so far stays, bound to its config."""


class Lost(Exception):
    """Another process, a device, a collective or the storage was lost or does not answer: a restart may well succeed.

    `sface_jax.main` prints the line and exits with status 75.
    """


class Interrupted(BaseException):
    """The run was asked to end (SIGTERM) and has saved what it needs to go on.

    `sface_jax.main` prints the line and exits with status 143. Like `KeyboardInterrupt` it may be raised anywhere, so
    that no `except Exception` may take it for a failure of what was at work.
    """
