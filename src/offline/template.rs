//! Names of output files.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::str::FromStr;

use super::error::OfflineError;

/// The placeholders, for messages.
const PLACEHOLDERS: &str = "{name}, {stem}, {model} and {ext}";
/// Characters that some file systems refuse in names.
const UNSAFE: &str = r#"\/:*?"<>|"#;
/// Names that Windows gives to devices, with any extension.
const DEVICES: [&str; 30] = [
    "CON", "PRN", "AUX", "NUL", "COM1", "COM2", "COM3", "COM4", "COM5", "COM6", "COM7", "COM8", "COM9",
    "LPT1", "LPT2", "LPT3", "LPT4", "LPT5", "LPT6", "LPT7", "LPT8", "LPT9", "CONIN$", "CONOUT$", "COM¹",
    "COM²", "COM³", "LPT¹", "LPT²", "LPT³",
];

/// A template of file names without extension, such as `{name}_{stem}`. A `/` makes folders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputTemplate {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Name,
    Stem,
    Model,
    Extension,
}

/// What the placeholders stand for.
#[derive(Clone, Copy, Debug)]
pub struct TemplateValues<'a> {
    /// File name of the input without extension.
    pub name: &'a OsStr,
    /// Extension of the input.
    pub extension: &'a OsStr,
    /// Name of the stem.
    pub stem: &'a str,
    /// Name of the model.
    pub model: &'a str,
}

impl Default for OutputTemplate {
    fn default() -> Self {
        Self { text: "{name}_{stem}".into(), parts: vec![Part::Name, Part::Text("_".into()), Part::Stem] }
    }
}

impl FromStr for OutputTemplate {
    type Err = OfflineError;

    fn from_str(text: &str) -> Result<Self, OfflineError> {
        let wrong =
            |what: String| Err(OfflineError::Options { what: format!("name template `{text}`: {what}") });
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            if at > 0 {
                parts.push(Part::Text(rest[..at].into()));
            }
            let Some(end) = rest[at..].find('}').filter(|_| rest[at..].starts_with('{')) else {
                return wrong(format!("a single brace; the placeholders are {PLACEHOLDERS}"));
            };
            parts.push(match &rest[at..=at + end] {
                "{name}" => Part::Name,
                "{stem}" => Part::Stem,
                "{model}" => Part::Model,
                "{ext}" => Part::Extension,
                other => {
                    return wrong(format!(
                        "unknown placeholder {other}; the placeholders are {PLACEHOLDERS}"
                    ));
                }
            });
            rest = &rest[at + end + 1..];
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.into()));
        }
        let folders: Vec<&str> = text.split(is_separator).collect();
        if folders.last().is_none_or(|name| name.trim().is_empty()) {
            return wrong("it names no file; its last part must not be empty, as in {name}/{stem}".into());
        }
        if text.starts_with(is_separator) || folders.contains(&"..") || text.contains(':') && cfg!(windows) {
            return wrong("it leads out of the output folder".into());
        }
        if folders.iter().any(|name| name.trim().is_empty() || *name == ".") {
            return wrong("it has a folder without a name".into());
        }
        if text.chars().any(char::is_control) {
            return wrong("it has a control character".into());
        }
        Ok(Self { text: text.into(), parts })
    }
}

impl OutputTemplate {
    /// The name of the song alone.
    pub(super) fn name_only() -> Self {
        Self { text: "{name}".into(), parts: vec![Part::Name] }
    }

    /// Whether every stem has a name of its own.
    pub fn has_stem(&self) -> bool {
        self.parts.contains(&Part::Stem)
    }

