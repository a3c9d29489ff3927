//! A step of the walk as a figure: its operation in matrices, and what is worth a bar or a curve.

mod operation;
mod tables;
mod tokens;

use super::canvas::{Anchor, Canvas, Face, style};
use super::{alt, slug, whereabouts};
use crate::analysis::walk::{Kind, Page, label, phrase};
use crate::error::Result;
use crate::export::figure::escaped;
use crate::hooks::Quantity;
use crate::run::Run;

const WIDTH: f32 = 860.0;
const MARGIN: f32 = 20.0;
const INNER: f32 = WIDTH - 2.0 * MARGIN;
/// A line of words.
const LINE: f32 = 18.0;
/// Left of a matrix, for the mark of its row.
const GUTTER: f32 = 10.0;

/// A drawn step.
pub(super) struct Figure {
    title: String,
    alt: String,
    /// Makes the names in the drawing its own.
    id: String,
    height: f32,
    body: String,
}

impl Figure {
    /// The step `place.0` of `place.1`.
    pub fn new(run: &Run, page: &Page, place: (usize, usize)) -> Result<Self> {
        let id = slug(place.0, page);
        let hatch = format!("hatch-{id}");
        let mut drawing = Drawing { run, page, hatch, canvas: Canvas::default(), y: MARGIN };
        drawing.draw(place)?;
        let height = (drawing.y + MARGIN).ceil();
        Ok(Self { title: page.title.clone(), alt: alt(page), id, height, body: drawing.canvas.svg })
    }

    /// An SVG that needs no other file.
    pub fn to_svg(&self, dark: bool) -> String {
        let size = format!(r#"width="{WIDTH}" height="{}""#, self.height);
        let paper = format!(r#"<rect width="{WIDTH}" height="{}" class="paper"/>"#, self.height);
        self.svg(&size, &format!("<style>{}</style>\n{paper}\n", style(dark, &self.body)))
    }

    /// The same inside a page that has the styles.
    pub fn inline(&self) -> String {
        self.svg(r#"class="figure""#, "")
    }

    fn svg(&self, attributes: &str, head: &str) -> String {
        let Self { title, alt, id, height, body } = self;
        format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" {attributes} viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="title-{id} alt-{id}" font-family="'DejaVu Sans', Verdana, sans-serif" font-size="13">
<title id="title-{id}">{}</title>
<desc id="alt-{id}">{}</desc>
{head}<defs><pattern id="hatch-{id}" width="6" height="6" patternUnits="userSpaceOnUse"><path d="M-1.5,1.5 l3,-3 M0,6 l6,-6 M4.5,7.5 l3,-3" class="l" stroke-width="1"/></pattern></defs>
{body}</svg>
"#,
            escaped(title),
            escaped(alt),
        )
    }
}

struct Drawing<'a> {
    run: &'a Run,
    page: &'a Page,
    hatch: String,
    canvas: Canvas,
    /// Where what comes next begins.
    y: f32,
}

impl Drawing<'_> {
    fn draw(&mut self, place: (usize, usize)) -> Result<()> {
        self.header(place);
        match self.page.at.step.kind {
            Kind::Tokens => self.tokens(),
            Kind::Next => self.next(),
            _ if self.page.magnifier.is_empty() => self.operation()?,
            _ => self.lookup()?,
        }
        if let Some(curve) = &self.page.curve {
            self.y += 24.0;
            self.curve(curve);
        }
        let tables: Vec<_> = self.page.tables.iter().filter(|table| table.bar.is_some()).collect();
        if !tables.is_empty() {
            self.y += 24.0;
            self.bars(&tables);
        }
        if self.page.operands().any(|operand| operand.shape.len() == 2) {
            self.y += 22.0;
            self.legend();
        }
        Ok(())
    }

    /// Which step this is, of what.
    fn header(&mut self, (i, n): (usize, usize)) {
        let page = self.page;
        let at = page.at;
        let place = whereabouts(page).map(|place| format!("  ·  {place}")).unwrap_or_default();
        let left = format!("{} of {n}  ·  {}{place}", i + 1, page.name);
        let token = self.run.token_text(at.position);
        let right = phrase("followed", &[("token", &token), ("t", &at.position)]);
        let y = self.y + 13.0;
        let right = Face::DIM.fit(&right, INNER / 2.0 - 10.0);
        self.canvas.text((MARGIN, y), Face::DIM, Anchor::Start, &Face::DIM.fit(&left, INNER / 2.0 - 10.0));
        self.canvas.text((WIDTH - MARGIN, y), Face::DIM, Anchor::End, &right);
        self.canvas.line(&[(MARGIN, y + 8.0), (WIDTH - MARGIN, y + 8.0)], "l", 0.75);
        self.y = y + 26.0;
    }

    /// What the colours say.
    fn legend(&mut self) {
        const SCALE: f32 = 90.0;
        let y = self.y;
        self.canvas.line(&[(MARGIN, y), (WIDTH - MARGIN, y)], "l", 0.75);
        let base = y + 20.0;
        let mut x = MARGIN;
        let views = || self.page.operands().filter_map(|operand| operand.view);
        let has = |quantity| views().any(|view| view.quantity() == quantity);
        let signed = has(Quantity::Signed) || views().next().is_none();
        for (quantity, low, high, shown) in [
            (Quantity::Signed, "−", "+", signed),
            (Quantity::Probability, "0", "+", has(Quantity::Probability)),
        ] {
            if !shown {
                continue;
            }
            self.canvas.text((x, base), Face::DIM, Anchor::Start, low);
            self.canvas.scale(quantity, (x + 14.0, base - 10.0), (SCALE, 11.0));
            self.canvas.text((x + SCALE + 20.0, base), Face::DIM, Anchor::Start, high);
            x += SCALE + 46.0;
        }
        if views().any(|view| view.source.is_causal()) {
            let hatch = format!(r#"fill="url(#{})" stroke-width=".75""#, self.hatch);
            self.canvas.rect((x, base - 10.0), (18.0, 11.0), "h", &hatch);
            self.canvas.rect((x, base - 10.0), (18.0, 11.0), "l", r#"stroke-width=".75""#);
            self.canvas.text((x + 24.0, base), Face::DIM, Anchor::Start, label("masked"));
            x += 24.0 + Face::DIM.width(label("masked")) + 24.0;
        }
        let how = Face::DIM.fit(label("legend"), WIDTH - MARGIN - x);
        self.canvas.text((x, base), Face::DIM, Anchor::Start, &how);
        self.y = base;
    }
}
