//! What if: changes by key, their list, and which run is on screen.

use actscope::analysis::patch::Sweep;
use actscope::engine::{Seen, Slot, Steps};
use actscope::hooks::{HookFilter, Site};
use actscope::tui::app::{Activity, Screen};
use actscope::tui::theme::Theme;
use actscope::tui::what_if::Side;
use std::sync::Arc;

use super::harness::{Explorer, PROMPT, assert_snapshot};
use super::{LARGE, SMALL};

fn explorer(size: (u16, u16), keys: &str) -> Explorer {
    let mut explorer = Explorer::new(PROMPT, size, Theme::default());
    explorer.keys(keys);
    explorer
}

fn changes(explorer: &Explorer) -> String {
    explorer.app.input.interventions.to_string()
}

#[test]
fn the_keys_change_what_is_under_the_cursor() {
    for (keys, text) in [
        ("4 } ] ] a", "zero head:1.2"),
        ("4 A", "mean head:0.0"),
        ("4 down down right K", "knockout 0.0:2->1"),
        ("7 down right a", "zero head:1.1"),
        ("1 right right a", "zero position:2"),
        ("2 right A", "mean position:1"),
        ("3 / m l p _ o u t . 2 enter a", "zero mlp:2"),
        ("3 / a t t n _ o u t . 1 enter A", "mean attn:1"),
        ("3 / r e s i d _ p o s t . 3 enter a", "zero layer:3"),
        ("3 / p o s t . 3 enter enter right right right a", "zero neuron:3.3"),
        ("3 / r e s i d _ m i d . 0 enter enter down down a", "zero resid_mid.0@2"),
        ("3 / h o o k _ z space 1 enter ] a", "zero head:1.1"),
        ("3 / h o o k _ q space 1 enter ] A", "mean q.1.1"),
    ] {
        let explorer = explorer(LARGE, keys);
        assert_eq!(changes(&explorer), text, "{keys}\n{}", explorer.lines().join("\n"));
        assert_eq!(explorer.run().input.interventions.to_string(), text, "{keys}: it is in the run");
    }
}

#[test]
fn the_same_key_again_takes_a_change_back() {
    let mut explorer = explorer(LARGE, "4 a");
    assert!(explorer.shows("changed: zero head:0.0"));
    assert!(explorer.shows("Δ log p next") && explorer.shows("first change z.0 at position 0"));
    explorer.keys("a");
    assert!(explorer.app.input.interventions.0.is_empty() && explorer.app.what_if.pair.is_none());
    assert!(!explorer.shows("changed:") && !explorer.shows("Δ log p"));
}

#[test]
fn every_run_can_be_on_screen_and_their_difference() {
    let mut explorer = explorer(LARGE, "4 } ] ] ] ] ] 3 / r e s i d _ p o s t . 1 enter");
    let plain = explorer.run().tensor(Site::ResidPost.at(1)).unwrap();
    explorer.keys("4 a 3");
    let value = |explorer: &Explorer| {
        let row = explorer.app.row(Slot::Row).unwrap();
        row.values[0]
    };
    let changed = value(&explorer);
    explorer.keys("D");
    assert_eq!(explorer.app.what_if.side, Side::Base);
    assert!(explorer.shows("base: zero head:1.5"));
    let base = value(&explorer);
    assert_eq!(base, plain.get(0).unwrap().to_vec1::<f32>().unwrap()[0]);
    explorer.keys("D");
    assert!(explorer.shows("changed − base: zero head:1.5"));
    assert_eq!(value(&explorer), changed - base);
    explorer.keys("e x");
    assert_eq!(explorer.app.what_if.side, Side::Difference, "editing the prompt keeps what is shown");
    assert!(explorer.app.what_if.pair.is_some());
    explorer.keys("esc D");
    assert_eq!(explorer.app.what_if.side, Side::Changed);
}

#[test]
fn sampling_goes_on_from_the_changed_run_whichever_is_shown() {
    let mut explorer = explorer(LARGE, "4 a D g");
    assert_eq!(changes(&explorer), "zero head:0.0");
    assert_eq!(explorer.app.what_if.side, Side::Base);
    let pair = explorer.app.what_if.pair.as_ref().unwrap();
    assert_eq!(pair.base.run.tokens, pair.changed.run.tokens);
    explorer.keys("D");
    assert!(explorer.run().tokens.len() > 13);
}

