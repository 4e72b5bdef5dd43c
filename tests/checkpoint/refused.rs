//! Files that must be refused, each with a message that says what is wrong, and none with a panic or a flood
//! of memory.

use std::path::Path;
use std::time::{Duration, Instant};

use nullsum::model::checkpoint::{Checkpoint, CheckpointError};
use zip::CompressionMethod;

use crate::build::{Pickle, Tensor, archive, archive_with, one, safetensors, six, zip};

fn refusal(bytes: Vec<u8>) -> String {
    match Checkpoint::from_bytes(bytes, "bad.ckpt") {
        Ok(checkpoint) => panic!("accepted as {checkpoint:?}"),
        Err(error) => error.to_string(),
    }
}

#[track_caller]
fn assert_says(what: &str, bytes: Vec<u8>, parts: &[&str]) {
    let message = refusal(bytes);
    assert!(message.starts_with("bad.ckpt: "), "{what}: {message}");
    for part in parts {
        assert!(message.contains(part), "{what}: {part:?} is not in: {message}");
    }
}

/// An index whose only content is these instructions.
fn index(instructions: &[u8]) -> Vec<u8> {
    archive(&Pickle::new().op(instructions).stop(), &[])
}

#[test]
fn other_formats_are_named() {
    let mut tar = vec![b'x'; 512];
    tar[257..262].copy_from_slice(b"ustar");
    let legacy =
        [&[0x80, 2][..], &[0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, b'.']]
            .concat();
    let other = |name: &str| zip(&[(name.to_owned(), b"x".to_vec())], CompressionMethod::Stored);
    let cases: [(&str, Vec<u8>, &[&str]); 19] = [
        ("no bytes", vec![], &["empty", "again"]),
        ("zero bytes", vec![0; 4096], &["zero bytes"]),
        ("one byte", vec![b'P'], &["not a checkpoint"]),
        ("web page", b"\n<!DOCTYPE html><html>404".to_vec(), &["web page", "direct link"]),
        (
            "lfs",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0".to_vec(),
            &["Git LFS", "git lfs pull"],
        ),
        ("gzip", vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0], &["gzip"]),
        ("gguf", b"GGUF\x03\0\0\0\0\0\0\0".to_vec(), &["GGUF"]),
        ("yaml", b"model:\n  dim: 384\n".to_vec(), &["text file", "model:"]),
        ("noise", vec![0xd1, 0x07, 0x93, 0x5a], &["d1 07 93 5a"]),
        ("tar", tar, &["0.1.10", "torch.save"]),
        ("legacy", legacy, &["pickle at byte", "ends early"]),
        ("onnx", b"\x08\x07\x12\x07pytorch\x1a\x06".to_vec(), &["ONNX"]),
        ("onnx without a producer", b"\x08\x07:\xff\x01\n\x05input\x12\x06output".to_vec(), &["ONNX"]),
        ("npz", other("layers.0.npy"), &["NumPy archive", "safetensors"]),
        ("split zip", b"PK\x07\x08PK\x03\x04".to_vec(), &["split zip archive"]),
        ("bare pickle", vec![0x80, 4, b'N', b'.'], &["bare Python pickle"]),
        ("other zip", other("readme.txt"), &["zip archive without data.pkl", "readme.txt"]),
        ("scripted", other("model/constants.pkl"), &["TorchScript"]),
        ("empty zip", zip(&[], CompressionMethod::Stored), &["without data.pkl"]),
    ];
    for (what, bytes, parts) in cases {
        assert_says(what, bytes, parts);
    }
    let part = Checkpoint::from_bytes(b"PK\x03\x04 of the first part".to_vec(), "model.zip.001").unwrap_err();
    assert!(part.to_string().contains("join all parts"), "{part}");
    for name in ["model.zip.002", "model.z03", "model.r01", "model.ckpt.014"] {
        let part = Checkpoint::from_bytes(vec![0xd1, 7, 0x93, 0x5a, 0, 1], name).unwrap_err();
        assert!(part.to_string().contains("later part of a split archive"), "{part}");
    }
}

