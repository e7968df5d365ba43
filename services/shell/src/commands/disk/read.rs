//! `disk read`.

use crate::{
    commands::{Context, Doing, Failure},
    terminal::Style,
};
use alloc::{format, string::String};
use core::fmt::Write;
use tessera_proto::storage::{DiskInfo, MAX_DATA};

/// Most sectors of one command.
const MOST: u64 = 256;
/// Bytes of a line.
const LINE: usize = 16;

/// Prints sectors.
pub fn read(context: &mut Context<'_>, disk: &DiskInfo, first: u64, count: u64) -> Result<(), Failure> {
    if count == 0 || count > MOST {
        return Err(Failure::new(
            format!("{count} sectors cannot be shown at once"),
            format!("Ask for 1 to {MOST}."),
        ));
    }
    let size = disk.sector_size.max(1);
    for sector in (first..).take(count as usize) {
        context
            .out
            .styled_line(Style::Heading, &format!("sector {sector} of {}", disk.name));
        let mut offset = 0;
        let mut before: Option<[u8; LINE]> = None;
        let mut skipped = false;
        while offset < size {
            let length = (size - offset).min((MAX_DATA / LINE * LINE) as u32);
            let data = context
                .host
                .disk_read(&disk.name, sector, offset, length)
                .doing(&format!("read sector {sector} of {}", disk.name))?;
            if data.is_empty() {
                return Ok(());
            }
            for line in data.chunks(LINE) {
                let same = before.is_some_and(|before| before == line);
                if !same {
                    context.out.line(&row(offset, line));
                } else if !skipped {
                    context.out.styled_line(Style::Faint, "*");
                }
                skipped = same;
                before = line.try_into().ok();
                offset += line.len() as u32;
            }
        }
    }
    Ok(())
}

/// Offset, numbers, characters.
fn row(offset: u32, bytes: &[u8]) -> String {
    let mut text = format!("{offset:04x} ");
    for (index, byte) in bytes.iter().enumerate() {
        // Writing to a String does not fail.
        let _ = write!(text, "{}{byte:02x}", if index % 8 == 0 { "  " } else { " " });
    }
    while text.len() < 5 + LINE * 3 + 2 {
        text.push(' ');
    }
    text.push_str("  ");
    text.extend(
        bytes
            .iter()
            .map(|byte| if (0x20..0x7f).contains(byte) { char::from(*byte) } else { '.' }),
    );
    text
}
