//! The proof: real processes are killed, frozen and cut off at chosen and at random moments, and a judge looks at all that is
//! left: the clients' own history, the database, the whole topics.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

mod clients;
mod evidence;
mod field;
mod history;
mod judge;
mod judged;
mod points;
mod real_orders;
mod schedule;
mod store;
mod world;
