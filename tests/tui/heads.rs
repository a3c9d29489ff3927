//! The Heads and Lens screens.

use std::sync::Arc;

use actscope::analysis::heads::{Atlas, Exclude, Metric, repeated_random};
use actscope::analysis::lens::{self, Lens};
use actscope::analysis::logits::Next;
use actscope::engine::{Event, Look, Request, Said, Seen, Slot, Steps};
use actscope::hooks::{HookName, Site};
use actscope::tui::app::Screen;
use actscope::tui::text::{num, short};
use actscope::tui::theme::{Depth, Theme};
use actscope::tui::update::{Message, update};
use actscope::{Input, Run};
use ratatui::crossterm::event::{Event as TerminalEvent, KeyCode, KeyEvent, KeyModifiers};

use crate::harness::{Explorer, PROMPT, assert_snapshot, demo};

const REPEATS: &str = "The old man and the young man, the old sea and the young sea.";

fn explorer(prompt: &str, size: (u16, u16)) -> Explorer {
    Explorer::new(prompt, size, Theme::default())
}

macro_rules! snapshots {
    ($($name:ident: $prompt:ident $size:tt $keys:literal;)*) => { $(
        #[test]
        fn $name() {
            let mut explorer = explorer($prompt, $size);
            explorer.keys($keys);
            assert_snapshot(stringify!($name), &explorer);
        }
    )* };
}

snapshots! {
    heads_80x24: PROMPT (80, 24) "7 down right";
    heads_160x48: REPEATS (160, 48) "7 m m down right down";
    heads_300x90: REPEATS (300, 90) "7";
    heads_random: PROMPT (80, 24) "7 s m m down right right f f";
    lens_80x24: PROMPT (80, 24) "8 right right right pagedown up up";
    lens_160x48: PROMPT (160, 48) "8 right right right pagedown up up up";
    lens_300x90: PROMPT (300, 90) "8 m m m m";
    lens_rank: PROMPT (80, 24) "8 m m t space s e a enter end pagedown up";
    lens_choosing: PROMPT (80, 24) "8 t t h e space t h e";
}

#[test]
fn without_colours_every_number_is_there() {
    let mut e = Explorer::new(PROMPT, (80, 24), Theme { depth: Depth::Mono, ..Theme::default() });
    e.keys("7 s m m");
    assert_snapshot("heads_mono", &e);
    e.keys("8");
    assert_snapshot("lens_mono", &e);
}

#[test]
fn numbers_on_screen_are_those_of_the_library() {
    let mut e = explorer(REPEATS, (160, 48));
    let atlas = Atlas::new(e.run(), Exclude::default()).unwrap();
    e.keys("7 down right right");
    for metric in Metric::ALL {
        let value = num(atlas.get(1, 2).get(metric));
        assert!(e.shows(&format!("{} {value}", metric.word())), "{metric:?}: {}", e.lines().join("\n"));
        assert!(e.shows(metric.doc()), "{metric:?}");
        e.keys("m");
    }
    e.keys("m m");
    assert!(e.shows(Metric::PrevToken.doc()));

    e.keys("8 home right pagedown up");
    let hook = Site::ResidMid.at(3);
    let lens = Lens::new(e.run(), &[hook], 1..2, None, 3).unwrap();
    let reading = &lens.readings[0];
    for said in [
        format!("3 mid at {} (1)", e.run().token_text(1)),
        format!("rank {}  p {}", reading.token.rank, num(reading.token.prob)),
        format!("entropy {:.2} bits", reading.entropy_bits),
        format!("{} {}", demo().tokenizer.show(reading.top[1].id), short(reading.top[1].prob, 4)),
    ] {
        assert!(e.shows(&said), "{said} is not on the screen:\n{}", e.lines().join("\n"));
    }
}

/// The lens while it is being read.
fn half_read() -> Explorer {
    let mut e = explorer(PROMPT, (80, 24));
    e.keys("8");
    let Seen::Lens(look, mut lens) = (*e.app.seen[&Slot::Lens]).clone() else { panic!("the lens") };
    let of = lens.of.readings.len();
    lens.of.readings.drain(..of / 2);
    e.app.looking = Some(Steps { what: "reading", done: lens.of.readings.len(), of });
    e.app.tick = 1;
    e.app.seen.insert(Slot::Lens, Arc::new(Seen::Lens(look, lens)));
    e
}