#[test]
fn a_direction_is_the_difference_of_two_rows() {
    let mut explorer = explorer(LARGE, "3 / r e s i d _ p r e . 2 enter right d");
    assert!(explorer.shows("row 1 of resid_pre.2 is marked"));
    explorer.keys("right right d");
    assert!(explorer.shows("new › add resid_pre.2:3-1=1"));
    explorer.keys("backspace 4 enter");
    assert_eq!(changes(&explorer), "add resid_pre.2:3-1=4");
}

#[test]
fn the_list_switches_names_edits_and_deletes() {
    let mut explorer = explorer(LARGE, "4 a } a i");
    assert_eq!(changes(&explorer), "zero head:0.0, zero head:1.0");
    explorer.keys("space");
    assert_eq!(changes(&explorer), "zero head:1.0");
    assert!(explorer.shows("○ zero head:0.0"));
    explorer.keys("n o n e enter space");
    assert_eq!(changes(&explorer), "one (zero head:0.0), zero head:1.0");
    explorer.keys("down e ctrl-u").text("scale mlp:9=2\n");
    assert!(explorer.shows("layer 9 is out of range (0 to 3)"));
    explorer.keys("backspace backspace backspace 3 = - 1 enter");
    assert_eq!(changes(&explorer), "one (zero head:0.0), scale mlp:3=-1");
    explorer.keys("+").text("knockout 2.1:5->3\n");
    assert_eq!(explorer.app.input.interventions.0.len(), 3);
    explorer.keys("d up d");
    assert_eq!(changes(&explorer), "scale mlp:3=-1");
    explorer.keys("esc");
    assert!(explorer.app.overlay.is_none());
}

#[test]
fn the_list_is_saved_and_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("list.json").display().to_string();
    let mut saving = explorer(LARGE, "4 a } A i w ctrl-u");
    saving.text(&format!("{path}\n")).keys("esc");
    assert!(saving.shows("2 changes"));
    let mut loading = explorer(LARGE, "i o ctrl-u");
    loading.text(&format!("{path}\n")).keys("esc");
    assert_eq!(changes(&loading), "zero head:0.0, mean head:1.0");
    assert!(loading.app.what_if.pair.is_some());
    loading.keys("i o ctrl-u").text("no/such.json\n").keys("esc");
    assert!(loading.shows("no/such.json: cannot be read"));
}

#[test]
fn nan_is_said_with_where_it_began() {
    let explorer = explorer(LARGE, "4 K");
    assert_eq!(changes(&explorer), "knockout 0.0:0->0");
    assert!(explorer.shows("NaN from pattern.0 on, at 0"));
}

#[test]
fn what_cannot_be_changed_says_why() {
    for (keys, said) in [
        ("4 right right K", "query 0 never reads key 2"),
        ("3 / p r o b s enter a", "nothing follows the probabilities"),
        ("3 K", "select one, and press Enter to move into it"),
        ("1 D", "no changes yet"),
    ] {
        assert!(explorer(LARGE, keys).shows(said), "{keys}");
    }
}

#[test]
fn a_change_at_a_position_that_goes_away_is_refused_and_said() {
    let mut explorer = explorer(LARGE, "1 end a e ctrl-u");
    explorer.text("The man");
    assert!(explorer.shows("position 14 is out of range (0 to 1)"));
}

macro_rules! snapshots {
    ($($name:ident: $size:ident $keys:literal;)*) => { $(
        #[test]
        fn $name() { assert_snapshot(stringify!($name), &explorer($size, $keys)); }
    )* };
}

snapshots! {
    what_if_list_80x24: SMALL "4 } ] ] ] ] ] a i";
    what_if_list_160x48: LARGE "4 } ] ] ] ] ] a end K i n c o p y enter";
    what_if_adding: SMALL "4 a * backspace x enter";
    what_if_attention: LARGE "4 } a down down down down down } D D";
    what_if_stages: SMALL "4 a 3 } D D";
    what_if_tokens: LARGE "4 a 1 end D D";
    what_if_logits: LARGE "4 a 5 D D";
}

