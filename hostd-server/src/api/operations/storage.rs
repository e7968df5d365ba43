//! Datastores, what is in them, drives.

use super::{ListQuery, NoQuery, page, route};
use crate::{
    api::{
        ApiError, Call, Needs,
        route::{Accepted, Bytes, Json, Raw, Route, read_some},
        work,
    },
    host::{EntryFacts, EntryKind, FileSink, Host},
    http::{Body, Method, Response},
    model::{
        Datastore, DatastoreCreate, DatastoreFile, FileKind, Health, MoveRequest, Page, PathRequest, StorageDevice, Uploaded,
        text::{FilePath, Ranged},
    },
    time::rfc3339,
};
use alloc::{boxed::Box, format, rc::Rc, string::String, vec, vec::Vec};

type Result<T> = core::result::Result<T, ApiError>;
const READ: Needs = Needs::Privilege("System.Read");
const BROWSE: Needs = Needs::Privilege("Datastore.Browse");
const FILES: Needs = Needs::Privilege("Datastore.FileManagement");
const CONFIG: Needs = Needs::Privilege("Datastore.Config");

#[derive(serde::Deserialize)]
#[cfg_attr(feature = "description", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct BrowseQuery {
    /// Folder; left out or empty: the whole datastore's.
    path: Option<String>,
    /// Where to begin.
    cursor: Option<Ranged<0, 1_000_000>>,
    /// Most items.
    limit: Option<Ranged<1, 1000>>,
}

#[derive(serde::Deserialize)]
#[cfg_attr(feature = "description", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct PathQuery {
    /// Path in the datastore.
    path: FilePath,
}

pub(super) fn routes(all: &mut Vec<Route>) {
    all.extend([
        route(Method::Get, "/datastores", READ, "listDatastores", "Datastores", list),
        route(
            Method::Post,
            "/datastores",
            CONFIG,
            "createDatastore",
            "Make a datastore on a drive; what is on it is lost",
            create,
        ),
        route(Method::Get, "/datastores/{datastore}", READ, "getDatastore", "A datastore", get),
        route(
            Method::Delete,
            "/datastores/{datastore}",
            CONFIG,
            "deleteDatastore",
            "Remove a datastore with all that is in it",
            delete,
        ),
        route(
            Method::Post,
            "/datastores/{datastore}/grow",
            CONFIG,
            "growDatastore",
            "Have a datastore use all of its drive",
            grow,
        ),
        route(
            Method::Get,
            "/datastores/{datastore}/files",
            BROWSE,
            "browseDatastore",
            "What is in a folder",
            browse,
        ),
        route(
            Method::Delete,
            "/datastores/{datastore}/files",
            FILES,
            "deleteFile",
            "Remove a file, an empty folder or a disk",
            remove,
        ),
        route(
            Method::Get,
            "/datastores/{datastore}/files/{path*}",
            BROWSE,
            "downloadFile",
            "Read a file; Range gives a part, HEAD its size and Upload-Offset",
            download,
        ),
        route(
            Method::Put,
            "/datastores/{datastore}/files/{path*}",
            FILES,
            "uploadFile",
            "Write a file; Content-Range takes an upload up where it broke off",
            upload,
        ),
        route(
            Method::Post,
            "/datastores/{datastore}/folders",
            FILES,
            "createFolder",
            "Make a folder",
            make_folder,
        ),
        route(
            Method::Post,
            "/datastores/{datastore}/move",
            FILES,
            "moveFile",
            "Give a file another name or folder",
            move_file,
        ),
        route(
            Method::Post,
            "/datastores/{datastore}/copy",
            FILES,
            "copyFile",
            "Copy a file",
            copy_file,
        ),
        route(Method::Get, "/storage/devices", READ, "listDevices", "Disk drives", devices),
    ]);
}

pub(super) async fn stores(call: &Call) -> Result<Vec<Datastore>> {
    let mut changes = Vec::new();
    let all = call
        .api
        .host
        .stores()
        .await?
        .into_iter()
        .map(|one| Datastore {
            id: call.api.data.borrow_mut().id("datastore", &one.name, &mut changes),
            name: one.name,
            kind: "tessera".into(),
            capacity: one.capacity,
            free: one.free,
            provisioned: one.provisioned,
            device: one.device,
            accessible: one.problem.is_empty(),
            problem: one.problem,
        })
        .collect();
    if !changes.is_empty() {
        call.api.commit(changes).await?;
    }
    Ok(all)
}

pub(super) async fn store(call: &Call, id: &str) -> Result<Datastore> {
    stores(call)
        .await?
        .into_iter()
        .find(|one| one.id == id)
        .ok_or_else(|| ApiError::not_found(format!("There is no datastore {}", id.escape_default())))
}

