//! Writes to the gateway's log.

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Of use to the plugin's author.
    Debug,
    /// Worth a line.
    Info,
    /// Should not happen, does no harm.
    Warn,
    /// Somebody has to look.
    Error,
}

/// Writes a line to the gateway's log, with the plugin's name beside it.
///
/// Long lines are cut and too many are dropped. In a native build the line goes nowhere.
pub fn log(level: Level, message: &str) {
    #[cfg(target_arch = "wasm32")]
    crate::guest::write_log(level, message);
    #[cfg(not(target_arch = "wasm32"))]
    let _ = (level, message);
}
