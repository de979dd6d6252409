//! Makes a backlog by SQL, in the shape in which the gateway writes: transactions of some orders, each with its history and
//! its entry, under ids and numbers that rise.

use anyhow::ensure;
use sluice::config::Config;
use sluice::order::Slot;
use sqlx::{AssertSqlSafe, Executor, Row};

use super::orders::{self, CUSTOMERS};
use super::services::Postgres;

/// Orders of one transaction.
const TRANSACTION: u64 = 64;
/// Orders between two looks at the partitions.
const STEP: u64 = 500_000;
/// Sessions that write.
const WRITERS: u64 = 2;

/// One transaction for every 64 orders, as the lanes would write them.
const FILL: &str = r#"
CREATE OR REPLACE PROCEDURE fill(first bigint, count bigint, size bigint) LANGUAGE plpgsql AS $$
DECLARE
    base bigint;
    done bigint := 0;
    rows bigint;
    moment bigint;
BEGIN
    WHILE done < count LOOP
        rows := least(size, count - done);
        base := nextval('numbers');
        moment := (extract(epoch FROM clock_timestamp()) * 1000)::bigint;
        WITH n AS MATERIALIZED (
            SELECT i, (lpad(to_hex(moment), 12, '0') || '7' || lpad(to_hex(i), 3, '0') || substr(gen_random_uuid()::text, 19))::uuid AS id,
                   k.order_key, k.slot, md5(random()::text) AS trace,
                   format(k.body, lpad(((first + done + i) % 500000 + 500000)::text, 6, '0')) AS body
            FROM generate_series(0, rows - 1) i JOIN customers k ON k.number = (first + done + i) % 997
        ), o AS (
            INSERT INTO orders (id, route, order_key, slot, status, accepted_at, updated_at, traceparent, body_at)
            SELECT id, '/orders', order_key, slot, 'PENDING', moment, moment, '00-' || trace || '-' || substr(trace, 1, 16) || '-01',
                   base + 2 * i + 1 FROM n
        ), h AS (
            INSERT INTO history (order_id, sequence, version, at, status, is_final, entries, body)
            SELECT id, base + 2 * i + 1, 1, moment, 'PENDING', false, '[{"kind":"accepted"}]', convert_to(body, 'UTF8') FROM n
        )
        INSERT INTO outbox (number, slot, kind, order_id, at) SELECT base + 2 * i + 2, slot, 'order', id, moment FROM n ORDER BY i;
        UPDATE order_counts SET pending = pending + rows WHERE order_counts.part = base / 1048576 % 64;
        done := done + rows;
        COMMIT;
    END LOOP;
END $$"#;

/// Adds so many orders that wait to a database, which has its schema.
pub(crate) async fn fill(postgres: &Postgres, config: &Config, database: &str, orders: u64) -> anyhow::Result<()> {
    let mut session = postgres.connect(database).await?;
    let has_customers = "SELECT to_regclass('customers') IS NOT NULL";
    if !session.fetch_one(has_customers).await?.try_get::<bool, _>(0)? {
        session
            .execute("CREATE TABLE customers (number bigint PRIMARY KEY, order_key bytea, slot smallint, body text)")
            .await?;
        let rows = (0..CUSTOMERS).map(|number| {
            let key = orders::customer(number);
            let body = orders::body(number).replacen(&orders::invoice(number), "%s", 1);
            format!("({number}, '{key}', {}, '{body}')", Slot::of("/orders", &key).0)
        });
        let sql = format!("INSERT INTO customers VALUES {}", rows.collect::<Vec<_>>().join(","));
        session.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await?;
    }
    session.execute(sqlx::raw_sql(FILL)).await?;
    let mut done = 0;
    while done < orders {
        // Opening the database makes partitions ahead.
        sluice::outbox::prepare(&config.database).await?;
        let step = STEP.min(orders - done);
        let writer = |first: u64, count: u64| async move {
            let mut session = postgres.connect(database).await?;
            session.execute("SET synchronous_commit = off").await?;
            let call = format!("CALL fill({first}, {count}, {TRANSACTION})");
            session.execute(sqlx::raw_sql(AssertSqlSafe(call))).await?;
            anyhow::Ok(())
        };
        let share = step / WRITERS;
        tokio::try_join!(writer(done, share), writer(done + share, step - share))?;
        done += step;
    }
    let counted = session.fetch_one("SELECT sum(pending)::bigint FROM order_counts").await?.try_get::<i64, _>(0)?;
    ensure!(counted.unsigned_abs() >= orders, "{counted} orders were made");
    session.execute("VACUUM (ANALYZE)").await?;
    session.execute("CHECKPOINT").await?;
    Ok(())
}

/// Lets all but the last `left` entries of a database count as carried, without touching an order.
pub(crate) async fn carry_all_but(postgres: &Postgres, database: &str, left: u64) -> anyhow::Result<()> {
    let sql = format!(
        "UPDATE decide_cursors c SET xid = e.xid, number = e.number
         FROM (SELECT xid, number FROM outbox ORDER BY xid DESC, number DESC OFFSET {left} LIMIT 1) e;
         UPDATE order_counts SET pending = CASE part WHEN 0 THEN {left} ELSE 0 END"
    );
    postgres.run(database, &sql).await
}
