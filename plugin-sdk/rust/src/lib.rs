//! Write plugins for the Sluice event gateway in Rust.
//!
//! A whole plugin that refuses the orders of blocked customers:
//!
//! ```
//! use sluice_plugin::{Order, Plugin, Problem, Verdict};
//!
//! #[derive(serde::Deserialize)]
//! struct Blocklist { blocked: Vec<String> }
//!
//! impl Plugin for Blocklist {
//!     type Config = Self;
//!     fn configure(config: Self) -> Result<Self, Vec<Problem>> { Ok(config) }
//!     fn judge(&self, order: &Order) -> Verdict {
//!         let customer: Option<String> = order.get("/customerId");
//!         if !self.blocked.iter().any(|blocked| Some(blocked) == customer.as_ref()) { return Verdict::Accept; }
//!         Problem::new("customer-blocked", "This customer cannot order").at("/customerId").into()
//!     }
//! }
//! sluice_plugin::export!(Blocklist);
//!
//! # use sluice_plugin::testing::Harness;
//! # fn main() {
//! // Its unit test, without WebAssembly:
//! let plugin = Harness::<Blocklist>::new(r#"{"blocked":["mallory"]}"#).unwrap();
//! assert_eq!(plugin.judge(r#"{"customerId":"alice"}"#), Verdict::Accept);
//! assert_eq!(plugin.judge(r#"{"customerId":"mallory"}"#).pointers(), ["/customerId"]);
//! # }
//! ```
//!
//! The crate of a plugin has `crate-type = ["cdylib", "rlib"]` and is built for `wasm32-unknown-unknown`. What a plugin
//! may do, the limits it runs under and what becomes of its failures is in this crate's README.
//!
//! The contract is `sluice:plugin@1.1.0`; this crate hides it behind [`Plugin`], one [`Order`] at a time.

#![deny(missing_docs)]

#[cfg(any(test, all(target_arch = "wasm32", feature = "allocator")))]
mod allocator;
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod guest;
mod log;
pub mod lookup;
pub mod metrics;
mod order;
pub mod testing;
mod verdict;

use serde::de::DeserializeOwned;

pub use log::{Level, log};
pub use order::{NotReadable, Order};
pub use verdict::{Fault, Patch, PatchOp, Problem, Verdict};

/// What a plugin has to say.
///
/// The value is made by [`configure`](Plugin::configure) and lives for one batch of orders: nothing it learns from one
/// batch reaches the next.
pub trait Plugin: Sized + 'static {
    /// The operator's configuration, read from JSON. An empty one is `{}`.
    type Config: DeserializeOwned;

    /// Makes the plugin from its configuration.
    ///
    /// # Errors
    ///
    /// What is wrong with the configuration. The gateway then refuses the plugin and shows the problems.
    fn configure(config: Self::Config) -> Result<Self, Vec<Problem>>;

    /// Judges one order. A panic holds the order and counts as the plugin's fault.
    fn judge(&self, order: &Order) -> Verdict;
}

/// Reads the configuration and makes the plugin; what both the gateway and the test harness do first.
fn configured<P: Plugin>(config: &[u8]) -> Result<P, Vec<Problem>> {
    let invalid = || Problem::new("invalid-configuration", "Invalid configuration");
    // Derived types would take an array of their members as well.
    if !config.trim_ascii_start().starts_with(b"{") {
        return Err(vec![invalid().detail("expected a JSON object")]);
    }
    P::configure(serde_json::from_slice(config).map_err(|error| vec![invalid().detail(error)])?)
}

/// Makes a type that implements [`Plugin`] the plugin of this crate. Does nothing in a native build.
#[macro_export]
macro_rules! export {
    ($plugin:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            std::thread_local! {
                static PLUGIN: $crate::guest::Slot<$plugin> = const { $crate::guest::Slot::empty() };
            }
            struct Guest;
            impl $crate::guest::Lifecycle for Guest {
                fn configure(config: Vec<u8>) -> Result<(), Vec<$crate::guest::WitProblem>> {
                    PLUGIN.with(|slot| slot.configure(&config))
                }
            }
            impl $crate::guest::Processor for Guest {
                fn process(batch: Vec<$crate::guest::Event>) -> Vec<$crate::guest::Outcome> {
                    PLUGIN.with(|slot| slot.process(batch))
                }
            }
    $crate::guest::bindings::export_plugin!(Guest with_types_in $crate::guest::bindings);
        };
    };
}