#[test]
fn a_lens_that_is_being_read_can_be_stopped_and_goes_on() {
    let mut e = half_read();
    assert_snapshot("lens_half_read", &e);
    e.keys("esc");
    assert!(e.shows("stopped; the next key continues") && !e.shows("Esc cancel"));
    assert!(!e.app.seen[&Slot::Lens].is_whole() && e.app.screen.scene().chart(&e.app, e.run()).is_none());
    e.keys("m");
    assert!(e.app.seen[&Slot::Lens].is_whole() && e.app.screen.scene().chart(&e.app, e.run()).is_some());
}

#[test]
fn a_candidate_is_followed_through_the_layers() {
    let mut e = explorer(PROMPT, (160, 48));
    e.keys("5 down down f");
    let next = Next::new(e.run(), e.app.selection.position, 3).unwrap();
    assert_eq!((e.app.screen, e.app.screens.lens.token), (Screen::Lens, Some(next.top[2].id)));
    let text = demo().tokenizer.show(next.top[2].id);
    assert!(e.shows(&format!("rank of {text}")) && e.shows(&format!("following {text}")));
    e.keys("m 5 f");
    assert!(e.shows("D(final"), "{}", e.lines().join("\n"));
}

#[test]
fn a_search_shows_how_far_it_is() {
    let mut e = explorer(PROMPT, (80, 24));
    // The key alone: nobody looks yet.
    let key = TerminalEvent::Key(KeyEvent::new(KeyCode::Char('F'), KeyModifiers::NONE));
    let asked = update(&mut e.app, Message::Terminal(key));
    assert!(matches!(&asked[..], [Request::Look(wanted)] if wanted.looks == [(Slot::Found, Look::Found)]));
    let steps = Some(Steps { what: "searching", done: 21, of: 84 });
    e.send(Message::Engine(Event::Looking { id: e.app.look_id, steps }));
    assert!(e.shows("searching 21 of 84 tensors") && e.shows(&"█".repeat(14)));
    let asked = e.app.look_id;
    e.keys("esc");
    assert!(e.app.overlay.is_none() && e.app.looking.is_none());
    e.send(Message::Engine(Event::Looking { id: asked, steps }));
    assert!(e.app.looking.is_none(), "what comes late is of no matter");
    assert!(e.app.look_id > asked, "what is asked for now ends it");
}

#[test]
fn random_tokens_show_the_induction_heads() {
    let mut e = explorer(PROMPT, (160, 48));
    e.keys("7 s m m");
    let run = Run::all(&demo(), repeated_random(&demo(), 50, 0, false).unwrap()).unwrap();
    let atlas = Atlas::new(&run, Exclude::default()).unwrap();
    assert_eq!(e.app.screens.heads.repeated.as_ref().unwrap().atlas.of, atlas);
    assert!(e.shows("50 random tokens, twice (seed 0)") && e.shows("at most .500"));
    let (_, y) = e.find("1.5    .");
    assert!(e.lines()[usize::from(y)].contains("  1  1.5 "), "1.5 is the first of the list");
    // The prompt changes, the random tokens do not; another seed measures anew.
    e.keys("e").text(" Yes.").keys("esc");
    assert!(e.shows("50 random tokens, twice (seed 0)"));
    e.keys("S");
    let Some(Seen::Map(map)) = e.app.seen.get(&Slot::OnRandom).map(|seen| &**seen) else { panic!("a map") };
    assert_eq!(map.grid.dims, (100, 100), "its attention is that on the random tokens");
    assert!(e.shows("(seed 1)") && e.app.screens.heads.repeated.as_ref().unwrap().atlas.of != atlas);
    e.keys("s");
    assert!(e.shows("on the prompt"));
}

