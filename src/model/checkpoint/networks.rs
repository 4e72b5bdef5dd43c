//! Chooses the network among the tensors of a file.
//!
//! A file may hold several networks: the weights and their running average, a student and its teacher. A network is found by
//! the tensor [`MARKER`], which every RoFormer has. Whatever stands in front of that name is the prefix of the network.

use std::collections::{BTreeMap, BTreeSet};

/// End of the name of a tensor that every RoFormer has.
pub(super) const MARKER: &str = "band_split.to_features.0.1.weight";
/// Most networks of a file that are compared.
const MAX_NETWORKS: usize = 64;

/// Modules that `torch.compile`, FSDP, activation checkpointing and Fabric insert in front of any module of a network.
const INSERTED: [&str; 4] =
    ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"];
/// Prefixes of networks without [`MARKER`], which are reported as unknown: they only shorten the report.
const PREFIXES: [&str; 6] = ["module.", "model.", "_orig_mod.", "ema_model.", "online_model.", "state_dict."];
/// Counters that `torch.optim.swa_utils.AveragedModel` and `ema_pytorch` store beside the weights.
const COUNTERS: [&str; 3] = ["n_averaged", "initted", "step"];
/// Modules of a trainer that lie beside a network without a prefix, and are not part of it.
const TRAINER_MODULES: [&str; 8] =
    ["criterion", "criterions", "loss", "losses", "loss_fn", "metric", "metrics", "discriminator"];
/// Ends of the names of constants, which a copy of the weights may lack.
const CONSTANTS: [&str; 2] = ["rotary_embed.freqs", "pope_embed.inv_freqs"];

/// The tensors of one dict, or of a whole file without dicts.
pub(super) struct TensorDict {
    /// Dict keys that lead to it.
    pub path: Vec<String>,
    /// Names in file order.
    pub names: Vec<String>,
    /// For each name, a number that is equal where two names share their numbers.
    pub identities: Vec<u64>,
}

/// The chosen network.
#[derive(Debug)]
pub(super) struct Choice {
    /// Index of its dict.
    pub dict: usize,
    /// Prefix of its names in the file.
    pub prefix: String,
    /// Index in `names` of each tensor, by its name without prefix.
    pub tensors: BTreeMap<String, usize>,
    /// Names of the dict that do not belong to it.
    pub leftovers: Vec<String>,
    /// Labels of the other complete networks.
    pub alternatives: Vec<String>,
}

/// Why no network is chosen.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ChoiceError {
    /// Several networks are equally good.
    Several(Vec<String>),
    /// The requested network does not exist; those that do.
    Unknown(Vec<String>),
}

impl ChoiceError {
    pub fn into_checkpoint_error(self, origin: &str) -> super::CheckpointError {
        let file = origin.to_owned();
        match self {
            Self::Several(networks) => super::CheckpointError::SeveralNetworks { file, networks },
            Self::Unknown(networks) => super::CheckpointError::UnknownNetwork { file, networks },
        }
    }
}

/// One network of a dict.
struct Network {
    dict: usize,
    prefix: String,
    tensors: BTreeMap<String, usize>,
    leftovers: Vec<String>,
    label: String,
    average: bool,
}

/// Chooses a network. `wanted` is a label, where the user has chosen. `None` when no dict holds a RoFormer.
pub(super) fn choose(dicts: &[TensorDict], wanted: Option<&str>) -> Result<Option<Choice>, ChoiceError> {
    let mut networks: Vec<Network> = Vec::new();
    for (index, dict) in dicts.iter().enumerate() {
        networks.extend(networks_of(index, dict));
        networks.truncate(MAX_NETWORKS);
    }
    remove_incomplete(&mut networks);
    remove_copies(&mut networks, dicts);
    let labels = |networks: &[Network]| networks.iter().map(|n| n.label.clone()).collect::<Vec<_>>();
    if let Some(wanted) = wanted {
        let wanted = wanted.trim_matches('.');
        let Some(at) = networks.iter().position(|n| n.label == wanted) else {
            return Err(ChoiceError::Unknown(labels(&networks)));
        };
        networks.swap(0, at);
    } else {
        // Trainers evaluate the average where they keep one.
        networks.sort_by_key(|network| !network.average);
        let averages = networks.iter().filter(|network| network.average).count();
        if averages > 1 || (averages == 0 && networks.len() > 1) {
            let equal = if averages > 1 { &networks[..averages] } else { &networks[..] };
            return Err(ChoiceError::Several(labels(equal)));
        }
    }
    let alternatives = labels(networks.get(1..).unwrap_or_default());
    Ok(networks.into_iter().next().map(|network| Choice {
        dict: network.dict,
        prefix: network.prefix,
        tensors: network.tensors,
        leftovers: network.leftovers,
        alternatives,
    }))
}