#[test]
fn torchscript_and_big_endian_are_refused_by_name() {
    let index = Pickle::new().dict(&[("w", Tensor::new("FloatStorage", "0", &[6]))]).stop();
    let with = |others: &[(&str, Vec<u8>)]| archive_with(&index, &[six()], others, CompressionMethod::Stored);
    assert_says("constants", with(&[("constants.pkl", vec![])]), &["TorchScript", "state_dict"]);
    assert_says("code", with(&[("code/__torch__.py", vec![])]), &["TorchScript"]);
    assert_says("big", with(&[("byteorder", b"big".to_vec())]), &["\"big\" byte order", "little-endian"]);
    assert!(Checkpoint::from_bytes(with(&[("byteorder", b"little".to_vec())]), "good").is_ok());
}

#[test]
fn imports_of_malware_are_refused() {
    let marker = std::env::temp_dir().join(format!("nullsum-hostile-{}", std::process::id()));
    let command = format!("touch {}", marker.display());
    for (module, name) in [
        ("os", "system"),
        ("posix", "system"),
        ("nt", "system"),
        ("subprocess", "Popen"),
        ("builtins", "eval"),
        ("__builtin__", "exec"),
        ("builtins", "exec.__call__"),
        ("os.path", "join"),
        ("importlib", "import_module"),
    ] {
        let dotted = format!("{module}.{name}");
        let reduce = Pickle::new().global(module, name).text(&command).op(b"\x85R").stop();
        assert_says(&dotted, archive(&reduce, &[]), &[&dotted, "nothing was executed"]);
        let stacked = Pickle::new().text(module).text(name).op(b"\x93").text(&command).op(b"\x85R").stop();
        assert_says(&dotted, archive(&stacked, &[]), &[&dotted]);
        let line = format!("({}i{module}\n{name}\n", "N");
        assert_says(&dotted, index(line.as_bytes()), &[&dotted]);
        // In the middle of good weights.
        let hidden = Pickle::new()
            .op(b"}(")
            .text("w")
            .tensor(&Tensor::new("FloatStorage", "0", &[6]))
            .text("x")
            .global(module, name)
            .text(&command)
            .op(b"\x85Ru")
            .stop();
        assert_says(&dotted, archive(&hidden, &[six()]), &[&dotted]);
    }
    assert!(!marker.exists());
}

#[test]
fn tensors_beyond_their_storage_are_refused() {
    let six = || Tensor::new("FloatStorage", "0", &[6]);
    let claim =
        |elements: i64, shape: &[i64], strides: &[i64]| Tensor { elements, ..six().with(0, shape, strides) };
    let big = 1_i64 << 60;
    let cases: [(&str, Tensor, &str); 13] = [
        ("2^60 elements", claim(big, &[big], &[1]), "holds 6"),
        ("2^60 elements, honest storage", claim(6, &[big], &[1]), "storage of 6"),
        ("product overflows", claim(i64::MAX, &[big, big], &[1, 1]), "counted"),
        ("product overflows to zero", claim(6, &[1 << 32, 1 << 32, 0], &[0, 0, 0]), "counted"),
        ("stride overflows", claim(i64::MAX, &[4, 1], &[i64::MAX, 1]), "counted"),
        ("broadcast bomb", claim(6, &[1 << 40], &[0]), "repeats"),
        ("one beyond", claim(6, &[7], &[1]), "element 7"),
        ("offset beyond", six().with(6, &[1], &[1]), "element 7"),
        ("offset near the end of numbers", six().with(i64::MAX, &[3], &[i64::MAX]), "counted"),
        ("negative size", claim(6, &[-1], &[1]), "-1 is out of range"),
        ("negative stride", claim(6, &[2], &[-1]), "-1 is out of range"),
        ("negative storage", claim(-6, &[2], &[1]), "-6"),
        ("axes without strides", claim(6, &[2, 3], &[1]), "2 axes and 1 strides"),
    ];
    for (what, tensor, part) in cases {
        assert_says(what, one(tensor), &["tensor `w`", part]);
    }
    assert_says("axes", one(claim(6, &[1; 17], &[1; 17])), &["17 axes"]);
    assert_says("negative offset", one(six().with(-1, &[2], &[1])), &["offset -1"]);
}

