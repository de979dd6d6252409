//! Whether a file may be loaded at all: its digest is the one pinned, its signature that of a known signer.

use std::collections::BTreeMap;

use minisign_verify::{Error, PublicKey, Signature};

/// The file of pins, in the plugins' folder.
pub(super) const LOCK: &str = "plugins.lock";

/// Most bytes of the file of pins and of a signature.
pub(super) const LOCK_BYTES_MAX: usize = 1 << 20;
pub(super) const SIGNATURE_BYTES_MAX: usize = 16 << 10;

/// What is wrong, for programs and for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Distrust {
    pub(super) code: &'static str,
    pub(super) reason: String,
}

/// Digests by plugin name, as `plugins.lock` has them; without that file everything may come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Pins {
    Open,
    Closed(BTreeMap<String, String>),
    /// The file is there and cannot be read: nothing new may come.
    Broken(String),
}

impl Pins {
    /// Reads the text of a file of pins.
    pub(super) fn parse(text: &[u8]) -> Self {
        let text = match std::str::from_utf8(text) {
            Ok(text) => text,
            Err(error) => return Self::Broken(error.to_string()),
        };
        match toml::from_str::<BTreeMap<String, String>>(text) {
            Ok(pins) => Self::Closed(pins),
            Err(error) => Self::Broken(error.message().trim().to_owned()),
        }
    }

    pub(super) fn of(&self, name: &str) -> Option<&str> {
        match self {
            Self::Closed(pins) => pins.get(name).map(String::as_str),
            Self::Open | Self::Broken(_) => None,
        }
    }

    /// Whether a file of this digest may serve under this name.
    pub(super) fn check(&self, name: &str, digest: &str) -> Result<(), Distrust> {
        let refuse = |reason| Err(Distrust { code: "not-pinned", reason });
        match self {
            Self::Open => Ok(()),
            Self::Broken(reason) => refuse(format!("{LOCK} cannot be read: {reason}")),
            Self::Closed(pins) => match pins.get(name) {
                Some(pinned) if pinned.eq_ignore_ascii_case(digest) => Ok(()),
                Some(pinned) => {
                    refuse(format!("{LOCK} names {pinned}: `sluice plugin pin {name} {digest}` names this one"))
                }
                None => refuse(format!("{LOCK} does not name it: `sluice plugin pin {name} {digest}` does so")),
            },
        }
    }

    /// The text of the file with one more pin.
    pub(super) fn with(&self, name: &str, digest: &str) -> Result<String, String> {
        let mut pins = match self {
            Self::Open => BTreeMap::new(),
            Self::Closed(pins) => pins.clone(),
            Self::Broken(reason) => return Err(format!("{LOCK} cannot be read: {reason}")),
        };
        pins.insert(name.to_owned(), digest.to_owned());
        let lines: Vec<String> = pins.iter().map(|(name, digest)| format!("{name} = \"{digest}\"\n")).collect();
        Ok(format!("# The versions of plugins that may serve; a file with another digest waits.\n{}", lines.concat()))
    }
}

/// Whether bytes carry the signature of one of the signers; without signers nothing needs one.
pub(super) fn check_signature(bytes: &[u8], signature: Option<&str>, signers: &[String]) -> Result<(), Distrust> {
    let refuse = |code, reason: String| Err(Distrust { code, reason });
    if signers.is_empty() {
        return Ok(());
    }
    let Some(signature) = signature else {
        return refuse(
            "not-signed",
            "there is no signature, and plugins.signers asks for one: NAME.wasm.minisig".to_owned(),
        );
    };
    let signature = match Signature::decode(signature) {
        Ok(signature) => signature,
        Err(error) => return refuse("bad-signature", format!("the signature cannot be read: {error}")),
    };
    for signer in signers {
        let verified = PublicKey::from_base64(signer).and_then(|key| key.verify(bytes, &signature, false));
        match verified {
            Ok(()) => return Ok(()),
            Err(Error::UnexpectedKeyId) => {}
            Err(error) => return refuse("bad-signature", format!("the signature is wrong: {error}")),
        }
    }
    refuse("unknown-key", "it is signed with a key that plugins.signers does not name".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with minisign; the text that is signed is `test`.
    const KEY: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
    const SIGNATURE: &str = "untrusted comment: signature from minisign secret key
RUQf6LRCGA9i559r3g7V1qNyJDApGip8MfqcadIgT9CuhV3EMhHoN1mGTkUidF/z7SrlQgXdy8ofjb7bNJJylDOocrCo8KLzZwo=
trusted comment: timestamp:1633700835\tfile:test\tprehashed
wLMDjy9FLAuxZ3q4NlEvkgtyhrr0gtTu6KC4KBJdITbbOeAi1zBIYo0v4iTgt8jJpIidRJnp94ABQkJAgAooBQ==";

    #[test]
    fn each_way_of_being_unsigned_has_its_code() {
        let keys = [KEY.to_owned()];
        let code =
            |bytes: &[u8], signature, keys: &[String]| check_signature(bytes, signature, keys).map_err(|d| d.code);
        assert_eq!(code(b"test", Some(SIGNATURE), &keys), Ok(()));
        assert_eq!(code(b"other", None, &[]), Ok(()));
        assert_eq!(code(b"test", None, &keys), Err("not-signed"));
        assert_eq!(code(b"tesT", Some(SIGNATURE), &keys), Err("bad-signature"));
        assert_eq!(code(b"test", Some("no signature"), &keys), Err("bad-signature"));
        // The same key but for one digit of its name.
        let other = ["RWQe6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3".to_owned()];
        assert_eq!(code(b"test", Some(SIGNATURE), &other), Err("unknown-key"));
        assert_eq!(code(b"test", Some(SIGNATURE), &[other[0].clone(), KEY.to_owned()]), Ok(()));
    }

    #[test]
    fn a_file_of_pins_closes_the_folder() {
        let pins = Pins::parse(b"# a comment\nrules = \"sha256:aa\"\n");
        assert_eq!(pins.check("rules", "sha256:AA"), Ok(()));
        assert_eq!(pins.check("rules", "sha256:bb").unwrap_err().code, "not-pinned");
        assert_eq!(pins.check("other", "sha256:aa").unwrap_err().code, "not-pinned");
        assert!(Pins::parse(b"rules = 5").check("rules", "sha256:aa").is_err());
        assert_eq!(Pins::Open.check("rules", "sha256:bb"), Ok(()));
        let more = pins.with("other", "sha256:cc").unwrap();
        let more = Pins::parse(more.as_bytes());
        assert_eq!((more.of("rules"), more.of("other")), (Some("sha256:aa"), Some("sha256:cc")));
    }
}
