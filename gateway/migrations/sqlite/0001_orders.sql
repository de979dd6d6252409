-- Orders, what happened to them, the two logs of the relay, replies, dead letters.
--
-- One counter (meta.sequence), raised by the one writer, numbers both outbox and history: it is the order of commits.
-- Times are milliseconds since the Unix epoch. Ids are the sixteen bytes of a UUID version 7.
--
-- Checks that every insert runs compare one by one: for an IN of three and more SQLite would fill a table each time.

CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO meta (name, value) VALUES ('sequence', 0);

-- The present state of each order. Small on purpose: it is updated; the body stands in history, which is not.
CREATE TABLE orders (
    id             BLOB PRIMARY KEY CHECK (length(id) = 16),
    route          TEXT NOT NULL,
    order_key      TEXT NOT NULL,
    slot           INTEGER NOT NULL CHECK (slot BETWEEN 0 AND 63),
    status         TEXT NOT NULL
                   CHECK (status = 'PENDING' OR status = 'PUBLISHED' OR status = 'VALIDATED' OR status = 'REJECTED'
                          OR status = 'HELD' OR status = 'EXPIRED' OR status = 'CANCELLED'),
    is_final       INTEGER NOT NULL DEFAULT 0,
    version        INTEGER NOT NULL DEFAULT 1 CHECK (version >= 1),
    accepted_at    INTEGER NOT NULL,
    updated_at     INTEGER NOT NULL,
    traceparent    TEXT NOT NULL,
    -- Whether a record of this order stands in the log, sent or not: then its final state emits an outcome.
    has_record     INTEGER NOT NULL DEFAULT 0,
    -- How often the operator put it back; part of the id of its next record.
    redrives       INTEGER NOT NULL DEFAULT 0,
    -- The rows of history that hold the body and the plugins' patch.
    body_at        INTEGER NOT NULL,
    patch_at       INTEGER,
    problems       TEXT,
    held           TEXT,
    deadline_at    INTEGER,
    CHECK ((held IS NOT NULL) = (status = 'HELD')),
    CHECK (deadline_at IS NULL OR (status = 'PUBLISHED' AND is_final = 0)),
    CHECK (is_final = 1 OR status = 'PENDING' OR status = 'PUBLISHED' OR status = 'HELD'),
    CHECK (is_final = 0 OR status NOT IN ('PENDING', 'HELD'))
) STRICT, WITHOUT ROWID;

-- For the watch over deadlines.
CREATE INDEX orders_by_deadline ON orders (deadline_at) WHERE deadline_at IS NOT NULL;

-- For `GET /orders?key=`. Keys are spread, so each row changes a page of its own: too dear for the commit behind a 202.
-- It is written when the order's entry is decided; the orders of undecided entries are found in the outbox.
CREATE TABLE order_keys (
    order_key TEXT NOT NULL,
    route     TEXT NOT NULL,
    order_id  BLOB NOT NULL,
    PRIMARY KEY (order_key, route, order_id)
) STRICT, WITHOUT ROWID;

-- What happened: one row per order and transaction. Rows with a status are versions; the others only add to the timeline.
CREATE TABLE history (
    order_id    BLOB NOT NULL,
    sequence    INTEGER NOT NULL,
    version     INTEGER NOT NULL,
    at          INTEGER NOT NULL,
    status      TEXT,
    is_final    INTEGER NOT NULL DEFAULT 0,
    problems    TEXT,
    held        TEXT,
    deadline_at INTEGER,
    entries     TEXT NOT NULL,
    body        BLOB,
    patch       BLOB,
    PRIMARY KEY (order_id, sequence)
) STRICT, WITHOUT ROWID;

CREATE TABLE idempotency (
    number      INTEGER PRIMARY KEY,
    key_hash    BLOB NOT NULL UNIQUE CHECK (length(key_hash) = 32),
    fingerprint BLOB NOT NULL CHECK (length(fingerprint) = 32),
    order_id    BLOB NOT NULL,
    created_at  INTEGER NOT NULL
) STRICT;

-- First log: what happened to orders. Read by (slot, number) above the decide cursor.
CREATE TABLE outbox (
    number   INTEGER PRIMARY KEY,
    slot     INTEGER NOT NULL,
    kind     TEXT NOT NULL CHECK (kind = 'order' OR kind = 'outcome' OR kind = 'cancel' OR kind = 'revise'
                                  OR kind = 'redrive' OR kind = 'discard'),
    order_id BLOB NOT NULL,
    at       INTEGER NOT NULL,
    payload  BLOB
) STRICT;

