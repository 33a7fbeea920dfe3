"""Backups of a partition's database: a copy beside its writer, packed into blocks, and its manifest.

Which backup is the newest, which are kept and whether to restore one are decided here, without a store;
`stream_cluster.service` knows directories, buckets, clocks and the consumer group.
"""
