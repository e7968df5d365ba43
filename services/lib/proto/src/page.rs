//! Answers that may be longer than a message come in pages.

use crate::{MAX_MESSAGE, wire};
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// One message's worth of a longer list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound(serialize = "T: Serialize", deserialize = "T: Deserialize<'de>"))]
pub struct Page<T> {
    /// The items.
    #[serde(with = "wire::list")]
    pub items: Vec<T>,
    /// Where the next page starts; `None` after the last item.
    pub next: Option<u32>,
}

/// Room for the reply's own framing: result tag, list length, `next`.
const FRAMING: usize = 16;

impl<T: Serialize> Page<T> {
    /// Takes items as long as they fit into a message. `items` yields each with its position; the position of the first that does not fit becomes `next`.
    /// An item that fits no message at all is left out.
    pub fn fill(items: impl Iterator<Item = (u32, T)>) -> Self {
        let mut page = Self {
            items: Vec::new(),
            next: None,
        };
        let mut room = MAX_MESSAGE - FRAMING;
        for (position, item) in items {
            let size = wire::size(&item);
            if size > MAX_MESSAGE - FRAMING {
                continue;
            }
            if size > room {
                page.next = Some(position);
                break;
            }
            room -= size;
            page.items.push(item);
        }
        page
    }
}

/// Collects all pages: calls `fetch` with each page's start until there is no next one. Stops after `limit` items, so that a server that never ends cannot
/// exhaust the caller.
///
/// # Errors
/// The first that `fetch` gives.
pub fn collect<T, E>(limit: usize, mut fetch: impl FnMut(u32) -> Result<Page<T>, E>) -> Result<Vec<T>, E> {
    let mut all = Vec::new();
    let mut start = 0;
    loop {
        let page = fetch(start)?;
        let empty = page.items.is_empty();
        all.extend(page.items);
        match page.next {
            Some(next) if next > start && !empty && all.len() < limit => start = next,
            _ => break,
        }
    }
    all.truncate(limit);
    Ok(all)
}
