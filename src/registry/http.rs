//! The HTTP part of a download: URLs, certificates, timeouts and response headers.

use std::fs;
use std::path::PathBuf;

use ureq::Agent;
use ureq::http::{HeaderMap, header};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

use super::download::{FetchOptions, Timeouts};
use super::fetch_error::FetchError;

pub(super) const MAX_REDIRECTS: u32 = 10;

/// Checks the URL and replaces its scheme and host by `base`.
pub(super) fn resolve_url(url: &str, base: Option<&str>) -> Result<String, FetchError> {
    let bad = |reason| FetchError::BadUrl { url: url.to_owned(), reason };
    let rest = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"))
        .ok_or_else(|| bad("only http and https URLs can be fetched"))?;
    let (host, path) = rest.split_once('/').ok_or_else(|| bad("it names no file"))?;
    if host.is_empty() || path.is_empty() {
        return Err(bad("it names no file"));
    }
    Ok(match base {
        Some(base) => format!("{}/{path}", base.trim().trim_end_matches('/')),
        None => url.to_owned(),
    })
}

/// An agent with our timeouts. Redirects from https to http are refused, and loopback addresses bypass the proxy.
pub(super) fn agent(url: &str, options: &FetchOptions) -> Result<Agent, FetchError> {
    let Timeouts { connect, response, stall, .. } = options.timeouts;
    let mut config = Agent::config_builder()
        .user_agent(concat!("nullsum/", env!("CARGO_PKG_VERSION")))
        .http_status_as_error(false)
        .max_redirects(MAX_REDIRECTS)
        .max_redirects_will_error(true)
        .https_only(url.starts_with("https://"))
        .timeout_resolve(Some(connect))
        .timeout_connect(Some(connect))
        .timeout_send_request(Some(connect))
        .timeout_recv_response(Some(response))
        .timeout_per_read(Some(stall));
    if is_loopback(url) {
        config = config.proxy(None);
    }
    if let Some(path) =
        std::env::var_os("SSL_CERT_FILE").filter(|p| url.starts_with("https://") && !p.is_empty())
    {
        let path = PathBuf::from(path);
        let pem = fs::read(&path).map_err(|e| FetchError::Unreachable {
            url: url.to_owned(),
            reason: format!("SSL_CERT_FILE names {}, which cannot be read: {e}", path.display()),
        })?;
        let certs: Vec<_> = parse_pem(&pem)
            .filter_map(|item| match item {
                Ok(PemItem::Certificate(cert)) => Some(cert),
                _ => None,
            })
            .collect();
        if !certs.is_empty() {
            config =
                config.tls_config(TlsConfig::builder().root_certs(RootCerts::new_with_certs(&certs)).build());
        }
    }
    Ok(config.build().new_agent())
}

fn is_loopback(url: &str) -> bool {
    let host = url.split("://").nth(1).unwrap_or_default();
    ["127.0.0.1", "localhost", "[::1]"]
        .iter()
        .any(|own| host.strip_prefix(own).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', ':'])))
}

pub(super) fn header_text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// `bytes 200-1023/146515` → (200, Some(146515)); `*` as the total → `None`.
pub(super) fn content_range(value: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = value.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (start, end) = range.trim().split_once('-')?;
    let (start, end): (u64, u64) = (start.parse().ok()?, end.parse().ok()?);
    let total = match total.trim() {
        "*" => None,
        n => Some(n.parse().ok()?),
    };
    (start <= end && total.is_none_or(|n: u64| end < n)).then_some((start, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_range_accepts_only_valid_ranges() {
        assert_eq!(content_range("bytes 200-1023/146515"), Some((200, Some(146_515))));
        assert_eq!(content_range("bytes 0-9/*"), Some((0, None)));
        for bad in
            ["", "bytes", "bytes */100", "bytes 9-0/10", "bytes 0-10/10", "items 0-1/2", "bytes -1-2/3"]
        {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_mirror_replaces_the_host_and_keeps_the_path() {
        let url = |base| resolve_url("https://host.org/a/b.ckpt?x=1", base);
        assert_eq!(url(None).unwrap(), "https://host.org/a/b.ckpt?x=1");
        assert_eq!(url(Some("http://m:8/x/")).unwrap(), "http://m:8/x/a/b.ckpt?x=1");
    }

    #[test]
    fn urls_that_name_no_file_are_refused() {
        for bad in
            ["", "file:///etc/passwd", "https://host.org", "https:///a", "https://host.org/", "ftp://h/a"]
        {
            assert!(matches!(resolve_url(bad, None), Err(FetchError::BadUrl { .. })), "{bad}");
        }
    }

    #[test]
    fn only_loopback_bypasses_proxy() {
        assert!(is_loopback("http://127.0.0.1:80/a"));
        assert!(is_loopback("http://localhost/a"));
        assert!(is_loopback("http://[::1]:9/a"));
        assert!(!is_loopback("http://127.0.0.1.evil.org/a"));
        assert!(!is_loopback("https://host.org/127.0.0.1"));
    }
}
