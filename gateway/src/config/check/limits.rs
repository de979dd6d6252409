//! Limits: none is zero that must not be, and all fit each other, so that the largest legal order passes everywhere.

use std::time::Duration;

use crate::config::{Config, Problem};

/// What a record has besides the order: headers, ids, the order key twice.
const RECORD_OVERHEAD_BYTES: usize = 16 << 10;

/// One problem that a plugin reports, generously.
const PROBLEM_BYTES: usize = 1 << 10;

/// A shorter lease would end in the middle of ordinary hiccups.
const LEASE_MIN: Duration = Duration::from_secs(1);

/// The development broker drops silently beyond this, per partition.
const DEV_BROKER_PARTITION_BYTES: usize = 5 << 20;

pub(super) fn check(config: &Config, problems: &mut Vec<Problem>) {
    counts(config, problems);
    times(config, problems);
    sizes(config, problems);
    order(config, problems);
}

fn counts(config: &Config, problems: &mut Vec<Problem>) {
    let (http, plugins) = (&config.http, &config.plugins);
    let database = &config.database;
    let ranges: [(&str, usize, usize, usize); 31] = [
        ("http.connections_max", http.connections_max, 1, 10_000_000),
        ("http.json_depth_max", http.json_depth_max, 1, 127),
        ("http.order_key_bytes_max", http.order_key_bytes_max, 1, 4096),
        ("http.idempotency_key_bytes_max", http.idempotency_key_bytes_max, 1, 4096),
        ("http.batch_lines_max", http.batch_lines_max, 1, 1_000_000),
        ("http.stream_orders_max", http.stream_orders_max, 1, 100_000),
        ("http.list_limit_max", http.list_limit_max, 1, 100_000),
        ("database.readers", database.readers, 1, 256),
        ("database.queue_max", database.queue_max, 1, 10_000_000),
        ("database.commit_items_max", database.commit_items_max, 1, 1_000_000),
        // One lane, one take-over with one to watch it, one for everything else.
        ("database.connections", usize::try_from(database.connections).unwrap_or(usize::MAX), 4, 10_000),
        ("database.lanes", database.lanes, 1, 2),
        (
            "database.partition_transactions",
            usize::try_from(database.partition_transactions).unwrap_or(usize::MAX),
            1024,
            1 << 40,
        ),
        ("relay.pass_entries_max", config.relay.pass_entries_max, 1, 1_000_000),
        ("relay.in_flight_records_max", config.relay.in_flight_records_max, 1, 10_000_000),
        ("plugins.threads", plugins.threads, 1, 1024),
        ("plugins.batch_orders_max", plugins.batch_orders_max, 1, 100_000),
        ("plugins.patch_operations_max", plugins.patch_operations_max, 1, 100_000),
        ("plugins.problems_max", plugins.problems_max, 1, 10_000),
        ("replies.batch_max", config.replies.batch_max, 1, 1_000_000),
        ("retention.step_rows_max", config.retention.step_rows_max, 1, 1_000_000),
        ("dev.partitions", usize::try_from(config.dev.partitions).unwrap_or(0), 1, 1000),
        ("http.list_limit_default", http.list_limit_default, 1, usize::MAX),
        ("intake.backlog_max", usize::try_from(config.intake.backlog_max).unwrap_or(usize::MAX), 1, usize::MAX),
        ("plugins.host_calls_per_order_max", plugins.host_calls_per_order_max, 1, 100_000_000),
        ("plugins.metric_names_max", plugins.metric_names_max, 0, 10_000),
        ("plugins.metric_calls_per_order_max", plugins.metric_calls_per_order_max, 0, 100_000),
        ("plugins.lookups_per_order_max", plugins.lookups_per_order_max, 0, 1_000_000),
        ("plugins.lookup_keys_max", plugins.lookup_keys_max, 1, 1_000_000),
        ("plugins.rollback_orders_min", plugins.rollback_orders_min, 1, 256),
        ("plugins.log_lines_per_order_max", plugins.log_lines_per_order_max, 0, 1_000_000),
    ];
    for (key, value, min, max) in ranges {
        if value < min {
            problems.push(Problem::new(key, format!("must be at least {min}")));
        } else if value > max {
            problems.push(Problem::new(key, format!("must be at most {max}")));
        }
    }
}

