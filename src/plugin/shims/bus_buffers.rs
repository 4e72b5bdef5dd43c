//! Buffers for the buses and channels that a host leaves out, for both formats.
//!
//! A host may deactivate buses, and then passes null pointers or fewer buses. nice-plug's wrappers read through those pointers or past the host's
//! array, skip the block, or take the output's content for input. Here the missing buses get buffers of our own. Extra channels, which some hosts
//! pass although the layout was refused, are ignored; the wrappers would panic.

/// Output buses of the class with the most.
pub(super) const BUSES: usize = 7;
/// Largest number of channels of a bus.
pub(super) const CHANNELS: usize = 2;
/// Largest block that buffers are allocated for.
const MAX_BLOCK: usize = 1 << 20;

/// The channel pointers of a bus.
type Channels = [*mut f32; CHANNELS];

/// A bus: an array of channel pointers, both possibly null.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bus {
    pub channels: *mut *mut f32,
    pub count: usize,
}

impl Bus {
    pub const NONE: Self = Self { channels: std::ptr::null_mut(), count: 0 };

    /// The pointer of a channel; null if there is none.
    ///
    /// # Safety
    /// `channels` is null or an array of `count` pointers.
    unsafe fn channel(self, channel: usize) -> *mut f32 {
        if self.channels.is_null() || channel >= self.count {
            return std::ptr::null_mut();
        }
        // SAFETY: an array of `count` pointers by this function's contract.
        unsafe { *self.channels.add(channel) }
    }
}

/// What a host left out of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MissingBuses {
    /// Nothing, or everything. The wrappers handle both.
    None,
    /// Some buses or channels. Use [`BusBuffers::input`] and [`BusBuffers::outputs`] instead of the host's.
    Completed,
    /// The block is larger than the host announced.
    TooLong,
}

/// Buffers for missing buses: outputs that nobody reads, and a silent input.
pub(super) struct BusBuffers {
    /// Output samples, indexed by bus · `CHANNELS` + channel.
    samples: Vec<Vec<f32>>,
    silence: Vec<f32>,
    /// Output buses, and channels of the main buses. Set at activation.
    buses: usize,
    channels: usize,
    pointers: [Channels; BUSES],
    input_pointers: Channels,
}

// SAFETY: the pointers are only valid during the host's call that set them, and only used there.
unsafe impl Send for BusBuffers {}

impl BusBuffers {
    pub fn new() -> Self {
        Self {
            samples: Vec::new(),
            silence: Vec::new(),
            buses: 1,
            channels: CHANNELS,
            pointers: [[std::ptr::null_mut(); CHANNELS]; BUSES],
            input_pointers: [std::ptr::null_mut(); CHANNELS],
        }
    }

    /// Allocates buffers for blocks of up to `samples`.
    pub fn resize(&mut self, samples: usize) {
        let samples = samples.min(MAX_BLOCK);
        self.samples = vec![vec![0.0; samples]; BUSES * CHANNELS];
        self.silence = vec![0.0; samples];
    }

    /// Whether the host has announced a block size.
    pub fn is_ready(&self) -> bool {
        !self.samples.is_empty()
    }

    /// Sets the complete layout: the number of output buses, and the channels of the main input and output.
    pub fn set_layout(&mut self, buses: usize, channels: usize) {
        self.buses = buses.clamp(1, BUSES);
        self.channels = channels.clamp(1, CHANNELS);
    }

