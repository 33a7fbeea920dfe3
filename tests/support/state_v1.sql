-- The tables of a state database of format version 1, as release 0.1.0 made them.

CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE offsets (
    topic TEXT NOT NULL,
    partition INTEGER NOT NULL,
    next_offset INTEGER NOT NULL,
    PRIMARY KEY (topic, partition)
) STRICT, WITHOUT ROWID;
CREATE TABLE spaces (
    space_id INTEGER PRIMARY KEY,
    account_id TEXT NOT NULL,
    object_type TEXT NOT NULL,
    descriptor_type TEXT NOT NULL,
    version INTEGER NOT NULL,
    dim INTEGER NOT NULL,
    next_row INTEGER NOT NULL DEFAULT 0,
    floor REAL NOT NULL,
    duplicates INTEGER NOT NULL DEFAULT 0,
    links_seen INTEGER NOT NULL DEFAULT 0,
    UNIQUE (account_id, object_type, descriptor_type, version)
) STRICT;
CREATE TABLE objects (
    key INTEGER PRIMARY KEY,
    space_id INTEGER NOT NULL,
    object_id TEXT NOT NULL,
    create_time_us INTEGER,
    end_time_us INTEGER,
    track_id TEXT,
    handler_id TEXT,
    source TEXT,
    stream_id TEXT,
    external_id TEXT,
    user_data TEXT,
    face_id TEXT,
    event_id TEXT,
    avatar TEXT,
    gender INTEGER,
    age INTEGER,
    emotion INTEGER,
    ethnic_group INTEGER,
    mask INTEGER,
    liveness INTEGER,
    city TEXT,
    area TEXT,
    district TEXT,
    street TEXT,
    house_number TEXT,
    longitude REAL,
    latitude REAL,
    tags TEXT,
    list_ids TEXT,
    meta TEXT,
    top_match TEXT,
    match_result TEXT,
    face_detections TEXT,
    attach_result TEXT,
    headwear TEXT,
    clothing TEXT,
    backpack TEXT,
    attribute_id TEXT,
    image TEXT,
    quality REAL
) STRICT;
CREATE UNIQUE INDEX objects_by_id ON objects (space_id, object_id);
CREATE INDEX objects_by_time ON objects (space_id, create_time_us, object_id);
CREATE INDEX objects_by_track ON objects (space_id, track_id) WHERE track_id IS NOT NULL;
CREATE TABLE codes (
    key INTEGER PRIMARY KEY,
    rows INTEGER NOT NULL,
    crc32 INTEGER NOT NULL,
    data BLOB NOT NULL
) STRICT;
CREATE TABLE links (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    space_id INTEGER NOT NULL,
    merged INTEGER NOT NULL,
    links INTEGER NOT NULL,
    crc32 INTEGER NOT NULL,
    data BLOB NOT NULL
) STRICT;
CREATE INDEX links_by_space ON links (space_id, seq);
CREATE TABLE counters (
    account_id TEXT NOT NULL,
    result TEXT NOT NULL,
    reason TEXT NOT NULL,
    records INTEGER NOT NULL,
    PRIMARY KEY (account_id, result, reason)
) STRICT, WITHOUT ROWID;
CREATE TABLE tasks (
    account_id TEXT NOT NULL,
    task_id TEXT NOT NULL,
    status TEXT NOT NULL,
    request BLOB NOT NULL,
    read_time_us INTEGER NOT NULL,
    barrier INTEGER NOT NULL,
    PRIMARY KEY (account_id, task_id)
) STRICT, WITHOUT ROWID;
