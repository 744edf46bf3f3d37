//! One key of the index, in one cache line.
//!
//! # The line
//! `ctl`, `meta`, two words of key, and two *slots* of two words. A key of up to 16 bytes lies in the line, a longer
//! one in a block; so do values. The value is in the slot that the version's lowest bit names.
//!
//! # Protocol
//! A writer locks the entry by its number in `ctl` (the version stays, readers go on), writes the *other* slot, and
//! publishes by one store of `ctl`: version + 1, and the lock is open. A reader loads `ctl`, key and slot, then `ctl`
//! again; if anything but the lock changed it looks anew. So a writer killed, or put to sleep, at any instruction
//! leaves the published slot whole; what remains is its number in the lock, which `settle` finds through the intent.
//! The version goes up with every publication and never back, also when the entry is used for another key.
//!
//! # States
//! EMPTY → FULL → TOMB → FULL …, and TOMB → EMPTY where no chain needs it. Key and `meta` change only while the
//! state is EMPTY or TOMB, by who holds the page's lock.

use std::sync::atomic::{AtomicU64, Ordering, compiler_fence, fence};
use tarragon_transport::agent::AgentId;

/// Bytes of a key, or of a value, that fit into the line.
pub(super) const INLINE_MAX: usize = 16;

pub(super) const EMPTY: u64 = 0;
pub(super) const FULL: u64 = 1;
pub(super) const TOMB: u64 = 2;

/// Forms of a value: up to 16 is its length in the slot.
pub(super) const BLOCK: u64 = 17;
/// No value: the key was removed in this checkpoint, and an older one has it.
pub(super) const REMOVED: u64 = 18;

const FORM: u32 = 2;
const PERSISTENT: u32 = 7;
const CHECK: u32 = 8;
const OWNER: u32 = 19;
const VERSION: u32 = 32;
const CHECK_MASK: u64 = 0x7ff << CHECK;
const OWNER_MASK: u64 = 0x1fff << OWNER;

/// The control word: state 2, form 5, persistent 1, check 11, owner 13, version 32 bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ctl(pub(super) u64);

impl Ctl {
    #[inline(always)]
    pub(super) fn state(self) -> u64 {
        self.0 & 3
    }

    #[inline(always)]
    pub(super) fn form(self) -> u64 {
        self.0 >> FORM & 31
    }

    #[inline(always)]
    pub(super) fn is_persistent(self) -> bool {
        self.0 >> PERSISTENT & 1 == 1
    }

    #[inline(always)]
    pub(super) fn owner(self) -> AgentId {
        AgentId((self.0 >> OWNER & 0x1fff) as u16)
    }

    #[inline(always)]
    pub(super) fn version(self) -> u32 {
        (self.0 >> VERSION) as u32
    }

    /// Which slot has the value.
    #[inline(always)]
    pub(super) fn side(self) -> usize {
        (self.0 >> VERSION & 1) as usize
    }

    #[inline(always)]
    pub(super) fn locked_by(self, agent: AgentId) -> Self {
        Self(self.0 & !OWNER_MASK | u64::from(agent.0) << OWNER)
    }

    #[inline(always)]
    pub(super) fn unlocked(self) -> Self {
        Self(self.0 & !OWNER_MASK)
    }

    /// Whether both are the same but for the lock.
    #[inline(always)]
    pub(super) fn same(self, other: Self) -> bool {
        (self.0 ^ other.0) & !OWNER_MASK == 0
    }

    /// The word that publishes a state after this one, unlocked.
    #[inline(always)]
    pub(super) fn next(self, state: u64, form: u64, persistent: bool, slot: Slot) -> Self {
        let version = self.version().wrapping_add(1);
        let bare = state | form << FORM | u64::from(persistent) << PERSISTENT | u64::from(version) << VERSION;
        Self(bare | check(bare, slot) << CHECK)
    }

    /// Whether the word, and the slot it names, are as somebody wrote them.
    #[inline(always)]
    pub(super) fn is_sound(self, slot: Slot) -> bool {
        let bare = self.0 & !(OWNER_MASK | CHECK_MASK);
        check(bare, slot) << CHECK == self.0 & CHECK_MASK
    }
}

