//! Text that is safe to show and fits: escaped so that a terminal interprets none of it, cut with
//! a mark, wrapped.
//!
//! Numbers have few digits, whatever their size: [`num`] in columns and sentences, [`fixed`] and
//! [`signed_fixed`] where decimals are to be compared, [`short`] in narrow cells, [`significant`] and
//! [`to_scale`] in the words and cells of a figure, [`printed`] in the walk, [`count`] before a noun.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

use serde::Serialize;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// The length to which paths are cut.
pub const PATH: usize = 150;

/// Whether a terminal would act on `c` rather than draw it: control characters, bidirectional
/// controls, line separators, and invisible characters of no width.
pub fn acts(c: char) -> bool {
    matches!(c,
        '\0'..='\x1f' | '\x7f'..='\u{9f}' | '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e007f}')
}

/// `text` on one line without characters that [act](acts): newline `↵`, tab `⇥`, others as `⟨1b⟩` and `⟨u+202e⟩`.
pub fn plain(text: &str) -> Cow<'_, str> {
    without(text, acts)
}

/// The same, line by line: newlines and tabs are kept.
pub fn plain_lines(text: &str) -> Cow<'_, str> {
    without(text, |c| acts(c) && c != '\n' && c != '\t')
}

fn without(text: &str, unwanted: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&unwanted) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if unwanted(c) { push_visible(&mut out, c) } else { out.push(c) }
    }
    out.into()
}

/// Appends a visible mark for an invisible character.
pub fn push_visible(text: &mut String, c: char) {
    let written = match c {
        '\n' => write!(text, "↵"),
        '\t' => write!(text, "⇥"),
        c if (c as u32) < 0x100 => write!(text, "⟨{:02x}⟩", c as u32),
        c => write!(text, "⟨u+{:04x}⟩", c as u32),
    };
    debug_assert!(written.is_ok(), "writing to a String does not fail");
}

/// At most `n` characters, with `…` for the middle, since the ends of paths and sentences matter.
pub fn brief(text: &str, n: usize) -> Cow<'_, str> {
    if text.chars().nth(n).is_none() {
        return text.into();
    }
    let (head, tail) = (n / 3, (n - n / 3).saturating_sub(1));
    let at = |found: Option<(usize, char)>, end| found.map_or(end, |(at, _)| at);
    let head = at(text.char_indices().nth(head), text.len());
    let tail = tail.checked_sub(1).map_or(text.len(), |last| at(text.char_indices().nth_back(last), 0));
    format!("{}…{}", &text[..head], &text[tail..]).into()
}

/// A path for messages: [`plain`] and [`brief`].
pub fn path(path: &Path) -> String {
    brief(&plain(&path.to_string_lossy()), PATH).into_owned()
}

/// JSON without characters that [act](acts): they are escaped, and read back unchanged.
///
/// # Panics
/// If JSON cannot represent the value, such as a map whose keys are not strings.
pub fn json(value: &impl Serialize) -> String {
    struct Escaping;
    impl serde_json::ser::Formatter for Escaping {
        fn write_string_fragment<W: io::Write + ?Sized>(
            &mut self,
            out: &mut W,
            mut rest: &str,
        ) -> io::Result<()> {
            while let Some((at, c)) = rest.char_indices().find(|(_, c)| acts(*c)) {
                out.write_all(&rest.as_bytes()[..at])?;
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(out, "\\u{unit:04x}")?;
                }
                rest = &rest[at + c.len_utf8()..];
            }
            out.write_all(rest.as_bytes())
        }
    }
    let mut out = Vec::new();
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, Escaping)).expect("plain data");
    String::from_utf8(out).expect("JSON is text")
}

/// `text`, cut to `width` columns with `…` if longer.
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

/// `text` in lines of at most `width` columns, broken at spaces; a longer word is cut with a mark.
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

/// The same in at most `height` lines; where more are left out, the last ends with a mark.
#[cfg(feature = "tui")]
pub fn wrap_to(text: &str, width: usize, height: usize) -> Vec<String> {
    let mut lines = wrap(text, width);
    if lines.len() > height {
        lines.truncate(height);
        if let Some(last) = lines.last_mut() {
            *last = fit(&format!("{last} …"), width);
        }
    }
    lines
}

