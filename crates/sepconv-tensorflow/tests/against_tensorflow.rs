//! The op, loaded into TensorFlow, against TensorFlow's composite in the same session, bit for bit, over the case space.
//! One test, so that TensorFlow sees one kind of call in one sequence.

mod library;

use std::error::Error;
use std::ffi::{CStr, CString, c_char, c_void};

use half::{bf16, f16};
use sepconv::reveal::{Unclear, reveal};
use sepconv_conformance::cases::{Case, ElementType, Space};
use sepconv_conformance::composite::{Halves, feeds, placeholders, separable, shapes};
use sepconv_conformance::op::OpLibrary;
use sepconv_conformance::session::{Element, Mode, Nodes};
use sepconv_conformance::tally::Tally;
use sepconv_conformance::trials::{Trials, same_bits};

#[test]
fn the_op_gives_the_bits_of_the_composite() {
    let library = library::load();
    let mode = Mode::of_this_process();
    let tally = Tally::new(mode);
    Trials::from_env(Space { element: None, onednn: mode.onednn }).run(|case| {
        let outcome = match case.element {
            ElementType::F32 => check::<f32>(case, mode, &library, &tally),
            ElementType::F64 => check::<f64>(case, mode, &library, &tally),
            ElementType::F16 => check::<f16>(case, mode, &library, &tally),
            ElementType::Bf16 => check::<bf16>(case, mode, &library, &tally),
        };
        outcome.map_err(|error| format!("{mode}: {error}"))
    });
    println!("{tally}");
    tally.check_shares();
    assert_eq!(kernel_calls(), tally.followed(), "every followed case is one call of the op's kernels");
}

fn check<T: Element>(case: &Case, mode: Mode, library: &OpLibrary, tally: &Tally) -> Result<(), Box<dyn Error>> {
    let geometry = case.geometry()?;
    let revealed = reveal(&geometry, &mut Halves::<T>::new(&geometry, &case.attributes, mode)?);
    tally.add(case, &revealed);
    let numerics = match revealed {
        Ok(numerics) => numerics.to_string(),
        Err(Unclear::Probe(error)) => return Err(error.into()),
        Err(_) => return Ok(()),
    };

    let mut nodes = Nodes::new()?;
    let inputs = placeholders::<T>(&mut nodes, shapes(&geometry).map(|shape| shape.map(Some)))?;
    let composite = separable(&mut nodes, &geometry, &case.attributes, inputs.clone())?;
    let op = library.separable(&mut nodes, &case.attributes, &numerics, inputs)?;
    let outputs = nodes.open(mode, vec![composite, op])?.run::<T>(&feeds(&geometry, &case.operands::<T>())?)?;
    if outputs[0].shape() != outputs[1].shape() {
        return Err(format!("shape {:?} expected, got {:?}", outputs[0].shape(), outputs[1].shape()).into());
    }
    let [expected, got] = [0, 1].map(|output| outputs[output].as_slice().expect("row-major"));
    same_bits(expected, got).map_err(|difference| format!("{difference}, with {numerics}").into())
}

/// Results that the library's kernels have computed in this process.
fn kernel_calls() -> usize {
    type Json = unsafe extern "C" fn() -> *mut c_char;
    type Free = unsafe extern "C" fn(*mut c_char);
    let path = CString::new(library::path().as_os_str().as_encoded_bytes()).expect("a path holds no zero");
    // SAFETY: the library is loaded and stays so, hence so do its functions, whose types are those of its `exports`;
    // the text is read before it is given back, once.
    let text = unsafe {
        let library = libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_NOLOAD);
        let find = |name: &CStr| {
            let symbol = libc::dlsym(library, name.as_ptr());
            assert!(!library.is_null() && !symbol.is_null(), "{name:?} is not in the loaded library");
            symbol
        };
        let json = std::mem::transmute::<*mut c_void, Json>(find(c"sepconv_stats_json"));
        let free = std::mem::transmute::<*mut c_void, Free>(find(c"sepconv_free"));
        let text = json();
        let copied = CStr::from_ptr(text).to_string_lossy().into_owned();
        free(text);
        copied
    };
    let number = text.strip_prefix("{\"kernel_calls\": ").and_then(|rest| rest.split(',').next()?.parse().ok());
    number.unwrap_or_else(|| panic!("no count in {text}"))
}
