//! Where the parts of a segment's file lie, and what its header says. Leaves making and mapping files to others.

#![expect(unsafe_code, reason = "declares what may lie in shared memory")]

use super::{Shared, Spec};
use crate::agent::AGENTS_MAX;
use crate::error::SegmentError;
use crate::heap::layout::{GROUP_BYTES, GROUP_UNITS, UNIT_BYTES};
use crate::sync::AtomicU64;
use std::path::Path;

/// Bytes of the header: one page.
pub(crate) const HEADER_BYTES: u64 = 4096;
/// Processes one segment can have.
pub(crate) const MEMBERS_MAX: u32 = 4096;
/// Bytes of a member's line: one cache line.
pub(crate) const MEMBER_BYTES: u64 = 64;
/// Bytes of an agent's record.
pub(crate) const AGENT_BYTES: u64 = 36 << 10;
/// Offset of the members' lines.
pub(crate) const MEMBERS: u64 = HEADER_BYTES;
/// Offset of the agents' records.
pub(crate) const AGENTS: u64 = (MEMBERS + MEMBERS_MAX as u64 * MEMBER_BYTES).next_multiple_of(AGENT_BYTES);
/// Offset of the control part.
pub(crate) const CONTROL: u64 = AGENTS + (AGENTS_MAX as u64 + 1) * AGENT_BYTES;
/// Offset of the heap's own words, in the header's page.
pub(crate) const HEAP_HEADER: u64 = 2048;
/// The longest file: tables hold offsets in 36 bits, of 64 bytes each.
const BYTES_MAX: u64 = 1 << 42;
/// Alignment of the heap, so that the kernel may use large pages.
const HEAP_ALIGN: u64 = 2 << 20;

pub(crate) const MAGIC: [u8; 8] = *b"tarragon";
/// Version of the layout that this crate gives a segment: header, members, agents, heap.
const LAYOUT: u64 = 3;
/// Read as another number where the byte order differs.
const ORDER: u64 = 0x0102_0304_0506_0708;

#[cfg(not(loom))]
const _: () = {
    assert!(size_of::<Header>() as u64 <= HEAP_HEADER);
    assert!(HEAP_HEADER + size_of::<crate::heap::layout::HeapHeader>() as u64 <= HEADER_BYTES);
    assert!(size_of::<MemberLine>() as u64 == MEMBER_BYTES);
    assert!(size_of::<crate::agent::AgentRecord>() as u64 == AGENT_BYTES);
};

/// The first words of the file. All but `agents_high` and `members_high` never change once the file has a name.
#[repr(C)]
pub(crate) struct Header {
    magic: AtomicU64,
    order: AtomicU64,
    machine: AtomicU64,
    layout: AtomicU64,
    kind: [AtomicU64; 2],
    user_layout: AtomicU64,
    uid: [AtomicU64; 2],
    bytes: AtomicU64,
    control_bytes: AtomicU64,
    heap_bytes: AtomicU64,
    maker_pid: AtomicU64,
    maker_start: AtomicU64,
    /// Complete, and how its users fence.
    ready: AtomicU64,
    /// Agents' records with numbers up to this one are memory; all claimed ones are among them.
    pub(crate) agents_high: AtomicU64,
    /// Lines below this one were claimed at some time.
    pub(crate) members_high: AtomicU64,
}

/// A process's line.
#[repr(C, align(64))]
pub(crate) struct MemberLine {
    /// 0: nobody's. Else somebody's, who lives if the kernel's lock on this line is held.
    pub(crate) state: AtomicU64,
    /// Process number, for messages.
    pub(crate) pid: AtomicU64,
    /// When it started, in the kernel's ticks since boot; for messages.
    pub(crate) start: AtomicU64,
    unused: [AtomicU64; 5],
}

// SAFETY: atomics of fixed width only, `repr(C)`, zero is valid.
unsafe impl Shared for Header {}
// SAFETY: as above.
unsafe impl Shared for MemberLine {}

/// The file is complete; its users pass full fences.
pub(crate) const READY: u64 = 1;
/// The file is complete; its users pass fences that cost one side nothing, see `fence`.
pub(crate) const READY_LIGHT: u64 = 2;

/// The sizes a file was made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) kind: [u64; 2],
    pub(crate) layout: u32,
    pub(crate) control_bytes: u64,
    pub(crate) heap_bytes: u64,
    /// Offset of the heap's tables.
    pub(crate) tables: u64,
    /// Offset of the heap's first unit.
    pub(crate) heap: u64,
    /// Units of the heap.
    pub(crate) units: u64,
    /// Length of the file.
    pub(crate) bytes: u64,
}