// Two prompts.

pub const SECOND: &str = "The old man said to the young woman that the sea was calm.";

/// The Compare screen, prompt B typed.
pub fn compare(size: (u16, u16), second: &str, keys: &str) -> Explorer {
    let mut explorer = Explorer::new(PROMPT, size, Theme::default());
    explorer.keys("0 n ctrl-u").text(second).keys("esc").keys(keys);
    explorer
}

#[test]
fn two_prompts_are_aligned_and_their_tensors_compared() {
    let mut explorer =
        compare(LARGE, SECOND, "/ r e s i d _ p o s t . 2 enter down down down down down down down");
    assert!(explorer.shows("A − B of blocks.2.hook_resid_post"));
    assert!(explorer.shows("7 ·man|·woman"));
    let second = explorer.app.screens.compare.second.clone().unwrap();
    let value = |explorer: &Explorer| match &**explorer.app.seen.get(&Slot::BesideRow).unwrap() {
        Seen::Row(row) => row.values[3],
        other => panic!("{other:?}"),
    };
    let of = |run: &actscope::Run| {
        run.tensor(Site::ResidPost.at(2)).unwrap().get(7).unwrap().to_vec1::<f32>().unwrap()[3]
    };
    let (a, b) = (of(&second.a), of(&second.b));
    assert_eq!(value(&explorer), a - b);
    explorer.keys("s");
    assert_eq!(value(&explorer), a);
    explorer.keys("s");
    assert_eq!(value(&explorer), b);
    assert!(explorer.shows("the prompts differ from position 7 of B on"));
    assert_eq!(explorer.app.screen, Screen::Compare, "choosing a tensor stays here");
}

/// The numbers of nested arrays, in order.
fn flat(value: &serde_json::Value, into: &mut Vec<f32>) {
    match value {
        serde_json::Value::Array(all) => all.iter().for_each(|value| flat(value, into)),
        number => into.push(number.as_f64().unwrap() as f32),
    }
}

/// The tensor that a file holds, and what its manifest says of a difference.
fn written(path: &std::path::Path) -> (Vec<f32>, Option<String>) {
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let tensors = json["tensors"].as_object().unwrap();
    assert_eq!(tensors.keys().collect::<Vec<_>>(), ["blocks.2.hook_resid_post"]);
    let mut values = Vec::new();
    flat(&tensors["blocks.2.hook_resid_post"], &mut values);
    (values, json["manifest"]["difference"].as_str().map(str::to_owned))
}

fn resid_pre() -> Sweep {
    "resid_pre".parse().unwrap()
}

/// The sweep is kept, the cursor starts where the effect is, a patch lands on B's position, and swapping the
/// prompts back undoes it.
#[test]
fn a_patch_of_prompts_of_different_length_is_made_and_undone() {
    let mut e = Explorer::new(PROMPT, LARGE, Theme::default());
    e.keys("0 n")
        .text("The old man said to the young man that the sea was calm. Yes, it was")
        .keys("esc m enter");
    let compare = &e.app.screens.compare;
    let (second, sweep) = (compare.second.clone().unwrap(), compare.sweep.unwrap());
    let swept = Arc::clone(&compare.swept[&sweep]);
    let most = swept.values.iter().flatten().fold(0.0, |most: f32, x| most.max(x.abs()));
    let (row, column) = compare.cell;
    assert_eq!(swept.values[row][column].abs(), most);
    assert_ne!(second.a.n_tokens(), second.b.n_tokens());
    e.keys("a");
    assert_eq!(e.run().tokens, second.b.tokens);
    assert_eq!(e.app.selection.position, second.b.n_tokens() - 1, "the place that was patched");
    assert_eq!(e.app.input.interventions.0.len(), 1);
    e.keys("0 N");
    assert_eq!(e.run().tokens, second.a.tokens);
    assert!(e.app.input.interventions.0.is_empty(), "the patch is off");
    assert!(Arc::ptr_eq(&e.app.screens.compare.swept[&sweep], &swept), "the sweep is kept");
}

