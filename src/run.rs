//! A run: everything GPT-2 computed for one sequence of tokens. Immutable once computed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use candle_core::Tensor;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::hooks::{HookFilter, HookName, Hooks, Part, Site, TensorName};
use crate::interventions::{Changes, Donors, Interventions};
use crate::model::{ActivationCache, Kept, Model, Sequence, Tokenizer, visible};

/// The input of a run: text or token ids, whether to put BOS first, and the
/// interventions.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    pub prompt: Prompt,
    pub bos: bool,
    pub interventions: Interventions,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prompt {
    Text(String),
    Ids(Vec<u32>),
}

impl Prompt {
    /// As typed, or decoded from its token ids without those that the tokenizer puts around a text.
    pub fn to_text(&self, tokenizer: &Tokenizer) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Ids(ids) => tokenizer.decode(tokenizer.inside(ids)),
        }
    }
}

impl Input {
    pub fn text(text: impl Into<String>) -> Self {
        Self::new(Prompt::Text(text.into()))
    }

    pub fn ids(ids: impl Into<Vec<u32>>) -> Self {
        Self::new(Prompt::Ids(ids.into()))
    }

    /// The prompt alone.
    pub fn new(prompt: Prompt) -> Self {
        Self { prompt, bos: false, interventions: Interventions::default() }
    }

    #[must_use]
    pub fn with_bos(self, bos: bool) -> Self {
        Self { bos, ..self }
    }

    #[must_use]
    pub fn with_interventions(self, interventions: Interventions) -> Self {
        Self { interventions, ..self }
    }

    /// Whether there are no tokens to run.
    pub fn is_empty(&self) -> bool {
        let nothing = match &self.prompt {
            Prompt::Text(text) => text.is_empty(),
            Prompt::Ids(ids) => ids.is_empty(),
        };
        nothing && !self.bos
    }

    /// The input of `run` with more tokens at the end. This has token ids, since text made
    /// of sampled tokens may tokenize differently.
    #[must_use]
    pub fn followed_by(&self, ids: impl IntoIterator<Item = u32>, run: &Run) -> Self {
        let without_bos = run.tokens.iter().copied().skip(usize::from(self.bos));
        Self { prompt: Prompt::Ids(without_bos.chain(ids).collect()), ..self.clone() }
    }

    /// Whether BOS comes first, put there by the input or by the tokenizer itself.
    pub fn has_bos(&self, model: &Model) -> bool {
        self.bos || self.tokenizer_puts_bos(model)
    }

    fn tokenizer_puts_bos(&self, model: &Model) -> bool {
        let first = model.tokenizer.first_of_its_own();
        matches!(self.prompt, Prompt::Text(_)) && first.is_some() && first == model.config().bos_token_id
    }

    /// The token ids for the network. BOS is not put before one that the tokenizer puts there.
    ///
    /// # Errors
    /// [`Error::Usage`] for text with a model without tokenizer, or for BOS with a model
    /// that has no BOS token.
    pub fn tokens(&self, model: &Model) -> Result<Vec<u32>> {
        let ids = match &self.prompt {
            Prompt::Text(text) => model.tokenizer.encode(text)?,
            Prompt::Ids(ids) => ids.clone(),
        };
        if !self.bos || self.tokenizer_puts_bos(model) {
            return Ok(ids);
        }
        let bos = model.config().bos_token_id;
        let bos =
            bos.ok_or_else(|| Error::usage("this model's config.json has no bos_token_id: leave --bos out"))?;
        if bos as usize >= model.config().vocab_size {
            let problem =
                format!("this model's BOS, token {bos}, is outside its vocabulary: leave --bos out");
            return Err(Error::usage(problem));
        }
        Ok(std::iter::once(bos).chain(ids).collect())
    }
}

