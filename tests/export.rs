//! Every format read back by someone else's reader, and compared with the run bit by bit.

use std::collections::HashMap;
use std::fs;
use std::io::{Cursor, Read};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use actscope::export::{self, Destination, Export, Format, Manifest, Words, Written};
use actscope::hooks::{Axis, Edit, HookFilter, HookName, Part, Site, TensorName};
use actscope::model::{LoadOptions, Source};
use actscope::{Input, Model, Run};
use candle_core::Tensor;
use proptest::prelude::*;
use safetensors::SafeTensors;
use serde_json::Value;

const PROMPT: &str = "The quick\n\"brown\" fox, é";

fn demo() -> &'static Arc<Model> {
    static MODEL: OnceLock<Arc<Model>> = OnceLock::new();
    MODEL.get_or_init(|| Arc::new(Model::demo()))
}

/// Few numbers in each tensor, no tokenizer.
fn tiny() -> &'static Arc<Model> {
    static MODEL: OnceLock<Arc<Model>> = OnceLock::new();
    MODEL.get_or_init(|| {
        let source = Source::Path(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny/plain"));
        Arc::new(Model::load(&source, &LoadOptions::default(), &(Arc::new(|_| {}) as _)).unwrap())
    })
}

fn run_of(model: &Arc<Model>, input: Input, hooks: &[&str]) -> Run {
    Run::new(model, input, HookFilter::new(hooks, model.config()).unwrap(), ()).unwrap()
}

fn bytes(run: &Run, positions: Option<Range<usize>>, format: Format) -> Vec<u8> {
    let mut bytes = Vec::new();
    Export::new(run, positions, format).unwrap().write_to(&mut bytes).unwrap();
    bytes
}

type Array = (Vec<usize>, Vec<f32>);

/// What should be in the file, computed index by index.
fn expected(run: &Run, hook: HookName, positions: &Range<usize>) -> Array {
    let x = run.tensor(hook).unwrap();
    let axis = hook.point().axes.iter().position(|axis| *axis == Axis::Pos).unwrap();
    let mut shape = x.dims().to_vec();
    let inner: usize = shape[axis + 1..].iter().product();
    let all: Vec<f32> = x.flatten_all().unwrap().to_vec1().unwrap();
    let n = shape[axis];
    shape[axis] = positions.len();
    let kept = all.into_iter().enumerate().filter(|(i, _)| positions.contains(&(i / inner % n)));
    (shape, kept.map(|(_, value)| value).collect())
}

/// Equal bits; where a format has one word for every NaN, any NaN is another's equal.
fn assert_same(name: &str, got: &Array, want: &Array, any_nan: bool) {
    assert_eq!(got.0, want.0, "{name}");
    assert_eq!(got.1.len(), want.1.len(), "{name}");
    for (i, (g, w)) in got.1.iter().zip(&want.1).enumerate() {
        let same = g.to_bits() == w.to_bits() || any_nan && g.is_nan() && w.is_nan();
        assert!(same, "{name}[{i}]: {g:?} is not {w:?}");
    }
}

fn f32s(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect()
}

fn read_safetensors(bytes: &[u8]) -> HashMap<String, Array> {
    let file = SafeTensors::deserialize(bytes).unwrap();
    let array = |(name, view): (&str, safetensors::tensor::TensorView)| {
        assert_eq!(view.dtype(), safetensors::Dtype::F32);
        (name.to_owned(), (view.shape().to_vec(), f32s(view.data())))
    };
    file.iter().map(array).collect()
}

fn read_npy(bytes: &[u8]) -> Array {
    let file = npyz::NpyFile::new(bytes).unwrap();
    assert_eq!(file.order(), npyz::Order::C);
    let shape = file.shape().iter().map(|&n| usize::try_from(n).unwrap()).collect();
    (shape, file.into_vec().unwrap())
}

