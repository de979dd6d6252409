//! What every database behind the outbox must do, one sentence per test: each runs on SQLite and on PostgreSQL.
//!
//! Only the outbox's public functions are used, and the time is set by hand. What no function shows is read from the
//! closed file.

mod cursors;
mod dead;
mod deciding;
mod frozen;
mod meeting;
mod nodes;
mod owning;
mod publishing;
mod reading;
mod replies;
mod retention;
mod several;
mod storage;
mod taking_in;
mod versions;
mod world;

use world::World;

/// The databases the suite runs on.
#[derive(Debug, Clone, Copy)]
pub(super) enum Backend {
    Sqlite,
    Postgres,
}

/// Makes of each test of the suite one per database.
macro_rules! conformance {
    ($($(#[$meta:meta])* async fn $name:ident($world:ident) $body:block)+) => { $(
        async fn $name($world: &crate::outbox_conformance::world::World) $body

        mod $name {
            use crate::outbox_conformance::{Backend, run};

            $(#[$meta])*
            #[test]
            fn on_sqlite() {
                run(Backend::Sqlite, super::$name);
            }

            $(#[$meta])*
            #[test]
            fn on_postgres() {
                run(Backend::Postgres, super::$name);
            }
        }
    )+ };
}
use conformance;

#[expect(clippy::disallowed_methods, reason = "it ends with the runtime of the test")]
fn spawn<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> tokio::task::JoinHandle<T> {
    tokio::spawn(work)
}

fn run(backend: Backend, test: impl AsyncFnOnce(&World)) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let Some(world) = World::open(backend).await else { return };
        test(&world).await;
        world.keeps_count().await;
    });
}
