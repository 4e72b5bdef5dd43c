//! `demo`: composes a piece, separates it and measures the result.

use std::path::Path;

use nullsum::audio::{AudioError, AudioWriter, Container, Decoder, Planar, SampleFormat, WriterSpec};
use nullsum::demo::{SAMPLE_RATE, STEMS, Stereo, baseline_sdr, compose, sdr};
use nullsum::embedded;
use nullsum::offline::options::RenderOptions;
use nullsum::offline::render::render;
use nullsum::separator::Separator;
use serde_json::json;

use crate::args::DemoArgs;
use crate::exit::{CliResult, ExitStatus, Failure, OrFail};
use crate::interrupt;
use crate::model_source;
use crate::printer::Printer;
use crate::progress::SongProgress;
use crate::report::{null_text, path_text, song_event};

/// Base name of the files.
const NAME: &str = "demo";

/// Composes, separates, measures.
pub fn run(args: &DemoArgs) -> CliResult {
    let printer: Printer = args.printer.into();
    // The demo uses the embedded model unless another is named, so that it needs no network.
    let mut model = args.model.clone();
    model.model.get_or_insert_with(|| embedded::NAME.into());
    let source = model_source::open_model(&model, printer)?;
    let family = model_source::family(&model);
    let mut separator = Separator::load(&source.checkpoint, &source.config, family, args.run.runtime())
        .or_fail(ExitStatus::Model)?;

    let piece = compose(args.seed);
    let references = args.output.join("reference");
    std::fs::create_dir_all(&references).map_err(|error| {
        Failure::new(ExitStatus::Io, format!("cannot create {}: {error}", references.display()))
    })?;
    let mixture = args.output.join(format!("{NAME}.wav"));
    if mixture.exists() && !matches_piece(&mixture, &piece.mixture) {
        let what = "is there already, and is not the piece of this seed; name another folder with --output";
        return Err(Failure::new(ExitStatus::Io, format!("{} {what}", mixture.display())));
    }
    write(&mixture, &piece.mixture).or_fail(ExitStatus::Io)?;
    for (name, stem) in STEMS.iter().zip(&piece.stems) {
        write(&references.join(format!("{NAME}_{name}.wav")), stem).or_fail(ExitStatus::Io)?;
    }
    printer.print_line(&format!(
        "Composed {}: {:.1} s at {} beats per minute, seed {}; its true stems are in {}",
        mixture.display(),
        piece.samples() as f64 / f64::from(SAMPLE_RATE),
        piece.tempo,
        args.seed,
        references.display()
    ));
    printer.note(&format!("Separating it with {} on {} …", source.name, separator.device()));

    let report = {
        let mut progress = SongProgress::new(printer, &mixture, (1, 1), 1);
        render(&mut separator, &mixture, &args.output, &RenderOptions::default(), &mut |step| {
            progress.update(step);
            interrupt::stop_flow()
        })?
    };

    let mut rows = Vec::new();
    let info = separator.info();
    for (name, path) in info.stems.iter().chain(&info.complement).zip(&report.outputs) {
        // The complement of a vocals model may be called `other`; it is everything but the vocals.
        let is_complement = info.complement.as_ref() == Some(name);
        let reference = if is_complement { piece.without(&info.stems[0]) } else { piece.reference(name) };
        if let Some(reference) = reference {
            let estimate = read(path).or_fail(ExitStatus::Io)?;
            rows.push((name, path, sdr(&reference, &estimate), baseline_sdr(&reference, &piece.mixture)));
        }
    }
    if printer.json() {
        let stems: Vec<_> = rows
            .iter()
            .map(|(name, path, sdr, baseline)| {
                json!({"stem": name, "output": path_text(path), "sdr_db": sdr, "baseline_sdr_db": baseline})
            })
            .collect();
        let mut event = song_event("demo", &report);
        event["model"] = json!(source.name);
        event["seed"] = json!(args.seed);
        event["mixture"] = json!(path_text(&mixture));
        event["stems"] = json!(stems);
        printer.event(&event);
        return Ok(());
    }
    printer.print_line("\nSTEM          SDR dB   scaled mixture   FILE");
    for (name, path, sdr, baseline) in rows {
        printer.print_line(&format!("{name:<12} {sdr:>7.2}   {baseline:>14.2}   {}", path.display()));
    }
    let elapsed = report.elapsed.as_secs_f64();
    let rtf = elapsed / report.audio_seconds.max(1e-9);
    printer.print_line(&format!(
        "\n{elapsed:.1} s for {:.1} s of audio: RTF {rtf:.3}, {:.2} times real time; {}",
        report.audio_seconds,
        1.0 / rtf.max(1e-9),
        null_text(report.null, true)
    ));
    printer.print_line(
        "SDR is against the true stems; `scaled mixture` is what an estimate scores that separates nothing. A synthetic \
         piece is no benchmark: models are trained on recordings.",
    );
    Ok(())
}

/// Whether the file holds the piece as this command writes it.
fn matches_piece(path: &Path, piece: &Stereo) -> bool {
    let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 1.5 / 32_768.0;
    read(path).is_ok_and(|found| {
        found.iter().zip(piece).all(|(a, b)| a.len() == b.len() && a.iter().zip(b).all(near))
    })
}

fn write(path: &Path, track: &Stereo) -> Result<(), AudioError> {
    let spec = WriterSpec {
        container: Container::Wav,
        format: SampleFormat::Pcm16,
        channels: 2,
        sample_rate: SAMPLE_RATE,
    };
    let mut writer = AudioWriter::create(path, spec)?;
    writer.write(&Planar::from_equal(track.to_vec()))?;
    writer.finish().map(drop)
}

fn read(path: &Path) -> Result<Stereo, AudioError> {
    let mut decoder = Decoder::open(path)?;
    let mut track = Stereo::default();
    let mut block = Planar::default();
    while decoder.read(1 << 16, &mut block)? > 0 {
        for (c, channel) in track.iter_mut().enumerate() {
            channel.extend_from_slice(block.channel(c.min(block.channels() - 1)));
        }
        block.clear();
    }
    Ok(track)
}
