//! The walk: every step of several models, its numbers against the cache, and its keys.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use actscope::analysis::logits::Sampling;
use actscope::analysis::walk::{At, Cell, Kind, Operand, Page, Step, steps};
use actscope::engine::{Event, Said};
use actscope::hooks::{Edit, HookFilter, Site};
use actscope::model::{LoadOptions, Source};
use actscope::tui::app::Screen;
use actscope::tui::screens::walk;
use actscope::tui::text::num;
use actscope::tui::theme::{Depth, Theme};
use actscope::tui::update::Message;
use actscope::{Input, Model, Run};
use candle_core::{Device, Tensor};
use ratatui::crossterm::event::MouseEventKind;

use super::harness::{Explorer, PROMPT, assert_snapshot, demo};
use super::{LARGE, SMALL};

const MIDDLE: (u16, u16) = (100, 30);

fn load(directory: &Path) -> Arc<Model> {
    let source = Source::Path(directory.into());
    Arc::new(Model::load(&source, &LoadOptions::default(), &(Arc::new(|_| {}) as _)).unwrap())
}

fn tiny(name: &str) -> Arc<Model> {
    load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny").join(name))
}

const IDS: [u32; 9] = [5, 17, 96, 0, 42, 17, 5, 88, 23];

fn on(model: &Arc<Model>, size: (u16, u16)) -> Explorer {
    let input = if model.tokenizer.is_some() { Input::text(PROMPT) } else { Input::ids(IDS) };
    let mut e = Explorer::with_model(Arc::clone(model), input, size, Theme::default());
    e.keys("6");
    e
}

fn at(step: Step, position: usize) -> At {
    At { step, position, head: 0, key: 0, column: 0, sampling: Sampling::default() }
}

// Every step, seen.

/// Each kind of step once: those before the blocks, a block, those after.
fn each_kind(size: (u16, u16), mut see: impl FnMut(usize, Kind, &Explorer)) {
    let mut e = on(&demo(), size);
    e.keys(". . . . . . ] ]");
    let kinds = Kind::BEFORE.into_iter().chain(Kind::BLOCK).chain(Kind::AFTER);
    for (i, kind) in kinds.enumerate() {
        if kind == Kind::LnFinal {
            e.keys("end left left left");
        }
        if kind == Kind::Next {
            e.keys(". . . . . . . . . . t t t t t t t t t t");
        }
        assert_eq!(walk::step(&e.app).kind, kind);
        see(i + 1, kind, &e);
        e.keys("right");
    }
}

#[test]
fn every_step_80x24() {
    each_kind(SMALL, |i, kind, e| assert_snapshot(&format!("walk/{i:02}_{kind:?}_80x24"), e));
}

#[test]
fn every_step_160x48() {
    each_kind(LARGE, |i, kind, e| assert_snapshot(&format!("walk/{i:02}_{kind:?}_160x48"), e));
}

/// What a newcomer reads: all of the words, the formula, the check and where it goes next.
#[test]
fn everything_is_read_at_100x30() {
    each_kind(MIDDLE, |_, kind, e| {
        let screen = e.lines().join(" ");
        let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let page = Page::new(e.run(), walk::at(&e.app)).unwrap();
        let screen = squeezed(&screen);
        for words in [&page.title, &page.text, &page.formula, &page.shapes, &page.next, &page.check.claim] {
            assert!(screen.contains(&squeezed(words)), "{kind:?}: {words}\n{}", e.lines().join("\n"));
        }
    });
}

#[test]
fn other_sizes_and_colours_hold_it_all() {
    for size in [(60, 16), (80, 24), (120, 20), (300, 90)] {
        for depth in [Depth::True, Depth::Mono] {
            for model in [demo(), tiny("single")] {
                let mut e = on(&model, size);
                e.app.theme.depth = depth;
                for step in steps(model.config()) {
                    walk::go_to(&mut e.app, step);
                    e.keys(",");
                    assert!(e.shows(&format!(" of {}  ", steps(model.config()).len())), "{size:?} {step:?}");
                }
            }
        }
    }
}

