//! A run as one self-contained page for someone without a terminal: tokens, attention, logit lens, attribution, the
//! largest activations. It needs no network; without scripts, all but the look into a single head is there.

use std::fmt::Write;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rayon::prelude::*;
use serde_json::{Value, json};

use super::Manifest;
use super::figure::{encode_rgb, escaped};
use crate::analysis::View;
use crate::analysis::attribution::Attribution;
use crate::analysis::find::Found;
use crate::analysis::heads::{Atlas, Exclude, Metric};
use crate::analysis::lens::{self, Lens};
use crate::analysis::logits::surprises;
use crate::error::Result;
use crate::hooks::{Quantity, Site};
use crate::picture::colormap::{BROKEN, Palette};
use crate::picture::grid::{Pooling, Window};
use crate::run::Run;
use crate::text::{self, count, num, prob};

/// The positions of the logit lens: the last ones, as each costs a product with W_U for every layer.
const LENS: usize = 24;
/// The parts of the logit, and the largest values, that are listed.
const LISTED: usize = 32;
/// The bytes of attention up to which it is there in full.
const FULL: usize = 12 << 20;
/// The keys of each query that are there beyond that.
const KEPT: usize = 8;
/// The side of a small map in pixels.
const SMALL: usize = 96;
/// Bits of surprise at the end of the colours.
const SURPRISED: f32 = 16.0;

/// The page of a run that kept every tensor.
///
/// # Errors
/// [`crate::Error::Usage`] for a tensor that was not kept, [`crate::Error::File`] if the weights cannot be read again
/// to be hashed.
pub fn page(run: &Run) -> Result<String> {
    let mut out = String::new();
    let prompt = run.prompt_text();
    let title = format!("actscope: {}", text::brief(&prompt, 60));
    head(&mut out, &title);
    let _ = writeln!(out, "<h1>What {} computed</h1>", escaped(&run.model.provenance.name()));
    tokens(run, &mut out);
    attention(run, &mut out)?;
    logit_lens(run, &mut out)?;
    attribution(run, &mut out)?;
    largest(run, &mut out)?;
    origin(run, &mut out)?;
    let data = data(run)?.to_string().replace('<', "\\u003c");
    let _ = write!(
        out,
        "<script type=\"application/json\" id=\"data\">{data}</script>\n<script>\n{}</script>\n</body>\n</html>\n",
        include_str!("report.js")
    );
    Ok(out)
}

/// The beginning of a page, up to its body.
pub(crate) fn head(out: &mut String, title: &str) {
    let _ = write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{}</title>\n\
         <style>\n{}</style>\n</head>\n<body>\n",
        escaped(title),
        include_str!("report.css"),
    );
}

/// The prompt, each token on the colour of its surprise, and the same as a table.
fn tokens(run: &Run, out: &mut String) {
    let surprises = surprises(run);
    out.push_str("<h2 id=\"tokens\">Tokens</h2>\n<p class=\"dim\">The prompt as the network reads it. The stronger the colour, the more the token surprised it.</p>\n<p class=\"tokens\">");
    for (position, surprise) in surprises.iter().enumerate() {
        let bits = surprise.map_or(0.0, |surprise| surprise.bits);
        let said = surprise.map_or_else(
            || "the first token".to_owned(),
            |s| format!("{} bits, rank {}", text::fixed(s.bits, 2), s.rank),
        );
        let _ = write!(
            out,
            "<span title=\"position {position}, id {}: {said}\" style=\"--s:{:.3}\">{}</span>",
            run.tokens[position],
            (bits / SURPRISED).clamp(0.0, 1.0),
            escaped(&run.token_text(position)),
        );
    }
    out.push_str("</p>\n<details><summary>As a table</summary><div class=\"scroll\"><table id=\"token-table\">\n<tr><th class=\"r\">position</th><th>token</th><th class=\"r\">id</th><th class=\"r\">bits</th><th class=\"r\">rank</th><th>expected</th><th class=\"r\">p</th></tr>\n");
    for (position, surprise) in surprises.iter().enumerate() {
        let _ = write!(
            out,
            "<tr><td class=\"r\">{position}</td><td class=\"t\">{}</td><td class=\"r\">{}</td>",
            escaped(&run.token_text(position)),
            run.tokens[position]
        );
        match surprise {
            Some(s) => {
                let (id, p) = s.expected;
                let _ = writeln!(
                    out,
                    "<td class=\"r\">{}</td><td class=\"r\">{}</td><td class=\"t\">{}</td><td class=\"r\">{}</td></tr>",
                    num(s.bits),
                    s.rank,
                    escaped(&run.model.tokenizer.show(id)),
                    prob(p)
                );
            }
            None => out.push_str("<td colspan=\"4\">the first token: nothing predicts it</td></tr>\n"),
        }
    }
    out.push_str("</table></div></details>\n");
}

