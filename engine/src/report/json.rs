//! Text as JSON strings that are also safe inside a page's `<script>`.

use super::plain::hides;
use std::io::{self, Write};

/// Writes `text` as a JSON string with its quotes. `<`, `>` and `&` are escaped too, so no text can end a script, and
/// so is what would turn the page's source round or break its lines.
pub(super) fn write_string(out: &mut impl Write, text: &str) -> io::Result<()> {
    out.write_all(b"\"")?;
    let mut plain = 0;
    for (at, c) in text.char_indices().filter(|(_, c)| needs_escape(*c)) {
        out.write_all(&text.as_bytes()[plain..at])?;
        match c {
            '"' => out.write_all(b"\\\"")?,
            '\\' => out.write_all(b"\\\\")?,
            c => write!(out, "\\u{:04x}", u32::from(c))?,
        }
        plain = at + c.len_utf8();
    }
    out.write_all(&text.as_bytes()[plain..])?;
    out.write_all(b"\"")
}

fn needs_escape(c: char) -> bool {
    matches!(c, '"' | '\\' | '<' | '>' | '&') || hides(c)
}

/// Writes an array, each item by `write_item`.
pub(super) fn write_array<W: Write, T>(
    out: &mut W,
    items: impl IntoIterator<Item = T>,
    mut write_item: impl FnMut(&mut W, T) -> io::Result<()>,
) -> io::Result<()> {
    out.write_all(b"[")?;
    for (place, item) in items.into_iter().enumerate() {
        if place > 0 {
            out.write_all(b",")?;
        }
        write_item(out, item)?;
    }
    out.write_all(b"]")
}
