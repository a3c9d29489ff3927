//! The explorer without a terminal, for benchmarks: keys in, frames out, the engine's work done
//! synchronously.

use std::sync::{Arc, Mutex, PoisonError};

use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{Event as TerminalEvent, KeyCode, KeyEvent, KeyModifiers};
use ratatui::layout::Rect;

use super::app::App;
use super::draw::draw;
use super::theme::Theme;
use super::update::{Message, update};
use crate::engine::{Event, Looker, Request, Worker};
use crate::model::Model;
use crate::run::Input;

pub struct Headless {
    pub app: App,
    worker: Worker,
    looker: Looker,
    buffer: Buffer,
}

impl Headless {
    /// The explorer at the start, before the model is loaded.
    pub fn new(name: &str, input: Input, size: (u16, u16)) -> Self {
        Self {
            app: App::new(name.to_owned(), input, Theme::default(), size),
            worker: Worker::new(Arc::default()),
            looker: Looker::default(),
            buffer: Buffer::empty(Rect::new(0, 0, size.0, size.1)),
        }
    }

    /// Supplies the model and makes the first run.
    pub fn loaded(&mut self, model: &Arc<Model>) {
        let worker = std::mem::replace(&mut self.worker, Worker::new(Arc::default()));
        self.worker = worker.holding(Arc::clone(model));
        let requests = update(&mut self.app, Message::Engine(Event::Loaded(Arc::clone(model))));
        self.answer(requests);
    }

    /// Handles a key; returns its requests to the engine.
    pub fn press(&mut self, code: KeyCode) -> Vec<Request> {
        let key = TerminalEvent::Key(KeyEvent::new(code, KeyModifiers::NONE));
        update(&mut self.app, Message::Terminal(key))
    }

    /// Carries out requests, and all that follow from them.
    pub fn answer(&mut self, mut requests: Vec<Request>) {
        while let Some(request) = requests.pop() {
            let heard = Mutex::new(Vec::new());
            let emit = |event| heard.lock().unwrap_or_else(PoisonError::into_inner).push(event);
            match request {
                Request::Job(job) => self.worker.execute(job, &emit),
                Request::Look(wanted) => self.looker.look(wanted, &|| true, &mut |event| emit(event)),
                Request::Export(_) | Request::Errand(_) | Request::Cancel(_) => {}
            }
            for event in heard.into_inner().unwrap_or_else(PoisonError::into_inner) {
                requests.extend(update(&mut self.app, Message::Engine(event)));
            }
        }
    }

    /// Handles a key and everything it leads to.
    pub fn key(&mut self, code: KeyCode) {
        let requests = self.press(code);
        self.answer(requests);
    }

    pub fn frame(&mut self) -> &Buffer {
        self.buffer.reset();
        draw(&self.app, &mut self.buffer);
        &self.buffer
    }
}
