//! A graph as text for other programs: Graphviz, JSON, and a picture that needs no program at all.

use super::view::{Graph, reason};
use std::fmt::Write;

/// Pixels of a box and of the gaps between boxes in a drawing.
const BOX: (usize, usize) = (150, 34);
const GAP: (usize, usize) = (20, 46);

impl Graph {
    /// The graph for Graphviz, without the edges that others imply: `dot -Tpdf`.
    pub fn to_dot(&self) -> String {
        let mut text = String::from("digraph tasks {\n  node [shape=box, fontname=\"sans-serif\"];\n");
        for (i, name) in self.tasks().iter().enumerate() {
            let _ = writeln!(text, "  t{i} [label=\"{}\"];", quoted(name));
        }
        for (from, to, label) in self.drawn() {
            let _ = writeln!(text, "  t{from} -> t{to} [label=\"{}\"];", quoted(&label));
        }
        text.push_str("}\n");
        text
    }

    /// The graph as JSON: `{"tasks": [name…], "edges": [{"from", "to", "why"}…]}` with every edge, implied or not.
    pub fn to_json(&self) -> String {
        let tasks: Vec<String> = self.tasks().iter().map(|n| format!("\"{}\"", quoted(n))).collect();
        let edges: Vec<String> = self
            .edges()
            .iter()
            .map(|e| format!("{{\"from\":{},\"to\":{},\"why\":\"{}\"}}", e.from, e.to, quoted(&reason(e))))
            .collect();
        format!("{{\"tasks\":[{}],\"edges\":[{}]}}\n", tasks.join(","), edges.join(","))
    }

    /// A picture in SVG: one row per depth, without the edges that others imply.
    pub fn to_svg(&self) -> String {
        let depths = self.depths();
        let rows = depths.iter().max().map_or(0, |d| d + 1);
        let mut filled = vec![0usize; rows];
        let places: Vec<(usize, usize)> = depths
            .iter()
            .map(|depth| {
                let column = filled[*depth];
                filled[*depth] += 1;
                (GAP.0 + column * (BOX.0 + GAP.0), GAP.0 + depth * (BOX.1 + GAP.1))
            })
            .collect();
        let width = GAP.0 + filled.iter().max().unwrap_or(&0) * (BOX.0 + GAP.0);
        let height = GAP.0 + rows * (BOX.1 + GAP.1);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n"
        );
        for (from, to, label) in self.drawn() {
            let ((x1, y1), (x2, y2)) = (places[from], places[to]);
            let (x1, y1, x2) = (x1 + BOX.0 / 2, y1 + BOX.1, x2 + BOX.0 / 2);
            let _ = writeln!(
                svg,
                "<line x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\" stroke=\"#888\"><title>{}</title></line>",
                escaped(&label)
            );
        }
        for ((x, y), name) in places.iter().zip(self.tasks()) {
            let (w, h) = BOX;
            let shown: String = name.chars().rev().take(22).collect::<Vec<_>>().into_iter().rev().collect();
            let _ = writeln!(
                svg,
                "<g><title>{}</title><rect x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{h}\" rx=\"4\" \
                 fill=\"#eef\" stroke=\"#446\"/><text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text></g>",
                escaped(name),
                x + w / 2,
                y + h / 2 + 4,
                escaped(&shown)
            );
        }
        svg.push_str("</svg>\n");
        svg
    }
}

/// Text inside double quotes, for JSON and for Graphviz.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if (c as u32) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out
}

/// Text inside XML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
