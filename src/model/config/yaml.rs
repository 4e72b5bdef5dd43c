//! A YAML document as an arena of nodes with their positions.
//!
//! `saphyr-parser` turns the text into events without recursion. Composing the document here and not through serde has
//! three advantages. An alias is one more index to a node, so "billion laughs" documents cost nothing. Depth and size are
//! limited. Every value has its line and column for messages. Tags are kept as text and construct nothing.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Tag};

use super::ConfigError;

/// Largest accepted text. Configurations have a few kilobytes.
pub(super) const MAX_BYTES: usize = 1 << 20;
const MAX_NODES: usize = 1 << 18;
const MAX_DEPTH: usize = 64;

/// Index of a node in its document.
pub(super) type Index = usize;

#[derive(Debug)]
pub(super) enum Kind {
    Scalar {
        text: String,
        plain: bool,
    },
    Sequence(Vec<Index>),
    /// Keys and values; for equal keys the last one wins.
    Mapping(Vec<(Index, Index)>),
}

#[derive(Debug)]
pub(super) struct Node {
    pub kind: Kind,
    /// As written: `!!int`, `!!python/tuple`.
    pub tag: Option<String>,
    /// From 1.
    pub line: usize,
    /// From 1.
    pub column: usize,
}

/// The first document of a text.
#[derive(Debug)]
pub(super) struct Document {
    nodes: Vec<Node>,
    root: Index,
}

impl Document {
    pub fn parse(text: &str, origin: &str) -> Result<Self, ConfigError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        if text.len() > MAX_BYTES {
            return Err(ConfigError::TooLarge { file: origin.to_owned(), limit: MAX_BYTES });
        }
        if text.contains('\0') {
            return Err(ConfigError::NotText { file: origin.to_owned() });
        }
        let mut composer =
            Composer { nodes: Vec::new(), open: Vec::new(), anchors: HashMap::new(), root: None };
        for event in Parser::new_from_str(text) {
            let (event, span) = match event {
                Ok(event) => event,
                Err(error) => return Err(syntax(origin, *error.marker(), error.info().to_owned())),
            };
            if matches!(event, Event::DocumentEnd) {
                break;
            }
            composer.handle_event(event, span.start).map_err(|reason| syntax(origin, span.start, reason))?;
        }
        match composer.root {
            Some(root) => Ok(Self { nodes: composer.nodes, root }),
            None => Err(ConfigError::Empty { file: origin.to_owned() }),
        }
    }

    pub fn root(&self) -> &Node {
        self.node(self.root)
    }

    pub fn node(&self, index: Index) -> &Node {
        &self.nodes[index]
    }
}

fn syntax(origin: &str, at: Marker, reason: String) -> ConfigError {
    ConfigError::Syntax { file: origin.to_owned(), line: at.line(), column: at.col() + 1, reason }
}

/// A collection that has not ended yet.
struct Open {
    index: Index,
    /// In a mapping, the key whose value is next.
    key: Option<Index>,
}

struct Composer {
    nodes: Vec<Node>,
    open: Vec<Open>,
    anchors: HashMap<usize, Index>,
    root: Option<Index>,
}

impl Composer {
    fn handle_event(&mut self, event: Event<'_>, at: Marker) -> Result<(), String> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain;
                self.add(Kind::Scalar { text: text.into_owned(), plain }, tag.as_deref(), anchor, at)?;
            }
            Event::SequenceStart(anchor, tag) => {
                let index = self.add(Kind::Sequence(Vec::new()), tag.as_deref(), anchor, at)?;
                self.descend(index)?;
            }
            Event::MappingStart(anchor, tag) => {
                let index = self.add(Kind::Mapping(Vec::new()), tag.as_deref(), anchor, at)?;
                self.descend(index)?;
            }
            Event::SequenceEnd | Event::MappingEnd => _ = self.open.pop(),
            Event::Alias(anchor) => {
                let index = self.anchors.get(&anchor).copied();
                self.attach(index.ok_or_else(|| "an alias to nothing".to_owned())?);
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn add(&mut self, kind: Kind, tag: Option<&Tag>, anchor: usize, at: Marker) -> Result<Index, String> {
        if self.nodes.len() >= MAX_NODES {
            return Err(format!("more than {MAX_NODES} values; this is no configuration"));
        }
        let index = self.nodes.len();
        self.nodes.push(Node { kind, tag: tag.map(tag_text), line: at.line(), column: at.col() + 1 });
        if anchor != 0 {
            self.anchors.insert(anchor, index);
        }
        self.attach(index);
        Ok(index)
    }

    fn descend(&mut self, index: Index) -> Result<(), String> {
        if self.open.len() >= MAX_DEPTH {
            return Err(format!("nested deeper than {MAX_DEPTH} levels; this is no configuration"));
        }
        self.open.push(Open { index, key: None });
        Ok(())
    }

    /// Adds a node to the innermost open collection, or makes it the root.
    fn attach(&mut self, index: Index) {
        let Some(open) = self.open.last_mut() else {
            self.root.get_or_insert(index);
            return;
        };
        match &mut self.nodes[open.index].kind {
            Kind::Sequence(items) => items.push(index),
            Kind::Mapping(pairs) => match open.key.take() {
                Some(key) => pairs.push((key, index)),
                None => open.key = Some(index),
            },
            Kind::Scalar { .. } => {}
        }
    }
}

/// A tag as written: `!!int`, `!!python/tuple`, `!mine`.
fn tag_text(tag: &Tag) -> String {
    if tag.is_yaml_core_schema() {
        format!("!!{}", tag.suffix)
    } else {
        format!("{}{}", tag.handle, tag.suffix)
    }
}
