//! Finds the dict that holds the weights, and removes the prefix that their names share.

use std::collections::{BTreeMap, HashSet};

use super::pickle::{Handle, Node, Pickle};

/// Keys under which trainers save the weights, in order of preference.
const WRAPPERS: [&str; 6] = ["state_dict", "model_state_dict", "state", "model", "params", "module"];
/// Keys under which trainers save the running average of the weights.
const AVERAGES: [&str; 3] = ["ema_state_dict", "ema_model", "ema"];
/// Maximum nesting of wrappers.
const MAX_DEPTH: usize = 4;
/// Maximum number of dicts searched at one depth.
const MAX_DICTS: usize = 4096;
/// End of the name of a tensor that every RoFormer has. A dict with such a tensor holds the weights.
const ROFORMER_MARKER: &str = "band_split.to_features.0.1.weight";

/// Prefixes that wrappers of the model class add to every name.
const PREFIXES: [&str; 6] = ["module.", "model.", "_orig_mod.", "ema_model.", "online_model.", "state_dict."];

/// Counters that `torch.optim.swa_utils.AveragedModel` and `ema_pytorch` store beside the weights.
const COUNTERS: [&str; 3] = ["n_averaged", "initted", "step"];

/// The dict that holds the weights, and the keys that lead to it.
pub(super) struct WeightsDict<'a> {
    pub path: Vec<&'a str>,
    pub pairs: &'a [(Handle, Handle)],
}

struct Candidate<'a> {
    path: Vec<&'a str>,
    pairs: &'a [(Handle, Handle)],
    tensors: usize,
    average: bool,
    /// Whether it holds a tensor named [`ROFORMER_MARKER`].
    marked: bool,
}

/// Finds the weights by the rule in the docs of the module `checkpoint`.
pub(super) fn find<'a>(pickle: &'a Pickle<'_>) -> Option<WeightsDict<'a>> {
    let known = |name: &str| WRAPPERS.contains(&name) || AVERAGES.contains(&name);
    let mut candidates = collect(pickle, MAX_DEPTH, known);
    let marked = |candidates: &[Candidate<'a>]| candidates.iter().any(|candidate| candidate.marked);
    if !marked(&candidates) {
        let others = collect(pickle, 1, |_| true);
        if marked(&others) || candidates.iter().all(|candidate| candidate.tensors == 0) {
            candidates = others;
        }
    }
    if marked(&candidates) {
        candidates.retain(|candidate| candidate.marked);
    }
    let best = |average: bool| {
        let mut best: Option<&Candidate<'a>> = None;
        for candidate in candidates.iter().filter(|candidate| candidate.average == average) {
            if candidate.tensors > best.map_or(0, |best| best.tensors) {
                best = Some(candidate);
            }
        }
        best
    };
    let taken = match (best(false), best(true)) {
        // A few stray tensors beside the average are not the weights.
        (Some(weights), Some(average)) if !weights.marked && 2 * weights.tensors < average.tensors => average,
        (weights, average) => weights.or(average)?,
    };
    Some(WeightsDict { path: taken.path.clone(), pairs: taken.pairs })
}

/// The dicts up to `depth` keys below the root, breadth first, each once, in order of preference.
fn collect<'a>(pickle: &'a Pickle<'_>, depth: usize, follow: impl Fn(&str) -> bool) -> Vec<Candidate<'a>> {
    let mut found = Vec::new();
    let mut seen = HashSet::from([pickle.root]);
    let mut level = vec![(Vec::new(), pickle.root)];
    for remaining in (0..=depth).rev() {
        let mut next = Vec::new();
        for (path, handle) in level {
            let Node::Dict(pairs) = pickle.node(handle) else { continue };
            let average = path.iter().any(|name| AVERAGES.contains(name));
            let (mut tensors, mut marked) = (0, false);
            for (key, _) in pairs.iter().filter(|(key, value)| pickle.is_named_tensor(*key, *value)) {
                tensors += 1;
                marked |= pickle.text(*key).is_some_and(|name| name.ends_with(ROFORMER_MARKER));
            }
            if remaining > 0 {
                let mut inner: Vec<_> = pairs
                    .iter()
                    .filter_map(|(key, value)| Some((pickle.text(*key)?, *value)))
                    .filter(|(name, value)| follow(name) && matches!(pickle.node(*value), Node::Dict(_)))
                    .collect();
                inner.sort_by_key(|(name, _)| rank(name));
                for (name, value) in inner {
                    if next.len() < MAX_DICTS && seen.insert(value) {
                        let mut longer = path.clone();
                        longer.push(name);
                        next.push((longer, value));
                    }
                }
            }
            found.push(Candidate { path, pairs, tensors, average, marked });
        }
        level = next;
    }
    found
}

fn rank(name: &str) -> usize {
    WRAPPERS.iter().chain(&AVERAGES).position(|wrapper| *wrapper == name).unwrap_or(usize::MAX)
}

/// Removes the known prefixes that all names share, and returns them with the renamed tensors. Also removes the counters
/// of averaging wrappers, and the average where the weights themselves are present.
pub(super) fn strip_prefixes<T>(mut tensors: BTreeMap<String, T>) -> (String, BTreeMap<String, T>) {
    if tensors.keys().any(|name| PREFIXES.iter().any(|prefix| name.starts_with(prefix))) {
        tensors.retain(|name, _| !COUNTERS.contains(&name.as_str()));
    }
    if tensors.keys().any(|name| name.starts_with("online_model.")) {
        tensors.retain(|name, _| !name.starts_with("ema_model."));
    }
    let mut cut = 0;
    let mut prefix = String::new();
    loop {
        let shared = PREFIXES.iter().find(|prefix| {
            // A name equal to the prefix would become empty.
            tensors.keys().all(|name| name[cut..].len() > prefix.len() && name[cut..].starts_with(**prefix))
        });
        match shared {
            Some(shared) if !tensors.is_empty() => {
                cut += shared.len();
                prefix.push_str(shared);
            }
            _ => break,
        }
    }
    if cut == 0 {
        return (prefix, tensors);
    }
    let tensors = tensors.into_iter().map(|(name, tensor)| (name[cut..].to_owned(), tensor)).collect();
    (prefix, tensors)
}
