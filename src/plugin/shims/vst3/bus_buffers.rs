//! Buffers for the buses and channels that a host leaves out.
//!
//! A host may deactivate buses, and then passes null pointers or fewer buses. The wrapper reads through those pointers, skips the block, or takes the
//! output's content for input. Here the missing buses get buffers of our own. Extra channels, which some hosts pass although the layout was refused,
//! are ignored; the wrapper would panic.

use nice_plug::wrapper::vst3::vst3::Steinberg::Vst::{AudioBusBuffers, ProcessData};

/// Output buses of the class with the most.
pub(super) const BUSES: usize = 7;
/// Largest number of channels of a bus.
pub(super) const CHANNELS: usize = 2;
/// Largest block that buffers are allocated for.
const MAX_BLOCK: usize = 1 << 20;

/// The channel pointers of a bus.
type Channels = [*mut f32; CHANNELS];

/// What a host left out of a block.
pub(super) enum MissingBuses {
    /// Nothing, or everything. The wrapper handles both.
    None,
    /// Some buses or channels. Use these buses instead of the host's.
    Completed {
        /// The input bus.
        inputs: *mut AudioBusBuffers,
        /// All output buses.
        outputs: *mut AudioBusBuffers,
    },
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
    outputs: [AudioBusBuffers; BUSES],
    inputs: [AudioBusBuffers; 1],
}

