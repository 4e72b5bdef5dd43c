use std::sync::atomic::AtomicUsize;

use super::*;
use crate::lossless::LosslessMode;
use crate::model::architecture::Architecture;
use crate::offline::memory;
use crate::prepared::entry::Entry;
use crate::separator::{ModelSpec, Runtime};

const RATE: u32 = 1000;

/// A small model of `stems` stems whose chunks are of four seconds.
fn separator(stems: usize) -> Separator {
    let mut arch = Architecture::reference_default();
    (arch.dim, arch.depth, arch.heads, arch.dim_head, arch.ff_inner) = (8, 1, 1, 4, 8);
    (arch.mask_hidden, arch.num_stems) = (8, stems);
    (arch.stft.n_fft, arch.stft.hop_length, arch.stft.win_length) = (64, 32, 64);
    arch.bands = vec![(0..10).collect(), (10..33).collect()];
    let mut info = ModelSpec::random("test", arch, 4000);
    info.sample_rate = RATE;
    info.overlap = 2;
    info.stems = ["drums", "other", "vocals"][..stems].iter().map(|name| (*name).to_owned()).collect();
    if stems == 1 {
        info.complement = Some("instrumental".into());
    }
    let runtime = Runtime { threads: 2, private_pool: true, ..Runtime::default() };
    Separator::random(info, 3, runtime).unwrap()
}

struct InMemory(Planar, u32);

impl Song for InMemory {
    fn rate(&self) -> u32 {
        self.1
    }

    fn channels(&self) -> usize {
        self.0.channels()
    }

    fn samples(&self) -> u64 {
        self.0.samples() as u64
    }

    fn read(&mut self, at: u64, count: usize) -> std::io::Result<Planar> {
        Ok(self.0.slice(at as usize..at as usize + count))
    }
}

fn noise(samples: usize) -> Planar {
    let mut state = 12_345u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        ((state >> 8) as f32 / 16_777_216.0 - 0.5).mul_add(32_768.0, 0.0).round() / 32_768.0
    };
    Planar::from_equal((0..2).map(|_| (0..samples).map(|_| next()).collect()).collect())
}

fn job<'a>(song: &'a mut InMemory, options: RenderOptions) -> Job<'a> {
    Job { song, at: Some(7), title: "T".into(), model: "M".into(), model_sha256: "sha".into(), options }
}

/// All samples of a part.
fn read_all(entry: &mut Entry, part: Part) -> Planar {
    let mut all = entry.read(part, 0).unwrap();
    let mut number = 1;
    while let Ok(block) = entry.read(part, number) {
        all.append(&block);
        number += 1;
    }
    all
}

