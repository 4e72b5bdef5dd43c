//! Serialises paths as text. A path that is not valid Unicode, as in some old archives on Linux, is stored as its bytes and restored exactly.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Form {
    Text(String),
    Bytes { bytes: Vec<u8> },
}

impl From<&Path> for Form {
    fn from(path: &Path) -> Self {
        match path.to_str() {
            Some(text) => Self::Text(text.into()),
            None => Self::of_bytes(path),
        }
    }
}

impl Form {
    #[cfg(unix)]
    fn of_bytes(path: &Path) -> Self {
        Self::Bytes { bytes: std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()).to_vec() }
    }

    #[cfg(not(unix))]
    fn of_bytes(path: &Path) -> Self {
        Self::Text(path.to_string_lossy().into_owned())
    }

    #[cfg(unix)]
    fn path(self) -> PathBuf {
        match self {
            Self::Text(text) => text.into(),
            Self::Bytes { bytes } => {
                <std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(bytes).into()
            }
        }
    }

    #[cfg(not(unix))]
    fn path(self) -> PathBuf {
        match self {
            Self::Text(text) => text.into(),
            Self::Bytes { bytes } => String::from_utf8_lossy(&bytes).into_owned().into(),
        }
    }
}

/// For `#[serde(with)]`.
pub fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    Form::from(path).serialize(serializer)
}

/// For `#[serde(with)]`.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    Ok(Form::deserialize(deserializer)?.path())
}

/// For `Option<PathBuf>`.
pub mod optional {
    use super::*;

    /// For `#[serde(with)]`.
    pub fn serialize<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
        path.as_deref().map(Form::from).serialize(serializer)
    }

    /// For `#[serde(with)]`.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
        Ok(Option::<Form>::deserialize(deserializer)?.map(Form::path))
    }
}