fn read_npz(bytes: &[u8]) -> (Manifest, HashMap<String, Array>) {
    let mut zip = zip::ZipArchive::new(Cursor::new(bytes)).unwrap();
    let mut members: HashMap<String, Vec<u8>> = HashMap::new();
    for i in 0..zip.len() {
        let mut file = zip.by_index(i).unwrap();
        let mut content = Vec::new();
        file.read_to_end(&mut content).unwrap();
        members.insert(file.name().unwrap().into_owned(), content);
    }
    let manifest = serde_json::from_slice(&members.remove("manifest.json").unwrap()).unwrap();
    let array = |(name, content): (String, Vec<u8>)| {
        (name.strip_suffix(".npy").unwrap().to_owned(), read_npy(&content))
    };
    (manifest, members.into_iter().map(array).collect())
}

fn read_json(bytes: &[u8]) -> (Manifest, HashMap<String, Array>) {
    #[allow(clippy::cast_possible_truncation)]
    fn flatten(value: &Value, depth: usize, shape: &mut Vec<usize>, values: &mut Vec<f32>) {
        match value {
            Value::Array(items) => {
                match shape.get(depth) {
                    None => shape.push(items.len()),
                    Some(&n) => assert_eq!(n, items.len()),
                }
                for item in items {
                    flatten(item, depth + 1, shape, values);
                }
            }
            Value::String(word) => {
                assert!(["inf", "-inf", "nan"].contains(&word.as_str()), "{word}");
                values.push(word.parse().unwrap());
            }
            number => values.push(number.as_f64().unwrap() as f32),
        }
    }
    let mut file: Value = serde_json::from_slice(bytes).unwrap();
    let manifest = serde_json::from_value(file["manifest"].take()).unwrap();
    let array = |(name, value): (&String, &Value)| {
        let mut array = Array::default();
        flatten(value, 0, &mut array.0, &mut array.1);
        (name.clone(), array)
    };
    (manifest, file["tensors"].as_object().unwrap().iter().map(array).collect())
}

/// Column names, index columns, values.
fn read_csv(bytes: &[u8]) -> (Vec<String>, Vec<Vec<usize>>, Vec<f32>) {
    let mut reader = csv::Reader::from_reader(bytes);
    let columns = reader.headers().unwrap().iter().map(ToOwned::to_owned).collect();
    let (mut indices, mut values) = (Vec::new(), Vec::new());
    for record in reader.records() {
        let record = record.unwrap();
        let mut fields: Vec<&str> = record.iter().collect();
        values.push(fields.pop().unwrap().parse().unwrap());
        indices.push(fields.iter().map(|i| i.parse().unwrap()).collect());
    }
    (columns, indices, values)
}

fn assert_all(run: &Run, positions: &Range<usize>, read: &HashMap<String, Array>, any_nan: bool) {
    assert_eq!(read.len(), run.cache.iter().count());
    for (hook, _) in run.cache.iter() {
        let name = hook.to_string();
        assert_same(&name, &read[&name], &expected(run, hook, positions), any_nan);
    }
}

fn assert_round_trips(run: &Run, positions: &Range<usize>) {
    let written = |format| bytes(run, Some(positions.clone()), format);
    let manifest = Export::new(run, Some(positions.clone()), Format::Json).unwrap().manifest;

    assert_all(run, positions, &read_safetensors(&written(Format::Safetensors)), false);
    let (of_npz, arrays) = read_npz(&written(Format::Npz));
    assert_all(run, positions, &arrays, false);
    let (of_json, arrays) = read_json(&written(Format::Json));
    assert_all(run, positions, &arrays, true);
    assert_eq!((&of_npz, &of_json), (&manifest, &manifest));
}

