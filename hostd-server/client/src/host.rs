//! What every command needs of a host.

use crate::http::{Place, Refusal};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::time::Duration;

/// Every item of a list.
pub fn list(place: &Place, path: &str) -> Result<Vec<Value>> {
    let (mut items, mut cursor) = (Vec::new(), None);
    loop {
        let joint = if path.contains('?') { '&' } else { '?' };
        let from = cursor.map_or_else(String::new, |cursor: String| format!("&cursor={cursor}"));
        let page = place.json("GET", &format!("/api/v1{path}{joint}limit=1000{from}"), None)?;
        items.extend(page["items"].as_array().cloned().unwrap_or_default());
        match page["next"].as_str() {
            Some(next) => cursor = Some(next.to_string()),
            None => return Ok(items),
        }
    }
}

/// The identifier of what has that name, or is it.
pub fn find(place: &Place, path: &str, name: &str) -> Result<String> {
    let all = list(place, path)?;
    let own = |one: &&Value| one["id"] == name || one["name"] == name || one["config"]["name"] == name;
    let found = all.iter().find(own).and_then(|one| one["id"].as_str());
    Ok(found.map(String::from).ok_or_else(|| Refusal {
        status: 404,
        message: format!("There is nothing called {name} in {path}"),
    })?)
}

/// Begins long work, shows how far it is, and says how it ended.
pub fn work(place: &Place, method: &str, path: &str, body: Option<&Value>, quiet: bool) -> Result<Value> {
    let mut task = place.json(method, &format!("/api/v1{path}"), body)?;
    let bar = if quiet {
        indicatif::ProgressBar::hidden()
    } else {
        indicatif::ProgressBar::new(100)
    };
    let mut pause = 20;
    while task["completed"].is_null() {
        bar.set_position(task["progress"].as_u64().unwrap_or(0));
        std::thread::sleep(Duration::from_millis(pause));
        pause = (pause * 2).min(1000);
        let id = task["id"].as_str().context("the host began no task")?.to_string();
        task = place.json("GET", &format!("/api/v1/tasks/{id}"), None)?;
    }
    bar.finish_and_clear();
    match task["state"].as_str() {
        Some("success") => Ok(task),
        _ => bail!("{}", task["error"]["message"].as_str().unwrap_or("the task was cancelled")),
    }
}

pub fn encode(text: &str, keep: &str) -> String {
    text.bytes()
        .map(|byte| {
            if byte.is_ascii_alphanumeric() || keep.as_bytes().contains(&byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}
