//! Runs: songs from folders, steps, state files.

use std::ops::ControlFlow;
use std::path::Path;

use candle_core::{Device, Tensor};
use nullsum::audio::{AudioWriter, Container, Planar, SampleFormat, WriterSpec};
use nullsum::dsp::Random;
use nullsum::model::checkpoint::Checkpoint;
use nullsum::model::config::Config;
use nullsum::train::{
    Batches, DataOptions, MissingStems, MixConfig, OptimizerConfig, RoformerForTraining, Schedule, SongSet,
    TrainData, TrainEvent, Trainer,
};

use super::YAML;

fn options() -> DataOptions {
    DataOptions {
        instruments: ["a", "b"].map(String::from).into(),
        sample_rate: 8000,
        channels: 2,
        missing: MissingStems::Refuse,
    }
}

fn write(path: &Path, planes: Vec<Vec<f32>>) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let spec = WriterSpec {
        container: Container::Wav,
        format: SampleFormat::Float32,
        channels: planes.len(),
        sample_rate: 8000,
    };
    let mut writer = AudioWriter::create(path, spec).unwrap();
    writer.write(&Planar::from_equal(planes)).unwrap();
    writer.finish().unwrap();
}

/// Two songs: a is a low tone, b noise.
fn songs(folder: &Path) {
    for (song, pitch) in [("train/one", 0.05f32), ("train/two", 0.08)] {
        let tone: Vec<f32> = (0..6000).map(|i| 0.3 * (i as f32 * pitch).sin()).collect();
        let noise = Random::new(u64::from(pitch.to_bits())).noise(6000, 0.2);
        write(&folder.join(song).join("a.wav"), vec![tone.clone(), tone]);
        write(&folder.join(song).join("b.wav"), vec![noise]);
        write(&folder.join(song).join("mixture.wav"), vec![vec![0.0; 6000]]);
    }
}

fn open(folder: &Path) -> Result<SongSet, String> {
    SongSet::open(folder, &options(), |_| true, |_| {}).map_err(|error| error.to_string())
}

#[test]
fn songs_are_found_below_the_folder_and_read_at_any_place() {
    let folder = tempfile::tempdir().unwrap();
    songs(folder.path());
    let set = open(folder.path()).unwrap();
    let names: Vec<&str> = set.songs().iter().map(|song| song.name()).collect();
    assert_eq!(names, ["train/one", "train/two"]);
    let mut out = vec![9.0; 2 * 10];
    set.songs()[0].read(0, 5995, 2, &mut out).unwrap();
    let expected: Vec<f32> =
        (5995..6005).map(|i| if i < 6000 { 0.3 * (i as f32 * 0.05).sin() } else { 0.0 }).collect();
    assert_eq!(out, [expected.clone(), expected].concat());
}

#[test]
fn bad_songs_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let fails = |part: &str| {
        let error = open(folder.path()).err().unwrap_or_else(|| panic!("taken, expected {part}"));
        assert!(error.contains(part), "{error}");
    };
    fails("a.wav, b.wav");
    write(&folder.path().join("song/a.wav"), vec![vec![0.1; 4000]]);
    fails("no file for the stem b");
    let silent = DataOptions { missing: MissingStems::Silent, ..options() };
    assert!(SongSet::open(folder.path(), &silent, |_| true, |_| {}).is_ok());
    write(&folder.path().join("song/b.wav"), vec![vec![0.1; 5000]]);
    fails("different lengths");
    write(&folder.path().join("song/b.wav"), vec![vec![f32::NAN; 4000]]);
    fails("expected finite numbers");
    std::fs::write(folder.path().join("song/b.wav"), b"no audio").unwrap();
    fails("b.wav");
    std::fs::write(folder.path().join("song/b.flac"), b"no audio").unwrap();
    fails("two files of one stem");
    assert!(open(&folder.path().join("nowhere")).err().unwrap().contains("nowhere"));
}

#[test]
fn batches_depend_on_seed_and_number_alone_and_sum_to_the_mixture() {
    let folder = tempfile::tempdir().unwrap();
    songs(folder.path());
    let set = open(folder.path()).unwrap();
    let mix = MixConfig { batch: 3, samples: 500, seed: 7, ..MixConfig::default() };
    let make = |index| Batches::new(&set, mix.clone(), vec![0, 1]).unwrap().make(index).unwrap();
    let values = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let batch = make(5);
    assert_eq!(batch.mixture.dims(), [3, 2, 500]);
    assert_eq!(batch.target.dims(), [3, 2, 2, 500]);
    assert_eq!(values(&batch.target), values(&make(5).target));
    assert_ne!(values(&batch.target), values(&make(6).target));
    assert_eq!(values(&batch.target.sum(1).unwrap()), values(&batch.mixture));
    assert!(values(&batch.mixture).iter().any(|x| *x != 0.0));
}

