//! One Rust file as the rules see it: its code without comments, its comments, attributes, functions and test items.
//!
//! Nothing here judges; rules ask. It follows brackets, not grammar, which is enough for what is asked.

use std::ops::Range;

use super::token::{Kind, Token, tokens};

/// A Rust file, read.
#[derive(Debug)]
pub(crate) struct Source {
    /// Its text.
    pub(crate) text: String,
    /// Its tokens without comments and docs. Ranges and indices below count these.
    pub(crate) code: Vec<Token>,
    /// Its comments and docs.
    pub(crate) comments: Vec<Token>,
    /// Its attributes, inner ones too.
    pub(crate) attributes: Vec<Attribute>,
    /// Items under `#[cfg(test)]`, from the attribute to the item's end.
    pub(crate) test_items: Vec<Range<usize>>,
    /// True when the whole file is compiled for tests alone.
    pub(crate) test_only: bool,
    /// For each opening bracket, its closing one (or the end of the file); for any other token, itself.
    partner: Vec<usize>,
}

/// `#[…]` or `#![…]`.
#[derive(Debug)]
pub(crate) struct Attribute {
    /// True for `#![…]`.
    pub(crate) inner: bool,
    /// The line of its `#`.
    pub(crate) line: usize,
    /// All of it, from `#` to past `]`.
    pub(crate) whole: Range<usize>,
    /// What stands between the brackets.
    pub(crate) body: Range<usize>,
}

/// A function with a body.
#[derive(Debug)]
pub(crate) struct Function {
    /// Its name.
    pub(crate) name: String,
    /// The line of its `fn`.
    pub(crate) line: usize,
    /// The line of its closing brace.
    pub(crate) last_line: usize,
}

/// Words an item can start with; an attribute on anything else covers no test item.
const ITEM_WORDS: &[&str] = &[
    "async",
    "const",
    "enum",
    "extern",
    "fn",
    "impl",
    "macro_rules",
    "mod",
    "pub",
    "static",
    "struct",
    "trait",
    "type",
    "unsafe",
    "use",
];

impl Source {
    /// `text`, read.
    pub(crate) fn new(text: &str) -> Self {
        let (comments, code) = tokens(text)
            .into_iter()
            .partition(|token| matches!(token.kind, Kind::Comment | Kind::OuterDoc | Kind::InnerDoc));
        let mut source = Self {
            text: text.to_owned(),
            code,
            comments,
            attributes: Vec::new(),
            test_items: Vec::new(),
            test_only: false,
            partner: Vec::new(),
        };
        source.partner = partners(&source.code);
        source.attributes = source.find_attributes();
        source.test_items = source.find_test_items();
        source.test_only = source.attributes.iter().any(|it| it.inner && source.is_test_attribute(it));
        source
    }

    /// True when the token at `index` is exactly `text`.
    pub(crate) fn is(&self, index: usize, text: &str) -> bool {
        self.code.get(index).is_some_and(|token| token.text == text)
    }

    /// True when the tokens from `index` on are `texts`.
    pub(crate) fn reads(&self, index: usize, texts: &[&str]) -> bool {
        texts.iter().enumerate().all(|(step, text)| self.is(index + step, text))
    }

    /// Every index at which the tokens `texts` start.
    pub(crate) fn places<'a>(&'a self, texts: &'a [&str]) -> impl Iterator<Item = usize> + 'a {
        (0..self.code.len()).filter(move |&index| self.reads(index, texts))
    }

    /// The index of the bracket that closes the one at `index`.
    pub(crate) fn closing(&self, index: usize) -> usize {
        self.partner.get(index).copied().unwrap_or(self.code.len())
    }

    /// The line of the token at `index`, or the last line there is.
    pub(crate) fn line(&self, index: usize) -> usize {
        self.code.get(index).or(self.code.last()).map_or(1, |token| token.line)
    }

    /// True when the token at `index` is compiled for tests alone.
    pub(crate) fn is_test(&self, index: usize) -> bool {
        self.test_only || self.test_items.iter().any(|item| item.contains(&index))
    }

