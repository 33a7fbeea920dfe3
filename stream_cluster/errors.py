"""The exceptions of stream-cluster, by who has to act.

    StreamClusterError
    ├── ConfigError          a person changes a setting, a topic or a file
    │   └── InputError       a person mends the file or option given on the command line
    ├── BrokerUnavailable    nobody: retried until the broker answers
    ├── StateError
    │   ├── StateCorrupt     an operator restores the partition from a backup
    │   ├── StateFormatError an operator runs the matching release or migrates
    │   └── StateLocked      an operator stops the other process
    ├── LogGap               an operator decides: records between two offsets are gone from Kafka
    ├── TaskError            the sender of the task; carries the stable code of the status message
    └── Cancelled            nobody: the work was asked to stop

A bad record is not an exception: it is a `stream_cluster.messages.Rejection`, a value.
Every message says what was found, what was expected, and where.
"""

from __future__ import annotations


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


class LogGap(StreamClusterError):
    """Kafka no longer holds the records that the state needs next."""


class TaskError(StreamClusterError):
    """A task cannot be done; `code` is the stable `error.code` of its status message."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Cancelled(StreamClusterError):
    """The work was asked to stop before it was done."""