async fn own(call: &Call) -> Result<Datastore> {
    store(call, call.parameter("datastore")).await
}

async fn list(call: Call, query: ListQuery, (): ()) -> Result<Json<Page<Datastore>>> {
    let all = stores(&call).await?;
    Ok(page(
        all.into_iter().filter(|one| call.may("System.Read", &one.id)).collect(),
        &query,
    ))
}

async fn get(call: Call, _: NoQuery, (): ()) -> Result<Json<Datastore>> {
    Ok(Json(own(&call).await?))
}

async fn create(call: Call, _: NoQuery, Json(made): Json<DatastoreCreate>) -> Result<Accepted> {
    let all = stores(&call).await?;
    if all.iter().any(|one| one.name == *made.name) {
        return Err(ApiError::conflict(format!("There is a datastore {} already", &*made.name)));
    }
    if let Some(other) = all.iter().find(|one| one.device == *made.device) {
        return Err(ApiError::conflict(format!("{} holds the datastore {}", &*made.device, other.name)));
    }
    if !call.api.host.devices().await?.iter().any(|one| one.name == *made.device) {
        return Err(ApiError::not_found(format!("There is no drive {}", &*made.device)));
    }
    work::begin(&call, "datastore.create", None, false, |progress| async move {
        progress.api.host.create_store(&made.device, &made.name).await?;
        progress.api.tell("datastore", &made.name, "created");
        Ok(None)
    })
    .await
}

async fn delete(call: Call, _: NoQuery, (): ()) -> Result<Accepted> {
    let one = own(&call).await?;
    if let Some(vm) = call
        .api
        .data
        .borrow()
        .vms
        .values()
        .find(|vm| vm.config.disks.iter().any(|disk| disk.datastore == one.id))
    {
        return Err(ApiError::conflict(format!(
            "The machine {} has disks in {}",
            vm.config.name, one.name
        )));
    }
    work::begin(
        &call,
        "datastore.delete",
        Some((&one.id.clone(), &one.name.clone())),
        false,
        |progress| async move {
            progress.api.host.remove_store(&one.name).await?;
            progress.api.tell("datastore", &one.id, "removed");
            Ok(None)
        },
    )
    .await
}

async fn grow(call: Call, _: NoQuery, (): ()) -> Result<Accepted> {
    let one = own(&call).await?;
    work::begin(
        &call,
        "datastore.grow",
        Some((&one.id.clone(), &one.name.clone())),
        false,
        |progress| async move {
            progress.api.host.grow_store(&one.name).await?;
            progress.api.tell("datastore", &one.id, "updated");
            Ok(None)
        },
    )
    .await
}

fn kind(entry: &EntryFacts) -> FileKind {
    let name = entry.name.to_ascii_lowercase();
    match entry.kind {
        EntryKind::Folder => FileKind::Folder,
        EntryKind::Disk => FileKind::Disk,
        EntryKind::File if name.ends_with(".iso") => FileKind::Iso,
        EntryKind::File if name.ends_with(".log") => FileKind::Log,
        EntryKind::File if ["vmlinu", "bzimage", "initr", "kernel"].iter().any(|part| name.contains(part)) => FileKind::Kernel,
        EntryKind::File => FileKind::File,
    }
}

fn folder(path: &str) -> Result<String> {
    let path = path.trim_matches('/');
    if path.is_empty() {
        return Ok(String::new());
    }
    FilePath::parse(path).map(|path| path.into_string()).map_err(ApiError::invalid)
}

async fn browse(call: Call, query: BrowseQuery, (): ()) -> Result<Json<Page<DatastoreFile>>> {
    let one = own(&call).await?;
    let folder = folder(query.path.as_deref().unwrap_or(""))?;
    let entries = call.api.host.browse(&one.name, &folder).await?;
    let items = entries.into_iter().map(|entry| DatastoreFile {
        kind: kind(&entry),
        path: if folder.is_empty() {
            entry.name.clone()
        } else {
            format!("{folder}/{}", entry.name)
        },
        name: entry.name,
        size: entry.size,
        allocated: entry.allocated,
        modified: rfc3339(entry.modified_ms),
    });
    Ok(page(
        items.collect(),
        &ListQuery {
            cursor: query.cursor,
            limit: query.limit,
        },
    ))
}

/// Refuses to touch what machines use.
fn check_unused(call: &Call, store: &Datastore, path: &str) -> Result<()> {
    let under = |file: &str| file == path || file.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'));
    let data = call.api.data.borrow();
    match data
        .vms
        .values()
        .find(|vm| vm.config.disks.iter().any(|disk| disk.datastore == store.id && under(&disk.path)))
    {
        Some(vm) => Err(ApiError::conflict(format!("The machine {} uses {path}", vm.config.name))),
        None => Ok(()),
    }
}

