//! A song with its stems, as the player reads it.

use std::collections::VecDeque;

use super::align::Envelope;
use super::block::BLOCK;
use super::entry::{Entry, Part};
use super::error::StoreError;
use crate::audio::Planar;

/// Blocks of each part in memory: the one that plays, the next, and both sides of a loop.
const CACHED: usize = 4;
/// Places in the song that are remembered.
const MAX_OFFSETS: usize = 8;

/// A song with its stems.
#[derive(Debug)]
pub struct Song {
    entry: Entry,
    /// The strip of each stem; none for a stem that is not played.
    strips: Vec<Option<usize>>,
    /// Song positions of its first sample, the last that matched first.
    offsets: Vec<i64>,
    envelope: Option<Envelope>,
    cached: [VecDeque<(u64, Planar)>; 2],
    /// Why it cannot be played.
    problem: Option<String>,
}

impl Song {
    /// A song whose stem n goes to strip `strips[n]`.
    pub fn new(entry: Entry, strips: Vec<Option<usize>>, at: Option<i64>) -> Self {
        let offsets = at.or(entry.index().at).into_iter().collect();
        Self { entry, strips, offsets, envelope: None, cached: Default::default(), problem: None }
    }

    /// Its entry in the store.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Song positions of its first sample, the last that matched first.
    pub fn offsets(&self) -> &[i64] {
        &self.offsets
    }

    /// Why it cannot be played.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// The strip of each stem.
    pub(super) fn strips(&self) -> &[Option<usize>] {
        &self.strips
    }

    /// Remembers where it matched.
    pub(super) fn remember_offset(&mut self, offset: i64) {
        if self.offsets.first() != Some(&offset) {
            self.offsets.retain(|other| *other != offset);
            self.offsets.insert(0, offset);
            self.offsets.truncate(MAX_OFFSETS);
        }
    }

    /// Reads the index again, after more was prepared.
    pub fn reload(&mut self) {
        match self.entry.reload() {
            Ok(()) => self.problem = None,
            Err(error) => self.fail(&error),
        }
    }

    /// Reads samples `at .. at + planes[0].len()` of a part into `planes`. False if they are not all there; then [`Self::problem`] may say why.
    pub(super) fn read(&mut self, part: Part, at: i64, planes: &mut [Vec<f32>]) -> bool {
        let total = planes.first().map_or(0, Vec::len);
        let Ok(at) = u64::try_from(at) else { return false };
        if self.problem.is_some() || at + total as u64 > self.entry.index().samples {
            return false;
        }
        let mut done = 0;
        while done < total {
            let at = at + done as u64;
            let (number, from) = (at / BLOCK as u64, (at % BLOCK as u64) as usize);
            let count = (total - done).min(BLOCK - from);
            let Some(block) = self.block(part, number) else { return false };
            for (plane, samples) in planes.iter_mut().zip(block.iter()) {
                let (Some(to), Some(samples)) =
                    (plane.get_mut(done..done + count), samples.get(from..from + count))
                else {
                    return false;
                };
                to.copy_from_slice(samples);
            }
            done += count;
        }
        true
    }

    fn block(&mut self, part: Part, number: u64) -> Option<&Planar> {
        let cache = match part {
            Part::Stems => 1,
            Part::Audio | Part::Envelope => 0,
        };
        let held = self.cached[cache].iter().position(|(held, _)| *held == number);
        match held {
            // The one used last is first.
            Some(0) => {}
            Some(index) => {
                let block = self.cached[cache].remove(index)?;
                self.cached[cache].push_front(block);
            }
            None => {
                if part == Part::Stems {
                    self.entry.hold();
                }
                let block = match self.entry.read(part, number) {
                    Ok(block) => block,
                    Err(StoreError::NotPrepared) => return None,
                    Err(error) => {
                        self.fail(&error);
                        return None;
                    }
                };
                self.cached[cache].truncate(CACHED - 1);
                self.cached[cache].push_front((number, block));
            }
        }
        self.cached[cache].front().map(|(_, block)| block)
    }

    /// Loads blocks that will be needed when `at` plays, so that a slow disk is noticed before.
    pub(super) fn read_ahead(&mut self, at: i64) {
        let Ok(at) = u64::try_from(at) else { return };
        if at % (BLOCK as u64) < BLOCK as u64 / 2 || at >= self.entry.index().samples {
            return;
        }
        let next = at / BLOCK as u64 + 1;
        for part in [Part::Audio, Part::Stems] {
            let cache = usize::from(part == Part::Stems);
            if next * (BLOCK as u64) < self.entry.index().samples
                && !self.cached[cache].iter().any(|(held, _)| *held == next)
            {
                let current = self.cached[cache].pop_front();
                self.block(part, next);
                self.cached[cache].extend(current);
                if self.cached[cache].len() > 1 {
                    self.cached[cache].rotate_right(1);
                }
            }
        }
    }

    /// The loudness of the song, read once.
    pub(super) fn envelope(&mut self) -> Option<&Envelope> {
        if self.envelope.is_none() && self.problem.is_none() {
            let mut steps = Vec::new();
            for number in 0.. {
                match self.entry.read(Part::Envelope, number) {
                    Ok(block) => steps.extend(block.iter().flatten()),
                    Err(StoreError::NotPrepared) => break,
                    Err(error) => {
                        self.fail(&error);
                        return None;
                    }
                }
            }
            self.envelope = Some(Envelope::from_steps(steps));
        }
        self.envelope.as_ref()
    }

    fn fail(&mut self, error: &StoreError) {
        log::warn!("prepared stems {}: {error}", self.entry.id());
        self.cached = Default::default();
        self.problem = Some(error.to_string());
    }
}