/// 11 bits; 0 for an entry that was never used.
#[inline(always)]
fn check(bare: u64, slot: Slot) -> u64 {
    let slot = if bare & 3 == FULL { slot } else { Slot::default() };
    let mixed = bare
        .wrapping_mul(0x9E37_79B9_7F4A_7C15)
        .wrapping_add(slot.0[0])
        .wrapping_mul(0xD6E8_FEB8_6659_FD93)
        .wrapping_add(slot.0[1])
        .wrapping_mul(0xA076_1D64_78BD_642F);
    mixed >> 53
}

/// The two words of a value: its bytes, or where its block is and how long it is.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Slot(pub(super) [u64; 2]);

/// A value in a block has a checksum behind it.
const SUMMED: u64 = 1;

impl Slot {
    /// Up to 16 bytes.
    #[inline(always)]
    pub(super) fn inline(bytes: &[u8]) -> Self {
        Self(words(bytes))
    }

    pub(super) fn block(offset: u64, len: u64, summed: bool) -> Self {
        Self([offset | if summed { SUMMED } else { 0 }, len])
    }

    /// Where the block is.
    #[inline(always)]
    pub(super) fn offset(self) -> u64 {
        self.0[0] & !63
    }

    /// How long the value in the block is.
    #[inline(always)]
    pub(super) fn len(self) -> u64 {
        self.0[1]
    }

    pub(super) fn is_summed(self) -> bool {
        self.0[0] & SUMMED != 0
    }

    /// The bytes of an inline value are the first ones of these.
    #[inline(always)]
    pub(super) fn bytes(self) -> [u8; INLINE_MAX] {
        let mut bytes = [0; INLINE_MAX];
        bytes[..8].copy_from_slice(&self.0[0].to_le_bytes());
        bytes[8..].copy_from_slice(&self.0[1].to_le_bytes());
        bytes
    }
}

/// Up to 16 bytes as two words, little-endian, zeros behind.
#[inline(always)]
pub(super) fn words(bytes: &[u8]) -> [u64; 2] {
    if let Ok(eight) = <[u8; 8]>::try_from(bytes) {
        return [u64::from_le_bytes(eight), 0];
    }
    let mut all = [0; INLINE_MAX];
    all[..bytes.len()].copy_from_slice(bytes);
    let (low, high) = all.split_at(8);
    let word = |half: &[u8]| u64::from_le_bytes(half.try_into().expect("half of 16 bytes"));
    [word(low), word(high)]
}

/// What does not change while a key is there: its checkpoint 32, its length 16, a check 16 bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Meta(pub(super) u64);

impl Meta {
    #[inline(always)]
    pub(super) fn new(checkpoint: u32, key_len: u64, key: [u64; 2]) -> Self {
        let bare = u64::from(checkpoint) | key_len << 32;
        Self(bare | Self::check(bare, key) << 48)
    }

    fn check(bare: u64, key: [u64; 2]) -> u64 {
        let mixed = (bare + 1)
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .wrapping_add(key[0])
            .wrapping_mul(0xD6E8_FEB8_6659_FD93)
            .wrapping_add(key[1])
            .wrapping_mul(0xA076_1D64_78BD_642F);
        mixed >> 48
    }

    #[inline(always)]
    pub(super) fn checkpoint(self) -> u32 {
        self.0 as u32
    }

    #[inline(always)]
    pub(super) fn key_len(self) -> u64 {
        self.0 >> 32 & 0xffff
    }

    pub(super) fn is_sound(self, key: [u64; 2]) -> bool {
        let bare = self.0 & ((1 << 48) - 1);
        Self::check(bare, key) == self.0 >> 48
    }
}

/// The line.
#[repr(C, align(64))]
pub(super) struct Entry {
    pub(super) ctl: AtomicU64,
    pub(super) meta: AtomicU64,
    pub(super) key: [AtomicU64; 2],
    pub(super) slots: [[AtomicU64; 2]; 2],
}

const _: () = assert!(size_of::<Entry>() == 64);

impl Entry {
    #[inline(always)]
    pub(super) fn load(&self) -> Ctl {
        Ctl(self.ctl.load(Ordering::Acquire))
    }

    #[inline(always)]
    pub(super) fn meta(&self) -> Meta {
        Meta(self.meta.load(Ordering::Relaxed))
    }

