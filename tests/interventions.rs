//! Changed forward passes, ablation effects and patch sweeps against Hugging Face transformers (see
//! `fixtures/README.md`), and what must hold of any.

#[path = "interventions/difference.rs"]
mod difference;

use std::path::Path;
use std::sync::Arc;

use actscope::analysis::compare::{Alignment, Comparison};
use actscope::analysis::effects::{Effects, Question};
use actscope::analysis::patch::{Patching, Sweep};
use actscope::hooks::{Axis, HookFilter, HookName, Site};
use actscope::interventions::{Change, Place, Target};
use actscope::model::{LoadOptions, Source};
use actscope::{Input, Interventions, Model, Run};
use serde::Deserialize;

#[derive(Deserialize)]
struct Reference {
    clean: Vec<u32>,
    corrupt: Vec<u32>,
    token: u32,
    versus: u32,
    clean_difference: f32,
    corrupt_difference: f32,
    top: u32,
    /// Every how many tokens there is a logit.
    step: usize,
    changes: Vec<Changed>,
    effects: Ablated,
    sweeps: std::collections::HashMap<String, Vec<Vec<f32>>>,
}

#[derive(Deserialize)]
struct Changed {
    changes: Vec<String>,
    /// After the last two positions.
    logits: [Vec<f32>; 2],
}

#[derive(Deserialize)]
struct Ablated {
    zero: Vec<(usize, Option<usize>, f64, f64)>,
    mean: Vec<(usize, Option<usize>, f64, f64)>,
}

fn reference(name: &str) -> (Arc<Model>, Reference) {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let json = std::fs::read(fixtures.join("interventions").join(format!("{name}.json"))).unwrap();
    let model = match name {
        "demo" => Model::demo(),
        tiny => {
            let source = Source::Path(fixtures.join("tiny").join(tiny));
            Model::load(&source, &LoadOptions::default(), &(Arc::new(|_| {}) as _)).unwrap()
        }
    };
    (Arc::new(model), serde_json::from_slice(&json).unwrap())
}

fn list(texts: &[impl AsRef<str>]) -> Interventions {
    texts.iter().map(|text| text.as_ref().parse::<Change>().unwrap()).collect()
}

fn changed(model: &Arc<Model>, ids: &[u32], texts: &[impl AsRef<str>]) -> Run {
    Run::all(model, Input::ids(ids).with_interventions(list(texts))).unwrap()
}