// Every number.

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// The rows of a step's operands, read from the cache and the weights by another way than the walk's.
#[allow(clippy::too_many_lines)] // one arm for each step
fn truth(run: &Run, at: At) -> HashMap<&'static str, Vec<f32>> {
    let (t, h, key, c) = (at.position, at.head, at.key.min(at.position), at.column);
    let l = at.step.layer.unwrap_or(match at.step.kind {
        Kind::Wte | Kind::Wpe | Kind::Sum | Kind::Encoder => 0,
        _ => run.config().n_layer - 1,
    });
    let tensor = |name: &str| run.cache.get(name).unwrap();
    let row = |name: &str| values(&tensor(name).get(t).unwrap());
    let here = |name: &str| values(&tensor(&format!("{name}.{l}")).get(t).unwrap());
    let of_head = |name: &str| values(&tensor(&format!("{name}.{l}")).get(t).unwrap().get(h).unwrap());
    let attention = |name: &str| values(&tensor(&format!("{name}.{l}")).get(h).unwrap().get(t).unwrap());
    let column = |w: &Tensor| values(&w.narrow(1, c.min(w.dims()[1] - 1), 1).unwrap());
    let net = &run.model.net;
    let block = &net.blocks[l];
    let scores = || {
        let q = of_head("q");
        let dot = |j: usize| {
            let k = values(&tensor(&format!("k.{l}")).get(j).unwrap().get(h).unwrap());
            q.iter().zip(k).map(|(q, k)| q * k).sum::<f32>()
        };
        (0..run.n_tokens()).map(dot).collect::<Vec<_>>()
    };
    let scaled = || -> Vec<f32> {
        let scale = run.config().attn_scale(l) as f32;
        scores().iter().map(|s| s * scale).collect()
    };
    let norm = |ln: &actscope::model::LayerNorm, before: &str, after: &str, names: [&'static str; 2]| {
        let pair = |name: &str| if name.starts_with("ln_final") { row(name) } else { here(name) };
        vec![
            (names[0], here(before)),
            ("normalized", pair(&format!("{after}_normalized"))),
            ("w", values(&ln.weight)),
            ("b", values(&ln.bias)),
            (names[1], pair(&format!("{after}_out"))),
        ]
    };
    let best = || {
        let logits = row("logits");
        (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]).then(b.cmp(&a))).unwrap()
    };
    let truth = match at.step.kind {
        Kind::Tokens | Kind::Next => vec![],
        Kind::Wte => {
            vec![("wte", values(&net.wte.rows(&[run.tokens[t]]).unwrap())), ("embed", row("embed"))]
        }
        Kind::Wpe => vec![("wpe", values(&net.wpe.get(t).unwrap())), ("pos_embed", row("pos_embed"))],
        Kind::Sum => vec![("wte[id]", row("embed")), ("wpe[t]", row("pos_embed")), ("x", row("resid_pre.0"))],
        Kind::Encoder => {
            vec![("wte[ids]", row("embed")), ("wpe[0…]", row("pos_embed")), ("x", row("resid_pre.0"))]
        }
        Kind::Ln1 => norm(&block.ln_1, "resid_pre", "ln1", ["x", "ln1"]),
        Kind::Qkv => vec![
            ("ln1", here("ln1_out")),
            ("W", column(&block.c_attn.weight().unwrap())),
            ("b", values(&block.c_attn.bias)),
            ("q", here("q")),
            ("k", here("k")),
            ("v", here("v")),
        ],
        Kind::Heads => {
            vec![("q", here("q")), ("q_h", of_head("q")), ("k_h", of_head("k")), ("v_h", of_head("v"))]
        }
        Kind::Scores => vec![
            ("q", of_head("q")),
            ("kᵀ", values(&tensor(&format!("k.{l}")).get(key).unwrap().get(h).unwrap())),
            ("S", scores()),
        ],
        Kind::Scale => {
            vec![("S", scores()), ("scale", vec![run.config().attn_scale(l) as f32]), ("scaled", scaled())]
        }
        Kind::Mask => {
            let mask = (0..run.n_tokens()).map(|j| if j > t { f32::NEG_INFINITY } else { 0.0 }).collect();
            vec![("scaled", scaled()), ("mask", mask), ("masked", attention("attn_scores"))]
        }
        Kind::Softmax => vec![("masked", attention("attn_scores")), ("pattern", attention("pattern"))],
        Kind::Z => {
            let v = tensor(&format!("v.{l}")).narrow(1, h, 1).unwrap().squeeze(1).unwrap();
            vec![("pattern", attention("pattern")), ("v", column(&v)), ("z", of_head("z"))]
        }
        Kind::AttnOut => vec![
            ("z", here("z")),
            ("W_O", column(&block.attn_proj.weight().unwrap())),
            ("b_O", values(&block.attn_proj.bias)),
            ("attn_out", here("attn_out")),
        ],
        Kind::ResidMid => {
            vec![("x", here("resid_pre")), ("attn_out", here("attn_out")), ("resid_mid", here("resid_mid"))]
        }
        Kind::Ln2 => norm(&block.ln_2, "resid_mid", "ln2", ["resid_mid", "ln2"]),
        Kind::MlpPre => vec![
            ("ln2", here("ln2_out")),
            ("W_in", column(&block.c_fc.weight().unwrap())),
            ("b_in", values(&block.c_fc.bias)),
            ("pre", here("pre")),
        ],
        Kind::MlpPost => vec![("pre", here("pre")), ("post", here("post"))],
        Kind::MlpOut => vec![
            ("post", here("post")),
            ("W_out", column(&block.mlp_proj.weight().unwrap())),
            ("b_out", values(&block.mlp_proj.bias)),
            ("mlp_out", here("mlp_out")),
        ],
        Kind::ResidPost => {
            vec![
                ("resid_mid", here("resid_mid")),
                ("mlp_out", here("mlp_out")),
                ("resid_post", here("resid_post")),
            ]
        }
        Kind::LnFinal => norm(&net.ln_f, "resid_post", "ln_final", ["x", "out"]),
        Kind::Logits => {
            let name = if run.config().tie_word_embeddings { "wteᵀ" } else { "W_U" };
            let of_best = values(&net.unembed.rows(&[best() as u32]).unwrap());
            vec![("out", row("ln_final_out")), (name, of_best), ("logits", row("logits"))]
        }
        Kind::Probs => vec![("logits", row("logits")), ("p (τ = 1)", row("probs"))],
    };
    truth.into_iter().collect()
}