    /// The template as it was given.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The path of a file below the output folder, with `extension`. A stem's and a model's name cannot lead out of the
    /// folder. With `portable`, characters that some file systems refuse are replaced in all parts.
    pub fn path(&self, values: &TemplateValues, extension: &str, portable: bool) -> PathBuf {
        let mut text = OsString::new();
        for part in &self.parts {
            match part {
                Part::Text(part) => text.push(part),
                Part::Name => text.push(values.name),
                Part::Stem => text.push(replace_unsafe(values.stem)),
                Part::Model => text.push(replace_unsafe(values.model)),
                Part::Extension => text.push(values.extension),
            }
        }
        text.push(".");
        text.push(extension);
        let path = PathBuf::from(text);
        if portable { path.components().map(|part| portable_name(part.as_os_str())).collect() } else { path }
    }
}

fn is_separator(c: char) -> bool {
    c == '/' || cfg!(windows) && c == '\\'
}

fn replace_unsafe(name: &str) -> String {
    name.chars().map(|c| if c.is_control() || UNSAFE.contains(c) { '_' } else { c }).collect()
}

/// A name that every common file system accepts, as near to `name` as possible.
pub fn portable_name(name: &OsStr) -> OsString {
    let mut portable = replace_unsafe(&name.to_string_lossy());
    let kept = portable.trim_end_matches(['.', ' ']).len();
    let dropped = portable.len() - kept;
    portable.truncate(kept);
    portable.push_str(&"_".repeat(dropped));
    let device = portable.split('.').next().unwrap_or_default().trim_end().to_ascii_uppercase();
    if DEVICES.contains(&device.as_str()) {
        portable.insert(0, '_');
    }
    portable.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_that_name_no_file_or_unknown_placeholders_are_refused() {
        for (text, what) in [
            ("{track}_{stem}", "{track}"),
            ("{Name}_{stem}", "{Name}"),
            ("{}", "{}"),
            ("{name}_{stem", "single brace"),
            ("name}_{stem}", "single brace"),
            ("{name}/", "names no file"),
            ("", "names no file"),
            ("  ", "names no file"),
            ("/{name}", "leads out"),
            ("../{stem}", "leads out"),
            ("a/../{stem}", "leads out"),
            ("a//{stem}", "without a name"),
            ("./{stem}", "without a name"),
            ("a\n{stem}", "control"),
        ] {
            let error = text.parse::<OutputTemplate>().unwrap_err().to_string();
            assert!(error.contains(what), "{text}: {error}");
        }
    }

    #[test]
    fn placeholders_are_replaced_and_names_stay_inside_the_folder() {
        let values = TemplateValues {
            name: OsStr::new("Why? {stem}"),
            extension: OsStr::new("flac"),
            stem: "../lead:vocals",
            model: "a/b",
        };
        for (text, portable, path) in [
            ("{name}_{stem}", false, "Why? {stem}_.._lead_vocals.wav"),
            ("{name}_{stem}", true, "Why_ {stem}_.._lead_vocals.wav"),
            ("{model}/{name}.{ext}/{stem}", false, "a_b/Why? {stem}.flac/.._lead_vocals.wav"),
        ] {
            let template: OutputTemplate = text.parse().unwrap();
            assert_eq!(template.path(&values, "wav", portable), PathBuf::from(path));
        }
        for (name, portable) in [
            ("CON", "_CON"),
            ("nul.txt", "_nul.txt"),
            ("aux .wav", "_aux .wav"),
            ("com¹", "_com¹"),
            ("end. .", "end___"),
            ("é 曲", "é 曲"),
        ] {
            assert_eq!(portable_name(OsStr::new(name)), OsString::from(portable));
        }
    }

    #[cfg(unix)]
    #[test]
    fn names_need_not_be_utf_8() {
        use std::os::unix::ffi::OsStrExt;
        let name = OsStr::from_bytes(b"caf\xE9");
        let values = TemplateValues { name, extension: OsStr::new(""), stem: "bass", model: "" };
        let path = OutputTemplate::default().path(&values, "wav", false);
        assert_eq!(path.as_os_str().as_bytes(), b"caf\xE9_bass.wav");
    }
}
