//! The operator's page: one file, compiled in, sent with a policy under which nothing else can run in it.

use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

const PAGE: &str = include_str!("page.html");

/// What the page may do: run its own script, use its own styles, ask the listener it came from. Markup made from
/// text is refused as a whole.
///
/// Both hashes are taken from the page itself, so that an edit of it needs no second edit.
#[must_use]
pub(super) fn policy() -> String {
    let (script, style) = (hash(inside("script")), hash(inside("style")));
    format!(
        "default-src 'none'; script-src '{script}'; style-src '{style}'; img-src data:; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    )
}

/// The page under a policy made by [`policy`].
pub(super) fn answer(policy: &str) -> Response {
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CACHE_CONTROL, "no-cache"),
        (CONTENT_SECURITY_POLICY, policy),
        (REFERRER_POLICY, "no-referrer"),
    ];
    (headers, PAGE).into_response()
}

/// What stands in the page's only element of that name.
fn inside(element: &str) -> &'static str {
    let (begin, end) = (format!("<{element}>"), format!("</{element}>"));
    let rest = PAGE.split_once(&begin).map_or("", |(_, rest)| rest);
    rest.split_once(&end).map_or("", |(text, _)| text)
}

fn hash(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Sha256::digest(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_one_script_and_one_style_and_the_policy_names_both() {
        for element in ["script", "style"] {
            assert_eq!(PAGE.matches(&format!("<{element}")).count(), 1, "{element}");
            assert!(inside(element).len() > 1000, "{element}");
            assert!(policy().contains(&format!("{element}-src '{}'", hash(inside(element)))), "{element}");
        }
    }

    #[test]
    fn the_page_takes_nothing_from_elsewhere_and_makes_no_markup_of_text() {
        let links = PAGE.replace("http://www.w3.org/2000/svg", "").replace("http://${host}", "");
        for forbidden in ["http://", "https://", " style=\"", "innerHTML", "outerHTML", "insertAdjacent", "eval("] {
            assert!(!links.contains(forbidden), "{forbidden}");
        }
    }
}
