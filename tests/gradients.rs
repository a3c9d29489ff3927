//! Gradients of every hook against PyTorch autograd through Hugging Face transformers (see `fixtures/README.md`), and
//! against finite differences.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use actscope::analysis::gradients::{Metric, Stop};
use actscope::hooks::{Edit, HookName, Part, Site};
use actscope::interventions::{Change, Direction, Donors, Interventions, Target};
use actscope::model::{LoadOptions, Ops, Source};
use actscope::{Input, Model, Run};
use candle_core::{DType, Device, Tensor};
use proptest::prelude::*;
use safetensors::SafeTensors;
use serde::Deserialize;

#[path = "gradients/features.rs"]
mod features;
#[path = "gradients/uses.rs"]
mod uses;

#[derive(Deserialize)]
struct Case {
    metric: String,
    changes: Vec<String>,
    stop: Vec<String>,
    value: f64,
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn load(source: &Source, dtype: DType) -> Model {
    let options = LoadOptions { dtype: dtype.as_str().parse().unwrap(), ..LoadOptions::default() };
    Model::load(source, &options, &(Arc::new(|_| {}) as _)).unwrap()
}

fn tiny(name: &str) -> Model {
    load(&Source::Path(fixtures().join("tiny").join(name)), DType::F32)
}

fn values(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

fn changes(texts: &[String]) -> Interventions {
    texts.iter().map(|text| text.parse::<Change>().unwrap()).collect()
}

/// Every gradient within 1e-4 of its largest value, and those that the reference leaves out 0; `exempt` hooks are not
/// in it.
fn assert_gradients(model: Model, name: &str, exempt: &[&str]) {
    let model = Arc::new(model);
    let bytes = std::fs::read(fixtures().join(format!("gradients/{name}.safetensors"))).unwrap();
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let about = metadata.metadata().as_ref().unwrap();
    let ids: Vec<u32> = serde_json::from_str(&about["token_ids"]).unwrap();
    let other: Vec<u32> = serde_json::from_str(&about["other"]).unwrap();
    let cases: Vec<Case> = serde_json::from_str(&about["cases"]).unwrap();
    let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).unwrap();
    assert!(!cases.is_empty() && !tensors.is_empty());
    let other = Run::all(&model, Input::ids(other)).unwrap();
    for (i, case) in cases.iter().enumerate() {
        let input = Input::ids(ids.clone()).with_interventions(changes(&case.changes));
        let run = Run::all(&model, input).unwrap();
        let metric = match case.metric.strip_prefix("kl@") {
            Some(at) => Metric::kl_from(&other, at.parse().unwrap()).unwrap(),
            None => Metric::parse(&case.metric, &model, ids.len()).unwrap(),
        };
        let stop = |what: &str| case.stop.iter().any(|stop| stop == what);
        let stop = Stop { scale: stop("scale"), pattern: stop("pattern") };
        let gradients = run.gradients_with(&metric, stop, &|| Ok(())).unwrap();
        let what = format!("{name}: {} {:?} {:?}", case.metric, case.changes, case.stop);
        assert!((gradients.value - case.value).abs() <= 1e-4 * case.value.abs().max(1.0), "{what}");
        for hook in HookName::all(model.config()) {
            let got = gradients.part(hook, &Part::default()).unwrap();
            assert_eq!(got.dims(), hook.shape(model.config(), ids.len()), "{what}: {hook}");
            let got = values(&got);
            let Some(want) = tensors.get(&format!("{i}|{hook}")) else {
                let full = hook.to_string();
                let is_exempt = exempt.iter().any(|end| full == *end || full.ends_with(&format!(".{end}")));
                assert!(is_exempt || got.iter().all(|g| g.abs() < 1e-6), "{what}: {hook} is not 0");
                continue;
            };
            let want = values(want);
            let largest = want.iter().fold(0f32, |most, x| most.max(x.abs()));
            for (j, (g, w)) in got.iter().zip(&want).enumerate() {
                assert!((g - w).abs() <= 1e-4 * largest, "{what}: {hook}[{j}] is {g}, the reference has {w}");
            }
        }
    }
}

macro_rules! tiny_models {
    ($($name:ident)*) => { $(
        #[test]
        fn $name() {
            for ops in Ops::available() {
                let model = tiny(stringify!($name));
                let model = Model { net: model.net.clone().with_ops(ops).unwrap(), ..model };
                assert_gradients(model, stringify!($name), &[]);
            }
        }
    )* };
}

tiny_models!(plain inner inverse unscaled untied relu gelu eps);

#[test]
fn all_activation_functions() {
    let exempt = [
        "hook_out",
        "hook_q",
        "hook_k",
        "hook_v",
        "hook_z",
        "hook_result",
        "hook_pattern",
        "hook_attn_scores",
        "hook_scale",
        "hook_normalized",
        "hook_resid_mid",
        "hook_attn_out",
        "hook_mlp_out",
    ];
    for act in
        ["gelu_10", "quick_gelu", "relu2", "relu6", "leaky_relu", "silu", "tanh", "sigmoid", "mish", "linear"]
    {
        let folder = tempfile::tempdir().unwrap();
        let plain = fixtures().join("tiny/plain");
        let config = std::fs::read_to_string(plain.join("config.json")).unwrap();
        let changed = config.replace("\"gelu_new\"", &format!("\"{act}\""));
        assert_ne!(config, changed);
        std::fs::write(folder.path().join("config.json"), changed).unwrap();
        std::fs::copy(plain.join("model.safetensors"), folder.path().join("model.safetensors")).unwrap();
        assert_gradients(
            load(&Source::Path(folder.path().into()), DType::F32),
            &format!("act-{act}"),
            &exempt,
        );
    }
}

#[test]
fn demo() {
    let exempt =
        ["unembed.hook_out", "hook_probs", "hook_result", "hook_normalized", "hook_attn_out", "hook_mlp_out"];
    assert_gradients(Model::demo(), "demo", &exempt);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    /// In float64, so that small steps are exact enough.
    #[test]
    fn gradients_are_what_small_steps_measure(
        tokens in proptest::collection::vec(0u32..97, 2..7),
        hook in 0usize..67,
        element in any::<prop::sample::Index>(),
        (a, b) in (0u32..97, 0u32..97),
        at in any::<prop::sample::Index>(),
        change in 0usize..6,
    ) {
        const STEP: f64 = 1e-5;
        let model = Arc::new(load(&Source::Path(fixtures().join("tiny/inner")), DType::F64));
        let hooks = HookName::all(model.config());
        let (hook, n) = (hooks[hook % hooks.len()], tokens.len());
        let place = Target::Tensor(Site::MlpOut.at(1)).everywhere();
        let changes: Interventions = match change {
            0 => vec![Change::Mean(place)],
            1 => vec![Change::Scale(place, 0.5), Change::Zero(Target::Head(Site::Z.at(0), 1).at(n - 1))],
            2 => vec![Change::Add(place, Direction { plus: 0, minus: n - 1, factor: 1.5 })],
            3 => vec!["knockout 2.0:1->0".parse().unwrap()],
            _ => Vec::new(),
        }.into_iter().collect();
        let at = at.index(n);
        let input = Input::ids(tokens.clone()).with_interventions(changes.clone());
        let run = Run::all(&model, input).unwrap();
        let metric = Metric::logit(a, Some(b), at);
        let gradient = run.gradients(&metric).unwrap().part(hook, &Part::default()).unwrap();
        let gradient = values(&gradient);
        let i = element.index(gradient.len());
        let measured = |step: f64| {
            let moved = |x: &Tensor| {
                let mut steps = vec![0f64; x.elem_count()];
                steps[i] = step;
                // −inf stays so: what is masked does not move.
                Ok((x + Tensor::from_vec(steps, x.dims(), x.device())?)?)
            };
            let mut chain = (changes.hooks(&model, &mut Donors::default()).unwrap(), Edit(hook, moved));
            let logits = model.net.run(&tokens, &mut chain).unwrap().to_vec2::<f64>().unwrap();
            logits[at][a as usize] - logits[at][b as usize]
        };
        let slope = (measured(STEP) - measured(-STEP)) / (2.0 * STEP);
        let got = f64::from(gradient[i]);
        prop_assert!((got - slope).abs() <= 1e-4 * slope.abs().max(1e-2), "{}[{}]: {} and {}", hook, i, got, slope);
    }
}

#[test]
fn what_has_no_gradient_is_said() {
    let model = Arc::new(Model::demo());
    let said = |metric: &str| Metric::parse(metric, &model, 5).unwrap_err().to_string();
    assert!(said("accuracy").contains("is none of logit:TOKEN"), "{}", said("accuracy"));
    assert!(said("logit:7@9").contains("position 9 is out of range"), "{}", said("logit:7@9"));
    assert!(said("logit:9999").contains("token id 9999"), "{}", said("logit:9999"));
    assert!(said("logit_diff:7").contains("two tokens"), "{}", said("logit_diff:7"));
    assert!(said("loss:0..3").contains("nothing predicts token 0"), "{}", said("loss:0..3"));
    assert!(said("loss:4..4").contains("A before B"), "{}", said("loss:4..4"));
    assert!(said("value:resid_post.9").contains("resid_post.9"), "{}", said("value:resid_post.9"));
    assert!(said("value:pattern.1[0,1,5]").contains("key 5"), "{}", said("value:pattern.1[0,1,5]"));
    assert!(said("value:pattern.1[0,x]").contains("`x` is no index"), "{}", said("value:pattern.1[0,x]"));
    assert!(said("value:embed[0,1,2]").contains("2 axes"), "{}", said("value:embed[0,1,2]"));
}

proptest! {
    /// Whatever is typed, it is a metric or one sentence; a metric reads back as it is written.
    #[test]
    fn any_text_is_a_metric_or_refused(text in "(logit|logit_diff|logprob|loss|entropy|value)?[:@,.\\[\\]*0-9a-z ]{0,12}") {
        let model = Model::demo();
        if let Ok(metric) = Metric::parse(&text, &model, 4) {
            let written = metric.to_string();
            prop_assert_eq!(Metric::parse(&written, &model, 4).unwrap().to_string(), written);
        }
    }
}
