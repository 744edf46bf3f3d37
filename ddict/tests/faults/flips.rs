//! Flipped bytes in copies of a dictionary: a get gives the right value or an error, and nothing crashes or hangs.
//!
//! Other processes of this binary make a dictionary in a folder of their own, take its bytes, and attach to one copy
//! after the other, each with a few bytes changed: in what leads to values, or in values.

use super::bed::Dict;
use super::contents::{Dice, LEN_MIN, contents};
use super::process::{part_of, start};
use rustix::fs::SeekFrom;
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};
use tarragon_ddict::{Descriptor, Error};

const TEST: &str = "faults::flips::flipped_bytes_do_no_harm";
/// Copies whose structure is damaged, and copies whose values are.
const COPIES: (u64, u64) = (700, 300);
/// Copies that one process looks at.
const BATCH: u64 = 50;
const KEYS: usize = 300;
/// A copy may keep whoever looks at it busy that long.
const LOOK_MAX: Duration = Duration::from_secs(5);
/// Bytes of a line.
const LINE: usize = 64;

fn name(index: usize) -> String {
    let tail = if index.is_multiple_of(7) { " with a name that is too long for an entry" } else { "" };
    format!("key {index}{tail}")
}

fn value(index: usize) -> Vec<u8> {
    let len = if index % 50 == 4 { 50_000 } else { [LEN_MIN, 40, 300, 1000, 5000, 20][index % 6] };
    contents(&name(index), 0, len)
}

/// The bytes of a dictionary's file, and which of its lines are values.
struct Image {
    length: u64,
    extents: Vec<(u64, Vec<u8>)>,
    /// Extent and line in it: of what leads to values, before the heap and in it; and of values.
    places: [Vec<(usize, usize)>; 3],
}

impl Image {
    fn of(path: &Path) -> Self {
        let file = File::open(path).unwrap();
        let length = file.metadata().unwrap().len();
        let mut extents = Vec::new();
        let mut at = 0;
        while let Ok(from) = rustix::fs::seek(&file, SeekFrom::Data(at)) {
            at = rustix::fs::seek(&file, SeekFrom::Hole(from)).unwrap();
            let mut bytes = vec![0; (at - from) as usize];
            file.read_exact_at(&mut bytes, from).unwrap();
            extents.push((from, bytes));
        }
        let places = Self::sort(&extents);
        Self { length, extents, places }
    }

    /// Lines that hold something, by what that is.
    fn sort(extents: &[(u64, Vec<u8>)]) -> [Vec<(usize, usize)>; 3] {
        let values: HashMap<Vec<u8>, usize> =
            (0..KEYS).map(value).filter(|it| it.len() > 16).map(|it| (it[..16].to_vec(), it.len())).collect();
        let mut places = [Vec::new(), Vec::new(), Vec::new()];
        let mut seen = 0;
        for (extent, (_, bytes)) in extents.iter().enumerate() {
            let mut value_end = 0;
            for (line, words) in bytes.chunks_exact(LINE).enumerate() {
                if let Some(len) = values.get(&words[..16]) {
                    seen += 1;
                    value_end = line * LINE + len;
                }
                let is_value = line * LINE < value_end;
                // A value's last line may hold its checksum; that is no value.
                let is_whole = (line + 1) * LINE <= value_end;
                if is_value && is_whole {
                    places[2].push((extent, line));
                } else if !is_value && words.iter().any(|byte| *byte != 0) {
                    places[usize::from(extent + 1 == extents.len())].push((extent, line));
                }
            }
        }
        assert!(seen >= values.len(), "values were found: {seen} of {}", values.len());
        places
    }

    /// A copy with bytes changed; tells which.
    fn write(&self, path: &Path, dice: &mut Dice, in_values: bool) -> String {
        let file = File::create_new(path).unwrap();
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        file.set_len(self.length).unwrap();
        for (offset, bytes) in &self.extents {
            file.write_all_at(bytes, *offset).unwrap();
        }
        let count = [1, 1, 1, 4][dice.below(4) as usize];
        let flips = (0..count).map(|_| {
            let class = if in_values { 2 } else { dice.below(2) as usize };
            let (extent, line) = self.places[class][dice.below(self.places[class].len() as u64) as usize];
            let at = line * LINE + dice.below(LINE as u64) as usize;
            let (offset, bytes) = &self.extents[extent];
            let mask = if dice.below(2) == 0 { 1 << dice.below(8) } else { 1 + dice.below(255) as u8 };
            file.write_all_at(&[bytes[at] ^ mask], offset + at as u64).unwrap();
            format!("{:#x}^{mask:#x}", offset + at as u64)
        });
        flips.collect::<Vec<_>>().join(" ")
    }
}

/// What became of the gets of a copy.
#[derive(Default)]
struct Outcome {
    refused: u64,
    right: u64,
    errors: u64,
    /// Values that are wrong and were found to be.
    wrong: u64,
    /// What must not be.
    harm: Vec<String>,
}

