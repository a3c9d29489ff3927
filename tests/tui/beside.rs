//! Another program's activations on the screen Compare.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use actscope::engine::{Beside, saved};
use actscope::export::{self, Destination, Export, Format, Words};
use actscope::foreign::Mapping;
use actscope::foreign::check::Options;
use actscope::foreign::names::Dialect;
use actscope::hooks::{HookFilter, Site};
use actscope::interventions::Change;
use actscope::tui::app::Screen;
use actscope::tui::screens::compare;
use actscope::tui::theme::Theme;
use actscope::{Input, Model, Run};
use candle_core::Tensor;

use super::harness::{Explorer, assert_snapshot};
use super::{LARGE, SMALL};

const PROMPT: &str = "The old man said to the young man";

/// What a run with these changes is, in the words of a program, without what says so.
fn file(changes: &[&str], hooks: &[&str], place: &tempfile::TempDir) -> Beside {
    let model = Arc::new(Model::demo());
    let changes = changes.iter().map(|change| change.parse::<Change>().unwrap()).collect();
    let keep = HookFilter::new(hooks, model.config()).unwrap();
    let run = Run::new(&model, Input::text(PROMPT).with_interventions(changes), keep, ()).unwrap();
    let tensors: BTreeMap<String, Tensor> = run.cache.iter().map(|(hook, x)| (hook.to_string(), x)).collect();
    let path = place.path().join("mine.safetensors");
    candle_core::safetensors::save(&tensors.into_iter().collect(), &path).unwrap();
    Beside { path, hook: None, mapping: Mapping::default(), options: Options::default() }
}

fn explorer(beside: Beside, size: (u16, u16)) -> Explorer {
    let mut e = Explorer::new(PROMPT, size, Theme::default());
    compare::beside(&mut e.app, beside);
    e.keys("home"); // what follows from the new file is asked for with the next message
    e
}

#[test]
fn it_starts_at_the_first_tensor_that_is_off() {
    let place = tempfile::tempdir().unwrap();
    for (size, name) in [(LARGE, "160x48"), (SMALL, "80x24")] {
        let mut e = explorer(file(&["scale mlp:1@3=0.5"], &["*"], &place), size);
        assert_eq!((e.app.screen, e.app.selection.hook), (Screen::Compare, Site::MlpOut.at(1)));
        assert_eq!(e.app.selection.position, 3);
        assert!(
            e.shows("the first that is off in mine.safetensors is blocks.1.hook_mlp_out"),
            "{}",
            e.lines().join("\n")
        );
        assert_snapshot(&format!("beside_{name}"), &e);
        // Mine, then reference, then the difference again.
        e.keys("s");
        assert!(e.shows("reference of blocks.1.hook_mlp_out"), "{}", e.lines().join("\n"));
        e.keys("s");
        assert!(e.shows("mine of blocks.1.hook_mlp_out"), "{}", e.lines().join("\n"));
        e.keys("s");
        assert!(e.shows("reference − mine of blocks.1.hook_mlp_out"), "{}", e.lines().join("\n"));
    }
}

#[test]
fn what_is_not_in_the_file_is_said_and_not_made_up() {
    let place = tempfile::tempdir().unwrap();
    let mut e = explorer(file(&[], &["attn_scores.1", "resid_post.*"], &place), LARGE);
    assert!(e.shows("all of mine.safetensors is within 1e-4 of the reference"), "{}", e.lines().join("\n"));
    // It could be derived from their scores, but is not theirs.
    e.keys("/").text("pattern.1").keys("enter");
    assert!(e.shows("mine.safetensors has no blocks.1.attn.hook_pattern"), "{}", e.lines().join("\n"));
    e.keys("s");
    assert!(e.shows("reference of blocks.1.attn.hook_pattern"), "{}", e.lines().join("\n"));
    e.keys("s /").text("resid_post.2").keys("enter");
    assert!(e.shows("mine of blocks.2.hook_resid_post"), "{}", e.lines().join("\n"));
    // What needs a prompt says so.
    for key in ["a", "N"] {
        e.keys("esc");
        e.keys(key);
        assert!(e.shows("B is a file"), "{key}: {}", e.lines().join("\n"));
    }
    // A prompt B takes its place.
    e.keys("n").text("The young man").keys("esc");
    assert!(
        e.shows("A − B of blocks.2.hook_resid_post") || e.shows("B of blocks.2"),
        "{}",
        e.lines().join("\n")
    );
}

/// What another program did not mask is not hidden under our mask.
#[test]
fn a_missing_mask_is_seen() {
    let place = tempfile::tempdir().unwrap();
    let beside = file(&[], &["pattern.1"], &place);
    let masked = explorer(beside.clone(), LARGE);
    assert!(masked.shows("masked: the future"), "{}", masked.lines().join("\n"));
    let name = "blocks.1.attn.hook_pattern";
    let x = candle_core::safetensors::load(&beside.path, &candle_core::Device::Cpu).unwrap();
    let all = (x[name].ones_like().unwrap() / 8.0).unwrap();
    candle_core::safetensors::save(&std::collections::HashMap::from([(name, all)]), &beside.path).unwrap();
    let e = explorer(beside, LARGE);
    assert!(e.shows("reference − mine") && !e.shows("masked: the future"), "{}", e.lines().join("\n"));
}