fn assert_near(got: &[f32], want: &[f32], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    let largest = want.iter().filter(|x| x.is_finite()).fold(1f32, |a, x| a.max(x.abs()));
    for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
        assert!(g == w || (g - w).abs() <= 1e-5 * largest, "{what}[{i}] is {g}, the run has {w}");
    }
}

/// The tables of a page, cell by cell, against the rows of its operands.
fn check_tables(run: &Run, page: &Page, truth: &HashMap<&str, Vec<f32>>) {
    let number = |cell: &Cell| match cell {
        Cell::Number(x) => *x,
        other => panic!("{other:?} is no number"),
    };
    let near = |a: f32, b: f32, what: &str| {
        assert!(a == b || (a - b).abs() <= 2e-5 * b.abs().max(1.0), "{what}: {a} for {b}");
    };
    for table in &page.tables {
        let heads = &table.columns[1..];
        for row in &table.rows {
            let Some(index) = row.index else { continue };
            let what = format!("{:?}, {}: {}", page.at.step, table.title, row.label);
            for (head, cell) in heads.iter().zip(&row.cells) {
                let probs = || values(&run.cache.get("probs").unwrap().get(page.at.position).unwrap());
                let logits = || values(&run.cache.get("logits").unwrap().get(page.at.position).unwrap());
                match head.as_str() {
                    "token" => {
                        let id = match page.at.step.kind {
                            Kind::Tokens | Kind::Encoder => run.tokens[index],
                            _ => index as u32,
                        };
                        assert_eq!(cell, &Cell::Text(run.model.tokenizer.show(id)), "{what}");
                    }
                    "id" => assert_eq!(cell, &Cell::Count(run.tokens[index] as usize), "{what}"),
                    "bytes" => {
                        let bytes = run.model.tokenizer.bytes(run.tokens[index]).unwrap();
                        let hex: Vec<_> = bytes.iter().map(|b| format!("{b:02x}")).collect();
                        assert_eq!(cell, &Cell::Text(hex.join(" ")), "{what}");
                    }
                    "length ‖x‖" => {
                        let x = values(&run.cache.get("resid_pre.0").unwrap().get(index).unwrap());
                        near(number(cell), x.iter().map(|x| x * x).sum::<f32>().sqrt(), &what);
                    }
                    "p" => near(number(cell), probs()[index], &what),
                    "logit" => near(number(cell), logits()[index], &what),
                    "share" => near(number(cell), truth["pattern"][index], &what),
                    "product" => {
                        let [.., a, b, _] = &row.cells[..] else { panic!("{what}") };
                        near(number(cell), number(a) * number(b), &what);
                    }
                    head if head.starts_with("v[j") => near(number(cell), truth["v"][index], &what),
                    "k" if !truth.contains_key("k") => near(number(cell), truth["kᵀ"][index], &what),
                    head => near(number(cell), truth[head][index], &what),
                }
            }
        }
        // Products, the rest and the bias make the whole.
        if let Some(total) = table.rows.iter().find(|row| row.marked && row.index.is_none()) {
            let parts = table.rows.iter().filter(|row| !(row.marked && row.index.is_none()));
            let sum: f32 = parts.map(|row| number(row.cells.last().unwrap())).sum();
            let total = number(total.cells.last().unwrap());
            near(sum, total, &table.title);
            let entry = match page.at.step.kind {
                Kind::Scores => truth["S"][page.at.key.min(page.at.position)],
                Kind::Logits => truth["logits"].iter().copied().fold(f32::NEG_INFINITY, f32::max),
                kind => {
                    let name = match kind {
                        Kind::Qkv => "q",
                        Kind::AttnOut => "attn_out",
                        Kind::MlpPre => "pre",
                        _ => "mlp_out",
                    };
                    truth[name][page.at.column]
                }
            };
            near(total, entry, &table.title);
        }
    }
}

