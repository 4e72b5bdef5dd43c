//! SHA-256 as lower-case hex, which identifies checkpoints in the registry, the cache and saved plugin states.

use sha2::{Digest, Sha256};

/// SHA-256 of `bytes`.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// SHA-256 of a reader's content. `on_progress` gets the number of bytes read so far; `None` when it returns false.
pub(crate) fn sha256_of_reader(
    mut reader: impl std::io::Read,
    on_progress: &mut dyn FnMut(u64) -> bool,
) -> std::io::Result<Option<String>> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut done = 0;
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => {
                hasher.update(&buffer[..n]);
                done += n as u64;
                if !on_progress(done) {
                    return Ok(None);
                }
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(Some(hex(&hasher.finalize())))
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_matches_published_test_vector() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(b"abc"), abc);
        assert_eq!(sha256_of_reader(&b"abc"[..], &mut |_| true).unwrap().as_deref(), Some(abc));
    }

    #[test]
    fn hash_can_be_cancelled() {
        assert_eq!(sha256_of_reader(&b"abc"[..], &mut |done| done < 3).unwrap(), None);
    }
}
