//! Tensors that the C ABI hands out, each freed when its value is dropped: their shapes, and their elements as slices
//! whose type, length and alignment have been checked.

use std::ptr::NonNull;

use bytemuck::Pod;
use half::{bf16, f16};

use super::abi::{DataType, TfTensor, abi};
use super::status::Failure;

/// An element type as TensorFlow numbers it.
pub trait TensorElement: Pod {
    const DATA_TYPE: DataType;
}

macro_rules! numbered {
    ($($type:ty = $number:literal)*) => {$(
        impl TensorElement for $type {
            const DATA_TYPE: DataType = $number;
        }
    )*};
}
numbered!(f32 = 1 f64 = 2 bf16 = 14 f16 = 19);

pub struct Tensor {
    tensor: NonNull<TfTensor>,
    shape: Vec<usize>,
}

// SAFETY: TensorFlow counts references atomically, and elements are written only through exclusive access.
unsafe impl Send for Tensor {}
// SAFETY: as above.
unsafe impl Sync for Tensor {}

impl Tensor {
    /// Takes charge of a tensor that a call returned.
    ///
    /// # Safety
    /// Nobody else deletes it, and its elements are written only through this value while it lives.
    pub(super) unsafe fn owning(tensor: NonNull<TfTensor>) -> Self {
        // SAFETY: a living tensor, and indices below its number of dimensions.
        let dim = |i| unsafe { (abi().Dim)(tensor.as_ref(), i) };
        // SAFETY: as above.
        let rank = unsafe { (abi().NumDims)(tensor.as_ref()) };
        // TensorFlow's extents are never negative.
        Self { tensor, shape: (0..rank).map(|i| usize::try_from(dim(i)).unwrap_or(0)).collect() }
    }

    fn tensor(&self) -> &TfTensor {
        // SAFETY: lives as long as this value.
        unsafe { self.tensor.as_ref() }
    }

    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Whether it is the same memory in the same shape.
    pub fn is_same<T: TensorElement>(&self, other: &Self) -> Result<bool, Failure> {
        Ok(self.shape == other.shape && std::ptr::eq(self.elements::<T>()?, other.elements::<T>()?))
    }

    /// All elements, row-major.
    pub fn elements<T: TensorElement>(&self) -> Result<&[T], Failure> {
        let bytes = self.bytes::<T>()?;
        // SAFETY: so many bytes, which TensorFlow keeps unchanged while this value holds its reference.
        let bytes = unsafe { std::slice::from_raw_parts(bytes.as_ptr() as *const u8, bytes.len()) };
        bytemuck::try_cast_slice(bytes).map_err(misaligned::<T>)
    }

    /// All elements, row-major, to be written.
    pub fn elements_mut<T: TensorElement>(&mut self) -> Result<&mut [T], Failure> {
        let bytes = self.bytes::<T>()?;
        // SAFETY: so many bytes, which nobody else sees yet. What TensorFlow's allocator left in them are valid
        // elements: any bits are.
        let bytes = unsafe { std::slice::from_raw_parts_mut(bytes.as_ptr() as *mut u8, bytes.len()) };
        bytemuck::try_cast_slice_mut(bytes).map_err(misaligned::<T>)
    }

    /// Where the bytes are and how many, the type being `T` and the number that which the shape needs.
    fn bytes<T: TensorElement>(&self) -> Result<NonNull<[u8]>, Failure> {
        // SAFETY: a living tensor.
        let (data_type, size, data) = unsafe {
            (
                (abi().TensorType)(self.tensor()),
                (abi().TensorByteSize)(self.tensor()),
                (abi().TensorData)(self.tensor()),
            )
        };
        if data_type != T::DATA_TYPE {
            let wanted = T::DATA_TYPE;
            return Err(Failure::internal(format!("a tensor must have data type {wanted}, got {data_type}")));
        }
        let needed = self.shape.iter().try_fold(size_of::<T>(), |n, &extent| n.checked_mul(extent)).unwrap_or(size);
        let data = match NonNull::new(data.cast::<u8>()) {
            _ if needed == 0 => NonNull::<T>::dangling().cast(),
            Some(data) if needed == size => data,
            _ => return Err(Failure::internal(format!("a tensor must have {needed} bytes, got {size}"))),
        };
        Ok(NonNull::slice_from_raw_parts(data, needed))
    }
}

impl Drop for Tensor {
    fn drop(&mut self) {
        // SAFETY: ours to delete, and deleted here only.
        unsafe { (abi().DeleteTensor)(self.tensor) };
    }
}

fn misaligned<T>(_: bytemuck::PodCastError) -> Failure {
    Failure::internal(format!("a tensor's elements must be aligned to {} bytes", align_of::<T>()))
}
