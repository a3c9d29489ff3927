//! What stands on gradients: edges and attribution patching against their definitions, and first-order effects against
//! small steps.

use std::sync::Arc;

use actscope::analysis::attribution::{Attribution, Component};
use actscope::analysis::effects::{Effects, Question};
use actscope::analysis::gradients::edges::{Edges, Pair, Ready};
use actscope::analysis::gradients::{Inputs, Method, Metric};
use actscope::analysis::patch::{Patching, Sweep};
use actscope::hooks::{Part, Site};
use actscope::interventions::{Change, Interventions, Target};
use actscope::{Input, Model, Run};
use serde::Deserialize;

use super::{fixtures, tiny};

#[derive(Deserialize)]
struct Reference {
    clean: Vec<u32>,
    corrupt: Vec<u32>,
    token: u32,
    versus: u32,
    eap: Vec<(String, String, f64)>,
    ig3: Vec<(String, String, f64)>,
    keep: Vec<(usize, f64)>,
    values: [f64; 2],
    first_order: std::collections::BTreeMap<String, Vec<Vec<f64>>>,
}

fn reference(name: &str) -> Reference {
    let path = fixtures().join(format!("gradients/edges-{name}.json"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn assert_edges(name: &str) {
    let (model, want) = (Arc::new(tiny(name)), reference(name));
    let pair = Pair {
        clean: Input::ids(want.clean.clone()),
        corrupt: Input::ids(want.corrupt.clone()),
        token: want.token,
        versus: Some(want.versus),
    };
    let ready = || Ready::new(&model, pair.clone()).unwrap();
    for (steps, want_scores) in [(None, &want.eap), (Some(3), &want.ig3)] {
        let got = Edges::new(&[ready()], steps, |_, _| Ok(())).unwrap();
        assert_eq!(got.all.len(), want_scores.len());
        assert!((got.clean - want.values[0]).abs() < 1e-4 && (got.corrupt - want.values[1]).abs() < 1e-4);
        let largest = want_scores[0].2.abs();
        for (from, to, score) in want_scores {
            let found =
                got.all.iter().find(|edge| edge.from.to_string() == *from && edge.to.to_string() == *to);
            let found = found.unwrap_or_else(|| panic!("no edge {from} → {to}"));
            assert!(
                (found.score - score).abs() < 1e-4 * largest,
                "{name}, {steps:?}: {from} → {to}: {}",
                found.score
            );
        }
        assert!(got.all.is_sorted_by(|a, b| a.score.abs() >= b.score.abs()));
    }
    let edges = Edges::new(&[ready()], None, |_, _| Ok(())).unwrap();
    for (n, value) in &want.keep {
        let kept = edges.keep(&[ready()], *n).unwrap();
        assert!(
            (kept.value - value).abs() < 1e-4,
            "{name}: {n} edges: {}, the reference has {value}",
            kept.value
        );
    }
    // Of two pairs, the mean.
    let other = Pair { clean: pair.corrupt.clone(), corrupt: pair.clean.clone(), ..pair.clone() };
    let other = || Ready::new(&model, other.clone()).unwrap();
    let both = Edges::new(&[ready(), other()], None, |_, _| Ok(())).unwrap();
    let alone = Edges::new(&[other()], None, |_, _| Ok(())).unwrap();
    for edge in &both.all {
        let of =
            |edges: &Edges| edges.all.iter().find(|e| (e.from, e.to) == (edge.from, edge.to)).unwrap().score;
        assert!((edge.score - f64::midpoint(of(&edges), of(&alone))).abs() < 1e-5);
    }
}

#[test]
fn edges_are_those_of_the_definitions() {
    assert_edges("inverse");
    assert_edges("inner");
}

#[test]
fn attribution_patching_is_that_of_the_definition() {
    for name in ["inverse", "inner"] {
        let (model, want) = (Arc::new(tiny(name)), reference(name));
        let [clean, corrupt] = [&want.clean, &want.corrupt]
            .map(|ids| Arc::new(Run::all(&model, Input::ids(ids.clone())).unwrap()));
        let patching = Patching::new(clean, corrupt, Some(want.token), Some(want.versus)).unwrap();
        let gradients = patching.gradients().unwrap();
        assert_eq!(want.first_order.len(), 6);
        for (sweep, rows) in &want.first_order {
            let got = patching.first_order(sweep.parse().unwrap(), false, &gradients).unwrap();
            for (got, want) in got.values.concat().into_iter().zip(rows.concat()) {
                assert!(
                    (f64::from(got) - want).abs() < 2e-4,
                    "{name}, {sweep}: {got}, the reference has {want}"
                );
            }
        }
    }
}

const PROMPT: &str = "The old man saw the young woman, and the old";

#[test]
fn prompts_of_different_length_are_compared_at_the_last_position() {
    let model = Arc::new(Model::demo());
    let run = |text: &str| Arc::new(Run::all(&model, Input::text(text)).unwrap());
    let patching = Patching::new(run(PROMPT), run("The young man"), None, None).unwrap();
    let gradients = patching.gradients().unwrap();
    for sweep in Sweep::all().filter(|sweep| sweep.name() != "pattern") {
        let whole = patching.first_order(sweep, false, &gradients).unwrap_err().to_string();
        assert!(whole.contains("need equal length"), "{whole}");
        let got = patching.first_order(sweep, true, &gradients).unwrap();
        // At the last position, the residual stream of the last block decides everything: so does its estimate, for
        // what comes after it is nearly linear.
        assert!(got.values.concat().iter().all(|x| x.is_finite()), "{}", sweep.name());
    }
    let resid: Sweep = "resid_pre".parse().unwrap();
    let measured = patching.sweep(resid, true, |_, _| Ok(()), |_| {}).unwrap();
    let predicted = patching.first_order(resid, true, &gradients).unwrap();
    assert_eq!((measured.rows, measured.columns), (predicted.rows, predicted.columns));
}

/// A step so small that the gradient is all of the effect.
const STEP: f32 = 1e-3;

fn change_of(run: &Run, change: Change, value: impl Fn(&Run) -> f64) -> f64 {
    let changed = Interventions::from_iter([change]);
    let changed = Run::all(&run.model, run.input.clone().with_interventions(changed)).unwrap();
    (value(&changed) - value(run)) / f64::from(STEP)
}

#[test]
fn first_order_effects_and_totals_are_what_small_changes_do() {
    let model = Arc::new(Model::demo());
    let run = Run::all(&model, Input::text(PROMPT)).unwrap();
    let at = run.n_tokens() - 1;
    let question = Question { position: at, token: None, mean: false };
    let effects = Effects::new(&run, question, |_, _| Ok(())).unwrap();
    let log_prob = Metric::log_prob(effects.token, at);
    for effect in effects.all.iter().step_by(5) {
        let smaller = Change::Scale(effect.place(), 1.0 - STEP);
        let measured = change_of(&run, smaller, |run| log_prob.value(run).unwrap());
        let first_order = effect.first_order.unwrap();
        assert!((first_order - measured).abs() < 0.02, "{}: {first_order}, {measured}", effect.name());
    }

    let attribution = Attribution::new(&run, at, None, Some(7)).unwrap();
    let totals = attribution.totals(&run).unwrap();
    let logit = attribution.metric();
    for (part, total) in attribution.parts.iter().zip(&totals) {
        let place = match part.component {
            Component::Embed => Target::Tensor(Site::Embed.once()),
            Component::PosEmbed => Target::Tensor(Site::PosEmbed.once()),
            Component::Head(l, h) if h % 2 == 0 => Target::Head(Site::Z.at(l), h),
            Component::Mlp(l) => Target::Tensor(Site::MlpPost.at(l)),
            _ => continue,
        };
        let smaller = Change::Scale(place.everywhere(), 1.0 - STEP);
        let measured = -change_of(&run, smaller, |run| logit.value(run).unwrap());
        let total = total.unwrap();
        assert!((total - measured).abs() < 0.05, "{}: {total}, {measured}", part.component);
    }
    // After the last block, all that a component does is direct.
    let last = run.config().n_layer - 1;
    let direct = |component| attribution.value(component).unwrap();
    let of = |component| attribution.parts.iter().position(|part| part.component == component).unwrap();
    let component = Component::LnFinalBias;
    assert!((direct(component) - totals[of(component)].unwrap()).abs() < 1e-4);
    assert!(totals[of(Component::MlpBias(last))].is_some());
}

#[test]
fn integrated_gradients_add_up() {
    let model = Arc::new(Model::demo());
    let run = Run::all(&model, Input::text(PROMPT)).unwrap();
    for metric in ["logit_diff: man, woman", "loss", "entropy@4"] {
        let metric = Metric::parse(metric, &model, run.n_tokens()).unwrap();
        let of = |method| Inputs::new(&run, &metric, method, |_, _| Ok(())).unwrap();
        let (few, many) = (of(Method::Integrated(4)), of(Method::Integrated(64)));
        let error = |inputs: &Inputs| (inputs.sum() - inputs.difference()).abs();
        assert!((few.difference() - many.difference()).abs() < 1e-9);
        assert!(error(&many) < 0.02 * many.difference().abs().max(1.0), "{}", error(&many));
        assert!(error(&many) <= error(&few) + 1e-3);
        assert!((many.value - metric.value(&run).unwrap()).abs() < 1e-6);

        let plain = of(Method::GradTimesInput);
        let gradients = run.gradients(&metric).unwrap();
        let [x, g] = [
            run.tensor(Site::Embed.once()).unwrap(),
            gradients.part(Site::Embed.once(), &Part::default()).unwrap(),
        ];
        let products = (x * g).unwrap().sum(1).unwrap().to_vec1::<f32>().unwrap();
        for (value, product) in plain.values.iter().zip(products) {
            assert!((value - f64::from(product)).abs() < 1e-4);
        }
    }
    // Later tokens do not matter to an earlier prediction.
    let metric = Metric::parse("entropy@4", &model, run.n_tokens()).unwrap();
    let inputs = Inputs::new(&run, &metric, Method::Integrated(4), |_, _| Ok(())).unwrap();
    assert!(inputs.values[5..].iter().all(|x| *x == 0.0) && inputs.values[..5].iter().all(|x| *x != 0.0));
}

#[test]
fn what_cannot_be_compared_is_said() {
    let model = Arc::new(Model::demo());
    let pair = |clean: &str, corrupt: &str| Pair {
        clean: Input::text(clean),
        corrupt: Input::text(corrupt),
        token: 5,
        versus: None,
    };
    let why = Ready::new(&model, pair("The old man", "The")).err().unwrap().to_string();
    assert!(why.contains("3 and 1 tokens"), "{why}");
    let changed: Interventions = [Change::Zero(Target::Layer(1).everywhere())].into_iter().collect();
    let with =
        Pair { clean: Input::text("The old man").with_interventions(changed), ..pair("", "The old man") };
    let why = Ready::new(&model, with).err().unwrap().to_string();
    assert!(why.contains("leave the changes out"), "{why}");
    let why = Edges::new(&[], None, |_, _| Ok(())).unwrap_err().to_string();
    assert!(why.contains("no pair"), "{why}");
}

#[test]
fn gradients_of_weights_are_those_of_autograd() {
    use actscope::analysis::gradients::weights;
    for name in ["plain", "untied"] {
        let model = Arc::new(tiny(name));
        let run = Run::all(&model, Input::ids([3, 14, 15, 92, 65])).unwrap();
        let gradients = run.gradients(&Metric::parse("loss", &model, 5).unwrap()).unwrap();
        let path = fixtures().join(format!("gradients/weights-{name}.safetensors"));
        let want = candle_core::safetensors::load(path, &candle_core::Device::Cpu).unwrap();
        let names = weights::names(model.config());
        assert_eq!(names.len(), want.len());
        for (weight, shape) in names {
            let full =
                if weight.starts_with("lm_head") { weight.clone() } else { format!("transformer.{weight}") };
            let (got, want) = (gradients.of_weight(&weight).unwrap(), &want[&format!("{full}.grad")]);
            assert_eq!((got.dims(), want.dims()), (&shape[..], &shape[..]), "{weight}");
            let [got, want] = [&got, want].map(|x| x.flatten_all().unwrap().to_vec1::<f32>().unwrap());
            let largest = want.iter().fold(0f32, |most, x| most.max(x.abs()));
            for (g, w) in got.iter().zip(&want) {
                assert!((g - w).abs() <= 1e-4 * largest, "{name}: {weight}: {g}, the reference has {w}");
            }
        }
        assert!(gradients.of_weight("h.9.ln_1.weight").is_err() && gradients.of_weight("h.0.ln_1").is_err());
    }
}