/// Everything that was computed and kept for one sequence of tokens.
#[derive(Debug, Clone)]
pub struct Run {
    pub model: Arc<Model>,
    pub input: Input,
    /// The T tokens, BOS included.
    pub tokens: Vec<u32>,
    pub cache: ActivationCache,
    /// Duration of the forward pass, including capture.
    pub took: Duration,
    /// The first tensor that hooks other than interventions may have replaced.
    pub changed: Option<HookName>,
    /// The tensors that its interventions took from other prompts.
    pub donors: Donors,
    /// What its tensors are read through, if they are not its own.
    pub reader: Option<Reader>,
}

/// Gives parts of tensors in place of those of a run, such as their gradients.
#[derive(Clone)]
pub struct Reader(Arc<Read>);

type Read = dyn Fn(TensorName, &Part) -> Result<Tensor> + Send + Sync;

impl Reader {
    pub fn new(read: impl Fn(TensorName, &Part) -> Result<Tensor> + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reader")
    }
}

impl Run {
    /// Runs `input` and keeps the hooks in `keep`; `hooks` sees (and may replace) each tensor
    /// first, after the input's interventions.
    pub fn new(model: &Arc<Model>, input: Input, keep: HookFilter, hooks: impl Hooks) -> Result<Self> {
        Self::make(None, model, input, ActivationCache::with_filter(keep, &model.net), hooks)
    }

    /// What another program computed for the tokens of a run: these tensors, and no others.
    #[must_use]
    pub fn with_tensors(&self, tensors: BTreeMap<HookName, Tensor>) -> Self {
        let cache = ActivationCache::holding(tensors, &self.model.net);
        let input = self.input.clone().with_interventions(Interventions::default());
        // Nothing of it is what the network computes.
        Self { cache, input, took: Duration::ZERO, changed: Some(Site::Embed.once()), ..self.clone() }
    }

    /// The same without hooks, where all tensors of `keep` are wanted: each is made in the pass and held,
    /// which is faster than to derive one after the other, and takes the memory of all.
    pub fn made(model: &Arc<Model>, input: Input, keep: HookFilter) -> Result<Self> {
        Self::make(None, model, input, ActivationCache::with_filter(keep, &model.net).made(), ())
    }

    /// The same, but reuses what this run has: rows before the first token
    /// that differs, blocks below the first tensor that the hooks of either run may replace.
    /// `hooks` sees only what is computed.
    pub fn then(&self, input: Input, keep: HookFilter, hooks: impl Hooks) -> Result<Self> {
        let cache = ActivationCache::with_filter(keep, &self.model.net);
        Self::make(Some(self), &self.model, input, cache, hooks)
    }

    /// Several inputs in one forward pass, each with the result of [`Self::new`]; `took` is the time of all.
    pub fn several(
        model: &Arc<Model>,
        inputs: impl IntoIterator<Item = Input>,
        keep: &HookFilter,
    ) -> Result<Vec<Self>> {
        Self::several_after(model, inputs.into_iter().map(|input| (None, input)), keep)
    }

    /// The same, where each may reuse what an earlier run has, as [`Self::then`] does.
    pub fn several_after<'a>(
        model: &Arc<Model>,
        inputs: impl IntoIterator<Item = (Option<&'a Self>, Input)>,
        keep: &HookFilter,
    ) -> Result<Vec<Self>> {
        let start = Instant::now();
        let cache = || ActivationCache::with_filter(keep.clone(), &model.net);
        let begin = |(before, input): (Option<&'a Self>, Input)| {
            let begun = Begun::new(before, model, input, cache(), ())?;
            let kept = before.and_then(|run| begun.kept(run)).filter(|kept| kept.rows < begun.tokens.len());
            Ok::<_, Error>((begun, kept))
        };
        let mut begun = inputs.into_iter().map(begin).collect::<Result<Vec<_>>>()?;
        let sequences = begun.iter_mut().map(|(one, kept)| Sequence::new(&one.tokens, &mut one.chain, *kept));
        model.net.watch(sequences)?;
        Ok(begun.into_iter().map(|(one, _)| one.run(model, start.elapsed())).collect())
    }

