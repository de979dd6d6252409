//! The database of a run: where nodes find it, and what the test reads and watches in it past every node.

use std::path::PathBuf;
use std::time::Duration;

use harness::database::Database;
use harness::{postgres, wait_until};
use rusqlite::Connection;
use serde_json::Value;

/// Longest that the database may be away when the test itself asks.
const LIMIT: Duration = Duration::from_secs(60);

/// Where the orders are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Sqlite,
    Postgres,
}

/// A database that outlives the nodes.
pub(crate) enum Store {
    Sqlite(PathBuf),
    Postgres(postgres::Database),
}

impl Store {
    /// All rows of a query, each an object of its columns. Waits for a database that is away.
    pub(crate) fn read(&self, sql: &str) -> Vec<Value> {
        match self {
            Self::Sqlite(file) => Database::open(file).read(sql),
            Self::Postgres(database) => {
                let sql = format!("SELECT row_to_json(t)::text FROM ({sql}) t");
                let rows = wait_until("the database", LIMIT, || database.session().rows(&sql));
                let texts = rows.into_iter().flatten().flatten();
                texts.map(|text| serde_json::from_str(&text).expect("the database writes JSON")).collect()
            }
        }
    }

    /// Has the database note who moves the cursors: nothing else tells afterwards. Its schema is there.
    pub(crate) fn watch(&self) {
        match self {
            Self::Sqlite(file) => {
                let database = Connection::open(file).expect("the database opens");
                database.busy_timeout(LIMIT).expect("a limit");
                database.execute_batch(AUDIT_SQLITE).expect("the database takes triggers");
            }
            Self::Postgres(database) => database.run(AUDIT_POSTGRES),
        }
    }

    /// Entries that nobody decided and records that nobody acknowledged.
    pub(crate) fn in_flight(&self) -> u64 {
        let entries = match self {
            Self::Sqlite(_) => "e.number > c.number",
            Self::Postgres(_) => "(e.xid, e.number) > (c.xid, c.number)",
        };
        let sql = format!(
            "SELECT (SELECT count(*) FROM outbox e JOIN decide_cursors c ON c.slot = e.slot WHERE {entries})
                  + (SELECT count(*) FROM records r JOIN publish_cursors p ON p.slot = r.slot WHERE r.number > p.number)
                  AS count"
        );
        self.read(&sql)[0]["count"].as_u64().expect("a count")
    }

    /// Whether the database finds itself sound.
    pub(crate) fn is_sound(&self) -> bool {
        match self {
            Self::Sqlite(file) => Database::open(file).is_sound(),
            // It says so at each read, or does not.
            Self::Postgres(_) => true,
        }
    }

    /// Bytes as a hexadecimal text.
    pub(crate) fn hex(&self, column: &str) -> String {
        match self {
            Self::Sqlite(_) => format!("lower(hex({column}))"),
            Self::Postgres(_) => format!("encode({column}, 'hex')"),
        }
    }

    /// An order's id without hyphens.
    pub(crate) fn order_id(&self, column: &str) -> String {
        match self {
            Self::Sqlite(_) => self.hex(column),
            Self::Postgres(_) => format!("replace({column}::text, '-', '')"),
        }
    }

    /// A text that may be kept as bytes.
    pub(crate) fn text(&self, column: &str) -> String {
        match self {
            Self::Sqlite(_) => column.to_owned(),
            Self::Postgres(_) => format!("convert_from({column}, 'UTF8')"),
        }
    }
}

const AUDIT_SQLITE: &str = "
    CREATE TABLE IF NOT EXISTS proof_moves (
        id INTEGER PRIMARY KEY, cursor TEXT, slot INTEGER, old TEXT, new TEXT, epoch INTEGER, owner TEXT, writer TEXT);
    CREATE TRIGGER IF NOT EXISTS proof_decide AFTER UPDATE ON decide_cursors WHEN old.number <> new.number BEGIN
        INSERT INTO proof_moves (cursor, slot, old, new, epoch, owner, writer)
        SELECT 'decide', new.slot, old.number, new.number, s.epoch, s.owner, '' FROM slots s WHERE s.slot = new.slot;
    END;
    CREATE TRIGGER IF NOT EXISTS proof_publish AFTER UPDATE ON publish_cursors WHEN old.number <> new.number BEGIN
        INSERT INTO proof_moves (cursor, slot, old, new, epoch, owner, writer)
        SELECT 'publish', new.slot, old.number, new.number, s.epoch, s.owner, '' FROM slots s WHERE s.slot = new.slot;
    END;";

/// The name of a session is `sluice NODE`; a node's name is what a slot's owner is called.
///
/// The owner is the one of the tenure: a transaction that locked its lease rows in time may end after its node gave the slot
/// back, since a take-over waits for it (PROTOCOL O3).
const AUDIT_POSTGRES: &str = "
    CREATE TABLE IF NOT EXISTS proof_tenures (slot integer, epoch bigint, owner text, PRIMARY KEY (slot, epoch));
    CREATE OR REPLACE FUNCTION proof_tenure() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO proof_tenures VALUES (new.slot, new.epoch, new.owner) ON CONFLICT DO NOTHING;
        RETURN NULL;
    END $$;
    CREATE OR REPLACE TRIGGER proof_tenure AFTER UPDATE ON slots FOR EACH ROW
        WHEN (new.epoch <> old.epoch) EXECUTE FUNCTION proof_tenure();
    INSERT INTO proof_tenures SELECT slot, epoch, owner FROM slots WHERE owner <> '' ON CONFLICT DO NOTHING;
    CREATE TABLE IF NOT EXISTS proof_moves (
        id bigserial PRIMARY KEY, cursor text, slot integer, old text, new text, epoch bigint, owner text, writer text);
    CREATE OR REPLACE FUNCTION proof_decide() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO proof_moves (cursor, slot, old, new, epoch, owner, writer)
        SELECT 'decide', new.slot, old.xid || ':' || old.number, new.xid || ':' || new.number, s.epoch,
               coalesce(t.owner, s.owner), replace(current_setting('application_name'), 'sluice ', '')
        FROM slots s LEFT JOIN proof_tenures t USING (slot, epoch) WHERE s.slot = new.slot;
        RETURN NULL;
    END $$;
    CREATE OR REPLACE FUNCTION proof_publish() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO proof_moves (cursor, slot, old, new, epoch, owner, writer)
        SELECT 'publish', new.slot, old.number, new.number, s.epoch,
               coalesce(t.owner, s.owner), replace(current_setting('application_name'), 'sluice ', '')
        FROM slots s LEFT JOIN proof_tenures t USING (slot, epoch) WHERE s.slot = new.slot;
        RETURN NULL;
    END $$;
    CREATE OR REPLACE TRIGGER proof_decide AFTER UPDATE ON decide_cursors FOR EACH ROW
        WHEN (old.xid <> new.xid OR old.number <> new.number) EXECUTE FUNCTION proof_decide();
    CREATE OR REPLACE TRIGGER proof_publish AFTER UPDATE ON publish_cursors FOR EACH ROW
        WHEN (old.number <> new.number) EXECUTE FUNCTION proof_publish();";
