//! What the machine is and has.

use std::fs;
use std::sync::OnceLock;

/// Where segments of shared memory are.
const SHARED_MEMORY: &str = "/dev/shm";

/// The number this machine drew when it started; "unknown" where the kernel does not say.
pub(crate) fn boot_id() -> &'static str {
    static BOOT_ID: OnceLock<String> = OnceLock::new();
    BOOT_ID.get_or_init(|| {
        fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
    })
}

/// Half of what shared memory has free, at most half of the machine's memory; 0 where neither is known.
pub(crate) fn memory_bytes_default() -> u64 {
    let free = rustix::fs::statvfs(SHARED_MEMORY).map(|it| it.f_bavail.saturating_mul(it.f_frsize));
    let machine = rustix::system::sysinfo();
    let unit = u64::from(machine.mem_unit.max(1));
    #[expect(clippy::useless_conversion, reason = "the kernel's word is not 64 bits wide on every machine")]
    let all = u64::from(machine.totalram).saturating_mul(unit);
    free.unwrap_or(0).min(all) / 2
}
