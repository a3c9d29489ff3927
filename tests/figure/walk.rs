//! The walk as a note: figures that are drawn whole, numbers that are the run's, links that lead
//! somewhere.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use actscope::analysis::View;
use actscope::analysis::walk::Kind;
use actscope::export::walk::{Focus, MARKDOWN, Walk};
use actscope::hooks::{HookName, Quantity, Site};
use actscope::interventions::Interventions;
use actscope::model::source::OnProgress;
use actscope::model::{LoadOptions, Source};
use actscope::picture::colormap::Depth;
use actscope::picture::range::{Range, RangeMode};
use actscope::text::num;
use actscope::{Input, Model, Run};
use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{self, Node};
use roxmltree::{Document, ParsingOptions};
use serde_json::Value;
use unicode_width::UnicodeWidthStr;

use super::{assert_laid_out, demo, tree};

const PROMPT: &str =
    "\"Well,\" said <the> quick & brown fox's friend,\n\u{7}unquestionably lazy | `so` *so*.";

/// A small checkpoint without tokenizer, with some fields of its configuration changed.
fn tiny(name: &str, changes: &[(&str, Value)]) -> Arc<Model> {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny").join(name);
    let dir = tempfile::tempdir().unwrap();
    let config = std::fs::read(from.join("config.json")).unwrap();
    let mut config: Value = serde_json::from_slice(&config).unwrap();
    for (field, value) in changes {
        config[*field] = value.clone();
    }
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    std::fs::copy(from.join("model.safetensors"), dir.path().join("model.safetensors")).unwrap();
    let source = Source::parse(dir.path().to_str().unwrap());
    let progress: OnProgress = Arc::new(|_| {});
    let model = Model::load(&source, &LoadOptions::default(), &progress).unwrap();
    model.provenance.weights_sha256().unwrap();
    Arc::new(model)
}

/// The walks that are looked at: models with and without tokenizer, with one block, one head, an
/// unembedding and an activation function of their own; tokens at the start, inside and at the end.
fn walks() -> Vec<(&'static str, Walk)> {
    let ids = |n: u32| Input::ids((0..n).map(|i| i * 7 % 97).collect::<Vec<_>>());
    let at = |position: usize, layer, head| Focus { position: Some(position), layer, head };
    let n = demo().tokenizer.encode(PROMPT).unwrap().len();
    let last = demo().config().n_layer - 1;
    let untied = [("scale_attn_by_inverse_layer_idx", true.into())];
    let relu = [("n_head", 1.into())];
    let plan: [(_, &Arc<Model>, _, _); 9] = [
        ("inside", demo(), Input::text(PROMPT), at(n / 2, 1, 5)),
        ("at the end", demo(), Input::text(PROMPT).with_bos(true), at(n, last, 2)),
        ("one token", demo(), Input::text("a"), Focus::default()),
        ("long", demo(), Input::text("so it goes on ".repeat(40)), at(77, 0, 0)),
        ("ids", &tiny("plain", &[]), ids(5), at(2, 1, 3)),
        ("full", &tiny("plain", &[]), ids(32), at(31, 2, 0)),
        ("one block", &tiny("plain", &[("n_layer", 1.into())]), ids(3), at(0, 0, 0)),
        ("one head", &tiny("relu", &relu), ids(3), Focus::default()),
        ("untied", &tiny("untied", &untied), ids(9), at(8, 1, 0)),
    ];
    plan.into_iter().map(|(name, model, input, at)| (name, Walk::new(model, input, at).unwrap())).collect()
}

