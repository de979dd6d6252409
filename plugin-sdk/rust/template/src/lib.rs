//! Refuses orders with too many lines and counts the lines of the others.

use serde::Deserialize;
use sluice_plugin::{Level, Order, Patch, Plugin, Problem, Verdict, log};

/// The operator's configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LineLimit {
    #[serde(default = "lines_max")]
    lines_max: usize,
}

fn lines_max() -> usize {
    100
}

/// What is read of an order.
#[derive(Deserialize)]
struct Lines {
    lines: Vec<serde::de::IgnoredAny>,
}

impl Plugin for LineLimit {
    type Config = Self;

    /// Called once, before all else. Keep it cheap: an instance lives for one batch of orders.
    fn configure(config: Self) -> Result<Self, Vec<Problem>> {
        Ok(config)
    }

    /// Judges one order. A panic becomes a fault: the order is held, and nothing is lost.
    fn judge(&self, order: &Order) -> Verdict {
        let Ok(Lines { lines }) = order.read() else {
            return Problem::new("lines-missing", "The order has no lines").at("/lines").into();
        };
        if lines.len() > self.lines_max {
            let detail = format!("{} lines, at most {} are allowed", lines.len(), self.lines_max);
            log(Level::Info, &detail);
            return Problem::new("too-many-lines", "The order has too many lines").detail(detail).at("/lines").into();
        }
        Patch::new().set("/lineCount", &lines.len()).into()
    }
}

sluice_plugin::export!(LineLimit);

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_plugin::testing::Harness;

    #[test]
    fn lines_are_counted_up_to_the_limit() {
        let plugin = Harness::<LineLimit>::new(r#"{"lines_max":2}"#).unwrap();
        assert_eq!(plugin.judge(r#"{"lines":[1,2]}"#), Patch::new().set("/lineCount", &2).into());
        assert_eq!(plugin.judge(r#"{"lines":[1,2,3]}"#).pointers(), ["/lines"]);
    }

    #[test]
    fn a_limit_that_is_no_number_is_refused() {
        assert!(Harness::<LineLimit>::new(r#"{"lines_max":"many"}"#).is_err());
    }
}
