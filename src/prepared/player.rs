//! Matches what arrives with prepared songs, and plays their stems into the [`Exchange`]. Runs on a thread of its own.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use super::align::{self, QUERY};
use super::entry::Part;
use super::exchange::{Exchange, Mark};
use super::matching::{Matcher, is_equal};
use super::recording::Recording;
use super::song::Song;
use crate::audio::Planar;

/// Samples that are compared at a time.
const PIECE: usize = 256;
/// Seconds in which stems fade in and out where a match begins and ends.
const FADE_SECONDS: f64 = 0.01;
/// Longest time between two searches, in seconds.
const MAX_SEARCH_SECONDS: usize = 8;
/// Samples that are recorded at a time.
const RECORD_BLOCK: usize = 8192;

/// How the input relates to prepared songs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum MatchState {
    /// Nothing arrives, or nothing is prepared.
    #[default]
    Idle,
    /// What arrives was not prepared.
    Missed,
    /// Prepared stems are used, multiplied by the gain.
    Matched {
        /// 1 if every sample is equal.
        gain: f32,
    },
}

/// A song, and the position in it that the input is compared with.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Place {
    song: usize,
    origin: Origin,
}

/// How to compute the position in the prepared song.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Origin {
    /// Song position of its first sample.
    Song(i64),
    /// Position in the exchange of its first sample: for hosts without a transport.
    Stream(i64),
}

/// The player of one instance.
pub struct Player {
    exchange: Arc<Exchange>,
    songs: Vec<Song>,
    place: Option<Place>,
    matcher: Matcher,
    state: MatchState,
    /// Position of the next piece.
    cursor: u64,
    /// Marks that are not reached, and the one that applies.
    marks: VecDeque<Mark>,
    mark: Option<Mark>,
    /// Where the match that lasts began.
    matched_since: Option<u64>,
    fade: u64,
    decided: u64,
    recording: Option<Recording>,
    learned: Option<(i64, Planar)>,
    record_error: Option<io::Error>,
    /// The last input, of one channel, without a match, for the search.
    unmatched: VecDeque<f32>,
    /// Samples until the next search, and from that one to the one after it: searches in vain become rare.
    search_in: usize,
    search_interval: usize,
    input: Vec<Vec<f32>>,
    reference: Vec<Vec<f32>>,
    stems: Vec<Vec<f32>>,
    weights: Vec<f32>,
}

impl Player {
    /// Takes the input of `exchange` from now on.
    pub fn new(exchange: Arc<Exchange>) -> Self {
        let rate = exchange.rate();
        let channels = exchange.channels();
        exchange.set_active(true);
        let cursor = exchange.written();
        exchange.publish(cursor, cursor);
        Self {
            matcher: Matcher::new(rate),
            fade: ((FADE_SECONDS * f64::from(rate)) as u64).max(1),
            exchange,
            songs: Vec::new(),
            place: None,
            state: MatchState::Idle,
            cursor,
            marks: VecDeque::new(),
            mark: None,
            matched_since: None,
            decided: cursor,
            recording: None,
            learned: None,
            record_error: None,
            unmatched: VecDeque::with_capacity(QUERY),
            search_in: QUERY,
            search_interval: 0,
            input: vec![Vec::new(); channels],
            reference: vec![Vec::new(); channels],
            stems: Vec::new(),
            weights: Vec::new(),
        }
    }

    /// Replaces the songs that are played. Those of another sample rate or number of channels are left out.
    pub fn set_songs(&mut self, songs: Vec<Song>) {
        self.songs = songs;
        let (rate, channels) = (self.exchange.rate(), self.exchange.channels());
        self.songs.retain(|song| {
            let index = song.entry().index();
            index.key.settings.rate == rate && index.channels == channels
        });
        (self.place, self.search_in, self.search_interval) = (None, 0, 0);
        self.matcher.restart();
    }

    /// The songs that are played.
    pub fn songs(&self) -> &[Song] {
        &self.songs
    }

    /// The songs, to reload them.
    pub fn songs_mut(&mut self) -> &mut [Song] {
        &mut self.songs
    }

    /// Begins or ends recording.
    pub fn set_recording(&mut self, recording: Option<Recording>) {
        self.flush_learned();
        self.recording = recording;
        self.record_error = None;
    }