/// All networks of a dict, by the prefixes in front of [`MARKER`].
fn networks_of(index: usize, dict: &TensorDict) -> Vec<Network> {
    let plain = without_inserted(&dict.names);
    let mut prefixes: Vec<&str> = plain
        .iter()
        .filter_map(|name| name.strip_suffix(MARKER))
        .filter(|prefix| prefix.is_empty() || prefix.ends_with('.'))
        .collect();
    prefixes.sort_unstable();
    prefixes.dedup();
    prefixes.truncate(MAX_NETWORKS);
    let networks = prefixes.iter().map(|prefix| {
        let (mut tensors, mut leftovers) = (BTreeMap::new(), Vec::new());
        for (at, name) in plain.iter().enumerate() {
            // A name belongs to the network with the longest prefix.
            let owner = prefixes.iter().filter(|p| name.starts_with(**p)).max_by_key(|p| p.len());
            if owner == Some(prefix) && !is_beside(name, prefix) {
                tensors.insert(name[prefix.len()..].to_owned(), at);
            } else {
                leftovers.push(dict.names[at].clone());
            }
        }
        Network {
            dict: index,
            prefix: (*prefix).to_owned(),
            tensors,
            leftovers,
            label: label(&dict.path, prefix),
            average: dict.path.iter().map(String::as_str).chain(prefix.split('.')).any(is_average),
        }
    });
    networks.collect()
}

/// Whether a name below `prefix` belongs to a trainer and not to the network.
fn is_beside(name: &str, prefix: &str) -> bool {
    let rest = &name[prefix.len()..];
    rest.is_empty()
        || COUNTERS.contains(&rest)
        || (prefix.is_empty() && rest.split('.').next().is_some_and(|first| TRAINER_MODULES.contains(&first)))
}

/// Whether a dict key or a part of a name says that weights are an average: `ema`, `ema_model`, `shadow_params`, `swa`.
fn is_average(part: &str) -> bool {
    let lower = part.to_ascii_lowercase();
    lower.split('_').any(|word| {
        matches!(word, "swa" | "shadow" | "avg") || word.starts_with("ema") || word.starts_with("averag")
    })
}

/// The name of a network in reports: `ema.module`, or `top level`.
fn label(path: &[String], prefix: &str) -> String {
    let mut parts: Vec<&str> = path.iter().map(String::as_str).collect();
    parts.extend(prefix.split('.').filter(|part| !part.is_empty()));
    if parts.is_empty() { "top level".to_owned() } else { parts.join(".") }
}

/// Names without the modules that wrappers insert. A name that would then appear twice keeps them.
fn without_inserted(names: &[String]) -> Vec<String> {
    let strip = |name: &String| -> String {
        if !INSERTED.iter().any(|inserted| name.contains(inserted)) {
            return name.clone();
        }
        name.split('.').filter(|part| !INSERTED.contains(part)).collect::<Vec<_>>().join(".")
    };
    let mut seen = BTreeSet::new();
    names
        .iter()
        .map(|name| {
            let short = strip(name);
            if seen.insert(short.clone()) { short } else { name.clone() }
        })
        .collect()
}