#[test]
fn every_number_is_the_runs() {
    for model in [demo(), tiny("single"), tiny("untied"), tiny("inner"), tiny("inverse"), tiny("relu")] {
        let mut e = on(&model, LARGE);
        let n = e.run().n_tokens();
        for position in [0, n / 2, n - 1] {
            for step in steps(model.config()) {
                let head = model.config().n_head - 1;
                let at = At { head, key: 1, column: 3, ..at(step, position) };
                let run = e.run().clone();
                let page = Page::new(&run, at).unwrap();
                let what = format!("{step:?} at {position}");
                assert!(page.check.holds(), "{what}: {:?}", page.check);
                assert!(
                    page.check.difference <= 1e-4 * page.check.largest.max(1.0),
                    "{what}: {:?}",
                    page.check
                );
                let truth = truth(&run, at);
                let operands: Vec<&Operand> = page.operands().collect();
                assert_eq!(operands.len(), truth.len(), "{what}");
                for operand in operands {
                    assert_near(
                        &operand.values,
                        &truth[operand.name.as_str()],
                        &format!("{what}: {}", operand.name),
                    );
                }
                check_tables(&run, &page, &truth);
                let words =
                    [&page.title, &page.text, &page.formula, &page.shapes, &page.next, &page.check.claim];
                for words in words {
                    assert!(!words.contains(['{', '}']), "{what}: {words}");
                }
                // The same numbers stand on the screen.
                e.app.selection.position = position;
                e.app.selection.head = head;
                (e.app.selection.key, e.app.selection.column) = (1, 3);
                walk::go_to(&mut e.app, step);
                e.keys("c");
                let screen = e.lines().join("\n");
                for operand in page.operands() {
                    for x in [operand.values[0], operand.values[operand.values.len() - 1]] {
                        let text = num(x);
                        assert!(screen.contains(&text), "{what}: {text} of {}\n{screen}", operand.name);
                    }
                }
            }
        }
    }
}

