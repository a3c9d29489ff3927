//! Figures: well-formed, nothing cut or overlapping, every cell of the colour of its value.

#[path = "figure/walk.rs"]
mod walk;

use std::sync::{Arc, OnceLock};

use actscope::analysis::{AttnStage, View, ViewSource};
use actscope::export::figure::{Figure, Options};
use actscope::hooks::{Edit, HookFilter, HookName, Quantity, Site};
use actscope::picture::colormap::Depth;
use actscope::picture::colormap::Palette;
use actscope::picture::range::{Range, RangeMode};
use actscope::{Input, Model, Run};
use candle_core::Tensor;
use proptest::prelude::*;
use resvg::usvg::{self, Node, Rect, fontdb};
use unicode_width::UnicodeWidthStr;

fn demo() -> &'static Arc<Model> {
    static MODEL: OnceLock<Arc<Model>> = OnceLock::new();
    MODEL.get_or_init(|| Arc::new(Model::demo()))
}

/// A run of `n` tokens of English, with `hooks` kept.
fn run_of(n: usize, hooks: &[&str]) -> Run {
    let text = "\"Well,\" said <the> quick & brown fox's friend,\nunquestionably lazy. ".repeat(n / 8 + 1);
    let ids = demo().tokenizer.encode(&text).unwrap();
    let keep = HookFilter::new(hooks, demo().config()).unwrap();
    Run::new(demo(), Input::ids(&ids[..n]), keep, ()).unwrap()
}

fn figure(run: &Run, hook: &str, head: Option<usize>) -> Figure {
    let hook = HookName::find(hook, run.config()).unwrap();
    Figure::new(run, ViewSource::Tensor(hook.into()), head, Options::default()).unwrap()
}

/// An SVG, its words set in the font that PNGs have.
fn tree(svg: &str) -> usvg::Tree {
    static FONTS: OnceLock<Arc<fontdb::Database>> = OnceLock::new();
    let fonts = FONTS.get_or_init(|| {
        let mut fonts = fontdb::Database::new();
        for font in [dejavu::sans::regular(), dejavu::sans::bold()] {
            fonts.load_font_data(font.to_vec());
        }
        Arc::new(fonts)
    });
    let options = usvg::Options { fontdb: Arc::clone(fonts), ..usvg::Options::default() };
    usvg::Tree::from_str(svg, &options).unwrap()
}

/// The texts of an SVG with their boxes, and the size of the whole.
fn texts(svg: &str) -> (Vec<(String, Rect)>, usvg::Size) {
    let tree = tree(svg);
    let mut found = Vec::new();
    collect(tree.root(), &mut found);
    (found, tree.size())
}

fn collect(group: &usvg::Group, found: &mut Vec<(String, Rect)>) {
    for node in group.children() {
        match node {
            Node::Group(group) => collect(group, found),
            Node::Text(text) => {
                let words = text.chunks().iter().map(usvg::TextChunk::text).collect();
                found.push((words, text.abs_bounding_box()));
            }
            _ => {}
        }
    }
}

/// No text leaves the canvas or touches another.
fn assert_laid_out(svg: &str, what: &str) {
    let (texts, size) = texts(svg);
    assert!(texts.len() > 5, "{what}");
    // A text's box has room above and below that no letter takes.
    let apart = |a: &Rect, b: &Rect| {
        const SLACK: f32 = 1.5;
        a.right() < b.left() + SLACK
            || b.right() < a.left() + SLACK
            || a.bottom() < b.top() + SLACK
            || b.bottom() < a.top() + SLACK
    };
    for (i, (text, area)) in texts.iter().enumerate() {
        let inside = area.left() >= 0.0
            && area.top() >= 0.0
            && area.right() <= size.width()
            && area.bottom() <= size.height();
        assert!(inside, "{what}: {text:?} at {area:?} leaves {size:?}");
        for (other, other_area) in &texts[i + 1..] {
            assert!(apart(area, other_area), "{what}: {text:?} {area:?} touches {other:?} {other_area:?}");
        }
    }
}

