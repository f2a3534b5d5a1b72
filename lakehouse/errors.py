"""Every error this product raises, as one tree.

``PermanentError``  the same call will fail again until somebody changes data, declaration or settings.
``TransientError``  the same call may succeed later: the only kind that is retried.

A message says what went wrong and where; ``hint`` is the next command to run.
"""

from __future__ import annotations


class LakehouseError(Exception):
    """Base of the tree. ``str(error)`` is the message, then the hint on a line of its own."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n  next: {self.hint}"


# -- permanent -----------------------------------------------------------------------------------


class PermanentError(LakehouseError):
    """Trying again changes nothing."""


class SettingsError(PermanentError):
    """A setting has a value that cannot work."""


class WrongUsage(PermanentError):
    """What was asked for cannot be done as it was asked: an option or an argument has to change."""


class DeclarationError(PermanentError):
    """A pipeline's YAML, contract or transform is wrong."""

    def __init__(
        self, message: str, *, file: str | None = None, field: str | None = None, hint: str | None = None
    ) -> None:
        where = ": ".join(part for part in (file, field) if part)
        super().__init__(f"{where}: {message}" if where else message, hint=hint)
        self.file = file
        self.field = field
        self.detail = message


class ContractError(PermanentError):
    """Rows break a rule whose ``on_failure`` is ``fail``; the table is left unchanged."""


class SourceError(PermanentError):
    """A source holds something that cannot be read at all."""


class ConservationError(PermanentError):
    """Rows in do not add up to rows accounted for; nothing was committed."""


class StorageError(PermanentError):
    """The store answered, and the answer is no (permission, corrupt log, disk full)."""


class PointLost(StorageError):
    """A restore point is missing, empty or torn: nobody knows any more what it named."""


class TableNotFound(StorageError):
    """The table has no version yet. The one storage error that may mean 'create it'."""


class CheckFailed(PermanentError):
    """A blocking check failed."""


class GoldBuildError(PermanentError):
    """A dbt model or test failed, or the project does not compile."""


class PublishBlocked(PermanentError):
    """A blocking check of a version that was to be published failed; readers keep the last good point."""


class RunsHeld(PermanentError):
    """After a rollback nothing moves on until a person says so."""


class QueryError(PermanentError):
    """An analyst's query failed."""


class NothingPublished(QueryError):
    """There is no published catalog to query yet."""


# -- transient -----------------------------------------------------------------------------------


class TransientError(LakehouseError):
    """Trying again, later, may succeed."""


class CommitConflict(TransientError):
    """Somebody else committed something that this commit had read: read again, then redo or skip."""


class SourceUnavailable(TransientError):
    """The source did not answer, throttled, or changed while it was read."""


class StorageUnavailable(TransientError):
    """The store did not answer or throttled."""
