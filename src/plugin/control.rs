//! The control thread of an instance: makes what there is what is wanted. It loads models, measures the device, and opens streams; the audio
//! thread and the host's threads never do.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nice_plug::prelude::PluginApi;

use super::calibration;
use super::library::{self, Loaded, OpenError};
use super::params::{Lossless, TierChoice};
use super::selection::{Known, Selection, Source};
use super::session::{Command, Host, Live, ModelView, Owner, Session, TierView, changes_in_place};
use super::slot::{Routing, SLOTS};
use crate::embedded;
use crate::model::config::Config;
use crate::separator::{MaskRule, ModelInfo};
use crate::stream::{HostSamples, Plan, PlanError, Scheduler, Stream, Tier, plan};

/// Between two looks at parameters, which nobody may announce from the audio thread.
const POLL: Duration = Duration::from_millis(100);

/// What the control thread knows that nobody else must.
#[derive(Default)]
struct Control {
    /// Tier that was last wanted.
    tier: Option<TierChoice>,
    /// Selection that was last loaded, or failed to.
    loaded: Option<u64>,
    measured: Option<plan::Measured>,
    /// What the host was last asked to start anew for: a host that does not is not asked ten times a second.
    asked_for: Option<Plan>,
}

/// The thread.
pub(super) fn run(session: &Arc<Session>) {
    let mut control = Control::default();
    let mut may_fetch = false;
    while !session.is_stopping() {
        match session.commands().recv_timeout(POLL) {
            Ok(Command::Fetch) => (may_fetch, control.loaded) = (true, None),
            Ok(Command::Retry) => control.loaded = None,
            Ok(Command::Calibrate) => {
                control.calibrate(session);
                session.owner.lock().measured = control.measured;
            }
            Ok(Command::Look) | Err(_) => {}
        }
        while session.retired.pop().is_some() {}
        let step = catch_unwind(AssertUnwindSafe(|| control.settle(session, may_fetch)));
        if step.is_err() {
            // A defect of ours: the sound goes on without stems, and the user may choose another model.
            control.loaded = Some(session.params.model.generation());
            session.show(|view| {
                view.model = ModelView::Failed(OpenError::Broken {
                    reason: "the model could not be loaded: internal error".into(),
                    report: None,
                });
            });
        }
        may_fetch = false;
    }
}

impl Control {
    fn settle(&mut self, session: &Arc<Session>, may_fetch: bool) {
        let wanted = session.wanted();
        // Before the first activation there is nothing to plan for, but a model may already be fetched.
        let active = session.owner.lock().host.is_some();
        if self.loaded != Some(wanted.1) && (active || may_fetch) {
            self.load(session, wanted.1, may_fetch);
        }
        if active {
            if self.tier.replace(wanted.0).is_some_and(|tier| tier != wanted.0) {
                // Whoever chooses a tier, chooses by what is shown now.
                session.owner.lock().measured = self.measured;
            }
            self.plan(session);
            // Loaded for what was wanted then; whatever is wanted since comes next.
            if self.loaded == Some(wanted.1) {
                session.set_settled(wanted);
            }
        }
        self.show(session);
    }

