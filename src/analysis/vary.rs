//! Many runs that each differ from one run in a little, computed together.

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::hooks::{HookName, Hooks, Site};
use crate::model::{Kept, Sequence};
use crate::run::Run;

/// A run of the same tokens under the same interventions, with further hooks.
pub struct Variation<H> {
    pub hooks: H,
    /// The first position that the hooks change.
    pub first: usize,
    /// Whether what they change depends on later positions.
    pub looks_ahead: bool,
}

/// The number of rows that are computed at once, of all variations together: enough for full speed. In
/// GPT-2 124M a row needs about 50 kB.
pub const ROWS_AT_ONCE: usize = 768;

impl<H: Hooks> Variation<H> {
    /// The positions that are computed to predict from `position`, or more if the run did not keep what is
    /// before them.
    fn end(&self, run: &Run, position: usize) -> usize {
        let all = self.looks_ahead || !run.input.interventions.is_idle();
        if all { run.n_tokens() } else { position + 1 }
    }

    /// What it need not compute of `run`: all rows of the blocks below the first change, and in
    /// all others the rows before it.
    fn kept<'a>(&self, run: &'a Run, end: usize) -> Option<Kept<'a>> {
        let (config, cache) = (run.config(), &run.cache);
        let changed = self.hooks.first_change().into_iter().chain(run.changed).min();
        let blocks = changed.map_or(config.n_layer, |name| name.stage(config)).min(config.n_layer);
        let is_above = |name: &HookName| (blocks..config.n_layer).contains(&name.stage(config));
        let needed = |name: &HookName| matches!(name.site, Site::K | Site::V) || self.hooks.wants(*name);
        let own_changes = run.changed.is_some() || !run.input.interventions.is_idle();
        let continues = !own_changes
            && HookName::all(config)
                .iter()
                .filter(|name| is_above(name) && needed(name))
                .all(|name| cache.has(*name));
        let above = if continues { self.first.min(end - 1) } else { 0 };
        let below = blocks > 0 && cache.has(Site::ResidPost.at(blocks - 1));
        match (below, above) {
            (true, _) => Some(Kept { cache, rows: end, blocks, above }),
            (false, 0) => None,
            (false, _) => Some(Kept { cache, rows: end, blocks: 0, above }),
        }
    }
}

/// What the unembedding reads after `position` in each of the variations, as many at a time as
/// [`ROWS_AT_ONCE`] allows: `arrived` receives the number of the first and a row for each, (n, C). Before each
/// block, `go_on` receives the number that are done; its error ends the computation.
///
/// # Errors
/// Those of `go_on`, `arrived` and the hooks; [`Error::Usage`] for a position out of range.
pub fn vary<H: Hooks>(
    run: &Run,
    position: usize,
    variations: impl IntoIterator<Item = Variation<H>>,
    mut go_on: impl FnMut(usize) -> Result<()>,
    mut arrived: impl FnMut(usize, Tensor) -> Result<()>,
) -> Result<()> {
    Error::check("position", position, 0..run.n_tokens())?;
    let net = &run.model.net;
    let mut donors = run.donors.clone();
    let (mut rest, mut done) = (variations.into_iter().peekable(), 0);
    while rest.peek().is_some() {
        let before = done;
        let mut go_on = || go_on(before);
        let (mut rows, mut members) = (0, Vec::new());
        let n_rows = |one: &Variation<H>| one.end(run, position).saturating_sub(one.first);
        while let Some(one) = rest.next_if(|one| rows == 0 || rows + n_rows(one) <= ROWS_AT_ONCE) {
            rows += n_rows(&one).max(1);
            let end = one.end(run, position);
            let kept = one.kept(run, end);
            members.push((
                ((run.input.interventions.hooks(&run.model, &mut donors)?, one.hooks), Pulse(None)),
                kept,
                end,
            ));
        }
        if let Some(((_, pulse), ..)) = members.first_mut() {
            pulse.0 = Some(&mut go_on);
        }
        let sequences = members.iter_mut().map(|(hooks, kept, end)| Sequence {
            tokens: &run.tokens[..*end],
            hooks,
            kept: *kept,
            wanted: position..position + 1,
            like: run.n_tokens(),
        });
        let x = net.outputs(sequences)?; // (n, C)
        let n = members.len();
        arrived(done, x)?;
        done += n;
    }
    Ok(())
}

/// Reports each block, and may end the computation.
struct Pulse<'a>(Option<&'a mut dyn FnMut() -> Result<()>>);

impl Hooks for Pulse<'_> {
    fn wants(&self, _: HookName) -> bool {
        false
    }

    fn hook(&mut self, _: HookName, _: &Tensor) -> Result<Option<Tensor>> {
        Ok(None)
    }

    fn first_change(&self) -> Option<HookName> {
        None
    }

    fn before_block(&mut self, _: usize) -> Result<()> {
        self.0.as_mut().map_or(Ok(()), |go_on| go_on())
    }
}
