//! Tables that the operator keeps, held in the gateway's memory. To be granted by the operator.
//!
//! A look-up never waits and touches no network. All look-ups of a batch see the same tables.

use std::fmt;

/// Why nothing could be looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookupError {
    /// The gateway has no table of this name.
    UnknownTable,
    /// The batch has used up the look-ups it is granted.
    TooMany,
}

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownTable => "there is no table of this name",
            Self::TooMany => "the batch has used up its look-ups",
        })
    }
}

impl std::error::Error for LookupError {}

/// The JSON under a key, as it is written in the table; none if the table does not have the key.
///
/// # Errors
///
/// There is no such table, or the look-ups are used up.
pub fn get(table: &str, key: &str) -> Result<Option<Vec<u8>>, LookupError> {
    #[cfg(target_arch = "wasm32")]
    return crate::guest::look_up(table, key);
    #[cfg(not(target_arch = "wasm32"))]
    crate::testing::look_up(table, key)
}

/// The same for many keys, in their sequence; cheaper than one by one.
///
/// # Errors
///
/// As [`get`].
pub fn get_many(table: &str, keys: &[&str]) -> Result<Vec<Option<Vec<u8>>>, LookupError> {
    #[cfg(target_arch = "wasm32")]
    return crate::guest::look_up_many(table, keys);
    #[cfg(not(target_arch = "wasm32"))]
    keys.iter().map(|key| crate::testing::look_up(table, key)).collect()
}
