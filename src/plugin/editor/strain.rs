//! Whether the model keeps up with the music, and what to say where it does not.

use super::text;
use crate::plugin::session::{ModelView, TierView, View};
use crate::stream::Tier;
use crate::stream::plan::{SUSTAINABLE_LOAD, Shape};

/// Time within which two late windows are no accident, in seconds.
const TOGETHER: f64 = 10.0;

/// How it does not keep up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Strain {
    /// It takes so many times as long as the music.
    Beyond(f64),
    /// It takes so large a share of real time that a busy machine makes it late.
    Tight(f64),
    /// Its windows keep coming late, whatever was measured.
    Late,
}

impl Strain {
    /// Of the model that plays, in the tier or in a window set by hand. `late`: whether windows keep coming late.
    pub fn of(view: &View, by_hand: Option<Shape>, late: bool) -> Option<Self> {
        // A render waits.
        if view.renders || !matches!(view.model, ModelView::Ready { .. }) {
            return None;
        }
        match (load(view, by_hand), late) {
            (Some(load), _) if load > 1.0 => Some(Self::Beyond(load)),
            (_, true) => Some(Self::Late),
            (Some(load), false) if load > SUSTAINABLE_LOAD => Some(Self::Tight(load)),
            _ => None,
        }
    }

    /// For the status line.
    pub fn words(self) -> String {
        match self {
            Self::Beyond(load) => {
                format!("Too slow to play live: the model needs {load:.1} times real time")
            }
            Self::Tight(load) => {
                format!("The model takes {} of real time: windows may come late", text::percent(load))
            }
            Self::Late => "Windows keep coming late: the input is heard in their place".into(),
        }
    }

    /// For a line of its own, where stems are hardly to be heard.
    pub fn banner(self, view: &View) -> Option<String> {
        let Self::Beyond(load) = self else { return None };
        let needs = format!("needs {load:.1} times real time on this computer. Live you hear the input");
        Some(match sustained(view) {
            Some(tier) => format!("At this latency the model {needs}; choose {}.", text::tier(tier)),
            None => {
                format!("This model {needs}; bounce with Render: Offline, or choose a smaller model.")
            }
        })
    }
}

/// Share of real time that is expected of what runs.
fn load(view: &View, by_hand: Option<Shape>) -> Option<f64> {
    match by_hand {
        Some(shape) => view.facts.as_ref()?.of_window(shape)?.1,
        None => view.tiers.iter().find(|found| Some(found.tier) == view.tier)?.load,
    }
}

/// The tier of least latency that keeps up.
pub fn sustained(view: &View) -> Option<Tier> {
    let keeps_up = |found: &&TierView| found.load.is_some_and(|load| load <= SUSTAINABLE_LOAD);
    view.tiers.iter().find(keeps_up).map(|found| found.tier)
}

/// Watches windows that come late.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lates {
    /// Of the stream; none before the first look.
    count: Option<u64>,
    /// When more were seen the last two times, the earlier first.
    seen: [Option<f64>; 2],
}

impl Lates {
    /// Takes a stream's count, `now` in seconds. One that is less than before is another stream's.
    pub fn feed(&mut self, count: u64, now: f64) {
        match self.count.replace(count) {
            Some(before) if count > before => self.seen = [self.seen[1], Some(now)],
            Some(before) if count < before => self.seen = [None; 2],
            _ => {}
        }
    }

    /// Whether they keep coming.
    pub fn keep_coming(&self, now: f64) -> bool {
        self.seen[0].is_some_and(|at| (0.0..TOGETHER).contains(&(now - at)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::plan::{Measured, ModelSamples, ModelTiming};

    #[test]
    fn it_sustains_what_auto_would_take() {
        let timing = ModelTiming {
            rate: 44_100,
            chunk: ModelSamples(352_800),
            frame_hop: ModelSamples(441),
            frame: ModelSamples(2_048),
        };
        let second = Measured { window: ModelSamples(44_100), seconds: 1.0 };
        for share in [0.99, 1.01] {
            let seconds = share * SUSTAINABLE_LOAD / Tier::High.load(&timing, second);
            let choice = Tier::auto(&timing, Measured { seconds, ..second });
            assert_eq!(choice.sustainable, share < 1.0, "{choice:?}");
        }
    }

    fn view(loads: [f64; 3]) -> View {
        let tiers = Tier::ALL.into_iter().zip(loads).map(|(tier, load)| TierView {
            tier,
            latency_ms: 500.0,
            load: Some(load),
        });
        let model = ModelView::Ready { runs_on: String::new(), stems: Vec::new(), licence: None };
        View { model, tier: Some(Tier::Balanced), tiers: tiers.collect(), ..View::default() }
    }

    #[test]
    fn a_model_that_is_too_much_is_named_with_the_way_out_that_there_is() {
        let hopeless = view([9.0, 3.94, 1.5]);
        let strain = Strain::of(&hopeless, None, true).unwrap();
        assert_eq!(strain, Strain::Beyond(3.94));
        assert!(strain.banner(&hopeless).unwrap().starts_with("This model needs 3.9 times real time"));
        let high_does = view([9.0, 2.0, 0.4]);
        let words = Strain::of(&high_does, None, false).and_then(|strain| strain.banner(&high_does)).unwrap();
        assert!(words.ends_with("choose High."), "{words}");
        let renders = View { renders: true, ..hopeless.clone() };
        assert_eq!(Strain::of(&renders, None, true), None);
        assert_eq!(Strain::of(&View { model: ModelView::Measuring, ..hopeless }, None, true), None);
    }

    #[test]
    fn a_model_that_just_keeps_up_is_in_the_status_line_alone() {
        let tight = view([2.0, 0.8, 0.4]);
        let strain = Strain::of(&tight, None, false).unwrap();
        assert_eq!((strain, strain.banner(&tight)), (Strain::Tight(0.8), None));
        assert_eq!(Strain::of(&tight, None, true), Some(Strain::Late));
        assert_eq!(Strain::of(&view([2.0, SUSTAINABLE_LOAD, 0.4]), None, false), None);
        assert_eq!(Strain::of(&View { tier: None, ..tight }, None, false), None);
    }

    #[test]
    fn one_late_window_is_an_accident_and_two_are_not() {
        let mut lates = Lates::default();
        // Some came before the editor was opened.
        for (count, now, keep) in [
            (7, 0.0, false),
            (8, 1.0, false),
            (8, 2.0, false),
            (9, 3.0, true),
            (9, 10.9, true),
            (9, 11.1, false),
        ] {
            lates.feed(count, now);
            assert_eq!(lates.keep_coming(now), keep, "{count} at {now}");
        }
        for (count, now, keep) in [(10, 12.0, true), (0, 12.5, false), (1, 13.0, false)] {
            lates.feed(count, now);
            assert_eq!(lates.keep_coming(now), keep, "{count} at {now}");
        }
    }
}
