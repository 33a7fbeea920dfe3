"""stream-cluster: groups faces and bodies by similarity while they arrive on Kafka.

Folders follow the flow of data: messages, matching, graph, state, snapshot, service (docs/architecture.md).
"""

__version__ = "0.1.0"
