//! Names files that cannot be read by their first bytes, so that a message can say what they are.

/// Bytes at the start of a file that tell.
pub(super) const HEAD_BYTES: usize = 512;
/// Length of a packet of an MPEG transport stream.
const TS_PACKET: usize = 188;

/// A file format that this program does not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Foreign {
    /// Audio or video in another format, which other programs convert.
    Audio(&'static str),
    /// Something without audio, or around it.
    Other(&'static str),
}

/// Formats that begin with these bytes.
const AUDIO: [(&[u8], &str); 32] = [
    (b"\x30\x26\xB2\x75\x8E\x66\xCF\x11", "Windows Media (WMA, WMV)"),
    (b"MAC ", "Monkey's Audio"),
    (b"wvpk", "WavPack"),
    (b"TTA1", "True Audio"),
    (b"TTA2", "True Audio"),
    (b"tBaK", "TAK"),
    (b"OFR ", "OptimFROG"),
    (b"ajkg", "Shorten"),
    (b"DSD ", "DSD (DSF)"),
    (b"FRM8", "DSD (DSDIFF)"),
    (b"MP+", "Musepack"),
    (b"MPCK", "Musepack"),
    (b"\x7F\xFE\x80\x01", "DTS"),
    (b"\xFE\x7F\x01\x80", "DTS"),
    (b"\x1F\xFF\xE8\x00", "DTS"),
    (b"\xFF\x1F\x00\xE8", "DTS"),
    (b"#!AMR", "AMR"),
    (b".snd", "Sun audio (AU)"),
    (b"dns.", "Sun audio (AU)"),
    (b"riff\x2E\x91\xCF\x11", "Sony Wave64"),
    (b"RIFX", "big-endian WAV (RIFX)"),
    (b".RMF", "RealMedia"),
    (b".ra\xFD", "RealAudio"),
    (b"FLV\x01", "Flash Video"),
    (b"\0\0\x01\xBA", "an MPEG program stream (MPG, VOB)"),
    (b"\0\0\x01\xB3", "MPEG video"),
    (b"Creative Voice File", "Creative Voice"),
    (b"NIST_1A", "NIST SPHERE"),
    (b"ea3\x03", "ATRAC"),
    (b"EA3\x01", "ATRAC"),
    (b"\x64\xA3\x01\x00", "IRCAM"),
    (b"\xF8\x72\x6F\xBA", "Dolby TrueHD"),
];

const MIDI: &str = "it is a MIDI file, which holds notes and no audio";

const OTHER: [(&[u8], &str); 16] = [
    (b"MThd", MIDI),
    (b"version https://git-lfs", "it is a Git LFS pointer; fetch the file itself with `git lfs pull`"),
    (b"PK\x03\x04", "it is a ZIP archive; unpack it first"),
    (b"PK\x05\x06", "it is an empty ZIP archive"),
    (b"\x1F\x8B", "it is compressed with gzip; unpack it first"),
    (b"7z\xBC\xAF", "it is a 7z archive; unpack it first"),
    (b"Rar!", "it is a RAR archive; unpack it first"),
    (b"\xFD7zXZ", "it is compressed with xz; unpack it first"),
    (b"\x28\xB5\x2F\xFD", "it is compressed with zstd; unpack it first"),
    (b"BZh", "it is compressed with bzip2; unpack it first"),
    (b"%PDF", "it is a PDF document"),
    (b"\x89PNG", "it is a picture"),
    (b"\xFF\xD8\xFF", "it is a picture"),
    (b"GIF8", "it is a picture"),
    (b"#EXTM3U", "it is a playlist; name the songs in it"),
    (b"[playlist]", "it is a playlist; name the songs in it"),
];

/// Recognises the format of a file by its first bytes, `head`. `None` if the file may contain readable audio.
pub(super) fn identify(head: &[u8]) -> Option<Foreign> {
    let find = |table: &[(&[u8], &'static str)]| {
        table.iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, name)| *name)
    };
    if let Some(name) = find(&AUDIO) {
        return Some(Foreign::Audio(name));
    }
    let form = head.get(8..12).unwrap_or_default();
    match (head.get(..4), form) {
        (Some(b"RIFF"), b"AVI ") => return Some(Foreign::Audio("AVI")),
        (Some(b"RIFF"), b"RMID") => return Some(Foreign::Other(MIDI)),
        (Some(b"FORM"), b"8SVX") => return Some(Foreign::Audio("IFF 8SVX")),
        (Some(b"OggS"), _) if head.get(28..36) == Some(b"Speex   ") => {
            return Some(Foreign::Audio("Speex"));
        }
        _ => {}
    }
    if head.get(4..8) == Some(b"ftyp") && [b"aax ", b"aaxc"].contains(&form.first_chunk().unwrap_or(b"    "))
    {
        return Some(Foreign::Audio("Audible (encrypted)"));
    }
    // A sync word of two bytes, and the version of the bit stream.
    if let [0x0B, 0x77, _, _, _, version, ..] = head
        && version >> 3 <= 16
    {
        return Some(Foreign::Audio("Dolby Digital (AC-3)"));
    }
    // Blu-ray puts four bytes before each packet.
    let is_transport_stream = [0, 4].into_iter().any(|offset| {
        let step = TS_PACKET + offset;
        head.len() > 2 * step && (0..3).all(|n| head.get(offset + n * step) == Some(&0x47))
    });
    if is_transport_stream {
        return Some(Foreign::Audio("an MPEG transport stream"));
    }
    let text = head.trim_ascii_start();
    let is_page = |start: &str| {
        text.get(..start.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(start.as_bytes()))
    };
    if ["<!doctype html", "<html", "<head"].into_iter().any(is_page) {
        return Some(Foreign::Other("it is a web page; the download has failed"));
    }
    if head.len() >= 64 && head.iter().all(|byte| *byte == 0) {
        return Some(Foreign::Other("it begins with nothing but zeros; copy or download it again"));
    }
    find(&OTHER).map(Foreign::Other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_named_by_their_content() {
        let mut stream = vec![0; HEAD_BYTES];
        for at in [0, 188, 376] {
            stream[at] = 0x47;
        }
        let table: [(&[u8], &str); 12] = [
            (b"\x30\x26\xB2\x75\x8E\x66\xCF\x11\xA6\xD9", "Windows Media"),
            (b"MAC \x96\x0F", "Monkey"),
            (b"RIFF\0\0\0\0AVI LIST", "AVI"),
            (b"RIFF\0\0\0\0RMID", "MIDI"),
            (b"\x0B\x77\xDA\x26\x54\x40\x43\xE1", "AC-3"),
            (&stream, "transport stream"),
            (b"\0\0\x01\xBA\x44", "program stream"),
            (b" \n<!DOCTYPE HTML>", "web page"),
            (b"PK\x03\x04....", "ZIP"),
            (b"version https://git-lfs.github.com/spec/v1", "LFS"),
            (b"\0\0\0\x20ftypaax ", "Audible"),
            (&[0; 100], "zeros"),
        ];
        for (head, name) in table {
            let found = identify(head);
            let (Some(Foreign::Audio(text)) | Some(Foreign::Other(text))) = found else { panic!("{name}") };
            assert!(text.contains(name), "{name}: {text}");
        }
        for head in [
            &b"RIFF\0\0\0\0WAVEfmt "[..],
            b"fLaC\0\0\0\x22",
            b"ID3\x04\0\0",
            b"\xFF\xFB\x90\x64",
            b"OggS\0\x02",
            b"\0\0\0\x20ftypM4A ",
            b"\x1A\x45\xDF\xA3",
            b"",
        ] {
            assert_eq!(identify(head), None, "{head:?}");
        }
    }
}
