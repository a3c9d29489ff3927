//! Downloads on standard error: bars on a terminal, otherwise one line per file.

use std::collections::HashMap;
use std::fmt;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};

use indicatif::{MultiProgress, ProgressBar, ProgressFinish, ProgressState, ProgressStyle};

use super::output::say;
use crate::error::Result;
use crate::model::Progress;
use crate::model::source::OnProgress;
use crate::text::{brief, bytes, plain};

/// The length to which file names are cut.
const NAME: usize = 60;

#[derive(Default)]
pub struct Bars {
    all: MultiProgress,
    /// `None` for a file that was announced on a line.
    of_file: Mutex<HashMap<String, Option<ProgressBar>>>,
}

impl Bars {
    pub fn on_progress(self: &Arc<Self>) -> OnProgress {
        let bars = Arc::clone(self);
        Arc::new(move |progress| match progress {
            Progress::Download { file, done, total, .. } => bars.show(file, done, total),
            Progress::Reading => bars.clear(),
        })
    }

    /// Clears the bars from the terminal.
    pub fn clear(&self) {
        let _ = self.all.clear();
    }

    fn show(&self, file: String, done: u64, total: Option<u64>) {
        let mut of_file = self.of_file.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = of_file.entry(file).or_insert_with_key(|file| self.begin(file, total));
        if let Some(bar) = bar {
            if let Some(total) = total {
                bar.set_length(total);
                bar.set_style(style("{msg} {wide_bar} {done} of {size}, {speed}/s {eta}"));
            }
            bar.set_position(done);
            if total.is_some_and(|total| done >= total) {
                bar.finish_and_clear();
            }
        }
    }

    fn begin(&self, file: &str, total: Option<u64>) -> Option<ProgressBar> {
        let name = brief(&plain(file), NAME).into_owned();
        if !std::io::stderr().is_terminal() {
            let size = total.map(|total| format!(" ({})", bytes(total))).unwrap_or_default();
            say(&format!("downloading {name}{size}"));
            return None;
        }
        let bar = self.all.add(ProgressBar::no_length().with_message(name));
        bar.set_style(style("{msg} {done}, {speed}/s"));
        Some(bar)
    }
}

/// With `{done}`, `{size}` and `{speed}` for bytes.
fn style(template: &str) -> ProgressStyle {
    let key = |n: fn(&ProgressState) -> u64| {
        move |state: &ProgressState, out: &mut dyn fmt::Write| {
            // A String accepts everything.
            let _ = out.write_str(&bytes(n(state)));
        }
    };
    ProgressStyle::with_template(template)
        .expect("the template is valid")
        .with_key("done", key(ProgressState::pos))
        .with_key("size", key(|state| state.len().unwrap_or_default()))
        .with_key("speed", key(|state| state.per_sec() as u64))
}

/// A progress bar that counts, on standard error if it is a terminal.
pub fn count(what: &'static str) -> impl FnMut(usize, usize) -> Result<()> {
    let bar = ProgressBar::no_length().with_message(what).with_finish(ProgressFinish::AndClear);
    bar.set_style(style("{msg} {wide_bar} {pos} of {len} {eta}"));
    move |done, of| {
        bar.set_length(of as u64);
        bar.set_position(done as u64);
        Ok(())
    }
}