#[test]
fn unconvertible_tensors_must_lie_in_their_storage_too() {
    let big = 3_i64 << 56;
    for (class, holds) in [("ComplexFloatStorage", 3), ("ComplexDoubleStorage", 1), ("QInt8Storage", 24)] {
        let honest = Tensor::new(class, "0", &[holds]);
        assert!(Checkpoint::from_bytes(one(honest.clone()), "good").is_ok(), "{class}");
        let claims = Tensor::new(class, "0", &[big, 2]);
        assert_says(class, one(claims), &["tensor `w`", &format!("holds {holds}")]);
        let reaches = honest.clone().with(0, &[big, 2], &[2, 1]);
        assert_says(class, one(reaches), &["tensor `w`", &format!("a storage of {holds}")]);
        let repeats = honest.with(0, &[big, 2], &[0, 0]);
        assert_says(class, one(repeats), &["tensor `w`", "repeats"]);
    }
}

#[test]
fn tensors_that_share_too_much_are_refused_together() {
    let broadcast = Tensor::new("FloatStorage", "0", &[6]).with(0, &[1024, 1024], &[0, 0]);
    let file = |count: usize| {
        let names: Vec<String> = (0..count).map(|i| format!("w{i:02}")).collect();
        let tensors: Vec<_> = names.iter().map(|name| (name.as_str(), broadcast.clone())).collect();
        archive(&Pickle::new().dict(&tensors).stop(), &[six()])
    };
    assert!(Checkpoint::from_bytes(file(16), "good").is_ok());
    assert_says("shared", file(17), &["tensor `w16`", "17825792 elements", "repeat the same storages"]);
}

#[test]
fn missing_and_short_storages_are_refused() {
    let pickle = |key| Pickle::new().dict(&[("w", Tensor::new("FloatStorage", key, &[6]))]).stop();
    assert_says("missing", archive(&pickle("1"), &[six()]), &["\"archive/data/1\" is missing"]);
    assert_says("outside", archive(&pickle("../../etc/passwd"), &[six()]), &["missing"]);
    let short = ("0", six().1[..20].to_vec());
    assert_says("short", archive(&pickle("0"), &[short]), &["tensor `w`", "needs 6", "holds 5"]);
}

#[test]
fn files_without_readable_weights_are_refused() {
    let sparse =
        Pickle::new().op(b"}(").text("w").global("torch._utils", "_rebuild_sparse_tensor").op(b")Ru").stop();
    assert_says("sparse", archive(&sparse, &[six()]), &["tensor `w`", "_rebuild_sparse_tensor"]);
    let module =
        Pickle::new().global("my.models", "Separator").op(b")\x81}(").text("training").op(b"\x88ub").stop();
    assert_says("whole model", archive(&module, &[]), &["my.models.Separator", "state_dict()"]);
    let keys = Pickle::new().op(b"}(").text("epoch").int(1).text("loss").int(2).op(b"u").stop();
    assert_says("no tensors", archive(&keys, &[]), &["epoch", "loss"]);
    let numbered =
        Pickle::new().op(b"}(").int(0).tensor(&Tensor::new("FloatStorage", "0", &[6])).op(b"u").stop();
    assert_says("numbered", archive(&numbered, &[six()]), &["no weights"]);
    assert_says("nothing", index(b"N"), &["None"]);
    let no_storage = Pickle::new()
        .op(b"}(")
        .text("w")
        .global("torch._utils", "_rebuild_tensor_v2")
        .op(b"(NK\0))tRu")
        .stop();
    assert_says("no storage", archive(&no_storage, &[]), &["tensor `w`", "None instead of a storage"]);
}

