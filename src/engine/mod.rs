//! The worker threads behind the explorer: requests in, events out.
//!
//! There are two workers, so that looking at the last run never waits for the next one. One loads the model
//! and makes runs (the newest request wins, and cancels the previous one between two layers); the other
//! computes what the screens show of a run (likewise, a newer request ends a slow one between
//! two pieces). Exports get their own thread.

mod gradients;
mod job;
mod look;
pub mod pixels;
pub mod saved;
mod slot;
mod write;

pub use job::{Beside, Event, FromFile, Job, Made, Request, Said, Second, Summary, Work, Worker};
pub use look::{Look, Looker, Map, RowLook, Seen, Steps, Wanted};
pub use slot::Slot;
pub use write::{Errand, Writing};

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::error::Result;
use crate::model::{LoadOptions, Model, Source};
use crate::run::Run;
use crate::threads;

/// Receives events; called from the workers' threads.
pub type Sink = Arc<dyn Fn(Event) + Send + Sync>;

/// The running workers. They end with the process.
pub struct Engine {
    jobs: Arc<Newest<Job>>,
    looks: Arc<Newest<Wanted>>,
    newest: Arc<AtomicU64>,
    sink: Sink,
}

impl Engine {
    /// Starts the workers; the first thing they do is load the model.
    ///
    /// # Errors
    /// [`Error::System`](crate::Error::System) if no threads are available.
    pub fn start(source: Source, options: LoadOptions, sink: Sink) -> Result<Self> {
        Self::begin(move |worker, sink| worker.load(&source, &options, sink), sink)
    }

    /// The same with a run that was saved in place of a model.
    ///
    /// # Errors
    /// [`Error::System`](crate::Error::System) if no threads are available.
    pub fn open(run: Run, sink: Sink) -> Result<Self> {
        Self::begin(move |worker, sink| Some(worker.open(run, sink)), sink)
    }

    #[allow(clippy::needless_pass_by_value)] // the workers keep it
    fn begin(
        load: impl FnOnce(&mut Worker, &Sink) -> Option<Arc<Model>> + Send + 'static,
        sink: Sink,
    ) -> Result<Self> {
        let engine = Self {
            jobs: Arc::new(Newest::default()),
            looks: Arc::new(Newest::default()),
            newest: Arc::new(AtomicU64::new(0)),
            sink: Arc::clone(&sink),
        };
        let (jobs, newest, events) =
            (Arc::clone(&engine.jobs), Arc::clone(&engine.newest), Arc::clone(&sink));
        spawn("actscope-run", &sink, move || {
            let mut worker = Worker::new(newest);
            let Some(model) = load(&mut worker, &events) else { return };
            let hashed = Arc::clone(&events);
            // Without its own thread, it is computed when needed.
            let _ = spawn("actscope-hash", &events, move || {
                // An atlas of features says which they are.
                for dictionary in model.dictionaries() {
                    dictionary.sha256();
                }
                if model.provenance.weights_sha256().is_ok() {
                    hashed(Event::Hashed);
                }
            });
            loop {
                worker.execute(jobs.take(), &*events);
            }
        })?;
        let (looks, events) = (Arc::clone(&engine.looks), Arc::clone(&sink));
        spawn("actscope-look", &sink, move || {
            let mut looker = Looker::default();
            loop {
                looker.look(looks.take(), &|| !looks.is_filled(), &mut |event| events(event));
            }
        })?;
        Ok(engine)
    }

    /// Sends a request and returns at once.
    pub fn send(&self, request: Request) {
        match request {
            Request::Job(job) => {
                self.newest.store(job.id, Ordering::Release);
                self.jobs.put(job);
            }
            Request::Cancel(id) => self.newest.store(id, Ordering::Release),
            Request::Look(wanted) => self.looks.put(wanted),
            Request::Export(export) => self.aside("actscope-export", move || export.write()),
            Request::Errand(errand) => self.aside("actscope-errand", move || errand.run()),
        }
    }

    /// Runs something that answers with an event, in its own thread.
    fn aside(&self, name: &str, body: impl FnOnce() -> Event + Send + 'static) {
        let sink = Arc::clone(&self.sink);
        if let Err(error) = spawn(name, &self.sink, move || sink(body())) {
            (self.sink)(Event::Exported(Err(error.to_string())));
        }
    }
}

/// Starts a thread; reports a panic to the explorer.
fn spawn(name: &str, sink: &Sink, body: impl FnOnce() + Send + 'static) -> Result<()> {
    let sink = Arc::clone(sink);
    threads::spawn(name, move || {
        if catch_unwind(AssertUnwindSafe(body)).is_err() {
            sink(Event::Crashed);
        }
    })
}

/// Holds the newest item until it is taken.
struct Newest<T> {
    newest: Mutex<Option<T>>,
    filled: Condvar,
}

impl<T> Default for Newest<T> {
    fn default() -> Self {
        Self { newest: Mutex::new(None), filled: Condvar::new() }
    }
}

impl<T> Newest<T> {
    fn put(&self, value: T) {
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
        self.filled.notify_one();
    }

    /// Whether there is an item.
    fn is_filled(&self) -> bool {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Waits for an item.
    fn take(&self) -> T {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(value) = newest.take() {
                return value;
            }
            newest = self.filled.wait(newest).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
