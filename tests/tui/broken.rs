//! Models whose numbers are huge, zero or none, and those with next to nothing to show.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use actscope::hooks::Site;
use actscope::interventions::{Change, Target};
use actscope::model::{LoadOptions, Source};
use actscope::tui::app::Screen;
use actscope::tui::theme::Theme;
use actscope::{Input, Model};
use candle_core::{Device, Tensor};

use crate::harness::Explorer;
use crate::{LARGE, SMALL};

const HUGE: (u16, u16) = (300, 90);

/// The fixture `plain` with some of its weights multiplied, and its configuration changed.
fn plain(factor: impl Fn(&str) -> f64, config: &[(&str, &str)]) -> Arc<Model> {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny/plain");
    let to = tempfile::tempdir().unwrap();
    let mut text = std::fs::read_to_string(from.join("config.json")).unwrap();
    for (old, new) in config {
        assert!(text.contains(old), "{text}");
        text = text.replace(old, new);
    }
    std::fs::write(to.path().join("config.json"), text).unwrap();
    let weights = candle_core::safetensors::load(from.join("model.safetensors"), &Device::Cpu).unwrap();
    let times = |(name, tensor): (String, Tensor)| {
        let factor = factor(&name);
        // 0 · inf would be NaN.
        let tensor = if factor == 0.0 { tensor.zeros_like() } else { tensor * factor };
        (name, tensor.unwrap())
    };
    let mut weights: HashMap<_, _> = weights.into_iter().map(times).collect();
    if let Some((_, wpe)) = config
        .iter()
        .find(|(old, _)| old.contains("n_positions"))
        .zip(weights.get_mut("transformer.wpe.weight"))
    {
        *wpe = wpe.narrow(0, 0, 1).unwrap().contiguous().unwrap();
    }
    candle_core::safetensors::save(&weights, to.path().join("model.safetensors")).unwrap();
    let source = Source::Path(to.path().into());
    Arc::new(Model::load(&source, &LoadOptions::default(), &(Arc::new(|_| {}) as _)).unwrap())
}

fn all(factor: f64) -> Arc<Model> {
    plain(|_| factor, &[])
}

fn of(wanted: &'static str, factor: f64) -> Arc<Model> {
    plain(|name| if name.ends_with(wanted) { factor } else { 1.0 }, &[])
}

fn explorer(model: &Arc<Model>, input: Input, size: (u16, u16)) -> Explorer {
    Explorer::with_model(Arc::clone(model), input, size, Theme::default())
}

const IDS: [u32; 7] = [5, 17, 96, 0, 42, 17, 5];

/// Every screen, and every number that can be shown there.
const EVERYWHERE: &str = "1 2 down 3 end enter z z z z z z 4 enter s s 5 down 7 m m m m m m m u 8 m m m 9 end left \
                          enter w . m m m down m m 6 right right right right right right right right right right \
                          right right right right right right right right right right right right right right F esc 0";

#[test]
fn numbers_are_short_on_every_screen() {
    let broken = [
        all(1e30),
        all(1e6),
        all(0.0),
        of("ln_f.weight", 1e30),
        of("ln_f.weight", f64::INFINITY),
        of("ln_f.bias", f64::NAN),
        of("wte.weight", 1e15),
        of("mlp.c_proj.weight", 1e18),
        of("attn.c_attn.weight", 1e30),
    ];
    let change = Change::Scale(Target::Tensor(Site::LnFinalOut.once()).everywhere(), 1e30);
    for model in &broken {
        for (size, changes) in [(SMALL, vec![]), (LARGE, vec![change.clone()]), (HUGE, vec![])] {
            let mut e =
                explorer(model, Input::ids(IDS).with_interventions(changes.into_iter().collect()), size);
            for key in EVERYWHERE.split(' ') {
                e.keys(key);
                assert_short(&e, key);
            }
            for key in ["D", "5", "9", "8", "D", "9", "1"] {
                e.keys(key);
                assert_short(&e, key);
            }
        }
    }
}

/// No number has more digits than tell anything, or is written as no number is.
fn assert_short(e: &Explorer, key: &str) {
    for line in e.lines() {
        let long = |word: &&str| word.chars().filter(char::is_ascii_digit).count() > 12;
        let bad = ["NaN %", "-0.00 ", "+-", "--"].into_iter().find(|bad| line.contains(bad));
        let found = line.split(' ').find(long).or(bad);
        assert_eq!(found, None, "after {key}:\n{}", e.lines().join("\n"));
    }
}

#[test]
fn no_token_is_drawn_where_there_is_no_distribution() {
    for model in [of("ln_f.bias", f64::NAN), of("ln_f.weight", f64::INFINITY), all(1e30)] {
        let mut e = explorer(&model, Input::ids([5, 17]), LARGE);
        for keys in ["5 g", "T T T T T T T T T T T T g"] {
            e.keys(keys);
            assert!(
                e.shows("no token can be drawn: after the last one the logits are NaN or infinite"),
                "{keys}"
            );
            assert_eq!(e.run().n_tokens(), 2);
        }
    }
}

/// A row without a sum has no entropy either.
#[test]
fn nothing_is_known_of_a_row_of_nan() {
    let mut e = explorer(&all(1e30), Input::ids(IDS), LARGE);
    e.keys("4");
    assert!(e.shows("this query: entropy NaN bits, sum NaN"));
}

/// float32 cannot hold the product of two weights of 1e30.
#[test]
fn singular_values_are_never_infinite() {
    let mut e = explorer(&all(1e30), Input::ids(IDS), LARGE);
    e.keys("w m m m");
    assert!(e.shows("e60") && !e.shows("inf"), "{}", e.lines().join("\n"));
}

#[test]
fn one_is_singular_and_nothing_is_not_said() {
    let mut e = explorer(&all(1.0), Input::ids([5]), LARGE);
    assert!(e.shows("1 token of at most 32") && !e.shows("surprise 0") && !e.shows("1 tokens"));
    e.keys("7");
    assert!(e.shows("on the prompt, 1 token "), "{}", e.lines().join("\n"));

    let one = plain(|_| 1.0, &[("\"n_positions\": 32", "\"n_positions\": 1")]);
    let mut e = explorer(&one, Input::ids([5]), LARGE);
    e.keys("7");
    assert!(e.shows("the prompt, 1 token") && !e.shows("0 random tokens"), "{}", e.lines().join("\n"));
    e.keys("s");
    assert_eq!(e.app.screen, Screen::Heads);
    assert!(e.shows("there is no room for random tokens"), "{}", e.lines().join("\n"));
}

/// The sample is a text; ids are what such a model takes.
#[test]
fn token_ids_are_not_edited_from_a_text() {
    let model = all(1.0);
    let mut e = explorer(&model, Input::text("Alice said"), LARGE);
    e.keys("e");
    assert!(e.shows("token ids, such as 5, 17, 96") && !e.shows("Alice"), "{}", e.lines().join("\n"));
    e.text("7 8");
    assert_eq!(e.run().tokens, [7, 8]);
}