    /// What was heard so far.
    pub fn recording(&mut self) -> Option<&Recording> {
        self.flush_learned();
        self.recording.as_ref()
    }

    /// Why recording ended.
    pub fn record_error(&self) -> Option<&io::Error> {
        self.record_error.as_ref()
    }

    /// How the last input relates to prepared songs.
    pub fn state(&self) -> MatchState {
        self.state
    }

    /// Song position of the next input, if the host tells it.
    pub fn song_position(&self) -> Option<i64> {
        self.song_at(self.cursor)
    }

    /// Takes all input that there is. Returns whether there was any.
    pub fn step(&mut self) -> bool {
        let written = self.exchange.written();
        while let Some(mark) = self.exchange.next_mark() {
            self.marks.push_back(mark);
        }
        if written - self.cursor.min(written) > self.exchange.capacity() - self.exchange.capacity() / 4 {
            self.skip(written);
        }
        let any = self.cursor < written;
        while self.cursor < written {
            self.advance_mark();
            let next_mark = self.marks.front().map_or(u64::MAX, |mark| mark.position);
            let end = written.min(next_mark).min(self.cursor + PIECE as u64);
            let count = (end - self.cursor) as usize;
            self.take_piece(count);
        }
        self.flush_learned();
        self.exchange.notify();
        any
    }

    /// After a long wait for the disk: leaves out what is too old to be read safely.
    fn skip(&mut self, written: u64) {
        self.end_match(self.cursor);
        let zeros = [0.0; PIECE];
        let first = self.cursor.max(written.saturating_sub(self.exchange.capacity()));
        let mut at = first;
        while at < written {
            let count = (written - at).min(PIECE as u64) as usize;
            self.exchange.write_weights(at, &zeros[..count]);
            at += count as u64;
        }
        self.cursor = written;
        self.decided = written;
        self.exchange.publish(written, written);
        self.matcher.restart();
        self.unmatched.clear();
        self.flush_learned();
    }

    /// Makes the mark of the cursor the one that applies.
    fn advance_mark(&mut self) {
        while let Some(next) = self.marks.front().copied().filter(|next| next.position <= self.cursor) {
            self.marks.pop_front();
            let continues = self.song_at(next.position) == next.song && next.song.is_some();
            let stood = self.mark.is_some_and(|mark| mark.song.is_none()) && next.song.is_none();
            if !continues && !stood {
                // What was looked for belongs to another place.
                self.unmatched.clear();
                (self.search_in, self.search_interval) = (QUERY, 0);
            }
            self.mark = Some(next);
        }
    }

    /// Song position of a position after the last mark.
    fn song_at(&self, position: u64) -> Option<i64> {
        let mark = self.mark?;
        Some(mark.song? + position.checked_sub(mark.position)? as i64)
    }

    fn take_piece(&mut self, count: usize) {
        let at = self.cursor;
        let mut input = std::mem::take(&mut self.input);
        for plane in &mut input {
            plane.resize(count, 0.0);
        }
        let is_valid = self.exchange.read_input(at, &mut input);
        let song = self.song_at(at);
        let gain = if is_valid { self.find_match(at, song, &input) } else { None };
        match gain {
            Some(gain) => self.play(at, count, gain),
            None => self.miss(at, count),
        }
        if is_valid {
            // What matches bit for bit is in the store already.
            if gain != Some(1.0)
                && let Some(song) = song
            {
                self.learn(song, &input);
            }
            if gain.is_none() {
                self.search(at, song, &input);
            }
        }
        self.cursor = at + count as u64;
        self.exchange.publish(self.decided, self.cursor);
        self.input = input;
    }