async fn remove(call: Call, query: PathQuery, (): ()) -> Result<()> {
    let one = own(&call).await?;
    check_unused(&call, &one, &query.path)?;
    call.api.host.remove(&one.name, &query.path).await?;
    call.api.tell("datastore", &one.id, "updated");
    Ok(())
}

fn path_of(call: &Call) -> Result<FilePath> {
    FilePath::parse(call.parameter("path")).map_err(ApiError::invalid)
}

/// First and last byte of `bytes=A-B`, `bytes=A-` or `bytes=-N` (RFC 9110, 14.2). `None`: not one range, which is answered with all.
fn range(header: &str, size: u64) -> Option<core::result::Result<(u64, u64), ()>> {
    let (first, last) = header.trim().strip_prefix("bytes=")?.split_once('-')?;
    let number = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| text.parse::<u64>().ok())
            .flatten()
    };
    if first.is_empty() {
        let count = number(last)?.min(size);
        return Some(if count == 0 { Err(()) } else { Ok((size - count, size - 1)) });
    }
    let first = number(first)?;
    let last = if last.is_empty() { u64::MAX } else { number(last)? };
    if last < first {
        return None;
    }
    Some(if first >= size { Err(()) } else { Ok((first, last.min(size - 1))) })
}

async fn download(call: Call, _: NoQuery, (): ()) -> Result<Raw> {
    let one = own(&call).await?;
    let path = path_of(&call)?;
    let entry = call.api.host.stat(&one.name, &path).await?;
    if entry.kind == EntryKind::Folder {
        return Err(ApiError::conflict(format!("{} is a folder", &*path)));
    }
    let wanted = call.header("range").and_then(|header| range(header, entry.size));
    let (status, first, length) = match wanted {
        Some(Ok((first, last))) => (206, first, last - first + 1),
        Some(Err(())) => {
            let error = ApiError::new(
                416,
                "rangeNotSatisfiable",
                format!("The file has {} bytes", entry.size),
                "Ask for a part that is there.",
            );
            return Ok(Raw(error.response().with("content-range", format!("bytes */{}", entry.size))));
        }
        None => (200, 0, entry.size),
    };
    let body = if length == 0 {
        Body::Empty
    } else {
        Body::Stream(call.api.host.read_file(&one.name, &path, first, Some(length)).await?)
    };
    let mut response = Response::new(status)
        .with("accept-ranges", "bytes")
        .with("cache-control", "no-store")
        .with("content-disposition", "attachment")
        .with("upload-offset", format!("{}", entry.size))
        .with_body("application/octet-stream", body);
    if status == 206 {
        response = response.with("content-range", format!("bytes {first}-{}/{}", first + length - 1, entry.size));
    }
    Ok(Raw(response))
}

/// First byte and size in all of `bytes A-B/SIZE` (RFC 9110, 14.4).
fn content_range(header: &str) -> Option<(u64, u64)> {
    let (range, size) = header.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, size) = (first.parse::<u64>().ok()?, last.parse::<u64>().ok()?, size.parse::<u64>().ok()?);
    (first <= last && last < size).then_some((first, size))
}

pub(in crate::api) async fn write_all(sink: &mut dyn FileSink, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        let count = core::future::poll_fn(|context| sink.poll_write(context, bytes)).await?;
        if count == 0 {
            return Err(ApiError::conflict("The file takes no more"));
        }
        bytes = bytes.get(count..).unwrap_or(&[]);
    }
    Ok(())
}

async fn upload(call: Call, _: NoQuery, Bytes(body): Bytes) -> Result<Json<Uploaded>> {
    let one = own(&call).await?;
    let path = path_of(&call)?;
    check_unused(&call, &one, &path)?;
    let (from, whole) = match call.header("content-range") {
        None => (0, body.length()),
        Some(header) => {
            let (from, size) = content_range(header).ok_or_else(|| ApiError::invalid("Content-Range is not bytes FIRST-LAST/SIZE"))?;
            (from, Some(size))
        }
    };
    if from > 0 {
        let have = call.api.host.stat(&one.name, &path).await?.size;
        if from > have {
            return Err(ApiError::conflict(format!("{have} bytes are there; the part begins at {from}")));
        }
    }
    if whole.is_some_and(|whole| whole.saturating_sub(from) > one.free) {
        return Err(ApiError::conflict(format!("{} has {} bytes free", one.name, one.free)));
    }
    let mut sink = call.api.host.write_file(&one.name, &path, from).await?;

    let mut outcome = Ok(());
    match body {
        Body::Stream(mut source) => {
            let mut buffer = vec![0; 64 << 10];
            loop {
                match read_some(&mut *source, &mut buffer).await {
                    Ok(0) => break,
                    Ok(count) => write_all(&mut *sink, &buffer[..count]).await?,
                    // What has come stays, so that the upload can go on.
                    Err(error) => {
                        outcome = Err(error);
                        break;
                    }
                }
            }
        }
        Body::Bytes(bytes) => write_all(&mut *sink, &bytes).await?,
        Body::Static(bytes) => write_all(&mut *sink, bytes).await?,
        Body::Empty => {}
    }
    core::future::poll_fn(|context| sink.poll_sync(context)).await?;
    outcome?;
    let size = call.api.host.stat(&one.name, &path).await?.size;
    call.api.tell("datastore", &one.id, "updated");
    Ok(Json(Uploaded {
        path: path.into_string(),
        size,
        complete: whole.is_none_or(|whole| size >= whole),
    }))
}