    #[inline(always)]
    pub(super) fn key(&self) -> [u64; 2] {
        [self.key[0].load(Ordering::Relaxed), self.key[1].load(Ordering::Relaxed)]
    }

    #[inline(always)]
    pub(super) fn slot(&self, side: usize) -> Slot {
        let slot = &self.slots[side & 1];
        Slot([slot[0].load(Ordering::Relaxed), slot[1].load(Ordering::Relaxed)])
    }

    /// Whether what was loaded since `ctl` belongs together.
    #[inline(always)]
    pub(super) fn is_still(&self, ctl: Ctl) -> bool {
        fence(Ordering::Acquire);
        ctl.same(Ctl(self.ctl.load(Ordering::Relaxed)))
    }

    /// Writes the slot that is not shown.
    #[inline(always)]
    pub(super) fn prepare(&self, ctl: Ctl, slot: Slot) {
        // What is written from here on must not be seen by who still sees the word from before the lock.
        fence(Ordering::Release);
        let hidden = &self.slots[ctl.side() ^ 1];
        hidden[0].store(slot.0[0], Ordering::Relaxed);
        hidden[1].store(slot.0[1], Ordering::Relaxed);
    }

    /// Locks it for `agent`, if it is still as in `ctl` and open.
    #[inline(always)]
    pub(super) fn try_lock(&self, ctl: Ctl, agent: AgentId) -> bool {
        let locked = ctl.locked_by(agent);
        self.ctl.compare_exchange(ctl.0, locked.0, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Publishes. What is loaded afterwards is loaded after everybody can see it: by a full fence, or, if `is_light`,
    /// by that of whoever it matters to (`Segment::fence_all`).
    #[inline(always)]
    pub(super) fn publish(&self, ctl: Ctl, is_light: bool) {
        if is_light {
            self.ctl.store(ctl.0, Ordering::Release);
            compiler_fence(Ordering::SeqCst);
        } else {
            self.ctl.swap(ctl.0, Ordering::SeqCst);
            fence(Ordering::SeqCst);
        }
    }

    /// Opens the lock that `agent` has, if it has it, and changes nothing else.
    pub(super) fn unlock(&self, agent: AgentId) {
        let ctl = self.load();
        if ctl.owner() == agent {
            self.ctl.store(ctl.unlocked().0, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_bit_of_word_or_slot_is_found() {
        let slot = Slot::block(1 << 20, 77, true);
        let ctl = Ctl(0).next(FULL, BLOCK, true, slot);
        assert!(ctl.is_sound(slot) && ctl.locked_by(AgentId(8191)).is_sound(slot));
        let mut missed = 0;
        for bit in 0..64 {
            // The owner is no part of it, whoever that is.
            missed += u32::from((19..32).contains(&bit) != Ctl(ctl.0 ^ 1 << bit).is_sound(slot));
            missed += u32::from(ctl.is_sound(Slot([slot.0[0] ^ 1 << bit, slot.0[1]])));
            missed += u32::from(ctl.is_sound(Slot([slot.0[0], slot.0[1] ^ 1 << bit])));
        }
        assert!(missed <= 1, "{missed} of 192");
        assert!(Ctl(0).is_sound(Slot::default()));
    }

    #[test]
    fn fields_do_not_run_into_one_another() {
        let ctl = Ctl(u64::from(u32::MAX - 1) << VERSION).next(TOMB, REMOVED, true, Slot::default());
        assert_eq!(
            (ctl.state(), ctl.form(), ctl.is_persistent(), ctl.version()),
            (TOMB, REMOVED, true, u32::MAX)
        );
        assert_eq!(ctl.owner(), AgentId(0));
        assert_eq!(ctl.locked_by(AgentId(4711)).owner(), AgentId(4711));
        assert!(ctl.same(ctl.locked_by(AgentId(1))));
        assert_eq!(ctl.next(FULL, 3, false, Slot::default()).version(), 0);
    }

    #[test]
    fn keys_of_different_length_differ() {
        let [short, long] = [Meta::new(3, 1, words(b"a")), Meta::new(3, 2, words(b"a\0"))];
        assert_ne!(short, long);
        assert_eq!((long.key_len(), long.checkpoint()), (2, 3));
        assert!(long.is_sound(words(b"a\0")) && !long.is_sound(words(b"b\0")));
    }
}
