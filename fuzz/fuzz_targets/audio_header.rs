//! The input is a whole audio file. What is read stays within what such a file can hold, in blocks that agree with
//! the header.
#![no_main]

use std::io::Cursor;
use std::panic::set_hook;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use nullsum::audio::{Decoder, MAX_CHANNELS, MAX_SAMPLE_RATE, Planar};

/// More than a small file can decode to.
const MOST_SAMPLES: u64 = 1 << 24;

fuzz_target!(
    init: {
        // Panics of the codecs are caught by the decoder and become errors; those of our own code reach the fuzzer,
        // which takes them for crashes without the help of a hook.
        set_hook(Box::new(|_| {}));
    },
    |file: &[u8]| {
        let Ok(mut decoder) = Decoder::from_source(Box::new(Cursor::new(file.to_vec())), Path::new("fuzz")) else {
            return;
        };
        let info = decoder.info().clone();
        assert!((1..=MAX_CHANNELS).contains(&info.channels));
        assert!((1..=MAX_SAMPLE_RATE).contains(&info.sample_rate));
        let mut block = Planar::default();
        while let Ok(samples) = decoder.read(4096, &mut block) {
            assert_eq!((block.channels(), block.samples()), (info.channels, samples));
            if samples == 0 || decoder.position() > MOST_SAMPLES {
                break;
            }
            block.clear();
        }
        if info.sample_format.is_exact() {
            // A stream that turns out longer than its header states has no stated length any more.
            assert!(decoder.info().samples.is_none_or(|announced| decoder.position() <= announced));
        }
    }
);
