//! Text to token ids and back, with access to every byte of a token.

mod components;
mod others;
mod pieces;
mod transformers;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokenizers::ModelWrapper::{BPE, Unigram, WordLevel, WordPiece};
use tokenizers::pattern::Invert;
use tokenizers::pre_tokenizers::split::SplitPattern;
use tokenizers::{Model, OffsetType, PreTokenizedString, PreTokenizer, PreTokenizerWrapper};

use self::components::{Bounds, short};
use self::pieces::Form;
pub use self::pieces::visible;
pub use self::transformers::Beside;
use crate::error::{Error, Result};
use crate::guard::guard;
use crate::sniff::Looks;

/// The maximum bytes of a text, assuming that each step makes it as long as possible. The regex of byte-level BPE
/// gives up on a million spaces in a row, and the pieces of a text take about 400 bytes per byte of text.
const LONGEST_TEXT: usize = 2_000_000;
/// The maximum bytes of all added tokens, counted likewise.
const MOST_ADDED: usize = 1 << 22;
/// Entries, pairs and settings; the largest vocabularies have two million.
const MOST_VALUES: usize = 1 << 22;

/// A tokenizer, or none: without one, a model runs on token ids.
#[derive(Debug, Clone, Default)]
pub struct Tokenizer {
    state: State,
}

#[derive(Debug, Clone, Default)]
enum State {
    #[default]
    None,
    /// There is one, but it cannot be used.
    Broken {
        file: PathBuf,
        problem: String,
    },
    /// There is none, but some tokens have texts.
    Texts(BTreeMap<u32, String>),
    Ready(Box<Inner>),
}

#[derive(Debug, Clone)]
struct Inner {
    tokenizer: tokenizers::Tokenizer,
    bounds: Bounds,
    form: Form,
    /// The bytes of the tokens, one after the other, are those of the text.
    is_exact: bool,
    /// The ids that it puts before and after those of a text.
    around: [Vec<u32>; 2],
    /// Why it cannot encode, if so.
    only_decodes: Option<String>,
    notes: Vec<String>,
    /// For errors.
    file: PathBuf,
}

/// A tokenizer in the form of a `tokenizer.json`, from whatever files.
#[derive(Debug, Default)]
struct Recipe {
    json: Value,
    /// The tokens before and after a text, if its `post_processor` is not what adds them.
    around: [Vec<String>; 2],
    /// Why text cannot be encoded, if so.
    only_decodes: Option<String>,
    /// What was unusual.
    notes: Vec<String>,
}

impl Tokenizer {
    /// No tokenizer: [`Tokenizer::encode`] fails, and ids are shown as `#464`.
    pub fn none() -> Self {
        Self::default()
    }

    /// None, but for the texts of some tokens, with every byte visible.
    pub fn of_texts(texts: BTreeMap<u32, String>) -> Self {
        Self { state: State::Texts(texts) }
    }

    /// A tokenizer that cannot be used, so that the model runs on token ids.
    pub fn broken(file: &Path, problem: impl Into<String>) -> Self {
        Self { state: State::Broken { file: file.into(), problem: problem.into() } }
    }

    /// Parses the text of a `tokenizer.json`; `path` is for errors.
    ///
    /// # Errors
    /// [`Error::File`] if it is no tokenizer, or has a component that is not known.
    pub fn from_json(json: &[u8], beside: &Beside, path: &Path) -> Result<Self> {
        let read = || {
            let json = parse(json)?;
            if !json.is_object() {
                return Err("it is not a JSON object".into());
            }
            Ok(transformers::from_json(json, beside))
        };
        Self::read(json, path, read)
    }

    /// Parses GPT-2's original pair of files; `path` is that of `vocab.json`.
    ///
    /// # Errors
    /// [`Error::File`] if they are not what they should be.
    pub fn from_vocab_and_merges(vocab: &[u8], merges: &[u8], beside: &Beside, path: &Path) -> Result<Self> {
        let read = || {
            let merges = std::str::from_utf8(merges).map_err(|_| "merges.txt is not UTF-8 text")?;
            refuse_many(merges.lines().count())?;
            Ok(transformers::from_pair(&parse(vocab)?, merges, beside))
        };
        Self::read(vocab, path, read)
    }

    /// Parses BERT's list of pieces, `vocab.txt`.
    ///
    /// # Errors
    /// [`Error::File`] if it is not UTF-8, or too long.
    pub fn from_vocab_txt(bytes: &[u8], beside: &Beside, path: &Path) -> Result<Self> {
        let read = || {
            let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8 text")?;
            refuse_many(text.lines().count())?;
            Ok(transformers::from_vocab_txt(text, beside))
        };
        Self::read(bytes, path, read)
    }

