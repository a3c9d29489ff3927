//! Colours by meaning, and the terminal's colour depth.

use ratatui::buffer::Buffer;
use ratatui::style::{Color, Modifier, Style};

use crate::hooks::Quantity;
pub use crate::picture::colormap::Depth;
use crate::picture::colormap::{Palette, Rgb, is_light, nearest_of_16, nearest_of_256};

/// The colours of the explorer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Theme {
    pub light: bool,
    pub depth: Depth,
    pub palette: Palette,
    /// The background is drawn too, as the terminal's may be the opposite.
    pub paints: bool,
}

impl Theme {
    fn pick(self, dark: Rgb, light: Rgb) -> Style {
        let [r, g, b] = if self.light { light } else { dark };
        Style::new().fg(Color::Rgb(r, g, b))
    }

    /// Plain text.
    pub fn text(self) -> Style {
        self.pick([214, 217, 224], [36, 38, 44])
    }

    /// Plain text on the background of the whole screen.
    pub fn page(self) -> Style {
        let [r, g, b] = if self.light { [250, 250, 248] } else { [18, 19, 23] };
        if self.paints { self.text().bg(Color::Rgb(r, g, b)) } else { self.text() }
    }

    /// Explanations.
    pub fn dim(self) -> Style {
        self.pick([139, 144, 156], [104, 108, 118])
    }

    /// Rules and hatching.
    pub fn faint(self) -> Style {
        self.pick([68, 72, 82], [196, 199, 206])
    }

    /// The selection: one colour everywhere.
    pub fn accent(self) -> Style {
        self.pick([255, 200, 87], [168, 94, 0]).add_modifier(Modifier::BOLD)
    }

    /// The focus of the keys.
    pub fn focus(self) -> Style {
        self.pick([116, 199, 236], [0, 98, 155])
    }

    /// Headings.
    pub fn strong(self) -> Style {
        self.text().add_modifier(Modifier::BOLD)
    }

    /// Something is wrong.
    pub fn bad(self) -> Style {
        self.pick([255, 120, 110], [185, 28, 28]).add_modifier(Modifier::BOLD)
    }

    /// Something is right.
    pub fn good(self) -> Style {
        self.pick([140, 210, 140], [22, 120, 50])
    }

    /// Bars of magnitudes: neither of the two colours of signed numbers.
    pub fn amount(self) -> Style {
        self.pick([168, 174, 188], [92, 97, 108])
    }

    /// Bars of signed numbers: the colours of the map on the two sides of 0.
    pub fn signed(self, value: f32) -> Style {
        match self.depth {
            Depth::Mono => self.text(),
            _ => Style::new().fg(self.shade(Quantity::Signed, if value < 0.0 { 0.17 } else { 0.83 })),
        }
    }

    /// The background of overlays.
    pub fn panel(self) -> Style {
        let [r, g, b] = if self.light { [236, 238, 242] } else { [32, 35, 42] };
        self.text().bg(Color::Rgb(r, g, b))
    }

    /// The selected line of a list.
    pub fn selected(self) -> Style {
        let [r, g, b] = if self.light { [255, 226, 168] } else { [74, 62, 32] };
        let style = self.accent().bg(Color::Rgb(r, g, b));
        if self.depth == Depth::Mono { style.add_modifier(Modifier::REVERSED) } else { style }
    }

    /// The colour of 0..=1 in the colour map for a quantity.
    pub fn shade(self, quantity: Quantity, x: f32) -> Color {
        let [r, g, b] = self.palette.map(quantity, self.light).at(x);
        Color::Rgb(r, g, b)
    }

    /// Black or white, whichever is easier to read on `color`.
    pub fn on(color: Color) -> Color {
        match color {
            Color::Rgb(r, g, b) if is_light([r, g, b]) => Color::Rgb(10, 10, 12),
            _ => Color::Rgb(245, 245, 247),
        }
    }

    /// Reduces a drawn buffer to the colours of the terminal.
    pub fn degrade(self, buffer: &mut Buffer) {
        let convert: fn(Color) -> Color = match self.depth {
            Depth::True => return,
            Depth::Indexed => |color| indexed(color, nearest_of_256),
            Depth::Sixteen => |color| indexed(color, nearest_of_16),
            Depth::Mono => |_| Color::Reset,
        };
        for cell in &mut buffer.content {
            cell.fg = convert(cell.fg);
            cell.bg = convert(cell.bg);
        }
    }
}

fn indexed(color: Color, nearest: fn(Rgb) -> u8) -> Color {
    match color {
        Color::Rgb(r, g, b) => Color::Indexed(nearest([r, g, b])),
        other => other,
    }
}
