//! Room for the buses and channels that a host leaves out.
//!
//! A host may deactivate buses, and then gives null pointers for them, or fewer buses than there are. The wrapper reads through those
//! pointers, leaves out the block, or takes what stands in the output for the input. Here they get memory of the plugin's own. Channels past
//! those of the layout, which a host may hand over although it was refused them, are left as they are: the wrapper would panic.

use nice_plug::wrapper::vst3::vst3::Steinberg::Vst::{AudioBusBuffers, ProcessData};

/// Output buses of the class with the most.
pub(super) const BUSES: usize = 7;
/// Channels of a bus at most.
pub(super) const CHANNELS: usize = 2;
/// Largest block that room is made for.
const MOST: usize = 1 << 20;

/// Pointers of a bus's channels.
type Channels = [*mut f32; CHANNELS];

/// What a host has left out.
pub(super) enum Gap {
    /// Nothing, or all: then it is no audio, and the wrapper knows that.
    None,
    /// It is filled: use these buses instead.
    Filled {
        /// The one input bus.
        inputs: *mut AudioBusBuffers,
        /// All output buses.
        outputs: *mut AudioBusBuffers,
    },
    /// The block is larger than the host has announced.
    TooLong,
}

/// Memory for what is left out: outputs that are written by the plugin and read by nobody, and an input of silence.
pub(super) struct Room {
    /// [bus · `CHANNELS` + channel] of the outputs.
    samples: Vec<Vec<f32>>,
    silence: Vec<f32>,
    /// Output buses and channels of the main ones; set at activation.
    buses: usize,
    channels: usize,
    pointers: [Channels; BUSES],
    input_pointers: Channels,
    outputs: [AudioBusBuffers; BUSES],
    inputs: [AudioBusBuffers; 1],
}

impl Room {
    /// None at all.
    pub fn new() -> Self {
        Self {
            samples: Vec::new(),
            silence: Vec::new(),
            buses: 1,
            channels: CHANNELS,
            pointers: [[std::ptr::null_mut(); CHANNELS]; BUSES],
            input_pointers: [std::ptr::null_mut(); CHANNELS],
            // SAFETY: all-zero is a bus without channels.
            outputs: unsafe { std::mem::zeroed() },
            // SAFETY: as above.
            inputs: unsafe { std::mem::zeroed() },
        }
    }

    /// Makes room for blocks of up to `samples`. Allocates.
    pub fn resize(&mut self, samples: usize) {
        let samples = samples.min(MOST);
        self.samples = vec![vec![0.0; samples]; BUSES * CHANNELS];
        self.silence = vec![0.0; samples];
    }

    /// Whether a host has ever said how long blocks are.
    pub fn is_ready(&self) -> bool {
        !self.samples.is_empty()
    }

    /// Sets what a whole set of buses is: their number, and channels of the main input and output.
    pub fn expect(&mut self, buses: usize, channels: usize) {
        self.buses = buses.clamp(1, BUSES);
        self.channels = channels.clamp(1, CHANNELS);
    }

