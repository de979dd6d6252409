//! What those who follow orders go on with: whoever asks while a read is under way shares the next one.
//!
//! A change wakes everybody who follows at the same moment. A lone question waits for one read, a crowd shares one, and a
//! reader rests after each, so that more share the next. A stream asks one question at a time, so the queue is no longer
//! than there are streams.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::Row;
use sqlx::postgres::PgRow;
use tokio::sync::{Mutex, mpsc, oneshot};

use super::Shared;
use super::failure::{again, answer};
use super::load::{ORDER_COLUMNS, read_order, select_orders};
use super::session::{Kind, Sessions};
use super::values::Columns;
use crate::order::{OrderId, OrderView};
use crate::outbox::OutboxError;
use crate::outbox::reading::{self, Rebuild, StoredRow, StoredVersion, Versions, shows_patch};
use crate::outbox::state::OrderState;
use crate::pace::Pace;

/// How many reads may be under way at the same time.
const READERS: usize = 2;
/// Longest rest of a reader after a read.
const REST_MAX: Duration = Duration::from_millis(5);
/// Questions in one read: the histories of so many orders are in memory at the same time.
const QUESTIONS_MAX: usize = 64;
/// Columns of what is read, behind those of the order: which question it answers, then the row of history.
const PLACE: usize = ORDER_COLUMNS;
const SEQUENCE: usize = PLACE + 1;
const VERSION: usize = PLACE + 2;
const BODY: usize = VERSION + 7;
const PATCH: usize = VERSION + 8;

/// What comes after a version of an order, and where the answer goes.
struct Question {
    id: OrderId,
    version: u64,
    answer: oneshot::Sender<Result<Option<Versions>, OutboxError>>,
}

/// The queue in front of the readers.
#[derive(Debug)]
pub(super) struct Following {
    queue: mpsc::UnboundedSender<Question>,
}

impl std::fmt::Debug for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Question").field("id", &self.id).field("version", &self.version).finish_non_exhaustive()
    }
}

impl Following {
    /// Starts readers; they end when this is dropped.
    pub(super) fn start(shared: &Arc<Shared>) -> Self {
        let (queue, waiting) = mpsc::unbounded_channel();
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..READERS {
            super::spawn(run(Arc::clone(shared), Arc::clone(&waiting)));
        }
        Self { queue }
    }

    /// What `GET` showed at each version above `version`; `None` if there is no such order.
    pub(super) async fn versions(&self, id: OrderId, version: u64) -> Result<Option<Versions>, OutboxError> {
        let (answer, versions) = oneshot::channel();
        self.queue.send(Question { id, version, answer }).map_err(|_| OutboxError::Unavailable)?;
        versions.await.map_err(|_| OutboxError::Unavailable)?
    }
}

async fn run(shared: Arc<Shared>, waiting: Arc<Mutex<mpsc::UnboundedReceiver<Question>>>) {
    let mut pace = Pace::new(REST_MAX);
    loop {
        let mut questions = Vec::new();
        pace.rest().await;
        if waiting.lock().await.recv_many(&mut questions, QUESTIONS_MAX).await == 0 {
            return;
        }
        let (begun, count) = (Instant::now(), questions.len());
        // Whoever asked may have gone meanwhile.
        match read(&shared.sessions, &questions).await {
            Ok(orders) => {
                for (question, rows) in questions.into_iter().zip(orders) {
                    let versions = versions(&rows, question.version);
                    drop(question.answer.send(versions));
                }
            }
            Err(error) => {
                let failure = answer(&error);
                questions.into_iter().for_each(|question| drop(question.answer.send(Err(again(&failure)))));
            }
        }
        pace.worked(begun.elapsed(), count >= QUESTIONS_MAX, Instant::now());
    }
}

/// For each question the order with each row of its history; one row without history where nothing came after the version.
async fn read(sessions: &Sessions, questions: &[Question]) -> Result<Vec<Vec<PgRow>>, sqlx::Error> {
    let ids: Vec<uuid::Uuid> = questions.iter().map(|question| question.id.0).collect();
    let versions: Vec<i64> = questions.iter().map(|own| i64::try_from(own.version).unwrap_or(i64::MAX)).collect();
    let sql = select_orders!(
        ", n.place, h.sequence, h.version, h.at, h.status, h.is_final, h.problems, h.held, h.deadline_at, h.body, h.patch
         FROM unnest($1::uuid[], $2::bigint[]) WITH ORDINALITY AS n (id, version, place)
         CROSS JOIN LATERAL (SELECT * FROM orders WHERE id = n.id LIMIT 1) o
         LEFT JOIN LATERAL (
             SELECT * FROM history WHERE order_id = n.id AND o.version <> n.version ORDER BY sequence) h ON true
         ORDER BY n.place, h.sequence"
    );
    let rows = sessions.rows_within(Kind::Read, sql, |statement| statement.bind(ids.clone()).bind(versions.clone()));
    let mut orders: Vec<Vec<PgRow>> = questions.iter().map(|_| Vec::new()).collect();
    for row in rows.await? {
        let place = usize::try_from(row.number(PLACE)?).unwrap_or_default();
        if let Some(order) = place.checked_sub(1).and_then(|index| orders.get_mut(index)) {
            order.push(row);
        }
    }
    Ok(orders)
}

/// Rebuilds from history what `GET` showed at each version above `version`.
fn versions(rows: &[PgRow], version: u64) -> Result<Option<Versions>, OutboxError> {
    let Some(first) = rows.first() else { return Ok(None) };
    let state = read_order(first).map_err(|error| answer(&error))?;
    if state.version.unsigned_abs() == version {
        return Ok(Some(Versions::Next(Vec::new())));
    }
    let mut rebuild = Rebuild::new(&state, version);
    for row in rows {
        rebuild.push(past_row(row).map_err(|error| answer(&error))?)?;
    }
    match rebuild.whole() {
        Some(versions) => Ok(Some(Versions::Next(versions))),
        None => present(state, rows).map(|present| Some(Versions::Gone(present))),
    }
}

/// The order as it is now.
fn present(state: OrderState, rows: &[PgRow]) -> Result<OrderView, OutboxError> {
    let stored = |sequence: i64, column: usize| {
        let row = rows.iter().find(|row| row.number_or_none(SEQUENCE).is_ok_and(|own| own == Some(sequence)));
        row.map_or(Ok(None), |row| row.try_get::<Option<Vec<u8>>, _>(column)).map_err(|error| answer(&error))
    };
    let body = stored(state.body_at, BODY)?.ok_or(OutboxError::Unavailable)?;
    let patch = match state.patch_at {
        Some(sequence) if shows_patch(state.status) => stored(sequence, PATCH)?,
        _ => None,
    };
    reading::view(state, body, patch.as_deref())
}

fn past_row(row: &PgRow) -> Result<StoredRow, sqlx::Error> {
    let version = match row.text_or_none(VERSION + 2)? {
        None => None,
        Some(_) => Some(StoredVersion {
            number: row.number(VERSION)?,
            at: row.time(VERSION + 1)?,
            status: row.status(VERSION + 2)?,
            is_final: row.flag(VERSION + 3)?,
            problems: row.json(VERSION + 4)?,
            held: row.json(VERSION + 5)?,
            deadline_at: row.time_or_none(VERSION + 6)?,
        }),
    };
    Ok(StoredRow { body: row.try_get(BODY)?, patch: row.try_get(PATCH)?, version })
}