    /// The functions that have a body.
    pub(crate) fn functions(&self) -> Vec<Function> {
        let names = self.places(&["fn"]).filter(|&index| {
            self.is(index + 1, "$") || self.code.get(index + 1).is_some_and(|name| name.kind == Kind::Word)
        });
        let with_body = |index: usize| {
            let body = self.body(index)?;
            let name = self.code[index + 1..].iter().find(|token| token.kind == Kind::Word)?;
            let (line, last_line) = (self.line(index), self.line(self.closing(body)));
            Some(Function { name: name.text.clone(), line, last_line })
        };
        names.filter_map(with_body).collect()
    }

    /// The `{` of the item that starts at `index`; none if `;` ends it first.
    pub(crate) fn body(&self, index: usize) -> Option<usize> {
        let mut at = index;
        while at < self.code.len() {
            match self.code[at].text.as_str() {
                // A brace right after `<` is a constant argument, not a body.
                "{" if at == 0 || !self.is(at - 1, "<") => return Some(at),
                ";" | "}" => return None,
                "(" | "[" | "{" => at = self.closing(at) + 1,
                _ => at += 1,
            }
        }
        None
    }

    /// The bodies of `impl Trait for Type`.
    pub(crate) fn trait_impls(&self) -> Vec<Range<usize>> {
        let body = |index: usize| {
            let open = self.body(index)?;
            let names_trait = (index..open).any(|at| self.is(at, "for") && !self.is(at + 1, "<"));
            names_trait.then(|| open..self.closing(open))
        };
        self.places(&["impl"]).filter_map(body).collect()
    }

    /// Every path a `use` brings in, groups opened, with the index of its `use`: `std::{fs, io::Read}` gives two.
    pub(crate) fn imports(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for index in self.places(&["use"]).filter(|&index| !self.is(index + 1, "<")) {
            let mut paths = Vec::new();
            self.open_import(index + 1, "", &mut paths);
            found.extend(paths.into_iter().map(|path| (index, path)));
        }
        found
    }

    /// Adds the paths of the import tree at `index` and returns the index of the token after it.
    fn open_import(&self, index: usize, prefix: &str, paths: &mut Vec<String>) -> usize {
        let (mut at, mut path) = (index, prefix.to_owned());
        while let Some(token) = self.code.get(at) {
            match token.text.as_str() {
                "{" => {
                    let end = self.closing(at);
                    at += 1;
                    while at < end {
                        at = self.open_import(at, &path, paths) + 1;
                    }
                    return end + 1;
                }
                "," | ";" | "}" => break,
                text => path.push_str(text),
            }
            at += 1;
        }
        paths.push(path);
        at
    }

    /// The modules this file declares in files of their own: the index of `mod` and the name.
    pub(crate) fn child_modules(&self) -> impl Iterator<Item = (usize, &str)> {
        let declared = self.places(&["mod"]).filter(|&index| self.is(index + 2, ";"));
        declared.map(|index| (index, self.code[index + 1].text.as_str()))
    }

    /// The attributes and visibility words right before the item keyword at `index` start here.
    pub(crate) fn head(&self, index: usize) -> usize {
        let mut head = index;
        while head > 0 {
            let before = head - 1;
            let token = &self.code[before];
            if let Some(attribute) = self.attributes.iter().find(|it| !it.inner && it.whole.end == head) {
                head = attribute.whole.start;
            } else if self.is(before, ")") {
                let open = (0..before).rev().find(|&at| self.is(at, "(") && self.closing(at) == before);
                match open {
                    Some(open) if open > 0 && self.is(open - 1, "pub") => head = open - 1,
                    _ => return head,
                }
            } else if ["pub", "const", "async", "unsafe", "extern"].contains(&token.text.as_str())
                || (token.kind == Kind::Literal && before > 0 && self.is(before - 1, "extern"))
            {
                head = before;
            } else {
                return head;
            }
        }
        head
    }

    /// The docs and comments between the code before the item keyword at `index` and that keyword.
    pub(crate) fn comments_above(&self, index: usize) -> impl Iterator<Item = &Token> {
        let head = self.head(index);
        let from = if head == 0 { 0 } else { self.code[head - 1].offset };
        let to = self.code[index].offset;
        self.comments.iter().filter(move |comment| (from..to).contains(&comment.offset))
    }

    /// True when `attribute` is `#[cfg(test)]`, or a cfg that demands `test` among other things.
    pub(crate) fn is_test_attribute(&self, attribute: &Attribute) -> bool {
        let start = attribute.body.start;
        self.reads(start, &["cfg", "(", "test", ")"])
            || (self.reads(start, &["cfg", "(", "all", "("]) && self.lists(start + 3, "test"))
    }

