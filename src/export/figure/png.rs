//! SVG to pixels, and pixels to PNG.

use std::fmt::Write;
use std::sync::{Arc, OnceLock};

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{self, Node, Tree, fontdb};

use crate::guard::guard;

/// Pixels per unit of the SVG.
const SCALE: f32 = 2.0;

/// Draws an SVG written by [`super::svg`]; `None` if there is not enough memory.
///
/// # Errors
/// Why it cannot be drawn, in a few words.
pub(super) fn rasterize(svg: &str) -> Result<Option<Vec<u8>>, String> {
    guard(|| drawn(svg))
}

fn drawn(svg: &str) -> Option<Vec<u8>> {
    let tree = parse(svg);
    let size = tree.size().to_int_size().scale_by(SCALE)?;
    let mut pixmap = Pixmap::new(size.width(), size.height())?;
    resvg::render(&tree, Transform::from_scale(SCALE, SCALE), &mut pixmap.as_mut());
    // The background is opaque, so colours need no alpha.
    let rgb: Vec<u8> = pixmap.data().chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect();
    Some(encode(&rgb, size.width(), size.height(), png::ColorType::Rgb))
}

/// The widths of texts in units, each with a font size, bold or not.
pub(in crate::export) fn text_widths<'a>(texts: impl IntoIterator<Item = (&'a str, f32, bool)>) -> Vec<f32> {
    let mut svg = String::from("<svg xmlns='http://www.w3.org/2000/svg'>");
    let mut guessed = Vec::new();
    for (text, size, bold) in texts {
        let n = guessed.len();
        guessed.push(0.6 * size * text.chars().count() as f32);
        let weight = if bold { "bold" } else { "normal" };
        let text = super::svg::escaped(text);
        let _ = write!(
            svg,
            "<text id='t{n}' font-family='DejaVu Sans' font-size='{size}' font-weight='{weight}'>{text}</text>"
        );
    }
    svg += "</svg>";
    let Ok(tree) = guard(|| parse(&svg)) else { return guessed };
    let mut widths = vec![0.0; guessed.len()];
    for node in tree.root().children() {
        if let Node::Text(text) = node
            && let Some(width) =
                text.id().strip_prefix('t').and_then(|i| widths.get_mut(i.parse::<usize>().ok()?))
        {
            *width = text.bounding_box().width();
        }
    }
    widths
}

/// A PNG of red, green and blue.
pub(in crate::export) fn encode_rgb(rgb: &[u8], width: u32, height: u32) -> Vec<u8> {
    encode(rgb, width, height, png::ColorType::Rgb)
}

/// A PNG of 8-bit samples.
pub(super) fn encode(samples: &[u8], width: u32, height: u32, color: png::ColorType) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(color);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().expect("writing to memory does not fail");
    writer.write_image_data(samples).expect("there is one sample per pixel");
    drop(writer);
    bytes
}

fn parse(svg: &str) -> Tree {
    static FONTS: OnceLock<Arc<fontdb::Database>> = OnceLock::new();
    let fonts = FONTS.get_or_init(|| {
        let mut fonts = fontdb::Database::new();
        for font in [dejavu::sans::regular(), dejavu::sans::bold()] {
            fonts.load_font_source(fontdb::Source::Binary(Arc::new(font)));
        }
        fonts.set_sans_serif_family("DejaVu Sans");
        Arc::new(fonts)
    });
    let options = usvg::Options {
        fontdb: Arc::clone(fonts),
        font_family: "DejaVu Sans".into(),
        ..usvg::Options::default()
    };
    Tree::from_str(svg, &options).expect("the text is valid SVG")
}
