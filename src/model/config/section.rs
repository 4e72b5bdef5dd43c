//! Typed access to the keys of one section, with errors that give line and column.

use super::ConfigError;
use super::yaml::{Document, Index, Kind, Node};

/// Maximum depth of merge keys (`<<`).
const MAX_MERGES: usize = 8;
/// Most mappings of a list after `<<`.
const MAX_MERGED: usize = 64;
/// Accepted tags of lists.
const SEQUENCES: [&str; 3] = ["!!seq", "!!python/tuple", "!!python/list"];
/// Longest stem name in bytes, because it becomes part of a file name.
const MAX_NAME_BYTES: usize = 128;

/// The key of the stems, and other words for it.
const INSTRUMENTS: &str = "instruments";
const INSTRUMENT_WORDS: [&str; 6] =
    ["stems", "sources", "targets", "stem_names", "instrument_names", "labels"];

/// A mapping of the file; empty when the file has no such section.
pub(super) struct Section<'a> {
    document: &'a Document,
    origin: &'a str,
    name: &'static str,
    pairs: &'a [(Index, Index)],
    present: bool,
    read: Vec<&'static str>,
    warnings: Vec<String>,
}

impl<'a> Section<'a> {
    /// The document itself.
    pub fn top(document: &'a Document, origin: &'a str) -> Result<Self, ConfigError> {
        let root = document.root();
        let mut section = Self {
            document,
            origin,
            name: "",
            pairs: &[],
            present: true,
            read: Vec::new(),
            warnings: Vec::new(),
        };
        match &root.kind {
            Kind::Mapping(pairs) => section.pairs = pairs,
            _ => return Err(section.value_error("the file", root, "sections such as `model:` and `audio:`")),
        }
        Ok(section)
    }

    /// A mapping inside this one; empty when it is missing or null.
    pub fn section(&mut self, key: &'static str) -> Result<Self, ConfigError> {
        let mut section = Self {
            document: self.document,
            origin: self.origin,
            name: key,
            pairs: &[],
            present: false,
            read: Vec::new(),
            warnings: Vec::new(),
        };
        if let Some(node) = self.take_value(key) {
            match &node.kind {
                Kind::Mapping(pairs) => section.pairs = pairs,
                _ => return Err(self.value_error(key, node, "a section with keys of its own")),
            }
            section.present = true;
        }
        Ok(section)
    }

    pub fn is_present(&self) -> bool {
        self.present
    }

