//! Logs and metrics: how they are set up and how errors are shown.

pub mod metrics;

use std::error::Error;
use std::fmt;
use std::io::{self, IsTerminal};
use std::sync::OnceLock;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt as lines, reload};

use crate::config::{LogFormat, TelemetryConfig};

pub use metrics::Metrics;

/// Why there is no logging.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up logging")]
pub struct TelemetryError(#[source] Box<dyn Error + Send + Sync>);

/// Puts another filter in the place of the one that logging was started with.
static REFILTER: OnceLock<Refilter> = OnceLock::new();

type Refilter = Box<dyn Fn(EnvFilter) -> Result<(), TelemetryError> + Send + Sync>;

/// Starts logging to standard error; colors only on a terminal, and not if `no_color`.
///
/// # Errors
///
/// The directives cannot be read, or logging was set up before.
pub fn init(config: &TelemetryConfig, no_color: bool) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(&config.log).map_err(|error| TelemetryError(error.into()))?;
    let (filter, handle) = reload::Layer::new(filter);
    let lines = lines::layer().with_writer(io::stderr);
    let registry = tracing_subscriber::registry().with(filter);
    match config.format {
        LogFormat::Text => registry.with(lines.with_ansi(io::stderr().is_terminal() && !no_color)).try_init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true).with_ansi(false)).try_init(),
    }
    .map_err(|error| TelemetryError(error.into()))?;
    let refilter = move |filter| handle.reload(filter).map_err(|error| TelemetryError(error.into()));
    // Logging was set up just now, for the first time.
    drop(REFILTER.set(Box::new(refilter)));
    Ok(())
}

/// Logs by other directives from now on; without [`init`] there is nothing to change.
///
/// # Errors
///
/// The directives cannot be read.
pub fn set_log(log: &str) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(log).map_err(|error| TelemetryError(error.into()))?;
    REFILTER.get().map_or(Ok(()), |refilter| refilter(filter))
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
