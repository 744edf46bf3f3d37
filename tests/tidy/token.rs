//! Rust text to tokens, as far as the rules need it: what is code, what is a comment, what is a literal, on which line.
//!
//! It never fails: text that is no Rust (an unclosed string, say) gives tokens to the end of the file, and rejecting
//! such a file is left to the compiler. What the tokens mean is left to `source`.

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An identifier or a keyword.
    Word,
    /// A number, without its sign or exponent sign.
    Number,
    /// A string or character literal of any form, with its quotes.
    Literal,
    /// A lifetime or loop label, with its quote.
    Lifetime,
    /// A comment that documents nothing.
    Comment,
    /// Documentation of the item that follows.
    OuterDoc,
    /// Documentation of the file or item it stands in.
    InnerDoc,
    /// One character of punctuation.
    Mark,
}

/// One token and where it starts.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    /// What it is.
    pub(crate) kind: Kind,
    /// Its text, whole.
    pub(crate) text: String,
    /// The line it starts on, from 1.
    pub(crate) line: usize,
    /// The byte it starts at.
    pub(crate) offset: usize,
}

/// All tokens of `text`, in order.
pub(crate) fn tokens(text: &str) -> Vec<Token> {
    let mut scanner = Scanner { text, offset: 0, line: 1 };
    scanner.skip_shebang();
    std::iter::from_fn(|| scanner.next_token()).collect()
}

/// A place in a text.
struct Scanner<'a> {
    text: &'a str,
    offset: usize,
    line: usize,
}

impl Scanner<'_> {
    fn skip_shebang(&mut self) {
        if self.text.starts_with("#!") && !self.text[2..].trim_start().starts_with('[') {
            self.offset = self.text.find('\n').unwrap_or(self.text.len());
        }
    }

    fn next_token(&mut self) -> Option<Token> {
        let blank = self.rest().len() - self.rest().trim_start().len();
        self.advance(blank);
        if self.rest().is_empty() {
            return None;
        }
        let (kind, length) = measure(self.rest());
        let token =
            Token { kind, text: self.rest()[..length].to_owned(), line: self.line, offset: self.offset };
        self.advance(length);
        Some(token)
    }

    fn rest(&self) -> &str {
        &self.text[self.offset..]
    }

    fn advance(&mut self, length: usize) {
        self.line += self.rest()[..length].matches('\n').count();
        self.offset += length;
    }
}

/// The kind and the length in bytes of the token that `rest` starts with; `rest` is not empty and starts with no blank.
fn measure(rest: &str) -> (Kind, usize) {
    if rest.starts_with("//") {
        return (comment_kind(rest, "///", "//!", "////"), rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return (comment_kind(rest, "/**", "/*!", "/***"), block_comment_length(rest));
    }
    if let Some(length) = literal_length(rest) {
        return (Kind::Literal, length);
    }
    match rest.chars().next() {
        Some('\'') => (Kind::Lifetime, 1 + word_length(&rest[1..])),
        Some(first) if first.is_ascii_digit() => (Kind::Number, number_length(rest)),
        Some(first) if is_word(first) => (Kind::Word, raw_word_length(rest)),
        Some(first) => (Kind::Mark, first.len_utf8()),
        None => (Kind::Mark, 0),
    }
}

fn comment_kind(rest: &str, outer: &str, inner: &str, ruler: &str) -> Kind {
    if rest.starts_with(inner) {
        Kind::InnerDoc
    } else if rest.starts_with(outer) && !rest.starts_with(ruler) && !rest.starts_with("/**/") {
        Kind::OuterDoc
    } else {
        Kind::Comment
    }
}

/// Block comments nest in Rust.
fn block_comment_length(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        let step = match &rest.as_bytes()[at..] {
            [b'/', b'*', ..] => (1, 2),
            [b'*', b'/', ..] => (-1, 2),
            _ => (0, 1),
        };
        depth += step.0;
        at += step.1;
        if depth == 0 {
            break;
        }
    }
    at
}

