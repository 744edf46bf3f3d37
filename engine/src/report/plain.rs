//! Numbers and untrusted text as people read them: durations, bytes, dates, text for a terminal and for HTML.

use std::borrow::Cow;

/// A duration with three digits and its unit.
pub(super) fn duration(ns: u64) -> String {
    let (amount, unit) = match ns {
        0..1_000 => return format!("{ns} ns"),
        1_000..1_000_000 => (ns as f64 / 1e3, "µs"),
        1_000_000..1_000_000_000 => (ns as f64 / 1e6, "ms"),
        1_000_000_000..120_000_000_000 => (ns as f64 / 1e9, "s"),
        _ => return minutes(ns / 1_000_000_000),
    };
    format!("{} {unit}", three_digits(amount))
}

fn minutes(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours} h {minutes:02} min") } else { format!("{minutes} min {seconds:02} s") }
}

fn three_digits(amount: f64) -> String {
    if amount < 10.0 {
        format!("{amount:.2}")
    } else if amount < 100.0 {
        format!("{amount:.1}")
    } else {
        format!("{amount:.0}")
    }
}

/// How well times of several ranks can be compared.
pub(super) fn clocks(within_ns: u64) -> String {
    match within_ns {
        0 => "by one clock".to_owned(),
        within => format!("clocks known to {}", duration(within)),
    }
}

/// Bytes with three digits and a binary unit.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let power = bytes.ilog2() / 10;
    let amount = bytes as f64 / f64::from(power * 10).exp2();
    format!("{} {}", three_digits(amount), UNITS[power as usize - 1])
}

/// A moment in UTC: `2026-11-20 16:36:27 UTC`. *Source:* Howard Hinnant, "chrono-compatible low-level date algorithms",
/// `civil_from_days`.
pub(super) fn moment(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000;
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    // Years here begin in March, so that a leap day ends its year; eras are 400 years.
    let days = seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// Text for one line of a terminal: what could move the cursor or turn the writing round stands as `\u{..}`.
pub(super) fn one_line(text: &str) -> String {
    text.chars().flat_map(|c| if hides(c) { c.escape_default().collect() } else { vec![c] }).collect()
}

/// Whether a character moves, turns round or hides others instead of showing itself. All are below U+10000.
pub(super) fn hides(c: char) -> bool {
    let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    turns || c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

/// The first line that is not blank.
pub(super) fn first_line(text: &str) -> &str {
    text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("")
}

/// At most `width` characters: a longer text ends in `…`.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.chars().nth(width).is_none() {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// Text in which everything shows: what hides stands as a replacement character, but for ends of lines and tabs.
pub(super) fn visible(text: &str) -> Cow<'_, str> {
    let bad = |c: char| hides(c) && !matches!(c, '\n' | '\t');
    if text.contains(bad) { Cow::Owned(text.replace(bad, "\u{fffd}")) } else { Cow::Borrowed(text) }
}

/// Text inside HTML or SVG, between tags or in a quoted attribute. Control characters are forbidden there, so they are
/// replaced.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in visible(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}
