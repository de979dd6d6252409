//! Connections and transactions on them.
//!
//! No state of a session outlives a transaction: settings are made for it alone, in the same message as `BEGIN`, so a pooler
//! may hand each transaction another session. Inside a transaction that holds a lease's row nothing is waited for but
//! the database (PROTOCOL O4).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgPool, PgQueryResult, PgRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Postgres, Row};
use tokio::sync::Semaphore;
use tracing::{error, info};

use super::failure::{Fate, fate};
use crate::clock::Timestamp;

/// How often a transaction is begun on another connection before the database counts as away: idle connections may all
/// have died with the server.
const BEGIN_TRIES: usize = 64;
/// How long a connection is waited for while the database is known to be away.
const AWAY_WAIT: Duration = Duration::from_millis(250);
/// Lock of the schema and of the partitions, among the advisory locks of the database: "sluice" in ASCII.
pub(super) const ADVISORY_LOCK: i64 = 0x73_6c_75_69_63_65;

/// How the server is to plan: a plan that was made while the tables were nearly empty is kept on the connection until they
/// are next analysed, and one that reads a whole table then does so under the locks of every commit. What is asked for here
/// has an index, so nothing else is worth a try, nor a compilation.
const PLANS: [(&str, &str); 4] =
    [("enable_seqscan", "off"), ("enable_hashjoin", "off"), ("enable_mergejoin", "off"), ("jit", "off")];
/// The statements of a write do the same whatever their parameters are, and few orders often share one: planning it anew would
/// cost more than running it.
const KEPT_PLANS: (&str, &str) = ("plan_cache_mode", "force_generic_plan");
/// Reading in the order of an index leaves no other way.
const IN_ORDER: [(&str, &str); 3] =
    [("enable_sort", "off"), ("enable_bitmapscan", "off"), ("max_parallel_workers_per_gather", "0")];
/// A number for the transaction that asks.
const NEXT_NUMBER: &str = "SELECT nextval('numbers')";

/// A statement with its parameters.
pub(super) type Statement = Query<'static, Postgres, PgArguments>;

/// The pool, and how sessions are set.
#[derive(Debug)]
pub(super) struct Sessions {
    pool: PgPool,
    /// Whether statements stay prepared on their connection.
    pub(super) prepared: bool,
    answer_timeout: Duration,
    lease_ms: AtomicU64,
    /// Whether a connection did not come, and nothing was answered since.
    is_away: AtomicBool,
    /// How many messages were answered.
    answers: AtomicU64,
    /// Held by the one that is connecting with patience meanwhile.
    probe: Arc<Semaphore>,
    /// Whether the server, left alone, would answer a commit before it is on disk.
    pub(super) lazy_commits: bool,
}

/// What a transaction is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Write,
    /// A write that must survive the process, not the machine.
    WriteSoon,
    /// Reads of one moment.
    Read,
    /// The same in the order of an index, whatever the planner expects: it may not read all there is and sort it.
    ReadInOrder,
}

impl Sessions {
    pub(super) fn new(pool: PgPool, prepared: bool, answer_timeout: Duration, lease: Duration) -> Self {
        let lease_ms = AtomicU64::new(u64::try_from(lease.as_millis()).unwrap_or(u64::MAX));
        let (is_away, probe) = (AtomicBool::new(false), Arc::new(Semaphore::new(1)));
        Self {
            pool,
            prepared,
            answer_timeout,
            lease_ms,
            is_away,
            answers: AtomicU64::new(0),
            probe,
            lazy_commits: false,
        }
    }

