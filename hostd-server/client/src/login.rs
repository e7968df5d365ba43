//! Log-in, and which hosts are known.

use crate::http::{Place, Refusal};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::{fs::OpenOptions, io::Write, path::PathBuf};

fn settings() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("TESSERA_CONFIG") {
        return Ok(path.into());
    }
    let base = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".config")));
    Ok(base.context("neither TESSERA_CONFIG nor HOME is set")?.join("tessera/login.json"))
}

/// What was kept: nothing, if nobody ever logged in.
fn kept() -> Result<Value> {
    let path = settings()?;
    match std::fs::read_to_string(&path) {
        Ok(text) => serde_json::from_str(&text).with_context(|| format!("{} is damaged: remove it and log in again", path.display())),
        Err(_) => Ok(json!({})),
    }
}

fn keep(value: &Value) -> Result<()> {
    let path = settings()?;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    // Beside it and then in its place: a crash leaves the old one. The token is as good as the password.
    let beside = path.with_extension("new");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options
        .open(&beside)
        .and_then(|mut file| file.write_all(value.to_string().as_bytes()));
    written.with_context(|| format!("{} cannot be written", beside.display()))?;
    std::fs::rename(&beside, &path).with_context(|| format!("{} cannot be written", path.display()))
}

/// The host that somebody is logged in to.
///
/// # Errors
/// Nobody is.
pub fn place() -> Result<Place> {
    let value = kept()?;
    let text = |name: &str| value[name].as_str().map(String::from);
    if text("token").is_none() {
        return Err(Refusal {
            status: 401,
            message: "Nobody is logged in: tessera login https://HOST".into(),
        }
        .into());
    }
    let url = text("url").unwrap_or_default();
    Ok(Place {
        pin: value["known"][&url].as_str().map(String::from),
        token: text("token"),
        url,
    })
}

/// Forgets the token, and not which hosts' keys are known.
///
/// # Errors
/// The file cannot be written.
pub fn forget() -> Result<()> {
    let mut value = kept()?;
    value["token"] = Value::Null;
    keep(&value)
}

/// Logs in, and keeps the token and what the host is known by.
///
/// # Errors
/// The host refused, was not reached, or is another one than it was.
pub fn login(url: &str, user: &str, password_file: Option<PathBuf>, trust: Option<String>) -> Result<()> {
    let url = url.trim_end_matches('/');
    let mut kept = kept()?;
    let known = kept["known"][url].as_str().map(String::from);
    let mut place = Place {
        url: url.into(),
        pin: trust.map(|trust| trust.replace(':', "").to_ascii_lowercase()).or(known),
        token: None,
    };
    // Who the host is is known before the password is sent.
    let about = place.send("GET", "/api/v1/about", &[], 0, &mut std::io::empty(), |_| ())?;
    if let Some(shown) = &about.shown {
        if place.pin.is_none() {
            eprintln!(
                "The host's certificate is {}: compare it with what the host's console shows. Its key is remembered.",
                shown.certificate
            );
        }
        // The key is what stays when the certificate is renewed.
        place.pin = Some(shown.key.clone());
    }
    about.json()?;
    let mut password = String::new();
    match password_file {
        Some(file) => password = std::fs::read_to_string(&file).with_context(|| format!("{} cannot be read", file.display()))?,
        None => {
            eprint!("Password of {user}: ");
            let quiet = std::process::Command::new("stty")
                .arg("-echo")
                .stderr(std::process::Stdio::null())
                .status();
            std::io::stdin().read_line(&mut password)?;
            if quiet.is_ok_and(|status| status.success()) {
                let _ = std::process::Command::new("stty").arg("echo").status();
            }
            eprintln!();
        }
    }
    let session = place.json(
        "POST",
        "/api/v1/session",
        Some(&json!({ "user": user, "password": password.trim_end_matches(['\r', '\n']), "bearer": true })),
    )?;
    kept["url"] = url.into();
    kept["token"] = session["token"].clone();
    if let Some(pin) = &place.pin {
        kept["known"][url] = pin.as_str().into();
    }
    keep(&kept)?;
    println!("Logged in to {url} as {user}");
    if session["mustChangePassword"] == true {
        println!("Change the password: tessera call changePassword --body '{{\"current\":\"…\",\"password\":\"…\"}}'");
    }
    Ok(())
}