fn trainer(state: &Path, steps: u64, muon_lr: Option<f64>) -> Trainer {
    let model = RoformerForTraining::new(&Config::from_yaml(YAML, "small").unwrap(), 1).unwrap();
    let optimizer = OptimizerConfig { adam_lr: 3e-3, muon_lr, ..OptimizerConfig::default() };
    let schedule =
        Schedule { steps, warmup: 2, decay: 0.0, accumulate: 2, validate_every: 0, ..Schedule::default() };
    let mix = MixConfig { batch: 2, samples: 600, ..MixConfig::default() };
    Trainer::new(model, optimizer, schedule, mix, state).unwrap()
}

/// Runs to the end and returns the losses.
fn run(trainer: &mut Trainer, set: &SongSet) -> Vec<f64> {
    let mut losses = Vec::new();
    let data =
        TrainData { songs: set, validation: None, stems: vec!["a".into(), "b".into()], targets: vec![0, 1] };
    trainer
        .run(&data, None, &mut |event| {
            if let TrainEvent::Step { loss, .. } = event {
                losses.push(loss);
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    losses
}

#[test]
fn a_resumed_run_is_identical() {
    let folder = tempfile::tempdir().unwrap();
    songs(folder.path());
    let set = open(folder.path()).unwrap();
    for muon_lr in [None, Some(0.01)] {
        let at = |name: &str| folder.path().join(name);
        let mut whole = trainer(&at("whole.state"), 6, muon_lr);
        let losses = run(&mut whole, &set);
        whole.export(&at("whole.safetensors")).unwrap();

        let mut first = trainer(&at("parts.state"), 3, muon_lr);
        let mut parts = run(&mut first, &set);
        let mut second = trainer(&at("parts.state"), 6, muon_lr);
        second.resume().unwrap();
        assert_eq!(second.steps(), 3);
        parts.extend(run(&mut second, &set));
        second.export(&at("parts.safetensors")).unwrap();
        assert_eq!(losses, parts);
        let bytes = |name: &str| std::fs::read(at(name)).unwrap();
        assert!(bytes("whole.safetensors") == bytes("parts.safetensors"), "muon {muon_lr:?}");
        assert!(bytes("whole.state") == bytes("parts.state"));
    }
}

#[test]
fn a_state_of_other_settings_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("a.state");
    trainer(&state, 3, None).save().unwrap();
    let error = trainer(&state, 3, Some(0.1)).resume().unwrap_err().to_string();
    assert!(error.contains("a.state") && error.contains("muon: false"), "{error}");
    let model = RoformerForTraining::new(&Config::from_yaml(YAML, "small").unwrap(), 1).unwrap();
    model.export(&state).unwrap();
    let error = trainer(&state, 3, None).resume().unwrap_err().to_string();
    assert!(error.contains("no training state"), "{error}");
}

#[test]
fn a_failed_write_keeps_the_last_good_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let model = RoformerForTraining::new(&Config::from_yaml(YAML, "small").unwrap(), 1).unwrap();
    model.export(&path).unwrap();
    let good = std::fs::read(&path).unwrap();
    let first = model.parameters().iter().next().unwrap();
    first.set(&(first.value() * f64::NAN).unwrap()).unwrap();
    let error = model.export(&path).unwrap_err().to_string();
    assert!(error.contains(first.name()) && error.contains("NaN"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), good);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    assert!(Checkpoint::open(&path).is_ok());
    let error = model.export(&folder.path().join("none/model.safetensors")).unwrap_err().to_string();
    assert!(error.contains("none"), "{error}");
}

#[test]
fn a_small_model_learns_to_tell_a_tone_from_noise() {
    let folder = tempfile::tempdir().unwrap();
    songs(folder.path());
    let set = open(folder.path()).unwrap();
    let losses = run(&mut trainer(&folder.path().join("a.state"), 60, Some(0.02)), &set);
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    let (first, last) = (mean(&losses[..10]), mean(&losses[50..]));
    assert!(last < 0.8 * first, "{first} to {last}");
}

#[test]
fn weights_of_stems_scale_their_part_of_the_gradient() {
    let model = RoformerForTraining::new(&Config::from_yaml(YAML, "small").unwrap(), 1).unwrap();
    let x = Tensor::from_vec(Random::new(1).noise(2 * 600, 0.5), (1, 2, 600), &Device::Cpu).unwrap();
    let y = Tensor::from_vec(Random::new(2).noise(4 * 600, 0.5), (1, 2, 2, 600), &Device::Cpu).unwrap();
    let gradients = |weights: &[f32]| model.weighted_loss(&x, &y, Some(weights)).unwrap().backward().unwrap();
    let (none, all) = (gradients(&[0.0, 1.0]), model.loss(&x, &y).unwrap().backward().unwrap());
    let of = |g: &nullsum::train::Gradients, name: &str| -> Vec<f32> {
        let gradient = g.by_name(model.parameters(), name).unwrap();
        gradient.flatten_all().unwrap().to_vec1().unwrap()
    };
    assert!(of(&none, "mask_estimators.0.to_freqs.0.0.0.weight").iter().all(|g| *g == 0.0));
    let name = "mask_estimators.1.to_freqs.0.0.0.weight";
    assert_eq!(of(&none, name), of(&all, name));
    assert!(model.weighted_loss(&x, &y, Some(&[1.0])).is_err());
}
