//! What the tests of the whole gateway share: they start the real program and see only what a client, a service
//! behind Kafka or an operator sees.
//!
//! ```text
//! TestGateway ── starts ──> sluice dev | sluice run      (gateway, program, log)
//!      ├── Client, Stream ── HTTP and SSE ──>            (http, sse)
//!      ├── Broker, Topic, Services ── Kafka ──>          (broker, services)
//!      └── database: read-only                           (database)
//! ```
//!
//! Without an outside broker a gateway runs as `sluice dev`. With `SLUICE_TEST_KAFKA=host:port` the same tests run as
//! `sluice run` against that broker, on topics of their own, and the harness plays the two services.
//! PostgreSQL is started where it is needed (postgres); with `SLUICE_TEST_DATABASE=postgres` gateways keep their orders there.

pub mod broker;
pub mod database;
pub mod disk;
pub mod environment;
pub mod gateway;
pub mod guests;
pub mod http;
pub mod kafka;
pub mod log;
pub mod orders;
pub mod postgres;
pub mod program;
pub mod proxy;
pub mod random;
pub mod services;
pub mod sse;
pub mod wait;

pub use broker::{Broker, Topic};
pub use gateway::{Builder, Route, TestGateway, shared};
pub use http::{Answer, Client};
pub use orders::{Accepted, FINAL, order, order_of};
pub use wait::{RaisedOnDrop, wait_until, wait_until_async};
