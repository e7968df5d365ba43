//! `datastore list` and `datastore ls`.

use super::kind;
use crate::{
    commands::{Context, Doing, Failure},
    format,
    table::{Align, Table},
    terminal::Style,
};
use alloc::{format, string::String};
use tessera_proto::datastore::EntryKind;

/// All datastores.
pub fn stores(context: &mut Context<'_>) -> Result<(), Failure> {
    let stores = context.host.datastores().doing("list datastores")?;
    if stores.is_empty() {
        context.out.styled_line(
            Style::Faint,
            "There are no datastores. `disk list` shows the disks, `datastore format` makes one.",
        );
        return Ok(());
    }
    let mut table = Table::new(&[
        ("DATASTORE", Align::Left),
        ("ON", Align::Left),
        ("SIZE", Align::Right),
        ("USED", Align::Right),
        ("FREE", Align::Right),
        ("PROVISIONED", Align::Right),
        ("", Align::Flexible),
    ]);
    for store in stores {
        let place = match store.partition {
            0 => store.disk,
            number => format!("{}, {number}", store.disk),
        };
        let (style, remark) = match (store.trouble.as_str(), store.near_full) {
            ("", false) => (Style::Plain, String::new()),
            ("", true) => (Style::Warning, "nearly full".into()),
            (trouble, _) => (Style::Error, trouble.into()),
        };
        table.styled_row(
            style,
            [
                store.name,
                place,
                format::bytes(store.size),
                format::bytes(store.used),
                format::bytes(store.available),
                format::bytes(store.provisioned),
                remark,
            ],
        );
    }
    table.print(&mut context.out);
    Ok(())
}

/// What is in a folder.
pub fn folder(context: &mut Context<'_>, store: &str, folder: &str) -> Result<(), Failure> {
    let entries = context.host.datastore_browse(store, folder).doing("list the folder")?;
    if entries.is_empty() {
        context.out.styled_line(Style::Faint, "The folder is empty.");
        return Ok(());
    }
    let mut table = Table::new(&[
        ("NAME", Align::Flexible),
        ("KIND", Align::Left),
        ("SIZE", Align::Right),
        ("USED", Align::Right),
        ("SHARED", Align::Right),
    ]);
    for entry in entries {
        let what = kind(&entry).into();
        let amount = |bytes: u64| {
            if entry.kind == EntryKind::Folder {
                String::new()
            } else {
                format::bytes(bytes)
            }
        };
        let (size, used, shared) = (amount(entry.size), amount(entry.used), amount(entry.shared));
        table.row([entry.name, what, size, used, shared]);
    }
    table.print(&mut context.out);
    Ok(())
}
