//! Sluice: orders in over REST, through WebAssembly plugins, out on Kafka, nothing lost.
//!
//! ```text
//! POST → http → intake → outbox ─(entries)→ relay → plugin
//!                          │                  └─(records)→ publisher → Kafka
//! GET, SSE ← http ← status ←┴─(history)─ replies ← subscriber ← Kafka
//! ```
//!
//! Modules stand in the order of the layers: words, ground, doors, flows, edge, root. See `ARCHITECTURE.md`.

pub mod clock;
pub mod dead;
pub mod entry;
pub mod order;
pub mod record;
pub mod reply;
pub mod retry;
pub mod route;

pub mod config;
pub mod crash;
pub mod lifecycle;
pub mod ownership;
pub mod pace;
pub mod telemetry;

pub mod broker;
pub mod folder;
pub mod outbox;
pub mod plugin;
pub mod publisher;
pub mod subscriber;

pub mod admin;
pub mod catalog;
pub mod intake;
pub mod janitor;
pub mod relay;
pub mod replies;
pub mod status;

pub mod http;

pub mod cli;
pub mod dev;
pub mod doctor;
pub mod gateway;
pub mod workbench;