fn assert_single_round_trips(run: &Run, positions: &Range<usize>) {
    let (hook, _) = run.cache.iter().next().unwrap();
    let want = expected(run, hook, positions);
    let written = |format| bytes(run, Some(positions.clone()), format);
    assert_same("npy", &read_npy(&written(Format::Npy)), &want, false);

    let (columns, indices, values) = read_csv(&written(Format::Csv));
    assert_eq!(columns.last().unwrap(), "value");
    assert_same("csv", &(want.0.clone(), values), &want, true);
    let mut sorted = indices.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted, indices, "{hook}: each index once, last one fastest");
    if let Some(at) = columns.iter().position(|name| name == "position") {
        assert!(indices.iter().all(|index| positions.contains(&index[at])), "positions are the prompt's");
    }
}

#[test]
fn every_hook_in_every_format() {
    let run = Run::all(tiny(), Input::ids([5, 17, 96, 0])).unwrap();
    assert!(
        read_safetensors(&bytes(&run, None, Format::Safetensors)).contains_key("blocks.1.attn.hook_pattern")
    );
    assert_round_trips(&run, &(0..4));
    assert_round_trips(&run, &(1..3));
    for hook in HookName::all(tiny().config()) {
        let run = run_of(tiny(), Input::ids([5, 17, 96, 0]), &[&hook.to_string()]);
        assert_single_round_trips(&run, &(0..4));
        assert_single_round_trips(&run, &(2..4));
    }
}

#[test]
fn the_masked_future_survives() {
    let run = run_of(tiny(), Input::ids([1, 2, 3]), &["attn_scores.0"]);
    let masked = |values: &[f32]| values.iter().filter(|v| **v == f32::NEG_INFINITY).count();
    let n = 3 * tiny().config().n_head;
    assert_eq!(masked(&read_npy(&bytes(&run, None, Format::Npy)).1), n);
    assert_eq!(masked(&read_csv(&bytes(&run, None, Format::Csv)).2), n);
    assert_eq!(masked(&read_json(&bytes(&run, None, Format::Json)).1["blocks.0.attn.hook_attn_scores"].1), n);
}

#[test]
fn csv_columns_are_the_axes() {
    for (hook, columns) in [
        ("resid_post.0", "position,channel,value"),
        ("q.1", "position,head,channel,value"),
        ("pattern.0", "head,position,key,value"),
        ("post.1", "position,neuron,value"),
        ("ln1_scale.0", "position,value"),
        ("logits", "position,token_id,value"),
    ] {
        let csv = bytes(&run_of(tiny(), Input::ids([1, 2]), &[hook]), None, Format::Csv);
        assert_eq!(read_csv(&csv).0.join(","), columns, "{hook}");
    }
}

#[test]
fn positions_cut_queries_but_not_keys() {
    let run = run_of(demo(), Input::text("a b c d e"), &["pattern.2"]);
    let (shape, values) = read_npy(&bytes(&run, Some(2..3), Format::Npy));
    assert_eq!(shape, [demo().config().n_head, 1, 5]);
    let head_1: Vec<Vec<f32>> = run.cache.get("pattern.2").unwrap().get(1).unwrap().to_vec2().unwrap();
    assert_eq!(values[5..10], head_1[2]);
}

#[test]
fn the_manifest_says_all_that_is_needed() {
    let run = run_of(demo(), Input::text(PROMPT).with_bos(true), &["resid_pre.0", "logits"]);
    let file = bytes(&run, Some(1..4), Format::Safetensors);
    let (_, header) = SafeTensors::read_metadata(&file).unwrap();
    let fields = header.metadata().as_ref().unwrap();

    assert_eq!(serde_json::from_str::<Vec<u32>>(&fields["token_ids"]).unwrap(), run.tokens);
    assert_eq!(run.tokens[0], demo().config().bos_token_id.unwrap());
    assert_eq!(fields["prompt"], PROMPT);
    assert_eq!(fields["model"], "demo");
    assert_eq!(fields["revision"], "null");
    assert_eq!(fields["weights_sha256"], demo().provenance.weights_sha256().unwrap());
    assert_eq!(fields["weights_sha256"].len(), 64);
    assert_eq!(fields["bos"], "true");
    assert_eq!(fields["dtype"], "f32");
    assert_eq!(fields["positions"], "[1,4]");
    assert_eq!(fields["device"], "cpu");
    assert_eq!(fields["actscope_version"], env!("CARGO_PKG_VERSION"));

    let (manifest, _) = read_json(&bytes(&run, Some(1..4), Format::Json));
    assert_eq!(manifest.tokens.len(), run.n_tokens());
    assert!(manifest.tokens.iter().any(|token| token.contains('↵')));
    let hooks: Vec<_> = manifest.hooks.iter().map(|hook| (hook.name.as_str(), hook.shape.clone())).collect();
    let config = demo().config();
    assert_eq!(
        hooks,
        [
            ("blocks.0.hook_resid_pre", vec![3, config.n_embd]),
            ("unembed.hook_out", vec![3, config.vocab_size])
        ]
    );
    assert_eq!(manifest.hooks[1].axes, ["position", "token_id"]);
}

