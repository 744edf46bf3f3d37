//! A segment's life in this process: made or opened, registered, left, unlinked by the last one.

use super::plan::{
    HEADER_BYTES, Header, MEMBER_BYTES, MEMBERS, MEMBERS_MAX, MemberLine, Plan, READY, READY_LIGHT,
};
use super::{Ahead, Segment, SegmentName, Spec, file, leave};
use crate::error::SegmentError;
use crate::fence;
use crate::sync::Ordering;
use memmap2::MmapOptions;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64 as Count;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// The segments of this process, by uid.
static REGISTRY: Mutex<BTreeMap<u128, Weak<Segment>>> = Mutex::new(BTreeMap::new());
/// Numbers for names, and for telling segments of this process apart; never used twice.
static SERIAL: Count = Count::new(1);

fn registry() -> MutexGuard<'static, BTreeMap<u128, Weak<Segment>>> {
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn create(spec: &Spec) -> Result<Arc<Segment>, SegmentError> {
    let folder = file::folder();
    file::sweep_once(&folder);
    let path = || folder.join(file::PREFIX);
    let system = |verb, source| SegmentError::System { verb, path: path(), source };
    let plan = Plan::new(spec).ok_or_else(|| system("size", io::Error::from(io::ErrorKind::FileTooLarge)))?;
    let uid = random().map_err(|source| system("draw a random number for", source))?;
    let start = start_of_this_process();
    // Names can be taken by another process with this number in another namespace: a few tries.
    for _ in 0..64 {
        let count = SERIAL.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let user = rustix::process::geteuid().as_raw();
        let pid = std::process::id();
        let name = format!("{}{}-{user}-{pid}-{start}-{count}", file::PREFIX, spec.kind);
        let name = SegmentName { file: name, uid };
        if let Some(made) = try_create(&plan, &folder, name, start)? {
            return Ok(register(made));
        }
    }
    Err(system("name", io::Error::from(io::ErrorKind::AlreadyExists)))
}

/// `None` if the name was taken.
fn try_create(
    plan: &Plan,
    folder: &Path,
    name: SegmentName,
    start: u64,
) -> Result<Option<Segment>, SegmentError> {
    let path = folder.join(&name.file);
    let (file, unnamed) = match file::make(folder, &name.file) {
        Err(SegmentError::System { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
            return Ok(None);
        }
        other => other?,
    };
    let file = Arc::new(file);
    let made = fill(plan, folder, &file, &name, start);
    let named = made.and_then(|gate| {
        let system = |source| SegmentError::System { verb: "name", path: path.clone(), source };
        let give_name = || match unnamed {
            true => file::give_name(&file, &path).map_err(system),
            false => Ok(file::is_named(&file, &path)),
        };
        let (listed, named) = leave::list(&file, &path, 0, give_name);
        let named = named?;
        drop(gate);
        Ok(named.then_some(listed))
    });
    match named {
        Ok(Some(listed)) => {
            let mut segment = map(plan, folder, file, name, fence::prepare())?;
            segment.listed = Some(listed);
            Ok(Some(segment))
        }
        Ok(None) => Ok(None),
        Err(error) => {
            file::remove_name(&file, &path);
            Err(error)
        }
    }
}

/// Locks a new file, gives it its length and its header. Returns with the gate held.
fn fill<'f>(
    plan: &Plan,
    folder: &Path,
    file: &'f File,
    name: &SegmentName,
    start: u64,
) -> Result<file::ByteLock<'f>, SegmentError> {
    let path = folder.join(&name.file);
    let system = |verb, source| SegmentError::System { verb, path: path.clone(), source };
    let gate = file::gate(file).map_err(|source| system("lock", source))?;
    file::take_member(file, 0).map_err(|source| system("lock", source))?;
    let length = file.set_len(plan.bytes);
    length.map_err(|source| file::full_or_system(folder, plan.bytes, "size", &path, source))?;
    file::commit(file, folder, 0..super::plan::AGENTS)?;
    file::commit(file, folder, super::plan::CONTROL..super::plan::CONTROL + plan.control_bytes.max(1))?;
    let pid = u64::from(std::process::id());
    let line: Vec<u8> = [1, pid, start].iter().flat_map(|word: &u64| word.to_ne_bytes()).collect();
    file.write_all_at(&line, MEMBERS).map_err(|source| system("write", source))?;
    let ready = if fence::prepare() { READY_LIGHT } else { READY };
    let mut words = plan.header(name.uid, pid, start, ready);
    words[16] = 1;
    let header: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    file.write_all_at(&header, 0).map_err(|source| system("write", source))?;
    Ok(gate)
}

