//! Changed − base, on every screen.

use actscope::analysis::heads::{Atlas, Exclude, Metric};
use actscope::analysis::logits::Next;
use actscope::engine::{Seen, Slot};
use actscope::tui::text::num;
use actscope::tui::theme::Theme;

use super::harness::{Explorer, PROMPT, assert_snapshot};
use super::{LARGE, SMALL};

const REPEATS: &str = "The old man and the young man, the old sea and the young sea.";

/// With head 1.5, an induction head, at 0; then what differs.
fn explorer(prompt: &str, size: (u16, u16), keys: &str) -> Explorer {
    let mut explorer = Explorer::new(prompt, size, Theme::default());
    explorer.keys("4 } ] ] ] ] ] a D D").keys(keys);
    explorer
}

macro_rules! snapshots {
    ($($name:ident: $size:ident $keys:literal;)*) => { $(
        #[test]
        fn $name() { assert_snapshot(stringify!($name), &explorer(REPEATS, $size, $keys)); }
    )* };
}

snapshots! {
    difference_heads_80x24: SMALL "7 down m m";
    difference_heads_160x48: LARGE "7 down m m";
    difference_heads_random: LARGE "7 s m m";
    difference_heads_effect: SMALL "1 end left left left 7 M u";
    difference_attribution_80x24: SMALL "1 end left left left 9";
    difference_attribution_160x48: LARGE "1 end left left left 9";
    difference_attribution_neurons: LARGE "1 end left left left 9 down right right enter";
    difference_lens_80x24: SMALL "1 end left left left 8";
    difference_lens_160x48: LARGE "1 end left left left 8 up";
    difference_lens_rank: SMALL "1 end left left left 8 m m up";
    difference_lens_kl: LARGE "1 end left left left 8 M";
    difference_logits_80x24: SMALL "1 end left left left 5 down";
    difference_logits_160x48: LARGE "1 end left left left 5 down";
    difference_walk_80x24: SMALL "1 end left left left 6 s M L P space d o w n space 2 enter";
    difference_walk_160x48: LARGE "1 end left left left 6 s M L P space d o w n space 2 enter";
    difference_walk_scores: LARGE "1 end left left left 6 s s c o r e s space 2 enter";
    difference_walk_probs: LARGE "1 end left left left 6 end left";
    difference_walk_tokens: SMALL "6";
}

#[test]
fn the_sum_is_checked_of_a_run_and_not_of_a_difference() {
    let sum = "x = wte + wpe   exactly";
    assert!(Explorer::new(REPEATS, LARGE, Theme::default()).keys("2").shows(sum));
    let mut e = explorer(REPEATS, LARGE, "2");
    assert!(e.app.differs() && !e.shows("✓") && !e.shows("✗"), "{}", e.lines().join("\n"));
    assert!(e.keys("D").shows(sum), "{}", e.lines().join("\n"));
}

#[test]
fn a_head_is_shown_before_and_after_and_by_how_much() {
    let mut e = explorer(REPEATS, LARGE, "7 } ]");
    let pair = e.app.what_if.pair.clone().unwrap();
    let [base, changed] =
        [&pair.base, &pair.changed].map(|made| Atlas::new(&made.run, Exclude::default()).unwrap());
    for metric in Metric::ALL {
        let (layer, head) = (e.app.selection.layer, e.app.selection.head);
        let [before, now] = [&base, &changed].map(|atlas| atlas.get(layer, head).get(metric));
        let said = format!("{} base {}  changed {}  Δ ", metric.word(), num(before), num(now));
        assert!(e.shows(&said), "{said}: {}", e.lines().join("\n"));
        e.keys("m");
    }
    let Some(Seen::Heads(_, answer)) = e.app.seen.get(&Slot::Heads).map(|seen| &**seen) else { panic!() };
    assert_eq!((&answer.of, answer.base.as_ref()), (&changed, Some(&base)));
    e.keys("D");
    assert!(!e.shows("Δ previous"), "the changed run alone again");
}

