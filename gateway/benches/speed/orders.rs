//! Orders like real ones, all of the same length.

use sluice::intake::Request;

/// Customers that order; their keys spread over all slots.
pub(crate) const CUSTOMERS: usize = 997;

/// The customer of an order, which is its key.
pub(crate) fn customer(number: usize) -> String {
    (10_000 + number % CUSTOMERS).to_string()
}

/// The invoice number of an order.
pub(crate) fn invoice(number: usize) -> String {
    format!("{:06}", 500_000 + number % 500_000)
}

/// Order number `number`: two lines, 320 bytes.
pub(crate) fn body(number: usize) -> String {
    body_of(&customer(number), &invoice(number))
}

/// The same of any customer, under any number.
pub(crate) fn body_of(customer: &str, invoice: &str) -> String {
    let lines = concat!(
        r#"[{"stockCode":"85123A","description":"WHITE HANGING HEART T-LIGHT HOLDER","quantity":6,"unitPrice":"2.55"},"#,
        r#"{"stockCode":"71053","description":"WHITE METAL LANTERN","quantity":6,"unitPrice":"3.39"}]"#
    );
    format!(
        r#"{{"invoiceNo":"{invoice}","customerId":"{customer}","country":"United Kingdom","orderedAt":"12/1/10 8:26","currency":"GBP","lines":{lines}}}"#
    )
}

/// An order as a request that is ready to be sent.
pub(crate) fn request(number: usize) -> Vec<u8> {
    request_of(&body(number))
}

/// A body as a request that is ready to be sent.
pub(crate) fn request_of(body: &str) -> Vec<u8> {
    format!(
        "POST /orders HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// The same as the intake takes it, under its customer as order key.
pub(crate) fn asked(number: usize) -> Request {
    Request {
        route: "/orders".into(),
        order_key: Some(customer(number)),
        body: body(number).into(),
        idempotency: None,
        traceparent: None,
    }
}
