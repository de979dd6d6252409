//! Keeps foreign web pages from using the operator's browser against this listener.
//!
//! Three ways are closed: a request from another site (`Sec-Fetch-Site`, `Origin`), reading answers from there (no CORS
//! header is ever sent), and a foreign name that was made to resolve to loopback (`Host`). Programs send neither
//! `Origin` nor `Sec-Fetch-Site` and are not hindered. This is no authentication: who reaches the port may use it.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, HOST, ORIGIN, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::http::error::HttpProblem;

/// Refuses what a foreign page sent; marks every answer as this origin's own.
pub(super) async fn guard(State(address): State<SocketAddr>, request: Request, next: Next) -> Response {
    let mut response = match check(request.method(), request.headers(), address) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

fn check(method: &Method, headers: &HeaderMap, address: SocketAddr) -> Result<(), HttpProblem> {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if address.ip().is_loopback() && !host.is_empty() && !is_loopback_name(host) {
        return Err(refusal("this listener is on loopback: reach it by its IP address or as localhost"));
    }
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    // A link on another page may lead here; only then does a foreign page get the browser to ask.
    let is_visit = method == Method::GET && headers.get("sec-fetch-mode").is_some_and(|mode| mode == "navigate");
    if !is_visit && !matches!(site, None | Some(b"same-origin" | b"none")) {
        return Err(refusal("the request was made by a page of another site"));
    }
    let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().unwrap_or_default();
    let origin_host = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    if host.is_empty() || !origin_host.is_some_and(|origin| origin.eq_ignore_ascii_case(host)) {
        return Err(refusal("the header Origin names another origin than this listener"));
    }
    Ok(())
}

/// Whether a `Host` is a name that nobody else can own: an IP address or `localhost`.
fn is_loopback_name(host: &str) -> bool {
    let bracketed = host.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let name = bracketed.map_or_else(|| host.split(':').next().unwrap_or_default(), |(name, _)| name);
    let name = name.to_ascii_lowercase();
    name.parse::<IpAddr>().is_ok() || name == "localhost" || name.ends_with(".localhost")
}

fn refusal(detail: &'static str) -> HttpProblem {
    HttpProblem::client(StatusCode::FORBIDDEN, "foreign-origin", "Not from this origin", detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderName;

    fn passes(method: &str, listen: &str, headers: &[(&str, &str)]) -> bool {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap()));
        check(&method.parse().unwrap(), &headers.collect(), listen.parse().unwrap()).is_ok()
    }

    #[test]
    fn a_request_is_refused_exactly_when_a_foreign_page_made_it() {
        let host = ("host", "127.0.0.1:9090");
        for (expected, method, extra) in [
            (true, "POST", vec![]),
            (true, "POST", vec![("sec-fetch-site", "same-origin"), ("origin", "http://127.0.0.1:9090")]),
            (true, "POST", vec![("sec-fetch-site", "none")]),
            (true, "GET", vec![("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")]),
            (false, "GET", vec![("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")]),
            (false, "POST", vec![("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")]),
            (false, "POST", vec![("sec-fetch-site", "same-site"), ("origin", "http://127.0.0.1:9090")]),
            (false, "POST", vec![("sec-fetch-site", "unheard-of")]),
            (false, "POST", vec![("origin", "http://127.0.0.1:8080")]),
            (false, "POST", vec![("origin", "null")]),
            (false, "POST", vec![("origin", "ftp://127.0.0.1:9090")]),
        ] {
            let headers: Vec<_> = [host].into_iter().chain(extra).collect();
            assert_eq!(passes(method, "127.0.0.1:9090", &headers), expected, "{method} {headers:?}");
        }
    }

    #[test]
    fn on_loopback_no_foreign_name_is_answered() {
        for host in ["localhost:9090", "127.0.0.1", "[::1]:9090", "[::1]", "sluice.localhost:1", "10.0.0.7:9090"] {
            assert!(passes("GET", "127.0.0.1:9090", &[("host", host)]), "{host}");
        }
        for host in ["evil.example:9090", "localhost.evil.example", "127.0.0.1.evil.example:9090"] {
            assert!(!passes("GET", "127.0.0.1:9090", &[("host", host)]), "{host}");
        }
        assert!(passes("GET", "0.0.0.0:9090", &[("host", "sluice.internal:9090")]));
    }
}
