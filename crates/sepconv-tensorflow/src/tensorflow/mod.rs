//! TensorFlow's C ABI in safe clothes: everything foreign is named, called and freed in this folder. No raw pointer
//! leaves one of its modules, except in the table of [`abi`].

pub mod abi;
pub mod inference;
pub mod kernel;
pub mod op;
pub mod status;
pub mod tensor;