    /// Takes over how long leases are; limits inside transactions follow from it.
    pub(super) fn set_lease(&self, lease: Duration) {
        self.lease_ms.store(u64::try_from(lease.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// A statement of ours.
    pub(super) fn statement(&self, sql: &'static str) -> Statement {
        sqlx::query(sql).persistent(self.prepared)
    }

    /// Begins a transaction.
    pub(super) async fn begin(&self, kind: Kind) -> Result<Tx<'_>, sqlx::Error> {
        self.begin_by(self.begin_text(kind)).await.map(|(tx, _)| tx)
    }

    /// Begins a transaction that writes and locks no order, and takes its block of numbers in the same message.
    pub(super) async fn begin_numbered(&self) -> Result<(Tx<'_>, i64), sqlx::Error> {
        let (tx, rows) = self.begin_by(format!("{};{NEXT_NUMBER}", self.begin_text(Kind::Write))).await?;
        let number = rows.last().ok_or(sqlx::Error::RowNotFound)?.try_get(0)?;
        Ok((tx, number))
    }

    /// Runs a transaction without parameters in one message. It may run twice where the answer to the first is lost.
    pub(super) async fn run(&self, kind: Kind, text: &str) -> Result<(), sqlx::Error> {
        let (mut tx, _) = self.begin_by(format!("{};{text};COMMIT", self.begin_text(kind))).await?;
        tx.is_open = false;
        Ok(())
    }

    fn begin_text(&self, kind: Kind) -> String {
        let lease = Duration::from_millis(self.lease_ms.load(Ordering::Relaxed));
        begin_text(kind, lease, self.answer_timeout, self.lazy_commits)
    }

    async fn begin_by(&self, text: String) -> Result<(Tx<'_>, Vec<PgRow>), sqlx::Error> {
        for _ in 0..BEGIN_TRIES {
            let mut conn = self.acquire().await?;
            let begun = self.in_time(sqlx::raw_sql(AssertSqlSafe(text.clone())).fetch_all(&mut *conn)).await;
            match begun {
                Ok(rows) => {
                    self.answered();
                    let begun_at = rows.first().map_or(Ok(0), |row| row.try_get(0)).map(Timestamp);
                    let tx = Tx { sessions: self, conn, is_open: true, statements: 1, begun_at: begun_at? };
                    return Ok((tx, rows));
                }
                // Nothing was done on it yet, so another connection may do it.
                Err(error) => {
                    conn.close_on_drop();
                    if fate(&error) != Fate::Away || !is_stale(&error) {
                        return Err(error);
                    }
                }
            }
        }
        Err(sqlx::Error::PoolTimedOut)
    }

    /// A connection. While the database is away no caller waits long for it, so that each can tell theirs soon.
    async fn acquire(&self) -> Result<PoolConnection<Postgres>, sqlx::Error> {
        let answers = self.answers.load(Ordering::Relaxed);
        let acquired = if self.is_away.load(Ordering::Relaxed) {
            self.probe();
            let soon = tokio::time::timeout(AWAY_WAIT, self.pool.acquire()).await;
            soon.unwrap_or(Err(sqlx::Error::PoolTimedOut))
        } else {
            self.pool.acquire().await
        };
        // Where others were answered meanwhile, it is only that there are too few connections.
        let is_silent = acquired.is_err() && self.answers.load(Ordering::Relaxed) == answers;
        if is_silent && !self.is_away.swap(true, Ordering::Relaxed) {
            error!("PostgreSQL is away: no connection comes; it is tried again until one does");
        }
        acquired
    }

    /// Connects in the background, unless that is under way: the connection stays in the pool for the next caller, however
    /// long it took.
    fn probe(&self) {
        if let Ok(permit) = Arc::clone(&self.probe).try_acquire_owned() {
            let pool = self.pool.clone();
            super::spawn(async move {
                // Whoever needs one tells of the error.
                drop(pool.acquire().await);
                drop(permit);
            });
        }
    }

    fn answered(&self) {
        self.answers.fetch_add(1, Ordering::Relaxed);
        if self.is_away.load(Ordering::Relaxed) && self.is_away.swap(false, Ordering::Relaxed) {
            info!("PostgreSQL answers again");
        }
    }

    /// An answer that does not come is an error of the network.
    async fn in_time<T>(&self, work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
        // The server's own limit comes first where it can.
        let limit = self.answer_timeout + self.answer_timeout / 4;
        match tokio::time::timeout(limit, work).await {
            Ok(result) => result,
            Err(_) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
        }
    }

    /// Runs one statement that only reads.
    pub(super) async fn rows(
        &self,
        sql: &'static str,
        bind: impl Fn(Statement) -> Statement,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        if !self.prepared {
            // Parsing and running are two messages, which a pooler would hand to two sessions.
            return self.rows_within(Kind::Read, sql, bind).await;
        }
        for _ in 0..BEGIN_TRIES {
            let mut conn = self.acquire().await?;
            match self.in_time(bind(self.statement(sql)).fetch_all(&mut *conn)).await {
                Ok(rows) => {
                    self.answered();
                    return Ok(rows);
                }
                Err(error) => {
                    if is_stale(&error) {
                        conn.close_on_drop();
                        continue;
                    }
                    if error.as_database_error().is_none() {
                        conn.close_on_drop();
                    }
                    return Err(error);
                }
            }
        }
        Err(sqlx::Error::PoolTimedOut)
    }

    /// Runs one statement that only reads in a transaction of its own.
    ///
    /// A connection keeps the plan of a text, so what is to be read in order has a text that is used for nothing else.
    pub(super) async fn rows_within(
        &self,
        kind: Kind,
        sql: &'static str,
        bind: impl Fn(Statement) -> Statement,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        let mut tx = self.begin(kind).await?;
        let rows = tx.rows(bind(tx.statement(sql))).await?;
        tx.commit("").await?;
        Ok(rows)
    }
}

/// Begins a transaction, and answers with the time by the server's clock in the first column.
///
/// Frozen nodes must not hold what others wait for: both limits are half a lease, which has at least two thirds to go when
/// a node that renews in time freezes. Others wait for keys and orders too, whatever the lease, so neither is longer than an
/// answer may take.
fn begin_text(kind: Kind, lease: Duration, answer_timeout: Duration, lazy_commits: bool) -> String {
    let limit = (lease / 2).min(answer_timeout).as_millis().max(1).to_string();
    let answer = answer_timeout.as_millis().to_string();
    let mut settings = vec![
        ("idle_in_transaction_session_timeout", limit.as_str()),
        ("tcp_user_timeout", limit.as_str()),
        ("statement_timeout", answer.as_str()),
    ];
    settings.extend(PLANS);
    match kind {
        Kind::Write => {
            settings.push(KEPT_PLANS);
            settings.extend(lazy_commits.then_some(("synchronous_commit", "on")));
        }
        Kind::WriteSoon => settings.push(("synchronous_commit", "off")),
        Kind::ReadInOrder => settings.extend(IN_ORDER),
        Kind::Read => {}
    }
    // One statement for all: a `SET LOCAL` costs 3 to 6 microseconds, and there are ten.
    let settings = settings.iter().map(|(name, value)| format!(",set_config('{name}','{value}',true)"));
    format!(
        "BEGIN ISOLATION LEVEL {};SELECT (extract(epoch FROM clock_timestamp())*1000)::bigint{}",
        match kind {
            Kind::Write | Kind::WriteSoon => "READ COMMITTED READ WRITE",
            Kind::Read | Kind::ReadInOrder => "REPEATABLE READ READ ONLY",
        },
        settings.collect::<String>()
    )
}

/// Whether the connection had died before it was used, by all that can be seen.
fn is_stale(error: &sqlx::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    match error {
        sqlx::Error::Io(error) => {
            matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
        }
        // Ended by an operator, or by the server on its way down.
        other => super::failure::code(other).is_some_and(|code| matches!(code.as_str(), "57P01" | "57P02")),
    }
}

/// A transaction under way. Dropped before its end it is rolled back by closing its connection.
#[derive(Debug)]
pub(super) struct Tx<'s> {
    sessions: &'s Sessions,
    conn: PoolConnection<Postgres>,
    is_open: bool,
    statements: u64,
    /// When it began by the server's clock.
    pub(super) begun_at: Timestamp,
}

impl Tx<'_> {
    /// A statement of ours.
    pub(super) fn statement(&self, sql: &'static str) -> Statement {
        self.sessions.statement(sql)
    }

