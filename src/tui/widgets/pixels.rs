//! Maps in pixels on the screen.

use std::num::NonZeroU16;
use std::sync::OnceLock;

use ratatui::buffer::{Buffer, CellDiffOption};
use ratatui::layout::{Position, Rect, Size};
use ratatui::widgets::Widget;
use ratatui_image::Image;
use ratatui_image::protocol::Protocol;
use ratatui_image::protocol::kitty::Kitty;

use crate::engine::pixels::{Parts, Pixels};

/// Written in place of its symbol, it takes one column.
const ONE_WIDE: CellDiffOption = CellDiffOption::ForcedWidth(NonZeroU16::MIN);

/// Puts a map into `area`, except for the character at `mark`.
pub fn put(buffer: &mut Buffer, area: Rect, pixels: &Pixels, mark: Option<Position>) {
    if area != area.intersection(buffer.area) {
        return;
    }
    let marked = mark.map(|mark| buffer[mark].clone());
    // Nothing shines through.
    for position in area.positions() {
        buffer[position].reset();
    }
    match &pixels.parts {
        Parts::Whole(image) => {
            Image::new(image).render(area, buffer);
            if let (Some(mark), Some(cell)) = (mark, marked) {
                let image = go_on_after(buffer, area, mark);
                let symbol = format!("{image}{}", cell.symbol());
                buffer[mark].set_style(cell.style()).set_symbol(&symbol);
            }
        }
        Parts::Lines(lines) => {
            for (line, y) in lines.iter().zip(area.rows()) {
                put_line(buffer, y, line, mark.filter(|mark| y.contains(*mark)));
            }
            if let (Some(mark), Some(cell)) = (mark.filter(|mark| mark.x > area.x), marked) {
                buffer[mark] = cell;
            }
        }
    }
}

/// The image is the symbol of the first character of the line; nothing is written over the others.
fn put_line(buffer: &mut Buffer, area: Rect, image: &str, mark: Option<Position>) {
    let width = area.width;
    // With the mark's place, as the line has to be drawn again when the mark leaves it.
    let after = match mark {
        Some(mark) if mark.x == area.x => "╋".to_owned(),
        Some(mark) => format!("\x1b[{}G\x1b8\x1b[C", mark.x + 1),
        None => "\x1b[C".to_owned(),
    };
    for position in area.positions() {
        buffer[position].set_diff_option(CellDiffOption::Skip);
    }
    buffer[area.as_position()]
        .set_symbol(&format!("\x1b7\x1b[0m\x1b[{width}X{image}\x1b8{after}"))
        .set_diff_option(ONE_WIDE);
}

/// The letter that shows a part of an image of kitty's: with its row, its column and the rest of its number as
/// diacritics, or next to the one on its left.
const LETTER: char = '\u{10EEEE}';

/// Says after a mark, where no letter is on the left, which part comes next. Returns what the letter under the mark
/// would have sent to the terminal: the image.
fn go_on_after(buffer: &mut Buffer, area: Rect, mark: Position) -> String {
    let sent = |cell: &str| cell.split_once(LETTER).map(|(sent, _)| sent.to_owned());
    let image = sent(buffer[mark].symbol()).unwrap_or_default();
    let first = buffer[(area.x, mark.y)].symbol().chars().rev().take(3).collect::<Vec<_>>();
    let next = Position { x: mark.x + 1, y: mark.y };
    if let ([rest, _, row], Some(column)) = (first.as_slice(), columns().get(usize::from(next.x - area.x)))
        && area.contains(next)
    {
        buffer[next].set_symbol(&format!("{LETTER}{row}{column}{rest}")).set_diff_option(ONE_WIDE);
    }
    image
}

