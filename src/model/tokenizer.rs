//! Text to token ids and back, with every byte of a token at hand.

use std::collections::HashMap;
use std::path::Path;
use std::sync::OnceLock;

use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use unicode_width::UnicodeWidthChar;

use crate::error::{Error, Result};

/// A byte-level BPE tokenizer, or none: a model without one runs on token ids.
#[derive(Debug, Clone, Default)]
pub struct Tokenizer {
    inner: Option<Box<tokenizers::Tokenizer>>,
}

impl Tokenizer {
    /// No tokenizer: [`Tokenizer::encode`] refuses, ids show as `#464`.
    pub fn none() -> Self {
        Self::default()
    }

    /// Reads the text of a `tokenizer.json`; `path` is for the error.
    ///
    /// # Errors
    /// [`Error::File`] when it is no tokenizer.
    pub fn from_json(json: &[u8], path: &Path) -> Result<Self> {
        let inner = tokenizers::Tokenizer::from_bytes(json).map_err(|e| {
            Error::file(
                path,
                format!("is not a tokenizer ({e}); fetch it anew or remove it to use token ids"),
            )
        })?;
        Ok(Self { inner: Some(Box::new(inner)) })
    }

    /// Reads GPT-2's original pair of files.
    ///
    /// # Errors
    /// [`Error::File`] when either cannot be read.
    pub fn from_vocab_and_merges(vocab: &Path, merges: &Path) -> Result<Self> {
        let [vocab_text, merges_text] = [vocab, merges].map(|path| path.to_string_lossy());
        let bpe = BPE::from_file(&vocab_text, &merges_text).build().map_err(|e| {
            use tokenizers::models::bpe::Error as Bpe;
            let culprit = match e.downcast_ref::<Bpe>() {
                Some(Bpe::JsonError(_) | Bpe::BadVocabulary) => vocab,
                _ => merges,
            };
            Error::file(culprit, format!("is not part of a byte-level BPE tokenizer ({e}); fetch it anew"))
        })?;
        let byte_level = ByteLevel::new(false, true, true);
        let mut inner = tokenizers::Tokenizer::new(bpe);
        inner.with_pre_tokenizer(Some(byte_level));
        inner.with_decoder(Some(byte_level));
        Ok(Self { inner: Some(Box::new(inner)) })
    }

    pub fn is_some(&self) -> bool {
        self.inner.is_some()
    }

    /// The token ids of `text`; no special tokens are added.
    ///
    /// # Errors
    /// [`Error::Usage`] when the model has no tokenizer.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let Some(inner) = &self.inner else {
            return Err(Error::usage(
                "this model has no tokenizer: give token ids (--token-ids 1,2,3) in place of text",
            ));
        };
        let encoding = inner
            .encode_fast(text, false)
            .map_err(|e| Error::usage(format!("the prompt cannot be tokenized: {e}")))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The bytes that a token stands for; `None` for an id the tokenizer does not know.
    pub fn bytes(&self, id: u32) -> Option<Vec<u8>> {
        let inner = self.inner.as_ref()?;
        let piece = inner.id_to_token(id)?;
        if inner.get_added_tokens_decoder().contains_key(&id) {
            return Some(piece.into_bytes());
        }
        let mut bytes = Vec::with_capacity(piece.len());
        for c in piece.chars() {
            match byte_of(c) {
                Some(byte) => bytes.push(byte),
                None => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        Some(bytes)
    }

    /// The text that a sequence of tokens stands for; bytes that are no UTF-8 become `U+FFFD`.
    pub fn decode(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> = ids.iter().filter_map(|&id| self.bytes(id)).flatten().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// A token as it is shown: see [`visible`]; `#464` for an id without text.
    pub fn show(&self, id: u32) -> String {
        match self.bytes(id) {
            Some(bytes) => visible(&bytes),
            None => format!("#{id}"),
        }
    }
}

/// Bytes with nothing invisible left in them: space `·`, newline `↵`, tab `⇥`; control characters,
/// zero-width characters and bytes that are no whole UTF-8 character as `⟨xx⟩`.
pub fn visible(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            let _ = match c {
                ' ' => write!(text, "·"),
                '\n' => write!(text, "↵"),
                '\t' => write!(text, "⇥"),
                c if (c as u32) < 0x100 && c.is_control() => write!(text, "⟨{:02x}⟩", c as u32),
                c if c.is_control() || c.width().unwrap_or(0) == 0 => {
                    write!(text, "⟨u+{:04x}⟩", c as u32)
                }
                c => write!(text, "{c}"),
            };
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "⟨{byte:02x}⟩");
        }
    }
    text
}

/// The byte that a character of a byte-level BPE piece stands for (GPT-2's `bytes_to_unicode`,
/// inverted): printable Latin-1 stands for itself, the rest are moved to U+0100 and up, in order.
fn byte_of(c: char) -> Option<u8> {
    static TABLE: OnceLock<HashMap<char, u8>> = OnceLock::new();
    let table = TABLE.get_or_init(|| {
        let mut moved = (0x100u32..).filter_map(char::from_u32);
        let mut char_of = |byte: u8| match byte {
            b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
            _ => moved.next().expect("there are more characters than bytes"),
        };
        (0..=255).map(|byte| (char_of(byte), byte)).collect()
    });
    table.get(&c).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_invisible_is_left() {
        assert_eq!(visible(b" the\n\tend\x07"), "·the↵⇥end⟨07⟩");
        assert_eq!(visible("é 漢 e\u{301}".as_bytes()), "é·漢·e⟨u+0301⟩");
        assert_eq!(visible(&"🙂".as_bytes()[..2]), "⟨f0⟩⟨9f⟩");
        assert_eq!(visible(b""), "");
    }

    #[test]
    fn the_byte_alphabet_is_the_tokenizers_one() {
        let alphabet = ByteLevel::alphabet();
        assert_eq!(alphabet.len(), 256);
        let mut bytes: Vec<u8> = alphabet.iter().map(|&c| byte_of(c).unwrap()).collect();
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
        assert_eq!(byte_of('Ġ'), Some(b' '));
        assert_eq!(byte_of('漢'), None);
    }
}