#[test]
fn a_sum_that_does_not_hold_is_red_with_its_difference() {
    for (site, step, claim) in [
        (Site::ResidMid, Kind::ResidMid, "resid_mid = resid_pre + attn_out"),
        (Site::ResidPost, Kind::ResidPost, "resid_post = resid_mid + mlp_out"),
        (Site::Pattern, Kind::Softmax, "the rows of the pattern sum to 1"),
        (Site::AttnScores, Kind::Scale, "is what the run holds"),
    ] {
        let mut e = on(&demo(), LARGE);
        let edit = Edit(site.at(1), |x: &Tensor| Ok((x + 0.5)?));
        let model = demo();
        let run = Run::new(&model, Input::text(PROMPT), HookFilter::all(model.config()), edit).unwrap();
        let summary = Arc::clone(e.app.summary.as_ref().unwrap());
        let (id, run) = (e.app.job_id, Arc::new(run));
        e.send(Message::Engine(Event::Job { id, said: Said::Ran { run, summary, left: 0 } }));
        walk::go_to(&mut e.app, Step { kind: step, layer: Some(1) });
        e.keys(", end").app.selection.position = 4;
        walk::go_to(&mut e.app, Step { kind: step, layer: Some(1) });
        e.keys(",");
        let said = e.lines().into_iter().find(|line| line.contains('✗')).unwrap_or_default();
        assert!(said.contains(claim) && said.contains("does not hold"), "{site:?}: {}", e.lines().join("\n"));
        let difference = if site == Site::Pattern { "7.500" } else { "0.500" };
        assert!(said.contains(difference), "{site:?}: {said}");
        let (x, y) = e.find("✗");
        assert_eq!(e.draw()[(x, y)].fg, Theme::default().bad().fg.unwrap());
        // The other block is whole.
        walk::go_to(&mut e.app, Step { kind: step, layer: Some(0) });
        e.keys(",");
        assert!(e.shows("✓") && !e.shows("✗"), "{}", e.lines().join("\n"));
    }
}

#[test]
fn nan_is_a_difference() {
    let model = demo();
    let edit = Edit(Site::ResidMid.at(0), |x: &Tensor| Ok((x * f64::NAN)?));
    let run = Run::new(&model, Input::text("One two"), HookFilter::all(model.config()), edit).unwrap();
    for step in steps(model.config()).into_iter().skip(15) {
        let page = Page::new(&run, at(step, 1));
        let check = page.unwrap().check;
        assert!(!check.holds() || check.difference == 0.0, "{step:?}: {check:?}");
    }
}