/// A number in at most eight columns, as precisely as they allow; nine for what float32 cannot hold.
pub fn num(x: impl Into<f64>) -> String {
    let mut text = String::new();
    write_num(&mut text, x);
    text
}

/// [`num`] at the end of a text.
pub fn write_num(text: &mut String, x: impl Into<f64>) {
    let x = x.into();
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
    debug_assert!(written.is_ok(), "writing to a String does not fail");
}

/// A number in at most `width` columns, without the zero before the point; `≈0` if it is nearly 0, `…` if it
/// does not fit.
pub fn short(x: f32, width: usize) -> String {
    if !x.is_finite() {
        return fit(&num(x), width);
    }
    // What would be 0 without being it is in powers of ten, where there is room.
    let tiny = format!("{x:.0e}");
    if x != 0.0 && x.abs() < 0.000_5 && tiny.len() <= width {
        return tiny;
    }
    let digits = |decimals: usize| {
        let text = format!("{x:.decimals$}");
        match is_zero(&text) {
            true if x == 0.0 || width < 2 => "0".into(),
            true => "≈0".into(),
            false => text.replacen("0.", ".", usize::from(x.abs() < 1.0)),
        }
    };
    (0..=3).rev().map(digits).find(|text| text.width() <= width).unwrap_or_else(|| fit("…", width))
}

/// A probability in six columns: what four decimals would make 0.000 is in powers of ten.
pub fn prob(p: f32) -> String {
    if p == 0.0 || p >= 0.000_95 || p.is_nan() {
        pad(&format!("{p:.4}"), 6)
    } else {
        pad(&format!("{p:.1e}"), 6)
    }
}

/// A duration, in a few digits.
pub fn milliseconds(ms: f64) -> String {
    match ms {
        ms if ms < 99.95 => format!("{ms:.1} ms"),
        ms if ms < 999.5 => format!("{ms:.0} ms"),
        ms => format!("{:.2} s", ms / 1e3),
    }
}

/// A number in the text of a figure: three significant digits, a proper minus sign.
pub fn significant(x: f32) -> String {
    let digits = match x.abs() {
        a if !a.is_finite() => num(a),
        0.0 => "0".into(),
        a if !(0.001..99_999.5).contains(&a) => {
            let text = format!("{a:.2e}");
            let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
            format!("{}e{}", trimmed(digits), exponent.replace('-', "−"))
        }
        a => {
            let before = a.log10().floor() as i32 + 1;
            trimmed(&format!("{a:.*}", usize::try_from(3 - before).unwrap_or(0))).to_owned()
        }
    };
    if x < 0.0 { format!("−{digits}") } else { digits }
}

/// A number among others up to `limit`, with a number of decimals that suits them all.
pub fn to_scale(x: f32, limit: f32) -> String {
    if !x.is_finite() || !(0.001..99_999.5).contains(&limit) {
        return significant(x);
    }
    let decimals = usize::try_from(2 - limit.log10().floor() as i32).unwrap_or(0);
    let text = format!("{:.decimals$}", x.abs());
    let sign = if x < 0.0 && !is_zero(&text) { "−" } else { "" };
    format!("{sign}{text}")
}

/// A number with this many decimals; from a million on in scientific notation.
pub fn fixed(x: impl Into<f64>, decimals: usize) -> String {
    let x = x.into();
    match format!("{x:.decimals$}") {
        text if !x.is_finite() => text,
        _ if x.abs() >= 999_999.5 => format!("{x:.decimals$e}"),
        text if is_zero(&text) => text.replace('-', ""),
        text => text,
    }
}

/// [`fixed`] with its sign: a difference.
pub fn signed_fixed(x: impl Into<f64>, decimals: usize) -> String {
    let text = fixed(x, decimals);
    if text.starts_with('-') || text == "NaN" { text } else { format!("+{text}") }
}

/// Whether the digits of a number are all 0: then it is shown without a sign.
fn is_zero(digits: &str) -> bool {
    !digits.contains(|c| ('1'..='9').contains(&c))
}

