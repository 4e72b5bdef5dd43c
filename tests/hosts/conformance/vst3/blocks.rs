//! Blocks in which a host leaves something out.

use super::*;

#[test]
fn a_block_before_setup_or_of_64_bit_samples_is_refused() {
    let instance = Instance::new(STEREO);
    let (mut left, mut right) = ([0f32; BLOCK], [0f32; BLOCK]);
    let mut pointers = [left.as_mut_ptr(), right.as_mut_ptr()];
    assert_ne!(instance.process(&mut [], &mut [bus(&mut pointers)], BLOCK), kResultOk);
    let instance = Instance::active(STEREO);
    unsafe {
        let mut data: ProcessData = std::mem::zeroed();
        data.symbolicSampleSize = SymbolicSampleSizes_::kSample64 as i32;
        assert_ne!(instance.processor.process(&mut data), kResultOk);
        assert_ne!(instance.processor.process(null_mut()), kResultOk);
        let mut setup = ProcessSetup {
            processMode: 0,
            symbolicSampleSize: SymbolicSampleSizes_::kSample64 as i32,
            maxSamplesPerBlock: 64,
            sampleRate: 48_000.0,
        };
        assert_ne!(Instance::new(STEREO).processor.setupProcessing(&mut setup), kResultOk);
    }
}

#[test]
fn a_missing_input_is_silence() {
    let instance = Instance::active(STEREO);
    let latency = instance.latency();
    let mut done = 0;
    while done < latency + 2 * BLOCK {
        // The content of the output is not input.
        let (mut left, mut right) = ([0.5f32; BLOCK], [0.5f32; BLOCK]);
        let mut pointers = [left.as_mut_ptr(), right.as_mut_ptr()];
        let mut nulls = [null_mut(); 2];
        let mut inputs = match done / BLOCK % 3 {
            0 => vec![],
            1 => vec![no_bus()],
            _ => vec![bus(&mut nulls)],
        };
        let mut outputs = [bus(&mut pointers)];
        assert_eq!(instance.process(&mut inputs, &mut outputs, BLOCK), kResultOk);
        assert_eq!(outputs[0].silenceFlags, 0);
        assert!(left.iter().chain(&right).all(|sample| *sample == 0.0), "at {done}");
        done += BLOCK;
    }
}

#[test]
fn any_missing_outputs_leave_the_others_exact() {
    let instance = Instance::active(MULTI);
    let latency = instance.latency();
    let signal: Vec<f32> = crate::signal::floats(1, latency + 40 * BLOCK).remove(0);
    let mut heard = vec![f32::NAN; signal.len()];
    for (round, start) in (0..signal.len() - BLOCK).step_by(BLOCK).enumerate() {
        let mut input = [signal[start..start + BLOCK].to_vec(), signal[start..start + BLOCK].to_vec()];
        let mut planes = vec![[f32::NAN; BLOCK]; 14];
        let mut pointers: Vec<[*mut f32; 2]> = planes
            .chunks_exact_mut(2)
            .map(|bus| bus.iter_mut().map(|plane| plane.as_mut_ptr()).collect::<Vec<_>>().try_into().unwrap())
            .collect();
        // Always the main output; of the stems every subset in turn, as null pointers, as no channels, and as fewer buses.
        let given = |stem: usize| round >> stem & 1 == 1;
        let mut outputs: Vec<AudioBusBuffers> = pointers.iter_mut().map(|pointers| bus(pointers)).collect();
        let mut nulls = [null_mut(); 2];
        for stem in 0..6 {
            if !given(stem) {
                outputs[stem + 1] = if round % 2 == 0 { no_bus() } else { bus(&mut nulls) };
            }
        }
        if round % 5 == 0 {
            outputs.truncate(1 + round % 6);
        }
        let mut inputs: Vec<*mut f32> = input.iter_mut().map(|plane| plane.as_mut_ptr()).collect();
        let buses = outputs.len();
        assert_eq!(instance.process(&mut [bus(&mut inputs)], &mut outputs, BLOCK), kResultOk);
        heard[start..start + BLOCK].copy_from_slice(&planes[0]);
        for stem in (0..6).filter(|stem| given(*stem) && stem + 1 < buses) {
            assert!(
                planes[2 * stem + 2].iter().all(|sample| sample.is_finite()),
                "stem {stem}, round {round}"
            );
        }
    }
    let end = signal.len() - BLOCK;
    for n in latency..end {
        assert_eq!(heard[n].to_bits(), signal[n - latency].to_bits(), "sample {n}");
    }
}

#[test]
fn a_missing_main_output_does_not_stop_the_stems() {
    let instance = Instance::active(MULTI);
    let (mut left, mut right) = ([f32::NAN; BLOCK], [f32::NAN; BLOCK]);
    let mut pointers = [left.as_mut_ptr(), right.as_mut_ptr()];
    let mut nulls = [null_mut(); 2];
    for mut outputs in [[no_bus(), bus(&mut pointers)], [bus(&mut nulls), bus(&mut pointers.clone())]] {
        assert_eq!(instance.process(&mut [no_bus()], &mut outputs, BLOCK), kResultOk);
    }
    assert!(left.iter().chain(&right).all(|sample| *sample == 0.0), "nothing came in");
}

#[test]
fn parameter_changes_arrive_without_channels_or_samples() {
    let instance = Instance::active(STEREO);
    assert_eq!(instance.process(&mut [no_bus()], &mut [no_bus()], BLOCK), kResultOk);
    assert_eq!(instance.process(&mut [], &mut [], 0), kResultOk);
    assert_eq!(instance.process(&mut [], &mut [], BLOCK), kResultOk);
}

#[test]
fn the_tail_is_the_latency_from_activation_on() {
    let instance = Instance::active(STEREO);
    assert!(instance.latency() > 0);
    assert_eq!(unsafe { instance.processor.getTailSamples() } as usize, instance.latency());
}

#[test]
fn a_block_that_says_offline_waits_for_the_model() {
    let instance = Instance::new(STEREO);
    instance.set("Latency Tier", LOW);
    for stem in ["Vocals", "Drums", "Bass", "Other"] {
        instance.set(&format!("{stem} Mute"), 1.0);
    }
    // The activation announces real time.
    assert_eq!(instance.set_up(), kResultOk);
    unsafe {
        assert_eq!(instance.component.setActive(1), kResultOk);
        assert_eq!(instance.processor.setProcessing(1), kResultOk);
    }
    let latency = instance.latency();
    let mut output = Vec::new();
    while output.len() < latency + 40 * BLOCK {
        let (mut left, mut right) = ([0.5f32; BLOCK], [0.25f32; BLOCK]);
        let mut pointers = [left.as_mut_ptr(), right.as_mut_ptr()];
        let mut input_pointers = pointers;
        let (mut inputs, mut outputs) = ([bus(&mut input_pointers)], [bus(&mut pointers)]);
        unsafe {
            let mut data: ProcessData = std::mem::zeroed();
            data.processMode = ProcessModes_::kOffline as i32;
            data.numSamples = BLOCK as i32;
            (data.numInputs, data.inputs) = (1, inputs.as_mut_ptr());
            (data.numOutputs, data.outputs) = (1, outputs.as_mut_ptr());
            assert_eq!(instance.processor.process(&mut data), kResultOk);
        }
        output.extend(left);
    }
    assert_eq!(instance.latency(), latency);
    // With all stems muted, a sample whose stems did not come in time is the input.
    let loudest = output.iter().fold(0f32, |loudest, x| loudest.max(x.abs()));
    assert!(loudest < 1e-3, "{loudest}");
}
