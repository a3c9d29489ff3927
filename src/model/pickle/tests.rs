use std::io::Write;

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::json;
use tempfile::TempPath;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::machine::MOST_OPERATIONS;
use super::tensors::LONGEST_NAME;
use super::*;

fn wild(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/wild/models").join(name)
}

fn bin(name: &str) -> Checkpoint {
    Checkpoint::open(&wild(name).join("pytorch_model.bin")).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn said(name: &str) -> String {
    Checkpoint::open(&wild(name)).unwrap_err().to_string()
}

/// Shape and values of a tensor.
fn values(checkpoint: &Checkpoint, name: &str) -> (Vec<usize>, Vec<f32>) {
    let tensor = checkpoint.get(name).unwrap().unwrap();
    let floats = tensor.to_dtype(candle_core::DType::F32).unwrap().flatten_all().unwrap();
    (tensor.dims().to_vec(), floats.to_vec1().unwrap())
}

fn text(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

/// The call that rebuilds a float32 tensor in the storage `0`.
fn tensor(offset: u8, shape: &[u8], stride: &[u8]) -> Vec<u8> {
    let tuple = |sizes: &[u8]| {
        let sizes: Vec<u8> = sizes.iter().flat_map(|&n| [b'K', n]).collect();
        [b"(", &sizes[..], b"t"].concat()
    };
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n((".to_vec(),
        text("storage"),
        b"ctorch\nFloatStorage\n".to_vec(),
        text("0"),
        text("cpu"),
        vec![b'K', 0, b't', b'Q', b'K', offset],
        tuple(shape),
        tuple(stride),
        b"\x89ccollections\nOrderedDict\n)RtR".to_vec(),
    ]
    .concat()
}

/// A state dict of one tensor `w`.
fn one(tensor: &[u8]) -> Vec<u8> {
    [b"\x80\x02}(", &text("w")[..], tensor, b"u."].concat()
}

/// An archive of a pickle and the storage `0`, and its file, which is read by its path later.
fn archive(pickle: &[u8], storage: &[f32]) -> Result<(Checkpoint, TempPath)> {
    let file = tempfile::NamedTempFile::new().unwrap().into_temp_path();
    let mut zip = ZipWriter::new(File::create(&file).unwrap());
    let bytes: Vec<u8> = storage.iter().flat_map(|x| x.to_le_bytes()).collect();
    for (name, bytes) in [("m/data.pkl", pickle), ("m/data/0", &bytes)] {
        zip.start_file(name, SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap();
    Ok((Checkpoint::open(&file)?, file))
}

#[test]
fn however_it_was_saved_it_is_the_same() {
    let model = bin("bin_state_dict");
    assert_eq!(model.names().count(), 29);
    assert_eq!(model.info("transformer.h.0.attn.c_attn.weight"), Some((Format::F32, &[6, 18][..])));
    assert_eq!(model.nest(), None);
    for name in [
        "bin_old",
        "bin_protocol3",
        "bin_protocol4",
        "bin_protocol5",
        "bin_old_protocol4",
        "bin_parameters",
        "bin_cuda",
        "bin_one_storage",
        "bin_one_storage_old",
        "bin_transposed_views",
        "bin_steps",
    ] {
        let other = bin(name);
        assert!(other.names().eq(model.names().filter(|name| *name != "lm_head.weight")), "{name}");
        for tensor in other.names() {
            assert_eq!(values(&other, tensor), values(&model, tensor), "{name}: {tensor}");
        }
    }
}

#[test]
fn elements_lie_anywhere_in_their_storage() {
    let storage = [9., 0., 1., 2., 3., 4., 5.];
    let read = |offset, shape: &[u8], stride: &[u8]| {
        archive(&one(&tensor(offset, shape, stride)), &storage).map(|(file, _kept)| values(&file, "w").1)
    };
    assert_eq!(read(1, &[2, 3], &[3, 1]).unwrap(), [0., 1., 2., 3., 4., 5.]);
    assert_eq!(read(1, &[2, 3], &[1, 2]).unwrap(), [0., 2., 4., 1., 3., 5.]);
    assert_eq!(read(1, &[2, 2], &[3, 2]).unwrap(), [0., 2., 3., 5.]);
    assert_eq!(read(0, &[2, 3], &[1, 1]).unwrap(), [9., 0., 1., 0., 1., 2.]);
    assert_eq!(read(2, &[2, 2, 2], &[0, 1, 0]).unwrap(), [1., 1., 2., 2., 1., 1., 2., 2.]);
    assert_eq!(read(6, &[], &[]).unwrap(), [5.]);
    assert_eq!(read(0, &[1, 7], &[200, 1]).unwrap(), storage);
    assert!(read(0, &[0, 200], &[200, 200]).unwrap().is_empty());
    for (offset, shape, stride) in [(2, [2, 3], [3, 1]), (5, [2, 2], [3, 1]), (0, [200, 200], [200, 1])] {
        let (file, _kept) = archive(&one(&tensor(offset, &shape, &stride)), &storage).unwrap();
        let said = file.get("w").unwrap_err().to_string();
        assert!(said.contains("tensor `w`") && said.contains("ends after"), "{said}");
    }
    let expanded = bin("bin_expanded");
    let old = bin("bin_expanded_old");
    for tensor in expanded.names() {
        assert_eq!(values(&old, tensor), values(&expanded, tensor), "{tensor}");
    }
    assert_eq!(values(&expanded, "transformer.h.0.ln_1.bias"), (vec![6], vec![0.3; 6]));
    assert_eq!(values(&expanded, "transformer.h.1.ln_1.weight"), (vec![6], vec![1.25; 6]));
    let (shape, rows) = values(&expanded, "transformer.h.1.mlp.c_fc.weight");
    assert_eq!(shape, [6, 24]);
    assert!(rows.chunks(24).all(|row| row.iter().all(|x| *x == row[0])));
}

#[test]
fn a_tensor_that_claims_to_be_huge_is_not_made() {
    let huge = [&b"\x8a\x08"[..], &i64::MAX.to_le_bytes()].concat();
    let with = |n: usize| {
        let sizes: Vec<u8> = huge.repeat(n);
        let pickle = one(&tensor(0, &[], &[]));
        // Both tuples are empty: shape and stride.
        let at = pickle.windows(4).position(|window| window == b"(t(t").unwrap();
        let zeros = b"K\0".repeat(n);
        [&pickle[..at], b"(", &sizes, b"t(", &zeros, b"t", &pickle[at + 4..]].concat()
    };
    for n in [1, 2, 8] {
        let (file, _kept) = archive(&with(n), &[1.]).unwrap();
        assert_eq!(file.info("w").unwrap().1, vec![i64::MAX as usize; n]);
        assert!(file.get("w").unwrap_err().to_string().contains("tensor `w`"));
    }
    // 200⁴ elements of one: 6.4 GB.
    let (file, _kept) = archive(&one(&tensor(0, &[200; 4], &[0; 4])), &[1.]).unwrap();
    assert!(file.get("w").unwrap_err().to_string().contains("too often"));
}

#[test]
fn formats_are_read_as_they_are() {
    for (name, format, dtype) in [
        ("float64", Format::F64, candle_core::DType::F64),
        ("float16", Format::F16, candle_core::DType::F16),
        ("bfloat16", Format::Bf16, candle_core::DType::BF16),
        ("float8_e4m3fn", Format::F8E4m3, candle_core::DType::F32),
        ("float8_e5m2", Format::F8E5m2, candle_core::DType::F32),
        ("int8", Format::I8, candle_core::DType::F32),
    ] {
        let file = bin(&format!("dtype_{name}_bin"));
        let (found, shape) = file.info("transformer.wte.weight").unwrap();
        assert_eq!((found, shape), (format, &[50, 6][..]));
        let tensor = file.get("transformer.wte.weight").unwrap().unwrap();
        assert_eq!((tensor.dtype(), tensor.dims()), (dtype, &[50, 6][..]));
    }
    let complex = bin("dtype_complex");
    let name = complex.names().find(|name| matches!(complex.info(name).unwrap().0, Format::Other(..)));
    let said = complex.get(name.unwrap()).unwrap_err().to_string();
    assert!(said.contains("complex64"), "{said}");
}

#[test]
fn nests_are_seen_through() {
    for nest in ["model", "state_dict", "model_state_dict", "module"] {
        let file = bin(&format!("nest_{nest}"));
        assert_eq!(file.nest(), Some(nest));
        assert_eq!(file.names().filter(|name| name.ends_with("wte.weight")).count(), 1);
        assert_eq!(file.names().count(), 28);
    }
    let two = bin("nest_two");
    assert_eq!((two.nest(), two.names().count()), (Some("model"), 28));
    let file = bin("nest_state_dict");
    // A set, `flags`, is no plain data.
    let settings = json!({ "lr": 1e-3, "name": "é", "none": null });
    assert_eq!(file.value("hyper_parameters"), Some(settings));
    assert_eq!(file.value("epoch"), Some(json!(1)));
    assert_eq!(file.value("nothing"), None);

    let within = |keys: &[&str]| {
        let open: Vec<u8> = keys.iter().flat_map(|key| [b"}(", &text(key)[..]].concat()).collect();
        let pickle =
            [&open[..], b"}(", &text("w"), &tensor(0, &[1], &[1]), b"u", &b"u".repeat(keys.len()), b"."];
        archive(&pickle.concat(), &[1.])
    };
    assert_eq!(within(&["module", "model"]).unwrap().0.nest(), Some("module.model"));
    assert_eq!(within(&["module", "model", "state_dict"]).unwrap().0.names().collect::<Vec<_>>(), ["w"]);
    assert!(within(&["model"; 4]).is_err());
    assert!(within(&["ema"]).unwrap_err().to_string().contains("keys begin with `ema`"));
}

#[test]
fn integer_keys_are_their_digits() {
    let file = bin("integer_keys");
    assert_eq!(file.names().count(), 29);
    assert_eq!(values(&file, "0"), (vec![2], vec![1., 1.]));
}

#[test]
fn nanogpt_says_how_it_was_made() {
    let file = Checkpoint::open(&wild("nanogpt_no_bias/ckpt.pt")).unwrap();
    assert_eq!(file.nest(), Some("model"));
    let name = "_orig_mod.transformer.h.0.attn.c_attn.weight";
    assert_eq!(file.info(name), Some((Format::F32, &[18, 6][..])));
    let arguments = json!({
        "n_layer": 2, "n_head": 2, "n_embd": 6, "block_size": 12, "bias": false, "vocab_size": 50,
        "dropout": 0.0,
    });
    assert_eq!(file.value("model_args"), Some(arguments));
    assert_eq!(file.value("iter_num"), Some(json!(250)));
    // Tensors are no plain data; what lies around them is.
    assert_eq!(file.value("best_val_loss"), None);
    assert_eq!(file.value("model"), Some(json!({})));
    assert_eq!(file.value("optimizer").unwrap()["param_groups"][1]["betas"], json!([0.9, 0.95]));
    for name in ["nanogpt_bias/ckpt.pt", "nanogpt_masks/old.pt", "nanogpt_untied/untied.pt"] {
        assert_eq!(Checkpoint::open(&wild(name)).unwrap().nest(), Some("model"), "{name}");
    }
    for name in ["nanogpt_char", "nanogpt_padded"] {
        let meta = plain(&std::fs::read(wild(name).join("meta.pkl")).unwrap()).unwrap();
        assert_eq!(meta["vocab_size"], json!(50));
        assert_eq!((&meta["itos"]["0"], &meta["stoi"]["😀"]), (&json!("\n"), &json!(49)));
        assert_eq!(meta["itos"].as_object().unwrap().len(), 50);
    }
}

/// One value with an integer of 70 bits and bytes in it, as Python writes it in a protocol.
fn protocols(protocol: u8) -> Vec<u8> {
    std::fs::read(wild(&format!("../plain/protocol{protocol}.pkl"))).unwrap()
}

#[test]
fn plain_data_of_every_protocol_is_read() {
    let expected = json!({
        "a": [1, -2, 3.5, null, true], "é中😀\n\\": [65536, "x"], "7": [1_099_511_627_776_i64], "empty": "",
        "300": "x".repeat(300), "minus": -(1_i64 << 40),
    });
    for protocol in 0_u8..6 {
        assert_eq!(plain(&protocols(protocol)).unwrap(), expected, "{protocol}");
    }
    // Python 2's text, and operations that no program of today writes.
    let said = |pickle: &[u8]| plain(pickle).unwrap();
    assert_eq!(said(b"(dp0\nS'a\\'\\x41\\n'\np1\nS\"b\"\ns."), json!({ "a'A\n": "b" }));
    assert_eq!(said(b"(U\x01aU\x02\xff\xfeT\x01\0\0\0cl."), json!(["a", "c"]));
    assert_eq!(said(b"(K\x01K\x02(K\x03K\x0412(0l."), json!([1, 2, 2]));
    assert_eq!(said(b"ccollections\nOrderedDict\n(]](U\x01kK\x01eatR."), json!({ "k": 1 }));
    assert_eq!(said(b"K\x01\x82\x01\x97C\x01x\x96\x01\0\0\0\0\0\0\0y\x98((tt00000."), json!(1));
}

#[test]
fn what_is_no_state_dict_is_said() {
    let first = |bytes: &[u8]| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        Checkpoint::open(file.path()).unwrap_err().to_string()
    };
    assert!(said("only_training/training_args.bin").contains("not a file of PyTorch"));
    assert!(said("zip_bin/pytorch_model.bin").contains("cut short"));
    assert!(said("meta_only/meta.pkl").contains("not one that torch.save wrote"));
    assert!(first(b"").contains("not a file of PyTorch"));
    let old = std::fs::read(wild("bin_old/pytorch_model.bin")).unwrap();
    assert!(first(&old[..100]).contains("cut short"));
    assert!(first(&old[..3000]).contains("cut short"));
    assert!(first(&old[..old.len() - 1]).contains("cut short"));

    let described = |pickle: &[u8]| archive(pickle, &[1.]).unwrap_err().to_string();
    assert!(described(b"}.").contains("no tensors"));
    assert!(described(b"].").contains("no state dict"));
    assert!(described(b".").contains("empty"));
    assert!(described(b"\xff.").contains("operation 0xff, which is unknown"));
    assert!(described(&[&tensor(0, &[1], &[1])[..], b"."].concat()).contains("single tensor"));
    let model = b"cmodel\nGPT\n)\x81}b";
    assert!(described(&[model, &b"."[..]].concat()).contains("`model.GPT`, not a state dict"));
    let nested = [&b"}"[..], &text("model"), model, b"s."].concat();
    assert!(described(&nested).contains("`model.GPT`, not a state dict"));
    let metadata = b"ctorch.distributed.checkpoint.metadata\nMetadata\n)\x81}b.";
    assert!(described(metadata).contains("distributed checkpoint"));
    assert!(first(&[b"\x80\x02", &metadata[..]].concat()).contains("distributed checkpoint"));
    let view = one(&tensor(0, &[1], &[1])).strip_suffix(b"tRu.").unwrap().to_vec();
    let view = [&view[..], b"}", &text("neg"), b"\x88stRu."].concat();
    let said = archive(&view, &[1.]).unwrap().0.get("w").unwrap_err().to_string();
    assert!(said.contains("negated"), "{said}");
}

/// What is repeated, from its number.
type Repeat<'a> = &'a dyn Fn(u32) -> Vec<u8>;

/// Every operation that can be had for ever, at the least bytes.
#[test]
fn no_operation_is_repeated_without_end() {
    let said = |start: &[u8], again: &dyn Fn(u32) -> Vec<u8>| {
        let pickle: Vec<u8> = (0..=MOST_OPERATIONS as u32).flat_map(again).collect();
        Pickle::read(&[start, &pickle].concat()).unwrap_err().to_string()
    };
    let slot = |op: u8, n: u32| [&[op][..], &n.to_le_bytes()].concat();
    let repeated: [(&[u8], Repeat); 24] = [
        (b"", &|_| b"]".to_vec()),
        (b"", &|_| b"(".to_vec()),
        (b"", &|_| b"(]".to_vec()),
        (b"", &|_| b"}".to_vec()),
        (b"", &|_| b")".to_vec()),
        (b"", &|_| b"K\0".to_vec()),
        (b"", &|_| b"X\0\0\0\0".to_vec()),
        (b"", &|_| b"c\n\n".to_vec()),
        (b"", &|_| vec![0x8a, 0]),
        (b"]", &|_| b"q\0".to_vec()),
        (b"]", &|n| slot(b'r', n)),
        (b"]q\0", &|_| b"h\0".to_vec()),
        (b"]r\0\0\0\0", &|_| slot(b'j', 0)),
        (b"]", &|_| vec![0x85]),
        (b"]", &|_| b"Q".to_vec()),
        (b"}", &|_| b"NNs".to_vec()),
        (b"}", &|_| b"(NNNNu".to_vec()),
        (b"]", &|_| b"(NNNNt".to_vec()),
        (b"]", &|_| b"\x94".to_vec()),
        (b"]", &|_| b"2".to_vec()),
        (b"]", &|_| b"2a".to_vec()),
        (b"N", &|_| b"(2o".to_vec()),
        (b"", &|_| b"(i\n\n".to_vec()),
        (b"", &|_| b"V\n".to_vec()),
    ];
    for (start, again) in repeated {
        let said = said(start, again);
        assert!(said.contains("more than any checkpoint"), "{:?}: {said}", again(0));
    }
    let long = vec![b']'; LONGEST_PICKLE + 1];
    assert!(Pickle::read(&long).unwrap_err().to_string().contains("longer than"));
    // Dicts made from one list, which each of them copies.
    let list =
        [&b"]NaNaq\0]("[..], &b"h\0".repeat(1 << 16), b"eq\x01ccollections\nOrderedDict\nq\x02"].concat();
    let said = said(&list, &|_| b"h\x02h\x01\x85R".to_vec());
    assert!(said.contains("more than any checkpoint"), "{said}");
}

/// What is described once and named often is not copied each time.
#[test]
fn names_and_shapes_have_bounds() {
    let tensors = |name: &str, key: &str, n: usize| {
        let pickle = [
            b"}(".to_vec(),
            text(name),
            b"ctorch._utils\n_rebuild_tensor_v2\n((".to_vec(),
            text("storage"),
            b"ctorch\nFloatStorage\n".to_vec(),
            text(key),
            b"NNtQK\0".to_vec(),
            [&b"("[..], &b"K\x01".repeat(n), b"t"].concat().repeat(2),
            b"tRu.".to_vec(),
        ];
        Pickle::read(&pickle.concat()).unwrap().0.state_dict().map_or(0, |dict| dict.entries.len())
    };
    assert_eq!(tensors("w", "0", 1), 1);
    let long = "x".repeat(LONGEST_NAME + 1);
    assert_eq!(tensors(&long, "0", 1), 0);
    assert_eq!(tensors("w", &long, 1), 0);
    assert_eq!(tensors("w", "0", 9), 0);
}

#[test]
fn what_contains_itself_or_grows_is_refused() {
    assert!(plain(b"]q\0h\0a.").unwrap_err().to_string().contains("too deeply"));
    assert!(plain(b"}q\0U\x01ah\0s.").unwrap_err().to_string().contains("too deeply"));
    // Each list holds the one before twice: 2³⁰ leaves.
    let doubled = [&b"Nq\0"[..], &b"h\0h\0\x86q\0".repeat(30), b"."].concat();
    assert!(plain(&doubled).unwrap_err().to_string().contains("too large"));
    // One long text, many times.
    let long = text(&"x".repeat(1 << 20));
    let repeated = [&long[..], b"q\0](", &b"h\0".repeat(1 << 10), b"e."].concat();
    assert!(plain(&repeated).unwrap_err().to_string().contains("too large"));
    let deep = [&b"N"[..], &b"\x85".repeat(1 << 19), b"."].concat();
    assert!(plain(&deep).unwrap_err().to_string().contains("too deeply"));
    // A dict that is its own nest.
    let own = [&b"}q\0("[..], &text("model"), b"h\0", &text("module"), b"h\0u."].concat();
    assert!(archive(&own, &[]).unwrap_err().to_string().contains("no tensors of a model"));
    let own = [&own[..own.len() - 2], &text("w"), &tensor(0, &[1], &[1]), b"u."].concat();
    assert_eq!(archive(&own, &[2.]).unwrap().0.nest(), Some("model.model.model"));
    // A parameter of itself, and a storage that is its own description.
    let parameter = b"ctorch._utils\n_rebuild_parameter\n";
    let own = [&parameter[..], b"]q\0\x85Rq\x01."].concat();
    assert!(archive(&own, &[]).is_err());
    assert!(archive(b"Nq\0h\0Qq\0.", &[]).is_err());
    // Values that are odd on their own do no harm beside a state dict.
    let pickle = [&b"}("[..], &text("w"), &tensor(0, &[1], &[1]), &text("a"), b"]q\0h\0au."].concat();
    let (file, _kept) = archive(&pickle, &[2.]).unwrap();
    assert_eq!((file.value("a"), file.value("w")), (None, None));
}

/// What is done to a file: bytes changed, and perhaps the end cut off.
#[derive(Debug)]
struct Damage(Vec<(Index, u8)>, Option<Index>);

impl Damage {
    fn to(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        for (at, byte) in &self.0 {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        bytes.truncate(self.1.map_or(bytes.len(), |cut| cut.index(bytes.len())));
        bytes
    }
}

fn damage() -> impl Strategy<Value = Damage> {
    let changes = prop::collection::vec((any::<Index>(), any::<u8>()), 1..8);
    (changes, prop::option::weighted(0.1, any::<Index>())).prop_map(|(changes, cut)| Damage(changes, cut))
}

/// Everything that can be asked of a file, as its callers ask it.
fn read_all(bytes: &[u8]) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let Ok(checkpoint) = Checkpoint::open(file.path()) else { return };
    for name in checkpoint.names() {
        let (_, shape) = checkpoint.info(name).unwrap();
        let n = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        if n.is_some_and(|n| n < 1 << 16) {
            let shape = shape.to_vec();
            if let Ok(tensor) = checkpoint.get(name) {
                assert_eq!(tensor.unwrap().dims(), shape);
            }
        }
    }
    let _ = ["model", "model_args", "optimizer", "config"].map(|name| checkpoint.value(name));
}

/// The pickle in the middle of the damage, so that it is seldom lost on numbers.
fn pickle(name: &str) -> Vec<u8> {
    zipped(&wild(name)).unwrap().0
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn a_damaged_pickle_is_refused_or_read(
        damage in damage(),
        name in prop::sample::select(vec![
            "bin_parameters/pytorch_model.bin", "bin_protocol5/pytorch_model.bin", "nanogpt_bias/ckpt.pt",
            "dtype_float8_e5m2_bin/pytorch_model.bin",
        ]),
    ) {
        let bytes = damage.to(pickle(name));
        if let Ok((pickle, _)) = Pickle::read(&bytes) {
            let _ = (pickle.state_dict(), pickle.storages(), pickle.plain(pickle.top()));
        }
    }

    #[test]
    fn a_damaged_zip_archive_is_refused_or_read(damage in damage()) {
        read_all(&damage.to(std::fs::read(wild("nest_model/pytorch_model.bin")).unwrap()));
    }

    #[test]
    fn a_damaged_old_file_is_refused_or_read(damage in damage(), expanded in any::<bool>()) {
        let name = if expanded { "bin_expanded_old" } else { "bin_old_protocol4" };
        read_all(&damage.to(std::fs::read(wild(name).join("pytorch_model.bin")).unwrap()));
    }

    #[test]
    fn damaged_plain_data_is_refused_or_read(damage in damage(), protocol in 0_u8..6) {
        let _ = plain(&damage.to(protocols(protocol)));
    }

    #[test]
    fn any_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = plain(&bytes);
        read_all(&bytes);
    }

    /// Operations at random, which reach further than bytes at random.
    #[test]
    fn any_operations_are_refused_or_read(
        codes in prop::collection::vec(prop::sample::select(&b"()]}tlde0a1s2ubRQoNK\x05q\0h\0K\x01c\n\n\x81\x85\x86\x87\x88\x8f\x90\x91\x92\x93\x94U\x01x."[..]), 0..100),
    ) {
        let bytes = [&codes[..], b"."].concat();
        if let Ok((pickle, _)) = Pickle::read(&bytes) {
            let _ = (pickle.state_dict(), pickle.storages(), pickle.plain(pickle.top()));
        }
    }
}