    /// A key with the name of its section.
    pub fn dotted(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    /// The keys that were not read.
    pub fn unread_keys(&self) -> impl Iterator<Item = &str> {
        let keys = self.pairs.iter().filter_map(|(key, _)| self.text(*key));
        keys.filter(|key| *key != "<<" && !self.read.contains(key))
    }

    /// An integer between two bounds.
    pub fn integer(
        &mut self,
        key: &'static str,
        min: usize,
        max: usize,
    ) -> Result<Option<usize>, ConfigError> {
        let Some(node) = self.take_value(key) else { return Ok(None) };
        self.integer_at(key, node, min as i64, max as i64).map(|value| Some(value as usize))
    }

    /// A list of 1 to `most` integers between two bounds.
    pub fn integers(
        &mut self,
        key: &'static str,
        min: usize,
        max: usize,
        most: usize,
    ) -> Result<Option<Vec<usize>>, ConfigError> {
        let Some(node) = self.take_value(key) else { return Ok(None) };
        let items = self.list(key, node, "a list of whole numbers", 1, most)?;
        let number = |item: &Index| {
            self.integer_at(key, self.document.node(*item), min as i64, max as i64)
                .map(|value| value as usize)
        };
        items.iter().map(number).collect::<Result<_, _>>().map(Some)
    }

    /// Two integers from -1 to `max`.
    pub fn range(&mut self, key: &'static str, max: usize) -> Result<Option<(i64, i64)>, ConfigError> {
        let Some(node) = self.take_value(key) else { return Ok(None) };
        let items = self.list(key, node, "two whole numbers", 2, 2)?;
        let end = |item: Index| self.integer_at(key, self.document.node(item), -1, max as i64);
        Ok(Some((end(items[0])?, end(items[1])?)))
    }

    /// A sample rate in Hz.
    pub fn sample_rate(&mut self, key: &'static str) -> Result<Option<u32>, ConfigError> {
        Ok(self.integer(key, 1000, 1_536_000)?.map(|rate| rate as u32))
    }

    /// A boolean in any spelling of YAML 1.1.
    pub fn boolean(&mut self, key: &'static str) -> Result<Option<bool>, ConfigError> {
        let Some(node) = self.take_value(key) else { return Ok(None) };
        parse_boolean(node).map(Some).ok_or_else(|| self.value_error(key, node, "true or false"))
    }

    /// A boolean that does not change the result. A text such as `"True"` is accepted with a warning.
    pub fn boolean_without_effect(&mut self, key: &'static str) -> Option<bool> {
        self.without_effect(key, "true or false", |node| {
            // Some authors use 0 and 1.
            parse_boolean(node).or_else(|| match parse_integer(node) {
                Some(0) => Some(false),
                Some(1) => Some(true),
                _ => None,
            })
        })
    }

    /// An integer that does not change the result. A text such as `"1025"` is accepted with a warning.
    pub fn integer_without_effect(&mut self, key: &'static str) -> Option<usize> {
        self.without_effect(key, "a whole number", |node| usize::try_from(parse_integer(node)?).ok())
    }

    /// A number that does not change the result. A text such as `"0.1"` is accepted with a warning.
    pub fn float_without_effect(&mut self, key: &'static str) -> Option<f64> {
        self.without_effect(key, "a number", parse_float)
    }

    /// Integers that do not change the result. An invalid list is ignored with a warning.
    pub fn integers_without_effect(&mut self, key: &'static str) -> Option<Vec<usize>> {
        let document = self.document;
        self.without_effect(key, "a list of whole numbers", |node| match &node.kind {
            Kind::Sequence(items) => {
                items.iter().map(|item| usize::try_from(parse_integer(document.node(*item))?).ok()).collect()
            }
            _ => None,
        })
    }

    /// A value that does not change the result: texts count as what they say, and anything else is a warning.
    fn without_effect<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        parse: impl Fn(&Node) -> Option<T>,
    ) -> Option<T> {
        let node = self.take_value(key)?;
        if let Some(value) = parse(node) {
            return Some(value);
        }
        let value = parse(&as_plain(node));
        let error = self.value_error(key, node, expected);
        let end = if value.is_some() { "taken as such" } else { "ignored, as it does not change the result" };
        self.warnings.push(format!("{error}; {end}"));
        value
    }

    /// Any text; `None` for other values.
    pub fn any_text(&mut self, key: &'static str) -> Option<String> {
        match &self.take_value(key)?.kind {
            Kind::Scalar { text, .. } => Some(text.trim().chars().take(MAX_NAME_BYTES).collect()),
            _ => None,
        }
    }

    /// Warnings about values, and about unknown keys that resemble known ones which are missing.
    pub fn warnings(&self) -> impl Iterator<Item = String> {
        let misspelt = self.unread_keys().filter_map(|key| {
            let plain = |text: &str| text.to_ascii_lowercase().replace(['-', ' '], "_");
            let missing =
                self.read.iter().filter(|known| self.lookup(self.pairs, known, MAX_MERGES).is_none());
            let same =
                |known: &&&str| **known == INSTRUMENTS && INSTRUMENT_WORDS.contains(&plain(key).as_str());
            let known = missing
                .clone()
                .find(same)
                .map(|known| (0, known))
                .into_iter()
                .chain(missing.map(|known| (strsim::damerau_levenshtein(&plain(key), known), known)))
                .filter(|(distance, known)| *distance <= 1 + known.len() / 6)
                .min()?;
            let (key, meant) = (self.dotted(&super::printable(key)), self.dotted(known.1));
            Some(format!("{}: {key} is unknown and ignored; did you mean {meant}?", self.origin))
        });
        let misspelt: Vec<String> = misspelt.collect();
        self.warnings.iter().cloned().chain(misspelt)
    }

