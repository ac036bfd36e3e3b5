//! Our own op in TensorFlow's graphs: the library that `sepconv-tensorflow` builds, loaded into this process.

use std::path::Path;

use sepconv::{Attributes, Padding};
use tensorflow::{Library, Output};

use crate::session::{Error, Nodes, load};

/// The op library; its op stays registered for as long as the process lives.
#[derive(Debug)]
pub struct OpLibrary(());

impl OpLibrary {
    pub fn load(path: &Path) -> Result<Self, Error> {
        load()?;
        let library = Library::load(&path.to_string_lossy())?;
        drop(library);
        Ok(Self(()))
    }

    /// Adds a node that computes with `numerics`.
    pub fn separable(
        &self,
        nodes: &mut Nodes,
        attributes: &Attributes,
        numerics: &str,
        [input, depthwise_filter, pointwise_filter]: [Output; 3],
    ) -> Result<Output, Error> {
        // The attributes are the shape of a tensor that holds nothing: see the binding crate's `carrier`.
        let geometry = nodes.constant::<i32>("geometry", &carrier(attributes), &[])?;
        let inputs = [input, depthwise_filter, pointwise_filter, geometry];
        nodes.add("Sepconv>SeparableConv2D", "sepconv", &inputs, |node| Ok(node.set_attr_string("numerics", numerics)?))
    }
}

fn carrier(attributes: &Attributes) -> Vec<usize> {
    let Attributes { strides, padding, rate } = attributes;
    let mut shape = vec![0, strides[0], strides[1], rate[0], rate[1]];
    match padding {
        Padding::Same => shape.push(0),
        Padding::Valid => shape.push(1),
        Padding::Explicit(paddings) => {
            shape.push(2);
            shape.extend(paddings.as_flattened());
        }
    }
    shape.into_iter().map(|n| n as usize).collect()
}
