//! Arrays to bytes and back, and arrays in place.

use super::npy::Header;
use crate::encoding::fill_numbers;
use crate::encoding::{Key, Pieces, Plain, with_key};
use crate::error::Error;
use crate::handle::DDict;
use crate::store::Pinned;
use ndarray::{
    Array, ArrayView, ArrayViewMut, CowArray, Dimension, IntoDimension, Ix0, Ix1, Ix2, Ix3, Ix4, Ix5, Ix6,
    IxDyn, ShapeBuilder,
};
use serde::Serialize;
use std::any::Any;
use std::borrow::{Borrow, Cow};
use std::marker::PhantomData;

/// An array's bytes.
pub(crate) struct Npy<'a> {
    header: Vec<u8>,
    data: Cow<'a, [u8]>,
}

impl Npy<'_> {
    pub(crate) fn pieces(&self) -> Pieces<'_> {
        Pieces { head: &self.header, body: &self.data, tail: &[] }
    }
}

/// Whether a type is perhaps an array. Known when the program is compiled.
#[inline(always)]
pub(crate) fn may_be<V>() -> bool {
    std::any::type_name::<V>().starts_with("ndarray::")
}

/// Does something for each type of number and dimension that an array in a dictionary can have.
macro_rules! for_arrays {
    ($do:ident) => {
        for_arrays! { $do, u8 u16 u32 u64 i8 i16 i32 i64 f32 f64 }
    };
    ($do:ident, $($number:ident)*) => {
        $(
            $do! { $number, Ix0 }
            $do! { $number, Ix1 }
            $do! { $number, Ix2 }
            $do! { $number, Ix3 }
            $do! { $number, Ix4 }
            $do! { $number, Ix5 }
            $do! { $number, Ix6 }
            $do! { $number, IxDyn }
        )*
    };
}

/// The bytes of an array; `None` if it is none.
pub(crate) fn encode(value: &dyn Any) -> Option<Result<Npy<'_>, &'static str>> {
    macro_rules! try_as {
        ($number:ident, $dimension:ident) => {
            if let Some(array) = value.downcast_ref::<Array<$number, $dimension>>() {
                return Some(to_npy(array));
            }
        };
    }
    for_arrays! { try_as }
    None
}

/// Reads an array into a slot (an `Option` of it); `None` if it is none.
pub(crate) fn decode(slot: &mut dyn Any, bytes: &[u8]) -> Option<Result<(), &'static str>> {
    macro_rules! try_as {
        ($number:ident, $dimension:ident) => {
            if let Some(slot) = slot.downcast_mut::<Option<Array<$number, $dimension>>>() {
                return Some(from_npy(bytes).map(|array| *slot = Some(array)));
            }
        };
    }
    for_arrays! { try_as }
    None
}

fn header_of<T: Plain>(shape: &[usize], fortran_order: bool) -> Result<Vec<u8>, &'static str> {
    let descr = T::NPY.ok_or("NumPy has no such numbers")?.to_owned();
    Header { descr, fortran_order, shape: shape.to_vec() }.write().ok_or("it has too many axes")
}

/// The memory of an array whose elements follow one another in either order; others are copied to C order.
fn to_npy<T: Plain, D: Dimension>(array: &Array<T, D>) -> Result<Npy<'_>, &'static str> {
    if let Some(elements) = array.as_slice() {
        return Ok(Npy {
            header: header_of::<T>(array.shape(), false)?,
            data: Cow::Borrowed(bytemuck::cast_slice(elements)),
        });
    }
    let elements: Vec<u8> =
        array.iter().flat_map(|element| bytemuck::bytes_of(element).iter().copied()).collect();
    Ok(Npy { header: header_of::<T>(array.shape(), false)?, data: Cow::Owned(elements) })
}

/// An array as it lies in a value.
struct Layout<'a, D> {
    data: &'a [u8],
    dimension: D,
    fortran_order: bool,
}

