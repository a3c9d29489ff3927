//! What a token stands for: its bytes, by the tokenizer's own decoder.

use std::collections::HashMap;
use std::sync::OnceLock;

use serde_json::Value;
use tokenizers::{Decoder as _, DecoderWrapper};
use unicode_width::UnicodeWidthChar;

use super::components::{kind, steps};
use crate::guard::guard;
use crate::text;

/// How the pieces of a vocabulary are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A character for each byte, as in GPT-2.
    ByteLevel,
    /// Text that a decoder turns into that of the prompt.
    Text {
        /// `<0x0A>` is a byte.
        byte_fallback: bool,
        /// At the start of a text, the decoder takes a blank away.
        strips: bool,
    },
}

impl Form {
    pub fn of(json: &Value) -> Self {
        let decoders = steps(&json["decoder"], "decoders").unwrap_or_default();
        let has = |name: &str| decoders.iter().any(|step| kind(step) == name);
        let cut = steps(&json["pre_tokenizer"], "pretokenizers").unwrap_or_default();
        // Pieces that were written byte by byte are read so, though nothing says it.
        let silent = decoders.is_empty() && cut.iter().any(|step| kind(step) == "ByteLevel");
        if silent || has("ByteLevel") {
            Self::ByteLevel
        } else {
            Self::Text { byte_fallback: has("ByteFallback"), strips: has("Metaspace") || has("Strip") }
        }
    }

    /// The bytes that a piece stands for within a text.
    pub fn bytes(self, piece: String, decoder: Option<&DecoderWrapper>) -> Vec<u8> {
        const BEFORE: &str = "a";
        match self {
            // As in the decoder: one character that is none of the table's, and the piece is text.
            Self::ByteLevel => {
                piece.chars().map(byte_of).collect::<Option<_>>().unwrap_or_else(|| piece.into_bytes())
            }
            Self::Text { byte_fallback, strips } => {
                if let Some(byte) = fallback_byte(&piece).filter(|_| byte_fallback) {
                    return vec![byte];
                }
                let decoded = |pieces| {
                    let decoder = decoder?;
                    guard(|| decoder.decode(pieces).ok()).ok().flatten()
                };
                let inside = if strips {
                    let whole = decoded(vec![BEFORE.to_owned(), piece.clone()]);
                    whole.and_then(|text| text.strip_prefix(BEFORE).map(str::to_owned))
                } else {
                    decoded(vec![piece.clone()])
                };
                inside.unwrap_or(piece).into_bytes()
            }
        }
    }
}

/// The byte of `<0x0A>`.
fn fallback_byte(piece: &str) -> Option<u8> {
    let digits = piece.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok())?
}

/// The character that stands for a byte in a byte-level piece (GPT-2's `bytes_to_unicode`): printable Latin-1
/// stands for itself, the rest are moved to U+0100 and up, in order.
pub fn char_of(byte: u8) -> char {
    static TABLE: OnceLock<[char; 256]> = OnceLock::new();
    let table = TABLE.get_or_init(|| {
        let mut moved = (0x100u32..).filter_map(char::from_u32);
        std::array::from_fn(|byte| match byte as u8 {
            byte @ (b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff) => char::from(byte),
            _ => moved.next().expect("there are more characters than bytes"),
        })
    });
    table[usize::from(byte)]
}

/// The inverse of [`char_of`].
pub fn byte_of(c: char) -> Option<u8> {
    static TABLE: OnceLock<HashMap<char, u8>> = OnceLock::new();
    TABLE.get_or_init(|| (0..=255).map(|byte| (char_of(byte), byte)).collect()).get(&c).copied()
}

/// Bytes with everything made visible: space `·`; bytes that are not a whole UTF-8 character
/// `⟨xx⟩`; invisible and combining characters as in [`text::plain`].
pub fn visible(bytes: &[u8]) -> String {
    let mut seen = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                ' ' => seen.push('·'),
                c if text::acts(c) || c.width().unwrap_or(0) == 0 => text::push_visible(&mut seen, c),
                c => seen.push(c),
            }
        }
        chunk.invalid().iter().for_each(|&byte| text::push_visible(&mut seen, byte.into()));
    }
    seen
}
