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
use super::session::{
    Command, Facts, Held, Host, Live, ModelView, Owner, Session, StandIn, TierView, changes_in_place,
};
use super::slot::{Routing, SLOTS};
use crate::embedded;
use crate::model::config::Config;
use crate::registry;
use crate::separator::{MaskRule, ModelInfo};
use crate::stream::plan::Shape;
use crate::stream::{HostSamples, ModelTiming, Plan, PlanError, Scheduler, Stream, Tier, plan};

/// Between two looks at parameters, which nobody may announce from the audio thread.
const POLL: Duration = Duration::from_millis(100);

/// What the control thread knows that nobody else must.
#[derive(Default)]
struct Control {
    /// Tier and window that were last wanted.
    size: Option<(TierChoice, Option<Shape>)>,
    /// Selection that was last loaded, or failed to.
    loaded: Option<u64>,
    measured: Option<plan::Measured>,
    /// What the host was last asked to start anew for: a host that does not is not asked ten times a second.
    asked_for: Option<Plan>,
    /// What was shown of the model before there was no plan for it.
    planless: Option<ModelView>,
    /// The tiers as they are shown, and what they were made from.
    tiers: Option<(Facts, Vec<TierView>)>,
}

/// The thread.
pub(super) fn run(session: &Arc<Session>) {
    let mut control = Control::default();
    let mut may_fetch = false;
    while !session.is_stopping() {
        let command = session.commands().recv_timeout(POLL);
        while session.retired.pop().is_some() {}
        session.tell_latency();
        let step = catch_unwind(AssertUnwindSafe(|| {
            match command {
                Ok(Command::Fetch) => {
                    may_fetch = true;
                    control.forget(session);
                }
                Ok(Command::Retry) => control.forget(session),
                Ok(Command::Calibrate) => {
                    control.calibrate(session, true);
                    session.owner.lock().measured = control.measured;
                }
                Ok(Command::Look) | Err(_) => control.look_again(session),
            }
            control.settle(session, may_fetch);
        }));
        if step.is_err() {
            // A defect of ours: the sound goes on, and the user may choose another model.
            let generation = session.params.model.generation();
            control.loaded = Some(generation);
            let reason = "the model could not be loaded: internal error".into();
            fail(session, generation, OpenError::Broken { reason, report: None });
        }
        may_fetch = false;
        session.tell_restart();
    }
}

impl Control {
    /// Takes a model that another instance has fetched meanwhile.
    fn look_again(&mut self, session: &Session) {
        if let ModelView::Failed(OpenError::NotFetched { name, .. }) = session.view().model
            && registry::find(&name).is_ok_and(|entry| registry::cached(entry).is_some())
        {
            self.forget(session);
        }
    }

    /// Has what is selected loaded anew, which a render waits for.
    fn forget(&mut self, session: &Session) {
        self.loaded = None;
        session.unsettle();
    }

    fn settle(&mut self, session: &Arc<Session>, may_fetch: bool) {
        let wanted = session.wanted();
        // Before the first activation there is nothing to plan for, but a model may already be fetched.
        let active = session.owner.lock().host.is_some();
        if self.loaded != Some(wanted.model) && (active || may_fetch) {
            self.load(session, wanted.model, may_fetch);
        }
        if active {
            let size = (wanted.tier, wanted.window);
            if self.size.replace(size).is_some_and(|before| before != size) {
                // Whoever chooses a tier, chooses by what is shown now.
                session.owner.lock().measured = self.measured;
            }
            self.plan(session);
        }
        self.show(session);
        // Loaded for what was wanted then; whatever is wanted since comes next.
        if active && self.loaded == Some(wanted.model) {
            session.set_settled(wanted);
        }
    }

