//! The worker threads: the newest request wins, and a run can be given up.

use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actscope::Input;
use actscope::analysis::lens::{self, Lens, Which};
use actscope::analysis::logits::Sampling;
use actscope::engine::{
    Engine, Event, Job, Look, Looker, Request, Said, Seen, Slot, Steps, Wanted, Work, Worker,
};
use actscope::model::{LoadOptions, Source};

fn start() -> (Engine, Receiver<Event>) {
    let (sender, events) = channel();
    let sink = Arc::new(move |event| drop(sender.send(event))) as _;
    (Engine::start(Source::Demo, LoadOptions::default(), sink).unwrap(), events)
}

fn next(events: &Receiver<Event>) -> Event {
    events.recv_timeout(Duration::from_mins(1)).expect("the engine says something")
}

#[test]
fn the_newest_request_wins() {
    let (engine, events) = start();
    for id in 1..=40 {
        let input = Input::text(format!("Request number {id} {}", "and so on ".repeat(20)));
        engine.send(Request::Job(Job { id, work: Work::Run { input, base: None } }));
    }
    let mut ran = Vec::new();
    while ran.last() != Some(&40) {
        if let Event::Job { id, said: Said::Ran { run, .. } } = next(&events) {
            assert!(run.prompt_text().starts_with(&format!("Request number {id} ")));
            ran.push(id);
        }
    }
    assert!(ran.is_sorted() && ran.len() < 40, "none was skipped: {ran:?}");
}

#[test]
fn a_run_that_is_no_longer_wanted_ends_before_its_next_block() {
    let model = Arc::new(actscope::Model::demo());
    let newest = Arc::new(AtomicU64::new(1));
    let mut worker = Worker::new(Arc::clone(&newest)).holding(model);
    let heard = Mutex::new(Vec::new());
    let emit = |event: Event| {
        // A newer request comes while block 1 is about to be entered.
        let Event::Job { said, .. } = event else { panic!("{event:?} is of no job") };
        if matches!(said, Said::Layer { layer: 1, .. }) {
            newest.store(2, std::sync::atomic::Ordering::SeqCst);
        }
        heard.lock().unwrap().push(format!("{said:?}").split([' ', '{']).next().unwrap().to_owned());
    };
    worker.execute(Job { id: 1, work: Work::Run { input: Input::text("Give this up"), base: None } }, &emit);
    assert_eq!(*heard.lock().unwrap(), ["Layer", "Layer", "Cancelled"]);
}

#[test]
fn tokens_are_drawn_one_by_one_and_can_be_stopped() {
    let model = Arc::new(actscope::Model::demo());
    let from = Arc::new(actscope::Run::all(&model, Input::text("Once upon a time")).unwrap());
    let newest = Arc::new(AtomicU64::new(7));
    let mut worker = Worker::new(Arc::clone(&newest)).holding(model);
    let lengths = Mutex::new(Vec::new());
    let emit = |event: Event| {
        if let Event::Job { said: Said::Ran { run, left, .. }, .. } = event {
            lengths.lock().unwrap().push((run.n_tokens() - from.n_tokens(), left));
            if left == 7 {
                newest.store(8, std::sync::atomic::Ordering::SeqCst);
            }
        }
    };
    let sampling = Sampling::default();
    worker.execute(Job { id: 7, work: Work::Generate { from: Arc::clone(&from), n: 10, sampling } }, &emit);
    assert_eq!(*lengths.lock().unwrap(), [(1, 9), (2, 8), (3, 7)]);
}

#[test]
fn ablating_says_how_far_it_is_and_can_be_stopped() {
    use actscope::analysis::effects::Question;
    let model = Arc::new(actscope::Model::demo());
    let run = Arc::new(actscope::Run::all(&model, Input::text("Once upon a time")).unwrap());
    let question = Question { position: 2, token: None, mean: false };
    for stop in [None, Some(2)] {
        let newest = Arc::new(AtomicU64::new(3));
        let mut worker = Worker::new(Arc::clone(&newest)).holding(Arc::clone(&model));
        let heard = Mutex::new(Vec::new());
        let emit = |event: Event| {
            let before = heard.lock().unwrap().len();
            heard.lock().unwrap().push(match event {
                Event::Job { said: Said::Step(Steps { done, of, .. }), .. } => {
                    if Some(before) == stop {
                        newest.store(4, std::sync::atomic::Ordering::SeqCst);
                    }
                    format!("{done} of {of}")
                }
                Event::Job { said: Said::Effects(effects), .. } => {
                    format!("{} effects", effects.of.all.len())
                }
                Event::Job { said, .. } => format!("{said:?}").split([' ', '{']).next().unwrap().to_owned(),
                other => format!("{other:?}"),
            });
        };
        worker.execute(
            Job { id: 3, work: Work::Effects { run: Arc::clone(&run), base: None, question } },
            &emit,
        );
        let heard = heard.into_inner().unwrap();
        let n = 4 * (6 + 1);
        match stop {
            None => assert_eq!(
                (&heard[0], heard.last().unwrap()),
                (&format!("0 of {n}"), &format!("{n} effects"))
            ),
            Some(at) => assert_eq!((heard.len(), heard.last().unwrap().as_str()), (at + 2, "Cancelled")),
        }
    }
}

