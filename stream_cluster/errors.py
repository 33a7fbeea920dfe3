"""The exceptions of stream-cluster, by who has to act.

    StreamClusterError
    ├── ConfigError          a person changes a setting, a topic or a file
    │   └── InputError       a person mends the file or option given on the command line
    ├── BrokerUnavailable    nobody: retried until the broker answers
    ├── StateError
    │   ├── StateCorrupt     an operator restores the partition from a backup
    │   ├── StateFormatError an operator runs the matching release or migrates
    │   └── StateLocked      an operator stops the other process
    ├── ResultsUnavailable   an operator: archives cannot be written, read or removed
    ├── BackupsUnavailable   an operator: the place of the backups does not answer
    ├── BackupDamaged        an operator looks at the store; an older backup is taken
    ├── LogGap               an operator decides: records between two offsets are gone from Kafka
    ├── TaskError            the sender of the task; carries the stable code of the status message
    └── Cancelled            nobody: the work was asked to stop

A bad record is not an exception: it is a `stream_cluster.messages.Rejection`, a value.
Every message says what was found, what was expected, and where.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

TaskErrorCode = Literal[
    "bad_request",
    "unknown_field",
    "empty_selection",
    "deadline_exceeded",
    "result_store_unavailable",
    "unknown_task",
    "internal_error",
]
"""Every `error.code` of a task's status. A code keeps its meaning from release to release."""


class TaskErrorNote(NamedTuple):
    """What a code of a failed task means."""

    meaning: str
    who_acts: str


TASK_ERRORS: Mapping[TaskErrorCode, TaskErrorNote] = MappingProxyType(
    {
        "bad_request": TaskErrorNote(
            "a field is missing or wrong; of a report column that does not exist, the "
            "message lists those that do; of a callback_url, the host that is not allowed",
            "the sender",
        ),
        "unknown_field": TaskErrorNote(
            "a filter that does not exist for this object type; the message names the nearest", "the sender"
        ),
        "empty_selection": TaskErrorNote(
            "the account has no such objects, or the filters select none; the message names the filter that "
            "excluded the last ones",
            "the sender",
        ),
        "deadline_exceeded": TaskErrorNote("not done within `deadline_s`", "the sender, or an operator"),
        "result_store_unavailable": TaskErrorNote(
            "the archive could not be stored, however often it was tried",
            "an operator; then the sender again",
        ),
        "unknown_task": TaskErrorNote(
            "a `delete` names a task that the account does not have, or no longer has", "the sender"
        ),
        "internal_error": TaskErrorNote(
            "anything else; the message has it, the log has the trace", "an operator"
        ),
    }
)
"""The notes of all codes; they make the table in docs/messages.md."""


class StreamClusterError(Exception):
    """Root of all errors that this package raises on purpose."""


class ConfigError(StreamClusterError):
    """A setting, or the outside world it describes, is wrong; a person must change it."""


class InputError(ConfigError):
    """A file or an option given on the command line cannot be used."""


class BrokerUnavailable(StreamClusterError):
    """Kafka does not answer; the operation may be tried again."""


class StateError(StreamClusterError):
    """The state directory cannot be used as it is."""


class StateCorrupt(StateError):
    """Stored bytes contradict their checksum or the database's own structure."""


class StateFormatError(StateError):
    """The state was written by a release with another format version."""


class StateLocked(StateError):
    """Another process holds the state directory."""


class ResultsUnavailable(StreamClusterError):
    """The place of the result archives does not take, give or remove one."""


class BackupsUnavailable(StreamClusterError):
    """The place of the backups does not take, give or remove one."""


class BackupDamaged(StreamClusterError):
    """A backup is incomplete, or contradicts its checksums."""


class LogGap(StreamClusterError):
    """Kafka no longer holds the records that the state needs next."""


class TaskError(StreamClusterError):
    """A task cannot be done; `code` is the stable `error.code` of its status message."""

    def __init__(self, code: TaskErrorCode, message: str) -> None:
        super().__init__(message)
        self.code: TaskErrorCode = code
        self.message = message


class Cancelled(StreamClusterError):
    """The work was asked to stop before it was done."""