    /// Fills what is left out of a block. Realtime-safe.
    ///
    /// # Safety
    /// `data` is what a host hands over: its pointers are null or valid for what they say they hold.
    pub unsafe fn fill(&mut self, data: &ProcessData) -> Gap {
        let samples = usize::try_from(data.numSamples).unwrap_or(0);
        let given = usize::try_from(data.numOutputs).unwrap_or(0);
        if samples == 0 || given == 0 || data.outputs.is_null() {
            return Gap::None;
        }
        // SAFETY: the host gives `numOutputs` buses.
        let outputs = unsafe { std::slice::from_raw_parts(data.outputs, given) };
        // A host that hands over parameters alone may do so in a block without channels.
        if outputs.iter().all(|bus| bus.numChannels <= 0) {
            return Gap::None;
        }
        let fits = |bus: &AudioBusBuffers, channels: usize| usize::try_from(bus.numChannels) == Ok(channels);
        let mut whole = given >= self.buses;
        for bus in 0..self.buses {
            let expected = if bus == 0 { self.channels } else { CHANNELS };
            whole &= outputs.get(bus).is_some_and(|bus| fits(bus, expected));
            let own = |channel: usize| self.samples.get(bus * CHANNELS + channel);
            let mut pointers = [std::ptr::null_mut(); CHANNELS];
            for (channel, pointer) in pointers.iter_mut().enumerate().take(expected) {
                // SAFETY: by this function's contract.
                *pointer = unsafe { pointer_of(outputs.get(bus), channel) };
                if pointer.is_null() {
                    whole = false;
                    match own(channel) {
                        Some(own) if own.len() >= samples => *pointer = own.as_ptr().cast_mut(),
                        _ => return Gap::TooLong,
                    }
                }
            }
            self.pointers[bus] = pointers;
        }
        let inputs = if data.numInputs > 0 && !data.inputs.is_null() {
            // SAFETY: the host gives `numInputs` buses.
            Some(unsafe { &*data.inputs })
        } else {
            None
        };
        whole &= inputs.is_some_and(|bus| fits(bus, self.channels));
        for (channel, pointer) in self.input_pointers.iter_mut().enumerate().take(self.channels) {
            // SAFETY: by this function's contract.
            *pointer = unsafe { pointer_of(inputs, channel) };
            if pointer.is_null() {
                whole = false;
                if self.silence.len() < samples {
                    return Gap::TooLong;
                }
                *pointer = self.silence.as_ptr().cast_mut();
            }
        }
        if whole {
            return Gap::None;
        }
        for (bus, (slot, pointers)) in self.outputs.iter_mut().zip(&mut self.pointers).enumerate() {
            slot.numChannels = if bus == 0 { self.channels } else { CHANNELS } as i32;
            slot.silenceFlags = 0;
            slot.__field0.channelBuffers32 = pointers.as_mut_ptr();
        }
        let [input] = &mut self.inputs;
        input.numChannels = self.channels as i32;
        input.silenceFlags = 0;
        input.__field0.channelBuffers32 = self.input_pointers.as_mut_ptr();
        Gap::Filled { inputs: self.inputs.as_mut_ptr(), outputs: self.outputs.as_mut_ptr() }
    }

    /// Number of output buses in a filled block.
    pub fn buses(&self) -> usize {
        self.buses
    }
}