/// Removes parts of networks: those without layers or masks, and averages that lack weights of the network they average.
fn remove_incomplete(networks: &mut Vec<Network>) {
    let is_whole = |network: &Network| {
        ["layers.", "mask_estimators."]
            .iter()
            .all(|part| network.tensors.keys().any(|name| name.starts_with(part)))
    };
    if networks.iter().any(is_whole) {
        networks.retain(is_whole);
    }
    let largest =
        networks.iter().filter(|network| !network.average).max_by_key(|network| network.tensors.len());
    let Some(largest) = largest else { return };
    let required: Vec<String> = largest
        .tensors
        .keys()
        .filter(|name| !CONSTANTS.iter().any(|constant| name.ends_with(constant)))
        .cloned()
        .collect();
    networks
        .retain(|network| !network.average || required.iter().all(|name| network.tensors.contains_key(name)));
}

/// Removes networks that are the same tensors under another key.
fn remove_copies(networks: &mut Vec<Network>, dicts: &[TensorDict]) {
    let identities = |network: &Network| -> Vec<u64> {
        network.tensors.values().map(|at| dicts[network.dict].identities[*at]).collect()
    };
    let mut seen: BTreeSet<Vec<u64>> = BTreeSet::new();
    networks.retain(|network| seen.insert(identities(network)));
}