impl BusBuffers {
    pub fn new() -> Self {
        Self {
            samples: Vec::new(),
            silence: Vec::new(),
            buses: 1,
            channels: CHANNELS,
            pointers: [[std::ptr::null_mut(); CHANNELS]; BUSES],
            input_pointers: [std::ptr::null_mut(); CHANNELS],
            // SAFETY: zero bytes are a valid bus without channels.
            outputs: unsafe { std::mem::zeroed() },
            // SAFETY: zero bytes are a valid bus without channels.
            inputs: unsafe { std::mem::zeroed() },
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

    /// Realtime-safe: completes a block with our own buffers where the host left something out.
    ///
    /// # Safety
    /// The pointers in `data` are null or valid for the sizes that it states.
    pub unsafe fn complete_block(&mut self, data: &ProcessData) -> MissingBuses {
        let samples = usize::try_from(data.numSamples).unwrap_or(0);
        let given = usize::try_from(data.numOutputs).unwrap_or(0);
        if samples == 0 || given == 0 || data.outputs.is_null() {
            return MissingBuses::None;
        }
        // SAFETY: not null, and the host passes `numOutputs` buses.
        let outputs = unsafe { std::slice::from_raw_parts(data.outputs, given) };
        // A host may send parameter changes in a block without channels.
        if outputs.iter().all(|bus| bus.numChannels <= 0) {
            return MissingBuses::None;
        }
        let fits = |bus: &AudioBusBuffers, channels: usize| usize::try_from(bus.numChannels) == Ok(channels);
        let mut complete = given >= self.buses;
        for bus in 0..self.buses {
            let expected = if bus == 0 { self.channels } else { CHANNELS };
            complete &= outputs.get(bus).is_some_and(|bus| fits(bus, expected));
            let own_buffer = |channel: usize| self.samples.get(bus * CHANNELS + channel);
            let mut pointers = [std::ptr::null_mut(); CHANNELS];
            for (channel, pointer) in pointers.iter_mut().enumerate().take(expected) {
                // SAFETY: null or valid by this function's contract.
                *pointer = unsafe { pointer_of(outputs.get(bus), channel) };
                if pointer.is_null() {
                    complete = false;
                    match own_buffer(channel) {
                        Some(own) if own.len() >= samples => *pointer = own.as_ptr().cast_mut(),
                        _ => return MissingBuses::TooLong,
                    }
                }
            }
            self.pointers[bus] = pointers;
        }
        let inputs = if data.numInputs > 0 && !data.inputs.is_null() {
            // SAFETY: not null, and the host passes at least one bus.
            Some(unsafe { &*data.inputs })
        } else {
            None
        };
        complete &= inputs.is_some_and(|bus| fits(bus, self.channels));
        for (channel, pointer) in self.input_pointers.iter_mut().enumerate().take(self.channels) {
            // SAFETY: null or valid by this function's contract.
            *pointer = unsafe { pointer_of(inputs, channel) };
            if pointer.is_null() {
                complete = false;
                if self.silence.len() < samples {
                    return MissingBuses::TooLong;
                }
                *pointer = self.silence.as_ptr().cast_mut();
            }
        }
        if complete {
            return MissingBuses::None;
        }
        for (bus, (output, pointers)) in self.outputs.iter_mut().zip(&mut self.pointers).enumerate() {
            output.numChannels = if bus == 0 { self.channels } else { CHANNELS } as i32;
            output.silenceFlags = 0;
            output.__field0.channelBuffers32 = pointers.as_mut_ptr();
        }
        let [input] = &mut self.inputs;
        input.numChannels = self.channels as i32;
        input.silenceFlags = 0;
        input.__field0.channelBuffers32 = self.input_pointers.as_mut_ptr();
        MissingBuses::Completed { inputs: self.inputs.as_mut_ptr(), outputs: self.outputs.as_mut_ptr() }
    }

    /// Number of output buses of a completed block.
    pub fn buses(&self) -> usize {
        self.buses
    }
}

/// The pointer of a channel; null if there is none.
///
/// # Safety
/// The bus has 32-bit float channels, whose pointers are null or valid.
unsafe fn pointer_of(bus: Option<&AudioBusBuffers>, channel: usize) -> *mut f32 {
    let Some(bus) = bus else { return std::ptr::null_mut() };
    // SAFETY: the only variant of this union that the class uses.
    let pointers = unsafe { bus.__field0.channelBuffers32 };
    if pointers.is_null() || channel >= usize::try_from(bus.numChannels).unwrap_or(0) {
        return std::ptr::null_mut();
    }
    // SAFETY: an array of `numChannels` pointers.
    unsafe { *pointers.add(channel) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bus as a host passes it. `None`: without channel pointers.
    fn bus(pointers: Option<&mut [*mut f32]>, channels: i32) -> AudioBusBuffers {
        // SAFETY: zero bytes are a valid bus without channels.
        let mut bus: AudioBusBuffers = unsafe { std::mem::zeroed() };
        bus.numChannels = channels;
        bus.__field0.channelBuffers32 = pointers.map_or(std::ptr::null_mut(), <[_]>::as_mut_ptr);
        bus
    }

    fn data(samples: i32, inputs: &mut [AudioBusBuffers], outputs: &mut [AudioBusBuffers]) -> ProcessData {
        // SAFETY: zero bytes are a valid empty block.
        let mut data: ProcessData = unsafe { std::mem::zeroed() };
        data.numSamples = samples;
        (data.numInputs, data.inputs) = (inputs.len() as i32, inputs.as_mut_ptr());
        (data.numOutputs, data.outputs) = (outputs.len() as i32, outputs.as_mut_ptr());
        data
    }

    fn buffers_for(buses: usize) -> BusBuffers {
        let mut bus_buffers = BusBuffers::new();
        bus_buffers.resize(64);
        bus_buffers.set_layout(buses, 2);
        bus_buffers
    }

    #[test]
    fn a_complete_block_passes_unchanged() {
        let (mut left, mut right) = ([0f32; 64], [0f32; 64]);
        let mut pointers = [left.as_mut_ptr(), right.as_mut_ptr()];
        let mut again = pointers;
        let (mut inputs, mut outputs) = ([bus(Some(&mut pointers), 2)], [bus(Some(&mut again), 2)]);
        // SAFETY: the block is valid; it was made above.
        assert!(matches!(
            unsafe { buffers_for(1).complete_block(&data(64, &mut inputs, &mut outputs)) },
            MissingBuses::None
        ));
    }

    #[test]
    fn a_missing_input_is_silence_and_not_the_output() {
        let (mut left, mut right) = ([1f32; 64], [1f32; 64]);
        let mut pointers = [left.as_mut_ptr(), right.as_mut_ptr()];
        let mut outputs = [bus(Some(&mut pointers), 2)];
        for mut inputs in [vec![], vec![bus(None, 2)], vec![bus(Some(&mut [std::ptr::null_mut(); 2]), 2)]] {
            let mut bus_buffers = buffers_for(1);
            // SAFETY: the block is valid; it was made above.
            let MissingBuses::Completed { inputs, outputs } =
                (unsafe { bus_buffers.complete_block(&data(64, &mut inputs, &mut outputs)) })
            else {
                panic!("not completed")
            };
            // SAFETY: valid buses; they were completed above.
            unsafe {
                assert_eq!((*inputs).numChannels, 2);
                let channel = *(*inputs).__field0.channelBuffers32.add(1);
                assert!(std::slice::from_raw_parts(channel, 64).iter().all(|x| *x == 0.0));
                assert_eq!(*(*outputs).__field0.channelBuffers32, left.as_mut_ptr());
            }
        }
    }

    #[test]
    fn missing_outputs_get_buffers_and_others_stay() {
        let (mut left, mut right) = ([1f32; 64], [1f32; 64]);
        let mut pointers = [left.as_mut_ptr(), right.as_mut_ptr()];
        let mut half = [left.as_mut_ptr(), std::ptr::null_mut()];
        let mut inputs = [bus(Some(&mut pointers.clone()), 2)];
        let mut outputs = [bus(None, 0), bus(Some(&mut pointers), 2), bus(Some(&mut half), 2)];
        let mut bus_buffers = buffers_for(7);
        // SAFETY: the block is valid; it was made above.
        let MissingBuses::Completed { outputs, .. } =
            (unsafe { bus_buffers.complete_block(&data(64, &mut inputs, &mut outputs)) })
        else {
            panic!("not completed")
        };
        // SAFETY: seven buses of two channels, completed above.
        let filled: Vec<*mut f32> = (0..14)
            .map(|channel| unsafe { *(*outputs.add(channel / 2)).__field0.channelBuffers32.add(channel % 2) })
            .collect();
        assert!(filled.iter().all(|pointer| !pointer.is_null()));
        assert_eq!(filled[2], left.as_mut_ptr());
        assert_eq!(filled[4], left.as_mut_ptr());
        let own: std::collections::HashSet<_> = filled.iter().collect();
        assert_eq!(own.len(), 13, "only the pointer that the host passed twice repeats");
    }

    #[test]
    fn extra_channels_are_ignored() {
        let mut samples = [[1f32; 64]; 3];
        let mut pointers = samples.each_mut().map(|channel| channel.as_mut_ptr());
        let (mut inputs, mut outputs) =
            ([bus(Some(&mut pointers.clone()), 3)], [bus(Some(&mut pointers), 3)]);
        for channels in [1, 2] {
            let mut bus_buffers = buffers_for(1);
            bus_buffers.set_layout(1, channels);
            // SAFETY: the block is valid; it was made above.
            let MissingBuses::Completed { inputs, outputs } =
                (unsafe { bus_buffers.complete_block(&data(64, &mut inputs, &mut outputs)) })
            else {
                panic!("not completed")
            };
            // SAFETY: valid buses; they were completed above.
            unsafe {
                assert_eq!(
                    ((*inputs).numChannels, (*outputs).numChannels),
                    (channels as i32, channels as i32)
                );
                assert_eq!(*(*outputs).__field0.channelBuffers32, samples[0].as_mut_ptr());
            }
        }
    }

    #[test]
    fn no_channels_is_no_audio_and_long_blocks_are_refused() {
        let mut inputs = [bus(None, 0)];
        let mut outputs = [bus(None, 0)];
        // SAFETY: the block is valid; it was made above.
        assert!(matches!(
            unsafe { buffers_for(1).complete_block(&data(64, &mut inputs, &mut outputs)) },
            MissingBuses::None
        ));
        let mut outputs = [bus(None, 2)];
        // SAFETY: the block is valid; it was made above.
        assert!(matches!(
            unsafe { buffers_for(1).complete_block(&data(65, &mut inputs, &mut outputs)) },
            MissingBuses::TooLong
        ));
    }
}
