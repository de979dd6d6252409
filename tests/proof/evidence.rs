//! Everything a run leaves behind, gathered in one place for the judge: histories, rows, records, measurements.

use std::collections::BTreeMap;
use std::time::Duration;

use harness::broker::Seen;
use serde_json::Value;

use crate::history::Call;
use crate::store::Store;

/// What is judged. Plain data, so that the judge's own tests can spoil it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Evidence {
    pub(crate) calls: Vec<Call>,
    pub(crate) orders: Vec<StoredOrder>,
    pub(crate) versions: Vec<StoredVersion>,
    pub(crate) log: Vec<LoggedRecord>,
    /// Whether nothing was removed from the log.
    pub(crate) log_is_whole: bool,
    pub(crate) moves: Vec<CursorMove>,
    pub(crate) orders_topic: Vec<Seen>,
    pub(crate) outcomes_topic: Vec<Seen>,
    /// What each order looks like at the nodes, once all is quiet: order, node, version.
    pub(crate) looks: Vec<(String, usize, u64)>,
    pub(crate) neighbors: Vec<Neighbor>,
    pub(crate) samples: Vec<Sample>,
    /// How long everything took to come to its end once nothing was disturbed any more; `None`: it did not.
    pub(crate) drained_in: Option<Duration>,
    /// Nodes that are not ready at the end, and why.
    pub(crate) unready: Vec<String>,
}

/// A row of `orders`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredOrder {
    pub(crate) id: String,
    pub(crate) order_key: String,
    pub(crate) slot: i64,
    pub(crate) status: String,
    pub(crate) is_final: bool,
    pub(crate) version: u64,
    pub(crate) has_record: bool,
    pub(crate) redrives: u64,
    /// Whether it says why, where it was refused or waits.
    pub(crate) has_reason: bool,
    pub(crate) is_dead: bool,
    /// `serial` of its bodies, oldest first.
    pub(crate) serials: Vec<String>,
}

/// A row of `history` that is a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredVersion {
    pub(crate) order: String,
    pub(crate) version: u64,
    pub(crate) status: String,
    pub(crate) is_final: bool,
}

/// A row of `records`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LoggedRecord {
    pub(crate) slot: i64,
    pub(crate) number: i64,
    pub(crate) order: String,
    pub(crate) is_outcome: bool,
    pub(crate) id: String,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
}

/// A move of a cursor, as the database saw it happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CursorMove {
    /// `decide` or `publish`.
    pub(crate) cursor: String,
    pub(crate) slot: i64,
    pub(crate) from: String,
    pub(crate) to: String,
    /// Of the slot's tenure, at that moment.
    pub(crate) epoch: i64,
    pub(crate) owner: String,
    /// Who moved it; empty where the database cannot tell.
    pub(crate) writer: String,
}

/// An order of an innocent key, posted beside a poisonous one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Neighbor {
    pub(crate) order: String,
    pub(crate) settled_in: Duration,
}

/// What a node used at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) node: usize,
    pub(crate) resident_bytes: u64,
    pub(crate) open_files: usize,
    pub(crate) threads: usize,
}

impl Evidence {
    /// Reads what the database holds.
    pub(crate) fn read_database(&mut self, store: &Store) {
        let mut serials: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let sql = format!(
            "SELECT {} AS order_id, version, status, is_final, {} AS body FROM history ORDER BY order_id, sequence",
            store.order_id("order_id"),
            store.hex("body"),
        );
        for row in store.read(&sql) {
            let order = text(&row, "order_id");
            let body = bytes(&row, "body");
            if !body.is_empty() {
                serials.entry(order.clone()).or_default().push(serial_of(&body));
            }
            let Some(status) = row["status"].as_str() else { continue };
            let (version, is_final) = (number(&row, "version").unsigned_abs(), truth(&row, "is_final"));
            self.versions.push(StoredVersion { order, version, status: status.to_owned(), is_final });
        }
        let sql = format!(
            "SELECT {} AS id, {} AS order_key, slot, status, is_final, version, has_record, redrives, problems, held
             FROM orders ORDER BY id",
            store.order_id("id"),
            store.text("order_key"),
        );
        for row in store.read(&sql) {
            let id = text(&row, "id");
            self.orders.push(StoredOrder {
                order_key: text(&row, "order_key"),
                slot: number(&row, "slot"),
                status: text(&row, "status"),
                is_final: truth(&row, "is_final"),
                version: number(&row, "version").unsigned_abs(),
                has_record: truth(&row, "has_record"),
                redrives: number(&row, "redrives").unsigned_abs(),
                has_reason: row["problems"].as_str().is_some_and(|text| text.len() > 2) || !row["held"].is_null(),
                is_dead: row["held"].as_str().is_some_and(|text| text.contains("\"dead\"")),
                serials: serials.remove(&id).unwrap_or_default(),
                id,
            });
        }
        let sql = format!(
            "SELECT slot, number, {} AS order_id, is_outcome, {} AS record_key, headers, {} AS value
             FROM records ORDER BY slot, number",
            store.order_id("order_id"),
            store.hex("record_key"),
            store.hex("value"),
        );
        for row in store.read(&sql) {
            self.log.push(LoggedRecord {
                slot: number(&row, "slot"),
                number: number(&row, "number"),
                order: text(&row, "order_id"),
                is_outcome: truth(&row, "is_outcome"),
                id: header(row["headers"].as_str().unwrap_or_default(), "ce_id"),
                key: bytes(&row, "record_key"),
                value: bytes(&row, "value"),
            });
        }
        for row in store.read("SELECT cursor, slot, old, new, epoch, owner, writer FROM proof_moves ORDER BY id") {
            self.moves.push(CursorMove {
                cursor: text(&row, "cursor"),
                slot: number(&row, "slot"),
                from: text(&row, "old"),
                to: text(&row, "new"),
                epoch: number(&row, "epoch"),
                owner: text(&row, "owner"),
                writer: text(&row, "writer"),
            });
        }
    }
}

fn text(row: &Value, name: &str) -> String {
    match &row[name] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn number(row: &Value, name: &str) -> i64 {
    row[name].as_i64().unwrap_or_else(|| panic!("`{name}` is no number: {row}"))
}

fn truth(row: &Value, name: &str) -> bool {
    row[name].as_bool().unwrap_or_else(|| row[name].as_i64().unwrap_or(0) != 0)
}

fn bytes(row: &Value, name: &str) -> Vec<u8> {
    let text = row[name].as_str().unwrap_or_default();
    (0..text.len() / 2).filter_map(|at| u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()).collect()
}

/// The serial number that the client wrote into a body.
pub(crate) fn serial_of(body: &[u8]) -> String {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    body["serial"].as_str().unwrap_or_default().to_owned()
}

/// A header's value in the JSON that the log keeps headers as.
fn header(headers: &str, name: &str) -> String {
    let headers: Value = serde_json::from_str(headers).unwrap_or_default();
    let of_pair = |pair: &Value| (pair[0] == name).then(|| pair[1].as_str().unwrap_or_default().to_owned());
    match &headers {
        Value::Array(pairs) => pairs.iter().find_map(of_pair).unwrap_or_default(),
        Value::Object(members) => members.get(name).and_then(Value::as_str).unwrap_or_default().to_owned(),
        _ => String::new(),
    }
}

/// An order's id as the database's bytes show it: without hyphens.
pub(crate) fn plain(id: &str) -> String {
    id.replace('-', "")
}
