//! Bars of eighths of a column: magnitudes from the left, signed numbers from a line in the middle.

use ratatui::text::Span;

use crate::tui::theme::Theme;

const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];

/// A bar of up to `width` columns, filled to `share` (0..=1); never empty above 0.
pub fn bar(share: f32, width: usize) -> String {
    let (whole, part) = eighths(share, width);
    "█".repeat(whole) + EIGHTHS[part]
}

/// Whole columns, and eighths of one more.
fn eighths(share: f32, width: usize) -> (usize, usize) {
    let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
    let mut eighths = (share * width as f32 * 8.0).round() as usize;
    if share > 0.0 && width > 0 {
        eighths = eighths.max(1);
    }
    (eighths / 8, eighths % 8)
}

/// A bar for a signed number, in `width` columns: from the line in the middle to the left below 0, to the right
/// above, in the two colours of the map. `share` is −1..=1.
pub fn signed(share: f32, width: usize, theme: Theme) -> Vec<Span<'static>> {
    let half = width.saturating_sub(1) / 2;
    if half == 0 {
        return Vec::new();
    }
    let ink = theme.signed(share);
    let line = Span::styled("│", theme.faint());
    if share > 0.0 || share.is_nan() {
        return vec![Span::raw(" ".repeat(half)), line, Span::styled(bar(share, half), ink)];
    }
    let (whole, part) = eighths(-share, half);
    let before = " ".repeat(half - whole - usize::from(part > 0));
    // There are no blocks that are filled from the right: the gap is drawn, in the colours exchanged.
    let gap = Span::styled(if part > 0 { EIGHTHS[8 - part] } else { "" }, ink.reversed());
    vec![Span::raw(before), gap, Span::styled("█".repeat(whole), ink), line]
}

/// Signed `parts` as one bar on each side of a line in the middle, next to each other in two tints; `most` is the
/// largest sum of a side.
pub fn stacked(parts: &[f64], most: f64, width: usize, theme: Theme) -> Vec<Span<'static>> {
    let half = width.saturating_sub(1) / 2;
    let mut sides = [Vec::new(), Vec::new()];
    for (side, sign) in sides.iter_mut().zip([-1.0, 1.0]) {
        let (mut sum, mut drawn) = (0.0, 0);
        for (i, part) in parts.iter().map(|part| part * sign).filter(|part| *part > 0.0).enumerate() {
            sum += part;
            let end = (f64::from(share(sum, most)) * half as f64).round() as usize;
            let end = end.min(half);
            if end > drawn {
                // Neighbours differ, whatever the colours.
                let block = if i % 2 == 0 { "█" } else { "▓" };
                side.push(Span::styled(block.repeat(end - drawn), theme.signed(sign as f32)));
                drawn = end;
            }
        }
        side.push(Span::raw(" ".repeat(half - drawn)));
    }
    let [mut below, above] = sides;
    below.reverse();
    below.into_iter().chain([Span::styled("│", theme.faint())]).chain(above).collect()
}

/// `value` as a share of the largest magnitude.
pub fn share(value: f64, most: f64) -> f32 {
    if most > 0.0 { (value / most) as f32 } else { 0.0 }
}

const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// A magnitude as a block, `most` at full height.
pub fn level(value: f32, most: f32) -> String {
    let share = share(value.into(), most.into());
    if !share.is_finite() {
        return "?".into();
    }
    HEIGHTS[((share * 8.0).ceil() as usize).clamp(1, 8) - 1].into()
}

/// Counts as a line of blocks, the largest at full height.
pub fn histogram(counts: &[usize]) -> String {
    let most = counts.iter().copied().max().unwrap_or(0).max(1);
    let height = |&n: &usize| if n == 0 { ' ' } else { HEIGHTS[(n * 8).div_ceil(most).clamp(1, 8) - 1] };
    counts.iter().map(height).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use unicode_width::UnicodeWidthStr;

    use super::*;

    #[test]
    fn bars_fill_in_eighths() {
        assert_eq!(bar(0.0, 4), "");
        assert_eq!(bar(0.5, 4), "██");
        assert_eq!(bar(1.0, 4), "████");
        assert_eq!(bar(0.001, 4), "▏");
        assert_eq!(bar(f32::NAN, 4), "");
        assert_eq!(histogram(&[0, 1, 8]), " ▁█");
    }

    #[test]
    fn signed_bars_grow_from_the_middle() {
        let drawn = |share: f32| -> String {
            signed(share, 9, Theme::default()).iter().map(|span| span.content.as_ref()).collect()
        };
        assert_eq!(drawn(1.0), "    │████");
        assert_eq!(drawn(0.5), "    │██");
        assert_eq!(drawn(-0.5), "  ██│");
        assert_eq!(drawn(-1.0), "████│");
        assert_eq!(drawn(0.0), "    │");
        // A quarter of a column, as what is left of it in the colours exchanged.
        assert_eq!(drawn(-1.0 / 16.0), "   ▊│");
        assert_ne!(Theme::default().signed(-1.0), Theme::default().signed(1.0));
    }

    proptest! {
        #[test]
        fn signed_bars_fit(share in proptest::num::f32::ANY, width in 0usize..40) {
            let drawn = signed(share, width, Theme::default());
            prop_assert!(drawn.iter().map(|span| span.content.width()).sum::<usize>() <= width);
        }
    }
}
