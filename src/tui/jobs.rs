//! Jobs: requests for runs, and the engine's reports on them.

use std::sync::Arc;

use super::app::{Activity, App};
use super::screens::{Screen, compare, heads};
use super::what_if;
use crate::engine::{Job, Request, Said, Summary, Work};
use crate::run::{Prompt, Run};

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
        let (input, base) = (self.input.clone(), self.base_of(&self.input));
        vec![self.start(Work::Run { input, base })]
    }

    /// Samples `n` more tokens.
    pub fn generate(&mut self, n: usize) -> Vec<Request> {
        let Some(from) = self.made().cloned() else { return Vec::new() };
        self.selection.position = from.n_tokens() - 1;
        vec![self.start(Work::Generate { from, n, sampling: self.sampling })]
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
            Said::Swept(swept) => {
                self.finish();
                self.screens.compare.swept.insert(swept.sweep, Arc::new(swept));
            }
            Said::Repeated { atlas, runs } => {
                self.finish();
                heads::measured(self, atlas, runs);
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
        let followed = self.run.as_ref().is_some_and(|old| self.selection.position + 1 == old.n_tokens());
        let grew = self.run.as_ref().is_some_and(|old| run.tokens.starts_with(&old.tokens));
        let last = run.n_tokens() - 1;
        // At the end of the prompt, the selection follows appended tokens.
        let follow = followed && grew && matches!(run.input.prompt, Prompt::Ids(_));
        self.selection.position = if follow { last } else { self.selection.position.min(last) };
        self.selection.key = self.selection.key.min(last);
        self.input = run.input.clone();
        self.what_if.pair = None;
        if run.input.interventions.is_idle() {
            self.what_if.side = what_if::Side::default();
        }
        self.shown_id += 1;
        let n_layer = run.config().n_layer;
        self.run = Some(run);
        self.summary = Some(summary);
        if left > 0 {
            self.activity = Some(Activity::Running { layer: 0, n_layer, left });
        } else {
            self.finish();
        }
        self.screen.scene().settle(self);
    }
}
