//! Numbers for the operator, on the gateway's metrics page. To be granted by the operator.
//!
//! A name is a lower-case word of letters, digits and `_`, at most 64 bytes. How many names a plugin may have and how often
//! it may call is limited; what is beyond is dropped and counted. What a batch reports counts only if its call succeeds.

/// Adds to a counter.
pub fn count(name: &str, by: u32) {
    #[cfg(target_arch = "wasm32")]
    crate::guest::count(name, by);
    #[cfg(not(target_arch = "wasm32"))]
    crate::testing::count(name, by);
}

/// Notes one value of a distribution. NaN and infinities are dropped.
pub fn observe(name: &str, value: f64) {
    #[cfg(target_arch = "wasm32")]
    crate::guest::observe(name, value);
    #[cfg(not(target_arch = "wasm32"))]
    crate::testing::observe(name, value);
}
