//! A rank alone: what it sends comes back to it. Either directly, or *through bytes*: encoded, cut, decoded and
//! checked as if it had crossed a network, so that tests of one process find what does not survive that.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{BACKLOG_BYTES_MAX, Fabric, FabricError};
use crate::message::{Assembly, Carriage, HEADER_WORDS, HandlerId, Header, Malformed, is_handling};
use crate::rank::Rank;
use crate::region::LocalRegions;
use crate::wire::{Raw, WireError, put_piece, put_word};

/// Messages (or frames) that wait before a send outside of a handler makes progress first.
const WAITING_MAX: usize = 1024;
/// Handlers that one `progress` runs at most.
const BATCH_MAX: usize = 256;
/// Bytes of the chunks into which a payload is cut on its way through bytes.
const FRAME_BYTES_MAX: usize = 1 << 16;
/// Bytes up to which a payload counts as inline on its way through bytes.
const INLINE_BYTES_MAX: usize = 80;

/// The fabric of one rank.
pub(crate) struct Loopback {
    through_bytes: bool,
    queue: Mutex<Queue>,
    arrived: Condvar,
    /// Held while handlers run.
    assembly: Mutex<Assembly>,
    regions: LocalRegions,
}

#[derive(Default)]
struct Queue {
    parcels: VecDeque<Parcel>,
    bytes: u64,
    /// Counts the times that handlers ran.
    deliveries: u64,
}

enum Parcel {
    Direct(Header, Vec<u8>),
    Frame(Vec<u8>),
}

impl Loopback {
    /// One that hands payloads over as they are.
    pub(crate) fn direct() -> Loopback {
        Loopback::new(false)
    }

    /// One that encodes and decodes everything.
    pub(crate) fn through_bytes() -> Loopback {
        Loopback::new(true)
    }

    fn new(through_bytes: bool) -> Loopback {
        Loopback {
            through_bytes,
            queue: Mutex::default(),
            arrived: Condvar::new(),
            assembly: Mutex::default(),
            regions: LocalRegions::default(),
        }
    }

    pub(super) fn regions(&self) -> &LocalRegions {
        &self.regions
    }

    pub(super) fn send(
        &self,
        fabric: &Fabric,
        id: HandlerId,
        tag: u64,
        payload: &[u8],
    ) -> Result<(), FabricError> {
        let header = Header::new(Rank(0), id, tag, payload.len() as u64);
        let parcels = if self.through_bytes {
            frames(header, payload)
        } else {
            vec![Parcel::Direct(header, payload.to_vec())]
        };
        let mut queue = self.lock();
        if is_handling() {
            let (bytes, max) = (queue.bytes, BACKLOG_BYTES_MAX);
            if bytes.saturating_add(header.bytes) > max {
                return Err(FabricError::Backlog { rank: Rank(0), bytes, max });
            }
        } else {
            while queue.parcels.len() >= WAITING_MAX {
                drop(queue);
                if self.progress(fabric) == 0 {
                    std::thread::yield_now();
                }
                queue = self.lock();
            }
        }
        queue.bytes += parcels.iter().map(Parcel::bytes).sum::<u64>();
        queue.parcels.extend(parcels);
        drop(queue);
        self.arrived.notify_all();
        Ok(())
    }

    pub(super) fn progress(&self, fabric: &Fabric) -> usize {
        if is_handling() {
            return 0;
        }
        let mut assembly = match self.assembly.try_lock() {
            Ok(assembly) => assembly,
            Err(std::sync::TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(std::sync::TryLockError::WouldBlock) => return 0,
        };
        let mut ran = 0;
        while ran < BATCH_MAX {
            let Some(parcel) = self.pop() else { break };
            ran += usize::from(self.deliver(fabric, &mut assembly, parcel));
        }
        if ran > 0 {
            self.lock().deliveries += 1;
            self.arrived.notify_all();
        }
        ran
    }

    /// How often handlers have run.
    pub(super) fn deliveries(&self) -> u64 {
        self.lock().deliveries
    }

    /// Sleeps until there is something to deliver, or more was delivered than `seen`.
    pub(super) fn sleep(&self, timeout: Duration, seen: u64) {
        let is_quiet = |queue: &mut Queue| queue.parcels.is_empty() && queue.deliveries == seen;
        drop(self.arrived.wait_timeout_while(self.lock(), timeout, is_quiet));
    }

    fn pop(&self) -> Option<Parcel> {
        let mut queue = self.lock();
        let parcel = queue.parcels.pop_front()?;
        queue.bytes -= parcel.bytes();
        Some(parcel)
    }

    /// Returns whether a whole message was delivered.
    fn deliver(&self, fabric: &Fabric, assembly: &mut Assembly, parcel: Parcel) -> bool {
        let frame = match parcel {
            Parcel::Direct(header, payload) => {
                fabric.handlers.dispatch(fabric, &header.message(&payload));
                return true;
            }
            Parcel::Frame(frame) => frame,
        };
        let whole = read_frame(&frame).and_then(|(header, piece)| match header.carriage {
            Carriage::Chunk => assembly.add(header, piece),
            Carriage::Inline | Carriage::Block => check_length(header, piece).map(Some),
        });
        match whole {
            Ok(None) => false,
            Ok(Some((header, payload))) => {
                fabric.handlers.dispatch(fabric, &header.message(&payload));
                true
            }
            Err(malformed) => {
                fabric.handlers.refuse(malformed);
                false
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Parcel {
    fn bytes(&self) -> u64 {
        let (Parcel::Direct(_, payload) | Parcel::Frame(payload)) = self;
        payload.len() as u64
    }
}

fn check_length(header: Header, piece: &[u8]) -> Result<(Header, Vec<u8>), Malformed> {
    let found = piece.len() as u64;
    if found == header.bytes {
        Ok((header, piece.to_vec()))
    } else {
        Err(Malformed::Length { found, wanted: header.bytes })
    }
}

/// The frames of a message: a header's words and a piece.
fn frames(header: Header, payload: &[u8]) -> Vec<Parcel> {
    if payload.len() <= FRAME_BYTES_MAX {
        let inline = payload.len() <= INLINE_BYTES_MAX;
        let carriage = if inline { Carriage::Inline } else { Carriage::Block };
        return vec![frame(Header { carriage, ..header }, payload)];
    }
    let chunks = payload.chunks(FRAME_BYTES_MAX).enumerate();
    chunks
        .map(|(number, chunk)| {
            let at = (number * FRAME_BYTES_MAX) as u64;
            frame(Header { carriage: Carriage::Chunk, at, ..header }, chunk)
        })
        .collect()
}

fn frame(header: Header, piece: &[u8]) -> Parcel {
    let mut bytes = Vec::with_capacity(piece.len() + 8 * (HEADER_WORDS + 1));
    header.encode().iter().for_each(|&word| put_word(&mut bytes, word));
    put_piece(&mut bytes, piece);
    Parcel::Frame(bytes)
}

fn read_frame(frame: &[u8]) -> Result<(Header, &[u8]), Malformed> {
    let mut raw = Raw::new(frame);
    let short = |_: WireError| Malformed::Length { found: frame.len() as u64, wanted: u64::MAX };
    let mut words = [0; HEADER_WORDS];
    for word in &mut words {
        *word = raw.word().map_err(short)?;
    }
    let piece = raw.piece().map_err(short)?;
    raw.end().map_err(short)?;
    Ok((Header::decode(words, Rank(0))?, piece))
}
