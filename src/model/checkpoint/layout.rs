//! Finds the dicts of a pickle that hold tensors, and averages that are saved as lists without names.

use std::collections::{HashMap, HashSet};

use super::pickle::{Handle, Node, Pickle};

/// Keys under which trainers save the weights, then those for their running average, in order of preference.
const WRAPPERS: [&str; 9] = [
    "state_dict",
    "model_state_dict",
    "state",
    "model",
    "params",
    "module",
    "ema_state_dict",
    "ema_model",
    "ema",
];
/// How many of [`WRAPPERS`] hold the weights themselves.
const RAW_WRAPPERS: usize = 6;
/// Maximum nesting.
const MAX_DEPTH: usize = 8;
/// Maximum number of dicts and lists that are searched at one depth.
const MAX_CONTAINERS: usize = 4096;
/// Longest list whose items are searched; histories of losses are longer.
const MAX_ITEMS: usize = 4096;
/// The key of `torch_ema` for the averages of all parameters, in the order of the model.
const SHADOW: &str = "shadow_params";
/// Constants that are not trained, and therefore not averaged.
const CONSTANTS: [&str; 2] = ["rotary_embed.freqs", "pope_embed.inv_freqs"];

/// A dict with tensors, or a list of averages with the names that belong to them.
pub(super) struct FoundDict<'a> {
    /// Keys and indices that lead to it.
    pub path: Vec<String>,
    /// Tensors of supported and of other kinds, in file order.
    pub tensors: Vec<(&'a str, Handle)>,
    /// Names of other entries.
    pub others: Vec<String>,
}

/// What a search found.
#[derive(Default)]
pub(super) struct Found<'a> {
    /// Breadth first, in order of preference.
    pub dicts: Vec<FoundDict<'a>>,
    /// Paths of lists of averages that match no weights.
    pub unmatched: Vec<String>,
}

/// Finds all dicts with tensors.
pub(super) fn find<'a>(pickle: &'a Pickle<'a>) -> Found<'a> {
    let mut found = Found::default();
    let mut shadows = Vec::new();
    let mut seen = HashSet::from([pickle.root]);
    let mut level = vec![(Vec::new(), pickle.root)];
    for depth in 0..=MAX_DEPTH {
        let mut next: Vec<(Vec<String>, Handle)> = Vec::new();
        for (path, handle) in level {
            if let Node::Dict(pairs) = pickle.node(handle) {
                found.dicts.extend(tensors_of(pickle, pairs, &path));
            } else if let Some(pairs) = named_pairs(pickle, handle) {
                found.dicts.extend(tensors_of(pickle, &pairs, &path));
            }
            if depth == MAX_DEPTH {
                continue;
            }
            for (name, value) in children(pickle, handle) {
                let longer = || path.iter().cloned().chain([name.to_string()]).collect::<Vec<_>>();
                if name == SHADOW && matches!(pickle.node(value), Node::List(_) | Node::Tuple(_)) {
                    shadows.push((longer(), value));
                } else if next.len() < MAX_CONTAINERS && seen.insert(value) {
                    next.push((longer(), value));
                }
            }
        }
        level = next;
    }
    for (path, list) in shadows {
        match named_shadow(pickle, list, &found.dicts) {
            Some(tensors) => found.dicts.push(FoundDict { path, tensors, others: Vec::new() }),
            None => found.unmatched.push(path.join(".")),
        }
    }
    found
}

/// The dict that is taken when none holds a RoFormer, so that the error describes the most likely one.
pub(super) fn most_likely(dicts: &[FoundDict<'_>]) -> Option<usize> {
    let is_known = |dict: &FoundDict<'_>| {
        dict.path.len() <= 4 && dict.path.iter().all(|key| WRAPPERS.contains(&key.as_str()))
    };
    let is_average =
        |dict: &FoundDict<'_>| dict.path.iter().any(|key| WRAPPERS[RAW_WRAPPERS..].contains(&key.as_str()));
    let best = |keep: &dyn Fn(&FoundDict<'_>) -> bool| {
        let mut best: Option<usize> = None;
        for (at, dict) in dicts.iter().enumerate().filter(|(_, dict)| keep(dict)) {
            if best.is_none_or(|best| dict.tensors.len() > dicts[best].tensors.len()) {
                best = Some(at);
            }
        }
        best
    };
    match (best(&|d| is_known(d) && !is_average(d)), best(&|d| is_known(d) && is_average(d))) {
        // A few stray tensors beside the average are not the weights.
        (Some(raw), Some(average)) if 2 * dicts[raw].tensors.len() < dicts[average].tensors.len() => {
            Some(average)
        }
        (Some(at), _) | (None, Some(at)) => Some(at),
        (None, None) => best(&|dict| dict.path.len() <= 1).or_else(|| best(&|_| true)),
    }
}

/// The tensors of a dict; `None` when it has none.
fn tensors_of<'a>(
    pickle: &'a Pickle<'a>,
    pairs: &[(Handle, Handle)],
    path: &[String],
) -> Option<FoundDict<'a>> {
    let (mut tensors, mut others): (Vec<(&str, Handle)>, _) = (Vec::new(), Vec::new());
    // For equal keys the last one wins, at the place of the first, as in Python.
    let mut places: HashMap<&str, usize> = HashMap::new();
    // A long text may be the key again and again, so it is compared once.
    let mut known: HashMap<Handle, usize> = HashMap::new();
    for (key, value) in pairs {
        match pickle.text(*key) {
            Some(name) if pickle.is_tensor(*value) => {
                let place = match known.get(key) {
                    Some(place) => *place,
                    None => *places.entry(name).or_insert(tensors.len()),
                };
                known.insert(*key, place);
                match tensors.get_mut(place) {
                    Some(tensor) => tensor.1 = *value,
                    None => tensors.push((name, *value)),
                }
            }
            Some(name) => others.push(super::printable(name)),
            None => others.push(pickle.describe(*key).to_string()),
        }
    }
    (!tensors.is_empty()).then(|| FoundDict { path: path.to_vec(), tensors, others })
}