    /// The gain of the stems for a piece of input; none if it is not what was prepared.
    fn find_match(&mut self, at: u64, song: Option<i64>, input: &[Vec<f32>]) -> Option<f32> {
        let views: Vec<&[f32]> = input.iter().map(Vec::as_slice).collect();
        if self.place.is_none() {
            let first = self.candidates(song).next();
            self.place = first;
        }
        if let Some(place) = self.place
            && let Some(from) = place.origin.within(at, song)
        {
            let gain =
                match self.read_reference(place.song, from, views.first().map_or(0, |plane| plane.len())) {
                    true => self.matcher.compare(&views, &borrowed(&self.reference)),
                    false => {
                        self.matcher.restart();
                        None
                    }
                };
            if gain.is_some()
                && self.read_stems(place.song, from, views.first().map_or(0, |plane| plane.len()))
            {
                return gain;
            }
        }
        // Silence is in every song.
        if views.iter().all(|plane| plane.iter().all(|x| *x == 0.0)) {
            return None;
        }
        let others: Vec<Place> = self.candidates(song).filter(|place| Some(*place) != self.place).collect();
        for place in others {
            let Some(from) = place.origin.within(at, song) else { continue };
            let count = views.first().map_or(0, |plane| plane.len());
            if self.read_reference(place.song, from, count)
                && is_equal(&views, &borrowed(&self.reference))
                && self.read_stems(place.song, from, count)
            {
                self.place = Some(place);
                return Some(1.0);
            }
        }
        None
    }

    /// Places that were right before, or that the project names.
    fn candidates(&self, song: Option<i64>) -> impl Iterator<Item = Place> {
        let known = self.songs.iter().enumerate().filter(move |_| song.is_some());
        known.flat_map(|(index, song)| {
            song.offsets().iter().map(move |offset| Place { song: index, origin: Origin::Song(*offset) })
        })
    }

    fn read_reference(&mut self, song: usize, from: i64, count: usize) -> bool {
        let Some(song) = self.songs.get_mut(song) else { return false };
        self.reference.iter_mut().for_each(|plane| plane.resize(count, 0.0));
        song.read(Part::Audio, from, &mut self.reference)
    }

    fn read_stems(&mut self, song: usize, from: i64, count: usize) -> bool {
        let Some(song) = self.songs.get_mut(song) else { return false };
        self.stems.resize_with(song.strips().len() * self.reference.len(), Vec::new);
        self.stems.iter_mut().for_each(|plane| plane.resize(count, 0.0));
        let there = song.read(Part::Stems, from, &mut self.stems);
        song.read_ahead(from);
        there
    }

    /// Plays the stems that were read.
    fn play(&mut self, at: u64, count: usize, gain: f32) {
        let Some(place) = self.place else { return };
        if self.matched_since.is_none()
            && let (Origin::Song(offset), Some(song)) = (place.origin, self.songs.get_mut(place.song))
        {
            song.remember_offset(offset);
        }
        let since = *self.matched_since.get_or_insert(at);
        self.state = MatchState::Matched { gain };
        self.unmatched.clear();
        (self.search_in, self.search_interval) = (QUERY, 0);
        self.weights.resize(count, 0.0);
        self.weights.fill(0.0);
        self.exchange.clear_stems(at, &self.weights);
        let strips = self.songs.get(place.song).map(Song::strips).unwrap_or_default();
        let channels = self.exchange.channels();
        for (stem, strip) in strips.iter().enumerate() {
            let Some(strip) = strip else { continue };
            for channel in 0..channels {
                let Some(plane) = self.stems.get_mut(stem * channels + channel) else { continue };
                if gain != 1.0 {
                    plane.iter_mut().for_each(|x| *x *= gain);
                }
                self.exchange.write_stem(*strip, channel, at, plane);
            }
        }
        for (i, weight) in self.weights.iter_mut().enumerate() {
            *weight = ((at - since + i as u64 + 1) as f32 / self.fade as f32).min(1.0);
        }
        self.exchange.write_weights(at, &self.weights);
        // The rest is held back, in case it is to fade out.
        self.decided = self.decided.max((at + count as u64).saturating_sub(self.fade));
    }

    fn miss(&mut self, at: u64, count: usize) {
        self.end_match(at);
        self.state = if self.songs.is_empty() { MatchState::Idle } else { MatchState::Missed };
        self.weights.resize(count, 0.0);
        self.weights.fill(0.0);
        self.exchange.write_weights(at, &self.weights);
        self.decided = at + count as u64;
    }