impl<'a, D: Dimension> Layout<'a, D> {
    fn read<T: Plain>(bytes: &'a [u8]) -> Result<Self, &'static str> {
        let (header, data) = Header::read(bytes)?;
        if T::NPY != Some(header.descr.as_str()) {
            return Err("it holds another type of number");
        }
        let elements = header.shape.iter().try_fold(1_usize, |product, &axis| product.checked_mul(axis));
        if elements.and_then(|count| count.checked_mul(size_of::<T>())) != Some(data.len()) {
            return Err("its data is not as long as its shape says");
        }
        let mut dimension = D::zeros(header.shape.len());
        if D::NDIM.is_some_and(|axes| axes != header.shape.len()) {
            return Err("it has another number of axes");
        }
        dimension.slice_mut().copy_from_slice(&header.shape);
        Ok(Self { data, dimension, fortran_order: header.fortran_order })
    }
}

fn from_npy<T: Plain, D: Dimension>(bytes: &[u8]) -> Result<Array<T, D>, &'static str> {
    let layout = Layout::<D>::read::<T>(bytes)?;
    let elements: Vec<T> = bytemuck::pod_collect_to_vec(layout.data);
    let shape = layout.dimension.set_f(layout.fortran_order);
    Array::from_shape_vec(shape, elements).map_err(|_| "its shape does not fit its data")
}

/// An array of a dictionary, read in place: no copy of its elements is made, and they stay as they are as long as this
/// lives, whatever happens to the key.
pub struct PinnedArray<'d, T, D> {
    bytes: Pinned<'d>,
    element: PhantomData<(T, D)>,
}

impl<T: Plain, D: Dimension> PinnedArray<'_, T, D> {
    /// The array. It is copied only where the value is so small that it does not lie aligned.
    pub fn view(&self) -> CowArray<'_, T, D> {
        let layout = Layout::<D>::read::<T>(&self.bytes).expect("the header was read when it was pinned");
        let shape = layout.dimension.clone().set_f(layout.fortran_order);
        match bytemuck::try_cast_slice(layout.data) {
            Ok(elements) => {
                CowArray::from(ArrayView::from_shape(shape, elements).expect("its length was checked"))
            }
            Err(_) => CowArray::from(from_npy::<T, D>(&self.bytes).expect("its header was read")),
        }
    }

    /// The value's bytes: a `.npy` file, whose data begins at a multiple of 64 bytes.
    pub fn npy(&self) -> &[u8] {
        &self.bytes
    }
}

impl<K: Key, T: Plain, D: Dimension + Serialize + serde::de::DeserializeOwned + 'static>
    DDict<K, Array<T, D>>
{
    /// The array of a key in place, without a copy; `None` if it is not there. Waits as [`DDict::get`] does.
    ///
    /// # Errors
    /// Those of [`DDict::get`].
    pub fn get_array<Q>(&self, key: &Q) -> Result<Option<PinnedArray<'_, T, D>>, Error>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        with_key(key, |key| {
            let Some(bytes) = self.pin_waiting(key)? else { return Ok(None) };
            Layout::<D>::read::<T>(&bytes).map_err(|reason| self.undecoded(key, &reason.to_owned()))?;
            Ok(Some(PinnedArray { bytes, element: PhantomData }))
        })?
    }

    /// Puts an array of `shape` that `fill` writes in place. Its elements are whatever was there before, until `fill`
    /// writes them; if `fill` panics nothing is put.
    ///
    /// # Errors
    /// Those of [`DDict::put`].
    pub fn put_array_with<Q, S>(
        &self,
        key: &Q,
        shape: S,
        fill: impl FnOnce(ArrayViewMut<'_, T, D>),
    ) -> Result<(), Error>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
        S: IntoDimension<Dim = D>,
    {
        let dimension = shape.into_dimension();
        let failed = |reason: &str| Error::Encode {
            what: "value",
            type_name: std::any::type_name::<Array<T, D>>().to_owned(),
            reason: reason.to_owned(),
        };
        let header = header_of::<T>(dimension.slice(), false).map_err(failed)?;
        let elements = dimension.size_checked().ok_or_else(|| failed("it has too many elements"))?;
        let bytes = (elements as u64)
            .checked_mul(size_of::<T>() as u64)
            .ok_or_else(|| failed("it has too many elements"))?;
        with_key(key, |key| {
            self.fill_value(key, header.len() as u64 + bytes, |place| {
                place[..header.len()].copy_from_slice(&header);
                fill_numbers(&mut place[header.len()..], |elements: &mut [T]| {
                    fill(ArrayViewMut::from_shape(dimension, elements).expect("their number is the shape's"));
                });
            })
        })?
    }
}