/// A checkpoint of GPT-2's vocabulary and context, and otherwise as small as can be.
#[test]
fn the_row_of_hello_is_31373_of_50257() {
    let dir = tempfile::tempdir().unwrap();
    let (v, max, c) = (50257, 1024, 4);
    let config = format!(
        r#"{{"model_type":"gpt2","vocab_size":{v},"n_positions":{max},"n_embd":{c},"n_layer":1,"n_head":1,"n_inner":4}}"#
    );
    std::fs::write(dir.path().join("config.json"), config).unwrap();
    let tensor = |dims: &[usize]| {
        let n: usize = dims.iter().product();
        let values: Vec<f32> = (0..n).map(|i| ((i * 37 % 1001) as f32 - 500.0) / 500.0).collect();
        Tensor::from_vec(values, dims, &Device::Cpu).unwrap()
    };
    let shapes: [(&str, &[usize]); 16] = [
        ("wte.weight", &[v, c]),
        ("wpe.weight", &[max, c]),
        ("h.0.ln_1.weight", &[c]),
        ("h.0.ln_1.bias", &[c]),
        ("h.0.attn.c_attn.weight", &[c, 3 * c]),
        ("h.0.attn.c_attn.bias", &[3 * c]),
        ("h.0.attn.c_proj.weight", &[c, c]),
        ("h.0.attn.c_proj.bias", &[c]),
        ("h.0.ln_2.weight", &[c]),
        ("h.0.ln_2.bias", &[c]),
        ("h.0.mlp.c_fc.weight", &[c, 4]),
        ("h.0.mlp.c_fc.bias", &[4]),
        ("h.0.mlp.c_proj.weight", &[4, c]),
        ("h.0.mlp.c_proj.bias", &[c]),
        ("ln_f.weight", &[c]),
        ("ln_f.bias", &[c]),
    ];
    let tensors: HashMap<_, _> = shapes.into_iter().map(|(name, dims)| (name, tensor(dims))).collect();
    candle_core::safetensors::save(&tensors, dir.path().join("model.safetensors")).unwrap();
    let model = load(dir.path());
    let mut e = Explorer::with_model(Arc::clone(&model), Input::ids([31373]), MIDDLE, Theme::default());
    e.keys("6 right");
    let screen = e.lines().join(" ").split_whitespace().collect::<Vec<_>>().join(" ");
    for text in ["Row 31373 of 50257", "(50257, 4)", "◂31373", "31372 ", "▸31373", "31374 "] {
        assert!(screen.contains(text), "{text}\n{}", e.lines().join("\n"));
    }
    let page = Page::new(e.run(), walk::at(&e.app)).unwrap();
    assert_eq!(page.magnifier.iter().map(|line| line.index).collect::<Vec<_>>(), [31372, 31373, 31374]);
    for line in &page.magnifier {
        assert_eq!(line.values, values(&model.net.wte.rows(&[line.index as u32]).unwrap()));
        assert!(e.shows(&line.values.iter().map(|x| num(*x)).collect::<Vec<_>>().join(" ")));
    }
    e.keys("right");
    let screen = e.lines().join(" ").split_whitespace().collect::<Vec<_>>().join(" ");
    for text in ["Row 0 of 1024", "(1024, 4)", "▸position 0", "position 1 "] {
        assert!(screen.contains(text), "{text}\n{}", e.lines().join("\n"));
    }
    // W_U has 50,257 columns.
    e.keys("end left left");
    assert!(e.shows("(4, 50257)") && e.shows("✓"), "{}", e.lines().join("\n"));
}

