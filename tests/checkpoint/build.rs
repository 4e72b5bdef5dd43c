//! Checkpoints written by hand, one instruction at a time, so that they can be wrong in any way.

use std::io::{Cursor, Write};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// A pickle under construction.
#[derive(Clone)]
pub struct Pickle(pub Vec<u8>);

impl Pickle {
    /// Protocol 2, as torch.save writes it.
    pub fn new() -> Self {
        Self(vec![0x80, 2])
    }

    pub fn op(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub fn text(self, text: &str) -> Self {
        self.op(b"X").op(&(text.len() as u32).to_le_bytes()).op(text.as_bytes())
    }

    /// Any whole number, as LONG1.
    pub fn int(self, value: i64) -> Self {
        self.op(&[0x8a, 8]).op(&value.to_le_bytes())
    }

    pub fn ints(self, values: &[i64]) -> Self {
        values.iter().fold(self.op(b"("), |pickle, value| pickle.int(*value)).op(b"t")
    }

    pub fn global(self, module: &str, name: &str) -> Self {
        self.op(b"c").op(module.as_bytes()).op(b"\n").op(name.as_bytes()).op(b"\n")
    }

    pub fn storage(self, class: &str, key: &str, elements: i64) -> Self {
        self.op(b"(").text("storage").global("torch", class).text(key).text("cpu").int(elements).op(b"tQ")
    }

    pub fn tensor(self, tensor: &Tensor) -> Self {
        self.global("torch._utils", "_rebuild_tensor_v2")
            .op(b"(")
            .storage(tensor.class, tensor.key, tensor.elements)
            .int(tensor.offset)
            .ints(&tensor.shape)
            .ints(&tensor.strides)
            .op(b"\x89")
            .global("collections", "OrderedDict")
            .op(b")RtR")
    }

    /// A dict of tensors, left on the stack.
    pub fn dict(self, tensors: &[(&str, Tensor)]) -> Self {
        let open = self.op(b"}(");
        tensors.iter().fold(open, |pickle, (name, tensor)| pickle.text(name).tensor(tensor)).op(b"u")
    }

    pub fn stop(self) -> Vec<u8> {
        self.op(b".").0
    }
}

/// What a tensor claims to be.
#[derive(Clone)]
pub struct Tensor {
    pub class: &'static str,
    pub key: &'static str,
    pub elements: i64,
    pub offset: i64,
    pub shape: Vec<i64>,
    pub strides: Vec<i64>,
}

impl Tensor {
    /// Row-major over the whole storage `key`.
    pub fn new(class: &'static str, key: &'static str, shape: &[i64]) -> Self {
        let mut strides = vec![1; shape.len()];
        for axis in (1..shape.len()).rev() {
            strides[axis - 1] = strides[axis] * shape[axis];
        }
        Self { class, key, elements: shape.iter().product(), offset: 0, shape: shape.to_vec(), strides }
    }

    pub fn with(self, offset: i64, shape: &[i64], strides: &[i64]) -> Self {
        Self { offset, shape: shape.to_vec(), strides: strides.to_vec(), ..self }
    }
}

/// Six floats, 0.5 to 5.5, under the key `0`.
pub fn six() -> (&'static str, Vec<u8>) {
    ("0", (0..6).flat_map(|i| (i as f32 + 0.5).to_le_bytes()).collect())
}

/// `{"w": tensor}` over the storage of [`six`].
pub fn one(tensor: Tensor) -> Vec<u8> {
    archive(&Pickle::new().dict(&[("w", tensor)]).stop(), &[six()])
}

/// An archive as torch.save lays it out.
pub fn archive(index: &[u8], storages: &[(&str, Vec<u8>)]) -> Vec<u8> {
    archive_with(index, storages, &[("byteorder", b"little".to_vec())], CompressionMethod::Stored)
}

pub fn archive_with(
    index: &[u8],
    storages: &[(&str, Vec<u8>)],
    others: &[(&str, Vec<u8>)],
    method: CompressionMethod,
) -> Vec<u8> {
    let mut entries = vec![("archive/data.pkl".to_owned(), index.to_vec())];
    entries.extend(others.iter().map(|(name, bytes)| (format!("archive/{name}"), bytes.clone())));
    entries.extend(storages.iter().map(|(key, bytes)| (format!("archive/data/{key}"), bytes.clone())));
    zip(&entries, method)
}

pub fn zip(entries: &[(String, Vec<u8>)], method: CompressionMethod) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        let options = SimpleFileOptions::default().compression_method(method).with_alignment(64);
        zip.start_file(name, options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// A safetensors file of any header and data.
pub fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(data);
    file
}
