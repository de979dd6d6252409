//! What `sluice dev` says once it serves.

use std::net::SocketAddr;

use super::url_of;

/// Where to post, with a command that can be pasted; where the page, the broker and the database are, and what is lost.
#[must_use]
pub fn banner(http: SocketAddr, admin: SocketAddr, brokers: &str, database: &str) -> String {
    let (http, admin) = (url_of(http), url_of(admin));
    let database = database.strip_prefix("sqlite://").unwrap_or(database);
    format!(
        r#"
Sluice serves, for development.

  Orders    {http}/orders
  Page      {admin}/
  Database  {database}
  Broker    {brokers}  (in memory: it and its records are gone when this process ends)

Post an order:

  curl -i {http}/orders -H 'Content-Type: application/json' \
    -d '{{"customerId":"17850","currency":"GBP","lines":[{{"stockCode":"85123A","quantity":6,"unitPrice":"2.55"}}]}}'

Then look at the page, or follow the order:  curl -N {http}/orders/ID/events
Stop with Ctrl-C.
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_banner_names_every_address_and_a_whole_command() {
        let text = banner(
            "0.0.0.0:8080".parse().unwrap(),
            "127.0.0.1:9090".parse().unwrap(),
            "127.0.0.1:4711",
            "sqlite://a.db",
        );
        for part in [
            "curl -i http://127.0.0.1:8080/orders ",
            "http://127.0.0.1:9090/",
            "127.0.0.1:4711",
            " a.db\n",
            "in memory",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let (_, body) = text.split_once("-d '").unwrap();
        let order: serde_json::Value = serde_json::from_str(body.split_once('\'').unwrap().0).unwrap();
        assert_eq!(order["customerId"], "17850");
    }
}