#[test]
fn the_same_run_gives_the_same_bytes() {
    let run = |_| run_of(tiny(), Input::ids([9, 8, 7]), &["*.0"]);
    let [a, b] = [0, 1].map(run);
    for format in [Format::Safetensors, Format::Npz, Format::Json] {
        assert_eq!(bytes(&a, None, format), bytes(&b, None, format), "{format}");
    }
}

#[test]
fn formats_go_by_the_name() {
    assert_eq!(Format::of_path(Path::new("a/b.NPZ")).unwrap(), Format::Npz);
    assert_eq!(Format::of_path(Path::new("-")).unwrap(), Format::Json);
    for format in Format::ALL {
        assert_eq!(Format::of_path(Path::new(&format!("blocks.3.{format}"))).unwrap(), format);
    }
    for name in ["run", "run.txt", ".npz", ""] {
        let error = Format::of_path(Path::new(name)).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains(".safetensors"), "{error}");
    }
}

#[test]
fn what_cannot_be_asked_is_refused() {
    let run = run_of(tiny(), Input::ids([1, 2, 3]), &["resid_pre.*"]);
    let n = run.cache.iter().count();
    for format in [Format::Csv, Format::Npy] {
        let error = Export::new(&run, None, format).unwrap_err();
        let said = error.to_string();
        assert_eq!(error.exit_code(), 2);
        assert!(said.contains(&format!("there are {n}")) && said.contains("--hooks"), "{said}");
    }
    #[allow(clippy::reversed_empty_ranges)]
    for positions in [0..4, 3..4, 2..2, 2..1, 0..usize::MAX] {
        let error = Export::new(&run, Some(positions.clone()), Format::Npz).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        let Range { start, end } = positions;
        let said = if start < end {
            format!("positions {start}..{end} are out of range (0 to 2)")
        } else {
            format!("there are no positions in {start}..{end}")
        };
        assert_eq!(error.to_string(), said);
    }
}

fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_file_takes_its_place_whole() {
    let run = run_of(tiny(), Input::ids([1, 2]), &["*.1"]);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run.npz");
    for _ in 0..2 {
        let to = Destination::new(&path).prepare().unwrap();
        let Written { tensors, bytes } = export::write(&run, None, Format::Npz, to).unwrap();
        assert_eq!(tensors, run.cache.iter().count());
        assert_eq!(bytes, fs::metadata(&path).unwrap().len());
        assert_eq!(names_in(directory.path()), ["run.npz"]);
    }
    assert_all(&run, &(0..2), &read_npz(&fs::read(&path).unwrap()).1, false);
}

