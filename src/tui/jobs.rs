//! Jobs: requests for runs, and the engine's reports on them.

use std::sync::Arc;

use super::app::{Activity, App};
use super::overlays::{Overlay, Picker};
use super::screens::{Screen, compare, heads};
use super::what_if;
use crate::engine::{Job, Request, Said, Summary, Work};
use crate::run::Run;

impl App {
    /// Starts a job; abandons the one before it.
    pub fn start(&mut self, work: Work) -> Request {
        self.job_id += 1;
        let n_layer = self.model.as_ref().map_or(0, |model| model.config().n_layer);
        let running = || Activity::Running { layer: 0, n_layer, left: work.tokens() };
        self.activity = Some(work.steps().map_or_else(running, Activity::Working));
        Request::Job(Job { id: self.job_id, work })
    }

    /// The job is finished.
    pub fn finish(&mut self) {
        (self.activity, self.tick) = (None, 0);
    }

    /// Abandons the job.
    pub fn cancel(&mut self) -> Request {
        self.job_id += 1;
        self.finish();
        Request::Cancel(self.job_id)
    }

    /// Starts a run of the current input.
    pub fn start_run(&mut self) -> Vec<Request> {
        if self.model.is_none() {
            return Vec::new();
        }
        if self.input.is_empty() {
            if self.run.is_some() {
                self.complain("the prompt is empty: type something; showing the last run");
            }
            return vec![self.cancel()];
        }
        self.landing = None;
        let (input, base) = (self.input.clone(), self.base_of(&self.input));
        vec![self.start(Work::Run { input, base })]
    }

    /// Samples `n` more tokens.
    pub fn generate(&mut self, n: usize) -> Vec<Request> {
        let Some(from) = self.made().cloned() else { return Vec::new() };
        self.selection.position = from.n_tokens() - 1;
        vec![self.start(Work::Generate { from, n, sampling: self.sampling })]
    }

    /// Samples several continuations of `n` tokens, to choose from.
    pub fn offer(&mut self, n: usize) -> Vec<Request> {
        /// As many as a list shows at 80×24.
        const SAMPLES: usize = 12;
        let Some(from) = self.made().cloned() else { return Vec::new() };
        vec![self.start(Work::Continue { from, size: (SAMPLES, n), sampling: self.sampling })]
    }

    /// Handles a report on the newest job.
    pub(super) fn hear(&mut self, said: Said) {
        match said {
            Said::Layer { layer, n_layer } => {
                let left = match self.activity {
                    Some(Activity::Running { left, .. }) => left,
                    _ => 0,
                };
                self.activity = Some(Activity::Running { layer, n_layer, left });
            }
            Said::Step(steps) => self.activity = Some(Activity::Working(steps)),
            Said::Ran { run, summary, left } => self.ran(run, summary, left),
            Said::Summed(summary) => self.summary = Some(summary),
            Said::Base { base, comparison } => {
                self.finish();
                what_if::pair(self, base, comparison);
            }
            Said::Second(second) => {
                self.finish();
                compare::ran(self, *second);
            }
            Said::Sweeping(swept) => self.screens.compare.sweeping = Some(Arc::new(swept)),
            Said::Swept(swept) => {
                self.finish();
                compare::swept(self, swept);
            }
            Said::Repeated { atlas, runs } => {
                self.finish();
                heads::measured(self, atlas, runs);
            }
            Said::Continued(run, found) => {
                self.finish();
                self.overlay = Some(Overlay::Picker(Picker::continuations(&run, &found)));
            }
            Said::Effects(effects) => {
                self.finish();
                self.screens.heads.effects = self.run.as_ref().map(|run| (Arc::downgrade(run), effects));
            }
            Said::Refused(why) => {
                self.finish();
                for screen in Screen::ALL {
                    screen.scene().give_up(self);
                }
                let kept = if self.run.is_some() { "; showing the last run" } else { "" };
                self.complain(format!("{why}{kept}"));
            }
            Said::Cancelled => self.activity = None,
        }
    }

    /// A run arrived: it replaces the previous one.
    fn ran(&mut self, run: Arc<Run>, summary: Arc<Summary>, left: usize) {
        let last = run.n_tokens() - 1;
        match (self.landing.take(), &self.run) {
            (Some(at), _) => self.selection.position = at.min(last),
            // Nothing comes before the first token, so the end is where there is most to see.
            (None, None) => self.selection.position = last,
            (None, Some(old)) => {
                let carry = |position| carried(&old.tokens, &run.tokens, position);
                (self.selection.position, self.selection.key) =
                    (carry(self.selection.position), self.selection.key.min(last));
            }
        }
        self.input = run.input.clone();
        self.what_if.pair = None;
        if run.input.interventions.is_idle() {
            self.what_if.side = what_if::Side::default();
        }
        self.shown_id += 1;
        let n_layer = run.config().n_layer;
        self.run = Some(run);
        self.summary = Some(summary);
        if let Some(state) = self.restored.take() {
            state.select(self);
        }
        if left > 0 {
            self.activity = Some(Activity::Running { layer: 0, n_layer, left });
        } else {
            self.finish();
        }
        self.screen.scene().settle(self);
    }
}

/// Where the token at `position` is after an edit: the end stays the end; other tokens are found among those that
/// are the same before and after the edit.
fn carried(old: &[u32], new: &[u32], position: usize) -> usize {
    let last = new.len().saturating_sub(1);
    let same = |(a, b): &(&u32, &u32)| a == b;
    let before = old.iter().zip(new).take_while(same).count();
    let after = old.iter().rev().zip(new.iter().rev()).take_while(same).count();
    let after = after.min(old.len().min(new.len()) - before);
    let from_end = old.len().saturating_sub(position);
    if from_end <= 1 {
        last
    } else if position >= before && from_end <= after {
        new.len() - from_end
    } else {
        position.min(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_selection_follows_its_token_through_an_edit() {
        let old = [1, 2, 3, 4, 5];
        for (new, positions) in [
            (&[1, 2, 3, 4, 5, 6][..], [0, 1, 2, 3, 5]),
            (&[1, 2, 9, 3, 4, 5], [0, 1, 3, 4, 5]),
            (&[9, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5]),
            (&[1, 4, 5], [0, 1, 2, 1, 2]),
            (&[1, 2, 9, 4, 5], [0, 1, 2, 3, 4]),
            (&[7], [0; 5]),
            (&[2, 3, 4, 5], [0, 0, 1, 2, 3]),
        ] {
            for (position, expected) in positions.into_iter().enumerate() {
                assert_eq!(carried(&old, new, position), expected, "{position} in {new:?}");
            }
        }
        assert_eq!(carried(&[1, 1, 1], &[1, 1, 1, 1], 1), 1);
    }
}
