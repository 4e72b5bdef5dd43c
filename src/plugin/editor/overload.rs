//! Detects that the model is too slow for real time, and says so.

use super::text;
use crate::live::Tier;
use crate::live::plan::{SUSTAINABLE_LOAD, WindowSpec};
use crate::plugin::instance_shared::{ModelView, TierView, View};

/// Two late windows within this time count as a problem, in seconds.
const RECENT_SECONDS: f64 = 10.0;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Overload {
    /// The real-time factor is above 1.
    TooSlow(f64),
    /// The real-time factor is so close to 1 that other programs can make windows late.
    NearLimit(f64),
    /// Windows keep coming late, whatever was measured.
    Dropouts,
}

impl Overload {
    /// `custom_window` replaces the tier if set. `late`: whether windows keep coming late.
    pub fn detect(view: &View, custom_window: Option<WindowSpec>, late: bool) -> Option<Self> {
        // An offline render waits for the model.
        if view.offline || !matches!(view.model, ModelView::Ready { .. }) {
            return None;
        }
        match (expected_load(view, custom_window), late) {
            (Some(load), _) if load > 1.0 => Some(Self::TooSlow(load)),
            (_, true) => Some(Self::Dropouts),
            (Some(load), false) if load > SUSTAINABLE_LOAD => Some(Self::NearLimit(load)),
            _ => None,
        }
    }

    pub fn status_text(self) -> String {
        match self {
            Self::TooSlow(load) => {
                format!("Too slow to play live: the model runs at {load:.1} times real time")
            }
            Self::NearLimit(load) => {
                format!("The model uses {} of real time: windows may be late", text::percent(load))
            }
            Self::Dropouts => "Windows keep coming late: the dry signal plays instead".into(),
        }
    }

    /// Text for the banner, if stems can hardly be heard.
    pub fn banner_text(self, view: &View) -> Option<String> {
        let Self::TooSlow(load) = self else { return None };
        let problem = format!("needs {load:.1} times real time on this computer, so you hear the dry signal");
        Some(match lowest_sustainable_tier(view) {
            Some(tier) => {
                format!("At this latency the model {problem}. Choose the tier {}.", text::tier(tier))
            }
            None => {
                format!("This model {problem}. Bounce with Render set to Offline, or choose a smaller model.")
            }
        })
    }
}

/// Expected real-time factor of the running stream.
fn expected_load(view: &View, custom_window: Option<WindowSpec>) -> Option<f64> {
    match custom_window {
        Some(shape) => view.plan_inputs.as_ref()?.of_window(shape)?.1,
        None => view.tiers.iter().find(|found| Some(found.tier) == view.tier)?.load,
    }
}

/// The tier with the lowest latency that keeps up.
pub fn lowest_sustainable_tier(view: &View) -> Option<Tier> {
    let keeps_up = |found: &&TierView| found.load.is_some_and(|load| load <= SUSTAINABLE_LOAD);
    view.tiers.iter().find(keeps_up).map(|found| found.tier)
}

#[derive(Clone, Copy, Debug, Default)]
pub struct LateWindowMonitor {
    /// Late windows of the stream at the last update.
    count: Option<u64>,
    /// Times of the last two increases, the earlier first.
    last_two: [Option<f64>; 2],
}

impl LateWindowMonitor {
    /// `count` is the stream's number of late windows, `now` the time in seconds. A lower count means that a new stream has started.
    pub fn update(&mut self, count: u64, now: f64) {
        match self.count.replace(count) {
            Some(before) if count > before => self.last_two = [self.last_two[1], Some(now)],
            Some(before) if count < before => self.last_two = [None; 2],
            _ => {}
        }
    }

    pub fn is_persistent(&self, now: f64) -> bool {
        self.last_two[0].is_some_and(|at| (0.0..RECENT_SECONDS).contains(&(now - at)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::plan::{MeasuredCost, ModelSamples, ModelTiming};

    #[test]
    fn sustainable_means_what_auto_would_choose() {
        let timing = ModelTiming {
            rate: 44_100,
            chunk: ModelSamples(352_800),
            frame_hop: ModelSamples(441),
            frame: ModelSamples(2_048),
            context: None,
        };
        let second = MeasuredCost { window: ModelSamples(44_100), seconds: 1.0, per_hop: 0.0 };
        for share in [0.99, 1.01] {
            let seconds = share * SUSTAINABLE_LOAD / Tier::High.load(&timing, second);
            let choice = Tier::auto(&timing, MeasuredCost { seconds, ..second });
            assert_eq!(choice.sustainable, share < 1.0, "{choice:?}");
        }
    }

    fn view(loads: [f64; 3]) -> View {
        let tiers = Tier::ALL.into_iter().skip(1).zip(loads).map(|(tier, load)| TierView {
            tier,
            latency_ms: 500.0,
            load: Some(load),
        });
        let model = ModelView::Ready { runs_on: String::new(), stems: Vec::new(), licence: None };
        View { model, tier: Some(Tier::Balanced), tiers: tiers.collect(), ..View::default() }
    }

    #[test]
    fn a_model_that_is_too_slow_is_reported_with_a_remedy() {
        let hopeless = view([9.0, 3.94, 1.5]);
        let overload = Overload::detect(&hopeless, None, true).unwrap();
        assert_eq!(overload, Overload::TooSlow(3.94));
        assert!(overload.banner_text(&hopeless).unwrap().starts_with("This model needs 3.9 times real time"));
        let high_does = view([9.0, 2.0, 0.4]);
        let label = Overload::detect(&high_does, None, false)
            .and_then(|overload| overload.banner_text(&high_does))
            .unwrap();
        assert!(label.ends_with("Choose the tier High."), "{label}");
        let offline = View { offline: true, ..hopeless.clone() };
        assert_eq!(Overload::detect(&offline, None, true), None);
        assert_eq!(Overload::detect(&View { model: ModelView::Measuring, ..hopeless }, None, true), None);
    }

    #[test]
    fn a_model_near_the_limit_is_reported_in_the_status_line_only() {
        let tight = view([2.0, 0.8, 0.4]);
        let overload = Overload::detect(&tight, None, false).unwrap();
        assert_eq!((overload, overload.banner_text(&tight)), (Overload::NearLimit(0.8), None));
        assert_eq!(Overload::detect(&tight, None, true), Some(Overload::Dropouts));
        assert_eq!(Overload::detect(&view([2.0, SUSTAINABLE_LOAD, 0.4]), None, false), None);
        assert_eq!(Overload::detect(&View { tier: None, ..tight }, None, false), None);
    }

    #[test]
    fn two_late_windows_in_a_row_are_persistent() {
        let mut late_windows = LateWindowMonitor::default();
        // Some came before the editor was opened.
        for (count, now, keep) in [
            (7, 0.0, false),
            (8, 1.0, false),
            (8, 2.0, false),
            (9, 3.0, true),
            (9, 10.9, true),
            (9, 11.1, false),
        ] {
            late_windows.update(count, now);
            assert_eq!(late_windows.is_persistent(now), keep, "{count} at {now}");
        }
        for (count, now, keep) in [(10, 12.0, true), (0, 12.5, false), (1, 13.0, false)] {
            late_windows.update(count, now);
            assert_eq!(late_windows.is_persistent(now), keep, "{count} at {now}");
        }
    }
}