/// The diacritic of each column; those of the rows are the same.
fn columns() -> &'static [char] {
    static COLUMNS: OnceLock<Vec<char>> = OnceLock::new();
    COLUMNS.get_or_init(|| {
        let size = Size::new(1, 297);
        let tall = image::RgbaImage::new(1, size.height.into());
        let Ok(kitty) = Kitty::new(tall.into(), size, 0, false, false) else { return Vec::new() };
        let area = Rect::new(0, 0, 1, size.height);
        let mut buffer = Buffer::empty(area);
        Image::new(&Protocol::Kitty(kitty)).render(area, &mut buffer);
        let row = |cell: &ratatui::buffer::Cell| cell.symbol().split_once(LETTER)?.1.chars().next();
        buffer.content().iter().filter_map(row).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::pixels::{Canvas, Paper, Protocol as How};
    use crate::picture::grid::{Grid, Pooling, Window};
    use crate::picture::range::Range;
    use crate::picture::{Matrix, Picture};

    /// 3 lines of 4 characters, 2 × 4 pixels each.
    fn pixels(protocol: How) -> Pixels {
        let values: Vec<_> = (0..12 * 8).map(|x| x as f32).collect();
        let matrix = Matrix::new(values.clone(), 12, 8).unwrap();
        let grid = Grid::new(&matrix, &Window::whole(12, 8), (1, 1), Pooling::Extreme);
        let paper = Paper { protocol, font: (2, 4), ..Paper::default() };
        let canvas = Canvas { paper, extent: (12, 8) };
        canvas.draw(&Picture::new(&matrix, grid, Range::of(&values))).unwrap()
    }

    fn drawn(pixels: &Pixels, mark: Option<(u16, u16)>) -> Buffer {
        let mut buffer = Buffer::filled(Rect::new(0, 0, 6, 4), ratatui::buffer::Cell::new("."));
        if let Some((x, y)) = mark {
            buffer[(x, y)].set_symbol("╋");
        }
        put(&mut buffer, Rect::new(1, 1, 4, 3), pixels, mark.map(Position::from));
        buffer
    }

    #[test]
    fn a_line_is_drawn_again_when_the_mark_moves_and_no_other() {
        for protocol in [How::Sixel, How::Iterm] {
            let pixels = pixels(protocol);
            let plain = drawn(&pixels, None);
            let [a, b, first] = [(2, 2), (3, 2), (1, 2)].map(|at| drawn(&pixels, Some(at)));
            for marked in [&a, &b, &first] {
                let changed: Vec<_> = plain.diff(marked).into_iter().map(|(x, y, _)| (x, y)).collect();
                assert!(changed.iter().all(|&(_, y)| y == 2), "{changed:?}");
                assert_eq!(changed[0], (1, 2), "the image comes first");
            }
            assert_eq!(a.diff(&b).iter().map(|(x, y, _)| (*x, *y)).collect::<Vec<_>>(), [(1, 2), (3, 2)]);
            assert!(first[(1, 2)].symbol().ends_with('╋'));
            // What is around it stays.
            assert_eq!(plain[(0, 1)].symbol(), ".");
            assert_eq!(plain[(5, 3)].symbol(), ".");
        }
    }

    #[test]
    fn an_image_of_letters_is_sent_once_and_goes_on_after_the_mark() {
        let pixels = pixels(How::Kitty);
        let with = drawn(&pixels, Some((1, 1)));
        assert!(with[(1, 1)].symbol().starts_with("\x1b_G") && with[(1, 1)].symbol().ends_with('╋'));
        let letters = |buffer: &Buffer, x, y| buffer[(x, y)].symbol().chars().collect::<Vec<_>>();
        let next = letters(&with, 2, 1);
        assert_eq!((next[0], next[1], next[2]), (LETTER, columns()[0], columns()[1]));
        let again = drawn(&pixels, Some((3, 2)));
        assert_eq!(again[(1, 1)].symbol().chars().next(), Some(LETTER), "the terminal has it");
        let next = letters(&again, 4, 2);
        assert_eq!((next[0], next[1], next[2]), (LETTER, columns()[1], columns()[3]));
        assert_eq!(again[(3, 2)].symbol(), "╋");
        assert_eq!(letters(&again, 2, 2), [LETTER]);
        assert_eq!(columns().len(), 297);
    }
}
