//! Dictionaries and lenses against the packages that made them (see `fixtures/README.md`).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use actscope::analysis::features::{self, Asked, Listed, Page};
use actscope::analysis::find::Found;
use actscope::analysis::lens::{Lens, Show};
use actscope::hooks::{Edit, HookFilter, Part, Site};
use actscope::interventions::{Change, Target};
use actscope::model::fitted::dictionary::Features;
use actscope::model::fitted::lens::Kind;
use actscope::model::fitted::{Dictionary, FittedLens, Labels};
use actscope::model::source::OnProgress;
use actscope::model::{Config, LoadOptions, Source};
use actscope::{Error, Input, Model, Run};
use candle_core::{DType, Device, Tensor};
use proptest::prelude::*;

const IDS: [u32; 9] = [5, 17, 96, 0, 42, 17, 5, 88, 23];

/// Each fixture, and the hook that its files do not say.
const ALL: [(&str, &str); 20] = [
    ("standard", ""),
    ("standard_no_b_dec", ""),
    ("standard_layer_norm", ""),
    ("standard_constant_norm", ""),
    ("standard_z", ""),
    ("topk", ""),
    ("topk_rescaled", ""),
    ("jumprelu", ""),
    ("gated", ""),
    ("batchtopk", ""),
    ("transcoder", ""),
    ("transcoder_skip", ""),
    ("transcoder_jumprelu", ""),
    ("old", ""),
    ("old_topk", ""),
    ("half", ""),
    ("openai", "resid_post.1="),
    ("openai_topk", "resid_post.1="),
    ("dunefsky", "ln2_normalized.1="),
    ("sparsify/h.1", ""),
];

fn quiet() -> OnProgress {
    Arc::new(|_| {})
}

fn open(name: &str, config: &Config) -> Result<Dictionary, Error> {
    Dictionary::open(name, config, true, &quiet())
}

