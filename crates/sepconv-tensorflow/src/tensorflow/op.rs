//! The definition of an op, registered.

use std::ffi::CStr;

use super::abi::abi;
use super::inference::{ShapeFunction, infer};
use super::status::{Failure, Status};

/// Names and types in the words of TensorFlow's op definitions.
pub struct Op {
    pub name: &'static CStr,
    pub attrs: &'static [&'static CStr],
    pub inputs: &'static [&'static CStr],
    pub outputs: &'static [&'static CStr],
}

impl Op {
    /// Makes the op known to TensorFlow, with `F` as its shape function. TensorFlow may end the process if an op of
    /// this name exists.
    pub fn register<F: ShapeFunction>(&self) -> Result<(), Failure> {
        let status = Status::new();
        // SAFETY: strings that end in zero and are copied; a shape function that never unwinds; the builder is handed
        // over at the end, whatever the status says.
        unsafe {
            let builder = (abi().NewOpDefinitionBuilder)(self.name.as_ptr()).expect("TensorFlow makes a builder");
            for attr in self.attrs {
                (abi().OpDefinitionBuilderAddAttr)(builder.as_ref(), attr.as_ptr());
            }
            for input in self.inputs {
                (abi().OpDefinitionBuilderAddInput)(builder.as_ref(), input.as_ptr());
            }
            for output in self.outputs {
                (abi().OpDefinitionBuilderAddOutput)(builder.as_ref(), output.as_ptr());
            }
            (abi().OpDefinitionBuilderSetShapeInferenceFunction)(builder.as_ref(), infer::<F>);
            (abi().RegisterOpDefinition)(builder, &status);
        }
        status.result()
    }
}