/// Where a channel is; null where there is none.
///
/// # Safety
/// The bus is one of 32-bit floats, whose pointers are null or valid.
unsafe fn pointer_of(bus: Option<&AudioBusBuffers>, channel: usize) -> *mut f32 {
    let Some(bus) = bus else { return std::ptr::null_mut() };
    // SAFETY: a union of pointers, of which the class takes this one alone.
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

    /// What a host gives for a bus: pointers, or none.
    fn bus(pointers: Option<&mut [*mut f32]>, channels: i32) -> AudioBusBuffers {
        // SAFETY: all-zero is a bus without channels.
        let mut bus: AudioBusBuffers = unsafe { std::mem::zeroed() };
        bus.numChannels = channels;
        bus.__field0.channelBuffers32 = pointers.map_or(std::ptr::null_mut(), <[_]>::as_mut_ptr);
        bus
    }

    fn data(samples: i32, inputs: &mut [AudioBusBuffers], outputs: &mut [AudioBusBuffers]) -> ProcessData {
        // SAFETY: all-zero is a block of nothing.
        let mut data: ProcessData = unsafe { std::mem::zeroed() };
        data.numSamples = samples;
        (data.numInputs, data.inputs) = (inputs.len() as i32, inputs.as_mut_ptr());
        (data.numOutputs, data.outputs) = (outputs.len() as i32, outputs.as_mut_ptr());
        data
    }

    fn room(buses: usize) -> Room {
        let mut room = Room::new();
        room.resize(64);
        room.expect(buses, 2);
        room
    }

    #[test]
    fn a_whole_block_goes_through_as_it_is() {
        let (mut left, mut right) = ([0f32; 64], [0f32; 64]);
        let mut pointers = [left.as_mut_ptr(), right.as_mut_ptr()];
        let mut again = pointers;
        let (mut inputs, mut outputs) = ([bus(Some(&mut pointers), 2)], [bus(Some(&mut again), 2)]);
        // SAFETY: made above.
        assert!(matches!(unsafe { room(1).fill(&data(64, &mut inputs, &mut outputs)) }, Gap::None));
    }

    #[test]
    fn an_input_that_is_left_out_is_silence_and_not_what_stands_in_the_output() {
        let (mut left, mut right) = ([1f32; 64], [1f32; 64]);
        let mut pointers = [left.as_mut_ptr(), right.as_mut_ptr()];
        let mut outputs = [bus(Some(&mut pointers), 2)];
        for mut inputs in [vec![], vec![bus(None, 2)], vec![bus(Some(&mut [std::ptr::null_mut(); 2]), 2)]] {
            let mut room = room(1);
            // SAFETY: made above.
            let Gap::Filled { inputs, outputs } =
                (unsafe { room.fill(&data(64, &mut inputs, &mut outputs)) })
            else {
                panic!("not filled")
            };
            // SAFETY: filled above.
            unsafe {
                assert_eq!((*inputs).numChannels, 2);
                let channel = *(*inputs).__field0.channelBuffers32.add(1);
                assert!(std::slice::from_raw_parts(channel, 64).iter().all(|x| *x == 0.0));
                assert_eq!(*(*outputs).__field0.channelBuffers32, left.as_mut_ptr());
            }
        }
    }

    #[test]
    fn every_output_that_is_left_out_has_memory_and_those_given_stay() {
        let (mut left, mut right) = ([1f32; 64], [1f32; 64]);
        let mut pointers = [left.as_mut_ptr(), right.as_mut_ptr()];
        let mut half = [left.as_mut_ptr(), std::ptr::null_mut()];
        let mut inputs = [bus(Some(&mut pointers.clone()), 2)];
        let mut outputs = [bus(None, 0), bus(Some(&mut pointers), 2), bus(Some(&mut half), 2)];
        let mut room = room(7);
        // SAFETY: made above.
        let Gap::Filled { outputs, .. } = (unsafe { room.fill(&data(64, &mut inputs, &mut outputs)) }) else {
            panic!("not filled")
        };
        // SAFETY: filled above, seven buses of two channels.
        let filled: Vec<*mut f32> = (0..14)
            .map(|lane| unsafe { *(*outputs.add(lane / 2)).__field0.channelBuffers32.add(lane % 2) })
            .collect();
        assert!(filled.iter().all(|pointer| !pointer.is_null()));
        assert_eq!(filled[2], left.as_mut_ptr());
        assert_eq!(filled[4], left.as_mut_ptr());
        let own: std::collections::HashSet<_> = filled.iter().collect();
        assert_eq!(own.len(), 13, "only what the host gave twice is there twice");
    }

    #[test]
    fn channels_past_those_of_the_layout_are_left_alone() {
        let mut samples = [[1f32; 64]; 3];
        let mut pointers = samples.each_mut().map(|channel| channel.as_mut_ptr());
        let (mut inputs, mut outputs) =
            ([bus(Some(&mut pointers.clone()), 3)], [bus(Some(&mut pointers), 3)]);
        for channels in [1, 2] {
            let mut room = room(1);
            room.expect(1, channels);
            // SAFETY: made above.
            let Gap::Filled { inputs, outputs } =
                (unsafe { room.fill(&data(64, &mut inputs, &mut outputs)) })
            else {
                panic!("not filled")
            };
            // SAFETY: filled above.
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
    fn no_channels_at_all_is_no_audio_and_what_is_too_long_is_refused() {
        let mut inputs = [bus(None, 0)];
        let mut outputs = [bus(None, 0)];
        // SAFETY: made above.
        assert!(matches!(unsafe { room(1).fill(&data(64, &mut inputs, &mut outputs)) }, Gap::None));
        let mut outputs = [bus(None, 2)];
        // SAFETY: as above.
        assert!(matches!(unsafe { room(1).fill(&data(65, &mut inputs, &mut outputs)) }, Gap::TooLong));
    }
}