    fn make(
        before: Option<&Self>,
        model: &Arc<Model>,
        input: Input,
        cache: ActivationCache,
        hooks: impl Hooks,
    ) -> Result<Self> {
        let start = Instant::now();
        let mut begun = Begun::new(before, model, input, cache, hooks)?;
        let kept = before.and_then(|run| begun.kept(run));
        let Begun { tokens, chain, .. } = &mut begun;
        let whole = kept.filter(|kept| kept.rows == tokens.len());
        if let Some(kept) = whole {
            chain.1.adopt(kept)?;
        }
        if whole.is_none_or(|kept| kept.blocks <= model.config().n_layer) {
            model.net.watch([Sequence::new(tokens, chain, kept)])?;
        }
        Ok(begun.run(model, start.elapsed()))
    }

    /// The number of rows of every tensor that are the same in another run: those before the first token that
    /// differs; 0 if something may have been replaced.
    pub fn rows_shared_with(&self, other: &Self) -> usize {
        let pure = |run: &Self| run.changed.is_none() && run.input.interventions.is_idle();
        if !(Arc::ptr_eq(&self.model, &other.model) && pure(self) && pure(other)) {
            return 0;
        }
        self.tokens.iter().zip(&other.tokens).take_while(|(a, b)| a == b).count()
    }

    /// Bytes of everything captured, and of the part kept in memory; the rest is computed
    /// when looked at.
    pub fn bytes(&self) -> (u64, u64) {
        let names = self.cache.names().into_iter();
        (names.map(|name| name.bytes(self.config(), self.n_tokens())).sum(), self.cache.bytes())
    }