/// The items of a list, where all are pairs of a name and a tensor: `list(model.named_parameters())`.
fn named_pairs(pickle: &Pickle<'_>, handle: Handle) -> Option<Vec<(Handle, Handle)>> {
    let items = items_of(pickle, handle)?;
    let pair = |item: &Handle| match items_of(pickle, *item)? {
        [name, value] if pickle.text(*name).is_some() && pickle.is_tensor(*value) => Some((*name, *value)),
        _ => None,
    };
    items.iter().map(pair).collect()
}

/// The items of a list or tuple.
fn items_of<'p>(pickle: &'p Pickle<'_>, handle: Handle) -> Option<&'p [Handle]> {
    match pickle.node(handle) {
        Node::List(items) => Some(items),
        Node::Tuple(items) => Some(items),
        _ => None,
    }
}

/// A list of tensors without names at the top of a file or one level below: where it is, and how long.
pub(super) fn unnamed_tensors(pickle: &Pickle<'_>) -> Option<(String, usize)> {
    let count = |value: Handle| {
        let items = items_of(pickle, value)?;
        items.first().is_some_and(|item| pickle.is_tensor(*item)).then_some(items.len())
    };
    if let Some(count) = count(pickle.root) {
        return Some(("the top".to_owned(), count));
    }
    let Node::Dict(pairs) = pickle.node(pickle.root) else { return None };
    pairs.iter().find_map(|(key, value)| {
        Some((format!("`{}`", super::printable(pickle.text(*key)?)), count(*value)?))
    })
}

/// The dicts and lists inside a value, with their keys; those of known wrappers first.
fn children<'a>(pickle: &'a Pickle<'a>, handle: Handle) -> Vec<(Key<'a>, Handle)> {
    let is_container =
        |value: &Handle| matches!(pickle.node(*value), Node::Dict(_) | Node::List(_) | Node::Tuple(_));
    let indexed = |items: &[Handle]| {
        let short = if items.len() <= MAX_ITEMS { items } else { &[] };
        let numbered = short.iter().copied().enumerate().filter(|(_, value)| is_container(value));
        numbered.map(|(i, value)| (Key::Number(i as i64), value)).collect::<Vec<_>>()
    };
    match pickle.node(handle) {
        Node::Dict(pairs) => {
            let mut inner: Vec<_> = pairs
                .iter()
                .filter(|(_, value)| is_container(value))
                .filter_map(|(key, value)| match pickle.node(*key) {
                    Node::Int(number) => Some((Key::Number(*number), *value)),
                    _ => Some((Key::Text(pickle.text(*key)?), *value)),
                })
                .collect();
            inner.sort_by_key(|(name, _)| {
                WRAPPERS.iter().position(|wrapper| name == wrapper).unwrap_or(usize::MAX)
            });
            inner
        }
        Node::List(items) => indexed(items),
        Node::Tuple(items) => indexed(items),
        _ => Vec::new(),
    }
}

/// A text or number that is a dict key, or a list index.
enum Key<'a> {
    Text(&'a str),
    Number(i64),
}

impl PartialEq<str> for Key<'_> {
    fn eq(&self, other: &str) -> bool {
        matches!(self, Self::Text(text) if *text == other)
    }
}

impl PartialEq<&str> for Key<'_> {
    fn eq(&self, other: &&str) -> bool {
        *self == **other
    }
}

impl std::fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => f.write_str(&super::printable(text)),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

/// Gives the averages of a list the names of the weights beside them, by order and shape.
fn named_shadow<'a>(
    pickle: &'a Pickle<'a>,
    list: Handle,
    dicts: &[FoundDict<'a>],
) -> Option<Vec<(&'a str, Handle)>> {
    let items = match pickle.node(list) {
        Node::List(items) => &items[..],
        Node::Tuple(items) => &items[..],
        _ => return None,
    };
    let shapes: Vec<_> = items.iter().map(|item| pickle.shape(*item)).collect::<Option<_>>()?;
    dicts.iter().find_map(|dict| {
        // Trained parameters in the order of the model: floats, each once, with or without its constants.
        let mut seen = HashSet::new();
        let floats: Vec<_> =
            dict.tensors.iter().filter(|(_, value)| pickle.is_float_tensor(*value)).copied().collect();
        let unique: Vec<_> =
            floats.iter().filter(|(_, value)| seen.insert(pickle.identity(*value))).copied().collect();
        let trained = |tensors: &[(&'a str, Handle)]| -> Vec<(&'a str, Handle)> {
            let is_constant = |name: &str| CONSTANTS.iter().any(|constant| name.ends_with(constant));
            tensors.iter().filter(|(name, _)| !is_constant(name)).copied().collect()
        };
        [trained(&floats), trained(&unique), floats, unique].into_iter().find_map(|candidates| {
            let fits = candidates.len() == items.len()
                && candidates
                    .iter()
                    .zip(&shapes)
                    .all(|((_, value), shape)| pickle.shape(*value).is_some_and(|held| held == *shape));
            fits.then(|| candidates.iter().zip(items).map(|((name, _), item)| (*name, *item)).collect())
        })
    })
}
