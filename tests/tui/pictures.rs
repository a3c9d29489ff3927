//! The README's pictures, and how much of the screen is used.

use std::fmt::Write;
use std::sync::Arc;

use actscope::engine::Slot;
use actscope::engine::pixels::Protocol;
use actscope::tui::app::Screen;
use actscope::tui::graphics::Graphics;
use actscope::tui::theme::Theme;
use ratatui::buffer::Buffer;
use ratatui::style::{Color, Modifier};
use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree, fontdb};
use unicode_width::UnicodeWidthStr;

use super::LARGE;
use super::harness::Explorer;

/// The size of a cell in the pictures.
const CELL: (f32, f32) = (9.0, 18.0);

/// A screen as SVG: rectangles for colours and blocks, text for the rest.
fn svg(buffer: &Buffer) -> String {
    let (width, height) = CELL;
    let hex = |color: Color, other: &str| match color {
        Color::Rgb(r, g, b) => format!("#{r:02x}{g:02x}{b:02x}"),
        _ => other.to_owned(),
    };
    let size = (f32::from(buffer.area.width) * width, f32::from(buffer.area.height) * height);
    let mut out = format!(
        "<svg xmlns='http://www.w3.org/2000/svg' width='{}' height='{}' font-family='DejaVu Sans Mono' font-size='14.5'>\
         <rect width='100%' height='100%' fill='#121317'/>",
        size.0, size.1
    );
    for y in 0..buffer.area.height {
        for x in 0..buffer.area.width {
            let cell = &buffer[(x, y)];
            let (ink, paper) = (hex(cell.fg, "#d6d9e0"), hex(cell.bg, "#121317"));
            let (ink, paper) =
                if cell.modifier.contains(Modifier::REVERSED) { (paper, ink) } else { (ink, paper) };
            let (left, top) = (f32::from(x) * width, f32::from(y) * height);
            let mut rect = |from: f32, to: f32, across: f32, fill: &str| {
                let _ = write!(
                    out,
                    "<rect x='{left}' y='{}' width='{}' height='{}' fill='{fill}'/>",
                    top + from * height,
                    across * width + 0.05,
                    (to - from) * height + 0.05
                );
            };
            if paper != "#121317" {
                rect(0.0, 1.0, 1.0, &paper);
            }
            let symbol = cell.symbol();
            match symbol.chars().next() {
                None | Some(' ') => {}
                Some('█') => rect(0.0, 1.0, 1.0, &ink),
                Some('▀') => rect(0.0, 0.5, 1.0, &ink),
                Some(part @ '▁'..='▇') => rect(1.0 - (part as u32 - 0x2580) as f32 / 8.0, 1.0, 1.0, &ink),
                Some(part @ '▉'..='▏') => rect(0.0, 1.0, (0x2590 - part as u32) as f32 / 8.0, &ink),
                Some(_) => {
                    let weight = if cell.modifier.contains(Modifier::BOLD) { "bold" } else { "normal" };
                    let text = symbol.replace('&', "&amp;").replace('<', "&lt;");
                    let _ = write!(
                        out,
                        "<text x='{left}' y='{}' fill='{ink}' font-weight='{weight}'>{text}</text>",
                        top + 14.0
                    );
                }
            }
        }
    }
    out + "</svg>"
}

/// `cargo test --test tui -- --ignored readme` makes the pictures of the README anew.
#[test]
#[ignore = "writes assets/screens"]
fn the_pictures_of_the_readme() {
    let prompt = "The old man saw the young woman, and the old man said to the young woman that the old";
    let mut fonts = fontdb::Database::new();
    for font in [dejavu::sans_mono::regular(), dejavu::sans_mono::bold()] {
        fonts.load_font_source(fontdb::Source::Binary(Arc::new(font)));
    }
    let options = Options { fontdb: Arc::new(fonts), ..Options::default() };
    for (name, size, keys) in [
        ("stages", LARGE, "end 3 enter down"),
        ("attention", LARGE, "end 4 } ] right right right"),
        ("walk", (120, 36), "end 6 s s c o r e s enter"),
        ("lens", (120, 36), "end 8"),
    ] {
        let mut explorer = Explorer::new(prompt, size, Theme::default());
        explorer.keys(keys);
        let tree = Tree::from_str(&svg(&explorer.draw()), &options).unwrap();
        let size = tree.size().to_int_size();
        let mut pixels = Pixmap::new(size.width(), size.height()).unwrap();
        resvg::render(&tree, Transform::identity(), &mut pixels.as_mut());
        let path = format!("{}/assets/screens/{name}.png", env!("CARGO_MANIFEST_DIR"));
        pixels.save_png(path).unwrap();
    }
}

