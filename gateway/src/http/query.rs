//! Reads query strings: named parameters, each at most once, decoded. Pure.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::error::HttpProblem;

/// A query string. Parameters that nobody asks for are ignored.
#[derive(Debug, Clone, Copy)]
pub(super) struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    pub(super) fn of(uri: &'a http::Uri) -> Self {
        Self(uri.query().unwrap_or_default())
    }

    /// The decoded text of a parameter. Refused: a name that stands twice, and text that is not UTF-8.
    pub(super) fn get(self, name: &str) -> Result<Option<Cow<'a, str>>, HttpProblem> {
        let Some(raw) = self.raw(name)? else { return Ok(None) };
        let not_text = || HttpProblem::bad_query(format!("`{name}` is not UTF-8"));
        decode(raw).map(Some).ok_or_else(not_text)
    }

    /// Like [`Query::get`], but what is not UTF-8 comes back as text that matches nothing.
    pub(super) fn get_lossy(self, name: &str) -> Result<Option<Cow<'a, str>>, HttpProblem> {
        Ok(self.raw(name)?.map(|raw| decode(raw).unwrap_or(Cow::Borrowed("\u{fffd}"))))
    }

    fn raw(self, name: &str) -> Result<Option<&'a str>, HttpProblem> {
        let mut found = None;
        for pair in self.0.split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            if decode(key).as_deref() == Some(name) && !pair.is_empty() && found.replace(value).is_some() {
                return Err(HttpProblem::bad_query(format!("`{name}` stands there twice")));
            }
        }
        Ok(found)
    }
}

fn decode(raw: &str) -> Option<Cow<'_, str>> {
    if raw.contains('+') {
        let spaced = raw.replace('+', " ");
        return percent_decode_str(&spaced).decode_utf8().ok().map(|text| Cow::Owned(text.into_owned()));
    }
    percent_decode_str(raw).decode_utf8().ok()
}

/// A whole number in a range, such as a limit or a number of seconds.
pub(super) fn whole_number(name: &str, text: &str, range: std::ops::RangeInclusive<u64>) -> Result<u64, HttpProblem> {
    let number = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    number.filter(|number| range.contains(number)).ok_or_else(|| {
        HttpProblem::bad_query(format!("`{name}` is no whole number from {} to {}", range.start(), range.end()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        let query = Query("key=a%20b+c&limit=5&%6bex=1&&empty=&bare");
        assert_eq!(query.get("key").unwrap().as_deref(), Some("a b c"));
        assert_eq!(query.get("limit").unwrap().as_deref(), Some("5"));
        assert_eq!(query.get("kex").unwrap().as_deref(), Some("1"));
        assert_eq!(query.get("empty").unwrap().as_deref(), Some(""));
        assert_eq!(query.get("bare").unwrap().as_deref(), Some(""));
        assert_eq!(query.get("absent").unwrap(), None);
        assert_eq!(query.get("").unwrap(), None);
    }

    #[test]
    fn twice_or_no_text_is_refused() {
        assert!(Query("key=a&key=b").get("key").is_err());
        assert!(Query("key=a&%6bey=a").get("key").is_err());
        assert!(Query("key=%ff").get("key").is_err());
        assert_eq!(Query("id=%ff").get_lossy("id").unwrap().as_deref(), Some("\u{fffd}"));
    }

    #[test]
    fn numbers_are_whole_and_in_range() {
        assert_eq!(whole_number("wait", "30", 0..=30).ok(), Some(30));
        for odd in ["", "x", "-1", "+1", "1e9", "31", "1.5", " 1", "99999999999999999999"] {
            assert!(whole_number("wait", odd, 0..=30).is_err(), "{odd}");
        }
    }
}
