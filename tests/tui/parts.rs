//! Attribution, weights, and what stands out.

use std::sync::Arc;

use actscope::analysis::attribution::Attribution;
use actscope::analysis::find::Found;
use actscope::analysis::weights::{Circuit, Spectrum};
use actscope::hooks::Part;
use actscope::model::{LoadOptions, Source};
use actscope::tui::app::{Focus, Screen};
use actscope::tui::text::num;
use actscope::tui::theme::{Depth, Theme};
use actscope::{Input, Model};
use proptest::prelude::*;

use crate::harness::{Explorer, PROMPT, assert_snapshot, demo};
use crate::{LARGE, SMALL, explorer, snapshot};

const HUGE: (u16, u16) = (300, 90);

snapshots! {
    attribution_80x24: SMALL "9 . . . . down down right right";
    attribution_160x48: LARGE "9 . . . . down down right right";
    attribution_300x90: HUGE "9 . . . . down down right right";
    attribution_neurons: LARGE "9 . . . . end left down enter down";
    attribution_versus: SMALL "9 . . . . v space o l d enter t space y o u n g enter";
    weights_wte_80x24: SMALL "w . . down right right";
    weights_wte_160x48: LARGE "w . . down right right";
    weights_wpe: SMALL "w m . . .";
    weights_residual: LARGE "w m m } . . .";
    weights_ov_80x24: SMALL "w m m m } ] ] ] ] ] down";
    weights_ov_160x48: LARGE "w m m m } ] ] ] ] ] down";
    weights_qk: LARGE "w m m m m";
    weights_neuron_80x24: SMALL "w m m m m m } } down down . .";
    weights_neuron_160x48: LARGE "w m m m m m } } down down . .";
    extremes: SMALL "F";
}

#[test]
fn the_sum_on_screen_is_that_of_the_run() {
    let mut e = explorer(LARGE);
    e.keys("9 . . . . .");
    let found = Attribution::new(e.run(), 5, None, None).unwrap();
    let token = e.run().model.tokenizer.show(found.token);
    assert!(e.shows(&format!("the logit of {token}, the likeliest, after ·the (5)")));
    assert!(e.shows(&format!("{} = embed ", num(found.logit as f32))));
    for part in found.ranked().iter().take(20) {
        let line = format!("{:<11}{:>8}", part.component.to_string(), num(part.value as f32));
        assert!(e.shows(&line), "{line} is not on the screen:\n{}", e.lines().join("\n"));
    }
    e.keys("v").text("0").keys("enter");
    let found = Attribution::new(e.run(), 5, None, Some(0)).unwrap();
    assert!(e.shows(" minus that of ") && e.shows(&format!("{} = embed ", num(found.logit as f32))));
    e.keys("T");
    assert!(!e.shows(" minus that of ") && e.app.screens.attribution.versus.is_none());
}

#[test]
fn a_candidate_is_taken_apart() {
    let mut e = explorer(LARGE);
    e.keys("5 . . down down down");
    let chosen = e.app.next().unwrap().of.top[3].id;
    e.keys("a");
    let found = Attribution::new(e.run(), 2, Some(chosen), None).unwrap();
    assert_eq!((e.app.screen, e.app.screens.attribution.token), (Screen::Attribution, Some(chosen)));
    assert!(e.shows(&format!("{} = embed ", num(found.logit as f32))));
}

#[test]
fn from_an_mlp_to_its_neurons_to_their_tokens() {
    let mut e = explorer(LARGE);
    e.keys("9 . . . down down home enter down down");
    let found = Attribution::new(e.run(), 3, None, None).unwrap();
    let third = found.neurons(e.run(), 2, 3).unwrap()[2];
    assert!(e.shows(&format!("neuron 2.{} wrote {}", third.neuron, num(third.value as f32))));
    e.keys("enter");
    assert_eq!((e.app.screen, e.app.selection.column), (Screen::Weights, third.neuron));
    assert!(e.shows(&format!("neuron 2.{} of 768", third.neuron)));
    e.keys("9 esc").keys("home right right enter");
    assert_eq!((e.app.screen, e.app.selection.layer, e.app.selection.head), (Screen::Attention, 2, 1));
}

#[test]
fn circuits_follow_the_head_and_the_direction() {
    let mut e = explorer(LARGE);
    e.keys("w m m m } } ] ] ] down down");
    let spectrum = Spectrum::new(&e.run().model.net, 2, 3, Circuit::Ov).unwrap();
    assert!(e.shows("OV of head 2.3"));
    for (i, value) in spectrum.values.iter().enumerate().take(20) {
        assert!(e.shows(&format!("{i:>3} {:>8}", num(*value as f32))));
    }
    let [reads, writes] = spectrum.tokens(&e.run().model.net, 2, 1).unwrap();
    for end in [reads.top[0], writes.top[0], reads.bottom[0], writes.bottom[0]] {
        let line = format!("{:>7} {}", num(end.score as f32), e.run().model.tokenizer.show(end.id));
        assert!(e.shows(&line), "{line} is not on the screen:\n{}", e.lines().join("\n"));
    }
    e.keys("m");
    assert!(e.shows("QK of head 2.3") && e.shows("queries +"));
}

#[test]
fn rows_are_walked_and_their_neighbours_follow() {
    let mut e = explorer(LARGE);
    let [sea] = e.run().model.tokenizer.encode(" sea").unwrap()[..] else { panic!("one token") };
    e.keys("w t").text(" sea").keys("enter");
    assert!(e.shows(&format!("{sea} ·sea")) && e.shows(" 0.553 ·water"), "{}", e.lines().join("\n"));
    e.keys("up");
    assert_eq!(e.app.screens.weights.token, Some(sea as usize - 1));
    e.keys("esc");
    assert_eq!(e.app.screens.weights.token, None);
}

