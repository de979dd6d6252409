-- Orders, what happened to them, the two logs of the relay, replies, dead letters; and who carries which slot.
--
-- Differs from SQLite because here several nodes write at the same time:
-- numbers come from one sequence, a block of 1,048,576 for each transaction, taken after its locks, so that those of one
-- order rise; entries are read in the order (xid, number), and only those below every running transaction.
-- The two logs are append-only: ranges of transactions are partitions, made ahead, and dropped whole.
-- `xid` is the 64-bit id of the writing transaction as a plain number, which is what the driver reads and ranges are
-- made of.
--
-- Times are milliseconds since the Unix epoch, but those of leases, which the database takes itself.
-- What clients or services may write with a NUL in it (order keys, ids of replies) is bytea: text cannot hold that.

CREATE SEQUENCE numbers INCREMENT BY 1048576 START WITH 1048576;

-- The present state of each order. Small on purpose, with room on its page: it is updated.
CREATE TABLE orders (
    id             uuid PRIMARY KEY,
    route          text NOT NULL,
    order_key      bytea NOT NULL,
    slot           smallint NOT NULL CHECK (slot BETWEEN 0 AND 63),
    status         text NOT NULL
                   CHECK (status IN ('PENDING', 'PUBLISHED', 'VALIDATED', 'REJECTED', 'HELD', 'EXPIRED', 'CANCELLED')),
    is_final       boolean NOT NULL DEFAULT false,
    version        bigint NOT NULL DEFAULT 1 CHECK (version >= 1),
    accepted_at    bigint NOT NULL,
    updated_at     bigint NOT NULL,
    traceparent    text NOT NULL,
    -- Whether a record of this order stands in the log, sent or not: then its final state emits an outcome.
    has_record     boolean NOT NULL DEFAULT false,
    -- How often the operator put it back; part of the id of its next record.
    redrives       integer NOT NULL DEFAULT 0,
    -- The rows of history that hold the body and the plugins' patch.
    body_at        bigint NOT NULL,
    patch_at       bigint,
    problems       text,
    held           text,
    deadline_at    bigint,
    CHECK ((held IS NOT NULL) = (status = 'HELD')),
    CHECK (deadline_at IS NULL OR (status = 'PUBLISHED' AND NOT is_final)),
    CHECK (is_final OR status IN ('PENDING', 'PUBLISHED', 'HELD')),
    CHECK (NOT is_final OR status NOT IN ('PENDING', 'HELD'))
) WITH (fillfactor = 70);

-- For the watch over deadlines.
CREATE INDEX orders_by_deadline ON orders (deadline_at) WHERE deadline_at IS NOT NULL;

-- For `GET /orders?key=`.
CREATE INDEX orders_by_key ON orders (order_key, id);

-- How many orders have which status. A transaction changes one of many rows, so that hardly any waits for another; the
-- sum over all is exact.
CREATE TABLE order_counts (
    part      smallint PRIMARY KEY,
    pending   bigint NOT NULL DEFAULT 0,
    published bigint NOT NULL DEFAULT 0,
    validated bigint NOT NULL DEFAULT 0,
    rejected  bigint NOT NULL DEFAULT 0,
    held      bigint NOT NULL DEFAULT 0,
    expired   bigint NOT NULL DEFAULT 0,
    cancelled bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 25);

INSERT INTO order_counts (part) SELECT generate_series(0, 63);

-- What happened: one row per order and transaction. Rows with a status are versions; the others only add to the timeline.
CREATE TABLE history (
    order_id    uuid NOT NULL,
    sequence    bigint NOT NULL,
    version     bigint NOT NULL,
    at          bigint NOT NULL,
    xid         bigint NOT NULL DEFAULT (pg_current_xact_id()::text::bigint),
    status      text,
    is_final    boolean NOT NULL DEFAULT false,
    problems    text,
    held        text,
    deadline_at bigint,
    entries     text NOT NULL,
    body        bytea,
    patch       bytea,
    PRIMARY KEY (order_id, sequence)
);
-- Compressing costs more than it spares: bodies are small or read once.
ALTER TABLE history ALTER COLUMN body SET STORAGE EXTERNAL;