#[test]
fn what_is_compared_is_what_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.json");
    let mut explorer = compare(LARGE, SECOND, "/ r e s i d _ p o s t . 2 enter");
    let second = explorer.app.screens.compare.second.clone().unwrap();
    let of = |run: &actscope::Run| {
        let x = run.tensor(Site::ResidPost.at(2)).unwrap();
        x.flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    let (a, b) = (of(&second.a), of(&second.b));
    let apart: Vec<_> = a.iter().zip(&b).map(|(a, b)| a - b).collect();
    for (key, want, said) in [("", apart, Some("A − B")), ("s", a, None), ("s", b, None)] {
        explorer.keys(key).keys("x");
        assert!(explorer.shows("● blocks.2.hook_resid_post"), "{}", explorer.lines().join("\n"));
        explorer.keys("ctrl-u").text(path.to_str().unwrap()).keys("enter");
        assert_eq!(written(&path), (want, said.map(str::to_owned)));
        std::fs::remove_file(&path).unwrap();
    }
    explorer.keys("s x ctrl-u").text(dir.path().join("x.svg").to_str().unwrap()).keys("enter");
    let svg = std::fs::read_to_string(dir.path().join("x.svg")).unwrap();
    assert!(svg.contains("blocks.2.hook_resid_post, A − B"));
    // Prompts of other lengths have no rows to be taken off each other.
    let mut explorer = compare(LARGE, "The sea was calm.", "/ r e s i d _ p o s t . 2 enter x ctrl-u");
    explorer.text(path.to_str().unwrap()).keys("enter");
    assert!(explorer.shows("cannot write A − B"), "{}", explorer.lines().join("\n"));
}

#[test]
fn a_longer_prompt_leaves_tokens_without_a_partner() {
    let explorer = compare(LARGE, "The old man said to the very young man that the sea was calm.", "");
    assert!(explorer.shows("1 unaligned token left out"));
    let mut explorer = compare(LARGE, "The sea was calm.", "m");
    assert!(explorer.shows("only the last position is patched"));
    explorer.keys("enter");
    let swept = &explorer.app.screens.compare.swept[&resid_pre()];
    assert_eq!((swept.rows.len(), swept.columns.len()), (4, 1));
}

#[test]
fn a_sweep_is_made_on_request_and_leads_on() {
    let mut explorer = compare(LARGE, SECOND, "m");
    assert!(explorer.shows("~: predicted by the gradient") && explorer.shows("60 places"));
    explorer.keys("enter");
    explorer.app.screens.compare.cell = (0, 0);
    explorer.keys("down right right");
    let swept = Arc::clone(&explorer.app.screens.compare.swept[&resid_pre()]);
    let second = explorer.app.screens.compare.second.clone().unwrap();
    let patching = second.patching.as_ref().unwrap();
    let want = patching.recovered(resid_pre().place(1, 2), false).unwrap();
    assert_eq!(swept.values[1][2], want);
    assert!(explorer.shows("resid_pre.1@2 ·man from A"));
    explorer.keys("enter");
    assert_eq!((explorer.app.screen, explorer.app.selection.position), (Screen::Stages, 2));
    assert_eq!(explorer.app.selection.hook, Site::ResidPre.at(1));
    explorer.keys("0 m m m m enter");
    explorer.app.screens.compare.cell = (0, 0);
    explorer.keys("down right enter");
    assert_eq!((explorer.app.screen, explorer.app.selection.layer), (Screen::Attention, 1));
    assert_eq!(explorer.app.selection.head, 1);
}

/// Its map fills as places arrive; those to come are as predicted.
#[test]
fn a_sweep_that_is_not_finished_says_what_is_to_come() {
    let mut explorer = compare(LARGE, SECOND, "m enter");
    let compare = &mut explorer.app.screens.compare;
    let mut part = (*compare.swept.remove(&resid_pre()).unwrap()).clone();
    part.values[1..].iter_mut().flatten().for_each(|x| *x = f32::NEG_INFINITY);
    compare.sweeping = Some(Arc::new(part));
    compare.cell = (0, 0);
    explorer.app.activity = Some(Activity::Working(Steps { what: "patching", done: 15, of: 60 }));
    assert!(
        explorer.shows("patching, 15 of 60, Esc stops · ~: predicted by the gradient, still to be measured")
    );
    assert!(!explorer.shows("-inf"));
    assert_snapshot("compare_sweep_unfinished", &explorer);
}