#[test]
fn words_are_those_of_the_model() {
    let page = |name: &str, kind: Kind, layer: usize| {
        let run = Run::all(&tiny(name), Input::ids(IDS)).unwrap();
        let layer = Kind::BLOCK.contains(&kind).then_some(layer);
        Page::new(&run, at(Step { kind, layer }, 4)).unwrap()
    };
    for (name, kind, layer, said, unsaid) in [
        ("plain", Kind::Tokens, 0, "given as ids", "A tokenizer cuts"),
        ("plain", Kind::Scale, 0, "√d_head", "configuration"),
        ("unscaled", Kind::Scale, 0, "no scaling", "Dividing by"),
        ("inverse", Kind::Scale, 1, "here by 2", "switched off"),
        ("plain", Kind::MlpPost, 0, "gelu_new", "relu"),
        ("relu", Kind::MlpPost, 0, "relu", "gelu"),
        ("gelu", Kind::MlpPost, 0, "gelu", "gelu_new"),
        ("plain", Kind::Logits, 0, "each row of wte", "W_U"),
        ("untied", Kind::Logits, 0, "W_U", "very matrix"),
        ("single", Kind::Heads, 0, "single head", "pieces of d_head"),
        ("single", Kind::ResidPost, 0, "is the last", "next block"),
        ("plain", Kind::ResidPost, 0, "next block", "is the last"),
        ("inner", Kind::MlpPre, 0, "100 neurons", "192"),
        ("plain", Kind::Ln1, 1, "Block 1 does", "two halves"),
    ] {
        let text = page(name, kind, layer).text;
        assert!(text.contains(said) && !text.contains(unsaid), "{name}, {kind:?}: {text}");
    }
    let eps = page("eps", Kind::Ln1, 0).formula;
    assert!(eps.contains("ε = 1e-3"), "{eps}");
    let run = Run::all(&demo(), Input::text(PROMPT).with_bos(true)).unwrap();
    let tokens = Page::new(&run, at(Step::FIRST, 0)).unwrap();
    assert!(tokens.text.contains("BOS") && tokens.check.holds(), "{tokens:?}");
}

#[test]
fn what_there_is_not_is_refused_with_the_range() {
    let run = Run::all(&tiny("plain"), Input::ids(IDS)).unwrap();
    let step = Step { kind: Kind::Scores, layer: Some(0) };
    let block = Step { layer: Some(3), ..step };
    for (at, said) in [
        (at(step, 9), "position 9 is out of range (0 to 8)"),
        (at(block, 0), "block 3 is out of range (0 to 2)"),
        (At { head: 4, ..at(step, 0) }, "head 4 is out of range (0 to 3)"),
    ] {
        assert_eq!(Page::new(&run, at).unwrap_err().to_string(), said);
    }
}

// Keys and mouse.

fn index(e: &Explorer) -> usize {
    walk::step(&e.app).index(e.run().config())
}

#[test]
fn steps_are_walked_skipped_and_jumped_to() {
    let mut e = on(&demo(), LARGE);
    assert_eq!(index(&e), 0);
    e.keys("right j l down");
    assert_eq!(index(&e), 4);
    e.keys("left k");
    assert_eq!(index(&e), 2);
    e.keys("} ");
    assert_eq!(walk::step(&e.app), Step { kind: Kind::Ln1, layer: Some(0) });
    e.keys("right right right } }");
    assert_eq!(walk::step(&e.app), Step { kind: Kind::Scores, layer: Some(2) });
    assert!(e.shows("block 2, head 0"));
    e.keys("] ] . . .");
    assert_eq!((e.app.selection.head, e.app.selection.position), (2, 3));
    assert!(e.shows("block 2, head 2"));
    e.keys("end");
    assert_eq!(index(&e), 68);
    e.keys("right");
    assert_eq!(index(&e), 68, "the last step stays");
    e.keys("{");
    assert_eq!(walk::step(&e.app), Step { kind: Kind::ResidPost, layer: Some(3) });
    e.keys("home {");
    assert_eq!(index(&e), 0);
    e.keys("s").text("17").keys("enter");
    assert_eq!(index(&e), 16);
    e.keys("s").text("softmax 2").keys("enter");
    assert_eq!(walk::step(&e.app), Step { kind: Kind::Softmax, layer: Some(2) });
    // The block is that of the other screens.
    e.keys("4 { 6");
    assert_eq!(walk::step(&e.app), Step { kind: Kind::Softmax, layer: Some(1) });
}