async fn make_folder(call: Call, _: NoQuery, Json(made): Json<PathRequest>) -> Result<()> {
    let one = own(&call).await?;
    call.api.host.create_folder(&one.name, &made.path).await?;
    call.api.tell("datastore", &one.id, "updated");
    Ok(())
}

async fn move_file(call: Call, _: NoQuery, Json(request): Json<MoveRequest>) -> Result<Accepted> {
    let one = own(&call).await?;
    check_unused(&call, &one, &request.from)?;
    work::begin(
        &call,
        "file.move",
        Some((&one.id.clone(), &one.name.clone())),
        false,
        |progress| async move {
            progress.api.host.rename(&one.name, &request.from, &request.to).await?;
            progress.api.tell("datastore", &one.id, "updated");
            Ok(Some(request.to.into_string()))
        },
    )
    .await
}

/// Copies a file, telling how far it is.
pub(in crate::api) async fn copy(progress: &work::Progress, host: &Rc<dyn Host>, store: &str, from: &str, to: &str) -> Result<()> {
    let entry = host.stat(store, from).await?;
    if host.stat(store, to).await.is_ok() {
        return Err(ApiError::conflict(format!("There is {to} already")));
    }
    let mut sink: Box<dyn FileSink> = host.write_file(store, to, 0).await?;
    if entry.size > 0 {
        let mut source = host.read_file(store, from, 0, None).await?;
        let mut buffer = vec![0; 64 << 10];
        let mut done = 0;
        loop {
            let count = read_some(&mut *source, &mut buffer).await?;
            if count == 0 {
                break;
            }
            if let Err(error) = progress.check() {
                drop(sink);
                let _ = host.remove(store, to).await;
                return Err(error);
            }
            write_all(&mut *sink, &buffer[..count]).await?;
            done += count as u64;
            progress.set(done * 100 / entry.size.max(1));
        }
    }
    Ok(core::future::poll_fn(|context| sink.poll_sync(context)).await?)
}

async fn copy_file(call: Call, _: NoQuery, Json(request): Json<MoveRequest>) -> Result<Accepted> {
    let one = own(&call).await?;
    work::begin(
        &call,
        "file.copy",
        Some((&one.id.clone(), &one.name.clone())),
        true,
        |progress| async move {
            copy(&progress, &progress.api.host.clone(), &one.name, &request.from, &request.to).await?;
            progress.api.tell("datastore", &one.id, "updated");
            Ok(Some(request.to.into_string()))
        },
    )
    .await
}

pub(super) fn health(name: &str) -> Health {
    match name {
        "green" => Health::Green,
        "yellow" => Health::Yellow,
        "red" => Health::Red,
        _ => Health::Gray,
    }
}

async fn devices(call: Call, query: ListQuery, (): ()) -> Result<Json<Page<StorageDevice>>> {
    let stores = stores(&call).await?;
    let all = call.api.host.devices().await?.into_iter().map(|one| StorageDevice {
        id: one.name.clone(),
        datastore: stores.iter().find(|store| store.device == one.name).map(|store| store.id.clone()),
        name: one.name,
        model: one.model,
        kind: one.kind,
        size: one.size,
        sector_size: one.sector_size,
        health: health(&one.health),
    });
    Ok(page(all.collect(), &query))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        assert_eq!(range("bytes=0-0", 10), Some(Ok((0, 0))));
        assert_eq!(range("bytes=4-", 10), Some(Ok((4, 9))));
        assert_eq!(range("bytes=-3", 10), Some(Ok((7, 9))));
        assert_eq!(range("bytes=10-", 10), Some(Err(())));
        assert_eq!(range("bytes=5-3", 10), None);
        assert_eq!(content_range("bytes 5-9/10"), Some((5, 10)));
        assert_eq!(content_range("bytes 5-10/10"), None);
    }
    proptest::proptest! {
        #[test]
        fn ranges_stay_inside(header in "bytes=[0-9]{0,3}-[0-9]{0,3}", size in 0_u64..600) {
            if let Some(Ok((first, last))) = range(&header, size) {
                assert!(first <= last && last < size);
            }
        }
    }
}
