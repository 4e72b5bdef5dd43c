//! The blocks of a CLAP host, on their way to the wrapper: completed ports, and what the format says beside the audio.

use clap_sys::audio_buffer::clap_audio_buffer;
use clap_sys::events::{
    CLAP_CORE_EVENT_SPACE_ID, CLAP_EVENT_IS_LIVE, CLAP_EVENT_PARAM_VALUE, clap_event_param_value,
};
use clap_sys::process::clap_process;

use crate::plugin::shims::bus_buffers::{BUSES, Bus, BusBuffers, MissingBuses};

/// Buffers for missing ports, and the format's descriptions of completed ones.
pub(super) struct BlockPorts {
    pub buffers: BusBuffers,
    inputs: [clap_audio_buffer; 1],
    outputs: [clap_audio_buffer; BUSES],
}

const NO_PORT: clap_audio_buffer = clap_audio_buffer {
    data32: std::ptr::null_mut(),
    data64: std::ptr::null_mut(),
    channel_count: 0,
    latency: 0,
    constant_mask: 0,
};

impl BlockPorts {
    pub fn new() -> Self {
        Self { buffers: BusBuffers::new(), inputs: [NO_PORT], outputs: [NO_PORT; BUSES] }
    }

    /// Realtime-safe: the block with all ports. `None` if it is longer than the host announced. The wrapper would read past the host's array of
    /// ports, and skip the block.
    ///
    /// # Safety
    /// The pointers in `process` are null or valid for the sizes that it states.
    pub unsafe fn complete(&mut self, process: &clap_process) -> Option<clap_process> {
        let samples = process.frames_count as usize;
        // SAFETY: null or valid by this function's contract.
        let missing = unsafe {
            let input = port_of(process.audio_inputs, process.audio_inputs_count, 0).unwrap_or(Bus::NONE);
            let output = |port| port_of(process.audio_outputs, process.audio_outputs_count, port);
            self.buffers.complete_block(samples, input, output, false)
        };
        match missing {
            MissingBuses::None => Some(*process),
            MissingBuses::TooLong => None,
            MissingBuses::Completed => {
                let mut count = 0;
                for (port, bus) in self.outputs.iter_mut().zip(self.buffers.outputs()) {
                    *port = describe(bus);
                    count += 1;
                }
                self.inputs = [describe(self.buffers.input())];
                Some(clap_process {
                    audio_inputs: self.inputs.as_ptr(),
                    audio_inputs_count: 1,
                    audio_outputs: self.outputs.as_mut_ptr(),
                    audio_outputs_count: count,
                    ..*process
                })
            }
        }
    }
}

fn describe(bus: Bus) -> clap_audio_buffer {
    clap_audio_buffer { data32: bus.channels, channel_count: bus.count as u32, ..NO_PORT }
}

/// # Safety
/// `ports` is null or an array of `count` ports.
unsafe fn port_of(ports: *const clap_audio_buffer, count: u32, index: usize) -> Option<Bus> {
    if ports.is_null() || index >= count as usize {
        return None;
    }
    // SAFETY: within the array by this function's contract.
    let port = unsafe { &*ports.add(index) };
    Some(Bus { channels: port.data32, count: port.channel_count as usize })
}

/// Realtime-safe: calls `live` with each parameter that the user moves in the host right now, as opposed to automation.
///
/// # Safety
/// The events in `process` are null or valid.
pub(super) unsafe fn for_each_live_param(process: &clap_process, mut live: impl FnMut(u32)) {
    // SAFETY: null or valid by this function's contract; an event of that type has that layout.
    unsafe {
        let Some(events) = process.in_events.as_ref() else { return };
        let (Some(size), Some(get)) = (events.size, events.get) else { return };
        for index in 0..size(events) {
            let Some(header) = get(events, index).as_ref() else { continue };
            if (header.space_id, header.type_) == (CLAP_CORE_EVENT_SPACE_ID, CLAP_EVENT_PARAM_VALUE)
                && header.flags & CLAP_EVENT_IS_LIVE != 0
            {
                live((*std::ptr::from_ref(header).cast::<clap_event_param_value>()).param_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(
        samples: u32,
        inputs: &[clap_audio_buffer],
        outputs: &mut [clap_audio_buffer],
    ) -> clap_process {
        clap_process {
            steady_time: -1,
            frames_count: samples,
            transport: std::ptr::null(),
            audio_inputs: inputs.as_ptr(),
            audio_outputs: outputs.as_mut_ptr(),
            audio_inputs_count: inputs.len() as u32,
            audio_outputs_count: outputs.len() as u32,
            in_events: std::ptr::null(),
            out_events: std::ptr::null(),
        }
    }

    #[test]
    fn every_number_of_output_ports_is_completed() {
        let mut samples = [[0.5f32; 64]; 2];
        let mut pointers = samples.each_mut().map(|channel| channel.as_mut_ptr());
        let given = describe(Bus { channels: pointers.as_mut_ptr(), count: 2 });
        for count in 1..=BUSES {
            let mut ports = BlockPorts::new();
            ports.buffers.resize(64);
            ports.buffers.set_layout(BUSES, 2);
            let mut outputs = vec![NO_PORT; count];
            outputs[0] = given;
            // SAFETY: valid ports.
            let completed = unsafe { ports.complete(&process(64, &[given], &mut outputs)) }.unwrap();
            assert_eq!(completed.audio_outputs_count as usize, BUSES);
            // SAFETY: seven ports of two channels, completed above.
            unsafe {
                let all = std::slice::from_raw_parts(completed.audio_outputs, BUSES);
                assert_eq!(*all[0].data32, samples[0].as_mut_ptr());
                assert!(all.iter().all(|port| port.channel_count == 2 && !(*port.data32).is_null()));
            }
            // SAFETY: valid ports.
            assert!(unsafe { ports.complete(&process(65, &[given], &mut outputs)) }.is_none());
        }
    }
}
