//! Writes the document that a plugin of the bytes lane is asked with.

use crate::plugin::call::Event;

/// One JSON document for the batch; the configuration and the orders stand in it byte by byte.
pub(super) fn write(config_json: &[u8], events: &[Event<'_>]) -> Vec<u8> {
    let bytes: usize = events.iter().map(|event| event.body.len() + 256).sum();
    let mut document = Vec::with_capacity(64 + config_json.len() + bytes);
    document.extend_from_slice(b"{\"abi\":1,\"config\":");
    document.extend_from_slice(config_json);
    document.extend_from_slice(b",\"events\":[");
    for (index, event) in events.iter().enumerate() {
        if index > 0 {
            document.push(b',');
        }
        document.extend_from_slice(format!("{{\"seq\":{}", event.seq).as_bytes());
        for (name, value) in
            [("id", event.id), ("route", event.route), ("kind", event.kind), ("received", event.received)]
        {
            document.extend_from_slice(format!(",\"{name}\":").as_bytes());
            string(&mut document, value);
        }
        document.extend_from_slice(format!(",\"attempt\":{},\"attrs\":{{", event.attempt).as_bytes());
        for (index, (name, value)) in event.attrs.iter().enumerate() {
            if index > 0 {
                document.push(b',');
            }
            string(&mut document, name);
            document.push(b':');
            string(&mut document, value);
        }
        document.extend_from_slice(b"},\"order\":");
        document.extend_from_slice(event.body);
        document.push(b'}');
    }
    document.extend_from_slice(b"]}");
    document
}

fn string(document: &mut Vec<u8>, text: &str) {
    // A text into memory: neither can fail.
    serde_json::to_writer(document, text).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_members_stand_in_their_sequence_and_orders_as_they_are() {
        let attrs = [("traceparent", "00-ab")];
        let event = |seq, body, attrs| Event {
            seq,
            id: "019-x",
            route: "/orders",
            kind: "Order\"Created",
            received: "2026-11-25T03:26:49.000Z",
            attempt: 2,
            attrs,
            body,
        };
        let events = [event(0, br#"{ "a":1.50 }"#.as_slice(), attrs.as_slice()), event(1, b"{}", &[])];
        let expected = r#"{"abi":1,"config":{"x": 1},"events":[{"seq":0,"id":"019-x","route":"/orders","kind":"Order\"Created","received":"2026-11-25T03:26:49.000Z","attempt":2,"attrs":{"traceparent":"00-ab"},"order":{ "a":1.50 }},{"seq":1,"id":"019-x","route":"/orders","kind":"Order\"Created","received":"2026-11-25T03:26:49.000Z","attempt":2,"attrs":{},"order":{}}]}"#;
        assert_eq!(String::from_utf8(write(br#"{"x": 1}"#, &events)).unwrap(), expected);
        assert_eq!(write(b"{}", &[]), br#"{"abi":1,"config":{},"events":[]}"#);
    }
}
