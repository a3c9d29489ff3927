//! The screen Features.

use std::sync::Arc;

use actscope::analysis::lens::Lens;
use actscope::engine::{Seen, Slot};
use actscope::hooks::{Part, Site};
use actscope::interventions::Target;
use actscope::tui::app::Screen;
use actscope::tui::theme::Theme;
use actscope::{Input, Model};

use super::harness::{Explorer, assert_snapshot};
use super::{LARGE, SMALL};

const YEAR: &str =
    "It was in the year 1848 that they made the general, Jane said, a box with a smooth surface.";

fn explorer(size: (u16, u16)) -> Explorer {
    let mut e = Explorer::new(YEAR, size, Theme::default());
    e.keys("o");
    e
}

#[test]
fn the_features_of_a_token_are_listed_the_strongest_first() {
    let mut e = explorer(LARGE);
    e.keys("home right right right right right right");
    assert_eq!(e.app.screen, Screen::Features);
    assert!(e.shows("digits of a year") && e.shows("blocks.2.hook_resid_pre"), "{}", e.lines().join("\n"));
    assert_snapshot("features_160x48", &e);
    let Seen::Features(_, fit, at) = &*e.app.seen[&Slot::Features] else { panic!("no features") };
    let position = at.position.unwrap();
    assert!(at.list.is_sorted_by(|a, b| a.value >= b.value) && at.n_active == at.list.len());
    assert!(fit.explained > 0.7);
    for one in &at.list {
        assert_eq!(one.along[position], one.value);
    }
    // The numbers are those of the command line.
    let dictionary = &e.run().model.dictionaries()[0];
    let features = dictionary.encode(&e.run().tensor(Site::ResidPre.at(2)).unwrap()).unwrap();
    let strongest: Vec<_> = at.list.iter().map(|one| (one.feature, one.value)).collect();
    assert_eq!(features.strongest(position), strongest);
}

#[test]
fn it_fits_other_sizes() {
    let mut small = explorer(SMALL);
    small.keys("home right right right right right right down");
    assert_snapshot("features_80x24", &small);
    let mut wide = explorer((300, 90));
    wide.keys("home right right right right right right down");
    assert_snapshot("features_300x90", &wide);
}

#[test]
fn a_feature_is_ablated_where_the_cursor_is() {
    let mut e = explorer(LARGE);
    e.keys("home right right right right right right down");
    let Seen::Features(_, _, at) = &*e.app.seen[&Slot::Features] else { panic!("no features") };
    let feature = at.list[1].feature;
    let before = e.run().tensor(Site::Logits.once()).unwrap().to_vec2::<f32>().unwrap();
    e.keys("a");
    let changes = &e.run().input.interventions;
    let target = Target::Feature { hook: Site::ResidPre.at(2), feature };
    assert_eq!(changes.to_string(), format!("zero {target}"));
    let after = e.run().tensor(Site::Logits.once()).unwrap().to_vec2::<f32>().unwrap();
    assert_ne!(before, after);
    assert!(e.shows(&format!("zero feature:2.resid_pre/{feature}")));
    // The cursor stays on it, though it is not active any more: the same key undoes.
    assert!(e.shows(&format!("feature:2.resid_pre/{feature}  ")), "{}", e.lines().join("\n"));
    e.keys("a");
    assert!(e.run().input.interventions.is_idle());
    // Also where no feature was chosen.
    e.keys("esc { home right right a a");
    assert!(e.run().input.interventions.is_idle(), "{}", e.run().input.interventions);
}

#[test]
fn another_dictionary_and_its_tensor_are_a_key_away() {
    let mut e = explorer(LARGE);
    e.keys("}");
    assert!(e.shows("blocks.3.hook_resid_pre") && e.shows("dictionary 2 of 2"), "{}", e.lines().join("\n"));
    e.keys("}");
    assert!(e.shows("dictionary 2 of 2"));
    e.keys("{ enter enter");
    assert_eq!((e.app.screen, e.app.selection.hook), (Screen::Stages, Site::ResidPre.at(2)));
    assert!(e.shows("blocks.2.hook_resid_pre.features"), "{}", e.lines().join("\n"));
}