    /// What a run of `tokens` under `interventions` and other hooks can reuse from this one.
    fn kept_for<H: Hooks>(
        &self,
        tokens: &[u32],
        interventions: &Interventions,
        changed: Option<HookName>,
        chain: &(H, ActivationCache),
    ) -> Option<Kept<'_>> {
        let config = self.config();
        let rows = self.tokens.iter().zip(tokens).take_while(|(a, b)| a == b).count();
        // If all tokens are the same, so is the effect of the same interventions.
        let own = &self.input.interventions;
        let first = if self.tokens == tokens {
            own.first_difference(interventions)
        } else {
            own.first().into_iter().chain(interventions.first()).min()
        };
        let first = first.into_iter().chain(self.changed).chain(changed).min();
        let blocks = first.map_or(config.n_layer + 1, |name| name.stage(config));
        let whole = rows == tokens.len();
        let usable = |name: HookName| match name.site {
            Site::ResidPost if name.layer.is_some_and(|l| l + 1 == blocks) => self.cache.has(name),
            _ if whole => !chain.1.wants(name) || self.cache.has(name),
            Site::K | Site::V => self.cache.has(name),
            // Derived tensors have no kept rows to continue from.
            _ => !chain.wants(name) || self.cache.holds(name),
        };
        let mut below = HookName::all(config).into_iter().filter(|name| name.stage(config) < blocks);
        let all = rows > 0 && blocks > 0 && below.all(usable);
        all.then_some(Kept { cache: &self.cache, rows, blocks, above: 0 })
    }

    /// Runs `input` and keeps everything except hooks kept only on request.
    pub fn all(model: &Arc<Model>, input: Input) -> Result<Self> {
        Self::new(model, input, HookFilter::all(model.config()), ())
    }

    pub fn config(&self) -> &Config {
        self.model.config()
    }

    pub fn n_tokens(&self) -> usize {
        self.tokens.len()
    }

    /// The tensor of a hook, if it was kept: float32, contiguous, on the CPU.
    pub fn tensor(&self, hook: HookName) -> Option<Tensor> {
        self.part(hook, &Part::default()).ok()
    }

    /// A part of a tensor: see [`ActivationCache::part`].
    ///
    /// # Errors
    /// See there.
    pub fn part(&self, name: impl Into<TensorName>, part: &Part) -> Result<Tensor> {
        let name = name.into();
        if let Some(Reader(read)) = &self.reader {
            return read(name, part);
        }
        let TensorName { hook, made } = name;
        let get = |hook: HookName, part: &Part| self.cache.part(hook, part);
        made.map_or_else(|| get(hook, part), |made| self.model.make((hook, made), part, &get))
    }

    /// A part of a tensor that is in memory or can be derived, wanted or not.
    ///
    /// # Errors
    /// [`Error::Usage`] for a tensor that there is not.
    pub(crate) fn fetch(&self, name: impl Into<TensorName>, part: &Part) -> Result<Tensor> {
        let TensorName { hook, made } = name.into();
        let get = |hook: HookName, part: &Part| Ok(self.cache.fetch(hook, part)?.contiguous()?);
        made.map_or_else(|| get(hook, part), |made| self.model.make((hook, made), part, &get))
    }

    /// The same run with other numbers in place of its tensors: what [`Self::part`] gives.
    #[must_use]
    pub fn read_through(&self, reader: Reader) -> Self {
        Self { reader: Some(reader), changed: Some(Site::Embed.once()), ..self.clone() }
    }

    /// The same run with only one tensor.
    #[must_use]
    pub fn only(&self, hook: HookName) -> Self {
        Self { cache: self.cache.only(hook), ..self.clone() }
    }

    /// The token at `position` for display, every byte visible.
    pub fn token_text(&self, position: usize) -> String {
        self.tokens.get(position).map_or_else(String::new, |&id| self.model.tokenizer.show(id))
    }

    /// For each token that holds only a part of a character, that character.
    pub fn characters(&self) -> Vec<Option<Character>> {
        let bytes = |&id: &u32| self.model.tokenizer.bytes(id).unwrap_or_default();
        characters(&self.tokens.iter().map(bytes).collect::<Vec<_>>())
    }

    /// The tokens for display next to each other: a character of several tokens is in the first of them, and the
    /// others have a blank.
    pub fn token_texts(&self) -> Vec<String> {
        let text = |(position, character): (usize, Option<Character>)| {
            let Some(Character { text, part, of }) = character else { return self.token_text(position) };
            let bytes = self.model.tokenizer.bytes(self.tokens[position]).unwrap_or_default();
            let is_inside = |byte: &u8| (0x80..0xc0).contains(byte);
            let rest = &bytes[bytes.iter().take_while(|byte| part > 1 && is_inside(byte)).count()..];
            let valid = rest.utf8_chunks().next().map_or("", |chunk| chunk.valid());
            let shown = visible(valid.as_bytes())
                + &if part == 1 { visible(text.to_string().as_bytes()) } else { String::new() };
            if shown.is_empty() && of > 1 { " ".into() } else { shown }
        };
        self.characters().into_iter().enumerate().map(text).collect()
    }

    /// The tokens of the prompt itself, without BOS and whatever else the tokenizer puts around it.
    pub fn prompt_tokens(&self) -> &[u32] {
        let put = self.input.bos && !self.input.tokenizer_puts_bos(&self.model);
        self.model.tokenizer.inside(&self.tokens[usize::from(put)..])
    }

    /// The prompt as text: as typed, or decoded from its token ids.
    pub fn prompt_text(&self) -> String {
        self.input.prompt.to_text(&self.model.tokenizer)
    }
}

/// A run before its forward pass.
struct Begun<H> {
    input: Input,
    tokens: Vec<u32>,
    /// What sees its tensors: the interventions, other hooks, then the cache.
    chain: ((Changes, H), ActivationCache),
    changed: Option<HookName>,
    donors: Donors,
}

impl<H: Hooks> Begun<H> {
    fn new(
        before: Option<&Run>,
        model: &Model,
        input: Input,
        cache: ActivationCache,
        hooks: H,
    ) -> Result<Self> {
        let tokens = input.tokens(model)?;
        input.interventions.check(model.config(), tokens.len())?;
        let changed = hooks.first_change();
        let mut donors = before.map(|run| run.donors.clone()).unwrap_or_default();
        let changes = input.interventions.hooks(model, &mut donors)?;
        let chain = ((changes, hooks), cache.for_tokens(tokens.len()));
        Ok(Self { input, tokens, chain, changed, donors })
    }

