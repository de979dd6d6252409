//! Frames for hostile plugins: a plugin that does all as it should, but for the pieces that a test puts into it.

use super::component;

/// A plugin of the contract's interfaces. Pieces are WebAssembly text; what is left out does no harm.
#[derive(Debug, Clone, Copy, Default)]
pub struct Component {
    /// Imports besides none.
    pub imports: &'static str,
    /// In `cabi_realloc`; has `$size`.
    pub alloc: &'static str,
    /// In `configure`.
    pub configure: &'static str,
    /// For each order that begins with `{"evil"`; has `$event`, `$outcome` and `$i`.
    pub order: &'static str,
    /// More functions, data, a start function.
    pub more: &'static str,
}

impl Component {
    /// The text of the core module.
    #[must_use]
    pub fn text(&self) -> String {
        let frame = include_str!("evil/component.wat");
        let pieces = [
            ("@IMPORTS", self.imports),
            ("@ALLOC", self.alloc),
            ("@CONFIGURE", self.configure),
            ("@ORDER)", &format!("{})", self.order)),
            ("@MORE", self.more),
        ];
        fill(frame, &pieces)
    }

    /// The component.
    ///
    /// # Panics
    ///
    /// When the pieces make no module of the contract.
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        component(&self.text())
    }
}

/// A plugin of the bytes ABI, likewise.
#[derive(Debug, Clone, Copy)]
pub struct Bytes {
    /// Imports besides none.
    pub imports: &'static str,
    /// In `sluice_alloc`; has `$size`.
    pub alloc: &'static str,
    /// For each order with `"evil"`; has `$i`.
    pub order: &'static str,
    /// More functions.
    pub more: &'static str,
    /// What the outcome of an evil order has behind its number.
    pub tail: &'static [u8],
}

impl Default for Bytes {
    fn default() -> Self {
        Self { imports: "", alloc: "", order: "", more: "", tail: br#","verdict":"accept"}"# }
    }
}

impl Bytes {
    /// The core module.
    ///
    /// # Panics
    ///
    /// When the pieces are no WebAssembly.
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        let frame = include_str!("evil/bytes.wat");
        let tail: String = self.tail.iter().map(|byte| format!("\\{byte:02x}")).collect();
        let pieces = [
            ("@IMPORTS", self.imports),
            ("@ALLOC", self.alloc),
            ("@ORDER)", &format!("{})", self.order)),
            ("@MORE", self.more),
            ("@TAIL_LENGTH", &self.tail.len().to_string()),
            ("@TAIL)", &format!("\"{tail}\")")),
            ("@START", ""),
        ];
        wat::parse_str(fill(frame, &pieces)).unwrap_or_else(|error| panic!("{self:?} is no WebAssembly: {error}"))
    }
}

/// Puts pieces in their places; the frame's comments, which name them too, go.
fn fill(frame: &str, pieces: &[(&str, &str)]) -> String {
    let lines = frame.lines().filter(|line| !line.trim_start().starts_with(";;"));
    let code = lines.collect::<Vec<_>>().join("\n");
    pieces.iter().fold(code, |text, (place, piece)| {
        assert!(text.contains(place), "the frame has no {place}");
        text.replace(place, piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frames_fit_the_contract() {
        assert!(Component::default().build().starts_with(b"\0asm"));
        assert!(Bytes::default().build().starts_with(b"\0asm"));
    }
}
