//! What the control thread does next: a pure function of what is wanted, what exists, and what is possible now.

use super::planning::TierPlan;
use crate::live::{Plan, PlanError};

/// State of the selected model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ModelState {
    /// Nothing was loaded yet.
    Absent,
    /// The selection of this generation is being loaded.
    Loading { generation: u64 },
    /// It is loaded.
    Loaded { generation: u64 },
    /// It could not be loaded. The model before it, if any, continues.
    Failed { generation: u64 },
}

impl ModelState {
    /// The generation that was loaded or failed to load.
    pub fn settled_for(self) -> Option<u64> {
        match self {
            Self::Loaded { generation } | Self::Failed { generation } => Some(generation),
            Self::Absent | Self::Loading { .. } => None,
        }
    }
}

/// What the user and the host ask for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Request {
    /// Generation of the selection.
    pub generation: u64,
    /// The user asked for a download.
    pub may_fetch: bool,
    /// Load the selection again, although it was loaded or failed.
    pub reload: bool,
    /// The user asked for a measurement.
    pub measure: bool,
    /// Plan with the latest cost although the latency may change: the user chose a tier, window or model, or confirmed the change.
    pub adopt_cost: bool,
}

/// What exists.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Actual {
    /// The host has activated the plugin.
    pub active: bool,
    pub model: ModelState,
    pub measured: MeasureState,
    pub plan: Option<Plan>,
    /// The plan for which the host was last asked to restart the plugin.
    pub restart_requested: Option<Plan>,
}

/// What is known of the model's cost on this computer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MeasureState {
    Unknown,
    Known,
    /// Known, but in doubt: another measurement is due once nothing else runs.
    Doubtful,
    /// The model cannot be measured, or not now beside the streams that play.
    Impossible,
}

/// Whether the host plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    /// The latency must not change.
    Playing,
    /// The offline render is running. The latency must not change, and a measurement would be wrong.
    Rendering,
    Stopped,
    /// Stopped for a while.
    Idle,
}

/// What is possible now.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Facts {
    pub transport: Transport,
    /// No block came since the last reset.
    pub before_first_block: bool,
    /// The format allows latency changes while the plugin is active.
    pub changes_in_place: bool,
    /// The plan for what is wanted, by the cost that was known when the latency was last set.
    pub planned: Result<TierPlan, PlanError>,
    /// The plan by the latest cost.
    pub planned_by_latest_cost: Result<TierPlan, PlanError>,
}

/// The next thing to do.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "made a few times a second, never stored")]
pub(super) enum Action {
    /// Nothing, until something changes.
    Rest,
    /// Cancel loading a selection that is no longer wanted.
    CancelLoad,
    StartLoad,
    /// Measure the model; `force` ignores a stored measurement.
    Measure {
        force: bool,
    },
    /// Plan with the latest cost from now on.
    AdoptCost,
    /// Show that no plan exists for what is wanted.
    ReportNoPlan(PlanError),
    /// The stream is what is wanted.
    KeepPlan(TierPlan),
    /// The stream is what is wanted, but a better plan exists, for when the transport stops.
    OfferPlan {
        kept: TierPlan,
        offered: TierPlan,
    },
    /// Replace the stream while the plugin is active.
    OpenStream(TierPlan),
    /// Ask the host to restart the plugin, which then opens the stream.
    RequestRestart(Plan),
    /// The host was asked and has not done it yet.
    AwaitRestart,
}

/// As [`decide`], before the host has activated the plugin: only downloads and their loading. `None`: nothing to do.
pub(super) fn decide_before_activation(request: &Request, actual: &Actual) -> Option<Action> {
    decide_load(request, actual)
}

pub(super) fn decide(request: &Request, actual: &Actual, facts: &Facts) -> Action {
    if let Some(action) = decide_load(request, actual) {
        return action;
    }
    if !actual.active {
        return Action::Rest;
    }
    let plan = decide_plan(request, actual, facts);
    match decide_measurement(request, actual, facts) {
        // A choice of the user comes before a second measurement.
        Some(_) if actual.measured == MeasureState::Doubtful && !request.measure && plan.is_change() => plan,
        Some(measurement) => measurement,
        None => plan,
    }
}

impl Action {
    /// Whether it leads to another stream.
    fn is_change(&self) -> bool {
        matches!(self, Self::AdoptCost | Self::OpenStream(_) | Self::RequestRestart(_))
    }
}

/// Model first: plans depend on it.
fn decide_load(request: &Request, actual: &Actual) -> Option<Action> {
    // Before the first activation nothing is planned, but a model may be downloaded.
    let may_load = actual.active || request.may_fetch;
    match actual.model {
        ModelState::Loading { generation } if generation != request.generation || request.reload => {
            Some(Action::CancelLoad)
        }
        ModelState::Loading { .. } => Some(Action::Rest),
        settled if settled.settled_for() != Some(request.generation) || request.reload => {
            Some(if may_load { Action::StartLoad } else { Action::Rest })
        }
        _ => None,
    }
}

