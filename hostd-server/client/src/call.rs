//! Any operation by its name.

use crate::{host::encode, show};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::io::Write;

/// What the host can do: its operations come from here.
const DESCRIPTION: &str = include_str!("../../api/openapi.json");

/// Calls it, or names all of them.
///
/// # Errors
/// There is no such operation, or the host refused or was not reached.
pub fn call(operation: Option<&str>, set: &[String], body: Option<String>, json_wanted: bool) -> Result<()> {
    let description: Value = serde_json::from_str(DESCRIPTION)?;
    let paths = description["paths"].as_object().context("the description has no paths")?;
    let all = paths.iter().flat_map(|(path, methods)| {
        methods
            .as_object()
            .into_iter()
            .flatten()
            .map(move |(method, what)| (path, method, what))
    });
    let Some(operation) = operation else {
        for (_, _, what) in all {
            println!(
                "{:<24} {}",
                what["operationId"].as_str().unwrap_or(""),
                what["summary"].as_str().unwrap_or("")
            );
        }
        return Ok(());
    };
    let (path, method, what) = all
        .into_iter()
        .find(|(_, _, what)| what["operationId"] == operation)
        .with_context(|| format!("there is no operation {operation}: tessera call lists them"))?;
    let (mut path, mut query) = (path.clone(), Vec::new());
    for one in set {
        let (name, value) = one.split_once('=').context("--set takes NAME=VALUE")?;
        let place = format!("{{{name}}}");
        if path.contains(&place) {
            path = path.replace(&place, &encode(value, "/._-"));
        } else {
            query.push(format!("{name}={}", encode(value, "._-")));
        }
    }
    if path.contains('{') {
        bail!("{path} still has names in braces: --set NAME=VALUE for each");
    }
    if !query.is_empty() {
        path = format!("{path}?{}", query.join("&"));
    }
    let body = match body.as_deref() {
        Some("-") => Some(std::io::read_to_string(std::io::stdin())?),
        _ => body,
    };
    let body = body
        .map(|text| serde_json::from_str(&text).context("the body is not JSON"))
        .transpose()?;
    if body.is_none() && what["requestBody"]["required"] == true {
        bail!("{operation} needs --body");
    }
    let mut answer = crate::login::place()?.ask(&method.to_uppercase(), &path, body.as_ref())?;
    if answer.is_raw() {
        return Ok(std::io::stdout().write_all(&answer.bytes()?)?);
    }
    let answer = answer.json()?;
    match answer["items"].as_array() {
        _ if answer.is_null() => {}
        Some(items) if !json_wanted && items.iter().any(|item| !item.is_object()) => {
            items.iter().for_each(|item| println!("{}", show::cell(item)))
        }
        Some(items) if !json_wanted => show::list(items, &show::columns(items), false),
        _ => show::one(&answer, json_wanted),
    }
    Ok(())
}
