//! Maps in pixels, for terminals that show images: kitty, sixel, iTerm2. Encoded here, as it takes longer than a
//! frame may.

use std::fmt;

use icy_sixel::{EncodeOptions, sixel_encode};
use image::{DynamicImage, RgbaImage};
use ratatui::layout::Size;
use ratatui_image::protocol::Protocol as Image;
use ratatui_image::protocol::iterm2::Iterm2;
use ratatui_image::protocol::kitty::Kitty;
use rayon::prelude::*;

use crate::picture::colormap::{Palette, Rgb};
use crate::picture::grid::shared;
use crate::picture::{Paint, Picture};

/// How a terminal takes images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    #[default]
    Kitty,
    Sixel,
    Iterm,
}

impl Protocol {
    /// Whether an image is a text of its own letters, so that other text may take their place.
    pub fn is_text(self) -> bool {
        self == Self::Kitty
    }
}

/// What maps are drawn on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Paper {
    pub protocol: Protocol,
    /// Pixels of a character: width, height.
    pub font: (u16, u16),
    pub palette: Palette,
    pub light: bool,
    /// The background; `None`: the terminal's.
    pub page: Option<Rgb>,
    /// The hatching of masked cells.
    pub hatch: Rgb,
}

/// Paper of a size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Canvas {
    pub paper: Paper,
    /// The pixels down and across that the cells of a map share.
    pub extent: (usize, usize),
}

/// A map in pixels, as the terminal takes it.
#[derive(Clone)]
pub struct Pixels {
    pub canvas: Canvas,
    pub parts: Parts,
}

#[derive(Clone)]
pub enum Parts {
    Whole(Box<Image>),
    /// A part for each line of the screen, so that text on one does not touch the others.
    Lines(Vec<String>),
}

impl fmt::Debug for Pixels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pixels").field("canvas", &self.canvas).finish_non_exhaustive()
    }
}

/// Pixels between the lines of the hatching.
const HATCH: usize = 8;

impl Canvas {
    /// The columns and lines of the screen that it takes.
    pub fn size(&self) -> Size {
        let (width, height) = self.paper.font;
        let of = |dots: usize, per: u16| u16::try_from(dots.div_ceil(per.into())).unwrap_or(u16::MAX);
        Size::new(of(self.extent.1, width), of(self.extent.0, height))
    }

    /// Draws a map; `None` if it has no cells, or cannot be encoded.
    pub fn draw(self, picture: &Picture) -> Option<Pixels> {
        let size = self.size();
        if size.width == 0 || size.height == 0 || picture.grid.cells.is_empty() {
            return None;
        }
        let image = self.image(picture);
        let (width, height) = (image.width(), u32::from(self.paper.font.1));
        let line =
            |y: u16| image::imageops::crop_imm(&image, 0, u32::from(y) * height, width, height).to_image();
        let one = Size::new(size.width, 1);
        let in_tmux = std::env::var_os("TMUX").is_some();
        let lines = |encode: &(dyn Fn(RgbaImage) -> Option<String> + Sync)| {
            let lines: Option<_> = (0..size.height).into_par_iter().map(|y| encode(line(y))).collect();
            Some(Parts::Lines(lines?))
        };
        let parts = match self.paper.protocol {
            Protocol::Kitty => {
                let whole = Kitty::new(image.into(), size, rand::random(), in_tmux, true).ok()?;
                Some(Parts::Whole(Box::new(Image::Kitty(whole))))
            }
            // Neighbouring values keep their colours: nothing is dithered.
            Protocol::Sixel => lines(&|line| {
                let options = EncodeOptions { diffusion: 0.0, ..EncodeOptions::default() };
                sixel_encode(line.as_raw(), width as usize, height as usize, &options).ok()
            }),
            Protocol::Iterm => lines(&|line| {
                Iterm2::new(DynamicImage::ImageRgba8(line), one, false).ok().map(|image| image.data)
            }),
        };
        Some(Pixels { canvas: self, parts: parts? })
    }

    /// The pixels; what no cell covers is the page.
    fn image(&self, picture: &Picture) -> RgbaImage {
        let Paper { font, palette, light, page, hatch, .. } = self.paper;
        let map = palette.map(picture.range.quantity, light);
        let opaque = |[r, g, b]: Rgb| image::Rgba([r, g, b, 255]);
        let page = page.map_or(image::Rgba([0; 4]), opaque);
        let grid = &picture.grid;
        let paints: Vec<_> = picture.paints().collect();
        let (height, width) = self.extent;
        let size = self.size();
        let [wide, high] =
            [(size.width, font.0), (size.height, font.1)].map(|(n, per)| u32::from(n) * u32::from(per));
        RgbaImage::from_fn(wide, high, |x, y| {
            let (x, y) = (x as usize, y as usize);
            if x >= width || y >= height {
                return page;
            }
            let (row, column) = (shared(y, height, grid.n_rows), shared(x, width, grid.n_columns));
            match paints[row * grid.n_columns + column] {
                Paint::Masked if (x + y) % HATCH == 0 => opaque(hatch),
                paint => map.color(paint).map_or(page, opaque),
            }
        })
    }
}
