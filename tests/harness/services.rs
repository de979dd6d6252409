//! Plays the two services downstream where the program does not run them itself: over Kafka, only over Kafka.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::broker::{Seen, Sender, Topic};
use crate::orders::{IGNORED, REFUSED};

/// Two services that answer every order at once: `refuse-me` is refused, `ignore-me` gets no answer.
///
/// A record that comes again is answered again, with the same ids, as services do that keep no state.
#[derive(Debug)]
pub struct Services {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Services {
    /// Starts answering on `replies` what stands on `orders`, from its beginning. Both topics exist.
    #[must_use]
    pub fn start(address: &str, orders: &str, replies: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, mut topic, sender) = (Arc::clone(&stop), Topic::open(address, orders), Sender::new(address));
        let replies = replies.to_owned();
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if let Some(seen) = topic.poll(Duration::from_millis(50)) {
                    answer(&sender, &replies, &seen);
                }
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed; the test fails on what is missing.
            drop(thread.join());
        }
    }
}

fn answer(sender: &Sender, replies: &str, seen: &Seen) {
    let order = seen.header("ce_subject");
    let customer = seen.json()["customerId"].as_str().unwrap_or_default().to_owned();
    let consumer = if customer == REFUSED { "ConsumerRejected" } else { "ConsumerValidated" };
    let refusal =
        r#"{"problems":[{"code":"consumer-refused","title":"The consumer may not order","pointer":"/customerId"}]}"#;
    if customer == IGNORED {
        return;
    }
    let answers = [
        ("/consumers", consumer, if customer == REFUSED { refusal } else { "{}" }),
        ("/order-details", "OrderDetailsValidated", "{}"),
    ];
    for (source, kind, body) in answers {
        let id = format!("{order}-{kind}");
        let headers = [
            ("ce_specversion", "1.0"),
            ("ce_id", id.as_str()),
            ("ce_type", kind),
            ("ce_source", source),
            ("ce_subject", order),
        ];
        sender.send(replies, order, &headers, body.as_bytes());
    }
}