    /// What it can reuse from `before`.
    fn kept<'a>(&self, before: &'a Run) -> Option<Kept<'a>> {
        before.kept_for(&self.tokens, &self.input.interventions, self.changed, &self.chain)
    }

    fn run(self, model: &Arc<Model>, took: Duration) -> Run {
        let Self { input, tokens, chain: (_, cache), changed, donors } = self;
        Run { model: Arc::clone(model), input, tokens, cache, took, changed, donors, reader: None }
    }
}

/// A character whose bytes are in several tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Character {
    pub text: char,
    /// Which of its tokens, from 1.
    pub part: usize,
    /// How many they are.
    pub of: usize,
}

/// `1/3 of 漢`
impl fmt::Display for Character {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} of {}", self.part, self.of, visible(self.text.to_string().as_bytes()))
    }
}

/// The first character that each of `pieces` shares with its neighbours, given their bytes.
fn characters(pieces: &[Vec<u8>]) -> Vec<Option<Character>> {
    let mut found = vec![None; pieces.len()];
    let owners: Vec<usize> = pieces
        .iter()
        .enumerate()
        .flat_map(|(piece, bytes)| std::iter::repeat_n(piece, bytes.len()))
        .collect();
    let joined = pieces.concat();
    let mut at = 0;
    for chunk in joined.utf8_chunks() {
        for text in chunk.valid().chars() {
            let (first, last) = (owners[at], owners[at + text.len_utf8() - 1]);
            for piece in (first..=last).filter(|_| first != last) {
                let character = Character { text, part: piece - first + 1, of: last - first + 1 };
                found[piece].get_or_insert(character);
            }
            at += text.len_utf8();
        }
        at += chunk.invalid().len();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{CpuStorage, Storage};
    use proptest::prelude::*;

    #[test]
    fn characters_of_several_tokens_are_found() {
        let pieces =
            [b" \xe6".to_vec(), b"\xbc".to_vec(), b"\xa2a".to_vec(), b"b".to_vec(), b"\xff".to_vec()];
        let part = |part| Some(Character { text: '漢', part, of: 3 });
        assert_eq!(characters(&pieces), [part(1), part(2), part(3), None, None]);
        assert_eq!(part(2).unwrap().to_string(), "2/3 of 漢");
    }

    #[test]
    fn runs_of_a_batch_hold_only_their_own_memory() {
        let model = Arc::new(Model::demo());
        let inputs = [vec![5, 6, 7], vec![8], vec![9, 10, 11, 12]].map(Input::ids);
        let runs = Run::several(&model, inputs, &HookFilter::all(model.config())).unwrap();
        assert_eq!(runs.iter().map(Run::n_tokens).collect::<Vec<_>>(), [3, 1, 4]);
        for (run, name) in
            runs.iter().flat_map(|run| run.cache.names().into_iter().map(move |name| (run, name)))
        {
            if run.cache.holds(name) {
                let x = run.tensor(name).unwrap();
                let (storage, _) = x.storage_and_layout();
                let Storage::Cpu(CpuStorage::F32(held)) = &*storage else { panic!("{name} is not float32") };
                assert_eq!(held.len(), x.elem_count(), "{name}");
            }
        }
    }

    proptest! {
        #[test]
        fn every_piece_has_an_answer(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..5), 0..9)) {
            prop_assert_eq!(characters(&pieces).len(), pieces.len());
        }

        #[test]
        fn a_text_cut_anywhere_has_its_characters(text in "[a-zé漢👩]{0,9}", cuts in proptest::collection::vec(0usize..40, 0..6)) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            let ends = cuts.iter().copied().chain([bytes.len()]);
            let pieces: Vec<_> = std::iter::once(0).chain(cuts.iter().copied()).zip(ends).map(|(a, b)| bytes[a..b].to_vec()).collect();
            for (piece, found) in pieces.iter().zip(characters(&pieces)) {
                prop_assert!(found.is_some() || std::str::from_utf8(piece).is_ok());
            }
        }
    }
}
