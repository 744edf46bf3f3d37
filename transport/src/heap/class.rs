//! The sizes of blocks that spans have.

use super::layout::UNIT_BYTES;

/// Classes there are: sizes, and pages.
pub(crate) const CLASS_COUNT: usize = 31;
/// Classes an agent's record has room for.
pub(crate) const CLASSES_MAX: usize = 32;
/// The largest block of a span; larger ones are runs.
pub(crate) const SMALL_BYTES_MAX: u64 = 32 << 10;
/// Blocks up to this size come from spans of 64 KiB, larger ones from spans of 1 MiB.
const SHORT_SPAN_BYTES_MAX: u64 = 8 << 10;
/// Bytes of a span's head: its owner. Tags follow.
pub(crate) const SPAN_HEAD_BYTES: u64 = 64;

/// Steps of about a quarter of a power of two: at most a fifth is lost to rounding from 512 bytes on.
const SIZES: [u64; CLASS_COUNT] = [
    64, 128, 192, 256, 384, 512, 640, 768, 896, 1024, 1280, 1536, 1792, 2048, 2560, 3072, 3584, 4096, 5120,
    6144, 7168, 8192, 10240, 12288, 14336, 16384, 20480, 24576, 28672, 32768, 4096,
];

/// A class: all blocks of a span are of one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Class(u8);

/// What a class's spans look like.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    /// Bytes of a block.
    pub(crate) size: u64,
    /// Units of a span.
    pub(crate) units: u64,
    /// Blocks of a span.
    pub(crate) blocks: u32,
    /// Offset of the first block in its span.
    pub(crate) first: u64,
    /// Free blocks from which on a span is worth taking.
    pub(crate) worth: u32,
}

const SHAPES: [Shape; CLASS_COUNT] = shapes();
/// By size in steps of 64 bytes, the class.
const BY_SIZE: [u8; SMALL_BYTES_MAX as usize / 64 + 1] = by_size();

/// Pages: aligned to 4096, their spans stay spans of pages for ever.
pub(crate) const PAGE: Class = Class(CLASS_COUNT as u8 - 1);

impl Class {
    /// The class for blocks of so many bytes; `None` if they are too large for a span.
    #[inline(always)]
    pub(crate) fn for_bytes(bytes: u64) -> Option<Self> {
        if bytes > SMALL_BYTES_MAX {
            return None;
        }
        Some(Self(BY_SIZE[bytes.div_ceil(64) as usize]))
    }

    /// From a number read in the segment.
    #[inline(always)]
    pub(crate) fn from_number(number: u64) -> Option<Self> {
        (number < CLASS_COUNT as u64).then_some(Self(number as u8))
    }

    /// All.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..CLASS_COUNT as u8).map(Self)
    }

    #[inline(always)]
    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }

    #[inline(always)]
    pub(crate) fn shape(self) -> &'static Shape {
        &SHAPES[self.index()]
    }
}

const fn shapes() -> [Shape; CLASS_COUNT] {
    let mut shapes = [Shape { size: 0, units: 0, blocks: 0, first: 0, worth: 0 }; CLASS_COUNT];
    let mut class = 0;
    while class < CLASS_COUNT {
        let is_page = class == CLASS_COUNT - 1;
        shapes[class] = shape(SIZES[class], if is_page { 4096 } else { 64 });
        class += 1;
    }
    shapes
}

const fn shape(size: u64, align: u64) -> Shape {
    let units = if size <= SHORT_SPAN_BYTES_MAX { 4 } else { 64 };
    let mut blocks = units * UNIT_BYTES / size;
    while (SPAN_HEAD_BYTES + 4 * blocks).next_multiple_of(align) + blocks * size > units * UNIT_BYTES {
        blocks -= 1;
    }
    let first = (SPAN_HEAD_BYTES + 4 * blocks).next_multiple_of(align);
    let worth = if blocks < 16 { 1 } else { blocks as u32 / 8 };
    Shape { size, units, blocks: blocks as u32, first, worth }
}

const fn by_size() -> [u8; SMALL_BYTES_MAX as usize / 64 + 1] {
    let mut table = [0; SMALL_BYTES_MAX as usize / 64 + 1];
    let (mut step, mut class) = (0, 0);
    while step < table.len() {
        while SIZES[class] < step as u64 * 64 {
            class += 1;
        }
        table[step] = class as u8;
        step += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::{Class, PAGE, SMALL_BYTES_MAX};

    #[test]
    fn classes_hold_what_they_are_for() {
        for bytes in 1..=SMALL_BYTES_MAX {
            let class = Class::for_bytes(bytes).unwrap();
            assert!(class.shape().size >= bytes && class != PAGE, "{bytes}");
            assert!(
                bytes <= 256 || class.shape().size * 2 <= bytes * 3 + 128,
                "{bytes} in {}",
                class.shape().size
            );
        }
        assert!(Class::for_bytes(SMALL_BYTES_MAX + 1).is_none());
    }

    #[test]
    fn blocks_lie_in_their_span_behind_its_tags() {
        for class in Class::all() {
            let shape = class.shape();
            assert!(shape.first >= 64 + 4 * u64::from(shape.blocks), "{class:?}");
            assert!(
                shape.first + u64::from(shape.blocks) * shape.size <= shape.units * (16 << 10),
                "{class:?}"
            );
            assert_eq!(shape.first % if class == PAGE { 4096 } else { 64 }, 0);
        }
    }
}