fn times(config: &Config, problems: &mut Vec<Problem>) {
    let (http, plugins) = (&config.http, &config.plugins);
    let needed = [
        ("http.first_byte_timeout", http.first_byte_timeout),
        ("http.header_timeout", http.header_timeout),
        ("http.body_timeout", http.body_timeout),
        ("http.write_stall_timeout", http.write_stall_timeout),
        ("http.keep_alive_timeout", http.keep_alive_timeout),
        ("http.heartbeat", http.heartbeat),
        ("database.answer_timeout", config.database.answer_timeout),
        ("node.drain", config.node.drain),
        ("relay.poll_interval", config.relay.poll_interval),
        ("relay.retry_first", config.relay.retry_first),
        ("plugins.poll_interval", plugins.poll_interval),
        ("plugins.compile_time_max", plugins.compile_time_max),
        ("plugins.time_per_order", plugins.time_per_order),
        ("plugins.time_per_batch_min", plugins.time_per_batch_min),
        ("replies.session_timeout", config.replies.session_timeout),
        ("replies.watch_interval", config.replies.watch_interval),
        ("retention.orders", config.retention.orders),
        ("retention.interval", config.retention.interval),
    ];
    for (key, span) in needed {
        if span.0 == Duration::ZERO {
            problems.push(Problem::new(key, "must be longer than nothing"));
        }
    }
    if config.node.lease.0 < LEASE_MIN {
        let reason = format!("must be at least {LEASE_MIN:?}: a pause of the machine would end it");
        problems.push(Problem::new("node.lease", reason));
    }
}

fn sizes(config: &Config, problems: &mut Vec<Problem>) {
    let smallest = [
        ("http.header_bytes_max", config.http.header_bytes_max, 8 << 10),
        ("http.body_bytes_max", config.http.body_bytes_max, 2),
        ("database.cache_bytes", config.database.cache_bytes, 64 << 10),
        ("plugins.file_bytes_max", config.plugins.file_bytes_max, 1 << 10),
        ("plugins.patch_bytes_max", config.plugins.patch_bytes_max, 2),
        ("plugins.text_bytes_max", config.plugins.text_bytes_max, 16),
        // The program itself, before it compiles anything.
        ("plugins.compile_memory_max", config.plugins.compile_memory_max, 256 << 20),
        // A Rust guest needs 17 pages of 64 KiB to start.
        ("plugins.memory_bytes_max", config.plugins.memory_bytes_max, 2 << 20),
    ];
    for (key, size, min) in smallest {
        if size.0 < min {
            problems.push(Problem::new(key, format!("must be at least {min} bytes")));
        }
    }
    if config.dev.republish_bytes_max.0 >= DEV_BROKER_PARTITION_BYTES {
        let reason = "must be below 5MiB: the development broker drops silently beyond that";
        problems.push(Problem::new("dev.republish_bytes_max", reason));
    }
}

