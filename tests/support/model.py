"""What a partition holds after a sequence of messages, kept in plain dictionaries."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from stream_cluster.messages import Metadata
from stream_cluster.model import SpaceKey


@dataclass
class Model:
    """Applies messages one after another; `spaces` holds (descriptor, metadata) by space and object id."""

    spaces: dict[SpaceKey, dict] = field(default_factory=dict)
    deleted: dict[SpaceKey, int] = field(default_factory=dict)
    duplicates: dict[SpaceKey, int] = field(default_factory=dict)
    results: dict[str, int] = field(default_factory=dict)

    def apply(self, message):
        """Apply one message and count its result."""
        result = {"upsert": self._upsert, "update": self._update, "delete": self._delete}[message.action](
            message
        )
        self.results[result] = self.results.get(result, 0) + 1

    def _upsert(self, message):
        is_new = False
        for descriptor in message.descriptors:
            key = SpaceKey(message.account_id, message.object_type, descriptor.type, descriptor.version)
            objects = self.spaces.setdefault(key, {})
            if message.object_id in objects:
                self.duplicates[key] = self.duplicates.get(key, 0) + 1
            else:
                objects[message.object_id] = (descriptor, message.metadata)
                is_new = True
        return "accepted" if is_new else "duplicate"

    def _update(self, message):
        found = False
        for _, objects in self._of(message):
            if message.object_id in objects:
                descriptor, metadata = objects[message.object_id]
                changes = {name: getattr(message.metadata, name) for name in message.updated_fields}
                objects[message.object_id] = (descriptor, msgspec.structs.replace(metadata, **changes))
                found = True
        return "updated" if found else "unknown_object"

    def _delete(self, message):
        found = False
        for key, objects in self._of(message):
            for object_id in list(objects) if message.everything else message.object_ids:
                if objects.pop(object_id, None) is not None:
                    self.deleted[key] = self.deleted.get(key, 0) + 1
                    found = True
        return "deleted" if found else "unknown_object"

    def _of(self, message):
        kinds = message.everything or (message.object_type,)
        return [
            (key, objects)
            for key, objects in self.spaces.items()
            if key.account_id == message.account_id and key.object_type in kinds
        ]

    def upserts(self):
        """One upsert for each object of each space, in the order in which they came."""
        return [
            (key, object_id, descriptor, metadata if metadata is not None else Metadata())
            for key, objects in self.spaces.items()
            for object_id, (descriptor, metadata) in objects.items()
        ]
