//! Kernels: what one must do, and how TensorFlow comes to call it.

use std::ffi::{CStr, c_char, c_void};
use std::ptr;

use super::abi::{DataType, KernelConstruction, KernelContext, abi};
use super::status::{Failure, Status};
use super::tensor::{Tensor, TensorElement};
use crate::guard::guarded;

/// A kernel; TensorFlow keeps one per node and runs it on any thread, on several at once.
pub trait Kernel: Sized + Send + Sync + 'static {
    fn new(construction: &Construction) -> Result<Self, Failure>;
    fn compute(&self, context: &Context) -> Result<(), Failure>;
}

/// Registers `K` as the CPU kernel of `op` where the attribute `type_attr` is `data_type`. `name` is for TensorFlow's
/// lists of kernels.
pub fn register<K: Kernel>(op: &CStr, name: &CStr, type_attr: &CStr, data_type: DataType) -> Result<(), Failure> {
    let status = Status::new();
    // SAFETY: strings that end in zero and are copied; callbacks that never unwind; the builder is deleted or handed
    // over, once.
    unsafe {
        let builder = (abi().NewKernelBuilder)(op.as_ptr(), c"CPU".as_ptr(), create::<K>, compute::<K>, delete::<K>)
            .expect("TensorFlow makes a builder");
        (abi().KernelBuilder_TypeConstraint)(builder.as_ref(), type_attr.as_ptr(), data_type, &status);
        if let Err(failure) = status.result() {
            (abi().DeleteKernelBuilder)(builder);
            return Err(failure);
        }
        (abi().RegisterKernelBuilder)(name.as_ptr(), builder, &status);
    }
    status.result()
}

/// Returns a boxed `K`, or null after a failure.
unsafe extern "C" fn create<K: Kernel>(construction: &KernelConstruction) -> *mut c_void {
    match guarded(|| K::new(&Construction(construction)).map(Box::new)) {
        Ok(kernel) => Box::into_raw(kernel).cast(),
        Err(failure) => {
            // SAFETY: the construction lives for this call.
            unsafe { (abi().OpKernelConstruction_Failure)(construction, &Status::of(&failure)) };
            ptr::null_mut()
        }
    }
}

unsafe extern "C" fn compute<K: Kernel>(kernel: *mut c_void, context: &KernelContext) {
    let result = guarded(|| {
        // SAFETY: what `create` returned and `delete` has not had yet.
        let kernel = unsafe { kernel.cast::<K>().as_ref() };
        kernel.ok_or_else(|| Failure::internal("the kernel was not made"))?.compute(&Context::new(context))
    });
    if let Err(failure) = result {
        // SAFETY: the context lives for this call.
        unsafe { (abi().OpKernelContext_Failure)(context, &Status::of(&failure)) };
    }
}

unsafe extern "C" fn delete<K: Kernel>(kernel: *mut c_void) {
    if kernel.is_null() {
        return;
    }
    // Nobody could be told of a failure.
    let _ = guarded(|| {
        // SAFETY: what `create` returned; TensorFlow calls this once, at the end.
        drop(unsafe { Box::from_raw(kernel.cast::<K>()) });
        Ok(())
    });
}

/// The making of a kernel.
pub struct Construction<'a>(&'a KernelConstruction);

impl Construction<'_> {
    /// A Boolean attribute.
    pub fn boolean(&self, name: &CStr) -> Result<bool, Failure> {
        let (status, mut value) = (Status::new(), 0);
        // SAFETY: the construction lives for this call; a string that ends in zero.
        unsafe { (abi().OpKernelConstruction_GetAttrBool)(self.0, name.as_ptr(), &mut value, &status) };
        status.result()?;
        Ok(value != 0)
    }

    /// A string attribute.
    pub fn string(&self, name: &CStr) -> Result<String, Failure> {
        let status = Status::new();
        let (mut list, mut length) = (0, 0);
        // SAFETY: the construction lives for this call; a string that ends in zero.
        unsafe {
            (abi().OpKernelConstruction_GetAttrSize)(self.0, name.as_ptr(), &mut list, &mut length, &status);
        }
        status.result()?;
        let mut bytes = vec![0u8; usize::try_from(length).unwrap_or(0)];
        let buffer = bytes.as_mut_ptr().cast::<c_char>();
        // SAFETY: as above; at most `bytes.len()` bytes are written.
        unsafe {
            (abi().OpKernelConstruction_GetAttrString)(self.0, name.as_ptr(), buffer, bytes.len(), &status);
        }
        status.result()?;
        String::from_utf8(bytes)
            .map_err(|error| Failure::invalid_argument(format!("{} must be UTF-8: {error}", name.to_string_lossy())))
    }
}

/// One call of a kernel.
pub struct Context<'a> {
    context: &'a KernelContext,
    /// For every question: TensorFlow sets it anew each time.
    status: Status,
}

impl<'a> Context<'a> {
    fn new(context: &'a KernelContext) -> Self {
        Self { context, status: Status::new() }
    }

    /// How many there are.
    pub fn inputs(&self) -> usize {
        // SAFETY: the context lives for this call.
        unsafe { (abi().NumInputs)(self.context) }.try_into().unwrap_or(0)
    }

    pub fn input(&self, index: i32) -> Result<Tensor, Failure> {
        let mut tensor = None;
        // SAFETY: the context lives for this call; an index out of range is a failure.
        unsafe { (abi().GetInput)(self.context, index, &mut tensor, &self.status) };
        self.status.result()?;
        // SAFETY: the reference is new and ours; nobody writes to an input while a kernel runs.
        tensor.map(|tensor| unsafe { Tensor::owning(tensor) }).ok_or_else(|| no_tensor("input", index))
    }

    /// A new output, its elements not yet meaningful.
    ///
    /// # Errors
    /// TensorFlow's: no memory.
    pub fn allocate_output<T: TensorElement>(&self, index: i32, shape: &[usize]) -> Result<Tensor, Failure> {
        let too_large = || Failure::from(sepconv::Error::TooLarge);
        let dims = shape.iter().map(|&extent| i64::try_from(extent)).collect::<Result<Vec<_>, _>>();
        let dims = dims.map_err(|_| too_large())?;
        let size = shape.iter().try_fold(size_of::<T>(), |n, &extent| n.checked_mul(extent)).ok_or_else(too_large)?;
        let (dims, rank) = (dims.as_ptr(), dims.len() as i32);
        // SAFETY: the context lives for this call; `rank` extents, which are copied.
        let tensor =
            unsafe { (abi().AllocateOutput)(self.context, index, T::DATA_TYPE, dims, rank, size, &self.status) };
        self.status.result()?;
        // SAFETY: the reference is new and ours; TensorFlow reads the output after the kernel.
        tensor.map(|tensor| unsafe { Tensor::owning(tensor) }).ok_or_else(|| no_tensor("output", index))
    }
}

fn no_tensor(kind: &str, index: i32) -> Failure {
    Failure::internal(format!("TensorFlow gave no tensor for {kind} {index}"))
}