/// Each pair in its order, with the reason why.
fn order(config: &Config, problems: &mut Vec<Problem>) {
    let (http, relay, plugins) = (&config.http, &config.relay, &config.plugins);
    let (replies, retention) = (&config.replies, &config.retention);
    let mut fits = |fits: bool, smaller: (&str, String), larger: (&str, String), why: &str| {
        if !fits {
            let reason = format!("`{}` is above {} (`{}`): {why}", smaller.1, larger.0, larger.1);
            problems.push(Problem::new(smaller.0, reason).with(&[larger.0]));
        }
    };
    macro_rules! at_most {
        ($smaller:literal = $a:expr, $larger:literal = $b:expr, $why:literal) => {
            fits($a <= $b, ($smaller, $a.to_string()), ($larger, $b.to_string()), $why)
        };
    }
    at_most!(
        "http.list_limit_default" = http.list_limit_default,
        "http.list_limit_max" = http.list_limit_max,
        "a list without `limit` would be refused"
    );
    at_most!(
        "http.body_bytes_max" = http.body_bytes_max,
        "http.batch_bytes_max" = http.batch_bytes_max,
        "a batch must hold the largest order"
    );
    at_most!(
        "relay.retry_first" = relay.retry_first,
        "relay.retry_max" = relay.retry_max,
        "the first retry would be the longest wait"
    );
    at_most!("relay.retry_max" = relay.retry_max, "relay.hold_max" = relay.hold_max, "a held order would die unasked");
    at_most!(
        "plugins.time_per_batch_min" = plugins.time_per_batch_min,
        "plugins.time_per_batch_max" = plugins.time_per_batch_max,
        "they are the two ends of one range"
    );
    at_most!(
        "plugins.time_per_order" = plugins.time_per_order,
        "plugins.time_per_batch_max" = plugins.time_per_batch_max,
        "not even one order would get its time"
    );
    at_most!(
        "plugins.time_per_batch_max" = plugins.time_per_batch_max,
        "plugins.wall_per_batch_max" = plugins.wall_per_batch_max,
        "a call cannot use more CPU than time"
    );
    at_most!(
        "retention.idempotency" = retention.idempotency,
        "retention.orders" = retention.orders,
        "a repeated request would be answered with an order that is gone"
    );
    at_most!(
        "node.drain" = config.node.drain,
        "node.lease" = config.node.lease,
        "other nodes would wait longer for a slot than for that of a node that died"
    );
    at_most!(
        "replies.watch_interval" = replies.watch_interval,
        "replies.grace" = replies.grace,
        "deadlines would be noticed later than their grace"
    );
    if http.heartbeat >= http.write_stall_timeout {
        let reason = format!(
            "`{}` is not below http.write_stall_timeout (`{}`): a dead client would not be noticed in time",
            http.heartbeat, http.write_stall_timeout
        );
        problems.push(Problem::new("http.heartbeat", reason).with(&["http.write_stall_timeout"]));
    }
    largest_order(config, problems);
}

/// The largest legal order, with all that plugins may add to it, passes every limit on its way.
fn largest_order(config: &Config, problems: &mut Vec<Problem>) {
    let (http, plugins) = (&config.http, &config.plugins);
    let longest_chain = config.route.iter().map(|route| route.plugins.len()).max().unwrap_or(0);
    let added = longest_chain.saturating_mul(plugins.patch_bytes_max.0);
    let order = http.body_bytes_max.0.saturating_add(added);
    let record = order.saturating_add(RECORD_OVERHEAD_BYTES);
    let answer = plugins.patch_bytes_max.0.saturating_add(plugins.problems_max.saturating_mul(PROBLEM_BYTES));
    let order_keys = ["http.body_bytes_max", "plugins.patch_bytes_max", "route"];
    let needs = [
        ("database.commit_bytes_max", config.database.commit_bytes_max.0, http.body_bytes_max.0, &order_keys[..1]),
        ("relay.pass_bytes_max", config.relay.pass_bytes_max.0, order, &order_keys[..]),
        ("plugins.batch_bytes_max", plugins.batch_bytes_max.0, order, &order_keys[..]),
        ("kafka.message_bytes_max", config.kafka.message_bytes_max.0, record, &order_keys[..]),
        ("relay.in_flight_bytes_max", config.relay.in_flight_bytes_max.0, record, &order_keys[..]),
    ];
    for (key, bytes, needed, related) in needs {
        if bytes < needed {
            let reason = format!(
                "is too small for the largest legal order: {needed} bytes with http.body_bytes_max and what {longest_chain} \
                 plugins may add to it"
            );
            problems.push(Problem::new(key, reason).with(related));
        }
    }
    if plugins.output_bytes_max.0 < answer {
        let reason = format!("is too small for the largest legal answer to one order: {answer} bytes");
        let related = ["plugins.patch_bytes_max", "plugins.problems_max"];
        problems.push(Problem::new("plugins.output_bytes_max", reason).with(&related));
    }
    let call = plugins.batch_bytes_max.0.saturating_mul(4);
    if plugins.memory_bytes_max.0 < call {
        let reason = "must be at least four times plugins.batch_bytes_max: a plugin reads and writes what it is given";
        problems.push(Problem::new("plugins.memory_bytes_max", reason).with(&["plugins.batch_bytes_max"]));
    }
}