fn open_lens(name: &str, config: &Config) -> Result<FittedLens, Error> {
    FittedLens::open(name, config, true, &quiet())
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn plain() -> Arc<Model> {
    let source = Source::Path(fixtures().join("tiny/plain"));
    Arc::new(Model::load(&source, &LoadOptions::default(), &quiet()).unwrap())
}

fn expected() -> std::collections::HashMap<String, Tensor> {
    candle_core::safetensors::load(fixtures().join("dictionaries.safetensors"), &Device::Cpu).unwrap()
}

/// A fixture as `--dictionary` names it.
fn named(name: &str, hook: &str) -> String {
    let path = fixtures().join("dictionaries").join(name);
    let path = if path.is_dir() { path } else { path.with_extension("pt") };
    format!("{hook}{}", path.display())
}

fn values(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

/// Within 2e-5 of the largest value, or of 1.
fn assert_close(what: &str, got: &Tensor, want: &Tensor) {
    assert_eq!(got.dims(), want.dims(), "{what}");
    let want = values(want);
    let most = want.iter().fold(1f32, |most, x| most.max(x.abs()));
    for (i, (got, want)) in values(got).iter().zip(&want).enumerate() {
        assert!((got - want).abs() <= 2e-5 * most, "{what}: {got} instead of {want} at {i}");
    }
}

#[test]
fn every_dictionary_gives_what_its_package_gives() {
    let (model, expected) = (plain(), expected());
    let run = Run::all(&model, Input::ids(IDS.to_vec())).unwrap();
    let all = ALL.into_iter().chain([("sparsify/h.1.mlp", "")]);
    let mut n = 0;
    for (name, hook) in all {
        let dictionary = open(&named(name, hook), model.config()).unwrap();
        let x = run.tensor(dictionary.reads).unwrap();
        let features = dictionary.encode(&x).unwrap();
        let decoded = dictionary.decode(&features).unwrap();
        let want = |what: &str| &expected[&format!("{name}.{what}")];
        assert_close(&format!("{name}.features"), &features.to_dense().unwrap(), want("features"));
        assert_close(&format!("{name}.reconstruction"), &decoded, want("reconstruction"));
        // In place of the activation.
        let splice = Edit(dictionary.writes, |x: &Tensor| Ok(decoded.reshape(x.dims())?));
        let keep = HookFilter::new(&["logits"], model.config()).unwrap();
        let spliced = Run::new(&model, Input::ids(IDS.to_vec()), keep, splice).unwrap();
        assert_close(
            &format!("{name}.logits"),
            &spliced.tensor(Site::Logits.once()).unwrap(),
            want("logits"),
        );
        n += 3;
    }
    // And nothing is left out.
    assert_eq!(n, expected.keys().filter(|name| !name.contains("_lens") && !name.contains('|')).count());
}

/// By name, from a run, whole and in parts.
#[test]
fn what_dictionaries_make_are_tensors_with_names() {
    let source = Source::Path(fixtures().join("tiny/plain"));
    let expected = expected();
    for (name, hook, full) in [
        ("standard", "", "blocks.1.hook_resid_pre"),
        ("standard_z", "", "blocks.1.attn.hook_z"),
        ("transcoder_skip", "", "blocks.1.hook_mlp_out"),
        ("openai", "resid_post.1=", "blocks.1.hook_resid_post"),
    ] {
        let options = LoadOptions { dictionaries: vec![named(name, hook)], ..LoadOptions::default() };
        let model = Arc::new(Model::load(&source, &options, &quiet()).unwrap());
        let names = model.choose(&["*.features", "*.reconstruction", "*.error"]).unwrap();
        let said: Vec<_> = names.iter().map(ToString::to_string).collect();
        assert_eq!(said, ["features", "reconstruction", "error"].map(|made| format!("{full}.{made}")));
        let run = Run::new(&model, Input::ids(IDS.to_vec()), model.needed_for(&names), ()).unwrap();
        let whole: Vec<_> = names.iter().map(|name| run.part(*name, &Part::default()).unwrap()).collect();
        assert_close(name, &whole[0], &expected[&format!("{name}.features")]);
        assert_eq!(whole[0].dims(), names[0].shape(model.config(), 9));
        let x = run.tensor(names[0].hook).unwrap();
        for one in &whole[1..] {
            assert_eq!(one.dims(), x.dims());
        }
        assert_close(name, &whole[1].flatten_from(1).unwrap(), &expected[&format!("{name}.reconstruction")]);
        assert_close(name, &(&whole[1] + &whole[2]).unwrap(), &x);
        for (one, whole) in names.iter().zip(&whole) {
            let rows = run.part(*one, &Part::rows(2..5)).unwrap();
            assert_eq!(values(&rows), values(&whole.narrow(0, 2, 3).unwrap()));
            if one.has_heads() {
                let head = run.part(*one, &Part::head(1)).unwrap();
                assert_eq!(values(&head), values(&whole.narrow(1, 1, 1).unwrap()));
            }
            assert_eq!(model.find(&one.short()).unwrap(), *one);
        }
        // They need a pattern of their own, and a dictionary.
        assert!(model.choose(&["*"]).unwrap().iter().all(|name| name.made.is_none()));
        let other = plain().choose(&[said[0].as_str()]).unwrap_err();
        assert_eq!(other.exit_code(), 2, "{other}");
        // What is largest in them is found.
        let all = Run::all(&model, Input::ids(IDS.to_vec())).unwrap();
        let found = Found::new(&all, |_, _| Ok(())).unwrap();
        for (one, whole) in names.iter().zip(&whole) {
            let most = values(whole).into_iter().fold(0f32, |most, x| most.max(x.abs()));
            let extreme = found.values.iter().find(|x| x.name == *one).unwrap();
            assert_eq!(extreme.value.abs(), most, "{one}");
        }
    }
}

#[test]
fn fitted_lenses_give_what_their_packages_give() {
    let (model, expected) = (plain(), expected());
    let run = Run::all(&model, Input::ids(IDS.to_vec())).unwrap();
    for (name, site, path) in [
        ("tuned_lens", Site::ResidPre, "tuned_lens"),
        ("tuned_lens", Site::ResidPre, "tuned_lens/params.pt"),
        ("jacobian_lens", Site::ResidPost, "jacobian_lens.pt"),
    ] {
        let path = fixtures().join("dictionaries").join(path);
        let lens = open_lens(path.to_str().unwrap(), model.config()).unwrap();
        let want = &expected[&format!("{name}.logits")];
        for layer in 0..model.config().n_layer {
            let hook = site.at(layer);
            let moved = lens.translate(hook, &run.tensor(hook).unwrap()).unwrap();
            let logits = model.net.unembed(&moved).unwrap();
            assert_close(&format!("{name}, layer {layer}"), &logits, &want.get(layer).unwrap());
        }
        let last = Site::ResidPost.at(2);
        assert_eq!(*lens.hooks(model.config()).last().unwrap(), last);
        let x = run.tensor(last).unwrap();
        assert_eq!(values(&lens.translate(last, &x).unwrap()), values(&x));
    }
}

/// One position after the other, several at once, and as part of a longer prompt.
#[test]
fn a_position_is_encoded_by_itself() {
    let model = plain();
    let run = Run::all(&model, Input::ids(IDS.to_vec())).unwrap();
    for (name, hook) in ALL {
        let dictionary = open(&named(name, hook), model.config()).unwrap();
        let x = run.tensor(dictionary.reads).unwrap();
        let all = dictionary.encode(&x).unwrap();
        let close = |a: &[(u32, f32)], b: &[(u32, f32)]| {
            a.len() == b.len()
                && a.iter().zip(b).all(|(a, b)| a.0 == b.0 && (a.1 - b.1).abs() < 1e-5 * b.1.max(1.0))
        };
        for at in 0..IDS.len() {
            let one = dictionary.encode(&x.narrow(0, at, 1).unwrap()).unwrap();
            assert!(close(&one.rows[0], &all.rows[at]), "{name} at {at}");
        }
        let shorter = Run::all(&model, Input::ids(IDS[..5].to_vec())).unwrap();
        let shorter = dictionary.encode(&shorter.tensor(dictionary.reads).unwrap()).unwrap();
        assert!(shorter.rows.iter().zip(&all.rows).all(|(a, b)| close(a, b)), "{name}");
    }
}

/// What is set on features is what is decoded, and a change that changes nothing is none.
#[test]
fn features_can_be_set() {
    let model = plain();
    let run = Run::all(&model, Input::ids(IDS.to_vec())).unwrap();
    let dictionary = open(&named("standard", ""), model.config()).unwrap();
    let features = dictionary.encode(&run.tensor(dictionary.reads).unwrap()).unwrap();
    let (feature, was) = features.strongest(3)[0];
    let decoded = |features: &Features| dictionary.decode(features).unwrap().to_vec2::<f32>().unwrap();
    let before = decoded(&features);
    let mut set = features.clone();
    set.set(feature, Some(3), |_| was + 2.0);
    let after = decoded(&set);
    for (c, direction) in dictionary.direction(feature).unwrap().into_iter().enumerate() {
        assert!((after[3][c] - before[3][c] - 2.0 * direction).abs() < 1e-5);
        assert_eq!(after[4][c], before[4][c]);
    }
    let mut off = features.clone();
    off.set(feature, None, |_| 0.0);
    assert!(off.of(feature).iter().all(|x| *x == 0.0));
    off.set(feature, None, |x| x);
    assert!(off.rows.iter().flatten().all(|(i, _)| *i != feature));
    let mut same = features.clone();
    same.set(feature, None, |x| x);
    assert_eq!(same, features);
}

#[test]
fn the_fit_is_that_of_the_reconstruction() {
    let model = plain();
    let run = Run::all(&model, Input::ids(IDS.to_vec())).unwrap();
    let dictionary = open(&named("standard", ""), model.config()).unwrap();
    let x = run.tensor(dictionary.reads).unwrap();
    let features = dictionary.encode(&x).unwrap();
    let fit = dictionary.fit(&features, &x).unwrap();
    let (x, y) = (x.narrow(0, 1, 8).unwrap(), dictionary.decode(&features).unwrap().narrow(0, 1, 8).unwrap());
    let sum = |x: Tensor| x.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
    let explained =
        1.0 - sum((&x - &y).unwrap()) / sum(x.broadcast_sub(&x.mean_keepdim(0).unwrap()).unwrap());
    assert!((fit.explained - f64::from(explained)).abs() < 1e-3 * fit.explained.abs().max(1.0));
    let dense = features.to_dense().unwrap().to_vec2::<f32>().unwrap();
    let n_active = dense[1..].iter().flatten().filter(|x| **x > 0.0).count();
    assert!((fit.l0 - n_active as f64 / 8.0).abs() < 1e-9);
    let silent = (0..dictionary.n).filter(|i| dense.iter().all(|row| row[*i] == 0.0)).count();
    assert_eq!(fit.n_silent, silent);
}

/// A fixture with another `cfg.json`.
fn with_cfg(name: &str, change: impl Fn(&mut serde_json::Value)) -> (tempfile::TempDir, String) {
    let place = tempfile::tempdir().unwrap();
    let from = fixtures().join("dictionaries").join(name);
    for file in fs::read_dir(&from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), place.path().join(file.file_name())).unwrap();
    }
    let path = place.path().join("cfg.json");
    let mut cfg = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut cfg);
    fs::write(&path, cfg.to_string()).unwrap();
    let name = place.path().to_str().unwrap().to_owned();
    (place, name)
}