    /// Realtime-safe: completes a block of `samples` with our own buffers where the host left something out. `outputs` gives the host's bus of an
    /// index. `always`: provides buses that [`advance`](Self::advance) can move, even if nothing is missing.
    ///
    /// # Safety
    /// The buses' pointers are null or valid for `samples`.
    pub unsafe fn complete_block(
        &mut self,
        samples: usize,
        input: Bus,
        outputs: impl Fn(usize) -> Option<Bus>,
        always: bool,
    ) -> MissingBuses {
        // A host may send parameter changes in a block without channels.
        if samples == 0 || (0..self.buses).all(|bus| outputs(bus).is_none_or(|bus| bus.count == 0)) {
            return MissingBuses::None;
        }
        self.pointers = [[std::ptr::null_mut(); CHANNELS]; BUSES];
        self.input_pointers = [std::ptr::null_mut(); CHANNELS];
        let mut complete = !always;
        for bus in 0..self.buses {
            let expected = if bus == 0 { self.channels } else { CHANNELS };
            let given = outputs(bus).unwrap_or(Bus::NONE);
            complete &= given.count == expected;
            for channel in 0..expected {
                // SAFETY: null or valid by this function's contract.
                let mut pointer = unsafe { given.channel(channel) };
                if pointer.is_null() {
                    complete = false;
                    match self.samples.get_mut(bus * CHANNELS + channel) {
                        Some(own) if own.len() >= samples => pointer = own.as_mut_ptr(),
                        _ => return MissingBuses::TooLong,
                    }
                }
                self.pointers[bus][channel] = pointer;
            }
        }
        complete &= input.count == self.channels;
        for (channel, pointer) in self.input_pointers.iter_mut().enumerate().take(self.channels) {
            // SAFETY: null or valid by this function's contract.
            *pointer = unsafe { input.channel(channel) };
            if pointer.is_null() {
                complete = false;
                if self.silence.len() < samples {
                    return MissingBuses::TooLong;
                }
                *pointer = self.silence.as_mut_ptr();
            }
        }
        if complete { MissingBuses::None } else { MissingBuses::Completed }
    }

    /// The input of a completed block.
    pub fn input(&mut self) -> Bus {
        Bus { channels: self.input_pointers.as_mut_ptr(), count: self.channels }
    }

    /// All outputs of a completed block.
    pub fn outputs(&mut self) -> impl Iterator<Item = Bus> {
        let (buses, main) = (self.buses, self.channels);
        self.pointers.iter_mut().take(buses).enumerate().map(move |(bus, pointers)| Bus {
            channels: pointers.as_mut_ptr(),
            count: if bus == 0 { main } else { CHANNELS },
        })
    }