pub(super) fn open(
    name: &SegmentName,
    kind: &'static str,
    layout: u32,
) -> Result<Arc<Segment>, SegmentError> {
    let folder = file::folder();
    file::sweep_once(&folder);
    let path = folder.join(&name.file);
    if !name.file.starts_with(file::PREFIX) || name.file.contains('/') {
        let found = "its name is not one of a segment".to_owned();
        return Err(SegmentError::Foreign { path, wanted: kind, found });
    }
    // The registry stays locked, so that two threads that open one file become one member.
    let mut registry = registry();
    if let Some(segment) = registry.get(&name.uid).and_then(Weak::upgrade) {
        // Dropping the segment takes the registry.
        drop(registry);
        return check_opened(segment, &path, kind, layout);
    }
    let segment = Segment::weave(attach(name, &folder, kind, layout)?);
    registry.insert(name.uid, Arc::downgrade(&segment));
    Ok(segment)
}

/// What this process has open already must be asked for by its kind and layout as well.
fn check_opened(
    segment: Arc<Segment>,
    path: &Path,
    kind: &'static str,
    layout: u32,
) -> Result<Arc<Segment>, SegmentError> {
    let words = read_header(&segment.file, path)?;
    Plan::check(&words, segment.bytes, path, (kind, layout))?;
    if segment.is_unlinked() {
        return Err(SegmentError::Gone { name: segment.name.file.clone() });
    }
    Ok(segment)
}

fn attach(
    name: &SegmentName,
    folder: &Path,
    kind: &'static str,
    layout: u32,
) -> Result<Segment, SegmentError> {
    let path = folder.join(&name.file);
    let system = |verb, source| SegmentError::System { verb, path: path.clone(), source };
    let file = Arc::new(file::open(&path, kind)?);
    let gate = file::gate(&file).map_err(|source| system("lock", source))?;
    let meta = file.metadata().map_err(|source| system("look at", source))?;
    if meta.nlink() == 0 {
        return Err(SegmentError::Gone { name: name.file.clone() });
    }
    if meta.len() < HEADER_BYTES {
        let found = format!("it has {} bytes only", meta.len());
        return Err(SegmentError::Foreign { path, wanted: kind, found });
    }
    let words = read_header(&file, &path)?;
    let (plan, uid) = Plan::check(&words, meta.len(), &path, (kind, layout))?;
    if uid != name.uid {
        return Err(SegmentError::Gone { name: name.file.clone() });
    }
    let is_light = words[14] == READY_LIGHT;
    if is_light && !fence::prepare() {
        return Err(system("use membarrier for", io::ErrorKind::Unsupported.into()));
    }
    // A hole in what must be memory would be filled at a fault, with a signal if that fails.
    file::commit(&file, folder, 0..super::plan::AGENTS)?;
    file::commit(&file, folder, super::plan::CONTROL..super::plan::CONTROL + plan.control_bytes.max(1))?;
    let mut segment = map(&plan, folder, Arc::clone(&file), name.clone(), is_light)?;
    segment.member = claim_line(&segment)?;
    segment.listed = Some(leave::list(&file, &path, segment.member, || ()).0);
    drop(gate);
    Ok(segment)
}

fn read_header(file: &File, path: &Path) -> Result<[u64; 17], SegmentError> {
    let mut bytes = [0; 17 * 8];
    let read = file.read_exact_at(&mut bytes, 0);
    read.map_err(|source| SegmentError::System { verb: "read", path: path.to_owned(), source })?;
    let mut words = [0; 17];
    for (word, part) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = u64::from_ne_bytes(part.try_into().expect("a chunk of 8 bytes"));
    }
    Ok(words)
}

