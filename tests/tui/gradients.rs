//! Gradients on the screens, and what they are of.

use actscope::analysis::attribution::Attribution;
use actscope::analysis::effects::{FirstOrder, Question};
use actscope::analysis::gradients::edges::{Edges, Ready};
use actscope::analysis::gradients::{Inputs, Method, Metric};
use actscope::analysis::patch::Sweep;
use actscope::analysis::{Shown, View};
use actscope::engine::{Seen, Slot};
use actscope::hooks::{Part, Site};
use actscope::tui::theme::Theme;

use super::harness::{Explorer, PROMPT, assert_snapshot};
use super::lab::{SECOND, compare};
use super::{LARGE, SMALL, snapshot};

fn explorer(size: (u16, u16), keys: &str) -> Explorer {
    let mut explorer = Explorer::new(PROMPT, size, Theme::default());
    explorer.keys(keys);
    explorer
}

#[test]
fn gradients_on_screen() {
    for (name, size, keys) in [
        ("gradient_stages_160x48", LARGE, "3 } down down right R"),
        ("gradient_stages_80x24", SMALL, "3 R R"),
        ("gradient_attention_160x48", LARGE, "4 } } ] ] R"),
        ("gradient_embedding_160x48", LARGE, "2 right R R"),
        ("gradient_tokens_160x48", LARGE, "end R"),
        ("gradient_tokens_80x24", SMALL, "R R"),
        ("gradient_heads_160x48", LARGE, "7 M"),
        ("gradient_attribution_160x48", LARGE, "9 R"),
        ("gradient_attribution_80x24", SMALL, "9 R"),
        ("gradient_metric_160x48", LARGE, "3 Q l o s s"),
        ("gradient_metric_80x24", SMALL, "3 Q l o g i t : n o n e"),
    ] {
        snapshot(name, size, keys);
    }
}

