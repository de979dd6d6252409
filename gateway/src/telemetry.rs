//! Logs and metrics: how they are set up and how errors are shown.

pub mod metrics;

use std::error::Error;
use std::fmt;
use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, TelemetryConfig};

pub use metrics::Metrics;

/// Why there is no logging.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up logging")]
pub struct TelemetryError(#[source] Box<dyn Error + Send + Sync>);

/// Starts logging to standard error; colors only on a terminal, and not if `no_color`.
///
/// # Errors
///
/// The directives cannot be read, or logging was set up before.
pub fn init(config: &TelemetryConfig, no_color: bool) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(&config.log).map_err(|error| TelemetryError(error.into()))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match config.format {
        LogFormat::Text => builder.with_ansi(io::stderr().is_terminal() && !no_color).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_ansi(false).try_init(),
    }
    .map_err(TelemetryError)
}

/// Shows an error with all its sources, outermost first.
pub fn chain(error: &dyn Error) -> impl fmt::Display {
    struct Chain<'a>(&'a dyn Error);
    impl fmt::Display for Chain<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{}", self.0)?;
            let mut source = self.0.source();
            while let Some(error) = source {
                write!(f, ": {error}")?;
                source = error.source();
            }
            Ok(())
        }
    }
    Chain(error)
}
