//! The buses of a VST3 block, completed.

use nice_plug::wrapper::vst3::vst3::Steinberg::Vst::{AudioBusBuffers, ProcessData};
use nice_plug::wrapper::vst3::vst3::Steinberg::int32;

use crate::plugin::shims::bus_buffers::{BUSES, Bus, BusBuffers, MissingBuses};

/// Buffers for missing buses, and the format's descriptions of completed ones.
pub(super) struct BlockBuses {
    pub buffers: BusBuffers,
    inputs: [AudioBusBuffers; 1],
    outputs: [AudioBusBuffers; BUSES],
}

/// The buses that a host passed.
pub(super) struct GivenBuses {
    inputs: *mut AudioBusBuffers,
    input_count: int32,
    outputs: *mut AudioBusBuffers,
    output_count: int32,
}

impl BlockBuses {
    pub fn new() -> Self {
        Self {
            buffers: BusBuffers::new(),
            // SAFETY: zero bytes are valid buses without channels.
            inputs: unsafe { std::mem::zeroed() },
            // SAFETY: zero bytes are valid buses without channels.
            outputs: unsafe { std::mem::zeroed() },
        }
    }

    /// Realtime-safe: see [`BusBuffers::complete_block`].
    ///
    /// # Safety
    /// The pointers in `data` are null or valid for the sizes that it states.
    pub unsafe fn complete(&mut self, data: &ProcessData, always: bool) -> MissingBuses {
        let samples = usize::try_from(data.numSamples).unwrap_or(0);
        // SAFETY: null or valid by this function's contract.
        unsafe {
            let input = bus_of(data.inputs, data.numInputs, 0).unwrap_or(Bus::NONE);
            let output = |bus| bus_of(data.outputs, data.numOutputs, bus);
            self.buffers.complete_block(samples, input, output, always)
        }
    }

    /// Realtime-safe: puts the completed buses into `data`. Returns the host's, for [`restore`](Self::restore).
    pub fn replace(&mut self, data: &mut ProcessData) -> GivenBuses {
        let given = GivenBuses {
            inputs: data.inputs,
            input_count: data.numInputs,
            outputs: data.outputs,
            output_count: data.numOutputs,
        };
        let mut count = 0;
        for (description, bus) in self.outputs.iter_mut().zip(self.buffers.outputs()) {
            describe(description, bus);
            count += 1;
        }
        let [input] = &mut self.inputs;
        describe(input, self.buffers.input());
        (data.inputs, data.numInputs) = (self.inputs.as_mut_ptr(), 1);
        (data.outputs, data.numOutputs) = (self.outputs.as_mut_ptr(), count);
        given
    }

    /// Realtime-safe: puts the host's buses back.
    pub fn restore(given: GivenBuses, data: &mut ProcessData) {
        (data.inputs, data.numInputs) = (given.inputs, given.input_count);
        (data.outputs, data.numOutputs) = (given.outputs, given.output_count);
    }
}

fn describe(description: &mut AudioBusBuffers, bus: Bus) {
    description.numChannels = bus.count as int32;
    description.silenceFlags = 0;
    description.__field0.channelBuffers32 = bus.channels;
}

/// # Safety
/// `buses` is null or an array of `count` buses of 32-bit samples.
unsafe fn bus_of(buses: *const AudioBusBuffers, count: int32, index: usize) -> Option<Bus> {
    if buses.is_null() || index >= usize::try_from(count).unwrap_or(0) {
        return None;
    }
    // SAFETY: within the array by this function's contract; 32-bit samples are the only variant of the union that the class uses.
    unsafe {
        let bus = &*buses.add(index);
        let count = usize::try_from(bus.numChannels).unwrap_or(0);
        Some(Bus { channels: bus.__field0.channelBuffers32, count })
    }
}
