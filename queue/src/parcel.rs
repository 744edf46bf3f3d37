//! What an item is carried in, on this side of the queue: its bytes if they fit into a cell, else the block it lies in.
//!
//! Guards hand a parcel on by its address: moved about by value, the bytes of a small item cost more than its put and
//! its get. Each thread keeps [`KEPT`] parcels for the next guards; further ones are got from the allocator.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use tarragon_transport::heap::Held;
use tarragon_transport::ring::cell::Item;

/// Parcels a thread keeps: an item that is read while another one is written.
const KEPT: usize = 2;

/// What a guard has in its hands.
#[derive(Default)]
pub(crate) struct Contents {
    /// What was in the cell, or will be.
    pub(crate) item: Item,
    /// Its block and length, if it is not in the cell.
    pub(crate) block: Option<(Held, u64)>,
}

thread_local! {
    static SPARE: [Cell<Option<Box<Contents>>>; KEPT] = const { [const { Cell::new(None) }; KEPT] };
}

/// Contents that nobody else uses, without a block at first. Dropped, they are kept for the next parcel.
pub(crate) struct Parcel(Option<Box<Contents>>);

impl Parcel {
    /// An item of whatever was there before.
    #[inline(always)]
    pub(crate) fn new() -> Self {
        let spare = SPARE.try_with(|spare| spare.iter().find_map(Cell::take));
        Self(Some(spare.ok().flatten().unwrap_or_else(make)))
    }
}

#[cold]
#[inline(never)]
fn make() -> Box<Contents> {
    Box::default()
}

impl Deref for Parcel {
    type Target = Contents;

    #[inline(always)]
    fn deref(&self) -> &Contents {
        self.0.as_ref().expect("it is there until the drop")
    }
}

impl DerefMut for Parcel {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut Contents {
        self.0.as_mut().expect("it is there until the drop")
    }
}

impl Drop for Parcel {
    #[inline(always)]
    fn drop(&mut self) {
        let _thread_ends = SPARE.try_with(|spare| {
            for place in spare {
                let kept = place.take();
                let is_free = kept.is_none();
                place.set(if is_free { self.0.take() } else { kept });
                if is_free {
                    return;
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::{KEPT, Parcel};

    #[test]
    fn a_thread_uses_its_parcels_again() {
        let addresses = |parcels: &[Parcel]| {
            let mut all: Vec<_> = parcels.iter().map(|it| &raw const it.item).collect();
            all.sort_unstable();
            all
        };
        let mut parcels: Vec<_> = (0..KEPT).map(|_| Parcel::new()).collect();
        let before = addresses(&parcels);
        // One more than are kept.
        parcels.insert(0, Parcel::new());
        parcels.reverse();
        drop(parcels);
        let parcels: Vec<_> = (0..KEPT).map(|_| Parcel::new()).collect();
        assert_eq!(addresses(&parcels), before);
    }
}