#[test]
fn a_click_selects_a_feature_and_the_list_scrolls_to_the_cursor() {
    let mut e = explorer(SMALL);
    e.keys("home right right");
    let Seen::Features(_, _, at) = &*e.app.seen[&Slot::Features] else { panic!("no features") };
    let third = at.list[2].feature;
    let y = e.lines().iter().position(|line| line.contains(&format!("{third:>7} "))).unwrap();
    e.click(10, y as u16);
    assert!(e.shows(&format!("feature:2.resid_pre/{third} ")), "{}", e.lines().join("\n"));
    for _ in 0..40 {
        e.keys("down");
    }
    let Seen::Features(_, _, at) = &*e.app.seen[&Slot::Features] else { panic!("no features") };
    let last = at.list.last().unwrap().feature;
    assert!(e.shows(&format!("feature:2.resid_pre/{last}")), "{}", e.lines().join("\n"));
    assert!(at.list.len() < 14 || e.shows("▴"));
}

#[test]
fn a_model_without_dictionaries_says_how_to_get_one() {
    let place = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny/plain");
    let model = Arc::new(Model::open(place.to_str().unwrap()).unwrap());
    let mut e = Explorer::with_model(model, Input::ids(vec![5, 6, 7]), LARGE, Theme::default());
    e.keys("o");
    assert!(e.shows("This model has no sparse dictionary"), "{}", e.lines().join("\n"));
    e.keys("down right a enter esc");
    e.draw();
}

/// The same screen through the tuned and the Jacobian lens, with the numbers of the library.
#[test]
fn another_lens_is_a_key_away() {
    let mut e = Explorer::new(YEAR, LARGE, Theme::default());
    e.keys("8 end");
    assert!(e.shows("logit lens") && e.shows("0 mid"));
    e.keys("L");
    assert!(e.shows("tuned lens") && e.shows("2 pre") && !e.shows("0 mid"), "{}", e.lines().join("\n"));
    assert_snapshot("tuned_lens_160x48", &e);
    let run = e.run();
    let tuned = &run.model.lenses()[0];
    let last = run.n_tokens() - 1;
    let want = Lens::through(run, None, Some(tuned), last..last + 1, None, 1).unwrap().of;
    let Seen::Lens(_, seen) = &*e.app.seen[&Slot::Lens] else { panic!("no lens") };
    for layer in 0..4 {
        let hook = Site::ResidPre.at(layer);
        let (got, want) = (seen.of.get(hook, last).unwrap(), want.get(hook, last).unwrap());
        assert!((got.kl - want.kl).abs() < 1e-4 && got.top[0].id == want.top[0].id, "{hook}");
    }
    e.keys("up up enter");
    assert_eq!(e.app.selection.hook, Site::ResidPre.at(2));
    e.keys("8 L");
    assert!(e.shows("Jacobian lens") && e.shows("2 post"));
    e.keys("L");
    assert!(e.shows("logit lens") && e.shows("0 mid"));
}

#[test]
fn what_a_dictionary_makes_is_in_the_list_of_tensors() {
    let mut e = explorer(LARGE);
    e.keys("/").text("resid_pre.2.err").keys("enter");
    assert_eq!(e.app.screen, Screen::Stages);
    assert!(
        e.shows("blocks.2.hook_resid_pre.error") && e.shows("= x − reconstruction"),
        "{}",
        e.lines().join("\n")
    );
    e.keys("up up");
    assert!(e.shows("which features of the dictionary are active"), "{}", e.lines().join("\n"));
    assert_snapshot("stages_features_160x48", &e);
    e.keys("a");
    assert!(e.shows("features are changed on the screen Features"), "{}", e.lines().join("\n"));
    e.keys("y");
    assert!(e.shows("render resid_pre.2.features"), "{}", e.lines().join("\n"));
}

