//! `datastore show` and `datastore changed`.

use super::kind;
use crate::{
    commands::{Context, Doing, Failure},
    format,
    terminal::Style,
};
use alloc::{format, vec::Vec};
use tessera_proto::datastore::{EntryInfo, EntryKind};

/// Deepest that the tree of snapshots is indented.
const DEEPEST: usize = 16;

/// Everything about one thing.
pub fn show(context: &mut Context<'_>, store: &str, path: &str) -> Result<(), Failure> {
    let entry = context.host.datastore_stat(store, path).doing(&format!("look at {path}"))?;
    context.out.styled_line(Style::Heading, &entry.name);
    context.out.line(&format!("  kind         {}", kind(&entry)));
    if entry.kind != EntryKind::Folder {
        context.out.line(&format!("  size         {}", format::bytes(entry.size)));
        context.out.line(&format!(
            "  used         {}, {} of it shared with snapshots or clones",
            format::bytes(entry.used),
            format::bytes(entry.shared)
        ));
        context
            .out
            .line(&format!("  checksums    {}", if entry.checksums { "yes" } else { "no" }));
    }
    if entry.kind == EntryKind::Disk {
        let snapshots = context
            .host
            .datastore_snapshots(store, path)
            .doing(&format!("list the snapshots of {path}"))?;
        tree(context, &entry, &snapshots);
    }
    Ok(())
}

/// The snapshots as a tree, with the disk where it goes on.
fn tree(context: &mut Context<'_>, disk: &EntryInfo, snapshots: &[EntryInfo]) {
    if snapshots.is_empty() {
        return;
    }
    context.out.styled_line(Style::Heading, "Snapshots");
    let known = |origin: Option<u32>| origin.filter(|id| snapshots.iter().any(|snapshot| snapshot.id == *id));
    // Depth first, without recursion: what stands in the list may refer to itself.
    let mut waiting: Vec<(u32, usize)> = Vec::new();
    let roots = snapshots.iter().rev().filter(|snapshot| known(snapshot.origin).is_none());
    waiting.extend(roots.map(|root| (root.id, 0)));
    let mut left = snapshots.len();
    while let Some((id, depth)) = waiting.pop() {
        let Some(snapshot) = snapshots.iter().find(|snapshot| snapshot.id == id) else {
            continue;
        };
        let indent = 2 + 2 * depth.min(DEEPEST);
        context.out.line(&format!(
            "{:indent$}{} ({} in use)",
            "",
            crate::terminal::clip(&snapshot.name, 40),
            format::bytes(snapshot.used)
        ));
        if disk.origin == Some(id) {
            context.out.styled_line(Style::Good, &format!("{:indent$}  * the disk is here", ""));
        }
        left -= 1;
        if left == 0 {
            return;
        }
        let next = snapshots.iter().rev().filter(|other| other.origin == Some(id));
        waiting.extend(next.map(|other| (other.id, depth + 1)));
    }
}

/// A number for later.
pub fn change_id(context: &mut Context<'_>, store: &str, disk: &str) -> Result<(), Failure> {
    let id = context
        .host
        .datastore_change_id(store, disk)
        .doing(&format!("track changes of {disk}"))?;
    context.out.line(&format!(
        "`datastore changed {store} {disk} {id}` will show what changes from now on."
    ));
    Ok(())
}

/// What changed.
pub fn changed(context: &mut Context<'_>, store: &str, disk: &str, since: u64) -> Result<(), Failure> {
    let (mut from, mut total) = (0, 0_u64);
    loop {
        let changes = context
            .host
            .datastore_changed(store, disk, since, from)
            .doing(&format!("list changes of {disk}"))?;
        for (start, length) in changes.ranges {
            context.out.line(&format!("{start:>16} {length:>12}"));
            total = total.saturating_add(length);
        }
        match changes.next.filter(|next| *next > from) {
            Some(next) if !context.out.interrupted() => from = next,
            _ => break,
        }
    }
    context.out.line(&format!("{} changed.", format::bytes(total)));
    Ok(())
}