#[test]
fn prepared_stems_equal_those_of_a_whole_separation() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::in_cache(folder.path());
    let mixture = noise(40_123);
    for (stems, lossless, rate) in [
        (3, LosslessMode::Spectral, RATE),
        (3, LosslessMode::Hybrid, RATE),
        (3, LosslessMode::Off, RATE),
        (1, LosslessMode::Spectral, RATE),
        (2, LosslessMode::Spectral, 1500),
    ] {
        let options = RenderOptions { lossless, ..RenderOptions::default() };
        let mut song = InMemory(mixture.clone(), rate);
        let handle = Arc::<JobHandle>::default();
        let id = job(&mut song, options.clone())
            .run(&store, &handle, &mut || Ok(separator(stems)), &mut |_| {})
            .unwrap();
        assert_eq!(handle.fraction(), 1.0);
        let mut entry = store.open(&id).unwrap();
        assert!(entry.index().is_complete());
        assert_eq!(read_all(&mut entry, Part::Audio).planes(), mixture.planes());
        let prepared = read_all(&mut entry, Part::Stems);
        let expected = memory::separate(&mut separator(stems), &mixture, rate, &options, &mut |_| {
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(
            entry.index().stems,
            expected.stems.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>()
        );
        for (n, (name, stem)) in expected.stems.iter().enumerate() {
            // The remainder stem also takes what the conversion of the rate loses, here as in the audio thread.
            if rate != RATE && name == "other" {
                continue;
            }
            for c in 0..2 {
                let worst = stem
                    .channel(c)
                    .iter()
                    .zip(prepared.channel(2 * n + c))
                    .map(|(x, y)| (x - y).abs())
                    .fold(0f32, f32::max);
                // The remainder stem takes the rounding of the others.
                assert!(worst <= 3.0 / 8_388_608.0, "{stems} stems, {lossless}, {rate} Hz, {name}: {worst}");
            }
        }
    }
}

#[test]
fn a_cancelled_job_is_continued_and_gives_the_same() {
    let mixture = noise(5 * BLOCK);
    for lossless in [LosslessMode::Spectral, LosslessMode::Hybrid] {
        let options = RenderOptions { lossless, ..RenderOptions::default() };
        let results: Vec<Planar> = [false, true]
            .into_iter()
            .map(|interrupted| {
                let folder = tempfile::tempdir().unwrap();
                let store = Store::in_cache(folder.path());
                let mut song = InMemory(mixture.clone(), RATE);
                let mut started_at = Vec::new();
                let id =
                    loop {
                        let handle = Arc::<JobHandle>::default();
                        let stop = AtomicUsize::new(0);
                        if interrupted && started_at.len() < 2 {
                            let stopper = Arc::clone(&handle);
                            // Cancels from another thread once some blocks are done.
                            std::thread::spawn(move || {
                                let before = stopper.fraction();
                                while stopper.fraction() < before + 0.4 && Arc::strong_count(&stopper) > 1 {
                                    std::thread::sleep(Duration::from_micros(200));
                                }
                                stopper.cancel();
                            });
                        }
                        started_at.push(
                            store.list().unwrap().first().map_or(0, |listed| {
                                listed.index.as_ref().map_or(0, |index| index.prepared())
                            }),
                        );
                        match job(&mut song, options.clone()).run(
                            &store,
                            &handle,
                            &mut || Ok(separator(2)),
                            &mut |_| {
                                stop.fetch_add(1, Relaxed);
                            },
                        ) {
                            Ok(id) => break id,
                            Err(JobError::Cancelled) => assert!(interrupted),
                            Err(error) => panic!("{error}"),
                        }
                    };
                if interrupted && lossless == LosslessMode::Spectral {
                    assert!(
                        started_at.last().is_some_and(|at| *at > 0),
                        "it goes on where it was: {started_at:?}"
                    );
                }
                read_all(&mut store.open(&id).unwrap(), Part::Stems)
            })
            .collect();
        assert!(results[0].planes() == results[1].planes(), "{lossless}");
    }
}

#[test]
fn what_is_prepared_is_not_computed_again_and_nothing_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::in_cache(folder.path());
    let mut song = InMemory(noise(9_000), RATE);
    let handle = Arc::<JobHandle>::default();
    let run = |song: &mut InMemory| {
        job(song, RenderOptions::default()).run(&store, &handle, &mut || Ok(separator(2)), &mut |_| {})
    };
    let id = run(&mut song).unwrap();
    let modified =
        |file: &str| std::fs::metadata(store.folder().join(&id).join(file)).unwrap().modified().unwrap();
    let before = modified("stems.bin");
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(run(&mut song).unwrap(), id);
    assert_eq!(modified("stems.bin"), before);
    assert!(matches!(run(&mut InMemory(Planar::new(2), RATE)), Err(JobError::Empty)));
    let failed = job(&mut song, RenderOptions::default()).run(
        &store,
        &handle,
        &mut || Err("gone".into()),
        &mut |_| {},
    );
    assert!(failed.unwrap_err().to_string().contains("gone"));
}

#[test]
fn a_job_waits_for_its_pause_to_end() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::in_cache(folder.path());
    let handle = Arc::<JobHandle>::default();
    handle.set_paused(true);
    let worker = Arc::clone(&handle);
    let thread = std::thread::spawn(move || {
        let mut song = InMemory(noise(9_000), RATE);
        job(&mut song, RenderOptions::default()).run(&store, &worker, &mut || Ok(separator(2)), &mut |_| {})
    });
    std::thread::sleep(Duration::from_millis(300));
    assert!(!thread.is_finished() && handle.fraction() == 0.0);
    handle.set_paused(false);
    thread.join().unwrap().unwrap();
}