/// What is wanted of a run of the demo model.
fn wanted(looks: Vec<(Slot, Look)>) -> Wanted {
    let model = Arc::new(actscope::Model::demo());
    let prompt = "The old man said to the young man that the sea was calm. ".repeat(4);
    let run = Arc::new(actscope::Run::all(&model, Input::text(prompt)).unwrap());
    Wanted { run, base: None, shown_id: 1, id: 1, metric: None, looks }
}

/// All that is said to `wanted`, of which only so many steps are waited for.
fn look(looker: &mut Looker, wanted: Wanted, steps: usize) -> Vec<Event> {
    let (mut said, gone) = (Vec::new(), std::cell::Cell::new(0));
    looker.look(wanted, &|| gone.replace(gone.get() + 1) < steps, &mut |event| said.push(event));
    said
}

fn readings(events: &[Event]) -> Vec<usize> {
    let of = |event: &Event| match event {
        Event::Looked { seen, .. } => match &*seen.first()?.1 {
            Seen::Lens(_, lens) => Some(lens.of.readings.len()),
            _ => None,
        },
        _ => None,
    };
    events.iter().filter_map(of).collect()
}

#[test]
fn the_lens_is_read_piece_by_piece_and_what_was_read_is_known() {
    let look_at =
        |positions| Look::Lens { lens: Which::Logit, versus: None, rows: 0..9, positions, token: None, k: 3 };
    let asked = wanted(vec![(Slot::Lens, look_at(0..20))]);
    let again = |positions| Wanted { looks: vec![(Slot::Lens, look_at(positions))], ..asked.clone() };
    let mut looker = Looker::default();
    let abandoned = look(&mut looker, asked.clone(), 2);
    assert_eq!(readings(&abandoned), [0, 24, 48], "it ends when something else is wanted");
    assert!(matches!(
        abandoned.last(),
        Some(Event::Looking { steps: Some(Steps { done: 48, of: 180, .. }), .. })
    ));
    let rest = look(&mut looker, again(0..20), usize::MAX);
    assert_eq!(readings(&rest), [48, 72, 96, 120, 144, 168, 180], "what was read is not read again");
    assert!(matches!(rest.last(), Some(Event::Looking { id: 1, steps: None })));
    assert_eq!(readings(&look(&mut looker, again(0..20), usize::MAX)), [180]);
    assert_eq!(readings(&look(&mut looker, again(1..21), usize::MAX)), [171, 180], "one column is new");

    let hooks = lens::hooks(asked.run.config());
    let at_once = Lens::new(&asked.run, &hooks, 0..20, None, 3).unwrap();
    let Some(Event::Looked { seen, .. }) = rest.iter().rev().nth(1) else { panic!("{rest:?}") };
    let Seen::Lens(_, by_pieces) = &*seen[0].1 else { panic!("{seen:?}") };
    for (a, b) in at_once.readings.iter().zip(&by_pieces.of.readings) {
        assert_eq!((a.hook, a.position, a.top[0].id), (b.hook, b.position, b.top[0].id));
        assert!((a.kl - b.kl).abs() < 1e-4 && (a.entropy_bits - b.entropy_bits).abs() < 1e-4);
    }
}

#[test]
fn finding_says_how_far_it_is_and_can_be_stopped() {
    let asked = wanted(vec![(Slot::Found, Look::Found)]);
    let of = asked.run.cache.names().len();
    let done = |events: &[Event]| -> Vec<_> {
        let steps = |event: &Event| match event {
            Event::Looking { steps: Some(steps), .. } => Some((steps.done, steps.of)),
            _ => None,
        };
        events.iter().filter_map(steps).collect()
    };
    let found = |events: &[Event]| events.iter().any(|event| matches!(event, Event::Looked { .. }));
    let all = look(&mut Looker::default(), asked.clone(), usize::MAX);
    assert!(found(&all) && done(&all).len() > 4 && done(&all).is_sorted());
    assert!(done(&all).iter().all(|(_, n)| *n == of));
    let stopped = look(&mut Looker::default(), asked, 2);
    assert_eq!(done(&stopped), done(&all)[..3]);
    assert!(!found(&stopped), "it looks no further than the next tensor");
}

#[test]
fn a_model_that_is_not_there_is_an_event() {
    let (sender, events) = channel();
    let sink = Arc::new(move |event| drop(sender.send(event))) as _;
    let _engine = Engine::start(Source::Path("/no/such/model".into()), LoadOptions::default(), sink);
    assert!(matches!(next(&events), Event::LoadFailed(_)));
}