#[test]
fn dictionaries_that_do_not_fit_are_refused_with_the_reason() {
    let model = plain();
    let refused = |name: &str, config: &Config| match open(name, config) {
        Err(error) => {
            assert!(matches!(error, Error::File { .. }), "{error:?}");
            error.to_string()
        }
        Ok(_) => panic!("{name} is opened"),
    };
    let config = model.config();
    let demo = Model::demo();
    let said = refused(&named("standard", ""), demo.config());
    assert!(said.contains("is for 48 channels, but blocks.1.hook_resid_pre of this model has 192"), "{said}");
    for (key, value, reason) in [
        ("architecture", "temporal".into(), "the architecture `temporal`"),
        ("normalize_activations", "expected_average_only_in".into(), "a number that is not in the file"),
        (
            "normalize_activations",
            "covariance_whitening".into(),
            "\"covariance_whitening\", which is not known",
        ),
        ("activation_fn", "tanh-relu".into(), "the activation `tanh-relu`"),
        ("hook_head_index", 3.into(), "for one head alone"),
        ("d_sae", 4_000_000_000_u64.into(), "has 40 where its cfg.json says d_sae is 4000000000"),
        ("d_in", 3.into(), "has 48 where its cfg.json says d_in is 3"),
        ("hook_name", serde_json::Value::Null, "names no hook"),
        ("hook_name", "blocks.9.hook_resid_pre".into(), "blocks.9.hook_resid_pre"),
        ("hook_name", "blocks.1.attn.hook_pattern".into(), "no row for each position"),
    ] {
        let change = |cfg: &mut serde_json::Value| {
            cfg["metadata"][key] = value.clone();
            cfg[key] = value.clone();
        };
        let (_place, name) = with_cfg("standard", change);
        let said = refused(&name, config);
        assert!(said.contains(reason), "{said}");
    }
    for k in [0, 41, u64::MAX] {
        let (_place, name) = with_cfg("topk", |cfg| cfg["k"] = k.into());
        let said = refused(&name, config);
        assert!(said.contains(&format!("keeps the {k} largest of 40 features")), "{said}");
    }
    let said = refused(&named("openai", ""), config);
    assert!(said.contains("put the hook before it"), "{said}");
    let said = refused("/nowhere/at/all", config);
    assert!(said.contains("does not exist"), "{said}");
    let place = tempfile::tempdir().unwrap();
    assert!(refused(place.path().to_str().unwrap(), config).contains("holds no dictionary"));
    let lens = fixtures().join("dictionaries/tuned_lens");
    let said = open_lens(lens.to_str().unwrap(), demo.config()).unwrap_err().to_string();
    assert!(said.contains("is a tuned lens of 3 blocks"), "{said}");
}

