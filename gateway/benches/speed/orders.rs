//! Orders like real ones, all of the same length.

/// Customers that order; their keys spread over all slots.
const CUSTOMERS: usize = 997;

/// Order number `number`: two lines, 320 bytes.
pub(crate) fn body(number: usize) -> String {
    let customer = 10_000 + number % CUSTOMERS;
    let lines = concat!(
        r#"[{"stockCode":"85123A","description":"WHITE HANGING HEART T-LIGHT HOLDER","quantity":6,"unitPrice":"2.55"},"#,
        r#"{"stockCode":"71053","description":"WHITE METAL LANTERN","quantity":6,"unitPrice":"3.39"}]"#
    );
    format!(
        r#"{{"invoiceNo":"{:06}","customerId":"{customer}","country":"United Kingdom","orderedAt":"12/1/10 8:26","currency":"GBP","lines":{lines}}}"#,
        500_000 + number % 500_000
    )
}

/// The same as a request that is ready to be sent.
pub(crate) fn request(number: usize) -> Vec<u8> {
    let body = body(number);
    format!(
        "POST /orders HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
