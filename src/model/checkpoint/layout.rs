//! From the objects of a pickle to the weights: which dict holds them, and what their names share.

use std::collections::{BTreeMap, HashSet};

use super::pickle::{Handle, Node, Pickle};

/// Where trainers put the weights, in order of preference.
const WRAPPERS: [&str; 6] = ["state_dict", "model_state_dict", "state", "model", "params", "module"];
/// Where they put the running average of the weights.
const AVERAGES: [&str; 3] = ["ema_state_dict", "ema_model", "ema"];
/// How deep wrappers may nest.
const MAX_DEPTH: usize = 4;
/// Most dicts that are looked into at one depth.
const MAX_DICTS: usize = 4096;
/// How the name of a tensor ends that every RoFormer has: the dict with it holds the weights, whatever lies beside it.
const MARK: &str = "band_split.to_features.0.1.weight";

/// What wrappers of the model class leave in front of every name.
const PREFIXES: [&str; 6] = ["module.", "model.", "_orig_mod.", "ema_model.", "online_model.", "state_dict."];

/// What `torch.optim.swa_utils.AveragedModel` and `ema_pytorch` keep beside them.
const COUNTERS: [&str; 3] = ["n_averaged", "initted", "step"];

/// The dict that holds the weights, and the keys that lead to it.
pub(super) struct Weights<'a> {
    pub path: Vec<&'a str>,
    pub pairs: &'a [(Handle, Handle)],
}

struct Candidate<'a> {
    path: Vec<&'a str>,
    pairs: &'a [(Handle, Handle)],
    tensors: usize,
    average: bool,
    /// Whether [`MARK`] is among its names.
    marked: bool,
}

/// Looks for the weights; see the module `checkpoint` for the rule.
pub(super) fn find<'a>(pickle: &'a Pickle<'_>) -> Option<Weights<'a>> {
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
        // Not the weights but a few tensors that lie beside their average.
        (Some(weights), Some(average)) if !weights.marked && 2 * weights.tensors < average.tensors => average,
        (weights, average) => weights.or(average)?,
    };
    Some(Weights { path: taken.path.clone(), pairs: taken.pairs })
}

/// The dicts within `depth` keys of the root, breadth first, each once, in order of preference.
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
                marked |= pickle.text(*key).is_some_and(|name| name.ends_with(MARK));
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

/// Cuts from all names what they all begin with, as long as it is a known prefix; returns what was cut. What averaging
/// wrappers hold beside the weights goes: their counters, and the average where the weights themselves are there.
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
            // A name that is nothing but the prefix would be left without one.
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
