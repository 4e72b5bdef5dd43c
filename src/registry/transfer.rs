//! Download of one file over HTTP: resumed where possible, verified, then renamed into place.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ureq::http::{StatusCode, header};
use ureq::{Agent, Body, http::Response};

use super::RemoteFile;
use super::cache::FetchRecord;
use super::download::{DownloadStage, FetchOptions};
use super::fetch_error::FetchError;
use super::http::{MAX_REDIRECTS, agent, content_range, header_text};
use crate::hash::sha256_of_reader;

const BUFFER: usize = 256 << 10;

/// A transfer of one file into `part`, then under its final name.
pub(super) struct Transfer<'a> {
    pub(super) url: String,
    pub(super) remote: &'a RemoteFile,
    pub(super) part: PathBuf,
    /// Maximum size in bytes, regardless of the server's headers.
    pub(super) limit: u64,
    pub(super) options: &'a FetchOptions,
    /// Arguments: stage, bytes done, total bytes.
    pub(super) notify: &'a mut dyn FnMut(DownloadStage, u64, Option<u64>) -> Result<(), FetchError>,
}

/// The position at which a response body starts in the file.
struct ResumePoint {
    start: u64,
    total: Option<u64>,
}

impl Transfer<'_> {
    pub(super) fn run(mut self, target: &Path) -> Result<(), FetchError> {
        let agent = agent(&self.url, self.options)?;
        let mut retries = self.options.retries;
        let mut may_resume = true;
        loop {
            let before = self.part_len();
            match self.receive(&agent, may_resume) {
                Ok(()) => {}
                Err(e) if e.is_interruption() && retries > 0 && self.part_len() > before => {
                    retries -= 1;
                    continue;
                }
                Err(e) => return Err(e),
            }
            match self.finish(target) {
                // The partial file of an earlier download may be wrong: retry once from the beginning.
                Err(FetchError::WrongHash { .. }) if may_resume && before > 0 => may_resume = false,
                done => return done,
            }
        }
    }

    /// Downloads the rest of the partial file.
    fn receive(&mut self, agent: &Agent, mut may_resume: bool) -> Result<(), FetchError> {
        loop {
            let earlier = FetchRecord::beside(&self.part).filter(|r| may_resume && r.url == self.url);
            let have = earlier.as_ref().map_or(0, |_| self.part_len());
            let size = self.remote.size.or(earlier.as_ref().map(|r| r.size).filter(|&n| n > 0));
            if have > 0 && size == Some(have) {
                return Ok(());
            }
            (self.notify)(DownloadStage::Connecting, have, size)?;
            // Parts are joined only if a validator or the final hash proves that they belong together.
            let resume = earlier.filter(|r| {
                let provable = r.validator().is_some() || self.remote.sha256.is_some();
                provable && have > 0 && size.is_none_or(|n| have < n)
            });
            let mut response = self.request(agent, resume.as_ref().map(|r| (r, have)))?;
            match self.resume_point(&response, resume.as_ref(), have)? {
                Some(point) => return self.receive_body(&mut response, &point),
                // The partial file does not match the server's current file.
                None if may_resume => may_resume = false,
                None => return Err(FetchError::status(&self.url, response.status().as_u16())),
            }
        }
    }

    fn request(
        &self,
        agent: &Agent,
        resume: Option<(&FetchRecord, u64)>,
    ) -> Result<Response<Body>, FetchError> {
        // Uncompressed, so that sizes and ranges refer to the file itself.
        let mut request = agent.get(&self.url).header(header::ACCEPT_ENCODING, "identity");
        if let Some((record, have)) = resume {
            request = request.header(header::RANGE, format!("bytes={have}-"));
            if let Some(validator) = record.validator() {
                request = request.header(header::IF_RANGE, validator);
            }
        }
        request.call().map_err(|e| self.no_response(e))
    }

    /// The position of the body according to the headers; `None` when the partial file must be discarded.
    fn resume_point(
        &self,
        response: &Response<Body>,
        resume: Option<&FetchRecord>,
        have: u64,
    ) -> Result<Option<ResumePoint>, FetchError> {
        let headers = response.headers();
        let point = match (response.status(), resume) {
            (StatusCode::OK, _) => ResumePoint {
                start: 0,
                total: header_text(headers, header::CONTENT_LENGTH).and_then(|v| v.parse().ok()),
            },
            (StatusCode::PARTIAL_CONTENT, Some(record)) => {
                let range = header_text(headers, header::CONTENT_RANGE).and_then(content_range);
                let etag = header_text(headers, header::ETAG);
                let same_tag = etag.is_none() || record.etag.is_none() || etag == record.etag.as_deref();
                match range {
                    Some((start, total)) if start == have && same_tag => {
                        let fits = record.size == 0 || total.is_none_or(|n| n == record.size);
                        if !fits {
                            return Ok(None);
                        }
                        ResumePoint { start, total: total.or(Some(record.size).filter(|&n| n > 0)) }
                    }
                    _ => return Ok(None),
                }
            }
            (StatusCode::RANGE_NOT_SATISFIABLE, Some(_)) => return Ok(None),
            (status, _) => return Err(FetchError::status(&self.url, status.as_u16())),
        };
        if header_text(headers, header::CONTENT_TYPE)
            .is_some_and(|t| t.trim().to_ascii_lowercase().starts_with("text/html"))
        {
            return Err(self.web_page());
        }
        if header_text(headers, header::CONTENT_ENCODING)
            .is_some_and(|e| !e.trim().eq_ignore_ascii_case("identity"))
        {
            let (what, advice) = ("a compressed form", "report this link as broken");
            return Err(FetchError::NotAModel { url: self.url.clone(), what, advice });
        }
        match (point.total, self.remote.size) {
            (Some(found), Some(expected)) if found != expected => {
                Err(FetchError::WrongSize { url: self.url.clone(), expected, found })
            }
            (Some(found), _) if found > self.limit => {
                Err(FetchError::TooLarge { url: self.url.clone(), limit: self.limit })
            }
            _ => Ok(Some(point)),
        }
    }

    /// Writes the body to the partial file, starting at `point.start`.
    fn receive_body(&mut self, response: &mut Response<Body>, point: &ResumePoint) -> Result<(), FetchError> {
        let headers = response.headers();
        let owned = |name| header_text(headers, name).map(str::to_owned);
        let total = point.total.or(self.remote.size);
        let record = FetchRecord {
            url: self.url.clone(),
            size: total.unwrap_or(0),
            sha256: String::new(),
            etag: owned(header::ETAG),
            last_modified: owned(header::LAST_MODIFIED),
        };
        let part = self.part.clone();
        let cannot = |action| {
            let part = &part;
            move |e: io::Error| FetchError::from_io(part, action, total, e)
        };
        // The partial file is truncated before the record is written: a new record must not describe old bytes.
        let mut file = File::options()
            .create(true)
            .truncate(point.start == 0)
            .append(point.start > 0)
            .write(true)
            .open(&part)
            .map_err(cannot("write"))?;
        record.write_beside(&part).map_err(cannot("write"))?;

        let mut body = response.body_mut().as_reader();
        let mut buffer = vec![0; BUFFER];
        let mut done = point.start;
        (self.notify)(DownloadStage::Downloading, done, total)?;
        loop {
            let n = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(self.broken_body(e, done, total)),
            };
            let after = done + n as u64;
            if let Some(expected) = total.filter(|&t| after > t) {
                self.discard();
                return Err(FetchError::WrongSize { url: self.url.clone(), expected, found: after });
            }
            if after > self.limit {
                self.discard();
                return Err(FetchError::TooLarge { url: self.url.clone(), limit: self.limit });
            }
            file.write_all(&buffer[..n]).map_err(cannot("write"))?;
            done = after;
            (self.notify)(DownloadStage::Downloading, done, total)?;
        }
        match total {
            Some(t) if done < t => {
                Err(FetchError::Truncated { url: self.url.clone(), got: done, expected: total })
            }
            _ => Ok(()),
        }
    }

    /// Verifies the complete file and renames it.
    fn finish(&mut self, target: &Path) -> Result<(), FetchError> {
        let part = self.part.clone();
        let cannot = |action| {
            let (part, size) = (&part, self.remote.size);
            move |e: io::Error| FetchError::from_io(part, action, size, e)
        };
        // Opened for writing, because some systems require that for syncing.
        let file = File::options().read(true).write(true).open(&part).map_err(cannot("read"))?;
        let size = file.metadata().map_err(cannot("read"))?.len();
        file.sync_all().map_err(cannot("write"))?;
        let mut head = Vec::new();
        (&file).take(512).read_to_end(&mut head).map_err(cannot("read"))?;
        if let Some(e) = self.detect_non_model(&head) {
            self.discard();
            return Err(e);
        }

        let file = File::open(&part).map_err(cannot("read"))?;
        let mut cancelled = Ok(());
        let hash = sha256_of_reader(file, &mut |done| {
            cancelled = (self.notify)(DownloadStage::Verifying, done, Some(size));
            cancelled.is_ok()
        });
        let found = hash.map_err(cannot("read"))?;
        cancelled?;
        let found = found.unwrap_or_default();
        if let Some(expected) = self.remote.sha256.as_ref().filter(|s| !s.eq_ignore_ascii_case(&found)) {
            let e = FetchError::WrongHash { url: self.url.clone(), expected: expected.clone(), found };
            self.discard();
            return Err(e);
        }

        let received = FetchRecord::beside(&part).unwrap_or_default();
        let record = FetchRecord { url: self.url.clone(), size, sha256: found, ..received };
        record.write_beside(target).map_err(cannot("write"))?;
        fs::rename(&part, target).map_err(|e| FetchError::from_io(target, "write", Some(size), e))?;
        // A remaining record is harmless without its partial file.
        let _ = fs::remove_file(FetchRecord::path(&part));
        Ok(())
    }

    /// Detects content that is certainly not a model.
    fn detect_non_model(&self, head: &[u8]) -> Option<FetchError> {
        let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start().to_ascii_lowercase();
        let starts = |prefix: &str| text.starts_with(prefix.as_bytes());
        let url = self.url.clone();
        if starts("<!doctype") || starts("<html") || starts("<head") || starts("<?xml") {
            Some(self.web_page())
        } else if starts("version https://git-lfs") {
            let (what, advice) = ("a Git LFS pointer", "report this link as broken");
            Some(FetchError::NotAModel { url, what, advice })
        } else if head.is_empty() {
            let (what, advice) = ("an empty file", "try again later");
            Some(FetchError::NotAModel { url, what, advice })
        } else {
            None
        }
    }

    fn web_page(&self) -> FetchError {
        let advice = "if your network has a login page, log in with a browser first; else the link is broken";
        FetchError::NotAModel { url: self.url.clone(), what: "a web page", advice }
    }

    fn part_len(&self) -> u64 {
        fs::metadata(&self.part).map_or(0, |m| m.len())
    }

    /// Removes a partial file that must not be resumed. A failure is ignored, because the next call detects it again.
    fn discard(&self) {
        let _ = fs::remove_file(&self.part);
        let _ = fs::remove_file(FetchRecord::path(&self.part));
    }

    fn no_response(&self, error: ureq::Error) -> FetchError {
        let url = self.url.clone();
        let limits = &self.options.timeouts;
        let timeout = |phase, limit: Duration| FetchError::Timeout {
            url: self.url.clone(),
            phase,
            seconds: limit.as_secs_f64(),
        };
        match error {
            ureq::Error::Timeout(ureq::Timeout::Resolve) => timeout("looking up the host", limits.connect),
            ureq::Error::Timeout(ureq::Timeout::Connect) => timeout("connecting", limits.connect),
            ureq::Error::Timeout(_) => timeout("waiting for the response", limits.response.min(limits.stall)),
            ureq::Error::TooManyRedirects => FetchError::TooManyRedirects { url, limit: MAX_REDIRECTS },
            ureq::Error::StatusCode(status) => FetchError::status(&url, status),
            other => FetchError::Unreachable { url, reason: other.to_string() },
        }
    }

    fn broken_body(&self, error: io::Error, got: u64, expected: Option<u64>) -> FetchError {
        let url = self.url.clone();
        match ureq::Error::from(error) {
            ureq::Error::Timeout(_) => {
                FetchError::Stalled { url, got, seconds: self.options.timeouts.stall.as_secs_f64() }
            }
            _ => FetchError::Truncated { url, got, expected },
        }
    }
}
