//! Hints to the processor.

#![expect(unsafe_code, reason = "an instruction that the language has no name for")]

/// Says that this thread will soon write to the cache line of `place`.
///
/// Who writes with a compare-exchange waits until its core has the line to itself; with this it has it by then.
#[inline(always)]
pub(crate) fn for_writing<T>(place: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint: it changes nothing that a program can see, faults for no address, and is nothing to processors
    // that do not know it.
    unsafe {
        std::arch::asm!("prefetchw [{}]", in(reg) &raw const *place, options(nostack, preserves_flags, readonly));
    }
    let _ = place;
}

/// Says that this thread will soon read the cache line of `place`.
#[inline(always)]
pub(crate) fn for_reading<T>(place: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as above.
    unsafe {
        std::arch::asm!("prefetcht0 [{}]", in(reg) &raw const *place, options(nostack, preserves_flags, readonly));
    }
    let _ = place;
}