-- For the feed of changes: versions in the order of commits.
CREATE INDEX history_by_xid ON history (xid, sequence) INCLUDE (order_id) WHERE status IS NOT NULL;

CREATE TABLE idempotency (
    key_hash    bytea PRIMARY KEY CHECK (octet_length(key_hash) = 32),
    fingerprint bytea NOT NULL CHECK (octet_length(fingerprint) = 32),
    order_id    uuid NOT NULL,
    created_at  bigint NOT NULL
);
-- For retention.
CREATE INDEX idempotency_by_age ON idempotency (created_at);

-- First log: what happened to orders. Read above a decide cursor, in the order of the primary key.
CREATE TABLE outbox (
    xid      bigint NOT NULL DEFAULT (pg_current_xact_id()::text::bigint),
    number   bigint NOT NULL,
    slot     smallint NOT NULL,
    kind     text NOT NULL CHECK (kind IN ('order', 'outcome', 'cancel', 'revise', 'redrive', 'discard')),
    order_id uuid NOT NULL,
    at       bigint NOT NULL,
    payload  bytea,
    PRIMARY KEY (xid, number)
) PARTITION BY RANGE (xid);

-- Second log: Kafka records as they will be sent. Those of a slot are written one transaction after the other, so their
-- xid rises with their number.
CREATE TABLE records (
    slot       smallint NOT NULL,
    number     bigint NOT NULL,
    xid        bigint NOT NULL DEFAULT (pg_current_xact_id()::text::bigint),
    order_id   uuid NOT NULL,
    is_outcome boolean NOT NULL,
    topic      text NOT NULL,
    record_key bytea NOT NULL,
    at         bigint NOT NULL,
    headers    text NOT NULL,
    value      bytea NOT NULL,
    PRIMARY KEY (slot, number, xid)
) PARTITION BY RANGE (xid);
ALTER TABLE records ALTER COLUMN value SET STORAGE EXTERNAL;

-- The partitions of both logs, the same ranges for each. `closed_at` is when no transaction could write there any more.
CREATE TABLE log_ranges (
    from_xid  bigint PRIMARY KEY,
    to_xid    bigint NOT NULL CHECK (to_xid > from_xid),
    closed_at bigint
);

-- Who carries a slot, until when, in the how-manieth tenure.
CREATE TABLE slots (
    slot        smallint PRIMARY KEY,
    owner       text NOT NULL DEFAULT '',
    epoch       bigint NOT NULL DEFAULT 0,
    lease_until timestamptz NOT NULL DEFAULT '-infinity'
) WITH (fillfactor = 25);

CREATE TABLE decide_cursors (
    slot        smallint PRIMARY KEY,
    xid         bigint NOT NULL DEFAULT 0,
    number      bigint NOT NULL DEFAULT 0,
    last_record bigint NOT NULL DEFAULT 0,
    last_place  bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 25);

-- `from_xid`: no record above the cursor was written by an earlier transaction.
CREATE TABLE publish_cursors (
    slot     smallint PRIMARY KEY,
    number   bigint NOT NULL DEFAULT 0,
    from_xid bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 25);

INSERT INTO slots (slot) SELECT generate_series(0, 63);
INSERT INTO decide_cursors (slot) SELECT slot FROM slots;
INSERT INTO publish_cursors (slot) SELECT slot FROM slots;

-- The nodes that live, by when they last said so.
CREATE TABLE nodes (
    name    text PRIMARY KEY,
    seen_at timestamptz NOT NULL
) WITH (fillfactor = 50);