/// The length of the string or character literal that `rest` starts with, if it does.
fn literal_length(rest: &str) -> Option<usize> {
    let prefix =
        ["br", "cr", "b", "c", "r"].into_iter().find(|prefix| rest.starts_with(prefix)).unwrap_or("");
    let body = &rest[prefix.len()..];
    if prefix.ends_with('r') {
        return raw_string_length(body).map(|length| prefix.len() + length);
    }
    if body.starts_with('"') {
        return Some(prefix.len() + quoted_length(body, '"'));
    }
    if body.starts_with('\'') && prefix != "c" && is_character(body) {
        return Some(prefix.len() + quoted_length(body, '\''));
    }
    None
}

/// True where the quote starts a character, false where it starts a lifetime.
fn is_character(body: &str) -> bool {
    let mut characters = body.chars().skip(1);
    characters.next() == Some('\\') || characters.next() == Some('\'')
}

fn raw_string_length(body: &str) -> Option<usize> {
    let hashes = body.len() - body.trim_start_matches('#').len();
    let close = format!("\"{}", "#".repeat(hashes));
    let inside = body[hashes..].strip_prefix('"')?;
    let end = inside.find(&close).map_or(inside.len(), |end| end + close.len());
    Some(hashes + 1 + end)
}

fn quoted_length(body: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, character) in body.char_indices().skip(1) {
        if character == quote && !escaped {
            return at + 1;
        }
        escaped = character == '\\' && !escaped;
    }
    body.len()
}

fn number_length(rest: &str) -> usize {
    let whole = word_length(rest);
    let fraction =
        rest[whole..].strip_prefix('.').filter(|fraction| fraction.starts_with(|c: char| c.is_ascii_digit()));
    fraction.map_or(whole, |fraction| whole + 1 + word_length(fraction))
}

fn raw_word_length(rest: &str) -> usize {
    match rest.strip_prefix("r#") {
        Some(word) if word.starts_with(is_word) => 2 + word_length(word),
        _ => word_length(rest),
    }
}

fn word_length(rest: &str) -> usize {
    rest.find(|character| !is_word(character)).unwrap_or(rest.len())
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::tokens;

    fn check(text: &str, expected: &Expect) {
        let shown =
            tokens(text).into_iter().map(|token| format!("{} {:?} {}\n", token.line, token.kind, token.text));
        expected.assert_eq(&shown.collect::<String>());
    }

    #[test]
    fn literals_hide_what_looks_like_code() {
        check(
            r##"f("a \" // b", r#"unsafe " {"#, b'"', '\'', '"', br"\", c"x");"##,
            &expect![[r##"
                1 Word f
                1 Mark (
                1 Literal "a \" // b"
                1 Mark ,
                1 Literal r#"unsafe " {"#
                1 Mark ,
                1 Literal b'"'
                1 Mark ,
                1 Literal '\''
                1 Mark ,
                1 Literal '"'
                1 Mark ,
                1 Literal br"\"
                1 Mark ,
                1 Literal c"x"
                1 Mark )
                1 Mark ;
            "##]],
        );
    }

    #[test]
    fn lifetimes_are_no_characters() {
        check(
            "&'a T, 'é', '_, 'static",
            &expect![[r#"
                1 Mark &
                1 Lifetime 'a
                1 Word T
                1 Mark ,
                1 Literal 'é'
                1 Mark ,
                1 Lifetime '_
                1 Mark ,
                1 Lifetime 'static
            "#]],
        );
    }

    #[test]
    fn comments_nest_and_docs_are_told_apart() {
        check(
            "#!/usr/bin/env run\n//! a\n/// b\n// c\n//// d\n/* e /* f */ \"\n*/ r#fn 0..1.5e3",
            &expect![[r#"
                2 InnerDoc //! a
                3 OuterDoc /// b
                4 Comment // c
                5 Comment //// d
                6 Comment /* e /* f */ "
                */
                7 Word r#fn
                7 Number 0
                7 Mark .
                7 Mark .
                7 Number 1.5e3
            "#]],
        );
    }
}
