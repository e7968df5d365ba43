//! Answers on the wire.

use super::{Body, Response};
use alloc::{format, string::String, vec::Vec};
use core::fmt::Write;

/// How the body is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sending {
    /// So many bytes.
    Length(u64),
    /// In chunks.
    Chunked,
    /// Until the connection ends: HTTP/1.0 knows no chunks.
    ToEnd,
    /// The status code forbids one, and a length too.
    None,
}

/// How the answer's body is to be sent.
pub fn sending(response: &Response, old: bool) -> Sending {
    match (response.status, response.body.length()) {
        (100..=199 | 204 | 304, _) => Sending::None,
        (_, Some(length)) => Sending::Length(length),
        (_, None) if old => Sending::ToEnd,
        (_, None) => Sending::Chunked,
    }
}

/// An answer's head.
pub fn head(response: &Response, sending: Sending, keep_alive: bool, unix_ms: u64) -> Vec<u8> {
    let mut text = format!(
        "HTTP/1.1 {} {}\r\nDate: {}\r\n",
        response.status,
        reason(response.status),
        date(unix_ms)
    );
    for (name, value) in &response.headers {
        // What would end the line is never sent.
        if value.chars().all(|c| !c.is_control() || c == '\t') {
            text += &format!("{name}: {value}\r\n");
        }
    }
    match sending {
        Sending::Length(length) => text += &format!("Content-Length: {length}\r\n"),
        Sending::Chunked => text += "Transfer-Encoding: chunked\r\n",
        Sending::ToEnd | Sending::None => {}
    }
    if response.status != 101 {
        text += if keep_alive {
            "Connection: keep-alive\r\n"
        } else {
            "Connection: close\r\n"
        };
    }
    text += "\r\n";
    text.into_bytes()
}

/// An answer that says what was wrong, in the form of the API's.
pub fn error(status: u16, message: &str) -> Response {
    let body = format!("{{\"code\":\"{}\",\"message\":\"{message}\",\"hint\":\"\"}}", code(status));
    Response::new(status).with_body("application/json", Body::Bytes(body.into_bytes()))
}

fn code(status: u16) -> String {
    let mut code = String::new();
    for (place, word) in reason(status).split(' ').enumerate() {
        let mut letters = word.chars().filter(char::is_ascii_alphanumeric);
        if let Some(first) = letters.next() {
            let first = if place == 0 { first.to_ascii_lowercase() } else { first };
            let _ = write!(code, "{first}{}", letters.collect::<String>().to_ascii_lowercase());
        }
    }
    code
}

fn reason(status: u16) -> &'static str {
    match status {
        101 => "Switching Protocols",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        _ => "Status",
    }
}

/// A moment as RFC 9110, 5.6.7 writes it.
fn date(unix_ms: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec", "Jan", "Feb"];
    let seconds = unix_ms / 1000;
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // Years begin in March here, so that the day that is sometimes there is the last one.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let year = year_of_era + era * 400 + u64::from(month >= 10);
    let (weekday, month) = (DAYS[(days % 7) as usize], MONTHS[(month % 12) as usize]);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_the_standard_has_it() {
        assert_eq!(date(784_111_777_000), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(date(951_782_400_000), "Tue, 29 Feb 2000 00:00:00 GMT");
        assert_eq!(date(1_767_225_599_999), "Wed, 31 Dec 2025 23:59:59 GMT");
    }

    #[test]
    fn a_header_cannot_end_its_line() {
        let response = Response::new(200).with("location", "/a\r\nSet-Cookie: b").with("etag", "\"1\"");
        let text = String::from_utf8(head(&response, Sending::Length(0), true, 0)).unwrap();
        assert!(!text.contains("Set-Cookie") && text.contains("etag: \"1\"\r\n"), "{text}");
        assert_eq!(code(431), "requestHeaderFieldsTooLarge");
    }
}