    /// Parses llm.c's `gpt2_tokenizer.bin`.
    ///
    /// # Errors
    /// [`Error::File`] if it is another file, or damaged.
    pub fn from_llmc(bytes: &[u8], path: &Path) -> Result<Self> {
        Self::read(bytes, path, || others::llmc(bytes))
    }

    /// Parses nanoGPT's `meta.pkl`, the characters of a data set.
    ///
    /// # Errors
    /// [`Error::File`] if it is none.
    pub fn from_characters(bytes: &[u8], path: &Path) -> Result<Self> {
        Self::read(bytes, path, || others::characters(bytes))
    }

    fn read(bytes: &[u8], path: &Path, recipe: impl FnOnce() -> Result<Recipe, String>) -> Result<Self> {
        let made = recipe().and_then(|recipe| Inner::new(recipe, path));
        let made = made.map_err(|problem| not_a_tokenizer(bytes, path, &problem))?;
        Ok(Self { state: State::Ready(Box::new(made)) })
    }

    fn ready(&self) -> Option<&Inner> {
        match &self.state {
            State::Ready(inner) => Some(inner),
            _ => None,
        }
    }

    /// Why the tokenizer that is there cannot be used.
    pub fn problem(&self) -> Option<Error> {
        match &self.state {
            State::Broken { file, problem } => Some(Error::file(file, problem)),
            _ => None,
        }
    }

    /// What it is, in a few words.
    pub fn kind(&self) -> String {
        let inner = match &self.state {
            State::None | State::Texts(_) => return "none: the model runs on token ids".into(),
            State::Broken { .. } => return "none that can be used: the model runs on token ids".into(),
            State::Ready(inner) => inner,
        };
        let kind = match (inner.tokenizer.get_model(), inner.form) {
            (BPE(_), Form::ByteLevel) => "byte-level BPE",
            (BPE(_), Form::Text { .. }) => "BPE",
            (WordPiece(_), _) => "WordPiece",
            (WordLevel(_), _) if inner.is_exact => "characters",
            (WordLevel(_), _) => "WordLevel",
            (Unigram(_), _) => "Unigram",
        };
        let name = inner.file.file_name().unwrap_or_default().to_string_lossy();
        format!("{kind}, {} tokens, from {name}", self.vocab_size())
    }

    /// The number of tokens, added ones among them.
    pub fn vocab_size(&self) -> usize {
        self.ready().map_or(0, |inner| inner.tokenizer.get_vocab_size(true))
    }

    /// The tokens that no ordinary text stands for, by id.
    pub fn special_tokens(&self) -> Vec<(u32, String)> {
        let added = self.ready().map(|inner| inner.tokenizer.get_added_vocabulary());
        let tokens = added.into_iter().flat_map(tokenizers::AddedVocabulary::get_added_tokens_decoder);
        let special = tokens.filter(|(_, token)| token.special);
        let mut special: Vec<_> = special.map(|(&id, token)| (id, token.content.clone())).collect();
        special.sort();
        special
    }

    /// What was unusual about it and how it was read, a sentence each, for a model with `vocab_size` ids.
    pub fn notes(&self, vocab_size: usize) -> Vec<String> {
        let inner = match &self.state {
            State::None | State::Texts(_) => return Vec::new(),
            State::Broken { file, problem } => {
                let name = file.file_name().unwrap_or_default().to_string_lossy();
                return vec![format!("the tokenizer cannot be used: {name} {problem}")];
            }
            State::Ready(inner) => inner,
        };
        let mut notes = inner.notes.clone();
        notes.extend(inner.only_decodes.iter().map(|why| format!("of the tokenizer: {why}")));
        let known = inner.ids();
        let (n, beyond) = (known.len(), known.iter().filter(|&&id| id as usize >= vocab_size).count());
        if beyond > 0 {
            notes.push(format!(
                "the tokenizer knows more than the model: {beyond} of its {n} tokens have ids above {}, which the \
                 model does not have",
                vocab_size - 1
            ));
        }
        if n - beyond < vocab_size {
            let whole = known.last().is_none_or(|&last| (last as usize) < n);
            let how = if whole { "is padded" } else { "has ids without text" };
            notes.push(format!(
                "the model's vocabulary {how}: it has {vocab_size} ids, of which the tokenizer knows {}",
                n - beyond
            ));
        }
        notes
    }

    /// Whether the bytes of the tokens of a text, one after the other, are those of the text: a tokenizer may
    /// also change it first, as by making it lowercase.
    pub fn is_exact(&self) -> bool {
        self.ready().is_some_and(|inner| inner.is_exact)
    }

    /// The first of the ids that it puts before those of a text.
    pub fn first_of_its_own(&self) -> Option<u32> {
        self.ready()?.around[0].first().copied()
    }