#[test]
fn candidates_are_those_that_moved_with_both_probabilities() {
    let mut e = explorer(REPEATS, LARGE, "1 end left left left 5");
    let pair = e.app.what_if.pair.clone().unwrap();
    let position = e.app.selection.position;
    let listed = e.app.next().unwrap().clone();
    let all = |run| Next::new(run, position, 2048).unwrap().top;
    let (base, changed) = (all(&pair.base.run), all(&pair.changed.run));
    let of = |list: &[actscope::analysis::logits::Candidate], id| {
        list.iter().find(|c| c.id == id).copied().unwrap()
    };
    let mut moved: Vec<_> = base.iter().map(|c| ((of(&changed, c.id).prob - c.prob).abs(), c.id)).collect();
    moved.sort_by(|a, b| b.0.total_cmp(&a.0));
    assert_eq!(listed.of.top[0].id, moved[0].1);
    for (now, before) in listed.of.top.iter().zip(&listed.base.as_ref().unwrap().top) {
        assert_eq!((now.id, now.prob), (before.id, of(&changed, before.id).prob));
        assert_eq!((now.rank, before.rank), (of(&changed, now.id).rank, of(&base, now.id).rank));
        let said = format!("{:.4}   {:.4}", before.prob, now.prob);
        assert!(e.shows(&said), "{said}: {}", e.lines().join("\n"));
    }
    // Each run has its own list otherwise.
    e.keys("D");
    assert_eq!(e.app.next().unwrap().of.top[..], changed[..e.app.next().unwrap().of.top.len()]);
    e.keys("D");
    assert_eq!(e.app.next().unwrap().of.top[..], base[..e.app.next().unwrap().of.top.len()]);
}

#[test]
fn what_cannot_differ_says_so() {
    let e = explorer(PROMPT, LARGE, "6");
    assert!(e.shows("changed, the tokens are the same: zero head:1.5"));
    let e = explorer(PROMPT, LARGE, "w");
    assert!(e.shows("changed: zero head:1.5") && !e.shows("changed − base"));
    let mut e = explorer(PROMPT, LARGE, "3 / r e s i d _ p o s t . 0 enter w m m");
    assert!(e.shows("changed − base: zero") && e.shows("this row is 0: it has no direction"));
    e.keys("3 / r e s i d _ p o s t . 2 enter 1 end w");
    assert!(e.shows("Δ blocks.2.hook_resid_post") && !e.shows("has no direction"));
}

#[test]
fn what_is_exported_is_what_is_on_screen() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let mut e = explorer(REPEATS, LARGE, "3 / r e s i d _ p o s t . 2 enter x");
    assert!(e.shows("blocks.2.hook_resid_post, changed − base"));
    assert!(e.shows("blocks.2.hook_resid_post.difference.png"));
    e.keys("ctrl-u").text(&format!("{}\n", path("a.json")));
    // The changed run, then its base.
    e.keys("D D x ctrl-u").text(&format!("{}\n", path("b.json")));
    let read = |name: &str| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(dir.path().join(name)).unwrap()).unwrap()
    };
    let (difference, base) = (read("a.json"), read("b.json"));
    assert_eq!(difference["manifest"]["difference"], "changed − base");
    assert_eq!(difference["manifest"]["interventions"][0]["change"], "zero head:1.5");
    assert_eq!(base["manifest"].get("difference"), None);
    assert_eq!(base["manifest"]["interventions"], serde_json::json!([]));
    let pair = e.app.what_if.pair.clone().unwrap();
    let values = |file: &serde_json::Value| -> Vec<Vec<f32>> {
        serde_json::from_value(file["tensors"]["blocks.2.hook_resid_post"].clone()).unwrap()
    };
    let [before, after] = [&pair.base, &pair.changed].map(|made| {
        made.run.tensor(actscope::hooks::Site::ResidPost.at(2)).unwrap().to_vec2::<f32>().unwrap()
    });
    assert_eq!(values(&base), before);
    for ((got, a), b) in values(&difference).concat().iter().zip(after.concat()).zip(before.concat()) {
        assert_eq!(*got, a - b);
    }
    for (keys, name) in [("D 8", "lens.svg"), ("9", "attribution.svg"), ("4", "pattern.svg")] {
        e.keys(keys).keys("x ctrl-u").text(&format!("{}\n", path(name)));
        let svg = std::fs::read_to_string(path(name)).unwrap();
        assert!(svg.contains("changed − base") && svg.contains("what if: zero head:1.5"), "{name}");
    }
}
