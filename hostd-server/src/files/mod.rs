//! The Host Client's files, out of one pack (`web/PACK.md` is its format). It comes from the image, and is checked as if it did not.

use crate::http::{Body, Method, Request, Response};
use alloc::{format, string::String};
use sha2::{Digest, Sha256};

const MAGIC: &[u8] = b"TSRAWEB1";
const HEADER: usize = 16;
const ENTRY: usize = 192;
const MOST_FILES: usize = 1024;
const MOST_BYTES: usize = 16 << 20;

/// What the pages may do.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self'; \
    connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// Why a pack is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PackError {
    /// It is none, or longer or shorter than it says.
    Header,
    /// The entry of this number breaks a rule.
    Entry(usize),
    /// The bytes of this file are not what was packed.
    Damaged(usize),
}

/// A pack that was checked.
#[derive(Clone, Copy, Debug)]
pub struct Pack {
    bytes: &'static [u8],
    files: usize,
}

struct File {
    path: &'static str,
    kind: &'static str,
    gzip: bool,
    unchanging: bool,
    offset: usize,
    length: usize,
    hash: &'static [u8],
}

fn word(bytes: &[u8], at: usize) -> Option<usize> {
    let word = bytes.get(at..at + 4)?.try_into().ok()?;
    usize::try_from(u32::from_le_bytes(word)).ok()
}