/// A free line, under the gate. A dead member's line is not free before it was recovered.
fn claim_line(segment: &Segment) -> Result<u32, SegmentError> {
    let system = |source| SegmentError::System { verb: "lock", path: segment.path(), source };
    for member in 0..MEMBERS_MAX {
        let line = segment.line(member);
        if line.state.load(Ordering::Acquire) != 0 {
            continue;
        }
        if !file::take_member(&segment.file, member).map_err(system)? {
            continue;
        }
        line.pid.store(u64::from(std::process::id()), Ordering::Relaxed);
        line.start.store(start_of_this_process(), Ordering::Relaxed);
        segment.header().members_high.fetch_max(u64::from(member) + 1, Ordering::Relaxed);
        line.state.store(1, Ordering::Release);
        return Ok(member);
    }
    Err(SegmentError::Members { max: MEMBERS_MAX })
}

fn map(
    plan: &Plan,
    folder: &Path,
    file: Arc<File>,
    name: SegmentName,
    is_light: bool,
) -> Result<Segment, SegmentError> {
    let mut options = MmapOptions::new();
    options.len(plan.bytes as usize).no_reserve_swap();
    let system = |source| SegmentError::System { verb: "map", path: folder.join(&name.file), source };
    let map = options.map_raw(&*file).map_err(system)?;
    let view = options.map_raw_read_only(&*file).map_err(system)?;
    let pieces = plan.units.div_ceil(4).div_ceil(64);
    Ok(Segment {
        map,
        view,
        bytes: plan.bytes,
        plan: *plan,
        file,
        folder: folder.to_owned(),
        name,
        serial: SERIAL.fetch_add(1, std::sync::atomic::Ordering::Relaxed),
        member: 0,
        is_light,
        this: Weak::new(),
        locals: Mutex::default(),
        recovering: Mutex::default(),
        recovery: super::Recovery::default(),
        populated: (0..pieces).map(|_| Count::new(0)).collect(),
        ahead: Ahead::default(),
        listed: None,
    })
}

fn register(segment: Segment) -> Arc<Segment> {
    let segment = Segment::weave(segment);
    registry().insert(segment.name.uid, Arc::downgrade(&segment));
    segment
}

impl Segment {
    /// Gives a segment a way to reach its own `Arc`.
    fn weave(segment: Self) -> Arc<Self> {
        Arc::new_cyclic(|this| {
            let mut segment = segment;
            segment.this = this.clone();
            segment
        })
    }

    /// A member's line. `member` is below `MEMBERS_MAX`.
    pub(crate) fn line(&self, member: u32) -> &MemberLine {
        let offset = MEMBERS + u64::from(member.min(MEMBERS_MAX - 1)) * MEMBER_BYTES;
        self.at(offset).expect("the members lie inside every segment")
    }

    /// The file's header.
    pub(crate) fn header(&self) -> &Header {
        self.at(0).expect("the header lies inside every segment")
    }

    fn is_unlinked(&self) -> bool {
        self.file.metadata().is_ok_and(|meta| meta.nlink() == 0)
    }

    /// Takes the name away, if this is the only member.
    fn unlink_if_last(&self) {
        if !file::has_other_members(&self.file) {
            file::remove_name(&self.file, &self.path());
        }
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.ahead.end();
        if self.listed.is_none() {
            // It never became a member.
            return;
        }
        {
            let mut registry = registry();
            // Another thread may have opened it again meanwhile: that entry is not ours to remove.
            if registry.get(&self.name.uid).is_some_and(|it| it.strong_count() == 0) {
                registry.remove(&self.name.uid);
            }
        }
        // Without the gate (the system refuses the lock) leaving is still right, only the last may not see that it is.
        let _gate = file::gate(&self.file);
        self.release_agents();
        self.line(self.member).state.store(0, Ordering::Release);
        self.unlink_if_last();
        file::drop_member(&self.file, self.member);
    }
}

pub(crate) fn random() -> io::Result<u128> {
    use std::io::Read;
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u128::from_ne_bytes(bytes))
}

/// Field 22 of `/proc/self/stat`: ticks from boot to the start of this process; 0 if it cannot be read.
fn start_of_this_process() -> u64 {
    let text = std::fs::read_to_string(PathBuf::from("/proc/self/stat")).unwrap_or_default();
    // The second field is the program's name in parentheses, and may hold anything.
    let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    rest.split_whitespace().nth(19).and_then(|field| field.parse().ok()).unwrap_or(0)
}
