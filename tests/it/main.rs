//! Tests of the whole gateway: the real program, asked as a client, a service behind Kafka or an operator asks it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

mod bad_input;
mod cli;
mod compiling;
mod config;
mod crash;
mod database_away;
mod dead;
mod doctor;
mod evil;
mod fuzz;
mod idempotency;
mod intake;
mod kafka;
mod languages;
mod nodes;
mod outbox_conformance;
mod overload;
mod plugin_tools;
mod plugins;
mod postgres;
mod real_orders;
mod records;
mod reload;
mod replies;
mod retention;
mod several;
mod shutdown;
mod status;
mod streams;
mod tidy;
