//! What a unit does on a corpus as one self-contained page, which needs neither a network nor scripts.

use std::fmt::Write;

use super::atlas::{Atlas, OfUnit};
use super::stats;
use super::top::Example;
use crate::export::figure::escaped;
use crate::export::report;
use crate::text::{count, fixed, num};

/// The page of a unit.
pub fn page(atlas: &Atlas, unit: &OfUnit) -> String {
    let (settings, progress) = (&atlas.manifest.settings, &atlas.manifest.progress);
    let inputs: Vec<_> = settings.inputs.iter().map(|input| input.name.as_str()).collect();
    let mut out = String::new();
    report::head(&mut out, &format!("actscope: {}", unit.name));
    let _ = write!(
        out,
        "<h1>{name} of {model}</h1>\n\
         <p class=\"dim\">On {documents}, {tokens} of {inputs}{bos}. The stronger the colour of a token, the larger \
         the value there; the one that is framed has the value on the left.</p>\n",
        name = escaped(&unit.name),
        model = escaped(&settings.origin.model),
        documents = count(progress.documents as usize, "document"),
        tokens = count(progress.tokens as usize, "token"),
        inputs = escaped(&inputs.join(", ")),
        bos = if settings.bos { ", each piece after BOS" } else { "" },
    );
    let best = unit.examples.best.iter().map(|example| (example, None));
    list(&mut out, "strongest", "The strongest", best, unit);
    let drawn = unit.examples.drawn().map(|(quarter, example)| (example, Some(quarter)));
    list(&mut out, "drawn", "Drawn by chance among all values above 0", drawn, unit);
    if let Some(stats) = unit.stats.as_ref().filter(|stats| stats.count > 0) {
        statistics(&mut out, stats);
    }
    let _ = write!(
        out,
        "<h2 id=\"origin\">Origin</h2>\n<dl><dt>weights</dt><dd>sha256 {}</dd><dt>number format</dt><dd>{}</dd>\
         <dt>context</dt><dd>{} tokens, stride {}</dd><dt>changes</dt><dd>{}</dd><dt>actscope</dt><dd>{}</dd></dl>\n\
         </body>\n</html>\n",
        escaped(&settings.origin.weights_sha256),
        escaped(&settings.origin.dtype),
        settings.context,
        settings.stride,
        if settings.interventions.is_idle() {
            "none".into()
        } else {
            escaped(&settings.interventions.to_string())
        },
        escaped(&settings.origin.actscope_version),
    );
    out
}

fn list<'a>(
    out: &mut String,
    id: &str,
    title: &str,
    examples: impl Iterator<Item = (&'a Example, Option<usize>)>,
    unit: &OfUnit,
) {
    let limit = unit.examples.limit();
    let mut examples = examples.peekable();
    if examples.peek().is_none() {
        return;
    }
    let _ = write!(
        out,
        "<h2 id=\"{id}\">{title}</h2>\n<div class=\"scroll\"><table>\n<tr><th class=\"r\">value</th>\
         <th class=\"r\">quarter</th><th class=\"r\">document</th><th class=\"r\">position</th><th></th></tr>\n"
    );
    for (example, quarter) in examples {
        let _ = write!(
            out,
            "<tr><td class=\"r\">{}</td><td class=\"r\">{}</td><td class=\"r\">{}</td><td class=\"r\">{}</td>\
             <td class=\"tokens\">",
            num(example.value),
            quarter.map_or_else(String::new, |quarter| quarter.to_string()),
            example.document,
            example.position
        );
        for (i, (id, value)) in example.token_ids.iter().zip(&example.values).enumerate() {
            let position = example.first as usize + i;
            let share = if limit > 0.0 && value.is_finite() { (value / limit).max(0.0) } else { 0.0 };
            let _ = write!(
                out,
                "<span title=\"position {position}, id {id}: {}\" style=\"--s:{share:.3}\"{}>{}</span>",
                num(*value),
                if i == example.at() { " aria-pressed=\"true\"" } else { "" },
                escaped(unit.texts.get(id).map_or("", String::as_str)),
            );
        }
        out.push_str("</td></tr>\n");
    }
    out.push_str("</table></div>\n");
}

fn statistics(out: &mut String, stats: &stats::OfUnit) {
    let _ = write!(
        out,
        "<h2 id=\"stats\">Statistics</h2>\n<dl><dt>positions</dt><dd>{}</dd><dt>mean</dt><dd>{}</dd><dt>σ</dt><dd>{}</dd>\
         <dt>smallest, largest</dt><dd>{}, {}</dd><dt>above 0</dt><dd>{} %</dd></dl>\n<details><summary>Histogram</summary>\
         <div class=\"scroll\"><table>\n<tr><th class=\"r\">from</th><th class=\"r\">to</th><th class=\"r\">positions</th>\
         <th></th></tr>\n",
        stats.count,
        num(stats.mean()),
        num(stats.variance().sqrt()),
        num(stats.min),
        num(stats.max),
        fixed(100.0 * stats.positive_share(), 2),
    );
    let edges = stats::edges();
    let most = stats.histogram.iter().max().copied().unwrap_or(0).max(1) as f64;
    for (i, n) in stats.histogram.iter().enumerate().filter(|(_, n)| **n > 0) {
        let edge = |i: Option<usize>| i.and_then(|i| edges.get(i)).map_or_else(String::new, |x| num(*x));
        let _ = writeln!(
            out,
            "<tr><td class=\"r\">{}</td><td class=\"r\">{}</td><td class=\"r\">{n}</td><td class=\"bar\">\
             <i class=\"all\" style=\"width:{:.1}%\"></i></td></tr>",
            edge(i.checked_sub(1)),
            edge(Some(i)),
            100.0 * *n as f64 / most
        );
    }
    out.push_str("</table></div></details>\n");
}