#[test]
fn every_head_is_ablated_for_the_prediction_after_the_selected_token() {
    use actscope::analysis::effects::{Effects, Question};
    let mut e = explorer(REPEATS, (160, 48));
    e.keys("7 M M");
    assert!(e.shows("ablation effect") && e.shows("not measured yet") && e.shows("28 runs"));
    let position = e.run().n_tokens() - 3;
    e.keys("1 end left left 7 u");
    let question = Question { position, token: None, mean: false };
    let effects = Effects::new(e.run(), question, |_, _| Ok(())).unwrap();
    assert_eq!(e.app.screens.heads.effects.as_ref().map(|(_, known)| known).unwrap().of, effects);
    let of = |layer, head| effects.all.iter().find(|f| (f.layer, f.head) == (layer, Some(head))).unwrap();
    assert!(e.shows(&format!("effect {} nats", num(of(0, 0).delta_logprob as f32))));
    let heads = effects.all.iter().filter(|effect| effect.head.is_some());
    let worst = heads.min_by(|a, b| a.delta_logprob.total_cmp(&b.delta_logprob)).unwrap();
    let first = format!("  1  {}.{} ", worst.layer, worst.head.unwrap());
    assert!(e.shows(&first), "{first}: {}", e.lines().join("\n"));
    assert_snapshot("heads_effect", &e);
    // They are those of this run: another prompt has others.
    e.keys("e").text(" So").keys("esc");
    assert!(e.shows("not measured yet"));
}

#[test]
fn esc_ends_measuring_and_the_prompt_is_shown_again() {
    use actscope::engine::Event;
    use actscope::tui::app::Activity;
    use actscope::tui::update::Message;
    let mut e = explorer(PROMPT, (80, 24));
    e.keys("7 u");
    let id = e.app.job_id;
    e.app.activity = Some(Activity::Working(Steps { what: "ablating", done: 0, of: 28 }));
    e.send(Message::Engine(Event::Job { id, said: Said::Step(Steps { what: "ablating", done: 7, of: 28 }) }));
    assert!(e.shows("ablating, 7 of 28") && e.shows("Esc cancel"));
    e.keys("esc");
    assert!(e.app.activity.is_none() && e.app.job_id > id && e.shows("cancelled"));
    // Random tokens that cannot be had are not asked for again and again.
    e.app.screens.heads.random = true;
    e.app.screens.heads.seed = 5;
    e.app.activity = Some(Activity::Running { layer: 0, n_layer: 4, left: 0 });
    e.keys("esc");
    assert!(!e.app.screens.heads.random && e.app.activity.is_none());
}

#[test]
fn effects_are_of_the_prompt_and_so_is_the_map_beside_them() {
    let mut e = explorer(PROMPT, (160, 48));
    e.keys("7 s");
    assert!(e.shows("random tokens, twice (seed"), "{}", e.lines().join("\n"));
    e.keys("u");
    let shown = e.app.screen.scene().shown(&e.app).unwrap();
    assert_eq!(shown.tokens, e.run().tokens);
    assert!(e.shows("on the prompt") && e.shows(" 1 ·old"), "{}", e.lines().join("\n"));
    e.keys("M");
    assert!(e.shows("random tokens, twice (seed"), "another number is of random tokens again");
}

#[test]
fn a_head_or_mlp_is_changed_where_its_contribution_is_seen() {
    let mut e = explorer(PROMPT, (160, 48));
    e.keys("9 a");
    assert_eq!(e.app.input.interventions.0[0].change.to_string(), "zero head:0.0");
    e.keys("a").keys("left a");
    assert_eq!(e.app.input.interventions.0[0].change.to_string(), "zero mlp:0");
    e.keys("a right right right right right right right a");
    assert!(e.app.input.interventions.0.is_empty() && e.shows("a bias is a weight"));
}

#[test]
fn charts_are_exported_as_they_are_shown() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let mut e = explorer(PROMPT, (160, 48));
    for (keys, name, words) in [("7 m m x", "a.svg", "heads: induction"), ("8 m x", "b.svg", "token prob")] {
        e.keys(keys);
        assert!(e.shows(words) && e.shows(".png .svg"), "{}", e.lines().join("\n"));
        e.keys("ctrl-u").text(path(name).to_str().unwrap()).keys("enter");
        assert!(e.shows("wrote "), "{}", e.lines().join("\n"));
        assert!(std::fs::read_to_string(path(name)).unwrap().contains(words));
    }
    e.keys("7 x ctrl-u").text(path("c.png").to_str().unwrap()).keys("enter");
    assert!(std::fs::read(path("c.png")).unwrap().starts_with(b"\x89PNG"));
    e.keys("x ctrl-u").text(path("d.csv").to_str().unwrap()).keys("enter");
    assert!(e.shows("use a name that ends in .png or .svg"));
    e.keys("x tab ctrl-u").text(path("e.npz").to_str().unwrap()).keys("enter");
    assert!(path("e.npz").is_file(), "every tensor of the run");
}