fn row(run: &Run, hook: HookName, position: usize) -> Vec<f32> {
    run.tensor(hook).unwrap().get(position).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

#[track_caller]
fn assert_close(got: f64, want: f64, scale: f64, what: &str) {
    assert!((got - want).abs() <= 1e-4 * want.abs().max(scale), "{what}: {got}, the reference has {want}");
}

fn assert_changes(name: &str) {
    let (model, reference) = reference(name);
    for Changed { changes, logits } in &reference.changes {
        let run = changed(&model, &reference.clean, changes);
        for (i, want) in logits.iter().enumerate() {
            let got = row(&run, Site::Logits.once(), run.n_tokens() - 2 + i);
            let got: Vec<_> = got.into_iter().step_by(reference.step).collect();
            assert_eq!(got.len(), want.len());
            for (got, want) in got.iter().zip(want) {
                assert_close((*got).into(), (*want).into(), 1.0, &format!("{name}, {changes:?}"));
            }
        }
    }
    let [plain, rest @ ..] = &reference.changes[..] else { panic!("no changes") };
    assert!(plain.changes.is_empty());
    assert!(rest.iter().all(|case| case.logits != plain.logits), "{name}: a change that changes nothing");
}

fn assert_effects(name: &str) {
    let (model, reference) = reference(name);
    let run = Run::all(&model, Input::ids(&*reference.clean)).unwrap();
    for (mean, want) in [(false, &reference.effects.zero), (true, &reference.effects.mean)] {
        let question = Question { position: run.n_tokens() - 1, token: None, mean };
        let mut steps = Vec::new();
        let got = Effects::new(&run, question, |done, of| {
            steps.push((done, of));
            Ok(())
        })
        .unwrap()
        .all;
        assert!(steps.is_sorted() && steps[0].0 == 0, "{steps:?}");
        assert!(steps.iter().all(|&(done, of)| done < of && of == want.len()), "{steps:?}");
        assert_eq!(got.len(), want.len());
        for (got, want) in got.iter().zip(want) {
            assert_eq!((got.layer, got.head), (want.0, want.1));
            let what = format!("{name}, mean {mean}, {} {}.{:?}", got.component(), got.layer, got.head);
            assert_close(got.delta_logprob, want.2, 1.0, &what);
            assert_close(got.kl, want.3, 1.0, &what);
        }
        let named = Question { token: Some(reference.top), ..question };
        assert_eq!(Effects::new(&run, named, |_, _| Ok(())).unwrap().all, got);
    }
}

fn patching(model: &Arc<Model>, reference: &Reference) -> Patching {
    let [clean, corrupt] = [&reference.clean, &reference.corrupt]
        .map(|ids| Arc::new(Run::all(model, Input::ids(ids.clone())).unwrap()));
    Patching::new(clean, corrupt, Some(reference.token), Some(reference.versus)).unwrap()
}

fn sweep(name: &str) -> Sweep {
    name.parse().unwrap()
}

fn assert_sweeps(name: &str) {
    let (model, reference) = reference(name);
    let patching = patching(&model, &reference);
    assert_close(patching.clean_difference.into(), reference.clean_difference.into(), 1.0, name);
    assert_close(patching.corrupt_difference.into(), reference.corrupt_difference.into(), 1.0, name);
    for (name, want) in &reference.sweeps {
        let got = patching.sweep(sweep(name), false, |_, _| Ok(()), |_| {}).unwrap();
        assert_eq!(got.rows, (0..want.len()).collect::<Vec<_>>());
        assert_eq!(got.columns, (0..want[0].len()).collect::<Vec<_>>());
        for (layer, (got, want)) in got.values.iter().zip(want).enumerate() {
            for (column, (got, want)) in got.iter().zip(want).enumerate() {
                let what = format!("{name} at {layer}, {column}");
                assert_close((*got).into(), (*want).into(), 1.0, &what);
            }
        }
    }
}

macro_rules! against_transformers {
    ($($name:ident)*) => { $(
        mod $name {
            #[test]
            fn changes() {
                super::assert_changes(stringify!($name));
            }

            #[test]
            fn effects() {
                super::assert_effects(stringify!($name));
            }

            #[test]
            fn sweeps() {
                super::assert_sweeps(stringify!($name));
            }
        }
    )* };
}

against_transformers! { demo inverse inner }

#[test]
fn a_change_at_a_position_changes_no_row_before_it() {
    let (model, reference) = reference("demo");
    let plain = Run::all(&model, Input::ids(&*reference.clean)).unwrap();
    let n = plain.n_tokens();
    for text in [
        "zero head:0.3@4",
        "zero neuron:1.8@4",
        "scale mlp:0@4=-3",
        "zero layer:1@4",
        "mean attn:0@4",
        "zero position:4",
        "add resid_mid.2@4:9-1=5",
        "knockout 0.0:4->3",
    ] {
        let run = changed(&model, &reference.clean, &[text]);
        for hook in HookName::all(model.config()).into_iter().filter(|hook| plain.tensor(*hook).is_some()) {
            let rows = |run: &Run| -> Vec<Vec<f32>> {
                let axis = usize::from(matches!(hook.site, Site::AttnScores | Site::Pattern));
                let x = run.tensor(hook).unwrap().narrow(axis, 0, 4).unwrap();
                let x = x.contiguous().unwrap().flatten_all().unwrap();
                vec![x.to_vec1().unwrap()]
            };
            assert_eq!(rows(&plain), rows(&run), "{text}: {hook}");
        }
        assert_ne!(row(&plain, Site::Logits.once(), 4), row(&run, Site::Logits.once(), 4), "{text}");
        let compared = Comparison::new(&plain, &run, &Alignment::new(&plain.tokens, &run.tokens)).unwrap();
        let first = list(&[text]).first().unwrap();
        assert_eq!((compared.first, compared.earliest), (Some((first, 4)), Some(4)), "{text}");
        let kl: Vec<_> = (0..n).map(|t| compared.shifts[t].unwrap().kl).collect();
        assert_eq!(kl[..4], [0.0; 4], "{text}");
        assert!(kl[4] > 0.0, "{text}: {kl:?}");
        assert_eq!(compared.nan, None, "{text}");
    }
}

/// The pattern of a change is made as a tensor, that of a plain run piece by piece.
#[test]
fn rows_before_a_change_stay_as_they_were_in_long_prompts() {
    let model = Arc::new(Model::demo());
    let ids: Vec<u32> = (0..90).map(|i| i * 31 % 2048).collect();
    let plain = Run::all(&model, Input::ids(&*ids)).unwrap();
    let run = changed(&model, &ids, &["knockout 0.0:80->3"]);
    let compared = Comparison::new(&plain, &run, &Alignment::new(&plain.tokens, &run.tokens)).unwrap();
    assert_eq!((compared.first, compared.earliest), (Some((Site::AttnScores.at(0), 80)), Some(80)));
}

#[test]
fn nan_is_named_with_the_hook_where_it_first_appears() {
    let (model, reference) = reference("demo");
    let plain = Run::all(&model, Input::ids(&*reference.clean)).unwrap();
    let keys: Vec<_> = (0..=6).map(|key| format!("knockout 2.1:6->{key}")).collect();
    let run = changed(&model, &reference.clean, &keys);
    let compared = Comparison::new(&plain, &run, &Alignment::new(&plain.tokens, &run.tokens)).unwrap();
    assert_eq!(compared.first, Some((Site::AttnScores.at(2), 6)));
    assert_eq!(compared.nan, Some((Site::Pattern.at(2), 6)));
    assert!(compared.shifts[6].unwrap().kl.is_nan());
    let divided = changed(&model, &reference.clean, &["zero ln2_scale.1@3", "scale ln2_out.1@3=0"]);
    let compared = Comparison::new(&plain, &divided, &Alignment::new(&plain.tokens, &run.tokens)).unwrap();
    // x / 0 is ±inf, and inf · 0 the first NaN.
    assert_eq!(compared.nan, Some((Site::Ln2Out.at(1), 3)));
}

#[test]
fn a_patch_restores_all_nothing_or_a_part() {
    let (model, reference) = reference("demo");
    let patching = patching(&model, &reference);
    let last = patching.clean.n_tokens() - 1;
    let logits = Target::Tensor(Site::Logits.once());
    assert_eq!(patching.recovered(logits.everywhere(), false).unwrap(), 1.0);
    assert_eq!(patching.recovered(logits.at(last - 1), false).unwrap(), 0.0);
    let everything = Target::Tensor(Site::ResidPre.at(2)).everywhere();
    assert!((patching.recovered(everything, false).unwrap() - 1.0).abs() < 1e-5);
    let head = "pattern.1.5".parse::<Target>().unwrap().everywhere();
    assert!((0.01..0.99).contains(&patching.recovered(head, false).unwrap().abs()));
}

/// Those too that are made on request only: at the place it is the clean run's.
#[test]
fn every_hook_can_be_patched() {
    let model = Arc::new(Model::demo());
    let (clean, corrupt) = ("The old man and the old", "The young man and the old");
    let [clean, corrupt] =
        [clean, corrupt].map(|text| Arc::new(Run::all(&model, Input::text(text)).unwrap()));
    let patching = Patching::new(clean, corrupt, Some(437), Some(981)).unwrap();
    for name in HookName::all(model.config()) {
        let place: Place = format!("{name}@1").parse().unwrap();
        let keep = HookFilter::new(&[name.to_string()], model.config()).unwrap();
        let patched = patching.patched(place, false, keep);
        let patched = patched.unwrap_or_else(|error| panic!("{error}"));
        let rows = |run: &Run| {
            let tensor = run.only(name).tensor(name).unwrap();
            let axis = name.point().axes.iter().position(|axis| *axis == Axis::Pos).unwrap();
            let row = tensor.narrow(axis, 1, 1).unwrap().flatten_all().unwrap();
            row.to_vec1::<f32>().unwrap()
        };
        for (got, want) in rows(&patched).into_iter().zip(rows(&patching.clean)) {
            assert!(got == want || (got - want).abs() <= 1e-4, "{name}: {got}, clean {want}");
        }
    }
}

#[test]
fn a_patch_in_the_list_is_what_the_sweep_makes() {
    let (model, reference) = reference("demo");
    let patching = patching(&model, &reference);
    let ids = reference.clean.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let logits = |run: &Run| run.tensor(Site::Logits.once()).unwrap().to_vec2::<f32>().unwrap();
    for place in ["resid_pre.1@2", "attn:2@3", "mlp:0@1", "head:1.5", "q.2.1@4", "neuron:3.7", "layer:1"] {
        let change = format!("patch {place} from {ids}");
        let run = patching.corrupt.then(
            patching.corrupt.input.clone().with_interventions(list(&[&change])),
            HookFilter::all(model.config()),
            (),
        );
        let run = run.unwrap();
        let want = patching.patched(place.parse().unwrap(), false, HookFilter::all(model.config())).unwrap();
        for (got, want) in logits(&run).concat().into_iter().zip(logits(&want).concat()) {
            assert!((got - want).abs() < 1e-4, "{place}: {got}, {want}");
        }
        assert_ne!(logits(&run), logits(&patching.corrupt), "{place}");
        // Again, from what the run took from the other prompt; and without it.
        let again = run.then(run.input.clone(), HookFilter::all(model.config()), ()).unwrap();
        assert_eq!(logits(&again), logits(&run));
        let mut off = run.input.clone();
        off.interventions.0[0].on = false;
        let off = run.then(off, HookFilter::all(model.config()), ()).unwrap();
        assert_eq!(logits(&off), logits(&patching.corrupt));
    }
}

#[test]
fn a_patch_is_from_the_prompt_as_the_changes_before_it_make_it() {
    let model = Arc::new(Model::demo());
    let [a, b] = ["The old man said to the", "The young man said to the"].map(Input::text);
    let ids = a.tokens(&model).unwrap().iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let zero = "zero head:0.3";
    let of = |input: &Input, changes: &[&str]| {
        Run::all(&model, input.clone().with_interventions(list(changes))).unwrap()
    };
    let row = |run: &Run, at: usize| {
        run.tensor(Site::ResidPre.at(2)).unwrap().get(at).unwrap().to_vec1::<f32>().unwrap()
    };
    let patch = format!("patch resid_pre.2@1 from {ids}");
    assert_eq!(row(&of(&b, &[zero, &patch]), 1), row(&of(&a, &[zero]), 1));
    assert_eq!(row(&of(&b, &[&patch, zero]), 1), row(&of(&a, &[]), 1));
    let other = format!("patch resid_pre.2@1 from 4 of {ids}");
    assert_eq!(row(&of(&b, &[&other]), 1), row(&of(&a, &[]), 4));
    // A longer prompt keeps what the other one has no position for.
    let longer = Input::text("The young man said to the old man");
    let all = of(&longer, &[&format!("patch resid_pre.2 from {ids}")]);
    let n = a.tokens(&model).unwrap().len();
    assert_eq!(row(&all, n - 1), row(&of(&a, &[]), n - 1));
    assert_eq!(row(&all, n), row(&of(&longer, &[]), n));
    let said =
        Run::all(&model, b.with_interventions(list(&["zero position:5", "patch mlp:1@1 from 464,2068"])));
    assert!(said.unwrap_err().to_string().contains("position 5 is out of range (0 to 1)"));
}

#[test]
fn prompts_of_different_length_are_patched_at_their_ends_only() {
    let (model, reference) = reference("demo");
    let longer: Vec<_> = [12, 12].into_iter().chain(reference.clean.clone()).collect();
    let clean = Arc::new(Run::all(&model, Input::ids(longer)).unwrap());
    let corrupt = Arc::new(Run::all(&model, Input::ids(&*reference.corrupt)).unwrap());
    let patching = Patching::new(clean, corrupt, None, None).unwrap();
    let said = patching.sweep(sweep("heads"), false, |_, _| Ok(()), |_| {}).unwrap_err().to_string();
    for word in ["13 and 11 tokens", "resid_pre, resid_mid, attn_out", "--last"] {
        assert!(said.contains(word), "{said}");
    }
    let swept = patching.sweep(sweep("resid_pre"), true, |_, _| Ok(()), |_| {}).unwrap();
    assert_eq!((swept.columns, swept.values.len()), (vec![10], model.config().n_layer));
    // With the clean prompt's last row in every layer the last block sees the clean row.
    let resid = Target::Tensor(Site::ResidPost.at(model.config().n_layer - 1));
    assert!((patching.recovered(resid.everywhere(), true).unwrap() - 1.0).abs() < 1e-5);
    let heads = patching.sweep(sweep("heads"), true, |_, _| Ok(()), |_| {}).unwrap();
    assert_eq!(heads.columns.len(), model.config().n_head);
}

/// What is computed together is what each place gives in a run of its own.
#[test]
fn a_sweep_is_all_its_places_one_by_one() {
    for name in ["demo", "inner"] {
        let (model, reference) = reference(name);
        let patching = patching(&model, &reference);
        for sweep in Sweep::all().chain(Sweep::of_block(1)).chain([sweep("q.0"), sweep("resid_mid.2")]) {
            let mut last = None;
            let arrived = |swept: &actscope::analysis::patch::Swept| last = Some(swept.clone());
            let swept = patching.sweep(sweep, false, |_, _| Ok(()), arrived).unwrap();
            assert_eq!(last.as_ref(), Some(&swept));
            assert_eq!(swept.rows.len() * swept.columns.len(), patching.n_places(sweep));
            let cells =
                (0..patching.n_places(sweep)).step_by(if sweep.name() == "neurons.1" { 37 } else { 1 });
            for (row, column) in cells.map(|i| (i / swept.columns.len(), i % swept.columns.len())) {
                let place = swept.place(row, column).unwrap();
                let want = patching.recovered(place, false).unwrap();
                let got = swept.values[row][column];
                assert!(
                    (got - want).abs() <= 1e-5 * want.abs().max(1.0),
                    "{name}, {place}: {got}, alone {want}"
                );
            }
        }
    }
}

/// Where the prompts do not differ yet, nothing is computed and nothing is recovered.
#[test]
fn a_place_with_the_same_values_is_not_patched() {
    let model = Arc::new(Model::demo());
    let run = |ids: [u32; 5]| Arc::new(Run::all(&model, Input::ids(ids)).unwrap());
    let patching = Patching::new(run([464, 450, 9, 7, 12]), run([464, 450, 9, 8, 12]), None, None).unwrap();
    for sweep in ["resid_pre", "mlp_out", "q.1"].map(sweep) {
        let mut least = usize::MAX;
        let progress = |done: usize, _: usize| {
            least = least.min(done);
            Ok(())
        };
        let swept = patching.sweep(sweep, false, progress, |_| {}).unwrap();
        let mut same = 0;
        for row in 0..swept.rows.len() {
            for column in 0..swept.columns.len() {
                let place = swept.place(row, column).unwrap();
                if place.position.unwrap() < 3 {
                    let alone = patching.recovered(place, false).unwrap();
                    assert_eq!((swept.values[row][column], alone), (0.0, 0.0), "{place}");
                    same += 1;
                }
            }
        }
        assert!(same > 2 && least >= same, "{same} are the same, {least} were known at once");
    }
}

#[test]
fn a_sweep_ends_when_it_is_told_to() {
    let (model, reference) = reference("inner");
    let patching = patching(&model, &reference);
    let mut seen = 0;
    let stop = |done: usize, of: usize| {
        assert_eq!((done, of), (6, 27)); // six are the same in both prompts; the others are computed together
        seen += 1;
        if seen == 3 { Err(actscope::Error::Cancelled) } else { Ok(()) }
    };
    let arrived = |_: &_| panic!("nothing is done");
    assert!(matches!(
        patching.sweep(sweep("mlp_out"), false, stop, arrived),
        Err(actscope::Error::Cancelled)
    ));
    assert_eq!(seen, 3);
}

#[test]
fn the_same_prompt_twice_leaves_nothing_to_recover() {
    let (model, reference) = reference("demo");
    let run = Arc::new(Run::all(&model, Input::ids(&*reference.clean)).unwrap());
    let error = Patching::new(Arc::clone(&run), Arc::clone(&run), Some(437), Some(981)).unwrap_err();
    assert!(error.to_string().contains("nothing to recover"), "{error}");
    let error = Patching::new(Arc::clone(&run), run, Some(437), Some(4096)).unwrap_err();
    assert!(error.to_string().contains("(0 to 2047)"), "{error}");
}

/// Two copies of 40 tokens drawn from the vocabulary: only a head that looks for what came after
/// the last time can tell what comes next in the second.
#[test]
fn without_its_strongest_induction_head_the_demo_model_copies_worse() {
    let model = Arc::new(Model::demo());
    let mut state = 7u32;
    let half: Vec<u32> = (0..40)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) % model.config().vocab_size as u32
        })
        .collect();
    let ids = half.repeat(2);
    let plain = Run::all(&model, Input::ids(&*ids)).unwrap();
    let loss = |text: &str| {
        let run = changed(&model, &ids, &[text]);
        let compared = Comparison::new(&plain, &run, &Alignment::new(&plain.tokens, &run.tokens)).unwrap();
        let deltas: Vec<_> = (40..79).map(|t| compared.shifts[t].unwrap().actual.unwrap().1).collect();
        deltas.iter().sum::<f64>() / deltas.len() as f64
    };
    for (text, measured) in MEASURED {
        let loss = loss(text);
        assert!((loss - measured).abs() < 5e-3, "{text}: Δ log p {loss}, where {measured} was measured");
    }
}