#[test]
fn a_place_of_a_sweep_is_patched_and_every_screen_shows_it() {
    // Whether they were all patched before or only predicted.
    let mut explorer = compare(LARGE, SECOND, "m");
    explorer.app.screens.compare.cell = (0, 0);
    explorer.keys("down right right");
    let second = explorer.app.screens.compare.second.clone().unwrap();
    let patching = second.patching.as_ref().unwrap();
    let keep = HookFilter::all(second.a.config());
    let want = patching.patched(resid_pre().place(1, 2), false, keep).unwrap();
    explorer.keys("a");
    let logits = |run: &actscope::Run| run.tensor(Site::Logits.once()).unwrap().to_vec2::<f32>().unwrap();
    assert_eq!(logits(explorer.run()), logits(&want));
    assert_eq!((explorer.app.screen, explorer.app.selection.hook), (Screen::Stages, Site::ResidPre.at(1)));
    assert!(explorer.shows("changed: resid_pre.1@2 from “The old man"), "{}", explorer.lines().join("\n"));
    assert_eq!(explorer.run().prompt_text(), SECOND);
    assert!(!explorer.app.is_busy(), "the base is there too");
    explorer.keys("D");
    assert_eq!(logits(explorer.run()), logits(&second.b));
    // It is in the list, and can be switched off.
    explorer.keys("D D i");
    assert!(explorer.shows("● patch resid_pre.1@2 from "));
    explorer.keys("space esc");
    assert_eq!(logits(explorer.run()), logits(&second.b));
    explorer.keys("0 N");
    assert_eq!(explorer.run().prompt_text(), PROMPT);
}

#[test]
fn the_row_under_the_cursor_is_patched_too() {
    let mut explorer = compare(LARGE, SECOND, "/ h o o k _ z space 1 enter ] ]");
    explorer.keys("down down down down down down down a");
    assert!(changes(&explorer).contains("(patch head:1.2@7 from "), "{}", changes(&explorer));
    let mut shorter = compare(LARGE, "The sea was calm.", "m enter a");
    assert!(changes(&shorter).contains("patch resid_pre.3@5 from 14 of "), "{}", changes(&shorter));
    shorter.keys("i");
    assert!(shorter.app.what_if.pair.is_some());
    for key in ["0 a", "0 N"] {
        assert!(self::explorer(LARGE, key).shows("no prompt B yet"), "{key}");
    }
}

#[test]
fn prompts_and_tokens_can_be_changed_and_what_is_shown_follows() {
    let mut explorer = compare(LARGE, SECOND, "m enter");
    assert!(!explorer.app.screens.compare.swept.is_empty());
    explorer.keys("t").text(" the\n").keys("v").text(" a\n");
    assert!(explorer.shows("logit of ·the over ·a"));
    assert!(explorer.app.screens.compare.swept.is_empty(), "sweeps of other tokens are gone");
    explorer.keys("e backspace");
    explorer.keys("esc");
    let second = explorer.app.screens.compare.second.as_ref().unwrap();
    assert!(Arc::ptr_eq(&second.a, explorer.app.run.as_ref().unwrap()));
    explorer.keys("n ctrl-u");
    assert!(explorer.app.quit.is_none());
    let same = compare(LARGE, PROMPT, "m");
    assert!(same.shows("nothing to recover"));
}

snapshots! {
    compare_first: SMALL "0";
}

#[test]
fn compare_on_screen() {
    for (name, size, keys) in [
        ("compare_80x24", SMALL, "down down down down down down down right right"),
        (
            "compare_160x48",
            LARGE,
            "/ p a t t e r n . 1 enter ] ] ] ] ] down down down down down down down down",
        ),
        ("compare_sweep_80x24", SMALL, "m enter down down right right"),
        ("compare_sweep_160x48", LARGE, "m enter down right right right right right right right"),
        ("compare_sweep_heads", LARGE, "m m m m m enter"),
        ("compare_sweep_q_80x24", SMALL, "m m m m m m enter"),
    ] {
        assert_snapshot(name, &compare(size, SECOND, keys));
    }
}
