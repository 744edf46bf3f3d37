//! Numbers, whose memory is their encoding.

use bytemuck::Pod;
use serde::Serialize;
use serde::de::DeserializeOwned;

// Segments never leave their machine, but persisted dictionaries do: a big-endian build would have to turn them.
const _: () = assert!(cfg!(target_endian = "little"), "values are kept little-endian, as they lie in memory");

mod sealed {
    pub trait Sealed {}
}

/// Numbers that lie in a value as they lie in memory: `u8` to `u128`, `i8` to `i128`, `f32`, `f64`. A `Vec` of them is
/// read in place, without a copy.
pub trait Plain: sealed::Sealed + Pod + Serialize + DeserializeOwned + Send + Sync {
    /// The type in a `.npy` header, as `<f8`; `None` where NumPy has no such type.
    const NPY: Option<&'static str>;
}

/// Numbers that can be added to in place.
pub trait Number: Plain + PartialEq {
    /// The sum; integers wrap around.
    #[must_use]
    fn plus(self, other: Self) -> Self;
}

/// Calls a macro with the numbers: type, `.npy` type, and how to add.
macro_rules! for_numbers {
    ($call:ident) => {
        $call! {
            u8, Some("|u1"), u8::wrapping_add;
            u16, Some("<u2"), u16::wrapping_add;
            u32, Some("<u4"), u32::wrapping_add;
            u64, Some("<u8"), u64::wrapping_add;
            u128, None, u128::wrapping_add;
            i8, Some("|i1"), i8::wrapping_add;
            i16, Some("<i2"), i16::wrapping_add;
            i32, Some("<i4"), i32::wrapping_add;
            i64, Some("<i8"), i64::wrapping_add;
            i128, None, i128::wrapping_add;
            f32, Some("<f4"), <f32 as std::ops::Add>::add;
            f64, Some("<f8"), <f64 as std::ops::Add>::add;
        }
    };
}
pub(super) use for_numbers;

macro_rules! implement {
    ($($number:ty, $npy:expr, $add:expr;)*) => {
        $(
            impl sealed::Sealed for $number {}

            impl Plain for $number {
                const NPY: Option<&'static str> = $npy;
            }

            impl Number for $number {
                fn plus(self, other: Self) -> Self {
                    $add(self, other)
                }
            }
        )*
    };
}

for_numbers! { implement }

/// The bytes of a number's sum with `by`; a number that is not there counts as 0. Returns what it was, and the sum's bytes, at
/// the start of those.
pub(crate) fn add<N: Number>(bytes: Option<&[u8]>, by: N) -> Result<(N, [u8; 16]), &'static str> {
    let before = match bytes {
        Some(bytes) => bytemuck::try_pod_read_unaligned(bytes).map_err(|_| "its length is another")?,
        None => N::zeroed(),
    };
    let mut sum = [0; 16];
    sum[..size_of::<N>()].copy_from_slice(bytemuck::bytes_of(&before.plus(by)));
    Ok((before, sum))
}

/// Lets `fill` write numbers where they will lie; small values, which may not lie aligned, by a copy.
pub(crate) fn fill_numbers<T: Plain>(place: &mut [u8], fill: impl FnOnce(&mut [T])) {
    if let Ok(numbers) = bytemuck::try_cast_slice_mut(&mut *place) {
        return fill(numbers);
    }
    let mut numbers = vec![T::zeroed(); place.len() / size_of::<T>()];
    fill(&mut numbers);
    place.copy_from_slice(bytemuck::cast_slice(&numbers));
}