#[test]
fn what_the_weights_say_is_exported_as_a_chart() {
    let mut e = explorer(LARGE);
    for (keys, title, first) in [
        ("w", "nearest to ", 0.9),
        ("m", "nearest to position 0", 1.0),
        ("m", "nearest to ", 1.0),
        ("m", "OV of head 0.0, direction 0", 1e9),
        ("m", "QK of head 0.0, direction 0", 1e9),
        ("m", "neuron 0.0", 1e9),
    ] {
        e.keys(keys);
        let (_, chart) = e.app.screen.scene().chart(&e.app, e.run()).unwrap();
        assert!(chart.title.starts_with(title), "{}", chart.title);
        assert!(chart.values.row(0)[0] <= first && chart.values.n_rows > 5);
    }
}

#[test]
fn what_stands_out_is_gone_to() {
    let mut e = explorer(LARGE);
    let found = Found::new(e.run(), |_, _| Ok(())).unwrap();
    let x = found.values[1];
    e.keys("F down enter");
    assert_eq!((e.app.screen, e.app.focus, e.app.selection.hook), (Screen::Stages, Focus::Map, x.name.hook));
    assert!(e.shows(&format!("[{}, {}] = {}", x.row, x.column, num(x.value))), "{}", e.lines().join("\n"));
    e.keys("F").text("outlier").keys("enter");
    assert_eq!(e.app.selection.column, found.channels[0].channel);
}

/// The largest values and rows, the slow way.
#[test]
fn nothing_in_the_run_is_larger() {
    let e = explorer(SMALL);
    let found = Found::new(e.run(), |_, _| Ok(())).unwrap();
    let mut n_values = 0;
    let names = e.run().model.tensors().into_iter().filter(|name| !name.hook.point().on_request);
    for name in names {
        let x = e.run().part(name, &Part::default()).unwrap();
        let values: Vec<f32> = x.flatten_all().unwrap().to_vec1().unwrap();
        n_values += values.len() as u64;
        let most = values.iter().filter(|x| x.is_finite()).fold(0f32, |most, x| most.max(x.abs()));
        let said = found.values.iter().find(|x| x.name == name).unwrap();
        assert_eq!(said.value.abs(), most, "{name}");
        let mut cell = x.clone();
        for index in said.cell() {
            cell = cell.get(index).unwrap();
        }
        assert_eq!(cell.to_scalar::<f32>().unwrap(), said.value, "{name}");
        assert!(found.values[0].value.abs() >= most);
    }
    assert_eq!(found.n_values, n_values);
    for channel in &found.channels {
        assert!(channel.ratio >= actscope::analysis::find::OUTLIER && !channel.layers.is_empty());
    }
}

#[test]
fn another_model_without_colours_and_without_tokenizer() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny/untied");
    let model =
        Model::load(&Source::Path(directory.into()), &LoadOptions::default(), &(Arc::new(|_| {}) as _));
    let theme = Theme { depth: Depth::Mono, ..Theme::default() };
    let mut model = model.unwrap();
    model.provenance.model = "untied".into(); // not where the sources are
    let mut e = Explorer::with_model(Arc::new(model), Input::ids([5, 17, 96]), SMALL, theme);
    e.keys("9 . down right");
    assert_snapshot("attribution_mono", &e);
    e.keys("w m m m");
    assert!(e.shows("OV of head 1.1"), "{}", e.lines().join("\n"));
    e.keys("2");
    assert!(e.shows("id 17, position 1") && !e.shows("bytes"), "{}", e.lines().join("\n"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn no_size_and_no_keys_make_it_panic(
        sizes in proptest::collection::vec((0u16..320, 0u16..100), 1..4),
        keys in proptest::collection::vec(proptest::sample::select(vec![
            "9", "w", "m", "m", "F", "enter", "esc", "left", "right", "up", "down", "home", "end", "pagedown",
            "{", "}", "[", "]", "a", "5", "t", "v", "T", "7", ".", "r", "B",
        ]), 0..30),
    ) {
        let mut e = Explorer::new(PROMPT, sizes[0], Theme::default());
        for (i, key) in keys.iter().enumerate() {
            e.keys(key);
            if let Some(&(width, height)) = sizes.get(i % 7) {
                e.resize(width, height);
            }
            e.draw();
        }
    }
}

/// The tokens of a long prompt fill a wide screen, in tables side by side; each can be clicked.
#[test]
fn a_long_prompt_has_several_tables() {
    let input = Input::ids((0..200).map(|i| 300 + i).collect::<Vec<_>>());
    let mut e = Explorer::with_model(demo(), input, HUGE, Theme::default());
    e.keys("1 home");
    let heads = e.lines().iter().map(|line| line.matches("surprise, bits, rank").count()).max();
    assert_eq!(heads, Some(2), "{}", e.lines().join("\n"));
    let (x, y) = e.find(" 100  ");
    assert!(x > 90, "in the second table");
    e.click(x + 2, y);
    assert_eq!(e.app.selection.position, 100);
    // A short one needs one, and the prompt has the rest.
    let e = Explorer::new("The old man", HUGE, Theme::default());
    assert_eq!(e.lines().iter().map(|line| line.matches("surprise, bits, rank").count()).max(), Some(1));
}
