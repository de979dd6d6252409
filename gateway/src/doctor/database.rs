//! Whether the database can be had and is one that this program understands.

use std::time::Duration;

use super::{Fault, Finding, State, clocks};
use crate::clock::Clock;
use crate::config::DatabaseConfig;
use crate::outbox::{self, ConnectError, DatabaseFacts, OpenError};

const CHECK: &str = "database";

pub(super) fn examine(config: &DatabaseConfig, clock: &Clock, limit: Duration) -> Vec<Finding> {
    let shown = config.shown_url();
    let facts = match outbox::examine(config, clock, limit) {
        Ok(facts) => facts,
        Err(error) => {
            let said = crate::telemetry::chain(&error).to_string();
            let (fault, advice) = blame(&error);
            return vec![Finding::bad((CHECK, &shown), State::Failed, said, fault, advice)];
        }
    };
    let mut findings = vec![judge(&shown, &facts)];
    findings.extend(facts.time.map(|(theirs, ours, uncertain)| {
        clocks::judge("the database's clock", theirs, ours, uncertain, Fault::Machine)
    }));
    findings
}

fn judge(shown: &str, facts: &DatabaseFacts) -> Finding {
    let DatabaseFacts { product, schema, known, is_in_use, damage, .. } = facts;
    if let Some(damage) = damage {
        let advice = "stop the node and restore a backup; what was published since goes out again with the same ids";
        return Finding::bad((CHECK, shown), State::Failed, format!("is damaged: {damage}"), Fault::Database, advice);
    }
    let used = if *is_in_use { ", in use by a running node" } else { "" };
    match schema {
        None => Finding::ok(CHECK, shown, format!("{product}: is not there yet, the first start makes it")),
        Some(schema) if schema < known => {
            Finding::ok(CHECK, shown, format!("{product}, schema {schema}; the next start brings it to {known}{used}"))
        }
        Some(schema) => Finding::ok(CHECK, shown, format!("{product}, schema {schema}{used}")),
    }
}

fn blame(error: &OpenError) -> (Fault, &'static str) {
    match error {
        OpenError::UnknownScheme(_) => (Fault::Configuration, "correct database.url"),
        OpenError::Lock { .. } => (Fault::Machine, "make the folder, and let this user write to it"),
        OpenError::InUse(_) => (Fault::Configuration, "stop the other node, or give this one another database.url"),
        OpenError::Newer { .. } => {
            (Fault::Configuration, "use the newer program, or the backup made before it was started")
        }
        OpenError::Postgres(error) => match error {
            ConnectError::Url(_) | ConnectError::Standby(_) => (Fault::Configuration, "correct database.url"),
            ConnectError::Newer { .. } => {
                (Fault::Configuration, "use the newer program, or the backup made before it was started")
            }
            ConnectError::Unreachable { .. } => (Fault::Database, "start the server, or correct database.url"),
            _ => (Fault::Database, "correct database.url, or what it says on the server"),
        },
        _ => (Fault::Database, "see that database.url names a database of Sluice's; else restore a backup"),
    }
}