#[test]
fn names_with_control_characters_are_refused() {
    for name in ["", "a\x1b[2Jb", "a\nb", &"long".repeat(300)] {
        let index = Pickle::new().dict(&[(name, Tensor::new("FloatStorage", "0", &[6]))]).stop();
        let message = refusal(archive(&index, &[six()]));
        assert!(message.contains("its name") && !message.contains(char::is_control), "{message:?}");
        assert!(message.len() < 300, "{message}");
    }
    let key = "9".repeat(200);
    let index = Pickle::new().op(b"}(").text("w").global("torch._utils", "_rebuild_tensor_v2").op(b"(");
    let index = index.storage("FloatStorage", &key, 6).int(0).ints(&[6]).ints(&[1]).op(b"tRu").stop();
    assert_says("long key", archive(&index, &[six()]), &["200 bytes"]);
}

#[test]
fn broken_pickles_are_refused_with_offset() {
    let cases: [(&str, Vec<u8>, &str); 18] = [
        ("stack underflow", b"0".to_vec(), "empty stack"),
        ("tuple underflow", b"N\x87".to_vec(), "3 values"),
        ("below a mark", b"N(\x85".to_vec(), "1 values"),
        ("no mark", b"t".to_vec(), "mark"),
        ("odd pairs", b"}(Nu".to_vec(), "no value"),
        ("append to None", b"NNa".to_vec(), "no list"),
        ("set on None", b"NNNs".to_vec(), "no dict"),
        ("memo", b"h\x07".to_vec(), "value 7"),
        ("memo of nothing", b"q\0".to_vec(), "empty stack"),
        ("protocol", vec![0x80, 9], "protocol 9"),
        ("extension", vec![0x82, 1], "extension"),
        ("buffer", vec![0x97], "buffers"),
        ("protocol 0", b"S'x'\n".to_vec(), "protocol 0"),
        ("unknown", vec![0xff], "0xff"),
        ("long text", [&b"X"[..], &u32::MAX.to_le_bytes()].concat(), "limit"),
        ("huge text", [&[0x8d][..], &u64::MAX.to_le_bytes()].concat(), "limit"),
        ("huge bytes", [&[0x8e][..], &u64::MAX.to_le_bytes()].concat(), "ends early"),
        ("negative number", [&[0x8b][..], &(-1_i32).to_le_bytes()].concat(), "-1 bytes"),
    ];
    for (what, instructions, part) in cases {
        assert_says(what, index(&instructions), &["pickle at byte", part]);
    }
    let endless = archive(&Pickle::new().op(b"c").0, &[]);
    assert_says("endless name", endless, &["never ends"]);
    assert_says("no end", archive(&Pickle::new().op(b"N").0, &[]), &["ends early"]);
}