    /// Realtime-safe: moves the channels of a completed block by `samples`, to its next part.
    ///
    /// # Safety
    /// The block has at least as many samples left.
    pub unsafe fn advance(&mut self, samples: usize) {
        for pointer in self.pointers.iter_mut().chain([&mut self.input_pointers]).flatten() {
            if !pointer.is_null() {
                // SAFETY: within the block, or just past its end, by this function's contract.
                *pointer = unsafe { pointer.add(samples) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bus(pointers: &mut [*mut f32]) -> Bus {
        Bus { channels: pointers.as_mut_ptr(), count: pointers.len() }
    }

    fn buffers_for(buses: usize) -> BusBuffers {
        let mut buffers = BusBuffers::new();
        buffers.resize(64);
        buffers.set_layout(buses, 2);
        buffers
    }

    /// Completes a block of these buses.
    fn complete(buffers: &mut BusBuffers, samples: usize, input: Bus, outputs: &[Bus]) -> MissingBuses {
        // SAFETY: the tests pass valid buses.
        unsafe { buffers.complete_block(samples, input, |bus| outputs.get(bus).copied(), false) }
    }

    fn channels(bus: Bus) -> Vec<*mut f32> {
        // SAFETY: a bus of the test or of a completed block.
        (0..bus.count).map(|channel| unsafe { bus.channel(channel) }).collect()
    }

    #[test]
    fn a_complete_block_passes_unchanged() {
        let (mut left, mut right) = ([0f32; 64], [0f32; 64]);
        let mut pointers = [left.as_mut_ptr(), right.as_mut_ptr()];
        let mut again = pointers;
        let found = complete(&mut buffers_for(1), 64, bus(&mut pointers), &[bus(&mut again)]);
        assert_eq!(found, MissingBuses::None);
    }

    #[test]
    fn a_missing_input_is_silence_and_not_the_output() {
        let (mut left, mut right) = ([1f32; 64], [1f32; 64]);
        let mut pointers = [left.as_mut_ptr(), right.as_mut_ptr()];
        let outputs = [bus(&mut pointers)];
        let mut nulls = [std::ptr::null_mut(); 2];
        let no_pointers = Bus { channels: std::ptr::null_mut(), count: 2 };
        for input in [Bus::NONE, no_pointers, bus(&mut nulls)] {
            let mut buffers = buffers_for(1);
            assert_eq!(complete(&mut buffers, 64, input, &outputs), MissingBuses::Completed);
            let completed = channels(buffers.input());
            assert_eq!(completed.len(), 2);
            // SAFETY: completed above.
            let silence = unsafe { std::slice::from_raw_parts(completed[1], 64) };
            assert!(silence.iter().all(|x| *x == 0.0));
            assert_eq!(channels(buffers.outputs().next().unwrap())[0], left.as_mut_ptr());
        }
    }

    #[test]
    fn missing_outputs_get_buffers_and_others_stay() {
        let (mut left, mut right) = ([1f32; 64], [1f32; 64]);
        let mut pointers = [left.as_mut_ptr(), right.as_mut_ptr()];
        let mut half = [left.as_mut_ptr(), std::ptr::null_mut()];
        let mut input_pointers = pointers;
        let input = bus(&mut input_pointers);
        let outputs = [Bus::NONE, bus(&mut pointers), bus(&mut half)];
        let mut buffers = buffers_for(7);
        assert_eq!(complete(&mut buffers, 64, input, &outputs), MissingBuses::Completed);
        let completed: Vec<_> = buffers.outputs().flat_map(channels).collect();
        assert_eq!(completed.len(), 14, "seven buses of two channels");
        assert!(completed.iter().all(|pointer| !pointer.is_null()));
        assert_eq!(completed[2], left.as_mut_ptr());
        assert_eq!(completed[4], left.as_mut_ptr());
        let distinct: std::collections::HashSet<_> = completed.iter().collect();
        assert_eq!(distinct.len(), 13, "only the pointer that the host passed twice repeats");
    }

    #[test]
    fn extra_channels_are_ignored() {
        let mut samples = [[1f32; 64]; 3];
        let mut pointers = samples.each_mut().map(|channel| channel.as_mut_ptr());
        let mut input_pointers = pointers;
        let (input, outputs) = (bus(&mut input_pointers), [bus(&mut pointers)]);
        for channels in [1, 2] {
            let mut buffers = buffers_for(1);
            buffers.set_layout(1, channels);
            assert_eq!(complete(&mut buffers, 64, input, &outputs), MissingBuses::Completed);
            let output = buffers.outputs().next().unwrap();
            assert_eq!((buffers.input().count, output.count), (channels, channels));
        }
    }

    #[test]
    fn no_channels_is_no_audio_and_long_blocks_are_refused() {
        assert_eq!(complete(&mut buffers_for(1), 64, Bus::NONE, &[Bus::NONE]), MissingBuses::None);
        assert_eq!(complete(&mut buffers_for(1), 64, Bus::NONE, &[]), MissingBuses::None);
        let missing = Bus { channels: std::ptr::null_mut(), count: 2 };
        assert_eq!(complete(&mut buffers_for(1), 65, Bus::NONE, &[missing]), MissingBuses::TooLong);
    }

    #[test]
    fn parts_of_a_block_follow_each_other() {
        let (mut left, mut right) = ([1f32; 64], [1f32; 64]);
        let mut pointers = [left.as_mut_ptr(), right.as_mut_ptr()];
        let mut input_pointers = pointers;
        let (input, outputs) = (bus(&mut input_pointers), [bus(&mut pointers)]);
        let mut buffers = buffers_for(7);
        // SAFETY: valid buses; the parts are within the block.
        unsafe {
            let found = buffers.complete_block(64, input, |bus| outputs.get(bus).copied(), true);
            assert_eq!(found, MissingBuses::Completed);
            let own = channels(buffers.outputs().nth(3).unwrap())[0];
            buffers.advance(24);
            assert_eq!(channels(buffers.input())[0], left.as_mut_ptr().add(24));
            assert_eq!(channels(buffers.outputs().nth(3).unwrap())[0], own.add(24));
            buffers.advance(40);
            assert_eq!(channels(buffers.input())[1], right.as_mut_ptr().add(64));
        }
    }
}
