//! Server-sent events as bytes: framing, and the ids that resume a stream.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::order::{OrderId, OrderView};

/// A comment that keeps proxies and clients from giving the stream up.
pub(super) const BEAT: &[u8] = b":\n\n";

/// The last words of a stream that ends because the node stops.
pub(super) const GOING_AWAY: &[u8] = b": this node stops; reconnect\n\n";

/// What an event means to its reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EventName {
    /// The next version.
    Status,
    /// What was before is gone; this is the present.
    Reset,
}

/// Appends one event.
pub(super) fn write_event(out: &mut Vec<u8>, name: EventName, id: &str, view: &OrderView) {
    let data = view.to_json();
    out.reserve(data.len() + id.len() + 48);
    out.extend_from_slice(match name {
        EventName::Status => b"event: status\nid: ",
        EventName::Reset => b"event: reset\nid: ",
    });
    out.extend_from_slice(id.as_bytes());
    write_data(out, &data);
    out.extend_from_slice(b"\n\n");
}

/// One `data:` line for each line of the document: orders keep their bytes, line ends between members included.
fn write_data(out: &mut Vec<u8>, data: &[u8]) {
    let mut rest = data;
    loop {
        out.extend_from_slice(b"\ndata: ");
        let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
            out.extend_from_slice(rest);
            return;
        };
        out.extend_from_slice(&rest[..end]);
        let length = if rest[end..].starts_with(b"\r\n") { 2 } else { 1 };
        rest = &rest[end + length..];
    }
}

/// A version as an event id names it: canonical digits, at least 1.
pub(super) fn parse_version(id: &str) -> Option<u64> {
    let is_canonical = !id.starts_with('0') && id.bytes().all(|byte| byte.is_ascii_digit());
    is_canonical.then(|| id.parse().ok()).flatten()
}

/// The id of an event on a stream of many orders: the version of each order, in the order of the request; 0 where nothing
/// was sent yet. It says which orders it is about, so that it resumes no other stream.
pub(super) fn encode_versions(ids: &[OrderId], versions: &[u64]) -> String {
    let mut bytes = Vec::with_capacity(4 + versions.len() * 2);
    bytes.extend_from_slice(&fingerprint(ids));
    for version in versions {
        let mut left = *version;
        while left >= 0x80 {
            bytes.push((left & 0x7f) as u8 | 0x80);
            left >>= 7;
        }
        bytes.push((left & 0x7f) as u8);
    }
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The versions in an id that [`encode_versions`] made for the same orders.
pub(super) fn decode_versions(ids: &[OrderId], id: &str) -> Option<Vec<u64>> {
    let bytes = URL_SAFE_NO_PAD.decode(id).ok()?;
    let rest = bytes.strip_prefix(&fingerprint(ids))?;
    let mut versions = Vec::with_capacity(ids.len());
    let (mut version, mut shift) = (0u64, 0u32);
    for byte in rest {
        version |= u64::from(byte & 0x7f).checked_shl(shift)?;
        shift += 7;
        if byte & 0x80 == 0 {
            versions.push(version);
            (version, shift) = (0, 0);
        }
    }
    (shift == 0 && versions.len() == ids.len()).then_some(versions)
}

/// FNV-1a over the ids.
fn fingerprint(ids: &[OrderId]) -> [u8; 4] {
    let bytes = ids.iter().flat_map(|id| id.as_bytes());
    bytes.fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::clock::Timestamp;
    use crate::order::OrderStatus;

    fn view(body: &'static str) -> OrderView {
        OrderView {
            id: OrderId::generate(),
            route: "/orders".into(),
            status: OrderStatus::Pending,
            is_final: false,
            version: 7,
            accepted_at: Timestamp(0),
            updated_at: Timestamp(0),
            body: Bytes::from_static(body.as_bytes()),
            problems: Vec::new(),
            held: None,
            deadline_at: None,
        }
    }

    #[test]
    fn line_ends_inside_an_order_become_data_lines() {
        let view = view("{\n\"a\":1,\r\n\"b\":2,\r\"c\":\"\\n\"}");
        let mut out = Vec::new();
        write_event(&mut out, EventName::Status, "7", &view);
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("event: status\nid: 7\ndata: {\"id\""), "{text}");
        assert!(text.ends_with("}\n\n") && !text.contains('\r'), "{text}");
        let data: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        assert_eq!(data.len(), 4);
        let read: serde_json::Value = serde_json::from_str(&data.join("\n")).unwrap();
        assert_eq!(read, serde_json::from_slice::<serde_json::Value>(&view.to_json()).unwrap());
    }

    #[test]
    fn only_canonical_versions_are_ids() {
        assert_eq!(["1", "42", "999999"].map(parse_version), [Some(1), Some(42), Some(999_999)]);
        for odd in ["", "0", "01", "-1", "+1", "1e3", "1 ", "é", "99999999999999999999"] {
            assert_eq!(parse_version(odd), None, "{odd}");
        }
    }

    #[test]
    fn versions_of_many_orders_read_back() {
        let ids: Vec<_> = (0..5).map(|_| OrderId::generate()).collect();
        let versions = [0, 1, 127, 128, u64::MAX];
        let id = encode_versions(&ids, &versions);
        assert_eq!(decode_versions(&ids, &id), Some(versions.to_vec()));
        let turned: Vec<_> = ids.iter().rev().copied().collect();
        assert_eq!(decode_versions(&turned, &id), None);
        assert_eq!(decode_versions(&ids[..4], &id), None);
        for odd in ["", "x", "!!", "AAAA", "AAAAAAAAAAAAAAAAAAAAAAA"] {
            assert_eq!(decode_versions(&ids, odd), None, "{odd}");
        }
        let cut = &id[..id.len() - 2];
        assert_eq!(decode_versions(&ids, cut), None);
    }
}
