//! A key to the next frame, without the terminal: update, look, draw on 240 × 70.

use std::sync::Arc;

use actscope::engine::{Event, Looker, Request, Worker};
use actscope::tui::app::App;
use actscope::tui::draw::draw;
use actscope::tui::theme::Theme;
use actscope::tui::update::{Message, update};
use actscope::{Input, Model};
use criterion::{Criterion, criterion_group, criterion_main};
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{Event as TerminalEvent, KeyCode, KeyEvent, KeyModifiers};
use ratatui::layout::Rect;

struct Explorer {
    app: App,
    worker: Worker,
    looker: Looker,
}

impl Explorer {
    fn send(&mut self, message: Message) {
        let mut requests = update(&mut self.app, message);
        while let Some(request) = requests.pop() {
            let heard = std::sync::Mutex::new(Vec::new());
            match request {
                Request::Job(job) => self.worker.execute(job, &|event| heard.lock().unwrap().push(event)),
                Request::Look(wanted) => heard.lock().unwrap().push(self.looker.look(wanted)),
                Request::Export(_) | Request::Cancel(_) => {}
            }
            for event in heard.into_inner().unwrap() {
                requests.extend(update(&mut self.app, Message::Engine(event)));
            }
        }
    }

    fn key(&mut self, code: KeyCode) {
        self.send(Message::Terminal(TerminalEvent::Key(KeyEvent::new(code, KeyModifiers::NONE))));
    }
}

fn render(c: &mut Criterion) {
    let model = Arc::new(Model::demo());
    let ids: Vec<u32> = (0..256).map(|i| i * 31 % 2048).collect();
    let app = App::new("demo".into(), Input::ids(ids), Theme::default(), (240, 70));
    let worker = Worker::new(Arc::default()).holding(Arc::clone(&model));
    let mut explorer = Explorer { app, worker, looker: Looker::default() };
    explorer.send(Message::Engine(Event::Loaded(model)));
    let mut group = c.benchmark_group("key to frame, 256 tokens, 240 × 70");
    for screen in ['1', '2', '3', '4', '5'] {
        explorer.key(KeyCode::Char(screen));
        let mut buffer = Buffer::empty(Rect::new(0, 0, 240, 70));
        let mut right = true;
        group.bench_function(format!("screen {screen}"), |b| {
            b.iter(|| {
                explorer.key(if right { KeyCode::Right } else { KeyCode::Left });
                right = !right;
                buffer.reset();
                draw(&explorer.app, &mut buffer);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, render);
criterion_main!(benches);