#[test]
fn the_mouse_steps_too() {
    let mut e = on(&demo(), LARGE);
    e.mouse(MouseEventKind::ScrollDown, 50, 20);
    e.mouse(MouseEventKind::ScrollDown, 50, 20);
    assert_eq!(index(&e), 2);
    e.mouse(MouseEventKind::ScrollUp, 50, 20);
    assert_eq!(index(&e), 1);
    let (x, y) = e.find("━");
    let mut seen = std::collections::HashSet::new();
    for x in x..159 {
        e.click(x, y);
        seen.insert(index(&e));
        e.draw();
    }
    assert!(seen.len() > 60, "{} of 69 steps are reached by clicks", seen.len());
    // A key in the list of scores is taken apart.
    e.keys("home s").text("scores 0").keys("enter end . . . . . . . . s").text("scores 0").keys("enter");
    let (x, y) = e.find(" 2 ·man ");
    e.click(x + 2, y);
    assert_eq!(e.app.selection.key, 2, "{}", e.lines().join("\n"));
}

#[test]
fn enter_opens_the_tensor_and_esc_comes_back() {
    let model = demo();
    for step in steps(model.config()) {
        let mut e = on(&model, SMALL);
        e.keys(". . ]");
        walk::go_to(&mut e.app, step);
        if step.kind == Kind::Next {
            continue;
        }
        let before = e.app.selection;
        e.keys("enter");
        assert_ne!(e.app.screen, Screen::Walk, "{step:?}");
        let (now, then) = (e.app.selection, before);
        assert_eq!((now.layer, now.head, now.position), (then.layer, then.head, then.position), "{step:?}");
        if e.app.screen == Screen::Stages {
            assert_eq!(Some(e.app.selection.hook), step.hook());
        }
        e.draw();
        e.keys("esc");
        assert_eq!((e.app.screen, walk::step(&e.app)), (Screen::Walk, step));
        // From elsewhere there is nothing to come back from.
        e.keys("enter w esc");
        assert_eq!(e.app.screen, Screen::Weights, "{step:?}");
    }
}

#[test]
fn the_loop_closes() {
    let mut e = on(&demo(), MIDDLE);
    e.keys("end");
    let n = e.run().n_tokens();
    assert!(e.shows("The text itself goes on"));
    e.keys("enter");
    assert_eq!(e.app.selection.position, n - 1, "first to the last token");
    let page = Page::new(e.run(), walk::at(&e.app)).unwrap();
    let chosen = e.app.sampling.draw(e.run()).unwrap();
    assert!(page.text.contains(&demo().tokenizer.show(chosen)));
    e.keys("enter");
    assert_eq!((e.run().n_tokens(), e.run().tokens[n]), (n + 1, chosen), "what was shown is appended");
    assert_eq!((e.app.selection.position, index(&e)), (n, 0), "and followed from the first step on");
    let single = tiny("single");
    let ids: Vec<u32> = (0..32).collect();
    let mut e = Explorer::with_model(single, Input::ids(ids), MIDDLE, Theme::default());
    e.keys("6 end enter enter");
    assert_eq!(e.run().n_tokens(), 32);
    assert!(e.shows("all that this model takes"), "{}", e.lines().join("\n"));
}

#[test]
fn it_plays_by_itself_and_only_then_needs_time() {
    let mut e = on(&demo(), SMALL);
    assert!(!e.app.needs_ticks());
    e.keys("p + + + +");
    assert!(e.app.needs_ticks() && e.shows("1 s a step"), "{}", e.lines().join("\n"));
    let second = 1000 / walk::TICK.as_millis() as usize + 1;
    for _ in 0..second {
        e.send(Message::Tick);
    }
    assert_eq!(index(&e), 1);
    e.keys("right");
    for _ in 0..second {
        e.send(Message::Tick);
    }
    assert_eq!(index(&e), 3, "moving starts the time of the next step");
    e.keys("?");
    assert!(!e.app.needs_ticks(), "it waits under a panel");
    e.keys("esc");
    assert!(e.app.needs_ticks());
    e.keys("1");
    assert!(!e.app.needs_ticks());
    e.keys("6 esc");
    assert!(!e.app.needs_ticks(), "Esc stops it");
    e.keys("end p");
    for _ in 0..second {
        e.send(Message::Tick);
    }
    assert!(!e.app.needs_ticks(), "it ends with the last step");
}