#[test]
fn memory_and_time_bombs_are_refused() {
    let start = Instant::now();
    let repeated = |unit: &[u8], times: usize| index(&unit.repeat(times));
    assert_says("instructions", repeated(b"(1", 4 << 20), &["instructions"]);
    assert_says("values", repeated(b"N0", 2 << 20), &["builds more than"]);
    assert_says(
        "memo",
        index(&[b"N".to_vec(), b"\x94".repeat((2 << 20) + 1)].concat()),
        &["builds more than"],
    );
    assert_says("stack", repeated(b"N", (1 << 20) + 1), &["stack"]);
    assert_says("marks", repeated(b"(", (1 << 20) + 1), &["stack"]);
    // A million tuples in one another: nothing here recurses.
    let nested = [b")".to_vec(), b"\x85".repeat(1 << 20)].concat();
    assert_says("nesting", index(&nested), &["tuple of 1"]);
    // Tuples of tuples of the same tuple, 2^500000 leaves.
    let doubled = [b")".to_vec(), b"2\x86".repeat(500_000)].concat();
    assert_says("doubling", index(&doubled), &["tuple of 2"]);
    // A dict that is its own state_dict, a million times.
    let own = Pickle::new().op(b"}q\0(").text("state_dict").op(b"q\x01h\0");
    let own = own.op(&b"h\x01h\0".repeat(400_000)).op(b"u").stop();
    assert_says("circle", archive(&own, &[]), &["no weights"]);
    // A long list that OrderedDict is called with again and again.
    let pair = Pickle::new()
        .op(b"(")
        .op(&b"NN\x86".repeat(200_000))
        .op(b"lq\x00\x85q\x01")
        .global("collections", "OrderedDict");
    let again = pair.op(b"q\x02").op(&b"h\x02h\x01R".repeat(200_000)).stop();
    assert_says("copies", archive(&again, &[]), &["no weights"]);
    // The longest that it is followed for.
    let pair = Pickle::new()
        .op(b"(")
        .op(&b"NN\x86".repeat(4096))
        .op(b"lq\x00\x85q\x01")
        .global("collections", "OrderedDict");
    let copies = |times: usize| pair.clone().op(b"q\x02").op(&b"h\x02h\x01R0".repeat(times)).stop();
    assert_says("many copies", archive(&copies(256), &[]), &["no weights"]);
    assert_says(
        "too many copies",
        archive(&copies(257), &[]),
        &["pickle at byte", "copy more than 1048576 pairs"],
    );
    // And the same where the last of its items is no pair.
    let torn = Pickle::new()
        .op(b"(")
        .op(&b"NN\x86".repeat(4095))
        .op(b"Nlq\x00\x85q\x01")
        .global("collections", "OrderedDict")
        .op(b"q\x02")
        .op(&b"h\x02h\x01R0".repeat(257))
        .stop();
    assert_says("torn copies", archive(&torn, &[]), &["copy more than 1048576 pairs"]);
    // A name of megabytes, looked at again and again.
    let long = Pickle::new().text(&"a".repeat(1 << 20)).op(b"q\0").op(&b"h\0h\0\x930".repeat(1 << 20)).stop();
    assert_says("long name", archive(&long, &[]), &["a Python name of 1048576 bytes"]);
    let key = Pickle::new().op(b"}(").text(&"a".repeat(1 << 20)).op(b"q\0").tensor(&Tensor::new(
        "FloatStorage",
        "0",
        &[1],
    ));
    let key = key.op(b"q\x01").op(&b"h\0h\x01".repeat(1 << 17)).op(b"u").stop();
    assert_says("long key", archive(&key, &[("0", vec![0; 4])]), &["its name has 1048576 bytes"]);
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}

#[test]
fn compression_bombs_are_refused() {
    let elements = 64_i64 << 20;
    let index = Pickle::new().dict(&[("w", Tensor::new("ByteStorage", "0", &[elements]))]).stop();
    let bomb = archive_with(&index, &[("0", vec![0; elements as usize])], &[], CompressionMethod::Deflated);
    assert!(bomb.len() < 1 << 20);
    assert_says("claim", bomb, &["more than the limit"]);

    // The directory claims fewer bytes than come out: 500 of 100 000.
    let index = Pickle::new().dict(&[("w", Tensor::new("ByteStorage", "0", &[500]))]).stop();
    let mut liar = archive_with(&index, &[("0", vec![7; 100_000])], &[], CompressionMethod::Deflated);
    let claim = 100_000_u32.to_le_bytes();
    while let Some(at) = liar.windows(4).position(|window| window == claim) {
        liar[at..at + 4].copy_from_slice(&500_u32.to_le_bytes());
    }
    assert_says("content", liar, &["archive/data/0"]);
}

