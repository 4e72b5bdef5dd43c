//! The strips of the mixer: a fixed number of slots with stable names, since a host must know parameters and buses before any model is loaded.

/// Number of slots.
pub const SLOTS: usize = 6;
/// Names of the slots: of their parameters and of the output buses of the multi-output class.
pub const NAMES: [&str; SLOTS] = ["Vocals", "Drums", "Bass", "Other", "Guitar", "Piano"];

/// Which slot each stem of a model uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Routing {
    slots: [u8; SLOTS],
    stems: u8,
}

impl Routing {
    /// No stems.
    pub const NONE: Self = Self { slots: [0; SLOTS], stems: 0 };

    /// Stems whose name is a slot's go there, `instrumental` and the like to Other, the rest to the first free slots. Stems beyond the
    /// sixth have none.
    pub fn of(stems: &[String]) -> Self {
        let mut slots: Vec<Option<usize>> = vec![None; stems.len().min(SLOTS)];
        let mut free = [true; SLOTS];
        for pass in [by_name, by_kin, |_: &str| None] {
            for (slot, stem) in slots.iter_mut().zip(stems) {
                if slot.is_none()
                    && let Some(found) = pass(stem).filter(|s| free.get(*s) == Some(&true))
                {
                    free[found] = false;
                    *slot = Some(found);
                }
            }
        }
        let mut routing = Self { stems: slots.len() as u8, ..Self::NONE };
        for (to, slot) in routing.slots.iter_mut().zip(slots) {
            let slot = slot.or_else(|| free.iter().position(|free| *free)).unwrap_or(0);
            free[slot] = false;
            *to = slot as u8;
        }
        routing
    }

    /// Number of stems that have a slot.
    pub fn stems(self) -> usize {
        usize::from(self.stems)
    }

    /// The slot of a stem.
    pub fn slot(self, stem: usize) -> Option<usize> {
        (stem < self.stems()).then(|| self.slots.get(stem).map(|slot| usize::from(*slot))).flatten()
    }

    /// The slots of all stems, in the model's order.
    pub fn slots(self) -> Vec<usize> {
        (0..self.stems()).filter_map(|stem| self.slot(stem)).collect()
    }

    /// The stem in a slot.
    pub fn stem(self, slot: usize) -> Option<usize> {
        (0..self.stems()).find(|stem| self.slot(*stem) == Some(slot))
    }

    /// As a number, for an atomic.
    pub fn pack(self) -> u64 {
        let [a, b, c, d, e, f] = self.slots;
        u64::from_le_bytes([a, b, c, d, e, f, self.stems, 0])
    }

    /// From [`pack`](Self::pack).
    pub fn unpack(bits: u64) -> Self {
        let [a, b, c, d, e, f, stems, _] = bits.to_le_bytes();
        let within = |slot: u8| slot.min(SLOTS as u8 - 1);
        Self { slots: [a, b, c, d, e, f].map(within), stems: stems.min(SLOTS as u8) }
    }
}

fn by_name(stem: &str) -> Option<usize> {
    NAMES.iter().position(|name| name.eq_ignore_ascii_case(stem))
}

fn by_kin(stem: &str) -> Option<usize> {
    let stem = stem.to_ascii_lowercase();
    if ["instrumental", "instrum", "accompaniment", "residual", "no_vocals", "music"].contains(&stem.as_str())
    {
        Some(3)
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

    fn slots(names: &[&str]) -> Vec<Option<usize>> {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let routing = Routing::unpack(Routing::of(&names).pack());
        (0..names.len()).map(|stem| routing.slot(stem)).collect()
    }

    #[test]
    fn stems_go_to_the_slot_of_their_name_and_strangers_to_what_is_free() {
        assert_eq!(slots(&["drums", "bass", "other", "vocals"]), [Some(1), Some(2), Some(3), Some(0)]);
        assert_eq!(slots(&["Vocals", "instrumental"]), [Some(0), Some(3)]);
        assert_eq!(slots(&["noreverb", "vocals", "reverb"]), [Some(1), Some(0), Some(2)]);
        let many: Vec<String> = (0..8).map(|n| format!("stem{n}")).collect();
        let routing = Routing::of(&many);
        assert_eq!(routing.stems(), SLOTS);
        assert!((0..SLOTS).all(|slot| routing.stem(slot) == Some(slot)));
        assert_eq!(routing.slot(6), None);
    }

    #[test]
    fn any_number_unpacks_to_slots_that_exist() {
        let routing = Routing::unpack(u64::MAX);
        assert!((0..routing.stems()).all(|stem| routing.slot(stem).is_some_and(|slot| slot < SLOTS)));
    }
}