    /// Fades out before `end`, where something else begins.
    fn end_match(&mut self, end: u64) {
        let Some(since) = self.matched_since.take() else { return };
        let first = end.saturating_sub(self.fade).max(since).max(self.decided.min(end));
        self.weights.clear();
        self.weights.extend((first..end).map(|at| {
            let rise = (at - since + 1) as f32 / self.fade as f32;
            let fall = (end - at - 1) as f32 / self.fade as f32;
            rise.min(fall).min(1.0)
        }));
        self.exchange.write_weights(first, &self.weights);
        self.decided = end;
    }

    /// Looks for the last second of input in all songs.
    fn search(&mut self, at: u64, song: Option<i64>, input: &[Vec<f32>]) {
        if self.songs.is_empty() {
            return;
        }
        let count = input.first().map_or(0, Vec::len);
        for i in 0..count {
            let sum: f32 = input.iter().map(|plane| plane[i]).sum();
            self.unmatched.push_back(sum / input.len() as f32);
        }
        while self.unmatched.len() > QUERY {
            self.unmatched.pop_front();
        }
        self.search_in = self.search_in.saturating_sub(count);
        if self.search_in > 0 || self.unmatched.len() < QUERY {
            return;
        }
        let second = self.exchange.rate() as usize;
        self.search_interval = (2 * self.search_interval).clamp(second / 2, MAX_SEARCH_SECONDS * second);
        self.search_in = self.search_interval;
        let query: Vec<f32> = self.unmatched.iter().copied().collect();
        let end = at as i64 + count as i64;
        for index in 0..self.songs.len() {
            let Some(from) = self.find_in_song(index, &query) else { continue };
            // The query begins QUERY samples before the end of this piece.
            let origin = match song {
                Some(song) => Origin::Song(song + count as i64 - QUERY as i64 - from),
                None => Origin::Stream(end - QUERY as i64 - from),
            };
            let place = Place { song: index, origin };
            if self.place != Some(place) {
                self.place = Some(place);
                self.matcher.restart();
            }
            return;
        }
    }

    fn find_in_song(&mut self, index: usize, query: &[f32]) -> Option<i64> {
        let channels = self.exchange.channels();
        let song = self.songs.get_mut(index)?;
        let envelope = song.envelope()?.clone();
        let samples = song.entry().index().samples as i64;
        let mut read = |at: i64, count: usize| -> Result<Vec<f32>, ()> {
            let mut mono = vec![0.0; count];
            let (from, to) = (at.clamp(0, samples), (at + count as i64).clamp(0, samples));
            let mut planes = vec![vec![0.0; (to - from) as usize]; channels];
            if !song.read(Part::Audio, from, &mut planes) {
                return Err(());
            }
            let skipped = (from - at) as usize;
            for (i, x) in mono.iter_mut().skip(skipped).take((to - from) as usize).enumerate() {
                *x = planes.iter().map(|plane| plane[i]).sum::<f32>() / channels as f32;
            }
            Ok(mono)
        };
        align::find(query, &envelope, &mut read).ok().flatten()
    }

    /// Records a piece. Consecutive ones are written together.
    fn learn(&mut self, song: i64, input: &[Vec<f32>]) {
        if self.recording.is_none() || self.record_error.is_some() {
            return;
        }
        let continues = self
            .learned
            .as_ref()
            .is_some_and(|(at, block)| at + block.samples() as i64 == song && block.samples() < RECORD_BLOCK);
        if !continues {
            self.flush_learned();
            self.learned = Some((song, Planar::new(input.len())));
        }
        if let (Some((_, block)), Some(piece)) = (&mut self.learned, Planar::from_planes(input.to_vec())) {
            block.append(&piece);
        }
    }

    fn flush_learned(&mut self) {
        if let (Some((at, block)), Some(recording)) = (self.learned.take(), &mut self.recording)
            && let Err(error) = recording.write(at, &block)
        {
            log::warn!("recording ends: {error}");
            self.record_error = Some(error);
        }
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        self.exchange.set_active(false);
    }
}

impl Origin {
    /// Position in the prepared song of the input at `at`.
    fn within(self, at: u64, song: Option<i64>) -> Option<i64> {
        match self {
            Self::Song(offset) => song.map(|song| song - offset),
            Self::Stream(start) => Some(at as i64 - start),
        }
    }
}

fn borrowed(planes: &[Vec<f32>]) -> Vec<&[f32]> {
    planes.iter().map(Vec::as_slice).collect()
}

#[cfg(test)]
mod tests;
