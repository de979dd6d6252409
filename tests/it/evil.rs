//! Plugins that mean harm, through the real program: each hurts its own orders, says so, and hurts nothing else.
//!
//! The table is three lists of [`Evil`], and an entry is all that a new one takes:
//!
//! | list | what is in it | who looks |
//! |---|---|---|
//! | [`component`] | plugins of the contract's interfaces | [`judged`] |
//! | [`bytes`] | plugins of the bytes ABI | [`judged`] |
//! | [`files`] | what lies in the folder of plugins and is none | [`files`] |
//!
//! The first two are judged on routes of their own in one gateway, one evil order among innocent ones. What can be refused
//! at once is put into the folder of a running gateway, in the place of a good one.

mod bytes;
mod component;
mod files;
mod judged;
mod on_fault;

use harness::guests::evil::{Bytes, Component};

/// A hostile plugin and what has to come of it.
struct Evil {
    /// Its name, and that of its route.
    name: &'static str,
    guest: Guest,
    expect: Expect,
    /// Bytes added to the evil order, for those that take aim at its length.
    padding: usize,
    /// What the operator set for it: keys below `plugins.policy.NAME`, and their values in TOML.
    policy: &'static [(&'static str, &'static str)],
}

enum Guest {
    Component(Component),
    Bytes(Bytes),
}

impl Guest {
    fn build(&self) -> Vec<u8> {
        match self {
            Self::Component(guest) => guest.build(),
            Self::Bytes(guest) => guest.build(),
        }
    }
}

/// What becomes of the evil order. The innocent ones always go through.
enum Expect {
    /// HELD, for a fault of this kind; the words stand in the detail.
    Fault(&'static str, &'static str),
    /// HELD, because the plugin asked for it.
    Waits(&'static str),
    /// REJECTED with so many problems.
    Rejected(usize),
    /// PUBLISHED, and these bytes stand in it.
    Passes(&'static str),
}

impl Evil {
    const fn new(name: &'static str, guest: Guest, expect: Expect) -> Self {
        Self { name, guest, expect, padding: 0, policy: &[] }
    }

    const fn padded(self, padding: usize) -> Self {
        Self { padding, ..self }
    }

    const fn under(self, policy: &'static [(&'static str, &'static str)]) -> Self {
        Self { policy, ..self }
    }

    /// The evil order: valid, but for what the plugin makes of it.
    fn order(&self, customer: &str) -> String {
        let note = "x".repeat(self.padding);
        format!(r#"{{"evil":1,"customerId":"{customer}","note":"{note}"}}"#)
    }
}

/// All that is judged.
fn judged() -> Vec<Evil> {
    let mut all = component::all();
    all.extend(bytes::all());
    all
}

#[test]
fn there_are_enough_of_them() {
    let all: Vec<&str> = judged().iter().map(|evil| evil.name).chain(files::names()).collect();
    let names: std::collections::BTreeSet<_> = all.iter().collect();
    assert_eq!(names.len(), all.len(), "two of the same name");
    assert!(names.len() >= 25, "{}", names.len());
}
