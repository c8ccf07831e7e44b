"""Exceptions that end a run with one clear line in place of a traceback."""


class UserError(Exception):
    """A mistake in the input or configuration, told in one line that says what to do.

    `sface_jax.main` prints the line without a traceback and exits with status 2.
    """


class Damaged(UserError):
    """A file, a record or a picture is not what its format says: cut short, altered, or something else altogether."""


class Unfinished(UserError):
    """A `UserError` that comes while a stage is at work: what it has made so far stays, bound to its config."""


class Interrupted(Exception):
    """The run was asked to end (SIGTERM) and has saved what it needs to go on.

    `sface_jax.main` prints the line and exits with status 143, as a process ended by SIGTERM does.
    """