    /// A stem name.
    pub fn stem_name(&mut self, key: &'static str) -> Result<Option<String>, ConfigError> {
        let Some(node) = self.take_value(key) else { return Ok(None) };
        self.stem_name_of(key, node).map(Some)
    }

    /// Distinct stem names; empty when the key is missing.
    pub fn stem_names(&mut self, key: &'static str, most: usize) -> Result<Vec<String>, ConfigError> {
        let Some(node) = self.take_value(key) else { return Ok(Vec::new()) };
        let items = self.list(key, node, "a list of names", 1, most)?;
        let mut names: Vec<String> = Vec::with_capacity(items.len());
        for item in items {
            let node = self.document.node(*item);
            let name = self.stem_name_of(key, node)?;
            if names.contains(&name) {
                return Err(self.value_error(key, node, "each name once"));
            }
            names.push(name);
        }
        Ok(names)
    }

    fn stem_name_of(&self, key: &str, node: &Node) -> Result<String, ConfigError> {
        let text = match &node.kind {
            Kind::Scalar { text, .. } => text.trim(),
            _ => "",
        };
        if text.is_empty() || text.len() > MAX_NAME_BYTES || text.contains(char::is_control) {
            return Err(self.value_error(key, node, &format!("a name of 1 to {MAX_NAME_BYTES} bytes")));
        }
        Ok(text.to_owned())
    }

