//! JSON Pointers (RFC 6901): parsed, joined and escaped.

use std::str::FromStr;

/// A JSON Pointer, taken apart into its unescaped reference tokens. The empty pointer names the whole document.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JsonPointer {
    tokens: Vec<String>,
}

/// A text that is no JSON Pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a JSON Pointer: expected nothing or `/member…`, with `~0` for `~` and `~1` for `/` in names")]
pub struct InvalidPointer;

impl JsonPointer {
    /// The unescaped reference tokens, outermost first.
    #[must_use]
    pub fn tokens(&self) -> &[String] {
        &self.tokens
    }
}

impl std::fmt::Display for JsonPointer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&join(self.tokens.iter()))
    }
}

impl FromStr for JsonPointer {
    type Err = InvalidPointer;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let rest = text.strip_prefix('/').ok_or(InvalidPointer)?;
        Ok(Self { tokens: rest.split('/').map(unescape).collect::<Result<_, _>>()? })
    }
}

fn unescape(token: &str) -> Result<String, InvalidPointer> {
    let mut parts = token.split('~');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (letter, rest) = match part.as_bytes().first() {
            Some(b'0') => ('~', &part[1..]),
            Some(b'1') => ('/', &part[1..]),
            Some(_) | None => return Err(InvalidPointer),
        };
        plain.push(letter);
        plain.push_str(rest);
    }
    Ok(plain)
}

/// The pointer of these tokens, outermost first.
pub(super) fn join<'a>(tokens: impl Iterator<Item = &'a String>) -> String {
    let mut pointer = String::new();
    for token in tokens {
        pointer.push('/');
        for letter in token.chars() {
            match letter {
                '~' => pointer.push_str("~0"),
                '/' => pointer.push_str("~1"),
                other => pointer.push(other),
            }
        }
    }
    pointer
}

/// The array index that a token names, if it names one: digits without a leading zero.
pub(in crate::order) fn index(token: &str) -> Option<usize> {
    let is_index = token.bytes().all(|byte| byte.is_ascii_digit()) && (token == "0" || !token.starts_with('0'));
    is_index.then(|| token.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_read_and_written() {
        for (text, tokens) in
            [("", &[][..]), ("/", &[""]), ("/a/b", &["a", "b"]), ("/a~1b/m~0n", &["a/b", "m~n"]), ("/~01", &["~1"])]
        {
            let pointer: JsonPointer = text.parse().unwrap();
            assert_eq!(
                (pointer.tokens(), pointer.to_string().as_str()),
                (&tokens.iter().map(ToString::to_string).collect::<Vec<_>>()[..], text)
            );
        }
    }

    #[test]
    fn what_is_no_pointer_is_refused() {
        for text in ["a", "a/b", "/~", "/~2", "/a~", " "] {
            assert_eq!(text.parse::<JsonPointer>(), Err(InvalidPointer), "{text}");
        }
    }

    #[test]
    fn an_index_has_no_leading_zero() {
        assert_eq!(["0", "12", "01", "-", "", "+1"].map(index), [Some(0), Some(12), None, None, None, None]);
    }
}
