//! SHA-256 in lower-case hex, which is how registry, cache and session files name a checkpoint's content.

use sha2::{Digest, Sha256};

/// SHA-256 of `bytes`.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// SHA-256 of a file. `tick` gets the bytes read so far and may stop it, which gives `None`.
#[cfg(feature = "download")]
pub(crate) fn sha256_of(
    mut file: impl std::io::Read,
    tick: &mut dyn FnMut(u64) -> bool,
) -> std::io::Result<Option<String>> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut done = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => {
                hasher.update(&buffer[..n]);
                done += n as u64;
                if !tick(done) {
                    return Ok(None);
                }
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(Some(hex(&hasher.finalize())))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_reads_as_other_programs_print_it() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(b"abc"), abc);
        #[cfg(feature = "download")]
        assert_eq!(sha256_of(&b"abc"[..], &mut |_| true).unwrap().as_deref(), Some(abc));
    }

    #[cfg(feature = "download")]
    #[test]
    fn a_hash_is_stopped_at_any_tick() {
        assert_eq!(sha256_of(&b"abc"[..], &mut |done| done < 3).unwrap(), None);
    }
}
