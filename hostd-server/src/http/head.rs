//! A request's head (RFC 9112), read strictly: what two programs could understand differently is refused.

use super::Method;
use alloc::{borrow::ToOwned, string::String, vec::Vec};

/// Bytes of a head.
pub const MOST_HEAD: usize = 16 << 10;
/// Header fields of a head.
const MOST_FIELDS: usize = 64;

/// How the body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// After so many bytes; 0: there is none.
    Length(u64),
    /// As its chunks say.
    Chunked,
}

/// What a head says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Method.
    pub method: Method,
    /// Path, percent-encoded.
    pub path: String,
    /// Query without its `?`.
    pub query: String,
    /// Fields in order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body's framing.
    pub framing: Framing,
    /// The connection may be used again.
    pub keep_alive: bool,
    /// It was spoken in HTTP/1.0.
    pub old: bool,
    /// The other side waits for `100 Continue`.
    pub expects_continue: bool,
}

/// Why a head is refused, as a status code and a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal(pub u16, pub &'static str);

const BAD: Refusal = Refusal(400, "The request is not HTTP/1.1 as RFC 9112 describes it.");

/// Reads a head from the start of `bytes`. `None`: it is not complete. Else with how many bytes it takes.
///
/// # Errors
/// The answer for it, after which the connection must be closed.
pub fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, Refusal> {
    let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let visible = &bytes[..bytes.len().min(MOST_HEAD)];
    let length = match request.parse(visible) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < MOST_HEAD => return Ok(None),
        Ok(httparse::Status::Partial) => return Err(Refusal(431, "The request's head is longer than 16 KiB.")),
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal(431, "The request has more than 64 header fields.")),
        Err(httparse::Error::Version) => return Err(Refusal(505, "This host speaks HTTP/1.1.")),
        Err(_) => return Err(BAD),
    };
    let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
        return Err(BAD);
    };
    let method = Method::parse(method).ok_or(Refusal(501, "This host does not know the request's method."))?;
    if !target.starts_with('/') || !target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return Err(Refusal(400, "The request's target must be a path."));
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut headers = Vec::with_capacity(request.headers.len());
    for field in request.headers.iter() {
        let value = core::str::from_utf8(field.value).map_err(|_| Refusal(400, "A header field is not UTF-8."))?;
        headers.push((field.name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned()));
    }
    let old = version == 0;
    let hosts = values(&headers, "host").count();
    if hosts > 1 || (hosts == 0 && !old) {
        return Err(Refusal(400, "The request must have one Host field."));
    }
    let framing = framing(&headers, old)?;
    let token =
        |name, token: &str| values(&headers, name).any(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(token)));
    let expectations = values(&headers, "expect").count();
    let expects_continue = token("expect", "100-continue");
    if expectations > usize::from(expects_continue) {
        return Err(Refusal(417, "This host knows no expectation but 100-continue."));
    }
    let keep_alive = !token("connection", "close") && (!old || token("connection", "keep-alive"));
    let (path, query) = (path.to_owned(), query.to_owned());
    let head = Head {
        method,
        path,
        query,
        headers,
        framing,
        keep_alive,
        old,
        expects_continue: expects_continue && !old,
    };
    Ok(Some((head, length)))
}

fn values<'a>(headers: &'a [(String, String)], name: &'a str) -> impl Iterator<Item = &'a str> {
    headers.iter().filter(move |(own, _)| own == name).map(|(_, value)| value.as_str())
}

/// RFC 9112, 6: with both fields, or with several lengths, somebody on the way may see another body than this host does.
fn framing(headers: &[(String, String)], old: bool) -> Result<Framing, Refusal> {
    let mut lengths = values(headers, "content-length");
    let mut codings = values(headers, "transfer-encoding");
    match (lengths.next(), codings.next()) {
        (None, None) => Ok(Framing::Length(0)),
        (Some(length), None) => {
            let digits = (1..=18).contains(&length.len()) && length.bytes().all(|byte| byte.is_ascii_digit());
            match length.parse() {
                Ok(length) if digits && lengths.next().is_none() => Ok(Framing::Length(length)),
                _ => Err(Refusal(400, "The request's Content-Length is not one number.")),
            }
        }
        (None, Some(coding)) if coding.eq_ignore_ascii_case("chunked") && codings.next().is_none() && !old => Ok(Framing::Chunked),
        (None, Some(_)) if !old => Err(Refusal(501, "This host knows no transfer coding but chunked.")),
        _ => Err(Refusal(400, "The request says in two ways where its body ends.")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use proptest::prelude::*;

    fn status(text: &str) -> u16 {
        match parse(text.as_bytes()) {
            Ok(Some(_)) => 200,
            Ok(None) => 100,
            Err(Refusal(status, _)) => status,
        }
    }

    #[test]
    fn heads_are_read_strictly() {
        let text = b"PUT /a%20b?c=d HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nabc";
        let (head, length) = parse(text).unwrap().unwrap();
        assert_eq!(
            (head.path.as_str(), head.query.as_str(), head.framing),
            ("/a%20b", "c=d", Framing::Length(3))
        );
        assert!(head.keep_alive && head.expects_continue && length == text.len() - 3);
        for (status_wanted, lines) in [
            (200, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
            (200, "GET / HTTP/1.0\r\n\r\n"),
            (100, "GET / HTTP/1.1\r\nHost: x\r\n"),
            (400, "GET / HTTP/1.1\r\n\r\n"),
            (400, "GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n"),
            (400, "GET http://x/ HTTP/1.1\r\nHost: x\r\n\r\n"),
            (400, "GET / HTTP/1.1\r\nHost: x\r\n folded: y\r\n\r\n"),
            (400, "GET / HTTP/1.1\r\nHost : x\r\n\r\n"),
            (505, "GET / HTTP/2.0\r\nHost: x\r\n\r\n"),
            (501, "BREW / HTTP/1.1\r\nHost: x\r\n\r\n"),
            (417, "PUT / HTTP/1.1\r\nHost: x\r\nExpect: tea\r\n\r\n"),
            (400, "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n"),
            (400, "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\n"),
            (400, "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 1, 1\r\n\r\n"),
            (400, "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n"),
            (
                400,
                "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            ),
            (501, "PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"),
            (400, "PUT / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ] {
            assert_eq!(status(lines), status_wanted, "{lines:?}");
        }
        assert_eq!(status(&format!("GET /{} HTTP/1.1\r\n", "x".repeat(MOST_HEAD))), 431);
        assert_eq!(status(&format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "a: b\r\n".repeat(65))), 431);
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
            let mut head = b"GET / HTTP/1.1\r\nHost: x\r\n".to_vec();
            head.extend_from_slice(&bytes);
            let _ = parse(&head);
        }

        #[test]
        fn a_head_is_complete_at_its_end_and_not_before(path in "/[a-z0-9/%?=&]{0,40}", value in "[!-~]{0,40}", cut in 0usize..200) {
            let text = format!("GET {path} HTTP/1.1\r\nHost: x\r\nX-Value: {value}\r\n\r\n");
            let (head, length) = parse(text.as_bytes()).unwrap().unwrap();
            prop_assert_eq!(length, text.len());
            prop_assert_eq!(&head.headers[1].1, &value);
            prop_assert_eq!(parse(&text.as_bytes()[..cut.min(text.len() - 1)]), Ok(None));
        }
    }
}