    /// How many statements, or messages with some, it has run; its commit is one more.
    pub(super) fn statements(&self) -> u64 {
        self.statements + 1
    }

    /// A block of numbers.
    pub(super) async fn next_number(&mut self) -> Result<i64, sqlx::Error> {
        let row = self.row(self.statement(NEXT_NUMBER)).await?;
        row.ok_or(sqlx::Error::RowNotFound)?.try_get(0)
    }

    pub(super) async fn rows(&mut self, statement: Statement) -> Result<Vec<PgRow>, sqlx::Error> {
        self.statements += 1;
        self.sessions.in_time(statement.fetch_all(&mut *self.conn)).await
    }

    pub(super) async fn row(&mut self, statement: Statement) -> Result<Option<PgRow>, sqlx::Error> {
        self.statements += 1;
        self.sessions.in_time(statement.fetch_optional(&mut *self.conn)).await
    }

    pub(super) async fn execute(&mut self, statement: Statement) -> Result<u64, sqlx::Error> {
        self.statements += 1;
        let done = self.sessions.in_time(statement.execute(&mut *self.conn)).await;
        done.map(|done: PgQueryResult| done.rows_affected())
    }

    /// Runs statements without parameters, all in one message.
    pub(super) async fn run(&mut self, text: String) -> Result<(), sqlx::Error> {
        self.sessions.in_time(sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut *self.conn)).await.map(|_| ())
    }

    /// The same without a limit in time: for what waits for another node, or takes as long as it takes.
    pub(super) async fn run_patiently(&mut self, text: String) -> Result<(), sqlx::Error> {
        sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut *self.conn).await.map(|_| ())
    }

    /// Commits, after what is left to run without parameters, in one message.
    pub(super) async fn commit(self, last: &str) -> Result<(), sqlx::Error> {
        if last.is_empty() { self.end("COMMIT").await } else { self.end(&format!("{last};COMMIT")).await }
    }

    /// Ends it without a trace; where that fails the connection is closed, which does the same.
    pub(super) async fn roll_back(self) {
        // Told by whoever rolls back, with the reason.
        drop(self.end("ROLLBACK").await);
    }

    async fn end(mut self, text: &str) -> Result<(), sqlx::Error> {
        self.run(text.to_owned()).await?;
        self.is_open = false;
        Ok(())
    }
}

