"""Everything that touches the world: Kafka, HTTP, clocks, threads, logs and metrics.

`app` wires it together; `ingest` runs one partition; `tasks` reads and runs tasks; `kafka` makes clients.
"""