/// A word as a shell takes it, in one line that can be copied: what would be obeyed is in octal.
pub fn shell_word(word: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || "-_./:".contains(c);
    if !word.is_empty() && word.chars().all(bare) {
        return word.into();
    }
    if !word.contains(acts) {
        return format!("'{}'", word.replace('\'', r"'\''"));
    }
    let mut out = String::from("$'");
    for c in word.chars() {
        match c {
            '\n' => out += r"\n",
            '\t' => out += r"\t",
            '\'' | '\\' => out.extend(['\\', c]),
            c if acts(c) => {
                out.extend(c.encode_utf8(&mut [0; 4]).bytes().map(|byte| format!("\\{byte:03o}")));
            }
            c => out.push(c),
        }
    }
    out + "'"
}

/// `1 tensor`, `2 tensors`.
pub fn count(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// A number as short as it can be without losing anything.
pub fn exact(x: f32) -> String {
    if x == 0.0 || (1e-5..1e9).contains(&x.abs()) { x.to_string() } else { format!("{x:e}") }
}

/// [`num`] as in print: a proper minus sign, ∞.
pub fn printed(x: f32) -> String {
    num(x).replace('-', "−").replace("inf", "∞")
}

/// Removes zeros at the end of a fraction.
fn trimmed(digits: &str) -> &str {
    if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits }
}

