//! The mixer's strips, and which stem of a model each one shows.
//!
//! The number and names of strips are fixed, because a host needs parameters and buses before any model is loaded.

/// Number of strips.
pub const STRIP_COUNT: usize = 6;
/// Names of the strips. The multi-output class names its output buses after them.
pub const STRIP_NAMES: [&str; STRIP_COUNT] = ["Vocals", "Drums", "Bass", "Other", "Guitar", "Piano"];

/// Index of the strip for everything without a strip of its own.
const OTHER: usize = 3;

/// Which strip each stem of a model uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Routing {
    strips: [u8; STRIP_COUNT],
    stems: u8,
}

impl Routing {
    /// No stems.
    pub const NONE: Self = Self { strips: [0; STRIP_COUNT], stems: 0 };

    /// Assigns stems to strips: first by equal names, then by known aliases (`instrumental` goes to Other), then to the first free strips. Stems
    /// after the sixth get none.
    pub fn of(stems: &[String]) -> Self {
        let mut strips: Vec<Option<usize>> = vec![None; stems.len().min(STRIP_COUNT)];
        let mut free = [true; STRIP_COUNT];
        for pass in [by_name, by_alias, |_: &str| None] {
            for (strip, stem) in strips.iter_mut().zip(stems) {
                if strip.is_none()
                    && let Some(found) = pass(stem).filter(|s| free.get(*s) == Some(&true))
                {
                    free[found] = false;
                    *strip = Some(found);
                }
            }
        }
        let mut routing = Self { stems: strips.len() as u8, ..Self::NONE };
        for (to, strip) in routing.strips.iter_mut().zip(strips) {
            let strip = strip.or_else(|| free.iter().position(|free| *free)).unwrap_or(0);
            free[strip] = false;
            *to = strip as u8;
        }
        routing
    }

    /// Number of stems that have a strip.
    pub fn stems(self) -> usize {
        usize::from(self.stems)
    }

    /// The strip of a stem.
    pub fn strip(self, stem: usize) -> Option<usize> {
        (stem < self.stems()).then(|| self.strips.get(stem).map(|strip| usize::from(*strip))).flatten()
    }

    /// The strips of all stems, in the model's order.
    pub fn strips(self) -> Vec<usize> {
        (0..self.stems()).filter_map(|stem| self.strip(stem)).collect()
    }

    /// The stem in a strip.
    pub fn stem(self, strip: usize) -> Option<usize> {
        (0..self.stems()).find(|stem| self.strip(*stem) == Some(strip))
    }

    /// The strip of the stem that takes what the other stems leave, so that they sum to the input: Other if it has a stem, else the last stem's.
    pub fn carrier(self) -> Option<usize> {
        match self.stem(OTHER) {
            Some(_) => Some(OTHER),
            None => self.strip(self.stems().checked_sub(1)?),
        }
    }

    /// Packs the routing into one number, for an atomic.
    pub fn pack(self) -> u64 {
        let [a, b, c, d, e, f] = self.strips;
        u64::from_le_bytes([a, b, c, d, e, f, self.stems, 0])
    }

    /// Reverses [`pack`](Self::pack). Any number gives a valid routing.
    pub fn unpack(bits: u64) -> Self {
        let [a, b, c, d, e, f, stems, _] = bits.to_le_bytes();
        let within = |strip: u8| strip.min(STRIP_COUNT as u8 - 1);
        Self { strips: [a, b, c, d, e, f].map(within), stems: stems.min(STRIP_COUNT as u8) }
    }
}

fn by_name(stem: &str) -> Option<usize> {
    STRIP_NAMES.iter().position(|name| name.eq_ignore_ascii_case(stem))
}

fn by_alias(stem: &str) -> Option<usize> {
    let stem = stem.to_ascii_lowercase();
    if ["instrumental", "instrum", "accompaniment", "residual", "no_vocals", "music"].contains(&stem.as_str())
    {
        Some(OTHER)
    } else if ["vocal", "voice", "lead", "karaoke", "speech"].contains(&stem.as_str()) {
        Some(0)
    } else if stem.starts_with("drum") || stem == "percussion" {
        Some(1)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strips(names: &[&str]) -> Vec<Option<usize>> {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let routing = Routing::unpack(Routing::of(&names).pack());
        (0..names.len()).map(|stem| routing.strip(stem)).collect()
    }

    #[test]
    fn stems_go_to_strips_by_name_then_alias_then_first_free() {
        assert_eq!(strips(&["drums", "bass", "other", "vocals"]), [Some(1), Some(2), Some(3), Some(0)]);
        assert_eq!(strips(&["Vocals", "instrumental"]), [Some(0), Some(3)]);
        assert_eq!(strips(&["noreverb", "vocals", "reverb"]), [Some(1), Some(0), Some(2)]);
        let many: Vec<String> = (0..8).map(|n| format!("stem{n}")).collect();
        let routing = Routing::of(&many);
        assert_eq!(routing.stems(), STRIP_COUNT);
        assert!((0..STRIP_COUNT).all(|strip| routing.stem(strip) == Some(strip)));
        assert_eq!(routing.strip(6), None);
    }

    #[test]
    fn the_carrier_is_other_or_else_the_last_stem() {
        let carrier = |names: &[&str]| {
            Routing::of(&names.iter().map(ToString::to_string).collect::<Vec<_>>()).carrier()
        };
        assert_eq!(carrier(&["drums", "bass", "other", "vocals"]), Some(OTHER));
        assert_eq!(carrier(&["other", "vocals"]), Some(OTHER));
        assert_eq!(carrier(&["instrumental", "vocals"]), Some(OTHER), "an alias of Other");
        assert_eq!(carrier(&["drums", "bass", "vocals"]), Some(0));
        assert_eq!(carrier(&["vocals", "drums"]), Some(1));
        assert_eq!(carrier(&[]), None);
    }

    #[test]
    fn any_number_unpacks_to_existing_strips() {
        let routing = Routing::unpack(u64::MAX);
        assert!(
            (0..routing.stems()).all(|stem| routing.strip(stem).is_some_and(|strip| strip < STRIP_COUNT))
        );
    }
}
