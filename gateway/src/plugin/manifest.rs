//! The manifest that a plugin's file carries in a custom section: what its author says of it.

use serde::{Deserialize, Serialize};

/// Name of the custom section.
pub const SECTION: &str = "sluice:manifest";

/// Most bytes of a manifest.
const BYTES_MAX: usize = 64 << 10;

/// What a plugin's author says of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub name: String,
    pub version: String,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub language: String,
    /// `validator`, `enricher` or `bytes`.
    #[serde(default)]
    pub world: String,
    /// Where it may change orders: JSON Pointers, with all below them. None: anywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patch: Option<Vec<String>>,
}

impl Manifest {
    /// Reads the contents of the section.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > BYTES_MAX {
            return Err(format!("it has {} bytes, more than {BYTES_MAX}", bytes.len()));
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let mut paths = manifest.patch.iter().flatten();
        match paths.find(|path| !path.is_empty() && !path.starts_with('/')) {
            Some(path) => Err(format!("`patch` has `{}`, which is no JSON Pointer", path.escape_debug())),
            None => Ok(manifest),
        }
    }
}
