"""The error tree. A message says what was expected, what came, and what to do.

IsthmusError
+-- ConfigError       a setting is unknown, malformed or contradicts another
+-- DataError         a file of a domain cannot be used at all
|   +-- UnknownError  nobody, or nothing, goes by that name here
|   +-- TakenError    something goes by that name already
|   +-- FullError     the disk, or a limit, takes no more
+-- BaseModelError    the frozen base is missing, altered, or not a BERT
+-- PayloadError      bytes from a peer do not hold what the protocol promises
+-- TrainingError     training moved nothing, or ran into numbers that are not finite
+-- BudgetError       a task would spend more privacy than the data owner allows
+-- FederationError   a round or a run of the federation failed
"""

from typing import Any


class IsthmusError(Exception):
    """Anything the user can mend; printed as one line, never as a traceback."""


class ConfigError(IsthmusError):
    """A setting is unknown, malformed or contradicts another."""


class DataError(IsthmusError):
    """A file of a domain cannot be used at all."""


class UnknownError(DataError):
    """Nobody, or nothing, goes by that name here."""


class TakenError(DataError):
    """Something goes by that name already."""


class FullError(DataError):
    """The disk, or a limit, takes no more."""


class BaseModelError(IsthmusError):
    """The frozen base is missing, altered, or not a BERT."""


class PayloadError(IsthmusError):
    """Bytes from a peer do not hold what the protocol promises."""


class TrainingError(IsthmusError):
    """Training moved nothing, or ran into numbers that are not finite.

    ``instead`` is an update of nothing, of weight 0, for a secure sum: a refusal there would tell of one domain.
    """

    instead: Any = None


class BudgetError(IsthmusError):
    """A task would spend more privacy than the data owner allows.

    ``told`` is what a peer may read of it, where the message holds what is the owner's alone.
    """

    def __init__(self, message: str, told: str | None = None) -> None:
        super().__init__(message)
        self.told = message if told is None else told


class FederationError(IsthmusError):
    """A round or a run of the federation failed."""