fn pixels(png: &[u8]) -> (usize, usize, Vec<[u8; 3]>) {
    let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
    let mut samples = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut samples).unwrap();
    assert_eq!((info.color_type, info.bit_depth), (png::ColorType::Rgb, png::BitDepth::Eight));
    (info.width as usize, info.height as usize, samples.as_chunks().0.to_vec())
}

/// The place of each picture in an SVG: x, y, width, height; the colour bar is the last.
fn images(svg: &str) -> Vec<[f32; 4]> {
    let document = roxmltree::Document::parse(svg).unwrap();
    let images = document.descendants().filter(|node| node.has_tag_name("image"));
    images
        .map(|node| ["x", "y", "width", "height"].map(|name| node.attribute(name).unwrap().parse().unwrap()))
        .collect()
}

#[test]
fn nothing_is_cut_or_overlaps() {
    let hooks = ["*.1", "embed", "logits", "probs", "ln_final_scale"];
    for n in [1, 3, 40] {
        let run = run_of(n, &hooks);
        for (hook, _) in run.cache.iter() {
            let heads: &[Option<usize>] =
                if View::hook(hook, 0).has_heads() { &[None, Some(5)] } else { &[None] };
            for &head in heads {
                let svg = figure(&run, &hook.to_string(), head).to_svg();
                assert_laid_out(&svg, &format!("{hook} {head:?} for {n} tokens"));
            }
        }
    }
    let run = run_of(250, &hooks);
    for (hook, head) in
        [("resid_mid.1", None), ("pattern.1", Some(3)), ("attn_scores.1", None), ("ln1_scale.1", None)]
    {
        assert_laid_out(&figure(&run, hook, head).to_svg(), hook);
    }
    for source in [ViewSource::Wte, ViewSource::Wpe, ViewSource::Stage(1, AttnStage::Scaled)] {
        let head = matches!(source, ViewSource::Stage(..)).then_some(0);
        let figure = Figure::new(&run, source, head, Options::default()).unwrap();
        assert_laid_out(&figure.to_svg(), &format!("{source:?}"));
    }
}

#[test]
fn charts_are_laid_out_too() {
    use actscope::analysis::heads::{Atlas, Exclude, Metric};
    use actscope::analysis::lens::{Lens, Show, hooks};
    for n in [1, 3, 40, 200] {
        let run = run_of(n, &["pattern.*", "z.*", "resid_pre.0", "resid_mid.*", "resid_post.*", "logits"]);
        let atlas = Atlas::new(&run, Exclude::default()).unwrap();
        let lens = Lens::new(&run, &hooks(run.config()), 0..n, Some(300), 1).unwrap();
        let charts = Metric::ALL.map(|metric| atlas.chart(metric)).into_iter();
        for chart in charts.chain(Show::ALL.map(|show| lens.chart(&run, show))) {
            let what = format!("{} for {n} tokens", chart.title);
            let figure = Figure::of_chart(&run, &chart, Options::default()).unwrap();
            assert_laid_out(&figure.to_svg(), &what);
            for width in [70, 100, 200] {
                let text = figure.to_ansi(width, Depth::Mono);
                assert!(text.contains(&chart.title), "{what}");
                for line in text.lines() {
                    assert!(line.width() <= width, "{what}: {} > {width}: {line}", line.width());
                }
            }
        }
    }
}