    fn list(
        &self,
        key: &str,
        node: &'a Node,
        what: &str,
        least: usize,
        most: usize,
    ) -> Result<&'a [Index], ConfigError> {
        // With other tags, Python would build another type.
        let tagged = node.tag.as_deref().is_none_or(|tag| SEQUENCES.contains(&tag));
        match &node.kind {
            Kind::Sequence(items) if tagged && (least..=most).contains(&items.len()) => Ok(items),
            Kind::Sequence(_) if tagged && least != most => {
                Err(self.value_error(key, node, &format!("{what}, {least} to {most} of them")))
            }
            _ => Err(self.value_error(key, node, what)),
        }
    }

    fn integer_at(&self, key: &str, node: &Node, min: i64, max: i64) -> Result<i64, ConfigError> {
        let expected = match parse_integer(node) {
            Some(value) if (min..=max).contains(&value) => return Ok(value),
            Some(_) => format!("a whole number from {min} to {max}"),
            None if min > 0 => "a positive whole number".to_owned(),
            None => "a whole number".to_owned(),
        };
        Err(self.value_error(key, node, &expected))
    }

    /// The value of a key, which counts as read; `None` when it is missing or null.
    fn take_value(&mut self, key: &'static str) -> Option<&'a Node> {
        self.read.push(key);
        let node = self.lookup(self.pairs, key, MAX_MERGES)?;
        (!is_null(node)).then_some(node)
    }

    fn lookup(&self, pairs: &'a [(Index, Index)], key: &str, merges: usize) -> Option<&'a Node> {
        let find = |wanted: &str| {
            let found = pairs.iter().rev().find(|(name, _)| self.text(*name) == Some(wanted));
            found.map(|(_, value)| self.document.node(*value))
        };
        if let Some(node) = find(key) {
            return Some(node);
        }
        match (&find("<<")?.kind, merges) {
            (Kind::Mapping(pairs), 1..) => self.lookup(pairs, key, merges - 1),
            // The first mapping with the key wins. Lists are not nested, or their number would multiply.
            (Kind::Sequence(items), MAX_MERGES) => {
                items.iter().take(MAX_MERGED).find_map(|item| match &self.document.node(*item).kind {
                    Kind::Mapping(pairs) => self.lookup(pairs, key, merges - 1),
                    _ => None,
                })
            }
            _ => None,
        }
    }

    fn text(&self, index: Index) -> Option<&'a str> {
        match &self.document.node(index).kind {
            Kind::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    fn value_error(&self, key: &str, node: &Node, expected: &str) -> ConfigError {
        ConfigError::Value {
            file: self.origin.to_owned(),
            line: node.line,
            column: node.column,
            key: self.dotted(key),
            expected: expected.to_owned(),
            found: describe_node(node),
        }
    }
}

fn describe_node(node: &Node) -> String {
    let shortened = |text: &str| text.chars().take(60).collect::<String>();
    let found = match &node.kind {
        Kind::Sequence(items) => format!("a list of {}", items.len()),
        Kind::Mapping(pairs) => format!("a section of {} keys", pairs.len()),
        Kind::Scalar { text, plain: true } if parse_float(node).is_some() => shortened(text),
        Kind::Scalar { plain: true, .. } if is_null(node) => "nothing".to_owned(),
        Kind::Scalar { text, .. } => format!("{:?}", shortened(text)),
    };
    match &node.tag {
        Some(tag) => format!("{} {found}", shortened(tag)),
        None => found,
    }
}

/// A scalar without its quotes.
fn as_plain(node: &Node) -> Node {
    let kind = match &node.kind {
        Kind::Scalar { text, .. } => Kind::Scalar { text: text.trim().to_owned(), plain: true },
        _ => Kind::Sequence(Vec::new()),
    };
    Node { kind, tag: None, line: node.line, column: node.column }
}

fn parse_boolean(node: &Node) -> Option<bool> {
    match scalar(node, "!!bool")?.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" => Some(true),
        "false" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// The text of a plain scalar, or of a scalar with exactly this tag.
fn scalar<'a>(node: &'a Node, wanted: &str) -> Option<&'a str> {
    match (&node.kind, &node.tag) {
        (Kind::Scalar { text, plain: true }, None) => Some(text),
        (Kind::Scalar { text, .. }, Some(tag)) if tag == wanted => Some(text),
        _ => None,
    }
}

fn is_null(node: &Node) -> bool {
    matches!(scalar(node, "!!null"), Some("" | "~" | "null" | "Null" | "NULL" | "None"))
}

/// An integer. A float without fraction (`4.0`) is accepted as well.
fn parse_integer(node: &Node) -> Option<i64> {
    if let Some(text) = scalar(node, "!!int") {
        let plain = text.replace('_', "");
        let (sign, digits) = match plain.strip_prefix('-') {
            Some(digits) => (-1, digits),
            None => (1, plain.strip_prefix('+').unwrap_or(&plain)),
        };
        let (radix, digits) = match digits.get(..2) {
            Some("0x" | "0X") => (16, &digits[2..]),
            Some("0o" | "0O") => (8, &digits[2..]),
            Some("0b" | "0B") => (2, &digits[2..]),
            _ => (10, digits),
        };
        // Rejects a second sign, which from_str_radix would accept.
        if digits.starts_with(|c: char| c.is_ascii_alphanumeric())
            && let Ok(value) = i64::from_str_radix(digits, radix)
        {
            return value.checked_mul(sign);
        }
    }
    let value = parse_float(node)?;
    (value.fract() == 0.0 && value.abs() < 9e15).then_some(value as i64)
}

fn parse_float(node: &Node) -> Option<f64> {
    let text = scalar(node, "!!float").or_else(|| scalar(node, "!!int"))?.replace('_', "");
    let numeric = text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c));
    if !numeric {
        return None;
    }
    text.parse().ok().filter(|value: &f64| value.is_finite())
}
