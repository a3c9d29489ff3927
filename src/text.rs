//! Text that fits: cut with a mark, wrapped, numbers of a few digits.

use std::fmt::Write as _;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// `text`, cut to `width` columns with `…` where it was longer.
pub fn fit(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut cut = String::new();
    let mut used = 0;
    for c in text.chars() {
        let w = c.width().unwrap_or(0);
        if used + w + 1 > width {
            break;
        }
        cut.push(c);
        used += w;
    }
    if width > 0 {
        cut.push('…');
    }
    cut
}

/// `text` cut or padded to exactly `width` columns.
pub fn pad(text: &str, width: usize) -> String {
    let mut text = fit(text, width);
    text.extend(std::iter::repeat_n(' ', width.saturating_sub(text.width())));
    text
}

/// `text` in lines of at most `width` columns, broken at blanks; a longer word is cut with a mark.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.width() + 1 + word.width() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(fit(word, width)),
        }
    }
    lines
}

/// A number in at most eight columns, as precise as they allow.
pub fn num(x: f32) -> String {
    let mut text = String::new();
    write_num(&mut text, x);
    text
}

/// [`num`] at the end of a text.
pub fn write_num(text: &mut String, x: f32) {
    let written = match x.abs() {
        a if a.is_nan() => write!(text, "NaN"),
        a if a.is_infinite() => write!(text, "{}", if x > 0.0 { "inf" } else { "-inf" }),
        0.0 => write!(text, "0"),
        a if !(0.000_95..999_999.5).contains(&a) => write!(text, "{x:.1e}"),
        a if a < 9.999_5 => write!(text, "{x:.3}"),
        a if a < 99.995 => write!(text, "{x:.2}"),
        a if a < 999.95 => write!(text, "{x:.1}"),
        _ => write!(text, "{x:.0}"),
    };
    debug_assert!(written.is_ok(), "a String takes everything");
}

/// A number in at most `width` columns, without the zero before the point; `…` where none fits.
pub fn short(x: f32, width: usize) -> String {
    if !x.is_finite() {
        return fit(&num(x), width);
    }
    let digits = |decimals: usize| {
        let text = format!("{x:.decimals$}");
        let text = text.replacen("0.", ".", usize::from(x.abs() < 1.0));
        if text.chars().all(|c| "-0.".contains(c)) { "0".to_owned() } else { text }
    };
    (0..=3).rev().map(digits).find(|text| text.len() <= width).unwrap_or_else(|| fit("…", width))
}

/// A count of bytes for people.
pub fn bytes(n: u64) -> String {
    match n as f64 {
        n if n < 1e3 => format!("{n} B"),
        n if n < 1e6 => format!("{:.0} kB", n / 1e3),
        n if n < 1e9 => format!("{:.1} MB", n / 1e6),
        n => format!("{:.2} GB", n / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_cut_is_marked() {
        assert_eq!(fit("abc", 3), "abc");
        assert_eq!(fit("abcd", 3), "ab…");
        assert_eq!(fit("漢字", 3), "漢…");
        assert_eq!(fit("漢字", 2), "…");
        assert_eq!(fit("abc", 0), "");
        assert_eq!(pad("漢字", 4), "漢字");
    }

    #[test]
    fn short_numbers_keep_what_fits() {
        let shown = |x| short(x, 3);
        assert_eq!(
            [0.0, 0.974, -0.974, 1.0, 3.25, 12.5, 123.4, 1234.0].map(shown),
            ["0", ".97", "-1", "1.0", "3.2", "12", "123", "…"]
        );
        assert_eq!([short(-0.25, 5), short(0.999_9, 3), short(f32::NAN, 3)], ["-.250", "1.0", "NaN"]);
    }

    proptest! {
        #[test]
        fn fit_never_exceeds(text in "\\PC*", width in 0usize..20) {
            prop_assert!(fit(&text, width).width() <= width);
            prop_assert_eq!(pad(&text, width).width(), width);
        }

        #[test]
        fn wrapped_lines_fit_and_hold_every_word(text in "[a-z ]{0,60}", width in 1usize..30) {
            let lines = wrap(&text, width);
            prop_assert!(lines.iter().all(|line| line.width() <= width));
            let long = text.split_whitespace().any(|word| word.width() > width);
            prop_assert!(long || lines.join(" ").split_whitespace().eq(text.split_whitespace()));
        }

        #[test]
        fn short_numbers_fit(x in proptest::num::f32::ANY, width in 0usize..9) {
            prop_assert!(short(x, width).width() <= width, "{}", short(x, width));
        }

        #[test]
        fn numbers_are_short(x in proptest::num::f32::ANY) {
            prop_assert!(num(x).len() <= 8, "{}", num(x));
        }
    }
}
