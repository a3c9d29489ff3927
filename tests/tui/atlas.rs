//! Examples of units from a corpus, in the explorer.

use actscope::corpus::Atlas;
use actscope::hooks::Site;
use actscope::tui::app::{Focus, Screen};
use actscope::tui::theme::Theme;

use super::harness::{Explorer, PROMPT, assert_snapshot, demo};
use super::{LARGE, SMALL};

fn explorer(keys: &str) -> Explorer {
    let mut e = Explorer::new(PROMPT, LARGE, Theme::default());
    e.keys(keys);
    e
}

#[test]
fn a_neuron_shows_its_examples() {
    let mut e = explorer("3");
    (e.app.selection.hook, e.app.selection.column, e.app.focus) = (Site::MlpPost.at(1), 3, Focus::Map);
    e.keys("E");
    assert_snapshot("examples_160x48", &e);
    e.keys("right");
    assert!(e.shows("neuron:1.4 ·"));
    e.keys("left down down");
    e.keys("esc");
    assert!(!e.shows("neuron:1.3 ·"));
    let mut small = Explorer::new(PROMPT, SMALL, Theme::default());
    small.keys("7 E");
    assert_snapshot("examples_80x24", &small);
}

#[test]
fn an_example_becomes_the_prompt_with_the_cursor_where_it_fires() {
    let mut e = explorer("3");
    (e.app.selection.hook, e.app.selection.column, e.app.focus) = (Site::MlpPost.at(1), 3, Focus::Map);
    let unit = Atlas::demo().unit("neuron:1.3").unwrap();
    let second = &unit.examples.best[1];
    e.keys("E down enter");
    assert_eq!(e.run().tokens[1..], second.token_ids[..]);
    assert_eq!(Some(e.run().tokens[0]), demo().config().bos_token_id);
    assert_eq!(e.app.selection.position as u32, 1 + second.position - second.first);
    assert!(e.shows("before it in its document"), "{}", e.lines().join("\n"));
}

#[test]
fn units_are_found_by_the_tokens_that_they_fire_on() {
    let mut e = explorer("3");
    (e.app.selection.hook, e.app.selection.column, e.app.focus) = (Site::MlpPost.at(1), 3, Focus::Map);
    let group = Atlas::demo().group(Site::MlpPost.at(1)).unwrap();
    let fires = |unit: usize| {
        let one = &group.examples[unit].best[0];
        group.text(one.token_ids[(one.position - one.first) as usize]).to_owned()
    };
    e.keys("E /");
    let wanted = fires(200);
    e.text(wanted.trim_start_matches('·'));
    assert!(e.shows(&format!("«{wanted}»")), "{wanted}: {}", e.lines().join("\n"));
    e.keys("enter");
    assert!(e.shows("neuron:1."));
}

#[test]
fn each_screen_names_the_unit_under_its_cursor() {
    for (keys, name) in [
        ("4 } ] E", "head:1.1 ·"),
        ("4 s s E", "head:0.0 ·"),
        ("7 right right E", "head:0.2 ·"),
        ("9 right right E", "head:0."),
    ] {
        let mut e = explorer("");
        e.keys(keys);
        assert!(e.shows(name), "{keys}: {}", e.lines().join("\n"));
    }
    // The MLP's neurons, with what they fire on.
    let mut e = explorer("9 left enter");
    assert!(e.shows("fires most on"), "{}", e.lines().join("\n"));
    assert_snapshot("neurons_with_examples_160x48", &e);
    e.keys("down E");
    assert!(e.shows("neuron:0."));
    for (keys, said) in [
        ("1 E", "no neuron, head or channel is here"),
        ("9 left E", "an MLP has many neurons"),
        ("3 E", "the atlas has nothing of blocks.0.hook_resid_pre"),
        ("w E", "a row of weights is no unit"),
    ] {
        let mut e = explorer("");
        e.keys(keys);
        assert!(e.shows(said), "{keys}: {}", e.lines().join("\n"));
        assert!(e.app.overlay.is_none());
    }
    let mut none = explorer("7");
    none.app.atlas = actscope::tui::atlas::State::default();
    none.keys("E");
    assert!(none.shows("start with --atlas DIR"), "{}", none.lines().join("\n"));
    assert_eq!(none.app.screen, Screen::Heads);
}

#[test]
fn examples_that_do_not_fit_are_marked_and_reached() {
    let place = tempfile::tempdir().unwrap();
    let out = place.path().join("atlas");
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/corpus.jsonl");
    let mut run = std::process::Command::new(env!("CARGO_BIN_EXE_actscope"));
    run.args(["corpus", "run", docs, "--hooks", "pattern.0", "--reduce", "top", "--top-k", "40", "-o"])
        .arg(&out);
    assert!(run.output().unwrap().status.success());
    let mut e = Explorer::new(PROMPT, SMALL, Theme::default());
    e.app.atlas = actscope::tui::atlas::State::new(Some(Atlas::open(&out).unwrap()));
    e.keys("7 E");
    assert!(e.shows("▾ ↑ ↓ choose") && !e.shows("▴▾"), "{}", e.lines().join("\n"));
    e.keys("end");
    assert!(e.shows("▴ ↑ ↓ choose") && !e.shows("▴▾"), "{}", e.lines().join("\n"));
}