fn decide_measurement(request: &Request, actual: &Actual, facts: &Facts) -> Option<Action> {
    let loaded = matches!(actual.model, ModelState::Loaded { .. });
    if !loaded || facts.transport == Transport::Rendering {
        return None;
    }
    match (actual.measured, facts.transport) {
        _ if request.measure => Some(Action::Measure { force: true }),
        // Without any measurement Auto cannot choose, so it does not wait for silence.
        (MeasureState::Unknown, _) => Some(Action::Measure { force: false }),
        (MeasureState::Doubtful, Transport::Idle) => Some(Action::Measure { force: true }),
        _ => None,
    }
}

fn decide_plan(request: &Request, actual: &Actual, facts: &Facts) -> Action {
    let differs = facts.planned != facts.planned_by_latest_cost;
    let may_change = matches!(facts.transport, Transport::Stopped | Transport::Idle);
    if differs && (request.adopt_cost || may_change) {
        return Action::AdoptCost;
    }
    let (tier, plan) = match &facts.planned {
        Ok(planned) => planned.clone(),
        Err(error) => return Action::ReportNoPlan(error.clone()),
    };
    if actual.plan.as_ref() == Some(&plan) {
        return match &facts.planned_by_latest_cost {
            Ok(offered) if offered.1 != plan => {
                Action::OfferPlan { kept: (tier, plan), offered: offered.clone() }
            }
            _ => Action::KeepPlan((tier, plan)),
        };
    }
    if facts.transport == Transport::Rendering && !facts.before_first_block {
        return Action::Rest;
    }
    if facts.changes_in_place {
        Action::OpenStream((tier, plan))
    } else if actual.restart_requested.as_ref() == Some(&plan) {
        Action::AwaitRestart
    } else {
        Action::RequestRestart(plan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::{HostSamples, ModelSamples, ModelTiming, Tier};

    fn planned(tier: Tier) -> TierPlan {
        let [chunk, frame_hop, frame] = [65_536, 1024, 2048].map(ModelSamples);
        let model = ModelTiming { rate: 44_100, chunk, frame_hop, frame, context: None };
        (Some(tier), Plan::new(tier.request(&model, 48_000, HostSamples(512))).unwrap())
    }

    const REQUEST: Request =
        Request { generation: 3, may_fetch: false, reload: false, measure: false, adopt_cost: false };

    fn actual(model: ModelState) -> Actual {
        Actual {
            active: true,
            model,
            measured: MeasureState::Known,
            plan: Some(planned(Tier::Low).1),
            restart_requested: None,
        }
    }

    fn loaded() -> Actual {
        actual(ModelState::Loaded { generation: 3 })
    }

    fn facts(transport: Transport) -> Facts {
        Facts {
            transport,
            before_first_block: false,
            changes_in_place: true,
            planned: Ok(planned(Tier::Low)),
            planned_by_latest_cost: Ok(planned(Tier::Low)),
        }
    }

    const TRANSPORTS: [Transport; 4] =
        [Transport::Playing, Transport::Rendering, Transport::Stopped, Transport::Idle];

    #[test]
    fn loading_by_model_state() {
        let loading = |generation| ModelState::Loading { generation };
        let done = |generation| ModelState::Loaded { generation };
        let failed = |generation| ModelState::Failed { generation };
        let reload = Request { reload: true, ..REQUEST };
        // Model state, request, active: the action, `None` for any that is not about loading.
        let table = [
            (ModelState::Absent, REQUEST, true, Some(Action::StartLoad)),
            (ModelState::Absent, REQUEST, false, Some(Action::Rest)),
            (ModelState::Absent, Request { may_fetch: true, ..REQUEST }, false, Some(Action::StartLoad)),
            (loading(3), REQUEST, true, Some(Action::Rest)),
            (loading(2), REQUEST, true, Some(Action::CancelLoad)),
            (loading(2), REQUEST, false, Some(Action::CancelLoad)),
            (loading(3), reload, true, Some(Action::CancelLoad)),
            (done(2), REQUEST, true, Some(Action::StartLoad)),
            (done(3), REQUEST, true, None),
            (done(3), reload, true, Some(Action::StartLoad)),
            (failed(3), REQUEST, true, None),
            (failed(3), reload, true, Some(Action::StartLoad)),
            (failed(2), REQUEST, true, Some(Action::StartLoad)),
            (done(3), REQUEST, false, Some(Action::Rest)),
        ];
        for (model, request, active, expected) in table {
            for transport in TRANSPORTS {
                let action = decide(&request, &Actual { active, ..actual(model) }, &facts(transport));
                let about_loading =
                    matches!(action, Action::StartLoad | Action::CancelLoad | Action::Rest).then_some(action);
                assert_eq!(about_loading, expected, "{model:?} {request:?} {active}");
            }
        }
    }

    #[test]
    fn measuring_by_state_and_transport() {
        use MeasureState::*;
        use Transport::*;
        let asked = Request { measure: true, ..REQUEST };
        let (force, first) = (Action::Measure { force: true }, Action::Measure { force: false });
        let table = [
            (Unknown, REQUEST, Playing, Some(&first)),
            (Unknown, REQUEST, Rendering, None),
            (Unknown, REQUEST, Stopped, Some(&first)),
            (Known, REQUEST, Idle, None),
            (Doubtful, REQUEST, Playing, None),
            (Doubtful, REQUEST, Stopped, None),
            (Doubtful, REQUEST, Idle, Some(&force)),
            (Known, asked, Playing, Some(&force)),
            (Known, asked, Rendering, None),
            (Impossible, REQUEST, Idle, None),
            (Impossible, asked, Idle, Some(&force)),
        ];
        let another = Facts { planned: Ok(planned(Tier::High)), ..facts(Idle) };
        let doubtful = Actual { measured: Doubtful, ..loaded() };
        let chosen = decide(&Request { adopt_cost: true, ..REQUEST }, &doubtful, &another);
        assert!(chosen.is_change(), "the user's choice first: {chosen:?}");
        for (measured, request, transport, expected) in table {
            let action = decide(&request, &Actual { measured, ..loaded() }, &facts(transport));
            let measures = matches!(action, Action::Measure { .. }).then_some(&action);
            assert_eq!(measures, expected, "{measured:?} {transport:?}");
        }
        let failed = Actual { measured: Unknown, ..actual(ModelState::Failed { generation: 3 }) };
        assert!(!matches!(decide(&asked, &failed, &facts(Idle)), Action::Measure { .. }));
    }

    #[test]
    fn a_better_plan_waits_until_the_transport_stops() {
        let better =
            |transport| Facts { planned_by_latest_cost: Ok(planned(Tier::High)), ..facts(transport) };
        let offer = Action::OfferPlan { kept: planned(Tier::Low), offered: planned(Tier::High) };
        for (transport, expected) in [
            (Transport::Playing, &offer),
            (Transport::Rendering, &offer),
            (Transport::Stopped, &Action::AdoptCost),
            (Transport::Idle, &Action::AdoptCost),
        ] {
            assert_eq!(decide(&REQUEST, &loaded(), &better(transport)), *expected, "{transport:?}");
            let confirmed = Request { adopt_cost: true, ..REQUEST };
            assert_eq!(decide(&confirmed, &loaded(), &better(transport)), Action::AdoptCost);
        }
    }

    #[test]
    fn another_plan_by_format_and_transport() {
        let other = planned(Tier::High);
        let wanted = |transport, before_first_block, changes_in_place| Facts {
            before_first_block,
            changes_in_place,
            planned: Ok(other.clone()),
            planned_by_latest_cost: Ok(other.clone()),
            ..facts(transport)
        };
        let open = Action::OpenStream(other.clone());
        let restart = Action::RequestRestart(other.1.clone());
        for transport in [Transport::Playing, Transport::Stopped, Transport::Idle] {
            assert_eq!(decide(&REQUEST, &loaded(), &wanted(transport, false, true)), open);
            assert_eq!(decide(&REQUEST, &loaded(), &wanted(transport, false, false)), restart);
        }
        let rendering =
            |before, in_place| decide(&REQUEST, &loaded(), &wanted(Transport::Rendering, before, in_place));
        assert_eq!(rendering(false, true), Action::Rest, "the latency of a render must not change");
        assert_eq!(rendering(false, false), Action::Rest);
        assert_eq!(rendering(true, true), open);
        assert_eq!(rendering(true, false), restart);
        let asked = Actual { restart_requested: Some(other.1.clone()), ..loaded() };
        assert_eq!(decide(&REQUEST, &asked, &wanted(Transport::Playing, false, false)), Action::AwaitRestart);
    }

    #[test]
    fn the_right_plan_is_kept_and_a_missing_one_reported() {
        for transport in TRANSPORTS {
            let kept = decide(&REQUEST, &loaded(), &facts(transport));
            assert_eq!(kept, Action::KeepPlan(planned(Tier::Low)), "{transport:?}");
            let none = || Err(PlanError::Hop);
            let facts = Facts { planned: none(), planned_by_latest_cost: none(), ..facts(transport) };
            assert!(matches!(decide(&REQUEST, &loaded(), &facts), Action::ReportNoPlan(_)));
        }
    }
}