#[test]
fn a_file_of_another_prompt_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let model = Arc::new(Model::demo());
    let run = Run::all(&model, Input::text("Something else")).unwrap();
    let path = place.path().join("other.npz");
    let words = Words { dialect: Some(Dialect::Llmc), batch: false };
    let names: Vec<_> = run.cache.names().into_iter().map(Into::into).collect();
    let export = Export::of(&run, &names, words, None, Format::Npz).unwrap();
    export.write(Destination::new(&path).prepare().unwrap()).unwrap();
    let beside =
        Beside { path: path.clone(), hook: None, mapping: Mapping::default(), options: Options::default() };
    let e = explorer(beside.clone(), LARGE);
    assert!(e.shows("is of another prompt"), "{}", e.lines().join("\n"));
    // llm.c's layout, of its own prompt.
    let mut e = Explorer::new("Something else", LARGE, Theme::default());
    compare::beside(&mut e.app, beside.clone());
    e.keys("home");
    assert!(e.shows("all of other.npz is within"), "{}", e.lines().join("\n"));
    fs::write(&path, "nonsense").unwrap();
    let e = explorer(beside, LARGE);
    assert!(e.shows("is no .npz file") && e.shows("could not be compared"), "{}", e.lines().join("\n"));
}

/// What needs only tensors works, with the same numbers; what needs weights says so, and makes nothing up.
#[test]
fn a_saved_run_is_walked_without_its_model() {
    let place = tempfile::tempdir().unwrap();
    let model = Arc::new(Model::demo());
    let run = Run::all(&model, Input::text(PROMPT).with_bos(true)).unwrap();
    for (name, format) in [("run.safetensors", Format::Safetensors), ("run.npz", Format::Npz)] {
        let path = place.path().join(name);
        export::write(&run, None, format, Destination::new(&path).prepare().unwrap()).unwrap();
        let saved = saved::open(&path).unwrap().unwrap();
        assert!(saved.model.is_absent() && saved.input.bos && saved.tokens == run.tokens);
        assert_eq!(saved.cache.names(), run.cache.names());
        for (hook, x) in run.cache.iter() {
            let [a, b] =
                [x, saved.tensor(hook).unwrap()].map(|x| x.flatten_all().unwrap().to_vec1::<f32>().unwrap());
            assert!(a.iter().zip(&b).all(|(a, b)| a.to_bits() == b.to_bits()), "{hook}");
        }
        // What weights would give is NaN.
        let wpe = saved.model.net.wpe.get(5).unwrap().to_vec1::<f32>().unwrap();
        assert!(wpe.iter().all(|x| x.is_nan()));
        let mut e = Explorer::of_saved(saved, LARGE);
        for (key, works) in "1345 2679w8"
            .split(' ')
            .zip([true, false])
            .flat_map(|(keys, works)| keys.chars().map(move |key| (key, works)))
        {
            e.keys(&key.to_string());
            assert_eq!(!e.shows("this needs the model"), works, "{key}: {}", e.lines().join("\n"));
            assert!(!e.shows("NaN"), "{key}: {}", e.lines().join("\n"));
        }
        e.keys("3 /").text("resid_post.2").keys("enter");
        assert!(e.shows("blocks.2.hook_resid_post"), "{}", e.lines().join("\n"));
        assert_snapshot("saved_160x48", &e);
        // An edit, and a what if.
        for keys in ["a", "g"] {
            e.keys(keys);
            assert!(e.shows("this needs the model"), "{keys}: {}", e.lines().join("\n"));
        }
    }
}

#[test]
fn what_is_no_whole_run_is_not_opened_as_one() {
    let place = tempfile::tempdir().unwrap();
    let model = Arc::new(Model::demo());
    let run = Run::all(&model, Input::text(PROMPT)).unwrap();
    let path = place.path().join("x.safetensors");
    let to = || Destination::new(&path).prepare().unwrap();
    export::write(&run, Some(1..3), Format::Safetensors, to()).unwrap();
    let said = saved::open(&path).unwrap_err().to_string();
    assert!(said.contains("holds positions 1..3 only"), "{said}");
    let export = Export::new(&run, None, Format::Safetensors).unwrap();
    export.with_base(Some((&run, "changed − base"))).unwrap().write(to()).unwrap();
    let said = saved::open(&path).unwrap_err().to_string();
    assert!(said.contains("holds a difference"), "{said}");
    // A file that says nothing of its model is no run of ours.
    let beside = file(&[], &["resid_post.*"], &place);
    assert!(saved::open(&beside.path).unwrap().is_none());
    // Nor is one whose file lies about its model.
    export::write(&run, None, Format::Npz, Destination::new(place.path().join("y.npz")).prepare().unwrap())
        .unwrap();
    export::write(&run, None, Format::Safetensors, to()).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let at = |text: &[u8]| bytes.windows(text.len()).position(|some| some == text).unwrap();
    let mut lies = bytes.clone();
    lies[at(br#"n_layer\":4"#) + 10] = b'9';
    fs::write(&path, &lies).unwrap();
    assert!(saved::open(&path).is_ok_and(|run| run.is_some())); // blocks without tensors are none
    let mut lies = bytes.clone();
    lies[at(br#"n_head\":6"#) + 9] = b'5';
    fs::write(&path, &lies).unwrap();
    assert!(saved::open(&path).unwrap_err().to_string().contains("n_head 5"));
    // One that was changed says so.
    let change = "zero head:1.2".parse::<Change>().unwrap();
    let changed = run
        .then(
            run.input.clone().with_interventions([change].into_iter().collect()),
            HookFilter::all(run.config()),
            (),
        )
        .unwrap();
    export::write(&changed, None, Format::Safetensors, to()).unwrap();
    let saved = saved::open(&path).unwrap().unwrap();
    assert_eq!(saved.model.provenance.notes, ["this run was saved with changes: zero head:1.2"]);
}
