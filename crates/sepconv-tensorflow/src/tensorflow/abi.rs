//! The table of TensorFlow's C functions, looked up at run time in the TensorFlow that the process has loaded; all of
//! them or none. Signatures are those of `tensorflow/c/{kernels,ops,tf_tensor,tf_status}.h`, unchanged since 2.5.
//!
//! Foreign objects are opaque types here, and a parameter that C declares as a pointer which must not be null is a
//! reference: the same bits, without the chance of passing null.

use std::cell::UnsafeCell;
use std::ffi::{CStr, c_char, c_int, c_uchar, c_void};
use std::marker::{PhantomData, PhantomPinned};
use std::ptr::NonNull;
use std::sync::OnceLock;

macro_rules! opaque {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[repr(C)]
        pub struct $name {
            // No bytes of ours, changed behind shared references, neither Send nor Sync.
            _foreign: UnsafeCell<[u8; 0]>,
            _pinned: PhantomData<(*mut u8, PhantomPinned)>,
        }
    )*};
}

opaque! {
    TfStatus
    TfTensor
    OpDefinitionBuilder
    KernelBuilder
    KernelConstruction
    KernelContext
    ShapeInferenceContext
    ShapeHandle
    DimensionHandle
}

pub type Owned<T> = Option<NonNull<T>>;
/// A `TF_DataType`.
pub type DataType = c_int;
pub type ShapeFunction = unsafe extern "C" fn(&ShapeInferenceContext, &TfStatus);
pub type Create = unsafe extern "C" fn(&KernelConstruction) -> *mut c_void;
pub type Compute = unsafe extern "C" fn(*mut c_void, &KernelContext);
pub type Delete = unsafe extern "C" fn(*mut c_void);

macro_rules! table {
    ($(fn $name:ident($($argument:ty),* $(,)?) $(-> $result:ty)?;)*) => {
        /// The functions, without the prefix `TF_`.
        #[expect(non_snake_case, reason = "TensorFlow's names")]
        pub struct Table {
            $(pub $name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        #[expect(non_snake_case, reason = "TensorFlow's names")]
        impl Table {
            /// The whole table, or the names that `find` does not know.
            fn look_up(find: impl Fn(&CStr) -> Option<NonNull<c_void>>) -> Result<Self, Vec<&'static str>> {
                let mut missing = Vec::new();
                $(
                    let $name = find(cstr(concat!("TF_", stringify!($name), "\0")));
                    if $name.is_none() {
                        missing.push(concat!("TF_", stringify!($name)));
                    }
                )*
                match ($($name,)*) {
                    ($(Some($name),)*) => Ok(Self {
                        $(
                            // SAFETY: TensorFlow's function of this name has this signature.
                            $name: unsafe {
                                std::mem::transmute::<
                                    NonNull<c_void>,
                                    unsafe extern "C" fn($($argument),*) $(-> $result)?,
                                >($name)
                            },
                        )*
                    }),
                    _ => Err(missing),
                }
            }
        }
    };
}

table! {
    fn NewStatus() -> Owned<TfStatus>;
    fn DeleteStatus(NonNull<TfStatus>);
    fn SetStatus(&TfStatus, c_int, *const c_char);
    fn GetCode(&TfStatus) -> c_int;
    fn Message(&TfStatus) -> *const c_char;

    fn DeleteTensor(NonNull<TfTensor>);
    fn TensorType(&TfTensor) -> DataType;
    fn NumDims(&TfTensor) -> c_int;
    fn Dim(&TfTensor, c_int) -> i64;
    fn TensorByteSize(&TfTensor) -> usize;
    fn TensorData(&TfTensor) -> *mut c_void;

    fn NewOpDefinitionBuilder(*const c_char) -> Owned<OpDefinitionBuilder>;
    fn OpDefinitionBuilderAddAttr(&OpDefinitionBuilder, *const c_char);
    fn OpDefinitionBuilderAddInput(&OpDefinitionBuilder, *const c_char);
    fn OpDefinitionBuilderAddOutput(&OpDefinitionBuilder, *const c_char);
    fn OpDefinitionBuilderSetShapeInferenceFunction(&OpDefinitionBuilder, ShapeFunction);
    fn RegisterOpDefinition(NonNull<OpDefinitionBuilder>, &TfStatus);

    fn NewShapeHandle() -> Owned<ShapeHandle>;
    fn DeleteShapeHandle(NonNull<ShapeHandle>);
    fn NewDimensionHandle() -> Owned<DimensionHandle>;
    fn DeleteDimensionHandle(NonNull<DimensionHandle>);
    fn DimensionHandleValueKnown(&DimensionHandle) -> c_int;
    fn DimensionHandleValue(&DimensionHandle) -> i64;
    fn ShapeInferenceContextGetInput(&ShapeInferenceContext, c_int, &ShapeHandle, &TfStatus);
    fn ShapeInferenceContextSetOutput(&ShapeInferenceContext, c_int, &ShapeHandle, &TfStatus);
    fn ShapeInferenceContextRankKnown(&ShapeInferenceContext, &ShapeHandle) -> c_int;
    fn ShapeInferenceContextRank(&ShapeInferenceContext, &ShapeHandle) -> i64;
    fn ShapeInferenceContextDim(&ShapeInferenceContext, &ShapeHandle, i64, &DimensionHandle);
    fn ShapeInferenceContextWithRank(&ShapeInferenceContext, &ShapeHandle, i64, &ShapeHandle, &TfStatus);
    fn ShapeInferenceContextSubshape(&ShapeInferenceContext, &ShapeHandle, i64, i64, &ShapeHandle, &TfStatus);
    fn ShapeInferenceContextConcatenateShapes(
        &ShapeInferenceContext, &ShapeHandle, &ShapeHandle, &ShapeHandle, &TfStatus,
    );
    fn ShapeInferenceContextVectorFromSize(&ShapeInferenceContext, usize) -> Owned<ShapeHandle>;

    fn NewKernelBuilder(*const c_char, *const c_char, Create, Compute, Delete) -> Owned<KernelBuilder>;
    fn DeleteKernelBuilder(NonNull<KernelBuilder>);
    fn KernelBuilder_TypeConstraint(&KernelBuilder, *const c_char, DataType, &TfStatus);
    fn RegisterKernelBuilder(*const c_char, NonNull<KernelBuilder>, &TfStatus);
    fn OpKernelConstruction_GetAttrSize(
        &KernelConstruction, *const c_char, &mut i32, &mut i32, &TfStatus,
    );
    fn OpKernelConstruction_GetAttrString(&KernelConstruction, *const c_char, *mut c_char, usize, &TfStatus);
    fn OpKernelConstruction_GetAttrBool(&KernelConstruction, *const c_char, &mut c_uchar, &TfStatus);
    fn OpKernelConstruction_Failure(&KernelConstruction, &TfStatus);
    fn OpKernelContext_Failure(&KernelContext, &TfStatus);
    fn NumInputs(&KernelContext) -> c_int;
    fn GetInput(&KernelContext, c_int, &mut Owned<TfTensor>, &TfStatus);
    fn AllocateOutput(&KernelContext, c_int, DataType, *const i64, c_int, usize, &TfStatus) -> Owned<TfTensor>;
}

static TABLE: OnceLock<Table> = OnceLock::new();

/// The table. Panics before a [`connect`] succeeded: TensorFlow calls nothing of ours before that.
pub fn abi() -> &'static Table {
    TABLE.get().expect("TensorFlow's functions have been looked up")
}