/// The activations of sets that are known to be of centred weights are centred, and it is said.
#[test]
fn what_a_known_set_expects_is_done() {
    let model = plain();
    let run = Run::all(&model, Input::ids(IDS.to_vec())).unwrap();
    let (_place, name) = with_cfg("standard", |cfg| {
        cfg["metadata"]["model_from_pretrained_kwargs"] = serde_json::json!({"center_writing_weights": true});
    });
    let dictionary = open(&name, model.config()).unwrap();
    assert!(dictionary.notes.iter().any(|note| note.contains("centred weights")), "{:?}", dictionary.notes);
    let x = run.tensor(dictionary.reads).unwrap();
    let mean = x.mean_keepdim(1).unwrap();
    let centred = x.broadcast_sub(&mean).unwrap();
    let as_it_is = open(&named("standard", ""), model.config()).unwrap();
    let (of, want) = (dictionary.encode(&x).unwrap(), as_it_is.encode(&centred).unwrap());
    assert_close("features", &of.to_dense().unwrap(), &want.to_dense().unwrap());
    let want = as_it_is.decode(&want).unwrap().broadcast_add(&mean).unwrap();
    assert_close("reconstruction", &dictionary.decode(&of).unwrap(), &want);
}

fn config_of(map: &BTreeMap<String, serde_json::Value>) -> String {
    serde_json::to_string(map).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Whatever the files say, they are opened or refused in a sentence.
    #[test]
    fn files_that_lie_are_refused(
        keys in proptest::collection::btree_map(
            prop_oneof![
                Just("architecture".to_owned()), Just("hook_name".to_owned()), Just("k".to_owned()),
                Just("metadata".to_owned()), Just("normalize_activations".to_owned()), "[a-z_]{1,12}",
            ],
            prop_oneof![
                Just(serde_json::Value::Null), any::<i64>().prop_map(Into::into), any::<bool>().prop_map(Into::into),
                "[a-z._0-9]{0,12}".prop_map(Into::into), Just(serde_json::json!({"hook_name": "blocks.1.hook_resid_pre"})),
                Just("topk".into()), Just("blocks.0.hook_mlp_out".into()),
            ],
            0..6,
        ),
        cut in 0usize..20_000,
        flips in proptest::collection::vec((0usize..20_000, any::<u8>()), 0..4),
        which in 0usize..3,
    ) {
        let place = tempfile::tempdir().unwrap();
        let source = fixtures().join("dictionaries/gated/sae_weights.safetensors");
        let mut bytes = fs::read(if which == 2 { fixtures().join("dictionaries/openai_topk.pt") } else { source }).unwrap();
        for (at, byte) in flips {
            let n = bytes.len();
            bytes[at % n] = byte;
        }
        if cut < bytes.len() / 2 {
            bytes.truncate(cut);
        }
        let config = Model::demo().config().clone();
        let path = if which == 2 {
            let file = place.path().join("a.pt");
            fs::write(&file, &bytes).unwrap();
            format!("resid_pre.1={}", file.display())
        } else {
            fs::write(place.path().join("cfg.json"), config_of(&keys)).unwrap();
            let name = if which == 0 { "sae_weights.safetensors" } else { "sae.safetensors" };
            fs::write(place.path().join(name), &bytes).unwrap();
            place.path().to_str().unwrap().to_owned()
        };
        let said = match open(&path, &config) {
            Ok(_) => panic!("it has another width"),
            Err(error) => error.to_string(),
        };
        prop_assert!(!said.contains('\n') && said.len() < 1000, "{said}");
        let _ = open_lens(&path, &config);
    }
}