/// Removes the known prefixes that all names share, for networks without [`MARKER`]. Returns the prefix, the short names
/// with their index, and the names of averages and counters beside the weights.
pub(super) fn strip_known_prefixes(names: &[String]) -> (String, BTreeMap<String, usize>, Vec<String>) {
    let mut held: Vec<(usize, &str)> = names.iter().map(String::as_str).enumerate().collect();
    let mut leftovers = Vec::new();
    let mut remove = |held: &mut Vec<(usize, &str)>, unwanted: &dyn Fn(&str) -> bool| {
        held.retain(|(_, name)| {
            let unwanted = unwanted(name);
            if unwanted {
                leftovers.push((*name).to_owned());
            }
            !unwanted
        });
    };
    if held.iter().any(|(_, name)| PREFIXES.iter().any(|prefix| name.starts_with(prefix))) {
        remove(&mut held, &|name| COUNTERS.contains(&name));
    }
    if held.iter().any(|(_, name)| name.starts_with("online_model.")) {
        remove(&mut held, &|name| name.starts_with("ema_model."));
    }
    let mut cut = 0;
    let mut prefix = String::new();
    while let Some(shared) = PREFIXES.iter().find(|prefix| {
        // A name equal to the prefix would become empty.
        !held.is_empty()
            && held.iter().all(|(_, name)| {
                let rest = &name[cut..];
                rest.len() > prefix.len() && rest.starts_with(**prefix)
            })
    }) {
        cut += shared.len();
        prefix.push_str(shared);
    }
    (prefix, held.into_iter().map(|(at, name)| (name[cut..].to_owned(), at)).collect(), leftovers)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 4] = [
        "band_split.to_features.0.1.weight",
        "layers.0.0.weight",
        "layers.0.0.rotary_embed.freqs",
        "mask_estimators.0.weight",
    ];

    fn dict(path: &str, names: &[String]) -> TensorDict {
        TensorDict {
            path: path.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect(),
            names: names.to_vec(),
            identities: names
                .iter()
                .enumerate()
                .map(|(i, name)| (path.len() * 1000 + name.len() * 31 + i) as u64)
                .collect(),
        }
    }

    fn with_prefix(prefix: &str) -> Vec<String> {
        NAMES.iter().map(|name| format!("{prefix}{name}")).collect()
    }

    #[test]
    fn prefix_is_whatever_precedes_the_marker() {
        for prefix in ["", "net.", "roformer.", "student.", "model.", "lightning.model.core.", "a.b.c.d."] {
            let choice = choose(&[dict("", &with_prefix(prefix))], None).unwrap().unwrap();
            assert_eq!((choice.prefix.as_str(), choice.tensors.len()), (prefix, 4), "{prefix}");
            assert!(choice.tensors.contains_key(MARKER) && choice.leftovers.is_empty());
        }
    }

    #[test]
    fn modules_inserted_by_wrappers_are_removed() {
        for names in [
            with_prefix("_orig_mod."),
            with_prefix("module._orig_mod.").iter().map(|n| n.replace("module.", "")).collect(),
            vec![
                "band_split._orig_mod.to_features.0.1.weight".to_owned(),
                "layers.0._orig_mod.0.weight".to_owned(),
                "layers.0._fsdp_wrapped_module.0.rotary_embed.freqs".to_owned(),
                "mask_estimators.0.weight".to_owned(),
            ],
        ] {
            let choice = choose(&[dict("", &names)], None).unwrap().unwrap();
            assert_eq!(
                choice.tensors.keys().map(String::as_str).collect::<BTreeSet<_>>(),
                BTreeSet::from(NAMES)
            );
        }
    }

    #[test]
    fn tensors_beside_the_network_are_left_over() {
        let mut names = with_prefix("model.");
        names.extend(["criterion.stft.window".to_owned(), "ema.decay".to_owned()]);
        let choice = choose(&[dict("state_dict", &names)], None).unwrap().unwrap();
        assert_eq!((choice.tensors.len(), choice.prefix.as_str()), (4, "model."));
        assert_eq!(choice.leftovers, ["criterion.stft.window", "ema.decay"]);
        let mut names = with_prefix("");
        names.extend(["loss_fn.window".to_owned(), "shared_qkv_bias".to_owned()]);
        let choice = choose(&[dict("", &names)], None).unwrap().unwrap();
        assert_eq!(choice.leftovers, ["loss_fn.window"]);
        assert!(
            choice.tensors.contains_key("shared_qkv_bias"),
            "an unknown root tensor may be part of a variant"
        );
    }

    #[test]
    fn average_wins_and_user_overrules() {
        let both: Vec<String> =
            with_prefix("ema_model.").into_iter().chain(with_prefix("online_model.")).collect();
        let two = [dict("model", &with_prefix("module.")), dict("ema.shadow", &with_prefix("")[..3])];
        let three = [dict("state_dict", &with_prefix("")), dict("ema", &with_prefix(""))];
        let mut lacks_constant = with_prefix("");
        lacks_constant.remove(2);
        let four = [dict("model", &with_prefix("")), dict("ema", &lacks_constant)];
        for (dicts, first, other, label) in [
            (&[dict("", &both)][..], "ema_model.", "online_model", "online_model"),
            (&three[..], "", "state_dict", "state_dict"),
            (&four[..], "", "model", "model"),
        ] {
            let choice = choose(dicts, None).unwrap().unwrap();
            assert_eq!((choice.prefix.as_str(), &choice.alternatives[..]), (first, &[other.to_owned()][..]));
            let choice = choose(dicts, Some(label)).unwrap().unwrap();
            assert_ne!(choice.alternatives, [other.to_owned()]);
        }
        // An average without a weight is incomplete.
        assert_eq!(choose(&two, None).unwrap().unwrap().dict, 0);
    }

    #[test]
    fn equal_networks_are_refused_with_a_list() {
        let names: Vec<String> = with_prefix("student.").into_iter().chain(with_prefix("teacher.")).collect();
        let dicts = [dict("", &names)];
        let equal = ["student".to_owned(), "teacher".to_owned()].to_vec();
        assert_eq!(choose(&dicts, None).unwrap_err(), ChoiceError::Several(equal.clone()));
        assert_eq!(choose(&dicts, Some("pupil")).unwrap_err(), ChoiceError::Unknown(equal));
        assert_eq!(choose(&dicts, Some("teacher.")).unwrap().unwrap().prefix, "teacher.");
    }

    #[test]
    fn same_tensors_under_two_keys_are_one_network() {
        let mut second = dict("model", &with_prefix(""));
        let first = dict("state_dict", &with_prefix(""));
        second.identities = first.identities.clone();
        let choice = choose(&[first, second], None).unwrap().unwrap();
        assert_eq!((choice.dict, choice.alternatives.len()), (0, 0));
    }
}
