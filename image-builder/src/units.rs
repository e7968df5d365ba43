//! Quantities as people write them.

use tessera_abi::PAGE_SIZE;

fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    (&text[..end], text[end..].trim())
}

fn scaled(text: &str, units: &[(&str, u64)]) -> Result<u64, String> {
    let (digits, unit) = split(text);
    let names = || units.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let number: u64 = match digits {
        "" => return Err(format!("no number before the unit ({})", names())),
        digits => digits.parse().map_err(|_| "the number is too large".to_string())?,
    };
    let (_, factor) = units.iter().find(|(name, _)| *name == unit).ok_or_else(|| {
        if unit.is_empty() {
            format!("the unit is missing ({})", names())
        } else {
            format!("unknown unit \"{unit}\" (known: {})", names())
        }
    })?;
    number.checked_mul(*factor).ok_or_else(|| "the amount is too large".to_string())
}

/// Bytes: "64 KiB", "512 MiB", "2 GiB", "100 B".
pub fn size(text: &str) -> Result<u64, String> {
    scaled(text, &[("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)])
}

/// Bits in a second: "500 kbit", "100 Mbit", "10 Gbit".
pub fn rate(text: &str) -> Result<u64, String> {
    scaled(text, &[("kbit", 1_000), ("Mbit", 1_000_000), ("Gbit", 1_000_000_000)])
}

/// Bytes that are whole pages.
pub fn pages(text: &str) -> Result<u64, String> {
    let bytes = size(text)?;
    if bytes.is_multiple_of(PAGE_SIZE as u64) {
        Ok(bytes)
    } else {
        Err(format!("not a multiple of {PAGE_SIZE} bytes, the size of a page"))
    }
}

/// Microseconds: "500 us", "10 ms", "1 s".
pub fn microseconds(text: &str) -> Result<u64, String> {
    scaled(text, &[("us", 1), ("ms", 1000), ("s", 1_000_000)])
}

/// A number, decimal or with `0x`.
pub fn integer(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let (digits, radix) = text.strip_prefix("0x").map_or((text, 10), |hex| (hex, 16));
    if digits.starts_with('+') {
        return Err(format!("\"{text}\" is not a number"));
    }
    u64::from_str_radix(&digits.replace('_', ""), radix).map_err(|_| format!("\"{text}\" is not a number"))
}

/// An Ethernet address of a station: "02:54:00:12:34:56".
pub fn mac(text: &str) -> Result<[u8; 6], String> {
    let mut mac = [0; 6];
    let mut parts = text.trim().split(':');
    for byte in &mut mac {
        let part = parts
            .next()
            .filter(|part| part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let part = part.ok_or("not six pairs of hexadecimal digits with colons between them")?;
        *byte = u8::from_str_radix(part, 16).map_err(|_| "not hexadecimal")?;
    }
    match mac {
        _ if parts.next().is_some() => Err("more than six bytes".into()),
        [0, 0, 0, 0, 0, 0] => Err("all zero is no station's address".into()),
        [first, ..] if first & 1 != 0 => Err("the first byte is odd: this is the address of a group of stations".into()),
        mac => Ok(mac),
    }
}

/// I/O ports: "0x3f8-0x3ff" or "0x80". Answers the first port and how many.
pub fn ports(text: &str) -> Result<(u16, u32), String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |text: &str| u16::try_from(integer(text)?).map_err(|_| format!("port {} is above 0xffff", text.trim()));
    let (first, last) = (port(first)?, port(last)?);
    if last < first {
        return Err("the last port is below the first".to_string());
    }
    Ok((first, u32::from(last) - u32::from(first) + 1))
}

/// Device registers: "0xfec00000 + 4 KiB". Answers address and length, both whole pages.
pub fn registers(text: &str) -> Result<(u64, u64), String> {
    let (address, length) = text.split_once('+').ok_or("no `+` between address and length")?;
    let (address, length) = (integer(address)?, pages(length)?);
    if !address.is_multiple_of(PAGE_SIZE as u64) {
        return Err("the address is not at the start of a page".to_string());
    }
    if length == 0 || address.checked_add(length).is_none() {
        return Err("the length is zero or reaches past the end of memory".to_string());
    }
    Ok((address, length))
}

/// Most bytes that two servers share.
const MAX_SHARE: u64 = 16 << 20;

/// Shared memory: "storage + 256 KiB". Answers the other server and the length in whole pages.
pub fn share(text: &str) -> Result<(String, u64), String> {
    let (server, length) = text.split_once('+').ok_or("no `+` between server and length")?;
    let (server, length) = (server.trim(), pages(length)?);
    if server.is_empty() {
        return Err("no server is named".to_string());
    }
    if length == 0 || length > MAX_SHARE {
        return Err(format!("the length is not between one page and {} MiB", MAX_SHARE >> 20));
    }
    Ok((server.to_string(), length))
}

/// Bytes for people: the largest unit that divides them, or one digit after the point.
#[must_use]
pub fn show_size(bytes: u64) -> String {
    for (name, unit) in [("GiB", 1_u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes >= unit {
            let tenths = u128::from(bytes) * 10 / u128::from(unit);
            return if bytes.is_multiple_of(unit) {
                format!("{} {name}", bytes / unit)
            } else {
                format!("{}.{} {name}", tenths / 10, tenths % 10)
            };
        }
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes() {
        assert_eq!(size("512 MiB"), Ok(512 << 20));
        assert_eq!(size("4KiB"), Ok(4096));
        for wrong in [
            "",
            "512",
            "MiB",
            "1 MB",
            "-1 MiB",
            "1.5 GiB",
            "99999999999999999999 B",
            "18446744073709551615 GiB",
        ] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
        assert!(pages("5 B").is_err());
    }

    #[test]
    fn port_ranges() {
        assert_eq!(ports("0x3f8-0x3ff"), Ok((0x3f8, 8)));
        assert_eq!(ports("128"), Ok((128, 1)));
        assert_eq!(ports("0-0xffff"), Ok((0, 0x10000)));
        for wrong in ["", "0x3ff-0x3f8", "0x10000", "a-b", "1-", "+1"] {
            assert!(ports(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn device_registers() {
        assert_eq!(registers("0xfed00000 + 4 KiB"), Ok((0xfed0_0000, 4096)));
        for wrong in [
            "0xfed00000",
            "0xfed00001 + 4 KiB",
            "0xfed00000 + 1 B",
            "0xfed00000 + 0 B",
            "0xfffffffffffff000 + 4 KiB",
        ] {
            assert!(registers(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(microseconds("10 ms"), Ok(10_000));
        assert!(microseconds("10").is_err());
    }

    proptest! {
        #[test]
        fn whole_units_survive_being_shown(number in 1_u64..1024, unit in 0_u32..4) {
            let bytes = number << (10 * unit);
            prop_assert_eq!(size(&show_size(bytes)), Ok(bytes));
        }

        #[test]
        fn any_text_is_answered(text in ".{0,30}") {
            let _ = (size(&text), ports(&text), registers(&text), microseconds(&text), integer(&text));
        }
    }
}