#[test]
fn numbers_on_screen_are_the_gradients() {
    let mut e = explorer(LARGE, "3 / p a t t e r n . 2 enter ] R");
    let metric = Metric::of_prediction(e.run()).unwrap();
    let gradients = e.run().gradients(&metric).unwrap();
    let of_map = |e: &Explorer, slot| match &*e.app.seen[&slot] {
        Seen::Row(row) => row.values.clone(),
        other => panic!("{other:?}"),
    };
    let position = e.app.selection.position;
    let row = |site: Site| {
        let part = Part { rows: Some(position..position + 1), head: Some(1) };
        gradients.part(site.at(2), &part).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    assert_eq!(of_map(&e, Slot::Row), row(Site::Pattern));
    assert!(e.shows("∂m/∂x  m: log p of") && e.shows("after position 14"), "{}", e.lines().join("\n"));
    // On another screen, too; scores before the scale by the chain rule.
    e.keys("4 s");
    assert_eq!(e.app.stage.name(), "scores");
    let scale = e.run().config().attn_scale(2) as f32;
    let scaled: Vec<_> = row(Site::AttnScores).iter().map(|g| g * scale).collect();
    for (got, want) in of_map(&e, Slot::Strip(0)).iter().zip(&scaled) {
        assert!((got - want).abs() <= 1e-6 * want.abs().max(1e-3));
    }
    // Times the value, and then values again.
    e.keys("s s s 3 R");
    let value = View::hook(Site::Pattern.at(2), 1).rows(e.run(), position..position + 1).unwrap().row(0);
    let products: Vec<_> = value.iter().zip(row(Site::Pattern)).map(|(x, g)| x * g).collect();
    assert_eq!(of_map(&e, Slot::Row), products);
    assert_eq!(e.app.gradient.shown, Shown::Times);
    e.keys("R");
    assert_eq!(of_map(&e, Slot::Row), value);
    assert!(!e.shows("∂m/∂x"));
}

#[test]
fn the_metric_is_asked_and_what_is_wrong_with_it_is_said() {
    let mut e = explorer(LARGE, "3 R Q e n t r o p y @ 3 enter");
    assert!(e.app.overlay.is_none() && e.shows("m: entropy after position 3"), "{}", e.lines().join("\n"));
    e.keys("Q ctrl-u l o g i t : 9 9 9 9");
    assert!(e.shows("token id 9999 is out of range"), "{}", e.lines().join("\n"));
    e.keys("enter");
    assert!(e.app.overlay.is_some(), "it is not taken");
    e.keys("ctrl-u enter");
    assert!(e.app.overlay.is_none() && e.app.gradient.metric.is_none());
    assert!(e.shows("m: log p of"), "{}", e.lines().join("\n"));
    // Of a neuron, nothing after it has a gradient.
    e.keys("Q v a l u e : p o s t . 1 [ 2 , 7 ] enter / r e s i d _ p o s t . 2 enter");
    assert!(e.shows("min 0  max 0"), "{}", e.lines().join("\n"));
}

#[test]
fn tokens_are_coloured_by_what_they_account_for() {
    let mut e = explorer(LARGE, "R");
    let metric = Metric::of_prediction(e.run()).unwrap();
    for method in [Method::GradTimesInput, Method::Integrated(Method::STEPS)] {
        let Seen::Inputs(_, shown, _) = &*e.app.seen[&Slot::Inputs] else { panic!("no inputs") };
        assert_eq!(*shown, Inputs::new(e.run(), &metric, method, |_, _| Ok(())).unwrap());
        assert!(e.shows("accounts for, of m") && e.shows("without tokens"), "{}", e.lines().join("\n"));
        e.keys("R");
    }
    assert!(e.shows("surprise, bits, rank"));
}

#[test]
fn first_order_effects_and_totals_are_those_of_the_library() {
    let e = explorer(LARGE, "7 M");
    let question = Question { position: e.app.selection.position, token: None, mean: false };
    let want = FirstOrder::new(e.run(), question).unwrap();
    let Seen::FirstOrder(_, got) = &*e.app.seen[&Slot::FirstOrder] else { panic!("no effects") };
    assert_eq!(got.of, want);
    let e = explorer(LARGE, "9 R");
    let of = Attribution::new(e.run(), e.app.selection.position, None, None).unwrap();
    let totals = of.totals(e.run()).unwrap();
    let Seen::Totals(_, got) = &*e.app.seen[&Slot::Totals] else { panic!("no totals") };
    let want: Vec<_> =
        of.parts.iter().zip(totals).map(|(part, total)| (part.component, total.unwrap())).collect();
    assert_eq!(*got, want);
}

#[test]
fn every_sweep_is_predicted_at_once() {
    let mut e = compare(LARGE, SECOND, "m m m m m");
    let heads: Sweep = "heads".parse().unwrap();
    let second = e.app.screens.compare.second.clone().unwrap();
    let patching = second.patching.as_ref().unwrap();
    let want = patching.first_order(heads, false, &patching.gradients().unwrap()).unwrap();
    let Seen::Predicted(_, got) = &*e.app.seen[&Slot::Predicted] else { panic!("nothing is predicted") };
    assert_eq!(*got, want);
    assert_snapshot("compare_predicted_160x48", &e);
    e.keys("enter");
    let measured = &e.app.screens.compare.swept[&heads];
    let (r, n) = measured.correlation(&want).unwrap();
    assert_eq!(n, 24);
    assert!(r > 0.9 && e.shows(&format!("r = {r:.3} (24)")), "{r}: {}", e.lines().join("\n"));
    assert_snapshot("compare_scatter_160x48", &e);
    assert_snapshot("compare_predicted_80x24", &compare(SMALL, SECOND, "m"));
}

/// A difference of gradients is of one metric: where none was chosen, that of B.
#[test]
fn gradients_of_two_prompts_are_compared() {
    let mut e = compare(LARGE, SECOND, "/ r e s i d _ p o s t . 1 enter R");
    let second = e.app.screens.compare.second.clone().unwrap();
    let metric = Metric::of_prediction(&second.b).unwrap();
    let at = e.app.selection.position;
    let row = |run: &actscope::Run| {
        let g = run.gradients(&metric).unwrap().part(Site::ResidPost.at(1), &Part::rows(at..at + 1)).unwrap();
        g.flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    let want: Vec<_> = row(&second.a).iter().zip(row(&second.b)).map(|(a, b)| a - b).collect();
    let Seen::Row(got) = &*e.app.seen[&Slot::BesideRow] else { panic!("no row") };
    assert_eq!(got.values, want);
    let said = metric.words(&e.run().model);
    assert!(e.shows("∂m/∂x") && e.shows(&said), "{said}: {}", e.lines().join("\n"));
    assert_snapshot("gradient_compare_160x48", &e);
    e.keys("R R");
    assert!(!e.shows("∂m/∂x"));
}

#[test]
fn every_size_has_room_or_does_without() {
    for keys in ["W", "m", "m enter", "/ p a t t e r n . 1 enter R", "R Q l o s s"] {
        let mut e = compare(LARGE, SECOND, keys);
        for (width, height) in
            [(0, 0), (1, 1), (2, 40), (40, 2), (24, 8), (79, 23), (80, 24), (111, 25), (500, 200)]
        {
            e.resize(width, height);
            e.draw();
        }
    }
}

#[test]
fn the_edges_are_a_list_and_a_graph() {
    let mut e = compare(LARGE, SECOND, "W");
    let second = e.app.screens.compare.second.clone().unwrap();
    let patching = second.patching.as_ref().unwrap();
    let ready = || {
        let (clean, corrupt) = (&patching.clean, &patching.corrupt);
        Ready::of((**clean).clone(), (**corrupt).clone(), (patching.token, Some(patching.versus))).unwrap()
    };
    for (steps, title) in [(None, "· EAP"), (Some(5), "EAP-IG, 5 steps")] {
        let want = Edges::new(&[ready()], steps, |_, _| Ok(())).unwrap();
        let Seen::Edges(_, got) = &*e.app.seen[&Slot::Edges] else { panic!("no edges") };
        assert_eq!(*got, want);
        assert!(e.shows(title) && e.shows(&want.all[0].to.to_string()), "{}", e.lines().join("\n"));
        e.keys("i");
    }
    e.keys("down down +");
    assert!(e.shows("30 of 927 edges"), "{}", e.lines().join("\n"));
    assert_snapshot("edges_160x48", &e);
    e.keys("esc");
    assert!(e.app.overlay.is_none());
    assert_snapshot("edges_80x24", &compare(SMALL, SECOND, "W - -"));
    assert!(explorer(LARGE, "0 W").shows("press n"), "there is no second prompt");
}
