//! Safetensors files: weights and images in, results out.

use std::collections::HashMap;
use std::path::Path;
use std::str::FromStr;

use ndarray::{Array2, Array4};
use safetensors::tensor::{Dtype, Metadata, SafeTensorError, SafeTensors, TensorView};

use crate::Outcome;
use crate::network::Network;

/// One that was read.
pub struct File<'a> {
    tensors: SafeTensors<'a>,
    metadata: Metadata,
}

impl<'a> File<'a> {
    pub fn new(bytes: &'a [u8]) -> Outcome<Self> {
        let unreadable = |error: SafeTensorError| format!("not a safetensors file, or not whole: {error}");
        let tensors = SafeTensors::deserialize(bytes).map_err(unreadable)?;
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(unreadable)?;
        Ok(Self { tensors, metadata })
    }

    pub fn metadata(&self, key: &str) -> Outcome<&str> {
        let value = self.metadata.metadata().as_ref().and_then(|values| values.get(key));
        Ok(value.ok_or_else(|| format!("its metadata has no `{key}`"))?)
    }

    pub fn number<T: FromStr>(&self, key: &str) -> Outcome<T> {
        let text = self.metadata(key)?;
        text.parse().map_err(|_| format!("its metadata's `{key}` must be a number, got `{text}`").into())
    }

    /// Of a tensor's axis.
    pub fn extent(&self, name: &str, axis: usize) -> Outcome<usize> {
        let tensor = self.tensor(name)?;
        Ok(*tensor.shape().get(axis).ok_or_else(|| format!("`{name}` has no axis {axis}"))?)
    }

    /// The elements of a tensor, which must have that shape and be of f32.
    pub fn values(&self, name: &str, shape: &[usize]) -> Outcome<Vec<f32>> {
        let tensor = self.tensor(name)?;
        if tensor.dtype() != Dtype::F32 || tensor.shape() != shape {
            let (got, dtype) = (tensor.shape(), tensor.dtype());
            return Err(format!("`{name}` must be {shape:?} of F32, got {got:?} of {dtype:?}").into());
        }
        Ok(tensor.data().as_chunks().0.iter().map(|&value| f32::from_le_bytes(value)).collect())
    }

    fn tensor(&self, name: &str) -> Outcome<TensorView<'a>> {
        Ok(self.tensors.tensor(name).map_err(|_| format!("it has no tensor `{name}`"))?)
    }
}

/// Images.
pub fn input(path: &Path, shape: [usize; 4]) -> Outcome<Array4<f32>> {
    let bytes = std::fs::read(path)?;
    Ok(Array4::from_shape_vec(shape, File::new(&bytes)?.values("input", &shape)?)?)
}

/// What the network made of its last images.
pub fn write(path: &Path, network: &Network, probabilities: &Array2<f32>) -> Outcome<()> {
    let bytes = |values: &mut dyn Iterator<Item = &f32>| values.flat_map(|value| value.to_le_bytes()).collect();
    let (features, pooled, logits) = (network.features(), network.pooled(), network.logits());
    let results: [(&str, &[usize], Vec<u8>); 4] = [
        ("features", features.shape(), bytes(&mut features.iter())),
        ("pooled", pooled.shape(), bytes(&mut pooled.iter())),
        ("logits", logits.shape(), bytes(&mut logits.iter())),
        ("probabilities", probabilities.shape(), bytes(&mut probabilities.iter())),
    ];
    let mut tensors = HashMap::new();
    for (name, shape, data) in &results {
        tensors.insert(*name, TensorView::new(Dtype::F32, shape.to_vec(), data)?);
    }
    std::fs::write(path, safetensors::serialize(tensors, None)?)?;
    Ok(())
}