#[cfg(unix)]
#[test]
fn permissions_are_those_of_any_file() {
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let directory = tempfile::tempdir().unwrap();
    let [plain, ours] = ["plain", "ours"].map(|name| directory.path().join(name));
    fs::write(&plain, "x").unwrap();
    let write =
        |path: &Path| Destination::new(path).prepare().unwrap().write(|out| out.write_all(b"x")).unwrap();
    write(&ours);
    assert_eq!(mode(&ours), mode(&plain));

    fs::set_permissions(&ours, fs::Permissions::from_mode(0o640)).unwrap();
    write(&ours);
    assert_eq!(mode(&ours), 0o640, "a file that is replaced keeps its own");

    let link = directory.path().join("link");
    std::os::unix::fs::symlink(&ours, &link).unwrap();
    Destination::new(&link).prepare().unwrap().write(|out| out.write_all(b"through")).unwrap();
    assert!(link.is_symlink());
    assert_eq!(fs::read(&ours).unwrap(), b"through");
}

#[test]
fn a_failure_leaves_the_old_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("old.npy");
    fs::write(&path, "old").unwrap();
    let to = Destination::new(&path).prepare().unwrap();
    let error = to
        .write(|out| {
            out.write_all(&vec![0; 200_000])?;
            Err(std::io::ErrorKind::StorageFull.into())
        })
        .unwrap_err();
    assert!(error.to_string().starts_with(&format!("{}: ", path.display())), "{error}");
    assert_eq!(error.exit_code(), 1);
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert_eq!(names_in(directory.path()), ["old.npy"]);

    // Making ready touches nothing either.
    drop(Destination::new(&path).prepare().unwrap());
    drop(Destination::new(directory.path().join("new.npy")).prepare().unwrap());
    assert_eq!(names_in(directory.path()), ["old.npy"]);
}