impl Outcome {
    fn count(&mut self, what: &str, result: Result<Option<Vec<u8>>, Error>, wanted: &[u8]) {
        match result {
            Ok(Some(bytes)) if bytes == wanted => self.right += 1,
            Ok(Some(_)) if what == "unverified" => self.wrong += 1,
            Ok(Some(bytes)) => self.harm.push(format!("{what}: a wrong value of {} bytes", bytes.len())),
            Ok(None) => self.harm.push(format!("{what}: no value of {} bytes", wanted.len())),
            Err(_) => self.errors += 1,
        }
    }
}

/// Attaches to a copy and does everything with it.
fn look(descriptor: &Descriptor, in_values: bool, outcome: &mut Outcome) {
    let dict: Dict = match descriptor.attach() {
        Ok(dict) => dict,
        Err(_) => {
            outcome.refused += 1;
            return;
        }
    };
    for index in 0..KEYS {
        let (key, wanted) = (name(index), value(index));
        let what = if in_values { "unverified" } else { "get" };
        outcome.count(what, dict.get(key.as_str()), &wanted);
        outcome.count("get_verified", dict.get_verified(key.as_str()), &wanted);
    }
    for index in 0..KEYS / 3 {
        let (key, fresh) = (name(index * 5), contents("fresh", 1, 16 + index * 7));
        let wanted = if index % 2 == 0 { name(1000 + index) } else { key };
        if dict.put(wanted.as_str(), &fresh).is_ok() {
            outcome.count("get after put", dict.get_verified(wanted.as_str()), &fresh);
        }
        let gone = name(index + 100);
        let is_removed = dict.remove(gone.as_str()).is_ok_and(|was_there| was_there);
        if is_removed && matches!(dict.get(gone.as_str()), Ok(Some(_))) {
            outcome.harm.push("a removed key is there".to_owned());
        }
    }
    let _may_be_errors = (dict.len(), dict.stats().is_ok(), dict.audit().is_ok(), dict.recover());
    let items = dict.items().take(2 * KEYS).filter(Result::is_ok).count();
    assert!(items < 2 * KEYS, "a scan ends");
    dict.clear().ok();
    dict.destroy();
}

/// The other process: looks at some copies.
fn play(argument: &str) {
    let numbers: Vec<u64> = argument.split(' ').map(|word| word.parse().unwrap()).collect();
    let [first, last, in_values] = numbers[..] else { panic!("{argument}") };
    let folder = std::path::PathBuf::from(std::env::var_os("TARRAGON_SHM").unwrap());
    let dict = Dict::builder().memory(8 << 20).checksums(true).create().unwrap();
    (0..KEYS).for_each(|index| dict.put(name(index).as_str(), value(index)).unwrap());
    let (text, file) = (dict.descriptor().to_string(), dict.name().to_owned());
    let image = Image::of(&folder.join(&file));
    drop(dict);
    let mut outcome = Outcome::default();
    for copy in first..last {
        let name = format!("tarragon-copy-{copy}");
        let what = image.write(&folder.join(&name), &mut Dice::new(copy + 1), in_values == 1);
        println!("\ncopy {copy}: {what}");
        let began = Instant::now();
        look(&text.replace(&file, &name).parse().unwrap(), in_values == 1, &mut outcome);
        if began.elapsed() > LOOK_MAX {
            outcome.harm.push(format!("it took {:?}", began.elapsed()));
        }
        outcome.harm.drain(..).for_each(|harm| println!("\nharm in copy {copy} ({what}): {harm}"));
        std::fs::remove_file(folder.join(&name)).ok();
    }
    println!("\nseen {} {} {} {} end", outcome.refused, outcome.right, outcome.errors, outcome.wrong);
}

#[test]
fn flipped_bytes_do_no_harm() {
    if let Some(argument) = part_of(TEST) {
        return play(&argument);
    }
    for (in_values, copies) in [(0, COPIES.0), (1, COPIES.1)] {
        let mut sums = [0; 4];
        let mut bad = Vec::new();
        for first in (0..copies).step_by(BATCH as usize) {
            let folder = tempfile::Builder::new().prefix("faults-").tempdir_in("/dev/shm").unwrap();
            let player = start(TEST, &format!("{first} {} {in_values}", first + BATCH), Some(folder.path()));
            let (status, text) = player.end(Duration::from_secs(30));
            bad.extend(text.lines().filter(|line| line.starts_with("harm")).map(str::to_owned));
            match text.lines().find_map(|line| line.strip_prefix("seen ")) {
                Some(seen) => {
                    let numbers = seen.split(' ').filter_map(|word| word.parse::<u64>().ok());
                    sums.iter_mut().zip(numbers).for_each(|(sum, number)| *sum += number);
                }
                None => {
                    let last = text.lines().rev().find(|line| line.starts_with("copy"));
                    bad.push(format!("{status:?}: {}", last.unwrap_or("before the first copy")));
                }
            }
        }
        let [refused, right, errors, wrong] = sums;
        let what = if in_values == 1 { "values" } else { "structure" };
        println!(
            "{copies} copies with flipped {what}: {refused} refused; gets: {right} right, {errors} errors, {wrong} \
             wrong without verification"
        );
        assert!(bad.is_empty(), "{bad:#?}");
        assert!(right > 0 && errors > 0, "flips were felt");
        assert!(in_values == 0 || wrong > 0, "values were changed");
    }
}