    /// `ids` without those that it puts around those of a text.
    pub fn inside<'a>(&self, ids: &'a [u32]) -> &'a [u32] {
        let Some(Inner { around: [before, after], .. }) = self.ready() else { return ids };
        ids.strip_prefix(&before[..]).and_then(|ids| ids.strip_suffix(&after[..])).unwrap_or(ids)
    }

    pub fn is_some(&self) -> bool {
        self.ready().is_some()
    }

    /// The token ids of `text`, with those that the tokenizer itself puts around them.
    ///
    /// # Errors
    /// [`Error::Usage`] if the model has no tokenizer, or the text may become too long;
    /// [`Error::File`] if the tokenizer cannot be used, or fails on it.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let inside = self.encode_inside(text)?;
        let Some(Inner { around: [before, after], .. }) = self.ready() else { return Ok(inside) };
        Ok([before, &inside[..], after].concat())
    }

    /// The token ids of `text` alone.
    fn encode_inside(&self, text: &str) -> Result<Vec<u32>> {
        let inner = match &self.state {
            State::None | State::Texts(_) => {
                return Err(Error::usage(
                    "this model has no tokenizer: use token ids (--token-ids 1,2,3) instead of text, or put its \
                 tokenizer.json into its directory",
                ));
            }
            State::Broken { file, problem } => return Err(Error::file(file, problem)),
            State::Ready(inner) => inner,
        };
        if let Some(why) = &inner.only_decodes {
            return Err(Error::file(
                &inner.file,
                format!("cannot tokenize: {why}; use token ids (--token-ids)"),
            ));
        }
        let growth = inner.bounds.growth;
        if text.len().saturating_mul(growth) > LONGEST_TEXT {
            return Err(Error::usage(format!(
                "the prompt is too long to tokenize: {} bytes, which can become {growth} times as many in the process; \
                 shorten it or use token ids (--token-ids)",
                text.len(),
            )));
        }
        guard(|| inner.encode(text).map_err(|e| e.to_string())).flatten().map_err(|problem| {
            let problem = short(&problem);
            let problem = format!("cannot tokenize this prompt ({problem}); use token ids (--token-ids)");
            Error::file(&inner.file, problem)
        })
    }

    /// The single token that `text` is; spaces may be written as [`visible`] shows them (`·dog`).
    ///
    /// # Errors
    /// [`Error::Usage`] for text that is not one token, with its pieces, and if the model has no
    /// tokenizer.
    pub fn one(&self, text: &str) -> Result<u32> {
        match &self.state {
            State::None | State::Texts(_) => {
                return Err(Error::usage(format!(
                    "this model has no tokenizer: use a token id instead of `{text}`"
                )));
            }
            State::Broken { file, problem } => return Err(Error::file(file, problem)),
            State::Ready(_) => {}
        }
        let typed = text.replace('·', " ").replace('↵', "\n").replace('⇥', "\t");
        for text in [text, &typed] {
            if let [id] = self.encode_inside(text)?[..] {
                return Ok(id);
            }
        }
        let ids = self.encode_inside(&typed)?;
        if ids.is_empty() {
            return Err(Error::usage("the token is empty: use text or a token id"));
        }
        let pieces: Vec<_> = ids.iter().map(|&id| format!("{} ({id})", self.show(id))).collect();
        Err(Error::usage(format!(
            "`{text}` is not one token but {}: {}; use one of them",
            ids.len(),
            pieces.join(", ")
        )))
    }

    /// The bytes that a token stands for within a text; `None` for an id that the tokenizer does not know.
    pub fn bytes(&self, id: u32) -> Option<Vec<u8>> {
        let Inner { tokenizer, form, .. } = self.ready()?;
        let piece = tokenizer.id_to_token(id)?;
        let added = tokenizer.get_added_vocabulary();
        if added.is_special_token(&piece) {
            return Some(piece.into_bytes());
        }
        Some(form.bytes(piece, tokenizer.get_decoder()))
    }

    /// The text that a sequence of tokens stands for; bytes that are not UTF-8 become `U+FFFD`, and what has no
    /// text is left out.
    pub fn decode(&self, ids: &[u32]) -> String {
        if let Some(Inner { tokenizer, form: Form::Text { .. }, .. }) = self.ready() {
            return guard(|| tokenizer.decode(ids, false).ok()).ok().flatten().unwrap_or_default();
        }
        let bytes: Vec<u8> = ids.iter().filter_map(|&id| self.bytes(id)).flatten().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// A token for display: see [`visible`]; `#464` for an id without text.
    pub fn show(&self, id: u32) -> String {
        let text = match &self.state {
            State::Texts(texts) => texts.get(&id).cloned(),
            _ => self.bytes(id).map(|bytes| visible(&bytes)),
        };
        text.unwrap_or_else(|| format!("#{id}"))
    }
}