-- Second log: Kafka records as they will be sent.
CREATE TABLE records (
    slot       INTEGER NOT NULL,
    number     INTEGER NOT NULL,
    order_id   BLOB NOT NULL,
    is_outcome INTEGER NOT NULL,
    topic      TEXT NOT NULL,
    record_key BLOB NOT NULL,
    -- Before what may be long, so that retention need not read that.
    at         INTEGER NOT NULL,
    headers    TEXT NOT NULL,
    value      BLOB NOT NULL,
    PRIMARY KEY (slot, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE slots (
    slot  INTEGER PRIMARY KEY,
    owner TEXT NOT NULL DEFAULT '',
    epoch INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE decide_cursors (
    slot        INTEGER PRIMARY KEY,
    number      INTEGER NOT NULL DEFAULT 0,
    last_record INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE publish_cursors (
    slot   INTEGER PRIMARY KEY,
    number INTEGER NOT NULL DEFAULT 0
) STRICT;

WITH RECURSIVE all_slots (slot) AS (SELECT 0 UNION ALL SELECT slot + 1 FROM all_slots WHERE slot < 63)
INSERT INTO slots (slot) SELECT slot FROM all_slots;
INSERT INTO decide_cursors (slot) SELECT slot FROM slots;
INSERT INTO publish_cursors (slot) SELECT slot FROM slots;

-- Orders that wait, in the order of their keys. Only the first of a key has due_at; dead ones are not here.
CREATE TABLE held (
    order_id BLOB PRIMARY KEY,
    slot     INTEGER NOT NULL,
    route    TEXT NOT NULL,
    order_key TEXT NOT NULL,
    place    INTEGER NOT NULL,
    since    INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    due_at   INTEGER,
    -- How often the process died while this order ran alone in it.
    deaths   INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX held_by_key ON held (slot, route, order_key, place);
CREATE INDEX held_by_due ON held (due_at) WHERE due_at IS NOT NULL;

-- The pass under way: what a process that died was working on, as `slot:decide cursor` by comma.
CREATE TABLE begun (
    id      INTEGER PRIMARY KEY CHECK (id = 1),
    batch   TEXT NOT NULL DEFAULT '',
    is_open INTEGER NOT NULL DEFAULT 0
) STRICT;

INSERT INTO begun (id) VALUES (1);

-- Slots whose pass died with the process, at this cursor; the one order that runs alone now, and the one that ran alone
-- when the process died.
CREATE TABLE suspects (
    slot      INTEGER PRIMARY KEY,
    at_number INTEGER NOT NULL,
    deaths    INTEGER NOT NULL,
    alone     BLOB,
    culprit   BLOB
) STRICT;

-- Replies taken in; for an order that is not known (parked), or not yet published, they wait here.
CREATE TABLE inbox (
    order_id   BLOB NOT NULL,
    dedup      TEXT NOT NULL,
    kind       TEXT NOT NULL,
    source     TEXT,
    topic      TEXT NOT NULL,
    partition  INTEGER NOT NULL,
    record_offset INTEGER NOT NULL,
    record_at  INTEGER NOT NULL,
    taken_at   INTEGER NOT NULL,
    fate       TEXT NOT NULL CHECK (fate = 'counted' OR fate = 'noted' OR fate = 'early' OR fate = 'late'
                                    OR fate = 'unasked' OR fate = 'parked'),
    problems   TEXT,
    PRIMARY KEY (order_id, dedup)
) STRICT, WITHOUT ROWID;

CREATE INDEX inbox_parked ON inbox (taken_at) WHERE fate = 'parked';

-- Up to where each reply partition is read and committed.
CREATE TABLE reply_positions (
    topic       TEXT NOT NULL,
    partition   INTEGER NOT NULL,
    next_offset INTEGER NOT NULL,
    PRIMARY KEY (topic, partition)
) STRICT, WITHOUT ROWID;

-- Ends of reply partitions as asked after deadlines had passed: what is appended behind them is late.
CREATE TABLE reply_ends (
    topic      TEXT NOT NULL,
    partition  INTEGER NOT NULL,
    asked_at   INTEGER NOT NULL,
    end_offset INTEGER NOT NULL,
    PRIMARY KEY (topic, partition, asked_at)
) STRICT, WITHOUT ROWID;

-- Records that a development broker forgot: sent again before anything after the publish cursor.
CREATE TABLE republish (
    slot   INTEGER NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (slot, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE dead (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    kind      TEXT NOT NULL CHECK (kind IN ('order', 'record', 'reply')),
    order_id  BLOB,
    reason    TEXT NOT NULL,
    detail    TEXT NOT NULL,
    since     INTEGER NOT NULL,
    attempts  INTEGER NOT NULL,
    plugins   TEXT NOT NULL,
    topic     TEXT,
    partition INTEGER,
    record_offset INTEGER,
    headers   TEXT,
    payload   BLOB,
    CHECK ((kind = 'reply') = (order_id IS NULL))
) STRICT;

-- For redrive and discard, which name the order.
CREATE UNIQUE INDEX dead_by_order ON dead (order_id) WHERE order_id IS NOT NULL;
-- For what is read a second time, since its offset was not committed.
CREATE INDEX dead_by_place ON dead (topic, partition, record_offset) WHERE kind = 'reply';