/// Changes of features against the same in torch: the rest of the activation stays, or is spliced out.
#[test]
fn changes_of_features_do_what_they_say() {
    let expected = expected();
    let mut n = 0;
    for (name, want) in expected.iter().filter(|(name, _)| name.contains('|')) {
        let (dictionary, changes) = name.trim_end_matches(".logits").split_once('|').unwrap();
        let source = Source::Path(fixtures().join("tiny/plain"));
        let options = LoadOptions { dictionaries: vec![named(dictionary, "")], ..LoadOptions::default() };
        let model = Arc::new(Model::load(&source, &options, &quiet()).unwrap());
        let changes: Vec<Change> = changes.split("; ").map(|text| text.parse().unwrap()).collect();
        for (change, text) in changes.iter().zip(name.split_once('|').unwrap().1.split("; ")) {
            assert_eq!(change.to_string(), text.trim_end_matches(".logits"));
        }
        let input = Input::ids(IDS.to_vec());
        let run =
            Run::all(&model, input.clone().with_interventions(changes.iter().cloned().collect())).unwrap();
        assert_close(name, &run.tensor(Site::Logits.once()).unwrap(), want);
        // The same from a run without changes, and from one with them.
        let keep = HookFilter::all(model.config());
        let again =
            Run::all(&model, input.clone()).unwrap().then(run.input.clone(), keep.clone(), ()).unwrap();
        assert_close(name, &again.tensor(Site::Logits.once()).unwrap(), want);
        let shorter = Input::ids(IDS[..6].to_vec()).with_interventions(run.input.interventions.clone());
        if run.input.interventions.is_causal() {
            let longer = Run::all(&model, shorter).unwrap().then(run.input.clone(), keep, ()).unwrap();
            assert_close(name, &longer.tensor(Site::Logits.once()).unwrap(), want);
        }
        n += 1;
    }
    assert_eq!(n, 16);
}