/// ASCII up to the first of the zeros, of which there is at least one, and nothing else behind it.
fn text(field: &'static [u8]) -> Option<&'static str> {
    let length = field.iter().position(|byte| *byte == 0)?;
    let (text, zeros) = field.split_at(length);
    let sound = zeros.iter().all(|byte| *byte == 0) && text.iter().all(|byte| (b' '..=b'~').contains(byte));
    sound.then(|| core::str::from_utf8(text).ok()).flatten()
}

impl Pack {
    /// Checks a pack: its header, each entry, each file's hash.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn open(bytes: &'static [u8]) -> Result<Self, PackError> {
        let files = word(bytes, 8).filter(|files| *files <= MOST_FILES).ok_or(PackError::Header)?;
        if !bytes.starts_with(MAGIC) || bytes.len() > MOST_BYTES || word(bytes, 12) != Some(bytes.len()) {
            return Err(PackError::Header);
        }
        let pack = Self { bytes, files };
        let mut end = HEADER + files * ENTRY;
        let mut before = "";
        for number in 0..files {
            let file = pack.file(number).ok_or(PackError::Entry(number))?;
            if file.offset != end || file.path <= before || !file.path.starts_with('/') {
                return Err(PackError::Entry(number));
            }
            end += file.length;
            before = file.path;
            let bytes = bytes.get(file.offset..end).ok_or(PackError::Entry(number))?;
            if Sha256::digest(bytes)[..] != *file.hash {
                return Err(PackError::Damaged(number));
            }
        }
        if end == bytes.len() { Ok(pack) } else { Err(PackError::Header) }
    }

    fn file(&self, number: usize) -> Option<File> {
        let at = HEADER + number * ENTRY;
        let entry = self.bytes.get(at..at + ENTRY)?;
        if entry[136] > 1 || entry[137] > 1 || entry[138..140] != [0; 2] || entry[152..160] != [0; 8] {
            return None;
        }
        Some(File {
            path: text(&entry[..96])?,
            kind: text(&entry[96..136])?,
            gzip: entry[136] == 1,
            unchanging: entry[137] == 1,
            offset: word(entry, 140)?,
            length: word(entry, 144)?,
            hash: &entry[160..],
        })
    }

    fn find(&self, path: &str) -> Option<File> {
        let (mut low, mut high) = (0, self.files);
        while low < high {
            let middle = usize::midpoint(low, high);
            let file = self.file(middle)?;
            match file.path.cmp(path) {
                core::cmp::Ordering::Equal => return Some(file),
                core::cmp::Ordering::Less => low = middle + 1,
                core::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    /// The answer to a request for a file; `None`: there is none of that path.
    #[must_use]
    pub fn respond(&self, request: &Request) -> Option<Response> {
        let path = if request.path == "/" { "/index.html" } else { &request.path };
        let file = self.find(path)?;
        if !matches!(request.method, Method::Get | Method::Head) {
            return Some(Response::new(405).with("allow", "GET, HEAD"));
        }
        let mut tag = String::from("\"");
        for byte in &file.hash[..16] {
            tag += &format!("{byte:02x}");
        }
        tag.push('"');
        let known = request.header("if-none-match").is_some_and(|tags| {
            tags.split(',').any(|known| {
                let known = known.trim();
                known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag
            })
        });
        let caching = if file.unchanging {
            "public, max-age=31536000, immutable"
        } else {
            "no-cache"
        };
        let mut response = Response::new(if known { 304 } else { 200 })
            .with("etag", tag)
            .with("cache-control", caching)
            .with("content-security-policy", POLICY)
            .with("x-content-type-options", "nosniff")
            .with("referrer-policy", "no-referrer")
            .with("cross-origin-opener-policy", "same-origin");
        if file.gzip {
            response = response.with("content-encoding", "gzip");
        }
        if known {
            return Some(response);
        }
        let bytes = self.bytes.get(file.offset..file.offset + file.length)?;
        Some(response.with_body(file.kind, Body::Static(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{boxed::Box, vec, vec::Vec};
    use proptest::prelude::*;

    fn packed(files: &[(&str, &[u8], bool)]) -> Vec<u8> {
        let mut pack = MAGIC.to_vec();
        let total = HEADER + files.len() * ENTRY + files.iter().map(|(_, bytes, _)| bytes.len()).sum::<usize>();
        pack.extend_from_slice(&(files.len() as u32).to_le_bytes());
        pack.extend_from_slice(&(total as u32).to_le_bytes());
        let mut offset = HEADER + files.len() * ENTRY;
        for (path, bytes, unchanging) in files {
            let mut entry = vec![0; ENTRY];
            entry[..path.len()].copy_from_slice(path.as_bytes());
            entry[96..105].copy_from_slice(b"text/html");
            entry[137] = u8::from(*unchanging);
            entry[140..144].copy_from_slice(&(offset as u32).to_le_bytes());
            entry[144..148].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
            entry[148..152].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
            entry[160..].copy_from_slice(&Sha256::digest(bytes));
            pack.extend_from_slice(&entry);
            offset += bytes.len();
        }
        files.iter().for_each(|(_, bytes, _)| pack.extend_from_slice(bytes));
        pack
    }

    fn sample() -> Vec<u8> {
        packed(&[
            ("/assets/a.js", b"one", true),
            ("/index.html", b"<html>", false),
            ("/z", b"", false),
        ])
    }

    fn get(method: Method, path: &str, tag: Option<&str>) -> Request {
        Request {
            method,
            path: path.into(),
            query: String::new(),
            headers: tag.iter().map(|tag| ("if-none-match".into(), (*tag).into())).collect(),
            peer: String::new(),
            secure: true,
            body: Body::Empty,
        }
    }

    #[test]
    fn files_are_found_and_known_ones_not_sent_again() {
        let pack = Pack::open(Box::leak(sample().into_boxed_slice())).unwrap();
        let page = pack.respond(&get(Method::Get, "/", None)).unwrap();
        assert!(matches!(page.body, Body::Static(b"<html>")) && page.status == 200);
        assert_eq!(page.header("content-type"), Some("text/html"));
        let tag = page.header("etag").unwrap();
        assert_eq!(pack.respond(&get(Method::Get, "/", Some(tag))).unwrap().status, 304);
        assert_eq!(pack.respond(&get(Method::Get, "/", Some("\"other\""))).unwrap().status, 200);
        assert_eq!(pack.respond(&get(Method::Post, "/z", None)).unwrap().status, 405);
        assert!(pack.respond(&get(Method::Get, "/assets/", None)).is_none());
        assert!(
            pack.respond(&get(Method::Get, "/assets/a.js", None))
                .unwrap()
                .header("cache-control")
                .unwrap()
                .contains("immutable")
        );
    }

    proptest! {
        #[test]
        fn a_changed_byte_is_noticed_or_changes_no_file(at in 0usize..700, change in 1u8..=255) {
            let mut bytes = sample();
            let at = at % bytes.len();
            bytes[at] ^= change;
            let good: &[&[u8]] = &[b"one", b"<html>", b""];
            if let Ok(pack) = Pack::open(Box::leak(bytes.into_boxed_slice())) {
                for number in 0..pack.files {
                    let file = pack.file(number).unwrap();
                    prop_assert!(good.contains(&&pack.bytes[file.offset..file.offset + file.length]));
                }
            }
        }

        #[test]
        fn nothing_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut all = MAGIC.to_vec();
            all.extend_from_slice(&1u32.to_le_bytes());
            all.extend_from_slice(&(16 + bytes.len() as u32).to_le_bytes());
            all.extend_from_slice(&bytes);
            let _ = Pack::open(Box::leak(all.into_boxed_slice()));
        }
    }

    #[test]
    fn packs_that_lie_are_refused() {
        let open = |bytes: Vec<u8>| Pack::open(Box::leak(bytes.into_boxed_slice())).unwrap_err();
        assert_eq!(open(sample()[..100].to_vec()), PackError::Header);
        assert_eq!(open(packed(&[("/b", b"", false), ("/a", b"", false)])), PackError::Entry(1));
        assert_eq!(open(packed(&[("b", b"", false)])), PackError::Entry(0));
        let mut damaged = sample();
        *damaged.last_mut().unwrap() ^= 1;
        assert_eq!(open(damaged), PackError::Damaged(1));
    }
}
