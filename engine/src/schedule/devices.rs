//! Who holds which GPU: a whole one has one holder, and the parts of one that several hold are never more than it.
//! Pure.
//!
//! A part is taken from the device with least left that has enough, so that others stay whole for those who want whole
//! ones.

use super::need::UNITS;
use std::collections::BTreeMap;

/// A GPU of this machine by its number in this program, or one of another host by its place there.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub(crate) struct DeviceId(pub(crate) u32);

/// All of a device, in [`UNITS`].
const WHOLE: u64 = UNITS as u64;

/// What one holder, or one rank of a job, takes: so many devices, and so much of each.
fn each(gpus: u64) -> (usize, u64) {
    match gpus {
        0 => (0, 0),
        part if part < WHOLE => (1, part),
        whole => ((whole / WHOLE) as usize, WHOLE),
    }
}

/// How many holders of `gpus` have room on so many devices of which nothing is taken.
pub(crate) fn room(devices: u32, gpus: u64) -> u32 {
    match each(gpus) {
        (0, _) => u32::MAX,
        (1, amount) => u32::try_from(u64::from(devices) * (WHOLE / amount)).unwrap_or(u32::MAX),
        (count, _) => devices / u32::try_from(count).unwrap_or(u32::MAX),
    }
}

/// What is left of the devices of one host, in [`UNITS`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Devices(BTreeMap<DeviceId, u64>);

impl Devices {
    /// There are these; what is taken of those that are known stays so.
    pub(crate) fn learn(&mut self, ids: impl IntoIterator<Item = DeviceId>) {
        for id in ids {
            self.0.entry(id).or_insert(WHOLE);
        }
    }

    fn left(&self, id: DeviceId) -> u64 {
        self.0.get(&id).copied().unwrap_or(0)
    }

    /// How many holders of `gpus` have room now on those of `among`.
    pub(crate) fn room(&self, among: &[DeviceId], gpus: u64) -> u32 {
        let (count, amount) = each(gpus);
        if count == 0 {
            return u32::MAX;
        }
        let parts: u64 = among.iter().map(|id| self.left(*id) / amount).sum();
        u32::try_from(parts / count as u64).unwrap_or(u32::MAX)
    }

    /// Takes `gpus` for each of so many holders out of `among`, if there is [`room`](Self::room): the devices of the
    /// first holder, then those of the next.
    pub(crate) fn take(&mut self, among: &[DeviceId], gpus: u64, holders: u32) -> Vec<DeviceId> {
        let (count, amount) = each(gpus);
        let mut taken = Vec::with_capacity(count * holders as usize);
        for _ in 0..count * holders as usize {
            let fits = among.iter().copied().filter(|id| self.left(*id) >= amount);
            let Some(id) = fits.min_by_key(|id| self.left(*id)) else { break };
            *self.0.get_mut(&id).expect("a device that is known") -= amount;
            taken.push(id);
        }
        debug_assert_eq!(taken.len(), count * holders as usize, "there was no room");
        taken
    }

    /// What was taken for holders of `gpus` is free again.
    pub(crate) fn give(&mut self, ids: &[DeviceId], gpus: u64) {
        let (_, amount) = each(gpus);
        for id in ids {
            let left = self.0.entry(*id).or_insert(0);
            *left += amount;
            debug_assert!(*left <= WHOLE, "more was given back than was taken");
        }
    }

    /// What is left of these together, in [`UNITS`].
    pub(crate) fn free(&self, among: &[DeviceId]) -> u64 {
        among.iter().map(|id| self.left(*id)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ids(count: u32) -> Vec<DeviceId> {
        (0..count).map(DeviceId).collect()
    }

    fn devices(count: u32) -> Devices {
        let mut devices = Devices::default();
        devices.learn(ids(count));
        devices
    }

    #[test]
    fn parts_share_a_device_and_leave_others_whole() {
        let (mut devices, all) = (devices(3), ids(3));
        let quarter = WHOLE / 4;
        assert_eq!(devices.room(&all, quarter), 12);
        let parts: Vec<_> = (0..4).flat_map(|_| devices.take(&all, quarter, 1)).collect();
        assert_eq!(parts, [DeviceId(0); 4]);
        assert_eq!((devices.room(&all, WHOLE), devices.room(&all, 2 * WHOLE)), (2, 1));
        assert_eq!(devices.take(&all, 2 * WHOLE, 1), [DeviceId(1), DeviceId(2)]);
        assert_eq!((devices.room(&all, quarter), devices.free(&all)), (0, 0));
        devices.give(&parts[..3], quarter);
        assert_eq!((devices.room(&all, quarter), devices.room(&all, WHOLE)), (3, 0));
    }

    #[test]
    fn a_third_fits_three_times() {
        let (mut devices, all) = (devices(1), ids(1));
        // As `Task::gpus` rounds: down, so that three of a third are one.
        let third = (1.0 / 3.0 * UNITS) as u64;
        assert_eq!((devices.room(&all, third), room(1, third)), (3, 3));
        assert_eq!(devices.take(&all, third, 3).len(), 3);
    }

    #[test]
    fn ranks_have_devices_one_after_the_other() {
        let (mut devices, all) = (devices(4), ids(4));
        assert_eq!(devices.take(&all[1..], WHOLE, 2), [DeviceId(1), DeviceId(2)]);
        assert_eq!(devices.room(&all, 2 * WHOLE), 1);
        assert_eq!((room(4, 2 * WHOLE), room(4, 3 * WHOLE), room(4, 5 * WHOLE)), (2, 1, 0));
        assert_eq!((room(2, WHOLE / 2), room(2, 0), room(0, WHOLE)), (4, u32::MAX, 0));
    }

    proptest! {
        /// However holders come and go: one of a whole device has it alone, and parts of one are never more than it.
        #[test]
        fn no_device_is_held_twice(
            events in prop::collection::vec((0u64..4, 1u64..WHOLE, 1u32..4, 0u32..15, any::<bool>()), 1..60)
        ) {
            let mut devices = devices(4);
            let mut holders: Vec<(u64, Vec<DeviceId>)> = Vec::new();
            for (whole, part, ranks, among, gives) in events {
                let gpus = if whole == 0 { part } else { whole * WHOLE };
                let among: Vec<DeviceId> = ids(4).into_iter().filter(|id| among >> id.0 & 1 == 1).collect();
                if devices.room(&among, gpus) >= ranks {
                    let taken = devices.take(&among, gpus, ranks);
                    prop_assert_eq!(taken.len(), (whole.max(1) as u32 * ranks) as usize);
                    prop_assert!(taken.iter().all(|id| among.contains(id)));
                    holders.push((gpus, taken));
                }
                for id in ids(4) {
                    let held = holders.iter().flat_map(|(gpus, taken)| taken.iter().map(move |it| (*gpus, *it)));
                    let amounts: Vec<u64> =
                        held.filter(|(_, it)| *it == id).map(|(gpus, _)| gpus.min(WHOLE)).collect();
                    prop_assert!(amounts.iter().sum::<u64>() <= WHOLE, "{amounts:?} of {id:?}");
                    prop_assert_eq!(devices.left(id), WHOLE - amounts.iter().sum::<u64>());
                }
                if gives && !holders.is_empty() {
                    let (gpus, taken) = holders.swap_remove(part as usize % holders.len());
                    devices.give(&taken, gpus);
                }
            }
        }
    }
}