impl Plan {
    /// The plan for a `Spec`; `None` if it is larger than any file can be.
    pub(crate) fn new(spec: &Spec) -> Option<Self> {
        Self::of(kind_words(spec.kind), spec.layout, spec.control_bytes, spec.heap_bytes)
    }

    fn of(kind: [u64; 2], layout: u32, control_bytes: u64, heap_bytes: u64) -> Option<Self> {
        if control_bytes > BYTES_MAX || heap_bytes > BYTES_MAX {
            return None;
        }
        let units = heap_bytes.div_ceil(UNIT_BYTES).max(1);
        let tables = (CONTROL + control_bytes).next_multiple_of(GROUP_BYTES);
        let heap = (tables + units.div_ceil(GROUP_UNITS) * GROUP_BYTES).next_multiple_of(HEAP_ALIGN);
        let bytes = heap + units * UNIT_BYTES;
        let plan = Self { kind, layout, control_bytes, heap_bytes, tables, heap, units, bytes };
        (bytes <= BYTES_MAX).then_some(plan)
    }

    /// The words of a new file's header.
    pub(crate) fn header(&self, uid: u128, pid: u64, start: u64, ready: u64) -> [u64; 17] {
        let [low, high] = uid_words(uid);
        let magic = u64::from_ne_bytes(MAGIC);
        let layout = u64::from(self.layout);
        let [kind, kind_end] = self.kind;
        let sizes = [self.bytes, self.control_bytes, self.heap_bytes];
        [
            magic,
            ORDER,
            machine(),
            LAYOUT,
            kind,
            kind_end,
            layout,
            low,
            high,
            sizes[0],
            sizes[1],
            sizes[2],
            pid,
            start,
            ready,
            0,
            0,
        ]
    }

    /// Checks a header that was read from a file of `file_bytes`: the plan it was made with, and its uid.
    pub(crate) fn check(
        words: &[u64; 17],
        file_bytes: u64,
        path: &Path,
        (kind, layout): (&'static str, u32),
    ) -> Result<(Self, u128), SegmentError> {
        let foreign = |found: String| SegmentError::Foreign { path: path.to_owned(), wanted: kind, found };
        if words[0] != u64::from_ne_bytes(MAGIC) {
            return Err(foreign("it does not begin like a segment".to_owned()));
        }
        let theirs = [words[1], words[2], words[3]];
        if theirs != [ORDER, machine(), LAYOUT] {
            return Err(SegmentError::Layout {
                path: path.to_owned(),
                found: format!("{:x}/{:x}/{}", theirs[0], theirs[1], theirs[2]),
                wanted: format!("{ORDER:x}/{:x}/{LAYOUT}", machine()),
            });
        }
        if words[4..6] != kind_words(kind) {
            return Err(foreign(format!("its kind is {}", kind_text([words[4], words[5]]))));
        }
        if words[6] != u64::from(layout) {
            let (found, wanted) = (format!("{kind} {}", words[6]), format!("{kind} {layout}"));
            return Err(SegmentError::Layout { path: path.to_owned(), found, wanted });
        }
        let plan = Self::of(kind_words(kind), layout, words[10], words[11]);
        let plan = plan.filter(|plan| plan.bytes == words[9] && plan.bytes == file_bytes);
        let plan = plan.ok_or_else(|| foreign(format!("its sizes do not fit its {file_bytes} bytes")))?;
        if ![READY, READY_LIGHT].contains(&words[14]) {
            return Err(foreign("its maker died before it was ready".to_owned()));
        }
        Ok((plan, u128::from(words[7]) | u128::from(words[8]) << 64))
    }
}

/// What differs between machines that cannot share memory layouts: pointer width and page size.
fn machine() -> u64 {
    u64::from(usize::BITS) << 32 | rustix::param::page_size() as u64
}

fn uid_words(uid: u128) -> [u64; 2] {
    [uid as u64, (uid >> 64) as u64]
}

/// The first 16 bytes of a kind's name.
fn kind_words(kind: &str) -> [u64; 2] {
    let mut bytes = [0; 16];
    let used = kind.len().min(16);
    bytes[..used].copy_from_slice(&kind.as_bytes()[..used]);
    let (low, high) = bytes.split_at(8);
    let word = |half: &[u8]| u64::from_ne_bytes(half.try_into().expect("a half of 16 bytes"));
    [word(low), word(high)]
}

fn kind_text(words: [u64; 2]) -> String {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).filter(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&bytes).escape_debug().to_string()
}
