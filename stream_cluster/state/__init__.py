"""Durable state: one SQLite database per input partition, with offsets and effects in one transaction.

`partition` applies micro-batches, `view` reads one consistent point of a database, `tasks` keeps task
records, `schema` documents the file format.
"""
