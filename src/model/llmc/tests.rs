use proptest::prelude::*;

use super::*;

fn wild(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/wild/models").join(name)
}

fn said(name: &str) -> String {
    LlmC::open(&wild("llmc_bad").join(name)).unwrap_err().to_string()
}

/// Opens a file of these bytes, and reads what it holds.
fn open(bytes: &[u8]) -> Result<()> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let model = LlmC::open(file.path())?;
    for name in model.names() {
        assert_eq!(model.get(&name)?.unwrap().dims(), model.info(&name).unwrap().1);
    }
    Ok(())
}

#[test]
fn tensors_have_gpt2s_names() {
    for (name, format, padded_vocab_size) in [
        ("llmc_v3/gpt2_124M.bin", Format::F32, 64),
        ("llmc_v3_tok1/gpt2_124M.bin", Format::F32, 50),
        ("llmc_v5/gpt2_124M_bf16.bin", Format::Bf16, 128),
    ] {
        let model = LlmC::open(&wild(name)).unwrap();
        let sizes =
            Sizes { n_positions: 12, vocab_size: 50, n_layer: 2, n_head: 2, n_embd: 6, padded_vocab_size };
        assert_eq!(model.sizes, sizes);
        assert_eq!(model.names().count(), 28);
        for (name, shape) in [
            ("wte.weight", &[50, 6][..]),
            ("wpe.weight", &[12, 6]),
            ("h.0.attn.c_attn.weight", &[18, 6]),
            ("h.1.attn.c_attn.bias", &[18]),
            ("h.1.mlp.c_fc.weight", &[24, 6]),
            ("h.1.mlp.c_proj.weight", &[6, 24]),
            ("ln_f.bias", &[6]),
        ] {
            assert_eq!(model.info(name), Some((format, shape.to_vec())));
            assert!(model.names().any(|known| known == name));
        }
        for name in ["lm_head.weight", "h.2.ln_1.weight", "h.ln_1.weight", "h.00.ln_1.weight", "wte", ""] {
            assert!(model.info(name).is_none() && model.get(name).unwrap().is_none(), "{name}");
        }
    }
}

/// Every tensor, as many elements as it has, from the order of `train_gpt2.c` written out once more.
#[test]
fn values_are_where_llmc_writes_them() {
    let path = wild("llmc_v3/gpt2_124M.bin");
    let bytes = std::fs::read(&path).unwrap();
    let model = LlmC::open(&path).unwrap();
    let (c, mut at) = (6, HEADER);
    let mut next = |n: usize| {
        let floats = bytes[at..at + 4 * n].as_chunks().0.iter().map(|x| f32::from_le_bytes(*x)).collect();
        at += 4 * n;
        floats
    };
    let values = |name: &str| -> Vec<f32> {
        model.get(name).unwrap().unwrap().flatten_all().unwrap().to_vec1().unwrap()
    };
    let wte: Vec<f32> = next(64 * c);
    assert_eq!(values("wte.weight"), wte[..50 * c]);
    assert!(wte[50 * c..].iter().all(|x| *x == 0.0));
    assert_eq!(values("wpe.weight"), next(12 * c));
    for (name, n) in [
        ("ln_1.weight", c),
        ("ln_1.bias", c),
        ("attn.c_attn.weight", 3 * c * c),
        ("attn.c_attn.bias", 3 * c),
        ("attn.c_proj.weight", c * c),
        ("attn.c_proj.bias", c),
        ("ln_2.weight", c),
        ("ln_2.bias", c),
        ("mlp.c_fc.weight", 4 * c * c),
        ("mlp.c_fc.bias", 4 * c),
        ("mlp.c_proj.weight", 4 * c * c),
        ("mlp.c_proj.bias", c),
    ] {
        for l in 0..2 {
            assert_eq!(values(&format!("h.{l}.{name}")), next(n), "{name}");
        }
    }
    assert_eq!((values("ln_f.weight"), values("ln_f.bias")), (next(c), next(c)));
    assert_eq!(at, bytes.len());
}

#[test]
fn what_is_no_model_is_named() {
    assert!(said("old_version.bin").contains("version 2"));
    assert!(said("truncated.bin").contains("cut short: its sizes take 6976 bytes, but it has 6936"));
    assert!(said("too_long.bin").contains("bytes follow"));
    assert!(open(b"").unwrap_err().to_string().contains("within its header"));
}

#[test]
fn sizes_are_not_trusted() {
    let model = std::fs::read(wild("llmc_v3/gpt2_124M.bin")).unwrap();
    let with = |fields: &[(usize, i32)]| {
        let mut bytes = model.clone();
        for (i, n) in fields {
            bytes[4 * i..4 * i + 4].copy_from_slice(&n.to_le_bytes());
        }
        open(&bytes).unwrap_err().to_string()
    };
    for field in 2..8 {
        assert!(with(&[(field, 0)]).contains("is 0"));
        assert!(with(&[(field, -1)]).contains("is -1"));
    }
    let all: Vec<_> = (2..8).map(|field| (field, i32::MAX)).collect();
    assert!(with(&all).contains("number of layers"));
    let all: Vec<_> = all.into_iter().filter(|(field, _)| *field != 4).collect();
    assert!(with(&all).contains("cut short"));
    assert!(with(&[(7, 49)]).contains("smaller than"));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn a_damaged_model_is_refused_or_read(
        changes in prop::collection::vec((0_usize..40, any::<u8>()), 0..4),
        cut in prop::option::weighted(0.2, 0_usize..7000),
        bf16 in any::<bool>(),
    ) {
        let name = if bf16 { "llmc_v5/gpt2_124M_bf16.bin" } else { "llmc_v3/gpt2_124M.bin" };
        let mut bytes = std::fs::read(wild(name)).unwrap();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        bytes.truncate(cut.unwrap_or(bytes.len()));
        let _ = open(&bytes);
    }
}