#[test]
fn features_that_there_are_not_cannot_be_changed() {
    let source = Source::Path(fixtures().join("tiny/plain"));
    let options = LoadOptions { dictionaries: vec![named("standard", "")], ..LoadOptions::default() };
    let model = Arc::new(Model::load(&source, &options, &quiet()).unwrap());
    for (change, reason) in [
        ("zero feature:1.resid_pre/40", "feature 40 is out of range"),
        ("zero feature:2.resid_pre/4", "no dictionary of blocks.2.hook_resid_pre was given"),
        ("splice mlp:1", "no dictionary of blocks.1.hook_mlp_out was given"),
        ("splice head:1.2", "a whole tensor is spliced"),
        ("add feature:1.resid_pre/4:1-2", "can be set, scaled, ablated, or added to"),
        ("patch feature:1.resid_pre/4 from 1,2,3", "can be set, scaled, ablated, or added to"),
        ("zero feature:9.resid_pre/4", "layer 9"),
        ("zero feature:1.pattern/4", "edge by edge"),
    ] {
        let change: Change = change.parse().unwrap();
        let input = Input::ids(IDS.to_vec()).with_interventions([change].into_iter().collect());
        let said = Run::all(&model, input).unwrap_err().to_string();
        assert!(said.contains(reason), "{said}");
    }
    let steer = Change::Steer(Target::Tensor(Site::ResidPre.at(1)).everywhere(), 1.0);
    let said = steer.check(model.config(), IDS.len()).unwrap_err().to_string();
    assert!(said.contains("only a feature has a direction"), "{said}");
    for text in
        ["zero feature:1.resid_pre", "zero feature:1/2", "set head:1.2", "add feature:1.resid_pre/4=x"]
    {
        assert!(text.parse::<Change>().is_err(), "{text}");
    }
}

/// Ten features of the demo model that a person has named are active where their names say, and far less elsewhere.
#[test]
fn the_features_of_the_demo_model_do_what_their_labels_say() {
    let model = Arc::new(Model::demo());
    let dictionary = &model.dictionaries()[0];
    assert_eq!(dictionary.reads, Site::ResidPre.at(2));
    let labels = &dictionary.labels;
    let features = |text: &str| {
        let input = Input::text(text).with_bos(true);
        let run = Run::new(&model, input, HookFilter::of([dictionary.reads]), ()).unwrap();
        dictionary.encode(&run.tensor(dictionary.reads).unwrap()).unwrap()
    };
    let most = |features: &Features, feature| {
        let all = features.of(feature);
        let at = (1..all.len()).max_by(|a, b| all[*a].total_cmp(&all[*b])).unwrap();
        (at, all[at])
    };
    let neutral =
        features("The boat lay on the beach, and the wind was cold. A dog barked far off in the woods.");
    // Its largest value is at this position (BOS is 0).
    for (feature, word, text, position) in [
        (616, "year", "In the year 1848", 7),
        (858, "date", "In the year 1848", 5),
        (257, "capital", "VERY GOOD", 2),
        (210, "closing quotation", "\"I will go,\" she said", 5),
        (683, "closing single", "'I will go,' she said", 5),
        (89, "they", "It was dark. They were late.", 5),
        (882, "make", "He made a chair", 2),
        (655, "general", "I saw a general and his men", 4),
        (252, "Jane", "My dear Jane came", 4),
        (60, "inf", "I think the infinite sea", 4),
        (545, "surface", "It was on the surface of it", 5),
    ] {
        let label = labels.get(feature).unwrap();
        assert!(label.contains(word), "{label}");
        let (at, value) = most(&features(text), feature);
        assert!(at.abs_diff(position) <= 1, "{label}: largest at {at}");
        let (_, elsewhere) = most(&neutral, feature);
        assert!(value > 2.0 * elsewhere && value > 15.0, "{label}: {value}, elsewhere {elsewhere}");
    }
}

/// What the model card says of the built-in dictionaries and lenses, on a text that none was fitted to.
#[test]
fn the_demo_models_own_dictionaries_and_lenses_fit_it() {
    let model = Arc::new(Model::demo());
    assert_eq!(model.dictionaries().len(), 2);
    let text = "The old man went down to the harbour, where the boats lay. He had not slept, and his hands were cold; but \
                when he saw the water he thought of nothing else. \"Shall we go?\" said the boy. \"Not yet,\" said he.";
    let input = Input::text(text).with_bos(true);
    let run = Run::all(&model, input).unwrap();
    for dictionary in model.dictionaries() {
        assert_eq!((dictionary.n, dictionary.expects_bos), (896, Some(true)));
        let (features, fit) = features::read(&run, dictionary).unwrap();
        assert!((10.0..25.0).contains(&fit.l0) && fit.explained > 0.75, "{fit:?}");
        let cost = features::splice(&run, dictionary, &features).unwrap();
        assert!(cost.bits_spliced - cost.bits < 1.0, "{cost:?}");
    }
    let n = run.n_tokens();
    let mean_kl =
        |lens: &Lens, hook| (1..n).map(|at| lens.get(hook, at).unwrap().kl).sum::<f32>() / (n - 1) as f32;
    let hooks: Vec<_> = (0..4).map(|layer| Site::ResidPre.at(layer)).collect();
    let logit = Lens::new(&run, &hooks, 0..n, None, 1).unwrap();
    let [tuned, jacobian] = model.lenses() else { panic!("two lenses") };
    assert_eq!([tuned.kind, jacobian.kind], [Kind::Tuned, Kind::Jacobian]);
    let through = |lens| Lens::through(&run, None, Some(lens), 0..n, None, 1).unwrap().of;
    let tuned = through(tuned);
    for hook in hooks {
        assert!(mean_kl(&tuned, hook) < 0.6 * mean_kl(&logit, hook), "{hook}");
    }
    let jacobian = through(jacobian);
    assert!(mean_kl(&jacobian, Site::ResidPost.at(2)) < 2.0);
}

