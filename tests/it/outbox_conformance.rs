//! What every database behind the outbox must do, one sentence per test; a second database joins by a variant of
//! [`Backend`].
//!
//! Only the outbox's public functions are used, and the time is set by hand. What no function shows is read from the
//! closed file.

mod dead;
mod deciding;
mod owning;
mod publishing;
mod reading;
mod replies;
mod retention;
mod storage;
mod taking_in;
mod versions;
mod world;

use world::World;

/// The databases the suite runs on.
#[derive(Debug, Clone, Copy)]
pub(super) enum Backend {
    Sqlite,
}

/// Runs a test of the suite on every database.
macro_rules! conformance {
    ($($(#[$meta:meta])* async fn $name:ident($world:ident) $body:block)+) => { $(
        $(#[$meta])*
        #[test]
        fn $name() {
            for backend in [crate::outbox_conformance::Backend::Sqlite] {
                crate::outbox_conformance::run(backend, async |$world: &crate::outbox_conformance::world::World| $body);
            }
        }
    )+ };
}
use conformance;

fn run(backend: Backend, test: impl AsyncFnOnce(&World)) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let world = World::open(backend).await;
        test(&world).await;
        world.keeps_count().await;
    });
}