    fn load(&mut self, session: &Arc<Session>, generation: u64, may_fetch: bool) {
        session.show(|view| view.model = ModelView::Loading(None));
        let selection = session.params.model.get();
        let mut on_step = |step| {
            session.show(|view| view.model = ModelView::Loading(Some(step)));
            let stale = session.is_stopping() || session.params.model.generation() != generation;
            if stale { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let opened = library::open(&selection, may_fetch, &mut on_step).and_then(fitting);
        if session.is_stopping() {
            return;
        }
        self.loaded = Some(generation);
        let view = match opened {
            Ok(loaded) => {
                session.params.model.learn(generation, |selection| learn(selection, &loaded));
                self.measured = calibration::remembered(&loaded.sha256);
                let view = ready(&loaded);
                let renders = is_rendering(session);
                session.owner.lock().model =
                    Some(Held { loaded, title: selection.shown_title().into(), plays_for: generation });
                session.show(|view| view.stand_in = None);
                // While it renders, the latency must stay what it is, and the measurement would be wrong anyway.
                if self.measured.is_none() && !renders {
                    self.calibrate(session, false);
                }
                view
            }
            // Somebody has chosen another one meanwhile, which comes next.
            Err(OpenError::Cancelled) if session.params.model.generation() != generation => return,
            Err(error) => {
                fail(session, generation, error);
                return;
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

    /// Measures the device, `anew` even where somebody has.
    fn calibrate(&mut self, session: &Session, anew: bool) {
        let Some(model) = session.owner.lock().model.as_ref().map(|held| held.loaded.clone()) else { return };
        let before = session.view().model;
        session.show(|view| view.model = ModelView::Measuring);
        self.measured = calibration::calibrate(&model, anew, &|| session.is_stopping()).ok();
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
                session.show(|view| {
                    let shown = std::mem::replace(&mut view.model, ModelView::Unplanned(error.to_string()));
                    if !matches!(shown, ModelView::Unplanned(_)) {
                        self.planless = Some(shown);
                    }
                });
                return;
            }
        };
        if let Some(shown) = self.planless.take() {
            session.show(|view| {
                if matches!(view.model, ModelView::Unplanned(_)) {
                    view.model = shown;
                }
            });
        }
        if owner.plan.as_ref() == Some(&plan) {
            owner.tier = tier;
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
                let _ = session.handoff.force_push(Box::new(live));
            }
        } else {
            if self.asked_for.as_ref() != Some(&plan) {
                session.want_restart(true);
                self.asked_for = Some(plan);
            }
            session.show(|view| view.restart_pending = true);
        }
    }

    fn show(&mut self, session: &Session) {
        let mut owner = session.owner.lock();
        if session.handoff.is_empty() {
            owner.before = None;
        }
        let Some(host) = owner.host else { return };
        let facts = Facts {
            timing: known(session, &owner).timing(),
            host_rate: host.rate,
            block: block(host),
            measured: self.measured,
        };
        if self.tiers.as_ref().is_none_or(|(made_from, _)| *made_from != facts) {
            self.tiers = Some((facts, facts.of_tiers()));
        }
        let tiers = self.tiers.as_ref().map(|(_, tiers)| tiers.clone()).unwrap_or_default();
        for stream in owner.stream.iter().chain(&owner.before) {
            stream.set_rule(rule(session));
        }
        session.show(|view| {
            view.tiers = tiers;
            view.facts = Some(facts);
            view.tier = owner.tier;
            view.host_rate = host.rate;
            view.latency_ms = owner.plan.as_ref().map_or(0.0, Plan::latency_ms);
            view.renders = session.renders.load(Relaxed);
            view.routing = Some(session.routing());
            view.status = owner.before.as_ref().or(owner.stream.as_ref()).map(Stream::status);
        });
    }
}

/// Opens the stream of an instance that is being activated, for what is known now.
///
/// # Errors
/// [`PlanError`]: the host's rate or block has no plan.
pub(super) fn activate(session: &Arc<Session>, host: Host) -> Result<Option<Live>, PlanError> {
    let mut owner = session.owner.lock();
    // What the control thread has opened until now is void; it opens no more while the lock is held.
    while session.handoff.pop().is_some() {}
    // Until there is another stream: the last one to go takes the worker with it.
    let _void = (owner.stream.take(), owner.before.take());
    owner.host = Some(host);
    session.want_restart(false);
    owner.measured = identity(session, &owner).and_then(|sha256| calibration::remembered(&sha256));
    owner.planned_for = Some(session.params.model.generation());
    let (tier, plan) = match wanted_plan(session, &owner, host) {
        Ok(found) => found,
        Err(error) => {
            owner.plan = None;
            return Err(error);
        }
    };
    Ok(open(session, &mut owner, host, tier, plan))
}

/// Opens a stream. The one before goes on until the audio thread has the new one: it may never take it, in a render.
fn open(session: &Session, owner: &mut Owner, host: Host, tier: Option<Tier>, plan: Plan) -> Option<Live> {
    let scheduler = Scheduler::of_process().ok()?;
    let (client, stream) = Stream::open(&plan, SLOTS, host.channels, &scheduler);
    stream.set_rule(rule(session));
    let latency = u32::try_from(plan.latency().0).unwrap_or(u32::MAX);
    let last = owner.stream.replace(stream);
    // Taken back, so that the audio thread cannot take it after this look: then what plays is still the one before it.
    if session.handoff.pop().is_none() {
        owner.before = last;
    }
    owner.plan = Some(plan);
    owner.tier = tier;
    put_in(session, owner);
    Some(Live { client, latency })
}

/// What is shown of a model that runs.
fn ready(loaded: &Loaded) -> ModelView {
    ModelView::Ready {
        runs_on: loaded.model.runs_on().into(),
        stems: loaded.known.stems.clone(),
        licence: loaded.licence.clone(),
    }
}

fn rule(session: &Session) -> MaskRule {
    match session.params.lossless.value() {
        Lossless::Spectral => MaskRule::Complete,
        Lossless::Off => MaskRule::Plain,
    }
}

/// Says why the selection of this generation has no model. What played before plays on: a song must not lose its stems to a file that is
/// broken.
fn fail(session: &Session, generation: u64, error: OpenError) {
    let mut owner = session.owner.lock();
    let stand_in = owner.model.as_mut().map(|held| {
        held.plays_for = generation;
        StandIn { title: held.title.clone(), stems: held.loaded.known.stems.clone() }
    });
    session.show(|view| (view.model, view.stand_in) = (ModelView::Failed(error), stand_in));
    if owner.model.is_none() {
        put_in(session, &mut owner);
    }
}

/// Puts the model into the stream, or takes it out. Its stems go to the lanes of their slots: what was made before by a model with other
/// stems then stays where it is, under its own fader, as long as it is heard.
fn put_in(session: &Session, owner: &mut Owner) {
    let Some(stream) = &owner.stream else { return };
    let model = owner.model.as_ref().map(|held| &held.loaded);
    let put = |stream: &Stream| {
        let model = model.filter(|loaded| loaded.model.timing().rate == stream.plan().model_rate());
        let in_lanes =
            |loaded: &Loaded| loaded.model.in_lanes(&Routing::of(&loaded.known.stems).slots(), SLOTS);
        (stream.swap(model.map(in_lanes)), model)
    };
    let (swapped, model) = put(stream);
    if let Some(before) = &owner.before {
        // Where the model has another rate it plays on without one, where its window is too short with the one it has.
        let _ = put(before);
    }
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

/// The plan for what is wanted, and its tier; none where the window was set by hand.
fn wanted_plan(session: &Session, owner: &Owner, host: Host) -> Result<(Option<Tier>, Plan), PlanError> {
    let timing = known(session, owner).timing();
    if let Some(shape) = session.wanted().window {
        return Ok((None, Plan::new(shape.request(&timing, host.rate, block(host)))?));
    }
    let tier = match (session.params.tier.value(), owner.measured) {
        (TierChoice::Auto, Some(measured)) => Tier::auto(&timing, measured).tier,
        // The small model runs everywhere; of others nothing is known before they were measured.
        (TierChoice::Auto, None) if session.params.model.get().source == Source::Embedded => Tier::Low,
        (choice, _) => choice.named().unwrap_or(Tier::Balanced),
    };
    Ok((Some(tier), Plan::new(tier.request(&timing, host.rate, block(host)))?))
}

fn block(host: Host) -> HostSamples {
    HostSamples(u64::from(host.max_block).clamp(1, plan::MAX_BLOCK.0))
}

/// The model that is there for what is wanted now. The one of an earlier choice says nothing of a later one, until that has failed.
fn playing<'a>(session: &Session, owner: &'a Owner) -> Option<&'a Loaded> {
    let held = owner.model.as_ref().filter(|held| held.plays_for == session.params.model.generation())?;
    Some(&held.loaded)
}

/// Content of the wanted model, as far as anyone knows.
fn identity(session: &Session, owner: &Owner) -> Option<String> {
    if let Some(loaded) = playing(session, owner) {
        return Some(loaded.sha256.clone());
    }
    let selection = session.params.model.get();
    if selection.source == Source::Embedded { Some(embedded::sha256().into()) } else { selection.sha256 }
}

/// What the wanted model is, as far as anyone knows: from itself, from the session, or like the built-in one.
fn known(session: &Session, owner: &Owner) -> Known {
    if let Some(loaded) = playing(session, owner) {
        return loaded.known.clone();
    }
    let selection = session.params.model.get();
    let embedded = selection.source == Source::Embedded;
    // A file that was never loaded may be anything: as long as nobody knows, it is taken to be like what plays now.
    let before = || owner.model.as_ref().filter(|_| !embedded).map(|held| held.loaded.known.clone());
    selection.known.or_else(before).or_else(built_in).unwrap_or(Known {
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
    Some(Known::of(ModelTiming::of(&info), info.stem_names()))
}

fn learn(selection: &mut Selection, loaded: &Loaded) {
    selection.sha256 = Some(loaded.sha256.clone());
    selection.known = Some(loaded.known.clone());
    if let (Source::File { checkpoint, config }, Some(path)) = (&mut selection.source, &loaded.path) {
        checkpoint.clone_from(path);
        // One that is not at hand now may come back, as a drive does.
        if loaded.config.is_some() {
            config.clone_from(&loaded.config);
        }
    }
}

/// A model for whose stems there are strips.
fn fitting(loaded: Loaded) -> Result<Loaded, OpenError> {
    match loaded.known.stems.len() {
        0..=SLOTS => Ok(loaded),
        stems => Err(OpenError::Broken {
            reason: format!(
                "the model has {stems} stems, the mixer room for {SLOTS}; nullsum-cli separates into all of them"
            ),
            report: None,
        }),
    }
}

fn is_rendering(session: &Session) -> bool {
    session.renders.load(Relaxed) || session.owner.lock().host.is_some_and(|host| host.offline)
}
