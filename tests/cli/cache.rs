//! `cache`: prepared stems from the command line.

use std::path::PathBuf;

use super::support::{Studio, read, sum_to};

#[test]
fn songs_are_prepared_once_listed_exported_and_erased() {
    let studio = Studio::new();
    let song = read(&studio.song("song.wav", 2.0));
    let prepare = || {
        let run =
            studio.run(&["cache", "--json", "prepare", "--model", "model.safetensors", "song.wav"]).ok();
        run.events()[0]["id"].as_str().unwrap().to_owned()
    };
    let id = prepare();
    assert_eq!(prepare(), id, "the same song, model and settings");
    let list = studio.run(&["cache", "list", "--json"]).ok().events().remove(0);
    assert_eq!(list["entries"].as_array().unwrap().len(), 1);
    let entry = &list["entries"][0];
    assert_eq!((entry["id"].as_str(), entry["title"].as_str()), (Some(id.as_str()), Some("song")));
    assert_eq!((&entry["samples"], &entry["prepared_samples"]), (&88_200.into(), &88_200.into()));
    assert!(studio.run(&["cache"]).ok().out.contains(&id));

    let exported = studio.run(&["cache", "--json", "export", &id, "-o", "out"]).ok().events().remove(0);
    let outputs = exported["outputs"].as_array().unwrap();
    let files: Vec<PathBuf> = outputs.iter().map(|file| studio.path(file.as_str().unwrap())).collect();
    assert_eq!(files.len(), 4);
    assert!(sum_to(&song, &files));

    studio.run(&["cache", "erase", "0123"]).fails(2, &["0123"]);
    studio.run(&["cache", "limit", "-1"]).fails(2, &[]);
    let limit = studio.run(&["cache", "--json", "limit", "0.0001"]).ok().events().remove(0);
    assert_eq!((&limit["limit_bytes"], &limit["erased"]), (&100_000.into(), &1.into()));
    let song = ["cache", "prepare", "--model", "model.safetensors", "song.wav"];
    studio.run(&song).fails(2, &["limit"]);
    studio.run(&["cache", "limit", "1"]).ok();
    studio.run(&song).ok();
    studio.run(&["cache", "erase", "--all"]).ok();
    assert!(
        studio.run(&["cache", "list", "--json"]).ok().events()[0]["entries"].as_array().unwrap().is_empty()
    );
}

#[test]
fn a_song_that_cannot_be_read_is_named() {
    let studio = Studio::new();
    studio
        .run(&["cache", "prepare", "--model", "model.safetensors", "missing.wav"])
        .fails(4, &["missing.wav"]);
}