/// The map of every head, small; one of them large, with scripts.
fn attention(run: &Run, out: &mut String) -> Result<()> {
    let config = run.config();
    let atlas = Atlas::with_base(run, None, Exclude::default())?.of;
    let _ = writeln!(
        out,
        "<h2 id=\"attention\">Attention</h2>\n<p class=\"dim\">Every head of every block: down, the token that reads; across, the token that is read. {}</p>\n<div class=\"scroll\"><div class=\"heads\" id=\"heads\" style=\"--heads:{}\">",
        if is_full(run) {
            "Weights are exact to 4 decimals.".to_owned()
        } else {
            format!(
                "The prompt is long: of each token, the {KEPT} largest weights are here, exact to 4 decimals; the small maps show all."
            )
        },
        config.n_head
    );
    let places: Vec<_> =
        (0..config.n_layer).flat_map(|layer| (0..config.n_head).map(move |head| (layer, head))).collect();
    let maps =
        places.par_iter().map(|&(layer, head)| small_map(run, layer, head)).collect::<Result<Vec<_>>>()?;
    for (&(layer, head), map) in places.iter().zip(maps) {
        if head == 0 {
            let _ = write!(out, "<span>{layer}</span>");
        }
        let does = atlas.job(layer, head).map_or_else(String::new, |(metric, share)| {
            format!(": {}, {} of its attention", metric.title(), text::short(share, 4))
        });
        let _ = writeln!(
            out,
            "<button type=\"button\" data-head=\"{layer}.{head}\" aria-pressed=\"false\" title=\"head {layer}.{head}{does}\"><img alt=\"attention of head {layer}.{head}{does}\" src=\"data:image/png;base64,{}\"></button>",
            STANDARD.encode(map)
        );
    }
    out.push_str("</div></div>\n<div id=\"interactive\" hidden>\n<p class=\"dim\">Choose a head above, then a token: it is coloured by what it reads.</p>\n<p class=\"tokens\" id=\"queries\"></p>\n<div class=\"look\"><canvas id=\"map\" role=\"img\"></canvas><div><p id=\"which\"></p><ol class=\"reads\" id=\"reads\"></ol></div></div>\n</div>\n");
    out.push_str(
        "<details><summary>What each head does</summary><div class=\"scroll\"><table>\n<tr><th>head</th>",
    );
    for metric in Metric::ALL {
        let _ = write!(out, "<th class=\"r\">{}</th>", metric.title());
    }
    out.push_str("</tr>\n");
    for scores in &atlas.heads {
        let _ = write!(out, "<tr><td>{}.{}</td>", scores.layer, scores.head);
        for metric in Metric::ALL {
            let _ = write!(out, "<td class=\"r\">{}</td>", num(scores.get(metric)));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</table></div></details>\n");
    Ok(())
}

fn pattern(layer: usize, head: usize) -> View {
    View::hook(Site::Pattern.at(layer), head)
}

fn small_map(run: &Run, layer: usize, head: usize) -> Result<Vec<u8>> {
    let view = pattern(layer, head);
    let n = run.n_tokens();
    let pooled = n.div_ceil(SMALL);
    let grid = view.grid(&view.stored(run)?, &Window::whole(n, n), (pooled, pooled), Pooling::Extreme);
    let most =
        grid.cells.iter().copied().filter(|x| x.is_finite()).fold(0.0, f32::max).max(f32::MIN_POSITIVE);
    let map = Palette::default().map(Quantity::Probability, false);
    let pixel = |(i, x): (usize, &f32)| {
        let (row, column) = (i / grid.n_columns, i % grid.n_columns);
        match x {
            // The future is masked.
            _ if column > row => [128, 132, 140],
            x if x.is_finite() => map.at(x / most),
            _ => BROKEN,
        }
    };
    let rgb: Vec<u8> = grid.cells.iter().enumerate().flat_map(pixel).collect();
    Ok(encode_rgb(&rgb, grid.n_columns as u32, grid.n_rows as u32))
}

/// What each layer would predict, at the last positions.
fn logit_lens(run: &Run, out: &mut String) -> Result<()> {
    let n = run.n_tokens();
    let positions = n.saturating_sub(LENS)..n;
    let hooks = lens::hooks(run.config());
    let lens = Lens::new(run, &hooks, positions.clone(), None, 1)?;
    let which = if positions.start > 0 {
        format!(" Only the last {LENS} of {n} positions are here.")
    } else {
        String::new()
    };
    let _ = write!(
        out,
        "<h2 id=\"lens\">Logit lens</h2>\n<p class=\"dim\">What the network would predict after each layer, if it ended there. The stronger the colour, the likelier.{which}</p>\n<div class=\"scroll\"><table class=\"lens\" id=\"lens-table\"><tr><th></th>"
    );
    for position in positions.clone() {
        let _ = write!(out, "<th>{}</th>", escaped(&run.token_text(position)));
    }
    out.push_str("</tr>\n");
    for &hook in hooks.iter().rev() {
        let _ = write!(out, "<tr><th>{}</th>", lens::label(hook));
        for position in positions.clone() {
            let Some(best) = lens.get(hook, position).and_then(|reading| reading.top.first()) else {
                continue;
            };
            let _ = write!(
                out,
                "<td class=\"t\" style=\"--s:{:.3}\" title=\"p {}\">{}</td>",
                best.prob.clamp(0.0, 1.0),
                prob(best.prob),
                escaped(&run.model.tokenizer.show(best.id))
            );
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</table></div>\n");
    Ok(())
}

/// What contributes to the logit of the final answer.
fn attribution(run: &Run, out: &mut String) -> Result<()> {
    let found = Attribution::new(run, run.n_tokens() - 1, None, None)?;
    let ranked = found.ranked();
    let most = ranked.first().map_or(1.0, |part| part.value.abs()).max(f64::MIN_POSITIVE);
    let _ = write!(
        out,
        "<h2 id=\"attribution\">Attribution</h2>\n<p class=\"dim\">The network expects <code>{}</code> after the prompt, with a logit of {}. It is the sum of what every part of the network contributes; {} of {} are here, largest first.</p>\n<div class=\"scroll\"><table id=\"attribution-table\">\n",
        escaped(&run.model.tokenizer.show(found.token)),
        num(found.logit as f32),
        ranked.len().min(LISTED),
        count(ranked.len(), "part"),
    );
    for part in ranked.iter().take(LISTED) {
        let side = if part.value < 0.0 { "neg" } else { "pos" };
        let _ = writeln!(
            out,
            "<tr><td>{}</td><td class=\"r\">{}</td><td class=\"bar\"><i class=\"{side}\" style=\"width:{:.1}%\"></i></td></tr>",
            part.component,
            num(part.value as f32),
            50.0 * part.value.abs() / most
        );
    }
    out.push_str("</table></div>\n");
    Ok(())
}

/// The largest value of each tensor.
fn largest(run: &Run, out: &mut String) -> Result<()> {
    let found = Found::new(run, |_, _| Ok(()))?;
    out.push_str("<h2 id=\"largest\">Largest activations</h2>\n<p class=\"dim\">The largest value of each tensor, largest first.</p>\n<div class=\"scroll\"><table id=\"largest-table\">\n<tr><th>tensor</th><th>place</th><th class=\"r\">value</th><th>token</th></tr>\n");
    for extreme in found.values.iter().take(LISTED) {
        let place: Vec<_> = extreme.cell().iter().map(ToString::to_string).collect();
        let _ = writeln!(
            out,
            "<tr><td class=\"t\">{}</td><td class=\"t\">[{}]</td><td class=\"r\">{}</td><td class=\"t\">{}</td></tr>",
            extreme.name,
            place.join(", "),
            num(extreme.value),
            escaped(&run.token_text(extreme.row))
        );
    }
    out.push_str("</table></div>\n");
    Ok(())
}

/// How the numbers came about.
fn origin(run: &Run, out: &mut String) -> Result<()> {
    let manifest = Manifest::new(run, &(0..run.n_tokens()), Vec::new())?;
    out.push_str("<h2 id=\"origin\">Where this comes from</h2>\n<dl>\n");
    for (name, value) in manifest.fields() {
        if ["hooks", "positions", "tokens"].contains(&name.as_str()) || value.is_null() {
            continue;
        }
        let shown = match &value {
            Value::String(text) => text.clone(),
            other => text::json(other),
        };
        let _ = writeln!(out, "<dt>{}</dt><dd>{}</dd>", escaped(&name.replace('_', " ")), escaped(&shown));
    }
    out.push_str("</dl>\n");
    Ok(())
}

/// Whether every weight of attention is in the page: 2 bytes each.
fn is_full(run: &Run) -> bool {
    let (config, n) = (run.config(), run.n_tokens());
    config.n_layer * config.n_head * n * (n + 1) <= FULL
}

/// The parts of 1 that a weight is counted in.
const SHARES: u16 = u16::MAX - 1;
/// What stands for NaN.
const NOT_A_NUMBER: u16 = u16::MAX;

/// What the script shows: tokens, colours, and the attention of every head as 16-bit fractions.
fn data(run: &Run) -> Result<Value> {
    let config = run.config();
    let full = is_full(run);
    let layer = |layer| {
        let head = |head| Ok(STANDARD.encode(weights(run, layer, head, full)?));
        (0..config.n_head).into_par_iter().map(head).collect::<Result<Vec<_>>>()
    };
    let layers = (0..config.n_layer).map(layer).collect::<Result<Vec<_>>>()?;
    let map = |light| {
        let map = Palette::default().map(Quantity::Probability, light);
        (0..32u8).map(|i| map.at(f32::from(i) / 31.0)).collect::<Vec<_>>()
    };
    let tokens: Vec<_> = (0..run.n_tokens()).map(|position| run.token_text(position)).collect();
    Ok(json!({
        "tokens": tokens,
        "layers": layers,
        "kept": if full { 0 } else { KEPT },
        "shares": SHARES,
        "broken": BROKEN,
        "maps": {"dark": map(false), "light": map(true)},
    }))
}

/// The pattern of a head, query by query up to itself; or the largest keys of each query, with their weights.
fn weights(run: &Run, layer: usize, head: usize, full: bool) -> Result<Vec<u8>> {
    let matrix = pattern(layer, head).matrix(run)?;
    let share = |x: f32| {
        if x.is_nan() { NOT_A_NUMBER } else { (x.clamp(0.0, 1.0) * f32::from(SHARES)).round() as u16 }
    };
    let mut bytes = Vec::new();
    for query in 0..run.n_tokens() {
        let row = &matrix.row(query)[..=query];
        if full {
            bytes.extend(row.iter().flat_map(|x| share(*x).to_le_bytes()));
            continue;
        }
        let mut keys: Vec<usize> = (0..row.len()).collect();
        keys.sort_by(|&a, &b| row[b].abs().total_cmp(&row[a].abs()));
        for i in 0..KEPT {
            // No key has this number.
            let (key, x) = keys.get(i).map_or((u16::MAX, 0.0), |&key| (key as u16, row[key]));
            bytes.extend(key.to_le_bytes());
            bytes.extend(share(x).to_le_bytes());
        }
    }
    Ok(bytes)
}
