//! Licences and notices of what an image contains: the crates that kernel and servers are linked from, the boot loader, and the guests' files.

use crate::system::System;
use anyhow::{Context, bail};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Where Debian keeps the texts of common licences.
const COMMON: &str = "/usr/share/common-licenses";

/// Writes to a string cannot fail.
macro_rules! put {
    ($out:expr, $($argument:tt)*) => { let _ = writeln!($out, $($argument)*); };
}

/// A crate that is linked into a program.
struct Crate {
    name: String,
    version: String,
    license: String,
    repository: String,
    folder: PathBuf,
}

/// Notices of the programs: of the crates that `packages` of the workspace at `manifest` are linked from, and of Rust's own libraries (from `sysroot`).
///
/// # Errors
/// `cargo metadata` fails, or a crate comes without licence.
pub fn programs(manifest: &Path, packages: &[String]) -> anyhow::Result<String> {
    let output = Command::new("cargo")
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--filter-platform",
            "x86_64-unknown-none",
            "--manifest-path",
        ])
        .arg(manifest)
        .output()
        .context("cargo cannot be started; install it (`make setup`)")?;
    if !output.status.success() {
        bail!("cargo metadata failed:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata wrote no JSON")?;
    from_metadata(&metadata, packages)
}

fn from_metadata(metadata: &Value, packages: &[String]) -> anyhow::Result<String> {
    let crates = linked(metadata, packages)?;
    let mut out = String::new();
    put!(
        out,
        "Tessera\n=======\n\nTessera's own code is licensed under the Apache License, Version 2.0, or the MIT licence, at your choice."
    );
    put!(
        out,
        "\n\nThe kernel and the servers contain these Rust crates\n====================================================\n"
    );
    // Many crates come with the same text to the letter: each text is printed once.
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for found in &crates {
        put!(out, "{} {}: {}  {}", found.name, found.version, found.license, found.repository);
        for text in licence_files(&found.folder)? {
            texts.entry(text).or_default().push(format!("{} {}", found.name, found.version));
        }
    }
    put!(
        out,
        "core, alloc, compiler_builtins (the Rust project): MIT OR Apache-2.0  https://github.com/rust-lang/rust"
    );
    for (text, users) in texts {
        put!(out, "\n---- {} ----\n\n{}", users.join(", "), text.trim_end());
    }
    Ok(out)
}

/// The crates outside the workspace that end up in programs: through normal dependencies, without macros that only run in the compiler.
fn linked(metadata: &Value, packages: &[String]) -> anyhow::Result<Vec<Crate>> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let by_id: BTreeMap<String, Value> = list(&metadata["packages"])
        .into_iter()
        .map(|package| (text(&package["id"]), package))
        .collect();
    let nodes: BTreeMap<String, Value> = list(&metadata["resolve"]["nodes"])
        .into_iter()
        .map(|node| (text(&node["id"]), node))
        .collect();
    let mut open = Vec::new();
    for name in packages {
        let (id, _) = by_id
            .iter()
            .find(|(_, package)| package["name"] == name.as_str() && package["source"].is_null())
            .with_context(|| format!("the workspace has no package {name}"))?;
        open.push(id.clone());
    }
    let mut seen: BTreeSet<String> = BTreeSet::new();
    while let Some(id) = open.pop() {
        if !seen.insert(id.clone()) {
            continue;
        }
        for dependency in list(&nodes.get(&id).unwrap_or(&Value::Null)["deps"]) {
            let normal = list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
            let target = text(&dependency["pkg"]);
            let is_macro = by_id.get(&target).is_some_and(|package| {
                list(&package["targets"])
                    .iter()
                    .any(|found| list(&found["kind"]).iter().any(|kind| kind == "proc-macro"))
            });
            if normal && !is_macro {
                open.push(target);
            }
        }
    }
    let mut crates = Vec::new();
    for id in seen {
        let package = &by_id[&id];
        if package["source"].is_null() {
            continue;
        }
        let name = text(&package["name"]);
        let license = match (package["license"].as_str(), package["license_file"].as_str()) {
            (Some(license), _) => license.to_string(),
            (None, Some(_)) => "see its text below".to_string(),
            (None, None) => bail!("the crate {name} names no licence, so it cannot be put into an image"),
        };
        let folder = PathBuf::from(text(&package["manifest_path"]))
            .parent()
            .map(Path::to_path_buf)
            .unwrap_or_default();
        crates.push(Crate {
            name,
            version: text(&package["version"]),
            license,
            repository: text(&package["repository"]),
            folder,
        });
    }
    crates.sort_by(|one, other| (&one.name, &one.version).cmp(&(&other.name, &other.version)));
    Ok(crates)
}