/// The share of the body, in tiles of 4 × 2 cells, that shows something.
fn used(explorer: &Explorer) -> f64 {
    let buffer = explorer.draw();
    let (width, height) = explorer.app.size;
    let (mut shown, mut all) = (0u32, 0u32);
    for y in (4..height - if height >= 36 { 7 } else { 4 }).step_by(2) {
        for x in (0..width).step_by(4) {
            let cells = (x..(x + 4).min(width)).flat_map(|x| [(x, y), (x, y + 1)]);
            let is_drawn =
                |at: (u16, u16)| buffer[at].symbol().trim().width() > 0 || buffer[at].bg != Color::Reset;
            shown += u32::from(cells.into_iter().any(is_drawn));
            all += 1;
        }
    }
    f64::from(shown) / f64::from(all)
}

/// The screens that have enough to show fill three quarters, at any size.
#[test]
fn maps_use_the_screen() {
    let prompt = "the old man and the sea that was so calm and the boats at rest where the young woman saw a ship that \
                  came from the north";
    let mut table = String::from("screen        80×24  160×48  300×90\n");
    for screen in Screen::ALL {
        let key = screen.command().entry().keys[0];
        let _ = write!(table, "{:<12}", screen.name());
        for size in [(80, 24), (160, 48), (300, 90)] {
            let mut explorer = Explorer::new(prompt, size, Theme::default());
            explorer.keys("end").keys(key);
            let used = used(&explorer);
            let _ = write!(table, "{:>7.0}%", 100.0 * used);
            if matches!(screen, Screen::Embedding | Screen::Stages | Screen::Lens | Screen::Weights) {
                assert!(used >= 0.75, "{} at {size:?}: {used}", screen.name());
            }
        }
        table.push('\n');
    }
    println!("{table}");
}

/// In pixels, a map of many tokens has a place for every value, and gives way to what lies on it.
#[test]
fn a_map_in_pixels_pools_nothing_and_gives_way() {
    let prompt = "the old man and the sea ".repeat(20);
    for protocol in [Protocol::Sixel, Protocol::Iterm, Protocol::Kitty] {
        let graphics = Some(Graphics { protocol, font: (8, 16), covered: false });
        let mut e = Explorer::new(&prompt, LARGE, Theme { graphics, ..Theme::default() });
        e.keys("4");
        let n = e.run().n_tokens();
        assert!(n > 100, "{n}");
        let map = e.app.map(Slot::Main).unwrap();
        assert_eq!((map.grid.n_rows, map.grid.n_columns), (n, n));
        let (height, width) = map.pixels.as_ref().unwrap().canvas.extent;
        assert!(height >= n && width >= n && height == width, "{height} × {width}");
        let images = |e: &Explorer| {
            let buffer = e.draw();
            buffer.content().iter().filter(|cell| cell.symbol().contains(['\u{1b}', '\u{10eeee}'])).count()
        };
        // The first time, images are sent with what is drawn.
        images(&e);
        let before = images(&e);
        assert!(before > 0, "{protocol:?}");
        e.keys("?");
        // An image of letters goes on beside the overlay.
        assert_eq!(images(&e) > 0, protocol == Protocol::Kitty, "{protocol:?}");
        e.keys("esc");
        assert_eq!(images(&e), before, "{protocol:?}");
        // Without images, values are pooled.
        let mut e = Explorer::new(&prompt, LARGE, Theme::default());
        e.keys("4");
        assert!(e.app.map(Slot::Main).unwrap().grid.n_rows < n);
        assert_eq!(images(&e), 0);
    }
}