#[test]
fn it_says_what_it_shows() {
    let run = run_of(12, &["*.1"]);
    let svg = figure(&run, "pattern.1", Some(3)).to_svg();
    let (texts, _) = texts(&svg);
    let has = |wanted: &str| texts.iter().any(|(text, _)| text.contains(wanted));
    for wanted in [
        "blocks.1.attn.hook_pattern, head 3",
        "(12, 12) · demo",
        "softmax(attn_scores)",
        "query",
        "key",
        "robust 99.5 %",
        "no BOS",
        "f16 → f32",
        &demo().provenance.weights_sha256().unwrap()[..12],
    ] {
        assert!(has(wanted), "{wanted}");
    }
    for position in 0..12 {
        let token = run.token_text(position);
        let count = texts.iter().filter(|(text, _)| *text == token).count();
        assert!(count >= 2, "{token:?} should stand on both axes");
    }
    for (hook, n) in [("pattern.1", 2), ("attn_scores.1", 2), ("q.1", 0)] {
        let svg = figure(&run, hook, Some(3)).to_svg();
        assert_eq!(svg.matches("fill=\"url(#hatch)\"").count(), n, "{hook}: the picture and the legend");
    }
}

#[test]
fn all_heads_are_shown_if_none_is_chosen() {
    let run = run_of(5, &["q.1"]);
    let svg = figure(&run, "q.1", None).to_svg();
    let n_head = demo().config().n_head;
    assert_eq!(images(&svg).len(), n_head + 1);
    assert!(svg.contains(&format!("head {}", n_head - 1)));
}

#[test]
fn each_cell_has_the_color_of_its_value() {
    let run = run_of(9, &["resid_mid.2", "pattern.0"]);
    for (hook, head, palette, dark) in [
        ("resid_mid.2", None, Palette::BlueRed, false),
        ("resid_mid.2", None, Palette::OrangePurple, true),
        ("pattern.0", Some(2), Palette::BlueRed, false),
    ] {
        let hook = HookName::find(hook, run.config()).unwrap();
        let options = Options { palette, dark, ..Options::default() };
        let figure = Figure::new(&run, ViewSource::Tensor(hook.into()), head, options).unwrap();
        let (width, height, pixels) = pixels(&figure.to_png().unwrap());
        let svg = figure.to_svg();
        let [x, y, w, h] = images(&svg)[0];
        let size = texts(&svg).1;
        assert_eq!((width as f32, height as f32), (size.width() * 2.0, size.height() * 2.0));

        let matrix = View::hook(hook, head.unwrap_or(0)).matrix(&run).unwrap();
        let quantity = hook.point().quantity;
        let range = Range::new(&matrix, quantity, RangeMode::suited(quantity));
        let map = palette.map(quantity, !dark);
        for row in 0..matrix.n_rows {
            let shown = if matrix.n_columns == matrix.n_rows { row + 1 } else { matrix.n_columns };
            for (column, value) in matrix.row(row).into_iter().take(shown).enumerate() {
                // Not the middle: a number may be there.
                let px = (x + (column as f32 + 0.2) * w / matrix.n_columns as f32) * 2.0;
                let py = (y + (row as f32 + 0.2) * h / matrix.n_rows as f32) * 2.0;
                let pixel = pixels[py as usize * width + px as usize];
                assert_eq!(pixel, map.at(range.at(value, range.limit)), "{hook} [{row}, {column}] = {value}");
            }
        }
    }
}

#[test]
fn values_that_should_not_be_are_marked() {
    let model = demo();
    let spoil = Edit(Site::ResidMid.at(1), |x: &Tensor| {
        let mut values: Vec<f32> = x.flatten_all()?.to_vec1()?;
        (values[0], values[1]) = (f32::NAN, f32::INFINITY);
        Ok(Tensor::from_vec(values, x.shape(), x.device())?)
    });
    let keep = HookFilter::new(&["resid_mid.1"], model.config()).unwrap();
    let run = Run::new(model, Input::text("one two three"), keep, spoil).unwrap();
    let figure = figure(&run, "resid_mid.1", None);
    let svg = figure.to_svg();
    assert!(svg.contains("2 NaN or inf"));
    let (width, _, pixels) = pixels(&figure.to_png().unwrap());
    let [x, y, ..] = images(&svg)[0];
    assert_eq!(pixels[(y * 2.0) as usize * width + 2 * width + (x * 2.0) as usize + 4], [255, 0, 255]);
    assert!(figure.to_ansi(80, Depth::Mono).contains('?'));
    assert!(figure.to_ansi(80, Depth::True).contains("48;2;255;0;255"));
}