/// Mean Δ log-probability of the repeated tokens without the strongest induction head, without the
/// previous-token head that it reads from, and without a head that does something else.
const MEASURED: [(&str, f64); 3] =
    [("zero head:1.5", -0.3246), ("zero head:0.0", -11.6230), ("zero head:2.3", -0.0021)];

mod command_line {
    use actscope::hooks::HookFilter;
    use serde_json::Value;

    use super::*;

    const CLEAN: &str = "The old man saw the young woman, and the old";
    const CORRUPT: &str = "The young man saw the old woman, and the old";

    fn actscope(args: &[&str]) -> assert_cmd::assert::Assert {
        assert_cmd::Command::new(env!("CARGO_BIN_EXE_actscope")).args(args).assert()
    }

    fn json(args: &[&str]) -> Value {
        let done = actscope(&[args, &["--json"]].concat()).success().stderr("");
        serde_json::from_slice(&done.get_output().stdout).unwrap()
    }

    fn refusal(args: &[&str]) -> String {
        let done = actscope(args).code(2).stdout("");
        String::from_utf8(done.get_output().stderr.clone()).unwrap()
    }

    fn keys(object: &Value) -> Vec<&str> {
        object.as_object().unwrap().keys().map(String::as_str).collect()
    }

    #[test]
    fn changes_are_made_in_every_run_and_in_their_order() {
        let model = Arc::new(Model::demo());
        let args = [
            "--scale",
            "mlp:1=2",
            "--ablate",
            "head:1.5",
            "--ablate",
            "mlp:1",
            "--mean",
            "--knockout",
            "3.2:9->4",
            "--add",
            "resid_pre.2@10:5-1=0.5",
        ];
        let same = [
            "scale mlp:1=2",
            "mean head:1.5",
            "mean mlp:1",
            "knockout 3.2:9->4",
            "add resid_pre.2@10:5-1=0.5",
        ];
        let input = Input::text(CLEAN).with_interventions(list(&same));
        let run = Run::new(&model, input, HookFilter::new(&["logits"], model.config()).unwrap(), ()).unwrap();
        let logits = row(&run, Site::Logits.once(), run.n_tokens() - 1);
        let top = json(&[&["top", CLEAN, "-k", "20"], &args[..]].concat());
        for row in top.as_array().unwrap() {
            let want = f64::from(logits[row["id"].as_u64().unwrap() as usize]);
            assert!((row["logit"].as_f64().unwrap() - want).abs() < 1e-4);
        }
        assert_ne!(top, json(&["top", CLEAN, "-k", "20"]));

        let done =
            actscope(&[&["export", CLEAN, "-o", "-", "--hooks", "logits"], &args[..]].concat()).success();
        let file: Value = serde_json::from_slice(&done.get_output().stdout).unwrap();
        let said: Interventions = serde_json::from_value(file["manifest"]["interventions"].clone()).unwrap();
        assert_eq!(said, list(&same));

        let saved = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&saved, said.to_json()).unwrap();
        let path = saved.path().to_str().unwrap();
        assert_eq!(json(&["top", CLEAN, "-k", "20", "--interventions", path]), top);