impl Inner {
    fn new(recipe: Recipe, file: &Path) -> Result<Self, String> {
        let Recipe { mut json, around, only_decodes, mut notes } = recipe;
        components::model(&json["model"])?;
        json["model"]["type"] = components::model_kind(&json["model"]).into();
        let bounds = components::check(&json)?;
        check_added(&json["added_tokens"], bounds.growth)?;
        let [mut before, mut after] = components::around(&json["post_processor"])?;
        let (form, is_exact) = (Form::of(&json), components::is_exact(&json));
        notes.extend(components::lossy(&json, form == Form::ByteLevel));
        // No truncation, padding or dropout, whatever the tokenizer was saved with; what is put around a text is
        // known by now.
        for setting in ["truncation", "padding", "post_processor"] {
            json[setting] = Value::Null;
        }
        json["model"]["dropout"] = Value::Null;
        let tokenizer: tokenizers::Tokenizer =
            guard(|| serde_json::from_value(json))?.map_err(|e| e.to_string())?;
        for (ids, names) in [&mut before, &mut after].into_iter().zip(&around) {
            ids.extend(names.iter().filter_map(|name| tokenizer.token_to_id(name)));
        }
        let (around, file) = ([before, after], file.to_owned());
        Ok(Self { tokenizer, bounds, form, is_exact, around, only_decodes, notes, file })
    }

    /// The ids of all tokens, in order.
    fn ids(&self) -> Vec<u32> {
        let mut ids: Vec<u32> = self.tokenizer.get_vocab(true).into_values().collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Like `tokenizers`, but if a regex gives up, so does this. There, the rest of
    /// the text would silently become one piece.
    fn encode(&self, text: &str) -> tokenizers::Result<Vec<u32>> {
        let tokenizer = &self.tokenizer;
        let mut pieces =
            tokenizer.get_added_vocabulary().extract_and_normalize(tokenizer.get_normalizer(), text);
        if let Some(step) = tokenizer.get_pre_tokenizer() {
            self.pre_tokenize(step, &mut pieces)?;
        }
        let model = tokenizer.get_model();
        pieces.tokenize(|piece| {
            model.tokenize(piece.get()).map_err(|e| format!("`{}`: {e}", short(piece.get())).into())
        })?;
        Ok(pieces.into_encoding(None, 0, OffsetType::None)?.get_ids().to_vec())
    }

    fn pre_tokenize(
        &self,
        step: &PreTokenizerWrapper,
        pieces: &mut PreTokenizedString,
    ) -> tokenizers::Result<()> {
        match step {
            PreTokenizerWrapper::Sequence(steps) => {
                steps.as_ref().iter().try_for_each(|step| self.pre_tokenize(step, pieces))
            }
            PreTokenizerWrapper::Split(split) => match &split.pattern {
                SplitPattern::Regex(pattern) => {
                    let regex = &self.bounds.regexes[pattern];
                    pieces.split(|_, piece| {
                        if split.invert {
                            piece.split(Invert(regex), split.behavior)
                        } else {
                            piece.split(regex, split.behavior)
                        }
                    })
                }
                SplitPattern::String(_) => split.pre_tokenize(pieces),
            },
            other => other.pre_tokenize(pieces),
        }
    }
}

fn not_a_tokenizer(bytes: &[u8], path: &Path, problem: &str) -> Error {
    let way_out = "download it again, or remove it and use token ids (--token-ids)";
    if let Some(looks @ (Looks::Empty | Looks::LfsPointer | Looks::WebPage)) = Looks::of(bytes) {
        return Error::file(path, format!("{}; or use token ids (--token-ids)", looks.sentence()));
    }
    let problem: String = problem.chars().take(200).collect();
    Error::file(path, format!("is not a tokenizer that can be used ({problem}); {way_out}"))
}

fn parse(json: &[u8]) -> Result<Value, String> {
    // A value can take many times more bytes in memory than in the file.
    refuse_many(json.iter().filter(|byte| matches!(byte, b',' | b'[' | b'{')).count())?;
    let json = json.strip_prefix(b"\xef\xbb\xbf").unwrap_or(json);
    serde_json::from_slice(json).map_err(|e| e.to_string())
}

fn refuse_many(n: usize) -> Result<(), String> {
    if n > MOST_VALUES { Err(format!("it has {n} values, more than any tokenizer")) } else { Ok(()) }
}

/// Added tokens are normalized when they are read.
fn check_added(tokens: &Value, growth: usize) -> Result<(), String> {
    let contents = tokens.as_array().into_iter().flatten().filter_map(|token| token["content"].as_str());
    let bytes = contents.map(|content| content.len().saturating_mul(growth)).fold(0, usize::saturating_add);
    if bytes > MOST_ADDED { Err("its added tokens are too long".into()) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
