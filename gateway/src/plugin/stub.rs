//! What plugins get that insist on WASI: everything is denied, and the rest is the same in every instance.
//!
//! The clock is a counter that starts at one second and moves by a millisecond with each look; random numbers are a
//! fixed sequence; output goes nowhere; there are no files, no network, no arguments and no environment; leaving is
//! a trap.

pub(super) mod preview1;
pub(super) mod wasi;

/// Nanoseconds that the clock begins with.
const NOW: u64 = 1_000_000_000;

/// Nanoseconds between two looks at the clock.
const STEP: u64 = 1_000_000;

/// The first state of the random numbers.
const SEED: u64 = 0x9E37_79B9_7F4A_7C15;

/// The clock and the random numbers of one instance.
#[derive(Debug)]
pub(super) struct Stub {
    now: u64,
    random: u64,
}

impl Default for Stub {
    fn default() -> Self {
        Self { now: NOW, random: SEED }
    }
}

impl Stub {
    /// The time in nanoseconds; never the same twice.
    fn now(&mut self) -> u64 {
        self.now = self.now.wrapping_add(STEP);
        self.now
    }

    /// Lets time pass.
    fn pass(&mut self, nanos: u64) {
        self.now = self.now.wrapping_add(nanos);
    }

    /// The next number of an xorshift sequence.
    fn next(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    /// The next random byte.
    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }
}
