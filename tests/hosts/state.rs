//! State: saved, restored, damaged, from later versions.

use serde_json::{Value, json};

use crate::host::{Host, LOW, Layout, REALTIME, RENDER, Run, TIER, both};
use crate::play::{Blocks, assert_delayed, assert_finite, play};
use crate::signal::{Random, floats};

/// Plays a signal and fails unless every sample is a number.
fn check_still_works<H: Host>(host: &mut H, what: &str) {
    host.set(RENDER, REALTIME);
    host.activate(Run::live(44100, 256));
    let input = floats(2, 4000);
    assert_finite(what, &play(host, &input, Blocks::Fixed(256)));
}

/// A state in which nothing has its default value, as JSON.
fn non_default_state<H: Host>() -> (H, Value) {
    let mut host = H::create(Layout::Stereo);
    for (name, value) in
        [("Vocals Gain", 0.25), ("Drums Solo", 1.0), ("Bass Pan", 0.75), ("Mix", 0.5), (TIER, 1.0)]
    {
        host.set(name, value);
    }
    let state = serde_json::from_slice(&host.save()).unwrap();
    (host, state)
}

both! {
    fn state_survives_save_and_restore<H>() {
        let (mut host, state) = non_default_state::<H>();
        let saved = host.save();
        for active in [false, true] {
            let mut restored = H::create(Layout::Stereo);
            if active {
                restored.activate(Run::live(48000, 128));
            }
            assert!(restored.load(&saved), "{}: refused its own state", H::FORMAT);
            for name in host.parameters() {
                assert_eq!(host.get(&name), restored.get(&name), "{}: {name}, active {active}", H::FORMAT);
            }
            // A running instance adds properties of its model, and keeps them.
            let again: Value = serde_json::from_slice(&restored.save()).unwrap();
            assert_eq!((&again["params"], &again["version"]), (&state["params"], &state["version"]));
        }
    }

    fn state_crosses_between_the_classes<H>() {
        let (mut host, _) = non_default_state::<H>();
        let mut multi = H::create(Layout::Multi);
        assert!(multi.load(&host.save()));
        for name in host.parameters() {
            assert_eq!(host.get(&name), multi.get(&name), "{}: {name}", H::FORMAT);
        }
    }

    fn state_restored_while_playing_keeps_the_output_exact<H>() {
        let mut host = H::create(Layout::Stereo);
        let default = {
            host.set(RENDER, REALTIME);
            host.set(TIER, LOW);
            host.save()
        };
        host.activate(Run::live(44100, 512));
        assert!(host.load(&default));
        // A host may or may not restart the plugin around a restored state. The delay begins again in either case.
        let latency = host.latency();
        let input = floats(2, latency + 9000);
        let output = play(&mut host, &input, Blocks::Fixed(512));
        assert_delayed(H::FORMAT, &input, &output[0], latency);
    }

    fn damaged_state_is_refused_or_ignored<H>() {
        let (mut host, _) = non_default_state::<H>();
        let saved = host.save();
        let mut random = Random::new(31);
        let mut states: Vec<Vec<u8>> = vec![
            Vec::new(),
            b"{".to_vec(),
            b"null".to_vec(),
            b"[]".to_vec(),
            b"{}".to_vec(),
            vec![0; 4096],
            vec![0xff; 4096],
            vec![b'['; 100_000],
            (0..4096).map(|_| random.next() as u8).collect(),
        ];
        states.extend((0..40).map(|_| saved[..random.below(saved.len())].to_vec()));
        states.extend((0..40).map(|_| {
            let mut state = saved.clone();
            for _ in 0..4 {
                let place = random.below(state.len());
                state[place] = random.next() as u8;
            }
            state
        }));
        for active in [false, true] {
            let mut victim = H::create(Layout::Stereo);
            if active {
                victim.activate(Run::live(48000, 128));
            }
            for state in &states {
                victim.load(state);
            }
            check_still_works(&mut victim, H::FORMAT);
        }
    }

    fn truncated_state_is_refused<H>() {
        let (mut host, _) = non_default_state::<H>();
        let saved = host.save();
        let mut victim = H::create(Layout::Stereo);
        let before = victim.save();
        assert!(!victim.load(&saved[..saved.len() - 1]), "{}", H::FORMAT);
        assert_eq!(victim.save(), before);
    }

    fn state_of_a_future_version_loads_what_is_known<H>() {
        let (mut host, mut state) = non_default_state::<H>();
        state["version"] = json!("99.0.0");
        state["a future section"] = json!({ "deep": [1, 2, { "er": null }] });
        state["params"]["a_future_parameter"] = json!({ "f32": 0.5 });
        state["fields"]["a_future_field"] = json!("{\"x\":1}");
        for (_, field) in state["fields"].as_object_mut().unwrap() {
            // Fields hold JSON in a string. Known ones may gain keys.
            if let Ok(Value::Object(mut object)) = serde_json::from_str(field.as_str().unwrap_or("null")) {
                object.insert("a future key".into(), json!(["?"]));
                *field = json!(Value::Object(object).to_string());
            }
        }
        let mut restored = H::create(Layout::Stereo);
        assert!(restored.load(state.to_string().as_bytes()), "{}", H::FORMAT);
        for name in host.parameters() {
            assert_eq!(host.get(&name), restored.get(&name), "{}: {name}", H::FORMAT);
        }
        check_still_works(&mut restored, H::FORMAT);
    }

    fn wrong_types_and_values_in_the_state_do_no_harm<H>() {
        let (_, state) = non_default_state::<H>();
        let wrong = [
            json!(null),
            json!("text"),
            json!({ "f32": "text" }),
            json!({ "f32": 1e30 }),
            json!({ "f32": -1e30 }),
            json!({ "i32": 77 }),
            json!({ "i32": -1 }),
            json!({ "string": "no such choice" }),
            json!({ "bool": true }),
        ];
        let mut victim = H::create(Layout::Stereo);
        for section in ["params", "fields"] {
            let keys: Vec<String> = state[section].as_object().unwrap().keys().cloned().collect();
            for key in keys {
                for value in wrong.iter().chain(&[json!("{"), json!("[1e999]"), json!("\"\\u0000\""), json!("x".repeat(70_000))]) {
                    let mut damaged = state.clone();
                    damaged[section][key.as_str()] = value.clone();
                    victim.load(damaged.to_string().as_bytes());
                }
            }
        }
        check_still_works(&mut victim, H::FORMAT);
    }
}