#[test]
fn all_features_of_the_prompt_are_a_map() {
    let mut e = explorer(LARGE);
    e.keys("m");
    assert!(e.shows("active on this prompt"), "{}", e.lines().join("\n"));
    assert_snapshot("features_all_160x48", &e);
    let run = e.run().clone();
    let x = run.part(run.model.find("resid_pre.2.features").unwrap(), &Part::default()).unwrap();
    let x = x.to_vec2::<f32>().unwrap();
    let Seen::Features(_, _, listed) = &*e.app.seen[&Slot::Features] else { panic!("no features") };
    let alive = (0..x[0].len()).filter(|feature| x.iter().any(|row| row[*feature] > 0.0)).count();
    assert_eq!((listed.n_active, listed.list.len()), (alive, alive));
    assert!(listed.list.is_sorted_by(|a, b| a.value >= b.value));
    for one in &listed.list {
        let along: Vec<_> = x.iter().map(|row| row[one.feature as usize]).collect();
        assert_eq!(one.along, along);
        assert_eq!(along[one.at], one.value);
    }
    // Further down there are tokens too.
    for _ in 0..120 {
        e.keys("down");
    }
    let Seen::Features(_, _, listed) = &*e.app.seen[&Slot::Features] else { panic!("no features") };
    assert!(listed.list[120].promotes.len() == 5 && listed.list[0].promotes.is_empty());
    assert!(e.shows(&format!("▸{:>7}", listed.list[120].feature)), "{}", e.lines().join("\n"));
    e.keys("m");
    assert!(!e.shows("active on this prompt"));
}

#[test]
fn a_feature_has_a_page() {
    for (size, name) in [(LARGE, "160x48"), (SMALL, "80x24"), ((300, 90), "300x90")] {
        let mut e = explorer(size);
        e.keys("home right right right right right right down enter");
        let Seen::Feature(_, page) = &*e.app.seen[&Slot::Feature] else { panic!("no page") };
        assert_eq!(page.of.feature, 616);
        assert!(e.shows("digits of a year") && e.shows("strongest"), "{}", e.lines().join("\n"));
        assert!(page.nearest.is_sorted_by(|(a, _), (b, _)| a.cosine >= b.cosine) && page.nearest.len() == 40);
        assert_snapshot(&format!("features_page_{name}"), &e);
    }
    let mut e = explorer(LARGE);
    e.keys("home right right right right right right down enter");
    // It stays where the feature is not active.
    e.keys("home");
    assert!(e.shows("not active here") && e.shows("feature:2.resid_pre/616"), "{}", e.lines().join("\n"));
    // Its effect is on a token that can be chosen.
    e.keys("right right right right right right t").text(" sea").keys("enter");
    assert!(e.shows("on the logit of ·sea here"), "{}", e.lines().join("\n"));
    e.keys("E");
    assert!(e.shows("Enter run it"), "{}", e.lines().join("\n"));
    e.keys("esc esc");
    assert!(e.shows("label, and what it promotes"), "{}", e.lines().join("\n"));
}

#[test]
fn the_lens_screen_shows_the_difference_of_two_lenses() {
    let mut e = explorer(LARGE);
    e.keys("8 L V");
    assert!(e.shows("tuned lens − logit lens"), "{}", e.lines().join("\n"));
    assert_snapshot("lens_difference_160x48", &e);
    e.keys("y");
    assert!(
        e.shows("--with=demo/tuned_lens --minus=logit") || e.shows("--minus=logit"),
        "{}",
        e.lines().join("\n")
    );
    e.keys("esc V");
    assert!(e.shows("tuned lens − Jacobian lens"), "{}", e.lines().join("\n"));
    e.keys("V");
    assert!(!e.shows(" lens − "), "{}", e.lines().join("\n"));
    e.keys("V L");
    assert!(!e.shows(" lens − ") && e.shows("Jacobian lens"), "{}", e.lines().join("\n"));
}