/// A number of bytes in readable units.
pub fn bytes(n: u64) -> String {
    // What would round to a thousand is one of the next unit.
    match n as f64 {
        n if n < 1e3 => format!("{n} B"),
        n if n < 999.5e3 => format!("{:.0} kB", n / 1e3),
        n if n < 999.95e6 => format!("{:.1} MB", n / 1e6),
        n => format!("{:.2} GB", n / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_that_a_shell_would_take_apart_are_quoted() {
        assert_eq!(shell_word("openai-community/gpt2"), "openai-community/gpt2");
        assert_eq!(shell_word("./it's here"), r"'./it'\''s here'");
        assert_eq!(shell_word(""), "''");
        assert_eq!(shell_word("a\nb\t\u{1b}'\\\u{202e}0"), r"$'a\nb\t\033\'\\\342\200\2560'");
    }

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
    fn what_would_be_obeyed_is_seen() {
        assert_eq!(plain("a\u{1b}]52;c\u{7}\r\n\tb\u{9b}\u{7f}"), "a⟨1b⟩]52;c⟨07⟩⟨0d⟩↵⇥b⟨9b⟩⟨7f⟩");
        assert_eq!(plain_lines("a\n\tb\r"), "a\n\tb⟨0d⟩");
        for c in
            "\u{61c}\u{200b}\u{200e}\u{200f}\u{202a}\u{202e}\u{2028}\u{2029}\u{2066}\u{2069}\u{feff}".chars()
        {
            assert_eq!(plain(&c.to_string()), format!("⟨u+{:04x}⟩", c as u32));
        }
        let drawn = "Zoë, 漢字, e\u{301}, עברית, a\u{a0}b 🙂 ⟨1b⟩";
        assert!(matches!(plain(drawn), Cow::Borrowed(_)));
    }

    #[test]
    fn long_names_lose_their_middle() {
        assert_eq!(brief("0123456789", 7), "01…6789");
        assert_eq!(brief("漢字漢字漢", 3), "漢…漢");
        assert_eq!(brief("0123456", 7), "0123456");
        assert_eq!([brief("01", 1), brief("01", 0)], ["…", "…"]);
        let long = Path::new("/").join("a".repeat(2000)).join("b\n.svg");
        assert!(path(&long).chars().count() == PATH && path(&long).ends_with("/b↵.svg"));
    }

    #[test]
    fn json_escapes_what_would_be_obeyed_and_reads_back() {
        let text = "\u{1b}\u{7f}\u{9b}2J \u{202e}\u{e0041} \"é漢\"\\n";
        let written = json(&[text]);
        assert_eq!(written, "[\"\\u001b\\u007f\\u009b2J \\u202e\\udb40\\udc41 \\\"é漢\\\"\\\\n\"]");
        assert_eq!(serde_json::from_str::<Vec<String>>(&written).unwrap(), [text]);
    }

    #[test]
    fn bytes_are_in_powers_of_ten() {
        assert_eq!(
            [0, 999, 1_500, 1_048_576, 2_500_000_000].map(bytes),
            ["0 B", "999 B", "2 kB", "1.0 MB", "2.50 GB"]
        );
        assert_eq!([999_499, 999_999, 999_990_000].map(bytes), ["999 kB", "1.0 MB", "1.00 GB"]);
    }

    #[test]
    fn one_is_singular() {
        assert_eq!([0, 1, 2].map(|n| count(n, "tensor")), ["0 tensors", "1 tensor", "2 tensors"]);
    }

    #[test]
    fn decimals_are_fixed_up_to_a_million() {
        for (x, text) in [
            (0.0, "0.00"),
            (-0.001, "0.00"),
            (-1.0, "-1.00"),
            (999_999.0, "999999.00"),
            (1e30, "1.00e30"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(fixed(x, 2), text);
        }
        let shown = [0.0, -0.001, 0.5, -1e9, f64::NAN, f64::INFINITY].map(|x| signed_fixed(x, 1));
        assert_eq!(shown, ["+0.0", "+0.0", "+0.5", "-1.0e9", "NaN", "+inf"]);
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

    #[test]
    fn significant_digits_are_three() {
        for (x, text) in [
            (0.0, "0"),
            (-0.0, "0"),
            (1.0, "1"),
            (-4.127, "−4.13"),
            (0.061_23, "0.0612"),
            (12.0, "12"),
            (99.96, "100"),
            (3071.4, "3071"),
            (0.000_12, "1.2e−4"),
            (-1e30, "−1e30"),
            (f32::NAN, "NaN"),
            (f32::NEG_INFINITY, "−inf"),
            (f32::MIN_POSITIVE, "1.18e−38"),
        ] {
            assert_eq!(significant(x), text);
        }
    }

    #[test]
    fn numbers_in_figures_have_a_proper_minus() {
        assert_eq!([-1.234, -0.001, 12.0].map(|x| to_scale(x, 12.0)), ["−1.2", "0.0", "12.0"]);
        assert_eq!([to_scale(-0.5, 1e-9), to_scale(f32::NAN, 1.0)], ["−0.5", "NaN"]);
        assert_eq!([-0.000_1, f32::NEG_INFINITY].map(printed), ["−1.0e−4", "−∞"]);
    }

    proptest! {
        #[test]
        fn fit_never_exceeds(text in "\\PC*", width in 0usize..20) {
            prop_assert!(fit(&text, width).width() <= width);
            prop_assert_eq!(pad(&text, width).width(), width);
        }

        #[test]
        fn brief_text_is_its_ends(text in "\\PC{0,40}", n in 1usize..40) {
            let cut = brief(&text, n);
            if text.chars().count() <= n {
                prop_assert!(cut == text);
            } else {
                prop_assert!(cut.chars().count() == n && cut.contains('…'));
            }
        }

        #[test]
        fn nothing_acts_in_what_is_shown(text in any::<String>()) {
            prop_assert!(!plain(&text).contains(acts));
            prop_assert!(!json(&text).contains(acts));
            prop_assert_eq!(serde_json::from_str::<String>(&json(&text)).unwrap(), text);
        }

        #[test]
        fn what_is_left_out_is_marked(text in "[a-z ]{0,60}", width in 1usize..30, height in 0usize..4) {
            let (all, lines) = (wrap(&text, width), wrap_to(&text, width, height));
            prop_assert!(lines.len() == height.min(all.len()) && lines.iter().all(|line| line.width() <= width));
            let cut = all.len() > height && height > 0;
            prop_assert!(!cut || lines.last().is_some_and(|line| line.ends_with('…')));
            prop_assert!(cut || lines[..] == all[..height.min(all.len())]);
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
            let wide = f64::from(x) * 1e200;
            prop_assert!(num(wide).len() <= 9, "{}", num(wide));
            prop_assert!(signed_fixed(x, 4).len() <= 12, "{}", signed_fixed(x, 4));
            prop_assert!(exact(x).len() <= 16, "{}", exact(x));
            prop_assert!(exact(x).parse::<f32>().unwrap().to_bits() == x.to_bits() || x.is_nan());
        }
    }
}