        let figure = actscope(&["render", "resid_post.1", CLEAN, "--ablate", "head:1.5"]).success();
        assert!(String::from_utf8_lossy(&figure.get_output().stdout).contains("what if: zero head:1.5"));
    }

    #[test]
    fn the_difference_that_changes_make_is_written() {
        let change = ["--ablate", "head:1.5", "--difference"];
        let done =
            actscope(&[&["export", CLEAN, "-o", "-", "--hooks", "logits"], &change[..]].concat()).success();
        let file: Value = serde_json::from_slice(&done.get_output().stdout).unwrap();
        assert_eq!(file["manifest"]["difference"], "changed − base");
        assert_eq!(file["manifest"]["interventions"][0]["change"], "zero head:1.5");
        let model = Arc::new(Model::demo());
        let last = |input: Input| {
            let run = Run::all(&model, input).unwrap();
            row(&run, Site::Logits.once(), run.n_tokens() - 1)
        };
        let (a, b) =
            (last(Input::text(CLEAN).with_interventions(list(&["zero head:1.5"]))), last(Input::text(CLEAN)));
        let tensor: Vec<Vec<f32>> =
            serde_json::from_value(file["tensors"]["unembed.hook_out"].clone()).unwrap();
        for ((got, a), b) in tensor.last().unwrap().iter().zip(a).zip(b) {
            assert_close(f64::from(*got), f64::from(a - b), 1.0, "a logit");
        }

        for what in ["pattern.2", "heads", "lens", "attribution", "effects"] {
            let args = [&["render", what, CLEAN, "--width", "150", "--color", "never"], &change[..]].concat();
            let drawn = actscope(&args).success();
            let text = String::from_utf8_lossy(&drawn.get_output().stdout).into_owned();
            assert!(text.contains("changed − base") && text.contains("what if: zero head:1.5"), "{text}");
        }
        for (args, words) in [
            (&["render", "lens", CLEAN, "--difference"][..], "--difference needs a change"),
            (&["export", CLEAN, "-o", "-", "--difference"], "--difference needs a change"),
            (&["render", "wte", "--difference", "--ablate", "mlp:1"], "does not depend on the run"),
            (&["render", "qk", "--difference", "--ablate", "mlp:1"], "does not depend on the run"),
            (
                &["render", "patch", CLEAN, "--corrupt", CORRUPT, "--difference", "--ablate", "mlp:1"],
                "compares two prompts",
            ),
        ] {
            assert!(refusal(args).contains(words), "{args:?}: {}", refusal(args));
        }
    }

    #[test]
    fn effects_of_every_component() {
        let rows = json(&["effects", CLEAN]);
        let (_, reference) = reference("demo");
        let rows = rows.as_array().unwrap();
        assert_eq!(rows.len(), reference.effects.zero.len());
        for (row, (layer, head, delta, kl)) in rows.iter().zip(&reference.effects.zero) {
            assert_eq!(keys(row), ["component", "layer", "head", "delta_logprob", "kl", "first_order"]);
            assert_eq!(row["component"], if head.is_some() { "head" } else { "mlp" });
            assert_eq!((&row["layer"], &row["head"]), (&(*layer).into(), &serde_json::json!(head)));
            assert_close(row["delta_logprob"].as_f64().unwrap(), *delta, 1.0, "delta_logprob");
            assert_close(row["kl"].as_f64().unwrap(), *kl, 1.0, "kl");
        }
        assert_ne!(json(&["effects", CLEAN, "--mean"]), json(&["effects", CLEAN]));
        assert_ne!(json(&["effects", CLEAN, "--ablate", "mlp:2"]), json(&["effects", CLEAN]));
        let table = actscope(&["effects", CLEAN]).success();
        assert_eq!(String::from_utf8_lossy(&table.get_output().stdout).lines().count(), 1 + rows.len());
    }

    #[test]
    fn sweeps_and_single_patches() {
        let (_, reference) = reference("demo");
        let of = ["--clean", CLEAN, "--corrupt", CORRUPT, "--token", " man", "--versus", " woman"];
        for sweep in ["resid_pre", "attn_out", "mlp_out", "heads"] {
            let swept = json(&[&["patch", "--sweep", sweep], &of[..]].concat());
            assert_eq!(keys(&swept)[..4], ["sweep", "rows", "columns", "values"]);
            assert_eq!(swept["sweep"], sweep);
            let values: Vec<Vec<f32>> = serde_json::from_value(swept["values"].clone()).unwrap();
            assert_eq!(values.len(), swept["rows"].as_array().unwrap().len());
            for (got, want) in values.concat().iter().zip(reference.sweeps[sweep].concat()) {
                assert_close((*got).into(), want.into(), 1.0, sweep);
            }
        }
        let patches = json(&[&["patch", "--at", "head:0.0", "--at", "resid_pre.1@2"], &of[..]].concat());
        for (patch, want) in patches["patches"]
            .as_array()
            .unwrap()
            .iter()
            .zip([reference.sweeps["heads"][0][0], reference.sweeps["resid_pre"][1][2]])
        {
            assert_close(patch["recovered"].as_f64().unwrap(), want.into(), 1.0, "a patch");
        }
        let table =
            actscope(&["patch", "--clean", CLEAN, "--corrupt", CORRUPT, "--sweep", "heads"]).success();
        assert_eq!(String::from_utf8_lossy(&table.get_output().stdout).lines().count(), 2 + 4);
    }

    #[test]
    fn effects_and_sweeps_are_drawn() {
        let drawn = |args: &[&str]| {
            let done =
                actscope(&[&["render"], args, &["--width", "140", "--color", "never"]].concat()).success();
            String::from_utf8(done.get_output().stdout.clone()).unwrap()
        };
        let effects = drawn(&["effects", CLEAN]);
        assert!(effects.contains("ablation: Δ log p of ·man") && effects.contains("mlp"), "{effects}");
        assert_ne!(drawn(&["effects", CLEAN, "--mean"]), effects);
        assert!(drawn(&["effects", CLEAN, "--show", "kl"]).contains("ablation: KL"));
        let of = ["--corrupt", CORRUPT, "--token", " man", "--versus", " woman"];
        let patch = drawn(&[&["patch", CLEAN, "--show", "heads"], &of[..]].concat());
        assert!(patch.contains("patching heads: ·man over ·woman"), "{patch}");
        let dir = tempfile::tempdir().unwrap();
        for (name, start) in [("a.svg", &b"<svg"[..]), ("a.png", b"\x89PNG")] {
            let path = dir.path().join(name);
            let args = ["render", "patch", CLEAN, "-o", path.to_str().unwrap()];
            actscope(&[&args[..], &of].concat()).success().stdout("");
            assert!(std::fs::read(&path).unwrap().starts_with(start), "{name}");
        }
        assert!(refusal(&["render", "patch", CLEAN]).contains("--corrupt TEXT"));
        assert!(refusal(&["render", "effects", CLEAN, "--show", "q"]).contains("delta_logprob, kl"));
    }

    #[test]
    fn what_cannot_be_asked_names_what_can() {
        for (args, words) in [
            (&["top", CLEAN, "--ablate", "head:1.6"][..], "head 6 is out of range (0 to 5)"),
            (&["top", CLEAN, "--ablate", "neuron:1.768"], "neuron 768 is out of range (0 to 767)"),
            (&["top", CLEAN, "--ablate", "layer:4"], "layer 4 is out of range (0 to 3)"),
            (&["export", CLEAN, "-o", "-", "--scale", "mlp:1@11=2"], "position 11 is out of range (0 to 10)"),
            (&["heads", CLEAN, "--knockout", "1.0:3-"], "in quotes"),
            (
                &["heads", "--repeat-random", "4", "--knockout", "1.0:8->1"],
                "position 8 is out of range (0 to 7)",
            ),
            (&["lens", CLEAN, "--mean"], "use it with --ablate TARGET"),
            (&["render", "logits", CLEAN, "--ablate", "heads"], "use head:L.H"),
            (&["effects", CLEAN, "--position", "11"], "position 11 is out of range (0 to 10)"),
            (&["effects", CLEAN, "--token", "old man"], "not one token"),
            (&["patch", "--clean", CLEAN, "--corrupt", "The", "--sweep", "mlp_out"], "11 and 1 tokens"),
            (&["patch", "--clean", CLEAN, "--corrupt", CORRUPT, "--sweep", "w"], "resid_pre, resid_mid"),
            (
                &["patch", "--clean", CLEAN, "--corrupt", CORRUPT, "--at", "mlp:4"],
                "layer 4 is out of range (0 to 3)",
            ),
            (&["patch", "--clean", CLEAN, "--corrupt", CLEAN, "--sweep", "heads"], "nothing to recover"),
            (&["patch", "--clean", CLEAN, "--sweep", "heads"], "--corrupt"),
            (&["tokens", CLEAN, "--ablate", "mlp:1"], "--ablate"),
        ] {
            let said = refusal(args);
            assert!(said.contains(words) && said.lines().count() == 1, "{args:?}: {said}");
        }
    }
}