    /// True when one of the items between the bracket at `open` and its partner is `word`, and no more than that.
    fn lists(&self, open: usize, word: &str) -> bool {
        let mut at = open + 1;
        while at < self.closing(open) {
            let ends = self.is(at + 1, ",") || at + 1 == self.closing(open);
            if self.is(at, word) && ends {
                return true;
            }
            at = if self.is(at, "(") { self.closing(at) } else { at } + 1;
        }
        false
    }

    fn find_attributes(&self) -> Vec<Attribute> {
        let attribute = |index: usize| {
            let inner = self.is(index + 1, "!");
            let open = index + 1 + usize::from(inner);
            let close = self.closing(open);
            let (whole, body) = (index..close + 1, open + 1..close);
            self.is(open, "[").then(|| Attribute { inner, line: self.line(index), whole, body })
        };
        self.places(&["#"]).filter_map(attribute).collect()
    }

    fn find_test_items(&self) -> Vec<Range<usize>> {
        let outer = self.attributes.iter().filter(|it| !it.inner && self.is_test_attribute(it));
        let item = |attribute: &Attribute| {
            let mut start = attribute.whole.end;
            while let Some(next) = self.attributes.iter().find(|it| it.whole.start == start) {
                start = next.whole.end;
            }
            let starts_item = ITEM_WORDS.contains(&self.code.get(start)?.text.as_str());
            starts_item.then(|| attribute.whole.start..self.item_end(start))
        };
        outer.filter_map(item).collect()
    }

    /// Past the last token of the item that starts at `index`.
    fn item_end(&self, index: usize) -> usize {
        match self.body(index) {
            Some(open) => self.closing(open) + 1,
            None => self.places(&[";"]).find(|&at| at > index).map_or(self.code.len(), |at| at + 1),
        }
    }
}

fn partners(code: &[Token]) -> Vec<usize> {
    let mut partner: Vec<usize> = (0..code.len()).collect();
    let mut open = Vec::new();
    for (index, token) in code.iter().enumerate() {
        match token.text.as_str() {
            "(" | "[" | "{" => open.push(index),
            ")" | "]" | "}" => {
                if let Some(start) = open.pop() {
                    partner[start] = index;
                }
            }
            _ => {}
        }
    }
    for start in open {
        partner[start] = code.len();
    }
    partner
}

#[cfg(test)]
mod tests {
    use super::super::tree::unindented;
    use super::Source;

    #[test]
    fn test_items_end_where_they_end() {
        let source = Source::new(&unindented(
            r#"
            fn a() {}
            #[cfg(test)]
            #[path = "x"]
            mod tests { fn b() {} }
            fn c() {}
            #[cfg(not(test))]
            fn d() {}
            #[cfg(all(test, unix))]
            use e::{f, g};
            fn h() {}
            #[cfg(all(test, not(loom)))]
            fn i() {}
            #[cfg(all(unix, any(test, loom)))]
            fn j() {}
            "#,
        ));
        let tested: Vec<&str> = ["a", "b", "c", "d", "g", "h", "i", "j"]
            .into_iter()
            .filter(|name| source.places(&[name]).all(|index| source.is_test(index)))
            .collect();
        assert_eq!(tested, ["b", "g", "i"]);
    }

    #[test]
    fn imports_open_groups() {
        let source = Source::new("use std::{fmt, sync::{Arc, atomic::*}, io,};\nuse a::*;\nuse b;\n");
        let paths: Vec<String> = source.imports().into_iter().map(|(_, path)| path).collect();
        assert_eq!(paths, ["std::fmt", "std::sync::Arc", "std::sync::atomic::*", "std::io", "a::*", "b"]);
    }

    #[test]
    fn a_function_spans_from_its_word_to_its_brace() {
        let source = Source::new(&unindented(
            r#"
            pub
            fn a<const N: usize>(x: [u8; { 4 }])
            where
                X<{ N }>: Y,
            {
                g("}");
            }
            fn b();
            "#,
        ));
        let spans: Vec<_> =
            source.functions().into_iter().map(|it| (it.name, it.line, it.last_line)).collect();
        assert_eq!(spans, [("a".to_owned(), 2, 7)]);
    }
}
