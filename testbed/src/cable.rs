//! A bad cable between machines: each has a TAP device in place of its card, and a thread of the test hands frames from
//! one to the others, later than they came, and not all of them. The kernel's own `netem` is not everywhere.
#![expect(unsafe_code, reason = "asks the system for a network device, which is no safe call")]

use std::collections::{BinaryHeap, HashMap};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::ioctl::{Setter, ioctl};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// `TUNSETIFF`, and its flags for a device of whole frames with nothing before them.
const SET_DEVICE: u32 = 0x4004_54ca;
const TAP_PLAIN: u16 = 0x0002 | 0x1000;
const FRAME_BYTES_MAX: usize = 1 << 16;
/// Frames underway at most; what comes beyond them is lost, as in a switch.
const FRAMES_MAX: usize = 4096;
/// How long the thread sleeps at most, so that it sees the end.
const NAP: Duration = Duration::from_millis(50);

/// `struct ifreq`, as far as it is used.
#[repr(C)]
struct DeviceRequest {
    name: [u8; 16],
    flags: u16,
    room: [u8; 22],
}

/// The cable, as long as it is held.
pub struct Cable {
    is_over: Arc<AtomicBool>,
    lost: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Cable {
    /// Between devices that [`tap`] has made.
    pub(crate) fn between(taps: Vec<File>, delay: Duration, lost_of_1000: u64) -> Cable {
        let (is_over, lost) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let switch = Switch {
            taps,
            delay,
            lost_of_1000,
            random: 1,
            places: HashMap::new(),
            underway: BinaryHeap::new(),
            lost: lost.clone(),
        };
        let over = is_over.clone();
        let thread = std::thread::spawn(move || switch.run(&over));
        Cable { is_over, lost, thread: Some(thread) }
    }

    /// How many frames it has lost so far.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.take().into_iter().for_each(|thread| thread.join().unwrap());
    }
}

/// A frame that is to leave at a time, by a device.
struct Underway {
    due: Instant,
    number: u64,
    to: usize,
    frame: Arc<[u8]>,
}

struct Switch {
    taps: Vec<File>,
    delay: Duration,
    lost_of_1000: u64,
    random: u64,
    /// Which device a card's address was seen at.
    places: HashMap<[u8; 6], usize>,
    underway: BinaryHeap<Underway>,
    lost: Arc<AtomicU64>,
}

impl Switch {
    fn run(mut self, is_over: &AtomicBool) {
        let (mut buffer, mut number) = (vec![0; FRAME_BYTES_MAX], 0);
        while !is_over.load(Ordering::Relaxed) {
            self.sleep();
            for from in 0..self.taps.len() {
                while let Ok(bytes @ 12..) = (&self.taps[from]).read(&mut buffer) {
                    self.take(from, &buffer[..bytes], &mut number);
                }
            }
            let now = Instant::now();
            while self.underway.peek().is_some_and(|first| first.due <= now) {
                let Underway { to, frame, .. } = self.underway.pop().unwrap();
                // A device that is full or down loses it, as a card does.
                let _ = (&self.taps[to]).write(&frame);
            }
        }
    }

    fn sleep(&self) {
        let first = self.underway.peek().map(|first| first.due.saturating_duration_since(Instant::now()));
        let time = Timespec::try_from(first.unwrap_or(NAP).min(NAP)).unwrap();
        let mut fds: Vec<PollFd<'_>> =
            self.taps.iter().map(|tap| PollFd::from_borrowed_fd(tap.as_fd(), PollFlags::IN)).collect();
        // Interrupted or not, it looks.
        let _ = poll(&mut fds, Some(&time));
    }

    fn take(&mut self, from: usize, frame: &[u8], number: &mut u64) {
        let [to, source] = [0, 6].map(|at| <[u8; 6]>::try_from(&frame[at..at + 6]).unwrap());
        self.places.insert(source, from);
        let place = self.places.get(&to).copied();
        let all = 0..self.taps.len();
        let goes = |at: &usize| place.map_or(*at != from, |place| place == *at);
        let (frame, due): (Arc<[u8]>, Instant) = (frame.into(), Instant::now() + self.delay);
        for to in all.filter(goes) {
            if self.loses() || self.underway.len() >= FRAMES_MAX {
                self.lost.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            *number += 1;
            self.underway.push(Underway { due, number: *number, to, frame: frame.clone() });
        }
    }

    fn loses(&mut self) -> bool {
        self.random = self.random.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        (self.random >> 33) % 1000 < self.lost_of_1000
    }
}

/// The earliest is the greatest.
impl Ord for Underway {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.due, other.number).cmp(&(self.due, self.number))
    }
}

impl PartialOrd for Underway {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Underway {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Underway {}

/// The end of a new device `name` in the network namespace of a process.
pub(crate) fn tap(pid: u32, name: &str) -> Result<File, String> {
    let mut request = DeviceRequest { name: [0; 16], flags: TAP_PLAIN, room: [0; 22] };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    // A thread can be in another namespace than its process; it ends with that.
    let make = move || -> std::io::Result<File> {
        let namespace = File::open(format!("/proc/{pid}/ns/net"))?;
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        let flags = OFlags::NONBLOCK.bits() as i32;
        let tap = OpenOptions::new().read(true).write(true).custom_flags(flags).open("/dev/net/tun")?;
        // SAFETY: this call takes a pointer to such a request, and keeps none of it.
        let set = unsafe { Setter::<SET_DEVICE, DeviceRequest>::new(request) };
        // SAFETY: it writes to the request at most, whose room is that of the system's.
        unsafe { ioctl(&tap, set) }?;
        Ok(tap)
    };
    std::thread::spawn(make).join().unwrap().map_err(|error| format!("/dev/net/tun: {error}"))
}
