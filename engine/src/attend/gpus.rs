//! Which GPUs are a batch's? Those that no batch of this program has for itself, or some for itself alone; by numbers
//! that are one ledger's for all of them (see `schedule::devices`).

use crate::error::Error;
use crate::machine::Gpu;
use crate::schedule::DeviceId;
use parking_lot::Mutex;

/// GPUs that this program has seen, each with its number, its place here; and whether a batch has it for itself.
static SEEN: Mutex<Vec<(Gpu, bool)>> = Mutex::new(Vec::new());
/// Numbers of GPUs that users say are there begin here, and each batch has its own.
static ASSUMED: Mutex<u32> = Mutex::new(1 << 16);

/// GPUs that a batch may use.
#[derive(Debug, Default)]
pub(crate) struct Gpus {
    all: Vec<(DeviceId, Gpu)>,
    /// It has them for itself.
    is_own: bool,
}

/// The number of each of these, and whether a batch has it for itself.
fn numbered(seen: &mut Vec<(Gpu, bool)>, granted: &[Gpu]) -> Vec<(DeviceId, Gpu, bool)> {
    let number = |gpu: &Gpu| {
        let at = seen.iter().position(|(other, _)| other == gpu).unwrap_or_else(|| {
            seen.push((gpu.clone(), false));
            seen.len() - 1
        });
        (DeviceId(at as u32), gpu.clone(), seen[at].1)
    };
    granted.iter().map(number).collect()
}

impl Gpus {
    /// What is left to all.
    pub(crate) fn common(granted: &[Gpu]) -> Self {
        let free = numbered(&mut SEEN.lock(), granted).into_iter().filter(|(.., is_reserved)| !is_reserved);
        Self { all: free.map(|(id, gpu, _)| (id, gpu)).collect(), is_own: false }
    }

    /// So many for one batch alone.
    pub(crate) fn reserve(count: u32, granted: &[Gpu], why: &str) -> Result<Self, Error> {
        let mut seen = SEEN.lock();
        let free: Vec<(DeviceId, Gpu, bool)> =
            numbered(&mut seen, granted).into_iter().filter(|(.., is_reserved)| !is_reserved).collect();
        if free.len() < count as usize {
            let (left, granted, why) = (free.len() as u32, granted.len() as u32, why.to_string());
            return Err(Error::NotEnoughGpus { asked: count, left, granted, why });
        }
        let all: Vec<(DeviceId, Gpu)> =
            free.into_iter().take(count as usize).map(|(id, gpu, _)| (id, gpu)).collect();
        all.iter().for_each(|(id, _)| seen[id.0 as usize].1 = true);
        Ok(Self { all, is_own: true })
    }

    /// So many that the user says are there, numbered from 0.
    pub(crate) fn assume(count: u32) -> Self {
        let mut next = ASSUMED.lock();
        let first = *next;
        *next += count;
        let gpu = |number: u32| Gpu { name: number.to_string(), mark: number.to_string() };
        Self { all: (0..count).map(|at| (DeviceId(first + at), gpu(at))).collect(), is_own: false }
    }

    pub(crate) fn count(&self) -> u32 {
        self.all.len() as u32
    }

    pub(crate) fn ids(&self) -> Vec<DeviceId> {
        self.all.iter().map(|(id, _)| *id).collect()
    }

    /// These of them.
    pub(crate) fn of<'a>(&'a self, ids: &'a [DeviceId]) -> impl Iterator<Item = &'a Gpu> {
        ids.iter().filter_map(|id| self.all.iter().find(|(other, _)| other == id)).map(|(_, gpu)| gpu)
    }
}

impl Drop for Gpus {
    fn drop(&mut self) {
        if self.is_own {
            let mut seen = SEEN.lock();
            self.all.iter().for_each(|(id, _)| seen[id.0 as usize].1 = false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_that_have_gpus_for_themselves_share_none() {
        let gpu = |name: &str| Gpu { name: format!("GPU-test-{name}"), mark: name.to_string() };
        let granted = [gpu("a"), gpu("b"), gpu("c")];
        let before = Gpus::common(&granted);
        let one = Gpus::reserve(2, &granted, "a test").expect("three are there");
        assert!(matches!(
            Gpus::reserve(2, &granted, "a test"),
            Err(Error::NotEnoughGpus { asked: 2, left: 1, granted: 3, .. })
        ));
        let two = Gpus::reserve(1, &granted, "a test").expect("one is left");
        assert!(one.ids().iter().all(|id| !two.ids().contains(id)));
        assert_eq!((before.count(), Gpus::common(&granted).count()), (3, 0));
        assert_eq!(one.of(&[one.ids()[1]]).cloned().collect::<Vec<_>>(), [gpu("b")]);
        drop(one);
        assert_eq!(Gpus::common(&granted).count(), 2);
        let (a, b) = (Gpus::assume(2), Gpus::assume(1));
        assert!(a.ids().iter().all(|id| !b.ids().contains(id)));
        assert_eq!(a.of(&a.ids()).map(|gpu| &*gpu.name).collect::<Vec<_>>(), ["0", "1"]);
    }
}