-- Orders that wait, in the order of their keys. Only the first of a key has due_at; dead ones are not here.
CREATE TABLE held (
    order_id  uuid PRIMARY KEY,
    slot      smallint NOT NULL,
    route     text NOT NULL,
    order_key bytea NOT NULL,
    place     bigint NOT NULL,
    since     bigint NOT NULL,
    attempts  integer NOT NULL,
    due_at    bigint,
    -- How often the process died while this order ran alone in it.
    deaths    integer NOT NULL DEFAULT 0,
    -- How often plugins failed on the order while it was held: what asks to be asked later does not count.
    faults    integer NOT NULL DEFAULT 0
);

CREATE UNIQUE INDEX held_by_key ON held (slot, route, order_key, place);
-- What is due is read route by route, so that a route whose plugins take long costs the others nothing.
CREATE INDEX held_by_route_due ON held (route, due_at) WHERE due_at IS NOT NULL;

-- The pass that each node has under way: what a process that died was working on, as `slot:decide cursor` by comma.
CREATE TABLE begun (
    node    text PRIMARY KEY,
    batch   text NOT NULL DEFAULT '',
    is_open boolean NOT NULL DEFAULT false
) WITH (fillfactor = 25);

-- Slots whose pass died with the process, at this cursor; the one order that runs alone now, and the one that ran alone
-- when the process died.
CREATE TABLE suspects (
    slot      smallint PRIMARY KEY,
    at_xid    bigint NOT NULL,
    at_number bigint NOT NULL,
    deaths    integer NOT NULL,
    alone     uuid,
    culprit   uuid
);

-- Replies taken in; for an order that is not known (parked), or not yet published, they wait here.
CREATE TABLE inbox (
    order_id      uuid NOT NULL,
    dedup         bytea NOT NULL,
    kind          text NOT NULL,
    source        text,
    topic         text NOT NULL,
    partition     integer NOT NULL,
    record_offset bigint NOT NULL,
    record_at     bigint NOT NULL,
    taken_at      bigint NOT NULL,
    fate          text NOT NULL CHECK (fate IN ('counted', 'noted', 'early', 'late', 'unasked', 'parked')),
    problems      text,
    PRIMARY KEY (order_id, dedup)
) WITH (fillfactor = 80);

CREATE INDEX inbox_parked ON inbox (taken_at) WHERE fate = 'parked';

-- Up to where each reply partition is read and committed.
CREATE TABLE reply_positions (
    topic       text NOT NULL,
    partition   integer NOT NULL,
    next_offset bigint NOT NULL,
    PRIMARY KEY (topic, partition)
) WITH (fillfactor = 25);

-- Ends of reply partitions as asked after deadlines had passed: what is appended behind them is late.
CREATE TABLE reply_ends (
    topic      text NOT NULL,
    partition  integer NOT NULL,
    asked_at   bigint NOT NULL,
    end_offset bigint NOT NULL,
    PRIMARY KEY (topic, partition, asked_at)
);

-- Records that a development broker forgot: sent again before anything after the publish cursor.
CREATE TABLE republish (
    slot   smallint NOT NULL,
    number bigint NOT NULL,
    PRIMARY KEY (slot, number)
);

CREATE TABLE dead (
    id            bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    kind          text NOT NULL CHECK (kind IN ('order', 'record', 'reply')),
    order_id      uuid,
    reason        text NOT NULL,
    detail        text NOT NULL,
    since         bigint NOT NULL,
    attempts      integer NOT NULL,
    plugins       text NOT NULL,
    topic         text,
    partition     integer,
    record_offset bigint,
    headers       text,
    payload       bytea,
    CHECK ((kind = 'reply') = (order_id IS NULL))
);

-- For redrive and discard, which name the order.
CREATE UNIQUE INDEX dead_by_order ON dead (order_id) WHERE order_id IS NOT NULL;
-- For what is read a second time, since its offset was not committed.
CREATE INDEX dead_by_place ON dead (topic, partition, record_offset) WHERE kind = 'reply';