impl Drop for Tx<'_> {
    fn drop(&mut self) {
        if self.is_open {
            self.conn.close_on_drop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_inside_a_transaction_is_limited_by_half_a_lease_and_by_what_an_answer_may_take() {
        let limits = |lease, answer| {
            let text = begin_text(Kind::Write, Duration::from_secs(lease), Duration::from_secs(answer), false);
            let found = |name: &str| {
                let (_, rest) = text.split_once(&format!("set_config('{name}','")).expect("it is set");
                rest.split_once('\'').expect("a value").0.parse::<u64>().expect("milliseconds")
            };
            (found("idle_in_transaction_session_timeout"), found("tcp_user_timeout"))
        };
        assert_eq!(limits(10, 10), (5_000, 5_000));
        assert_eq!(limits(600, 10), (10_000, 10_000));
    }

    #[test]
    fn only_what_may_be_lost_with_the_machine_does_not_wait_for_the_disk() {
        let text = |kind, lazy| begin_text(kind, Duration::from_secs(1), Duration::from_secs(1), lazy);
        assert!(!text(Kind::Write, false).contains("synchronous_commit"));
        assert!(text(Kind::Write, true).contains("'synchronous_commit','on'"));
        assert!(text(Kind::WriteSoon, true).contains("'synchronous_commit','off'"));
    }
}