#[test]
fn a_head_opens_its_map() {
    let mut e = explorer(PROMPT, (160, 48));
    e.keys("7 down down right right right enter");
    assert_eq!((e.app.screen, e.app.selection.layer, e.app.selection.head), (Screen::Attention, 2, 3));
    assert!(e.shows("head 2.3"));
}

#[test]
fn filters_shorten_the_ranking() {
    let mut e = explorer(PROMPT, (160, 48));
    e.keys("7");
    let listed = |e: &Explorer| (0..24).filter(|i| e.shows(&format!("{}.{}    .", i / 6, i % 6))).count();
    assert_eq!(listed(&e), 24);
    e.keys("f");
    assert_eq!(listed(&e), 6);
    e.keys("f");
    assert_eq!(listed(&e), 1, "only 0.0 reads the token before: {}", e.lines().join("\n"));
}

#[test]
fn clicks_select_heads_and_positions() {
    let mut e = explorer(PROMPT, (160, 48));
    e.keys("7");
    let (x, y) = e.find("2.4    .");
    e.click(x, y);
    assert_eq!((e.app.selection.layer, e.app.selection.head), (2, 4));
    let (x, y) = e.find(".927");
    e.click(x, y);
    assert_eq!((e.app.selection.layer, e.app.selection.head), (0, 0));
    e.keys("8");
    let (x, y) = e.find("2 mid");
    e.click(x + 28, y);
    assert_eq!(e.app.selection.hook, Site::ResidMid.at(2));
    assert!(e.app.selection.position > 0 && e.shows("2 mid at "), "{}", e.lines().join("\n"));
}

#[test]
fn the_lens_opens_its_residual_in_stages() {
    let mut e = explorer(PROMPT, (80, 24));
    e.keys("8 pagedown up enter");
    assert_eq!((e.app.screen, e.app.selection.hook), (Screen::Stages, Site::ResidMid.at(3)));
    e.keys("8 up up up up up up up up up up enter");
    assert_eq!(e.app.selection.hook, Site::ResidPre.at(0), "the first row is what enters block 0");
}

#[test]
fn a_token_is_followed_until_the_final_answer_is_again() {
    let mut e = explorer(PROMPT, (160, 48));
    e.keys("8 t").text("no such");
    assert!(e.shows("is not one token but"), "{}", e.lines().join("\n"));
    e.keys("enter");
    assert!(e.app.overlay.is_some() && e.app.screens.lens.token.is_none());
    e.keys("ctrl-u").text("99999");
    assert!(e.shows("(0 to 2047)"));
    e.keys("ctrl-u").text(" sea").keys("enter");
    let sea = demo().token(" sea").unwrap();
    assert_eq!(e.app.screens.lens.token, Some(sea));
    assert!(e.shows("following ·sea") && e.shows("·sea (followed) rank"));
    e.keys("T");
    assert!(e.shows("following the final answer"));
}

#[test]
fn a_long_prompt_scrolls_with_the_selection() {
    let mut e = explorer(&"one two three four five six ".repeat(6), (80, 24));
    let n = e.run().n_tokens();
    let hooks = lens::hooks(e.run().config());
    e.keys("8");
    for keys in ["end", "home", "right right right right right right right right", "pagedown up up"] {
        e.keys(keys);
        let place =
            format!("at {} ({})", e.run().token_text(e.app.selection.position), e.app.selection.position);
        assert!(e.shows(&place), "{keys}: {place}\n{}", e.lines().join("\n"));
        assert!(e.shows(&format!("of {n}")), "which part is shown");
    }
    assert!(hooks.contains(&"blocks.3.hook_resid_post".parse::<HookName>().unwrap()));
}

#[test]
fn one_token_and_other_shapes_draw() {
    for size in [(60, 16), (80, 24), (400, 120)] {
        for prompt in ["A", PROMPT] {
            let mut e = explorer(prompt, size);
            for keys in ["7", "m m m m m", "s", "f f", "8", "m m m m", "up up left right"] {
                e.keys(keys);
                e.draw();
            }
        }
    }
    let mut e = Explorer::with_model(demo(), Input::ids([5]), (80, 24), Theme::default());
    e.keys("7 enter 7 8 enter 8");
    e.draw();
}
