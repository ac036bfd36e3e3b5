//! Shape inference: the inputs' shapes as far as they are known, and the output's built from values and from the
//! inputs' own dimensions.

use std::ops::Deref;
use std::ptr::NonNull;

use super::abi::{DimensionHandle, ShapeHandle, ShapeInferenceContext, TfStatus, abi};
use super::status::{Failure, Status};
use crate::guard::guarded;

/// A shape: `None` where the rank is unknown, and an extent `None` where that is.
pub type Shape = Option<Vec<Option<usize>>>;

/// An extent of an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    Known(usize),
    /// Equal to no other unknown extent.
    Unknown,
    /// Dimension `axis` of input `input`, which has so many dimensions: TensorFlow goes on knowing that they are the same.
    Of {
        input: i32,
        rank: i64,
        axis: i64,
    },
}

pub trait ShapeFunction {
    fn infer(inference: &Inference) -> Result<(), Failure>;
}

/// The function that TensorFlow calls.
pub(super) unsafe extern "C" fn infer<F: ShapeFunction>(context: &ShapeInferenceContext, status: &TfStatus) {
    if let Err(failure) = guarded(|| F::infer(&Inference(context))) {
        status.set(&failure);
    }
}

/// One call of a shape function.
pub struct Inference<'a>(&'a ShapeInferenceContext);

impl Inference<'_> {
    pub fn input(&self, index: i32) -> Result<Shape, Failure> {
        let shape = self.input_handle(index)?;
        let dimension = Dimension::new();
        // SAFETY: the context lives for this call, the handles as long as their values; indices are below the rank.
        unsafe {
            if (abi().ShapeInferenceContextRankKnown)(self.0, &shape) == 0 {
                return Ok(None);
            }
            let extent = |i| {
                (abi().ShapeInferenceContextDim)(self.0, &shape, i, &dimension);
                let known = (abi().DimensionHandleValueKnown)(&dimension) != 0;
                known.then(|| (abi().DimensionHandleValue)(&dimension)).and_then(|value| value.try_into().ok())
            };
            Ok(Some((0..(abi().ShapeInferenceContextRank)(self.0, &shape)).map(extent).collect()))
        }
    }

    pub fn set_output(&self, index: i32, extents: &[Extent]) -> Result<(), Failure> {
        let mut output: Option<Handle> = None;
        for extent in extents {
            let next = self.vector(*extent)?;
            output = Some(match output {
                Some(before) => self.checked(|result, status| {
                    // SAFETY: as in `input`.
                    unsafe { (abi().ShapeInferenceContextConcatenateShapes)(self.0, &before, &next, result, status) }
                })?,
                None => next,
            });
        }
        let status = Status::new();
        if let Some(output) = output {
            // SAFETY: as in `input`.
            unsafe { (abi().ShapeInferenceContextSetOutput)(self.0, index, &output, &status) };
        }
        status.result()
    }

    /// A shape of one dimension.
    fn vector(&self, extent: Extent) -> Result<Handle, Failure> {
        let size = match extent {
            Extent::Known(extent) => extent,
            // TensorFlow writes an unknown extent as -1, and makes a new dimension of it.
            Extent::Unknown => usize::MAX,
            Extent::Of { input, rank, axis } => {
                let shape = self.input_handle(input)?;
                // SAFETY: as in `input`.
                let shape = self.checked(|result, status| unsafe {
                    (abi().ShapeInferenceContextWithRank)(self.0, &shape, rank, result, status)
                })?;
                // SAFETY: as in `input`.
                return self.checked(|result, status| unsafe {
                    (abi().ShapeInferenceContextSubshape)(self.0, &shape, axis, axis + 1, result, status)
                });
            }
        };
        // SAFETY: as in `input`; the handle is new, and its value deletes it.
        let handle = unsafe { (abi().ShapeInferenceContextVectorFromSize)(self.0, size) };
        Ok(Handle(handle.expect("TensorFlow makes a shape")))
    }

    fn input_handle(&self, index: i32) -> Result<Handle, Failure> {
        // SAFETY: as in `input`; an index out of range is a failure.
        self.checked(|result, status| unsafe { (abi().ShapeInferenceContextGetInput)(self.0, index, result, status) })
    }

    /// A new shape handle that `fill` puts something into.
    fn checked(&self, fill: impl FnOnce(&ShapeHandle, &TfStatus)) -> Result<Handle, Failure> {
        let (handle, status) = (Handle::new(), Status::new());
        fill(&handle, &status);
        status.result().map(|()| handle)
    }
}

macro_rules! handle {
    ($name:ident, $target:ident, $new:ident, $delete:ident) => {
        /// Deleted when dropped.
        struct $name(NonNull<$target>);

        impl $name {
            fn new() -> Self {
                // SAFETY: takes nothing; deleted once, below.
                Self(unsafe { (abi().$new)() }.expect("TensorFlow makes a handle"))
            }
        }

        impl Deref for $name {
            type Target = $target;

            fn deref(&self) -> &$target {
                // SAFETY: lives as long as this value.
                unsafe { self.0.as_ref() }
            }
        }

        impl Drop for $name {
            fn drop(&mut self) {
                // SAFETY: ours, and deleted here only.
                unsafe { (abi().$delete)(self.0) };
            }
        }
    };
}

handle!(Handle, ShapeHandle, NewShapeHandle, DeleteShapeHandle);
handle!(Dimension, DimensionHandle, NewDimensionHandle, DeleteDimensionHandle);