#[test]
fn damaged_safetensors_are_refused() {
    let header = |end: u64, shape: &str| {
        format!(r#"{{"w":{{"dtype":"F32","shape":{shape},"data_offsets":[0,{end}]}}}}"#)
    };
    let cases: [(&str, Vec<u8>, &[&str]); 9] = [
        (
            "data cut",
            safetensors(&header(8, "[2]"), &[0; 5]),
            &["needs 8", "only 5 are present", "incomplete"],
        ),
        ("data after", safetensors(&header(8, "[2]"), &[0; 9]), &["1 bytes follow"]),
        ("2^60", safetensors(&header(8, "[1152921504606846976]"), &[0; 8]), &["header"]),
        ("overflow", safetensors(&header(8, "[4294967296,4294967296,4294967296]"), &[0; 8]), &["header"]),
        ("other size", safetensors(&header(8, "[3]"), &[0; 8]), &["header"]),
        ("negative", safetensors(&header(8, "[-2]"), &[0; 8]), &["header"]),
        ("no tensors", safetensors("{}", &[]), &["no tensor"]),
        ("no json", safetensors("{\"w\":", &[]), &["header"]),
        ("nested", safetensors(&format!("{{\"w\":{}", "[".repeat(100_000)), &[]), &["header"]),
    ];
    for (what, bytes, parts) in cases {
        assert_says(what, bytes, parts);
    }
    let mut long = safetensors(&header(8, "[2]"), &[0; 8]);
    long[..8].copy_from_slice(&(1_u64 << 40).to_le_bytes());
    assert_says("header length", long.clone(), &["1099511627776"]);
    long[..8].copy_from_slice(&1000_u64.to_le_bytes());
    assert_says("header cut", long, &["header needs 1000"]);
}

/// A good file of each kind.
fn good_files() -> [Vec<u8>; 3] {
    let tensors = [
        ("a", Tensor::new("FloatStorage", "0", &[2, 3])),
        ("b", Tensor::new("FloatStorage", "0", &[6]).with(0, &[3, 2], &[1, 3])),
        ("c", Tensor::new("HalfStorage", "1", &[4])),
    ];
    let index = Pickle::new().op(b"}(").text("state_dict").dict(&tensors).op(b"u").stop();
    let storages = [six(), ("1", vec![0; 8])];
    let header = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    [
        archive(&index, &storages),
        archive_with(&index, &storages, &[], CompressionMethod::Deflated),
        safetensors(header, &[0; 8]),
    ]
}

#[test]
fn truncated_files_are_refused() {
    for file in good_files() {
        for length in 0..file.len() {
            let message = refusal(file[..length].to_vec());
            assert!(message.starts_with("bad.ckpt: "), "{length}: {message}");
        }
        assert!(Checkpoint::from_bytes(file, "good").is_ok());
    }
}

#[test]
fn damaged_bytes_never_panic() {
    for file in good_files() {
        for at in 0..file.len() {
            for change in [0x00, 0xff, file[at] ^ 0x01, file[at] ^ 0x80] {
                let mut damaged = file.clone();
                damaged[at] = change;
                if let Ok(checkpoint) = Checkpoint::from_bytes(damaged, "damaged") {
                    for tensor in checkpoint.tensors() {
                        if let Ok(values) = tensor.to_f32() {
                            assert_eq!(values.len(), tensor.elements());
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn error_names_paths_that_are_not_files() {
    let folder = tempfile::tempdir().unwrap();
    let error = Checkpoint::open(folder.path()).unwrap_err();
    assert!(matches!(error, CheckpointError::Folder { .. }), "{error}");
    let error = Checkpoint::open(&folder.path().join("nicht da.ckpt")).unwrap_err();
    assert!(matches!(error, CheckpointError::Io { .. }), "{error}");
    assert!(error.to_string().contains("nicht da.ckpt"));
    let empty = folder.path().join("empty.ckpt");
    std::fs::write(&empty, b"").unwrap();
    let error = Checkpoint::open(&empty).unwrap_err();
    assert!(matches!(error, CheckpointError::Empty { .. }), "{error}");
    assert!(Checkpoint::open(Path::new("")).is_err());
}
