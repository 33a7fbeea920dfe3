"""Messages of the public contract: objects, tasks, statuses and cluster updates, in JSON and MessagePack.

Bytes in, values out: a record that cannot be used becomes a `Rejection` or a `BadTask`. No I/O.
"""

from stream_cluster.messages.decode import DecodeRules, decode_events
from stream_cluster.messages.encode import encode_object
from stream_cluster.messages.filters import EVENT_FILTERS, FACE_FILTERS, Filters, GeoBox, filters_of
from stream_cluster.messages.objects import Descriptor, Metadata, ObjectMessage, TopMatch
from stream_cluster.messages.partitioner import partition_for
from stream_cluster.messages.record import JSON, MSGPACK, RawRecord, Reason, Rejection
from stream_cluster.messages.status import (
    ArchiveRef,
    AsOf,
    TaskFault,
    TaskStatus,
    TaskWarning,
    decode_status,
    encode_status,
)
from stream_cluster.messages.tasks import (
    CLUSTER_COLUMNS,
    EVENT_COLUMNS,
    FACE_COLUMNS,
    AnyTask,
    BadTask,
    CancelRequest,
    Content,
    DeleteRequest,
    Report,
    TaskRequest,
    column_problem,
    decode_task,
    encode_task,
    parse_filters,
)
from stream_cluster.messages.times import format_time, parse_time, resolve_time
from stream_cluster.messages.updates import ClusterReplay, ClusterUpdate, decode_update
from stream_cluster.messages.wireform import read_account_id

__all__ = [
    "CLUSTER_COLUMNS",
    "EVENT_COLUMNS",
    "EVENT_FILTERS",
    "FACE_COLUMNS",
    "FACE_FILTERS",
    "JSON",
    "MSGPACK",
    "AnyTask",
    "ArchiveRef",
    "AsOf",
    "BadTask",
    "CancelRequest",
    "ClusterReplay",
    "ClusterUpdate",
    "Content",
    "DecodeRules",
    "DeleteRequest",
    "Descriptor",
    "Filters",
    "GeoBox",
    "Metadata",
    "ObjectMessage",
    "RawRecord",
    "Reason",
    "Rejection",
    "Report",
    "TaskFault",
    "TaskRequest",
    "TaskStatus",
    "TaskWarning",
    "TopMatch",
    "column_problem",
    "decode_events",
    "decode_status",
    "decode_task",
    "decode_update",
    "encode_object",
    "encode_status",
    "encode_task",
    "filters_of",
    "format_time",
    "parse_filters",
    "parse_time",
    "partition_for",
    "read_account_id",
    "resolve_time",
]