/// Files that hold TensorFlow's C functions: in Python wheels and C packages, versioned or not.
const LIBRARIES: [&CStr; 6] = [
    c"libtensorflow_framework.so.2",
    c"libtensorflow.so.2",
    c"libtensorflow_cc.so.2",
    c"libtensorflow_framework.so",
    c"libtensorflow.so",
    c"libtensorflow_cc.so",
];

/// Looks the functions up, once: in the libraries of TensorFlow that the process has loaded, then among the symbols
/// that everybody sees (of a program that TensorFlow was linked into). Loads nothing.
///
/// # Errors
/// A message that says what is missing.
pub fn connect() -> Result<(), String> {
    if TABLE.get().is_some() {
        return Ok(());
    }
    let mut incomplete = None;
    for library in LIBRARIES.map(Some).into_iter().chain([None]) {
        let Some(namespace) = Namespace::of(library) else { continue };
        match Table::look_up(|symbol| namespace.symbol(symbol)) {
            Ok(table) => {
                // Whoever came first found the same functions.
                let _ = TABLE.set(table);
                return Ok(());
            }
            Err(missing) if missing.contains(&"TF_NewOpDefinitionBuilder") => {}
            Err(missing) => {
                let place = library.map_or("this program".into(), CStr::to_string_lossy);
                incomplete.get_or_insert(format!(
                    "the TensorFlow in {place} lacks {}, which sepconv needs: use TensorFlow 2.12 or later",
                    missing.join(", ")
                ));
            }
        }
    }
    Err(incomplete.unwrap_or_else(|| {
        format!(
            "TensorFlow is not loaded in this process: none of {} is, and TF_NewOpDefinitionBuilder is no global \
             symbol either. Load TensorFlow first (in Python: import tensorflow), then this library",
            LIBRARIES.map(|library| library.to_string_lossy()).join(", ")
        )
    }))
}

/// Where the dynamic linker looks for a symbol.
struct Namespace(*mut c_void);

impl Namespace {
    /// Of a library, if it is loaded; of everybody for `None`.
    fn of(library: Option<&CStr>) -> Option<Self> {
        let Some(library) = library else { return Some(Self(libc::RTLD_DEFAULT)) };
        // SAFETY: a string that ends in zero. The library stays: its handle is never closed.
        let handle = unsafe { libc::dlopen(library.as_ptr(), libc::RTLD_NOLOAD | libc::RTLD_LAZY) };
        (!handle.is_null()).then_some(Self(handle))
    }

    fn symbol(&self, name: &CStr) -> Option<NonNull<c_void>> {
        // SAFETY: an open handle and a string that ends in zero.
        NonNull::new(unsafe { libc::dlsym(self.0, name.as_ptr()) })
    }
}

const fn cstr(text: &'static str) -> &'static CStr {
    match CStr::from_bytes_with_nul(text.as_bytes()) {
        Ok(text) => text,
        Err(_) => panic!("the text must end in its only zero"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_tensorflow_the_message_says_so() {
        let message = connect().unwrap_err();
        assert!(message.contains("TensorFlow is not loaded") && message.contains("libtensorflow_framework.so.2"));
    }

    #[test]
    fn missing_symbols_are_named() {
        let here = NonNull::new(connect as *mut c_void);
        let missing = Table::look_up(|symbol| here.filter(|_| symbol != c"TF_Dim" && symbol != c"TF_GetCode"));
        assert_eq!(missing.err(), Some(vec!["TF_GetCode", "TF_Dim"]));
        assert!(Table::look_up(|_| here).is_ok());
    }
}