    fn load(&mut self, session: &Arc<Session>, generation: u64, may_fetch: bool) {
        session.show(|view| view.model = ModelView::Loading(None));
        let selection = session.params.model.get();
        let mut on_step = |step| {
            session.show(|view| view.model = ModelView::Loading(Some(step)));
            let stale = session.is_stopping() || session.params.model.generation() != generation;
            if stale { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let opened = library::open(&selection, may_fetch, &mut on_step);
        if session.is_stopping() {
            return;
        }
        self.loaded = Some(generation);
        self.measured = None;
        let view = match opened {
            Ok(loaded) => {
                session.params.model.learn(generation, |selection| learn(selection, &loaded));
                self.measured = calibration::remembered(&loaded.sha256);
                let view = ModelView::Ready {
                    runs_on: loaded.model.runs_on().into(),
                    stems: loaded.known.stems.clone(),
                    licence: loaded.licence.clone(),
                };
                let renders = is_rendering(session);
                session.owner.lock().model = Some(loaded);
                // While it renders, the latency must stay what it is, and the measurement would be wrong anyway.
                if self.measured.is_none() && !renders {
                    self.calibrate(session);
                }
                view
            }
            Err(error) => {
                session.owner.lock().model = None;
                ModelView::Failed(error)
            }
        };
        session.show(|shown| shown.model = view);
        let mut owner = session.owner.lock();
        // What was measured since an activation counts from the next on: the latency changes under way only where the user has asked for
        // another model, or where nothing is to be kept in time with it.
        if owner.planned_for != Some(generation)
            || owner.host.is_some_and(|host| host.api == PluginApi::Standalone)
        {
            owner.measured = self.measured;
        }
        put_in(session, &mut owner);
    }

    fn calibrate(&mut self, session: &Session) {
        let Some(model) = session.owner.lock().model.clone() else { return };
        let before = session.view().model;
        session.show(|view| view.model = ModelView::Measuring);
        self.measured = calibration::calibrate(&model).ok();
        session.show(|view| view.model = before);
    }

    /// Opens a new stream where the one there is is not what is wanted.
    fn plan(&mut self, session: &Arc<Session>) {
        let renders = is_rendering(session);
        let mut owner = session.owner.lock();
        let Some(host) = owner.host else { return };
        let (tier, plan) = match wanted_plan(session, &owner, host) {
            Ok(found) => found,
            Err(error) => {
                session.show(|view| view.model = ModelView::Unplanned(error.to_string()));
                return;
            }
        };
        if owner.plan.as_ref() == Some(&plan) {
            owner.tier = Some(tier);
            self.asked_for = None;
            session.show(|view| view.restart_pending = false);
            return;
        }
        // The latency of a render must not change under way.
        if renders && !session.fresh.load(Relaxed) {
            return;
        }
        if changes_in_place(host.api) {
            if let Some(live) = open(session, &mut owner, host, tier, plan) {
                // The one that was not fetched yet is void.
                let _ = session.handoff.force_push(Box::new(live));
            }
        } else {
            if self.asked_for.as_ref() != Some(&plan) {
                session.want_restart();
                self.asked_for = Some(plan);
            }
            session.show(|view| view.restart_pending = true);
        }
    }

    fn show(&self, session: &Session) {
        let owner = session.owner.lock();
        let Some(host) = owner.host else { return };
        let timing = known(session, &owner).timing();
        let tiers = Tier::ALL
            .into_iter()
            .filter_map(|tier| {
                let plan = Plan::new(tier.request(&timing, host.rate, block(host))).ok()?;
                let load = self.measured.map(|measured| tier.load(&timing, measured));
                Some(TierView { tier, latency_ms: plan.latency_ms(), load })
            })
            .collect();
        let rule = match session.params.lossless.value() {
            Lossless::Spectral => MaskRule::Complete,
            Lossless::Off => MaskRule::Plain,
        };
        if let Some(stream) = &owner.stream {
            stream.set_rule(rule);
        }
        session.show(|view| {
            view.tiers = tiers;
            view.tier = owner.tier;
            view.host_rate = host.rate;
            view.latency_ms = owner.plan.as_ref().map_or(0.0, Plan::latency_ms);
            view.renders = session.renders.load(Relaxed);
            view.routing = Some(session.routing());
            view.status = owner.stream.as_ref().map(Stream::status);
        });
    }
}

/// Opens the stream of an instance that is being activated, for what is known now.
///
/// # Errors
/// [`PlanError`]: the host's rate or block has no plan.
pub(super) fn activate(session: &Arc<Session>, host: Host) -> Result<Option<Live>, PlanError> {
    let mut owner = session.owner.lock();
    owner.host = Some(host);
    owner.measured = identity(session, &owner).and_then(|sha256| calibration::remembered(&sha256));
    owner.planned_for = Some(session.params.model.generation());
    let (tier, plan) = match wanted_plan(session, &owner, host) {
        Ok(found) => found,
        Err(error) => {
            (owner.stream, owner.plan) = (None, None);
            return Err(error);
        }
    };
    Ok(open(session, &mut owner, host, tier, plan))
}

fn open(session: &Session, owner: &mut Owner, host: Host, tier: Tier, plan: Plan) -> Option<Live> {
    let scheduler = Scheduler::of_process().ok()?;
    let (client, stream) = Stream::open(&plan, SLOTS, host.channels, &scheduler);
    let latency = u32::try_from(plan.latency().0).unwrap_or(u32::MAX);
    owner.stream = Some(stream);
    owner.plan = Some(plan);
    owner.tier = Some(tier);
    put_in(session, owner);
    Some(Live { client, latency })
}

/// Puts the model into the stream, or takes it out.
fn put_in(session: &Session, owner: &mut Owner) {
    let Some(stream) = &owner.stream else { return };
    let model =
        owner.model.as_ref().filter(|loaded| loaded.model.timing().rate == stream.plan().model_rate());
    let swapped = stream.swap(model.map(|loaded| loaded.model.clone()));
    // Before there is one, the buses are what is to be expected.
    let routing = match (swapped, model) {
        (Ok(()), Some(loaded)) => Routing::of(&loaded.known.stems),
        (Err(error), _) => {
            session.show(|view| view.model = ModelView::Unplanned(error.to_string()));
            Routing::NONE
        }
        (Ok(()), None) => Routing::of(&known(session, owner).stems),
    };
    session.set_routing(routing);
}

fn wanted_plan(session: &Session, owner: &Owner, host: Host) -> Result<(Tier, Plan), PlanError> {
    let timing = known(session, owner).timing();
    let tier = match (session.params.tier.value(), owner.measured) {
        (TierChoice::Auto, Some(measured)) => Tier::auto(&timing, measured).tier,
        // The small model runs everywhere; of others nothing is known before they were measured.
        (TierChoice::Auto, None) if session.params.model.get().source == Source::Embedded => Tier::Low,
        (choice, _) => choice.named().unwrap_or(Tier::Balanced),
    };
    Ok((tier, Plan::new(tier.request(&timing, host.rate, block(host)))?))
}

fn block(host: Host) -> HostSamples {
    HostSamples(u64::from(host.max_block).clamp(1, plan::MAX_BLOCK.0))
}

/// Content of the wanted model, as far as anyone knows.
fn identity(session: &Session, owner: &Owner) -> Option<String> {
    if let Some(loaded) = &owner.model {
        return Some(loaded.sha256.clone());
    }
    let selection = session.params.model.get();
    if selection.source == Source::Embedded { Some(embedded::sha256().into()) } else { selection.sha256 }
}

/// What the wanted model is, as far as anyone knows: from itself, from the session, or like the built-in one.
fn known(session: &Session, owner: &Owner) -> Known {
    if let Some(loaded) = &owner.model {
        return loaded.known.clone();
    }
    let selection = session.params.model.get();
    selection.known.or_else(built_in).unwrap_or(Known {
        rate: 44_100,
        chunk: 4 * 44_100,
        frame_hop: 441,
        frame: 2_048,
        stems: Vec::new(),
    })
}

/// The built-in model's facts, without loading it.
fn built_in() -> Option<Known> {
    static KNOWN: OnceLock<Option<Known>> = OnceLock::new();
    KNOWN.get_or_init(read_built_in).clone()
}

fn read_built_in() -> Option<Known> {
    let checkpoint = embedded::checkpoint()?;
    let config = Config::from_yaml(checkpoint.config_yaml()?, embedded::NAME).ok()?;
    let info = ModelInfo::resolve(&checkpoint, &config, None).ok()?;
    let stft = info.architecture.stft;
    Some(Known {
        rate: info.sample_rate,
        chunk: info.chunk as u64,
        frame_hop: stft.hop_length as u64,
        frame: stft.n_fft as u64,
        stems: info.stems.iter().chain(&info.complement).cloned().collect(),
    })
}

fn learn(selection: &mut Selection, loaded: &Loaded) {
    selection.sha256 = Some(loaded.sha256.clone());
    selection.known = Some(loaded.known.clone());
    if let (Source::File { checkpoint, .. }, Some(path)) = (&mut selection.source, &loaded.path) {
        checkpoint.clone_from(path);
    }
}

fn is_rendering(session: &Session) -> bool {
    session.renders.load(Relaxed) || session.owner.lock().host.is_some_and(|host| host.offline)
}