#[test]
fn every_mode_draws() {
    let run = run_of(6, &["resid_mid.1", "probs"]);
    for hook in ["resid_mid.1", "probs"] {
        let source = ViewSource::Tensor(HookName::find(hook, run.config()).unwrap().into());
        for mode in RangeMode::ALL {
            let options = Options { range: Some(mode), ..Options::default() };
            let figure = Figure::new(&run, source, None, options).unwrap();
            assert!(figure.to_svg().contains(mode.name()));
            assert_laid_out(&figure.to_svg(), mode.name());
            assert!(figure.to_ansi(80, Depth::Indexed).contains(mode.name()));
        }
    }
}

#[test]
fn text_has_labels_and_keeps_to_the_width() {
    for n in [3, 40, 120] {
        let run = run_of(n, &["*.1"]);
        for (hook, head) in
            [("resid_mid.1", None), ("pattern.1", Some(1)), ("attn_scores.1", None), ("ln1_scale.1", None)]
        {
            let figure = figure(&run, hook, head);
            for width in [70, 100, 200] {
                let text = figure.to_ansi(width, Depth::Mono);
                assert!(!text.contains('\x1b'));
                assert!(text.contains("·quick") || n == 3, "{hook} {width}\n{text}");
                assert!(text.contains("weights sha256"));
                for line in text.lines() {
                    assert!(
                        line.width() <= width,
                        "{hook} for {n} tokens: {} > {width}: {line}",
                        line.width()
                    );
                }
                let colored = figure.to_ansi(width, Depth::True);
                for line in colored.lines().filter(|line| line.contains('\x1b')) {
                    let last = line.rsplit('\x1b').next().unwrap();
                    assert!(last.starts_with("[0m"), "colours end with the line: {line:?}");
                }
            }
        }
    }
    let run = run_of(3, &["pattern.1", "attn_scores.1"]);
    let values = View::hook(Site::Pattern.at(1), 1).matrix(&run).unwrap().row(2);
    let text = figure(&run, "pattern.1", Some(1)).to_ansi(80, Depth::Mono);
    assert!(text.contains(&format!("{:.2}", values[0])), "few cells have their numbers printed:\n{text}");
    assert!(figure(&run, "attn_scores.1", Some(1)).to_ansi(80, Depth::Mono).contains("╱ masked: the future"));
}

#[test]
fn half_blocks_hold_two_rows() {
    let run = run_of(60, &["resid_mid.1"]);
    let text = figure(&run, "resid_mid.1", None).to_ansi(100, Depth::True);
    assert_eq!(text.lines().filter(|line| line.contains('▀')).count(), 30);
}

#[test]
fn heads_that_are_not_there_are_refused() {
    let run = run_of(3, &["resid_mid.1", "pattern.1"]);
    for (site, head) in [(Site::ResidMid, 0), (Site::Pattern, 6), (Site::Pattern, usize::MAX), (Site::Q, 0)] {
        let source = ViewSource::Tensor(site.at(1).into());
        let error = Figure::new(&run, source, Some(head), Options::default()).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{error}");
    }
    assert_eq!(Site::Pattern.point().quantity, Quantity::Probability);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn any_width_draws(n in 1usize..60, width in 0usize..250, depth in 0..3) {
        let colors = [Depth::True, Depth::Indexed, Depth::Mono][depth as usize];
        let run = run_of(n, &["attn_scores.0", "resid_pre.0", "ln1_scale.0"]);
        for hook in ["attn_scores.0", "resid_pre.0", "ln1_scale.0"] {
            prop_assert!(figure(&run, hook, None).to_ansi(width, colors).ends_with('\n'));
        }
    }
}
