"""One space's part of a batch written to the database, inside the batch's transaction."""

from __future__ import annotations

import json
import sqlite3

from stream_cluster.state.chunks import erase_codes, replace_links, write_codes, write_links
from stream_cluster.state.objects import delete_objects, insert_objects, update_objects
from stream_cluster.state.space import SpaceBatch


def store_batch(connection: sqlite3.Connection, batch: SpaceBatch) -> None:
    """Write what a batch does to a space.

    What goes is deleted before what comes is inserted: an id may go and come again in one batch.
    """
    space = batch.space
    if batch.is_new:
        connection.execute(
            "INSERT INTO spaces (space_id, account_id, object_type, descriptor_type, version, dim, floor) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (space.space_id, *space.key, space.dim, space.floor_cosine),
        )
    if batch.removal is not None:
        resident = batch.removal.rows[batch.removal.rows < space.next_row]
        delete_objects(connection, batch.removed_keys)
        erase_codes(connection, space.space_id, space.dim, resident)
        for seq, links in batch.removal.chunks:
            replace_links(connection, seq, links)
    if batch.rows:
        if new_objects := batch.new_objects:
            insert_objects(connection, new_objects)
        write_codes(connection, space.space_id, space.next_row, batch.codes)
    if len(batch.links):
        write_links(connection, space.space_id, batch.links, merged=False)
    if batch.removal is not None:
        write_links(connection, space.space_id, batch.removal.repaired, merged=False)
    update_objects(connection, space.space_id, batch.updates)
    connection.execute(
        "UPDATE spaces SET next_row = ?, floor = ?, duplicates = duplicates + ?, "
        "links_seen = links_seen + ?, deleted = deleted + ?, matching = coalesce(?, matching) "
        "WHERE space_id = ?",
        (
            space.next_row + len(batch.rows),
            space.floor_cosine,
            batch.duplicates,
            batch.links_seen,
            len(batch.removed),
            None if batch.matching is None else json.dumps(batch.matching),
            space.space_id,
        ),
    )
