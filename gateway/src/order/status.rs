//! The states of an order and the only transitions between them, as one pure function.

use std::fmt;
use std::str::FromStr;

/// What the client sees of its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OrderStatus {
    /// Accepted, on its way to Kafka.
    Pending,
    /// Waits: for a plugin, behind another order of its key, or for the operator.
    Held,
    /// On Kafka. Final on a route that expects no reply.
    Published,
    /// All required replies came. Final.
    Validated,
    /// Refused by a plugin or by a reply. Final.
    Rejected,
    /// The reply deadline passed. Final.
    Expired,
    /// Taken back by the client, or discarded by the operator. Final.
    Cancelled,
}

impl OrderStatus {
    /// Every status, in the order of an order's life.
    pub const ALL: [Self; 7] =
        [Self::Pending, Self::Held, Self::Published, Self::Validated, Self::Rejected, Self::Expired, Self::Cancelled];

    /// The word on the wire and in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Held => "HELD",
            Self::Published => "PUBLISHED",
            Self::Validated => "VALIDATED",
            Self::Rejected => "REJECTED",
            Self::Expired => "EXPIRED",
            Self::Cancelled => "CANCELLED",
        }
    }

    /// Whether nothing can follow, on a route that expects replies or on one that does not.
    #[must_use]
    pub fn is_final(self, expects_replies: bool) -> bool {
        match self {
            Self::Pending | Self::Held => false,
            Self::Published => !expects_replies,
            Self::Validated | Self::Rejected | Self::Expired | Self::Cancelled => true,
        }
    }
}

impl fmt::Display for OrderStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that names no status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a status: expected one of PENDING, HELD, PUBLISHED, VALIDATED, REJECTED, EXPIRED, CANCELLED")]
pub struct UnknownStatus;

impl FromStr for OrderStatus {
    type Err = UnknownStatus;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|status| status.as_str() == text).ok_or(UnknownStatus)
    }
}

/// What can happen to an order after it was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrderEvent {
    /// It must wait: for a plugin, behind another order, or for the operator.
    Hold,
    /// The plugins let it pass; its record is in the log.
    Pass,
    /// Kafka has its record.
    Publish,
    /// Kafka refused its record for good.
    Refuse,
    /// A plugin or a reply said no.
    Reject,
    /// The required replies are complete.
    Validate,
    /// The deadline passed without them.
    Expire,
    /// Its record goes out once more to a broker that forgot it.
    Republish,
    /// The client takes it back, or the operator discards it.
    Cancel,
}

/// The status after `event`, or `None` where the event has no effect on that status.
///
/// `PENDING` on [`OrderEvent::Pass`] stays `PENDING`: deciding alone changes nothing a client sees.
#[must_use]
pub fn transition(status: OrderStatus, expects_replies: bool, event: OrderEvent) -> Option<OrderStatus> {
    use OrderEvent as E;
    use OrderStatus as S;
    if status.is_final(expects_replies) {
        return None;
    }
    match (status, event) {
        (S::Pending | S::Held, E::Hold) => Some(S::Held),
        (S::Pending | S::Held, E::Pass) => Some(S::Pending),
        (S::Pending, E::Publish) | (S::Published, E::Republish) => Some(S::Published),
        (S::Pending, E::Refuse) => Some(S::Held),
        (S::Pending | S::Held | S::Published, E::Reject) => Some(S::Rejected),
        (S::Published, E::Validate) => Some(S::Validated),
        (S::Published, E::Expire) => Some(S::Expired),
        (S::Pending | S::Held | S::Published, E::Cancel) => Some(S::Cancelled),
        (S::Held, E::Publish | E::Refuse | E::Validate | E::Expire | E::Republish)
        | (S::Pending, E::Validate | E::Expire | E::Republish)
        | (S::Published, E::Hold | E::Pass | E::Publish | E::Refuse)
        | (S::Validated | S::Rejected | S::Expired | S::Cancelled, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: [OrderEvent; 9] = [
        OrderEvent::Hold,
        OrderEvent::Pass,
        OrderEvent::Publish,
        OrderEvent::Refuse,
        OrderEvent::Reject,
        OrderEvent::Validate,
        OrderEvent::Expire,
        OrderEvent::Republish,
        OrderEvent::Cancel,
    ];

    /// One row per status, one column per event of `EVENTS`; `-` means no effect.
    const EXPECTED: [(OrderStatus, [&str; 9]); 7] = [
        (OrderStatus::Pending, ["HELD", "PENDING", "PUBLISHED", "HELD", "REJECTED", "-", "-", "-", "CANCELLED"]),
        (OrderStatus::Held, ["HELD", "PENDING", "-", "-", "REJECTED", "-", "-", "-", "CANCELLED"]),
        (OrderStatus::Published, ["-", "-", "-", "-", "REJECTED", "VALIDATED", "EXPIRED", "PUBLISHED", "CANCELLED"]),
        (OrderStatus::Validated, ["-"; 9]),
        (OrderStatus::Rejected, ["-"; 9]),
        (OrderStatus::Expired, ["-"; 9]),
        (OrderStatus::Cancelled, ["-"; 9]),
    ];

    #[test]
    fn every_pair_of_status_and_event_is_as_the_table_says() {
        for (status, row) in EXPECTED {
            for (event, expected) in EVENTS.into_iter().zip(row) {
                let after = transition(status, true, event).map_or("-", OrderStatus::as_str);
                assert_eq!(after, expected, "{status} on {event:?}");
            }
        }
    }

    #[test]
    fn published_is_final_where_no_reply_is_expected() {
        for event in EVENTS {
            assert_eq!(transition(OrderStatus::Published, false, event), None, "{event:?}");
        }
    }

    #[test]
    fn a_status_reads_back_from_its_word() {
        for status in OrderStatus::ALL {
            assert_eq!(status.as_str().parse(), Ok(status));
        }
        assert_eq!("LOST".parse::<OrderStatus>(), Err(UnknownStatus));
    }
}