#[test]
fn labels_are_read_in_both_forms() {
    let model = plain();
    let dictionary = open(&named("standard", ""), model.config()).unwrap();
    let lines = "{\"modelId\":\"gpt2-small\",\"layer\":\"1-res-jb\",\"index\":\"7\",\"description\":\"seven\"}\n\n\
                 {\"layer\":\"2-res-jb\",\"index\":\"7\",\"description\":\"of another block\"}\n\
                 {\"layer\":\"1-res-jb\",\"index\":8,\"description\":\"eight\"}\n";
    let labels = Labels::parse(lines, &dictionary).unwrap();
    assert_eq!((labels.get(7), labels.get(8), labels.get(9)), (Some("seven"), Some("eight"), None));
    let labels = Labels::parse("feature,label\n3,\"three, or so\"\n4\tfour\n", &dictionary).unwrap();
    assert_eq!((labels.get(3), labels.get(4)), (Some("three, or so"), Some("four")));
    for (text, reason) in [
        ("{", "line 1: not JSON"),
        ("1,a\nb,c", "line 2: the first column is no feature"),
        ("1,a\n\nnothing", "line 3: neither JSON"),
        ("40,a", "line 1: the dictionary has 40 features"),
        ("{\"index\":1}", "line 1: no description"),
    ] {
        let said = Labels::parse(text, &dictionary).unwrap_err();
        assert!(said.contains(reason), "{said}");
    }
}

/// A list of labels belongs to the dictionaries that are given with it.
#[test]
fn labels_come_with_their_dictionaries() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("labels.jsonl");
    let load = |text: &str| {
        fs::write(&path, text).unwrap();
        let dictionaries = vec![named("standard", ""), named("topk_rescaled", "")];
        let options = LoadOptions { dictionaries, labels: Some(path.clone()), ..LoadOptions::default() };
        Model::load(&Source::Path(fixtures().join("tiny/plain")), &options, &quiet())
            .map_err(|e| e.to_string())
    };
    let model = load("{\"layer\":\"1-res\",\"index\":7,\"description\":\"seven\"}").unwrap();
    let labels: Vec<_> = model.dictionaries().iter().map(|one| one.labels.get(7)).collect();
    assert_eq!(labels, [Some("seven"), None]);
    let said = load("{\"layer\":\"0-res\",\"index\":7,\"description\":\"seven\"}").unwrap_err();
    assert!(said.contains("no label for any dictionary"), "{said}");
    assert!(load("7").unwrap_err().contains("labels.jsonl: line 1: neither JSON"));
}

