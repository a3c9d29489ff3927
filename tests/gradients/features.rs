//! Gradients through and of the features of sparse dictionaries, against small steps.

use std::sync::Arc;

use actscope::analysis::gradients::Metric;
use actscope::hooks::{Edit, HookFilter, HookName, Part, Site};
use actscope::interventions::Interventions;
use actscope::model::{LoadOptions, Source};
use actscope::{Input, Model, Run};
use candle_core::Tensor;

use super::{changes, fixtures, values};

fn with(dictionary: &str) -> Arc<Model> {
    let path = fixtures().join("dictionaries").join(dictionary).display().to_string();
    let options = LoadOptions { dictionaries: vec![path], ..LoadOptions::default() };
    Arc::new(
        Model::load(&Source::Path(fixtures().join("tiny/plain")), &options, &(Arc::new(|_| {}) as _))
            .unwrap(),
    )
}

const IDS: [u32; 6] = [5, 17, 96, 0, 42, 17];

/// Steps along the gradient itself, small enough that few features begin or end.
fn assert_slope(model: &Arc<Model>, list: &Interventions, metric: &str, hook: HookName) {
    let input = Input::ids(IDS).with_interventions(list.clone());
    let metric = Metric::parse(metric, model, IDS.len()).unwrap();
    let run = Run::all(model, input.clone()).unwrap();
    let gradients = run.gradients(&metric).unwrap();
    let g = gradients.part(hook, &Part::default()).unwrap();
    let norm = values(&g).iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    assert!(norm > 1e-3, "{list}, {metric}: no gradient at {hook}");
    let step = 0.004;
    let at = |sign: f64| {
        let moved = (&g * (sign * step / norm)).unwrap();
        let moved = move |x: &Tensor| Ok((x + &moved)?);
        let keep = HookFilter::all(model.config());
        let run = Run::new(model, input.clone(), keep, Edit(hook, moved)).unwrap();
        metric.value(&run).unwrap()
    };
    let slope = (at(1.0) - at(-1.0)) / (2.0 * step);
    assert!((slope - norm).abs() < 0.03 * norm, "{list}, {metric}, {hook}: {norm}, measured {slope}");
}

/// The strongest feature at a position.
fn strongest(model: &Arc<Model>, which: usize, position: usize) -> u32 {
    let run = Run::all(model, Input::ids(IDS)).unwrap();
    let dictionary = &model.dictionaries()[which];
    let x = run.tensor(dictionary.reads).unwrap();
    dictionary.encode(&x).unwrap().strongest(position)[0].0
}

#[test]
fn changes_of_features_are_differentiated() {
    for name in ["standard", "topk", "topk_rescaled", "gated", "jumprelu", "transcoder", "transcoder_skip"] {
        let model = with(name);
        let dictionary = &model.dictionaries()[0];
        let feature = strongest(&model, 0, 3);
        let tensor = dictionary.writes.short();
        let (site, l) = tensor.split_once('.').unwrap();
        let of = format!("feature:{l}.{site}/{feature}");
        let before = Site::ResidPre.at(dictionary.reads.layer.unwrap());
        for list in [
            vec![format!("scale {of}=3")],
            vec![format!("mean {of}")],
            vec![format!("zero {of}@3"), format!("add {of}=2")],
            vec![format!("splice {tensor}")],
            vec![format!("splice {tensor}@4"), format!("scale {of}=0.5"), format!("scale {tensor}=1.5")],
        ] {
            assert_slope(&model, &changes(&list), "logprob:43@5", before);
        }
    }
}

#[test]
fn features_have_gradients_of_their_own() {
    for name in ["standard", "topk_rescaled", "gated", "jumprelu", "transcoder"] {
        let model = with(name);
        let dictionary = &model.dictionaries()[0];
        let feature = strongest(&model, 0, 3);
        let metric = format!("value:{}.features[3,{feature}]", dictionary.writes);
        assert_slope(&model, &Interventions::default(), &metric, Site::ResidPre.at(0));
        // The metric with respect to a feature: what adding to it does.
        let run = Run::all(&model, Input::ids(IDS)).unwrap();
        let metric = Metric::parse("logprob:43@5", &model, IDS.len()).unwrap();
        let gradients = run.gradients(&metric).unwrap();
        let features = model.find(&format!("{}.features", dictionary.writes)).unwrap();
        let g = gradients.part(features, &Part::rows(3..4)).unwrap().flatten_all().unwrap();
        let g = f64::from(g.to_vec1::<f32>().unwrap()[feature as usize]);
        let (site, l) = (dictionary.writes.point().short, dictionary.writes.layer.unwrap());
        let at = |x: f64| {
            let list = changes(&[format!("add feature:{l}.{site}/{feature}@3={x}")]);
            let run = Run::all(&model, Input::ids(IDS).with_interventions(list)).unwrap();
            metric.value(&run).unwrap()
        };
        let slope = (at(0.02) - at(-0.02)) / 0.04;
        assert!((g - slope).abs() < 0.03 * slope.abs().max(0.01), "{name}: {g}, measured {slope}");
    }
}

#[test]
fn what_gradients_do_not_pass_is_said() {
    let model = with("standard_layer_norm");
    let dictionary = &model.dictionaries()[0];
    let (site, l) = (dictionary.writes.point().short, dictionary.writes.layer.unwrap());
    let said = |list: &[String], metric: &str| {
        let run = Run::all(&model, Input::ids(IDS).with_interventions(changes(list))).unwrap();
        let metric = Metric::parse(metric, &model, IDS.len()).unwrap();
        run.gradients(&metric).unwrap_err().to_string()
    };
    let why = said(&[format!("scale feature:{l}.{site}/1=2")], "logit:5");
    assert!(why.contains("normalises what it reads"), "{why}");
    let why = said(&[], &format!("value:{site}.{l}.features[2,1]"));
    assert!(why.contains("normalises what it reads"), "{why}");
    let model = with("standard");
    let name = format!("{}.error", model.dictionaries()[0].writes);
    let why = Metric::parse(&format!("value:{name}[2,1]"), &model, 6).unwrap_err().to_string();
    assert!(why.contains("has no gradients"), "{why}");
}