/// The texts that a crate comes with.
fn licence_files(folder: &Path) -> anyhow::Result<Vec<String>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("{}: the crate's sources are not there; run `cargo fetch`", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    paths.sort();
    let is_licence = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
        path.is_file()
            && ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"]
                .iter()
                .any(|start| name.starts_with(start))
    };
    paths
        .iter()
        .filter(|path| is_licence(path))
        .map(|path| {
            Ok(String::from_utf8_lossy(&fs::read(path).with_context(|| format!("{}: cannot be read", path.display()))?).into_owned())
        })
        .collect()
}

/// Notices of the media that are made of a system: the boot loader and the guests' files. A file's notice is the `copyright` beside it.
///
/// # Errors
/// A notice cannot be read.
pub fn media(system: &System) -> anyhow::Result<String> {
    let mut out = String::new();
    put!(
        out,
        "\n\nThe boot loader is GNU GRUB, from Debian's packages\n===================================================\n"
    );
    put!(
        out,
        "Its sources are Debian's source package grub2, https://sources.debian.org/src/grub2/. Its licence is the GNU General Public License,"
    );
    put!(
        out,
        "version 3 or later, whose text stands at the end of this file if it was at hand when the image was made, and at"
    );
    put!(
        out,
        "https://www.gnu.org/licenses/gpl-3.0.txt. It is a program of its own that starts Tessera and then ends."
    );
    let mut licences = BTreeSet::from(["GPL-3"]);
    let mut seen = BTreeSet::new();
    for (name, path) in &system.files {
        let notice = path.value.with_file_name("copyright");
        if !notice.exists() || !seen.insert(notice.clone()) {
            continue;
        }
        let text = fs::read(&notice).with_context(|| format!("{}: cannot be read", notice.display()))?;
        let title = format!("Notices of the file {} and those beside it", name.value);
        put!(out, "\n\n{title}\n{}\n", "=".repeat(title.len()));
        if let Ok(package) = fs::read_to_string(path.value.with_file_name("package")) {
            put!(
                out,
                "From Debian's package {}, whose sources are at https://sources.debian.org.\n",
                package.trim()
            );
        }
        put!(out, "{}", String::from_utf8_lossy(&text).trim_end());
        licences.insert("GPL-2");
    }
    for licence in licences {
        if let Ok(text) = fs::read_to_string(Path::new(COMMON).join(licence)) {
            put!(out, "\n\n{licence}\n=====\n\n{}", text.trim_end());
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn package(name: &str, local: bool, license: Option<&str>, kind: &str) -> Value {
        json!({"id": name, "name": name, "version": "1.0.0", "source": if local { Value::Null } else { json!("registry") }, "license": license, "license_file": null,
            "repository": null, "manifest_path": concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"), "targets": [{"kind": [kind]}]})
    }

    fn metadata(license: Option<&str>) -> Value {
        let dependency = |name: &str, kind: Value| json!({"pkg": name, "dep_kinds": [{"kind": kind}]});
        json!({
            "packages": [package("kernel", true, None, "bin"), package("linked", false, license, "lib"), package("deep", false, Some("MIT"), "lib"),
                package("macro", false, Some("MIT"), "proc-macro"), package("builder", false, Some("MIT"), "lib")],
            "resolve": {"nodes": [
                {"id": "kernel", "deps": [dependency("linked", Value::Null), dependency("macro", Value::Null), dependency("builder", json!("build"))]},
                {"id": "linked", "deps": [dependency("deep", Value::Null)]},
            ]},
        })
    }

    #[test]
    fn only_what_is_linked_is_listed() {
        let text = from_metadata(&metadata(Some("Zlib")), &["kernel".into()]).expect("notices");
        assert!(text.contains("linked 1.0.0: Zlib") && text.contains("deep 1.0.0: MIT"), "{text}");
        assert!(!text.contains("macro 1.0.0") && !text.contains("builder 1.0.0") && !text.contains("kernel 1.0.0"));
    }

    #[test]
    fn a_crate_without_licence_and_an_unknown_package_are_refused() {
        assert!(
            from_metadata(&metadata(None), &["kernel".into()])
                .expect_err("no licence")
                .to_string()
                .contains("linked")
        );
        assert!(
            from_metadata(&metadata(None), &["other".into()])
                .expect_err("no package")
                .to_string()
                .contains("other")
        );
    }
}
