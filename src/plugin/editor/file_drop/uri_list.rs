//! Parser for `text/uri-list` (RFC 2483), the format of dragged files. The input comes from any program and is not trusted.

use std::path::PathBuf;

use percent_encoding::percent_decode;

const MAX_FILES: usize = 256;

/// Returns the paths of local files in a list. `host` is this computer's name. Other addresses are skipped.
pub fn parse(list: &[u8], host: &[u8]) -> Vec<PathBuf> {
    let lines = list.split(|byte| matches!(byte, b'\r' | b'\n' | 0));
    lines.filter_map(|line| parse_uri(line.trim_ascii(), host)).take(MAX_FILES).collect()
}

/// Accepts `file:///path`, `file://host/path` and `file:/path`.
fn parse_uri(uri: &[u8], host: &[u8]) -> Option<PathBuf> {
    let (scheme, rest) = uri.split_at_checked(5)?;
    if !scheme.eq_ignore_ascii_case(b"file:") {
        return None;
    }
    let path = match rest.strip_prefix(b"//") {
        Some(rest) => {
            let (authority, path) = rest.split_at(rest.iter().position(|byte| *byte == b'/')?);
            let here = |name: &[u8]| authority.eq_ignore_ascii_case(name);
            if !(authority.is_empty() || here(b"localhost") || here(host)) {
                return None;
            }
            path
        }
        None => rest,
    };
    // Query and fragment do not belong to the path. Programs escape these characters in file names.
    let end = path.iter().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(path.len());
    let path: Vec<u8> = percent_decode(path.get(..end)?).collect();
    (path.first() == Some(&b'/') && !path.contains(&0)).then(|| path_from_bytes(path))
}

#[cfg(unix)]
fn path_from_bytes(bytes: Vec<u8>) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    std::ffi::OsString::from_vec(bytes).into()
}

#[cfg(not(unix))]
fn path_from_bytes(bytes: Vec<u8>) -> PathBuf {
    String::from_utf8_lossy(&bytes).into_owned().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(list: &[u8]) -> Vec<PathBuf> {
        parse(list, b"studio")
    }

    #[test]
    fn parse_uris_of_this_computer_are_read_however_they_are_written() {
        let list = b"# from a file manager\r\nfile:///a%20b/m.ckpt\r\nfile://localhost/c.yaml\nFILE://Studio/d\r\nfile:/e\0";
        let expected: Vec<PathBuf> = ["/a b/m.ckpt", "/c.yaml", "/d", "/e"].map(Into::into).into();
        assert_eq!(read(list), expected);
        assert_eq!(read(b"  file:///x y.ckpt  "), [PathBuf::from("/x y.ckpt")]);
        assert_eq!(read(b"file:///100%.ckpt"), [PathBuf::from("/100%.ckpt")]);
        assert_eq!(read(b"file:///a%23b%3f.ckpt#part"), [PathBuf::from("/a#b?.ckpt")]);
    }

    #[test]
    fn remote_addresses_and_invalid_uris_are_skipped() {
        for list in [
            &b""[..],
            b"\r\n\r\n",
            b"https://example.org/m.ckpt",
            b"file://elsewhere/m.ckpt",
            b"file://nowhere",
            b"file:relative.ckpt",
            b"file:",
            b"file:///a%00b",
            b"file://%2f%2f",
            b"/a/m.ckpt",
            b"\xff\xfe\0\0",
        ] {
            assert!(read(list).is_empty(), "{}", list.escape_ascii());
        }
    }

    #[cfg(unix)]
    #[test]
    fn non_utf8_names_are_preserved() {
        use std::os::unix::ffi::OsStrExt;
        let [escaped, raw]: [PathBuf; 2] = read(b"file:///%ff.ckpt\nfile:///\xff.ckpt").try_into().unwrap();
        assert_eq!(escaped, raw);
        assert_eq!(escaped.as_os_str().as_bytes(), b"/\xff.ckpt");
    }

    #[test]
    fn long_lists_are_truncated() {
        assert_eq!(read(&b"file:///a\n".repeat(100_000)).len(), MAX_FILES);
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(list: Vec<u8>) {
            read(&list);
            read(&[b"file://", list.as_slice()].concat());
        }
    }
}
