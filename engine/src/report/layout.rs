//! Boxes and arrows as SVG: a column per level, boxes in an order that crosses few arrows.
//!
//! *Source:* the ordering is the barycentre method of Sugiyama, Tagawa and Toda, "Methods for visual understanding of
//! hierarchical system structures" (1981), without its dummy boxes on long arrows.

use super::graph::{Arrow, Node, Picture};
use super::plain::{cut, escaped};
use std::fmt::{self, Write};

/// Pixels of a box and of the gaps between boxes, across and down.
const BOX: (usize, usize) = (168, 28);
const GAP: (usize, usize) = (72, 12);
/// Pixels around the picture.
const MARGIN: usize = 16;
/// Boxes of a column; a level with more takes several columns.
const COLUMN_MAX: usize = 48;
/// Characters of a label that fit into a box.
const LABEL_MAX: usize = 24;
/// Passes over all levels; further ones change little.
const PASSES: usize = 6;

/// Where a box lies: its left upper corner, in pixels.
type Place = (usize, usize);

/// The picture as an `<svg>` element, to stand inside a page whose style sheet gives colours. Empty without boxes.
pub(super) fn svg(picture: &Picture) -> String {
    let mut text = String::new();
    if !picture.boxes.is_empty() {
        write_svg(&mut text, picture).expect("writing to a string succeeds");
    }
    text
}

fn write_svg(out: &mut String, picture: &Picture) -> fmt::Result {
    let (places, (width, height)) = places(&ordered_levels(picture), picture.boxes.len());
    writeln!(
        out,
        "<svg class=\"graph\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" role=\"img\">\n\
         <defs><marker id=\"head\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" \
         markerUnits=\"userSpaceOnUse\" orient=\"auto\"><path d=\"M0 0L8 4L0 8z\"/></marker></defs>"
    )?;
    // The critical path comes last, above other arrows.
    let (thick, thin): (Vec<&Arrow>, Vec<&Arrow>) = picture.arrows.iter().partition(|arrow| arrow.critical);
    for arrow in thin.into_iter().chain(thick) {
        write_arrow(out, arrow, places[arrow.from], places[arrow.to])?;
    }
    for (index, (node, place)) in picture.boxes.iter().zip(&places).enumerate() {
        write_box(out, index, node, *place)?;
    }
    writeln!(out, "</svg>")
}

fn write_arrow(out: &mut String, arrow: &Arrow, from: Place, to: Place) -> fmt::Result {
    let class = if arrow.critical { " class=\"critical\"" } else { "" };
    let forward = to.0 > from.0;
    let (x1, y1) = (from.0 + BOX.0, from.1 + BOX.1 / 2);
    let (x2, y2) = if forward { (to.0, to.1 + BOX.1 / 2) } else { (to.0 + BOX.0, to.1 + BOX.1 / 2) };
    // A path along a level, or back, bows out on the right of its boxes.
    let bend = if forward { (x2 - x1) / 2 } else { GAP.0 / 2 };
    let (first, second) = (x1 + bend, if forward { x2 - bend } else { x2 + bend });
    write!(out, "<path{class} data-from=\"{}\" data-to=\"{}\" ", arrow.from, arrow.to)?;
    write!(out, "d=\"M{x1} {y1}C{first} {y1} {second} {y2} {x2} {y2}\">")?;
    if arrow.edges > 1 {
        write!(out, "<title>{} edges</title>", arrow.edges)?;
    }
    writeln!(out, "</path>")
}

fn write_box(out: &mut String, index: usize, node: &Node, (x, y): Place) -> fmt::Result {
    let (width, height) = BOX;
    let critical = if node.critical { " critical" } else { "" };
    write!(out, "<g class=\"{}{critical}\" data-box=\"{index}\">", node.ending.word())?;
    write!(out, "<title>{}</title>", escaped(&node.title))?;
    write!(out, "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"6\"/>")?;
    let (middle, base) = (x + width / 2, y + height / 2 + 4);
    let label = escaped(&cut(&node.label, LABEL_MAX));
    writeln!(out, "<text x=\"{middle}\" y=\"{base}\">{label}</text></g>")
}

/// The boxes of each level, from top to bottom.
fn ordered_levels(picture: &Picture) -> Vec<Vec<usize>> {
    let boxes = &picture.boxes;
    let count = boxes.iter().map(|node| node.level + 1).max().unwrap_or(0);
    let mut levels: Vec<Vec<usize>> = vec![Vec::new(); count];
    for (index, node) in boxes.iter().enumerate() {
        levels[node.level].push(index);
    }
    let (mut before, mut after) = (vec![Vec::new(); boxes.len()], vec![Vec::new(); boxes.len()]);
    for arrow in picture.arrows.iter().filter(|arrow| boxes[arrow.from].level < boxes[arrow.to].level) {
        before[arrow.to].push(arrow.from);
        after[arrow.from].push(arrow.to);
    }
    let mut heights = vec![0.0; boxes.len()];
    levels.iter().for_each(|level| spread(level, &mut heights));
    for pass in 0..PASSES {
        for step in 0..count {
            let (level, neighbours) =
                if pass % 2 == 0 { (step, &before) } else { (count - 1 - step, &after) };
            order(&mut levels[level], neighbours, &mut heights);
        }
    }
    levels
}

/// Sorts a level by the mean height of each box's neighbours; a box without any stays at its height.
fn order(level: &mut [usize], neighbours: &[Vec<usize>], heights: &mut [f64]) {
    for index in level.iter() {
        let near = &neighbours[*index];
        if !near.is_empty() {
            heights[*index] = near.iter().map(|other| heights[*other]).sum::<f64>() / near.len() as f64;
        }
    }
    level.sort_by(|a, b| heights[*a].total_cmp(&heights[*b]));
    spread(level, heights);
}

/// Gives the boxes of a level heights around 0, one apart.
fn spread(level: &[usize], heights: &mut [f64]) {
    for (step, index) in level.iter().enumerate() {
        heights[*index] = step as f64 - level.len() as f64 / 2.0;
    }
}

/// Where each box lies, and how large the picture is: columns are centred.
fn places(levels: &[Vec<usize>], boxes: usize) -> (Vec<Place>, (usize, usize)) {
    let columns: Vec<&[usize]> = levels.iter().flat_map(|level| level.chunks(COLUMN_MAX)).collect();
    let tallest = columns.iter().map(|column| column.len()).max().unwrap_or(0);
    let height = |boxes: usize| boxes * (BOX.1 + GAP.1);
    let mut places = vec![(0, 0); boxes];
    for (step, column) in columns.iter().enumerate() {
        let top = MARGIN + (height(tallest) - height(column.len())) / 2;
        for (down, index) in column.iter().enumerate() {
            places[*index] = (MARGIN + step * (BOX.0 + GAP.0), top + height(down));
        }
    }
    // The last column keeps its gap: arrows along a level bow out into it.
    (places, (2 * MARGIN + columns.len() * (BOX.0 + GAP.0), 2 * MARGIN + height(tallest)))
}