#[test]
fn what_cannot_be_written_is_said_before_the_run() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    for (path, word) in [
        (directory.path().join("missing/run.npz"), "missing; create it first"),
        (directory.path().to_owned(), "is a directory"),
        (file.join("run.npz"), "no directory"),
    ] {
        let error = Destination::new(&path).prepare().unwrap_err();
        let said = error.to_string();
        assert_eq!(error.exit_code(), 1);
        assert!(said.contains(path.to_str().unwrap()) && said.contains(word), "{said}");
        assert!(!said.contains(".actscope"), "the temporary name means nothing to anybody: {said}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_device_is_named() {
    let run = run_of(tiny(), Input::ids([1, 2]), &["*.1"]);
    for format in [Format::Safetensors, Format::Npz, Format::Json] {
        let to = Destination::new("/dev/full").prepare().unwrap();
        let said = export::write(&run, None, format, to).unwrap_err().to_string();
        assert!(said.starts_with("/dev/full: ") && said.contains("No space left"), "{said}");
    }
    let to = Destination::new("/dev/null").prepare().unwrap();
    assert!(export::write(&run, None, Format::Npz, to).unwrap().bytes > 0);
    assert!(!fs::metadata("/dev/null").unwrap().is_file(), "a device stays a device");
}

#[test]
fn dash_is_standard_output() {
    assert_eq!(Destination::new("-"), Destination::Stdout);
    assert_eq!(Destination::new("./-"), Destination::File("./-".into()));
}

/// Any float32: by value, and by bits so that NaNs with payloads are among them.
fn any_f32() -> impl Strategy<Value = f32> {
    prop_oneof![any::<u32>().prop_map(f32::from_bits), Just(-0.0), Just(f32::NEG_INFINITY), -10f32..10.0]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_values_at_any_positions(
        ids in prop::collection::vec(0u32..90, 1..6),
        seed in prop::collection::vec(any_f32(), 1..50),
        (a, b) in (0.0..1.0, 0.0..1.0),
    ) {
        let n = ids.len();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let [a, b] = [a, b].map(|at: f64| (at * n as f64) as usize);
        let positions = a.min(b)..a.max(b) + 1;
        let site = Site::AttnScores.at(1);
        let edit = Edit(site, |x: &Tensor| {
            let values = seed.iter().cycle().take(x.elem_count()).copied();
            Ok(Tensor::from_iter(values, x.device())?.reshape(x.shape())?)
        });
        let keep = HookFilter::new(&["attn_scores.1"], tiny().config()).unwrap();
        let run = Run::new(tiny(), Input::ids(ids), keep, edit).unwrap();
        assert_round_trips(&run, &positions);
        assert_single_round_trips(&run, &positions);
    }
}

/// As `torch.sparse_coo_tensor` and numpy read them.
#[test]
fn features_are_written_as_what_is_not_0_in_them() {
    let model = demo();
    let names = model.choose(&["resid_pre.2.features", "resid_pre.2.error"]).unwrap();
    let run = Run::new(model, Input::text(PROMPT), model.needed_for(&names), ()).unwrap();
    let dense = run.part(names[0], &Part::rows(1..4)).unwrap().to_vec2::<f32>().unwrap();
    let write = |run: &Run, names: Vec<TensorName>, format| {
        let mut bytes = Vec::new();
        let export = Export::of(run, &names, Words::default(), Some(1..4), format).unwrap();
        export.write_to(&mut bytes).unwrap();
        (bytes, export.manifest)
    };
    let assert_is = |indices: &[i64], values: &[f32]| {
        let mut read = vec![vec![0f32; dense[0].len()]; 3];
        let (rows, columns) = indices.split_at(values.len());
        for ((&r, &c), &value) in rows.iter().zip(columns).zip(values) {
            read[usize::try_from(r).unwrap()][usize::try_from(c).unwrap()] = value;
        }
        assert_eq!(read, dense);
    };
    let i64s = |bytes: &[u8]| bytes.as_chunks().0.iter().map(|&b| i64::from_le_bytes(b)).collect::<Vec<_>>();
    let parts = ["indices", "values"].map(|part| format!("{}.{part}", names[0]));

    let (file, manifest) = write(&run, names.clone(), Format::Safetensors);
    let tensors = SafeTensors::deserialize(&file).unwrap();
    assert_eq!(manifest.hooks.iter().map(|one| one.sparse).collect::<Vec<_>>(), [true, false]);
    assert_eq!(manifest.hooks[0].shape, [3, dense[0].len()]);
    assert_eq!(manifest.hooks[0].axes, ["position", "feature"]);
    let [indices, values] = parts.clone().map(|part| tensors.tensor(&part).unwrap());
    assert_eq!(indices.dtype(), safetensors::Dtype::I64);
    assert_is(&i64s(indices.data()), &f32s(values.data()));
    assert_eq!(f32s(tensors.tensor(&names[1].to_string()).unwrap().data()).len(), 3 * model.config().n_embd);

    let (file, _) = write(&run, names.clone(), Format::Npz);
    let mut zip = zip::ZipArchive::new(Cursor::new(&file)).unwrap();
    let mut member = |name: &str| {
        let mut bytes = Vec::new();
        zip.by_name(&format!("{name}.npy")).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    };
    let bytes = member(&parts[0]);
    let indices = npyz::NpyFile::new(&bytes[..]).unwrap();
    assert_eq!(indices.shape()[0], 2);
    assert_is(&indices.into_vec::<i64>().unwrap(), &read_npy(&member(&parts[1])).1);

    let (file, _) = write(&run, names.clone(), Format::Json);
    let (_, read) = read_json(&file);
    let indices: Vec<_> = read[&parts[0]].1.iter().map(|&index| index as i64).collect();
    assert_is(&indices, &read[&parts[1]].1);

    let (file, _) = write(&run, vec![names[0]], Format::Csv);
    let (columns, indices, values) = read_csv(&file);
    assert_eq!(columns, ["position", "feature", "value"]);
    let along = |axis: usize, first: usize| indices.iter().map(move |index| (index[axis] - first) as i64);
    assert_is(&along(0, 1).chain(along(1, 0)).collect::<Vec<_>>(), &values);

    // One array is whole.
    let (file, manifest) = write(&run, vec![names[0]], Format::Npy);
    assert!(!manifest.hooks[0].sparse);
    assert_eq!(read_npy(&file), (vec![3, dense[0].len()], dense.concat()));
}