/// By the definition, in float64, of one feature after the other.
#[test]
fn effects_are_what_is_written_through_the_final_layernorm() {
    let source = Source::Path(fixtures().join("tiny/plain"));
    for (name, hook) in [
        ("standard", ""),
        ("standard_layer_norm", ""),
        ("topk_rescaled", ""),
        ("standard_z", ""),
        ("transcoder_skip", ""),
        ("openai", "resid_post.1="),
    ] {
        let options = LoadOptions { dictionaries: vec![named(name, hook)], ..LoadOptions::default() };
        let model = Arc::new(Model::load(&source, &options, &quiet()).unwrap());
        let run = Run::all(&model, Input::ids(IDS.to_vec())).unwrap();
        let (of, net, position) = (&model.dictionaries()[0], &model.net, 4);
        let (features, _) = features::read(&run, of).unwrap();
        let f64s =
            |x: &Tensor| x.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1::<f64>().unwrap();
        let (w, scale) =
            (f64s(&net.ln_f.weight), f64s(&run.tensor(Site::LnFinalScale.once()).unwrap())[position]);
        let [a, b] = [7, 90].map(|id| f64s(&net.unembed.rows(&[id]).unwrap()));
        let logit = |written: &[f64]| -> f64 {
            let mean = written.iter().sum::<f64>() / written.len() as f64;
            (0..w.len()).map(|i| (written[i] - mean) / scale * w[i] * (a[i] - b[i])).sum()
        };
        // What each feature adds to the reconstruction, through W_O where it is of heads.
        let without = |feature: u32| {
            let mut others = features.clone();
            others.set(feature, Some(position), |_| 0.0);
            let decoded =
                [&features, &others].map(|one| f64s(&of.decode(one).unwrap().get(position).unwrap()));
            let written: Vec<f64> = decoded[0].iter().zip(&decoded[1]).map(|(a, b)| a - b).collect();
            if of.writes.site != Site::Z {
                return written;
            }
            let w_o = net.blocks[of.writes.layer.unwrap()].attn_proj.weight().unwrap();
            let row = Tensor::from_vec(written, (1, ()), &Device::Cpu).unwrap();
            f64s(&row.matmul(&w_o.to_dtype(DType::F64).unwrap()).unwrap())
        };
        let asked = Asked { position: Some(position), around: (None, 3), token: Some(7), versus: Some(90) };
        let listed = Listed::new(&run, of, &features, &asked).unwrap();
        assert!(listed.n_active > 1, "{name}");
        let mut sum = 0.0;
        for one in &listed.list {
            let (got, want) = (one.effect.unwrap(), logit(&without(one.feature)));
            assert!((got - want).abs() < 2e-5 * want.abs().max(1.0), "{name}: {got}, {want} expected");
            sum += got;
        }
        let effects = listed.effects.unwrap();
        assert!((effects.features - sum).abs() < 1e-6 * sum.abs().max(1.0), "{name}");
        // The page says the same.
        let one = &listed.list[0];
        let page = Page::new(&run, (of, &features), (one.feature, position), (Some(7), Some(90))).unwrap();
        assert_eq!((page.of.effect, page.of.share, page.effects), (one.effect, one.share, listed.effects));
        assert_eq!(page.of.promotes[..5], one.promotes);
        assert_eq!(page.nearest.len(), 40.min(of.n - 1));
    }
}

/// Wherever both read the same stream, though one calls it by what leaves a block and the other by what enters the next.
#[test]
fn the_difference_of_two_lenses_is_that_of_their_readings() {
    let model = Arc::new(Model::demo());
    let run = Run::all(&model, Input::text("It was in the year 1848 that they")).unwrap();
    let n = run.n_tokens();
    let [tuned, jacobian] = model.lenses() else { panic!("two lenses") };
    let through = |lens| Lens::through(&run, None, lens, 0..n, None, 3).unwrap().of;
    let alone = [None, Some(tuned), Some(jacobian)].map(through);
    for (i, lens) in [None, Some(tuned), Some(jacobian)].into_iter().enumerate() {
        for (j, other) in [None, Some(tuned), Some(jacobian)].into_iter().enumerate() {
            let both = Lens::between(&run, (lens, other), 0..n, None, 3).unwrap();
            assert_eq!(both.of, alone[i]);
            let base = both.base.as_ref().unwrap();
            assert_eq!((&base.hooks, base.through), (&both.of.hooks, alone[j].through));
            for reading in &base.readings {
                // The other lens by its own name of the stream, if it reads that.
                let (site, layer) = (reading.hook.site, reading.hook.layer.unwrap());
                let own = match (site, alone[j].hooks.contains(&reading.hook)) {
                    (_, true) => reading.hook,
                    (Site::ResidPre, false) if layer > 0 => Site::ResidPost.at(layer - 1),
                    (Site::ResidPost, false) => Site::ResidPre.at(layer + 1),
                    _ => continue,
                };
                let want = alone[j].get(own, reading.position).unwrap();
                assert_eq!((&reading.top, reading.kl), (&want.top, want.kl), "{own}");
            }
            let chart = both.chart(&run, Show::Kl, true);
            let (a, b) = (both.of.readings[4].kl, base.readings[4].kl);
            assert_eq!(chart.values.row(4 / n)[4 % n], a - b);
            assert!(chart.title.contains(" lens − "), "{}", chart.title);
        }
    }
}