#[test]
fn every_figure_is_drawn_whole_and_says_what_it_is() {
    for (name, walk) in walks() {
        let files = walk.to_files().unwrap();
        let svgs: Vec<_> = files.iter().filter(|(file, _)| file != MARKDOWN).collect();
        assert_eq!(svgs.len(), 2 * walk.pages().len());
        for (file, svg) in svgs {
            let what = format!("{name}, {file}");
            let document = Document::parse(svg).unwrap_or_else(|error| panic!("{what}: {error}"));
            let root = document.root_element();
            assert_eq!(root.attribute("role"), Some("img"), "{what}");
            for tag in ["title", "desc"] {
                let node = root.children().find(|node| node.has_tag_name(tag)).unwrap();
                assert!(node.text().is_some_and(|text| text.len() > 4), "{what}: {tag}");
                assert!(root.attribute("aria-labelledby").unwrap().contains(node.attribute("id").unwrap()));
            }
            // Light and dark differ in colours alone.
            let is_dark = file.contains("-dark");
            if is_dark && name != "inside" {
                continue;
            }
            if !is_dark {
                assert_laid_out(svg, &what);
            }
            let tree = tree(svg);
            legible(tree.root(), &what);
            let size = tree.size().to_int_size();
            let mut pixmap = Pixmap::new(size.width(), size.height()).unwrap();
            resvg::render(&tree, Transform::identity(), &mut pixmap.as_mut());
            let dark = pixmap.pixel(2, 2).unwrap().green() < 128;
            assert_eq!(dark, is_dark, "{what}");
            let colours: HashSet<_> =
                pixmap.pixels().iter().map(|p| (p.red(), p.green(), p.blue())).collect();
            assert!(colours.len() > 30, "{what}: {} colours", colours.len());
        }
    }
}

/// No words smaller than 13 pixels.
fn legible(group: &usvg::Group, what: &str) {
    for node in group.children() {
        match node {
            Node::Group(group) => legible(group, what),
            Node::Text(text) => {
                for span in text.chunks().iter().flat_map(usvg::TextChunk::spans) {
                    assert!(span.font_size().get() >= 13.0, "{what}: {:?}", text.chunks()[0].text());
                }
            }
            _ => {}
        }
    }
}

#[test]
fn links_lead_to_the_files_and_every_figure_is_shown() {
    for (name, walk) in walks() {
        let files = walk.to_files().unwrap();
        let (last, markdown) = files.last().unwrap();
        assert_eq!(last, MARKDOWN);
        let shown = |attribute: &str| {
            let parts: Vec<_> = markdown.split(&format!(" {attribute}=\"")).skip(1).collect();
            parts.iter().map(|part| part.split('"').next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let links: Vec<_> = [shown("src"), shown("srcset")].concat();
        let written: HashSet<_> = files.iter().map(|(name, _)| name.clone()).collect();
        assert_eq!(written.len(), files.len(), "{name}: two files of a name");
        assert_eq!(links.len() + 1, files.len(), "{name}");
        assert!(links.iter().all(|link| written.contains(link)), "{name}: {links:?}");
        assert!(shown("alt").len() == walk.pages().len() && shown("alt").iter().all(|alt| alt.len() > 4));
        assert_eq!(markdown.matches("\n✓ ").count(), walk.pages().len(), "{name}: a check does not hold");
        // A pipe or a fence inside a token must not end its cell.
        for table in markdown.split("\n\n").filter(|part| part.starts_with('|')) {
            let cells = |line: &str| line.replace("\\|", "").matches('|').count();
            let n = cells(table.lines().next().unwrap());
            assert!(table.lines().all(|line| cells(line) == n), "{name}: {table}");
        }
    }
}

#[test]
fn the_numbers_are_those_of_the_run() {
    let (t, l, h) = (7, 1, 5);
    let run = Run::all(demo(), Input::text(PROMPT)).unwrap();
    let walk =
        Walk::new(demo(), Input::text(PROMPT), Focus { position: Some(t), layer: l, head: h }).unwrap();
    let files = walk.to_files().unwrap();
    let markdown = &files.last().unwrap().1;
    let steps: Vec<_> = markdown.split("\n## ").skip(1).collect();
    let step = |kind: Kind| steps[walk.pages().iter().position(|page| page.at.step.kind == kind).unwrap()];
    let ends = |row: &[f32]| {
        let words = |row: &[f32]| row.iter().map(|x| num(*x)).collect::<Vec<_>>().join(" ");
        format!("`{} … {}`", words(&row[..4]), words(&row[row.len() - 4..]))
    };
    for (kind, name, site) in [
        (Kind::Wte, "embed", Site::Embed),
        (Kind::Wpe, "pos_embed", Site::PosEmbed),
        (Kind::Ln1, "normalized", Site::Ln1Normalized),
        (Kind::Qkv, "ln1", Site::Ln1Out),
        (Kind::Scores, "q", Site::Q),
        (Kind::Softmax, "masked", Site::AttnScores),
        (Kind::Softmax, "pattern", Site::Pattern),
        (Kind::Z, "z", Site::Z),
        (Kind::ResidMid, "attn_out", Site::AttnOut),
        (Kind::ResidMid, "resid_mid", Site::ResidMid),
        (Kind::MlpPre, "pre", Site::MlpPre),
        (Kind::MlpPost, "post", Site::MlpPost),
        (Kind::ResidPost, "mlp_out", Site::MlpOut),
        (Kind::ResidPost, "resid_post", Site::ResidPost),
        (Kind::Logits, "out", Site::LnFinalOut),
        (Kind::Logits, "logits", Site::Logits),
    ] {
        let row = View::hook(site.near(l), h).matrix(&run).unwrap().row(t);
        let line = format!("| `{name}[{t}]` | ({}, {}) | {} |", run.n_tokens(), row.len(), ends(&row));
        assert!(step(kind).contains(&line), "{line}\n{}", step(kind));
    }
    // wte's rows before and after are under the magnifier.
    let id = run.tokens[t] as usize;
    let wte = View::of(actscope::analysis::ViewSource::Wte, 0).matrix(&run).unwrap();
    for row in [id - 1, id, id + 1] {
        let line = step(Kind::Wte).lines().find(|line| line.contains(&format!("`{row} ")));
        assert!(line.unwrap().contains(&ends(&wte.row(row))), "{line:?}");
    }
    // The likeliest tokens, with their logits and probabilities.
    let next = actscope::analysis::logits::Next::new(&run, t, 3).unwrap();
    for candidate in &next.top {
        let (logit, prob) = (num(candidate.logit), num(candidate.prob));
        let line = step(Kind::Probs)
            .lines()
            .find(|line| line.replace("**", "").starts_with(&format!("| {} |", candidate.rank)));
        let line = line.unwrap().replace("**", "");
        assert!(line.contains(&format!("| {logit} | {prob} |")), "{line}");
    }
    let origin = steps.last().unwrap();
    let ids: Vec<_> = run.tokens.iter().map(ToString::to_string).collect();
    for fact in
        [&*ids.join(","), demo().provenance.weights_sha256().unwrap(), env!("CARGO_PKG_VERSION"), "demo"]
    {
        assert!(origin.contains(fact), "{fact}");
    }
}

#[test]
fn each_cell_has_the_colour_of_its_value() {
    let (layer, head) = (1, 5);
    let run = Run::all(demo(), Input::text("one two three one two")).unwrap();
    let walk = Walk::new(demo(), run.input.clone(), Focus { position: None, layer, head }).unwrap();
    let files = walk.to_files().unwrap();
    let place = walk.pages().iter().position(|page| page.at.step.kind == Kind::Softmax).unwrap();
    let document = Document::parse(&files[2 * place].1).unwrap();
    let groups: Vec<_> = document.descendants().filter(|node| node.has_tag_name("g")).collect();
    let hook = HookName::find(&format!("pattern.{layer}"), run.config()).unwrap();
    let matrix = View::hook(hook, head).matrix(&run).unwrap();
    let range = Range::new(&matrix, Quantity::Probability, RangeMode::Robust);
    // masked, its row, pattern, its row
    let mut shown = vec![None; matrix.n_rows * matrix.n_columns];
    for path in groups[2].children() {
        let level: u8 = path.attribute("class").unwrap().strip_prefix('s').unwrap().parse().unwrap();
        for run in path.attribute("d").unwrap().split('M').skip(1) {
            let numbers: Vec<usize> =
                run.replace(".5h", " ").split(' ').map(|n| n.parse().unwrap()).collect();
            let [column, row, n] = numbers[..] else { panic!("{run}") };
            (column..column + n).for_each(|column| shown[row * matrix.n_columns + column] = Some(level));
        }
    }
    for row in 0..matrix.n_rows {
        for (column, value) in matrix.row(row).into_iter().enumerate() {
            let level = (range.at(value, range.limit) * 32.0).round() as u8;
            let wanted = (column <= row).then_some(level);
            assert_eq!(shown[row * matrix.n_columns + column], wanted, "[{row}, {column}] = {value}");
        }
    }
}

#[test]
fn the_page_is_one_whole_file() {
    for (name, walk) in walks() {
        let page = walk.to_html().unwrap();
        let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
        let document = Document::parse_with_options(&page, options).unwrap_or_else(|e| panic!("{name}: {e}"));
        let ids: Vec<_> = document.descendants().filter_map(|node| node.attribute("id")).collect();
        let unique: HashSet<_> = ids.iter().copied().collect();
        assert_eq!(ids.len(), unique.len(), "{name}: two of an id");
        let figures =
            document.descendants().filter(|node| node.has_tag_name(("http://www.w3.org/2000/svg", "svg")));
        assert_eq!(figures.count(), walk.pages().len());
        for node in document.descendants() {
            assert!(
                !["script", "link", "img", "image", "iframe"].contains(&node.tag_name().name()),
                "{name}"
            );
            for attribute in node.attributes() {
                let value = attribute.value();
                match attribute.name() {
                    "href" => assert!(unique.contains(value.strip_prefix('#').unwrap()), "{name}: {value}"),
                    "src" | "srcset" | "data" => panic!("{name}: {value}"),
                    "aria-labelledby" => assert!(value.split(' ').all(|id| unique.contains(id)), "{name}"),
                    "fill" if value.starts_with("url(#") => {
                        assert!(unique.contains(&value[5..value.len() - 1]), "{name}: {value}");
                    }
                    _ => assert!(!value.contains("url("), "{name}: {value}"),
                }
            }
        }
        assert!(!page.replace("http://www.w3.org/", "").contains("://"), "{name}: refers elsewhere");
        assert!(page.contains("@media (prefers-color-scheme:dark)"));
    }
}

#[test]
fn text_keeps_to_the_width() {
    for (name, walk) in walks() {
        for width in [40, 80, 120] {
            let plain = walk.to_ansi(width, Depth::Mono).unwrap();
            assert!(!plain.contains('\u{1b}'), "{name}");
            let (body, origin) = plain.split_at(plain.rfind("\n\n").unwrap());
            for line in body.lines().take_while(|line| *line != "Where the numbers come from") {
                assert!(line.width() <= width, "{name}: {} > {width}: {line}", line.width());
            }
            assert!(origin.contains("actscope walk"));
            assert_eq!(plain.matches("\n✓ ").count(), walk.pages().len(), "{name}");
        }
        let coloured = walk.to_ansi(100, Depth::True).unwrap();
        assert!(coloured.contains("\u{1b}[0;48;2;"), "{name}");
        for line in coloured.lines().filter(|line| line.contains('\u{1b}')) {
            let last = line.rsplit('\u{1b}').next().unwrap();
            assert!(last.starts_with("[0m"), "{name}: colours end with the line: {line:?}");
        }
    }
}

#[test]
fn what_was_changed_is_said_and_its_checks_do_not_hold() {
    let changes: Interventions = serde_json::from_str(r#"[{"change": "zero mlp:1"}]"#).unwrap();
    let input = Input::text("one two three").with_interventions(changes);
    let walk = Walk::new(demo(), input, Focus { layer: 1, ..Focus::default() }).unwrap();
    let files = walk.to_files().unwrap();
    let markdown = &files.last().unwrap().1;
    assert!(
        markdown.contains("--interventions") && markdown.contains("✗ does not hold: mlp\\_out"),
        "{markdown}"
    );
}

#[test]
fn places_that_there_are_not_are_refused() {
    for (place, said) in [
        (Focus { position: Some(2), ..Focus::default() }, "position 2 is out of range (0 to 1)"),
        (Focus { layer: 9, ..Focus::default() }, "block 9 is out of range"),
        (
            Focus { head: usize::MAX, ..Focus::default() },
            "head 18446744073709551615 is out of range (0 to 5)",
        ),
    ] {
        let error = Walk::new(demo(), Input::ids([1, 2]), place).err().unwrap();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains(said), "{error}");
    }
}
