//! What cannot be kept is not there.

mod common;

use common::{ask, log_in};
use serde_json::{Value, json};
use smol::LocalExecutor;
use std::{cell::Cell, rc::Rc, time::Duration};
use tessera_hostd::{
    api::Api,
    future::LocalFuture,
    http::Method,
    state::{Change, Content, MemoryStore, StateError, StateStore},
};
use tessera_hostd_dev::{platform::Machine, simulated::Simulated};

/// A disk that may fail.
#[derive(Default)]
struct Disk {
    kept: MemoryStore,
    fails: Cell<bool>,
}

impl StateStore for Disk {
    fn persistent(&self) -> bool {
        true
    }
    fn load(&self) -> LocalFuture<'_, Result<Content, StateError>> {
        self.kept.load()
    }
    fn commit(&self, changes: Vec<Change>) -> LocalFuture<'_, Result<(), StateError>> {
        if self.fails.get() {
            return Box::pin(async { Err(StateError::Device) });
        }
        self.kept.commit(changes)
    }
    fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.kept.get(key)
    }
}

async fn start(executor: &Rc<LocalExecutor<'static>>, disk: &Rc<Disk>) -> (Rc<Api>, String) {
    start_slow(executor, disk, 1).await
}

async fn start_slow(executor: &Rc<LocalExecutor<'static>>, disk: &Rc<Disk>, ms: u64) -> (Rc<Api>, String) {
    let host = Rc::new(Simulated::new(Duration::from_millis(ms)));
    let machine = Rc::new(Machine::new(executor.clone()));
    let api = Api::start(host, machine, disk.clone(), Some("correct horse")).await.unwrap();
    let token = log_in(&api, "root", "correct horse").await;
    (api, token)
}

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().unwrap();
    items.iter().filter_map(|item| item["name"].as_str()).collect()
}

#[test]
fn a_change_that_is_not_kept_is_taken_back() {
    let executor = Rc::new(LocalExecutor::new());
    smol::block_on(executor.run(async {
        let disk = Rc::new(Disk::default());
        let (api, token) = start(&executor, &disk).await;
        let ask = async |method, path: &str, body| ask(&api, &token, method, path, body).await;
        let role = |name: &str| Some(json!({ "name": name, "privileges": ["System.Read"] }));
        let dns = |name: &str| Some(json!({ "hostName": name, "domain": "", "servers": [], "searchDomains": [], "dhcp": true }));
        assert_eq!(ask(Method::Post, "/roles", role("kept")).await.0, 201);
        assert_eq!(ask(Method::Put, "/host/dns", dns("kept")).await.0, 200);
        let user = json!({ "name": "alice", "password": "a good password" });
        let machine = json!({ "name": "one", "vcpus": 1, "memory": 67_108_864, "boot": { "firmware": "direct", "kernel": "[datastore1] kernels/vmlinuz" } });
        disk.fails.set(true);
        assert_eq!(ask(Method::Post, "/roles", role("lost")).await.0, 503);
        assert_eq!(ask(Method::Put, "/host/dns", dns("lost")).await.0, 503);
        assert_eq!(ask(Method::Post, "/users", Some(user)).await.0, 503);
        assert_eq!(ask(Method::Delete, "/roles/readOnly", None).await.0, 409);
        assert_eq!(ask(Method::Post, "/vms", Some(machine)).await.0, 503);
        for (path, there, gone) in [("/roles", "kept", "lost"), ("/users", "root", "alice")] {
            let list = ask(Method::Get, path, None).await.1;
            assert!(names(&list).contains(&there) && !names(&list).contains(&gone), "{path}: {list}");
        }
        assert_eq!(ask(Method::Get, "/host/dns", None).await.1["hostName"], "kept");
        assert_eq!(ask(Method::Get, "/tasks", None).await.1["items"], json!([]));
        disk.fails.set(false);
        assert_eq!(ask(Method::Post, "/roles", role("later")).await.0, 201);
    }));
}

#[test]
fn what_is_kept_is_there_after_a_restart() {
    let executor = Rc::new(LocalExecutor::new());
    smol::block_on(executor.run(async {
        let disk = Rc::new(Disk::default());
        let (api, token) = start(&executor, &disk).await;
        let role = json!({ "name": "kept", "privileges": ["System.Read"] });
        assert_eq!(ask(&api, &token, Method::Post, "/roles", Some(role)).await.0, 201);
        let events = ask(&api, &token, Method::Get, "/events", None).await.1;
        drop(api);
        let (api, token) = start(&executor, &disk).await;
        let roles = ask(&api, &token, Method::Get, "/roles", None).await.1;
        assert!(names(&roles).contains(&"kept"), "{roles}");
        let again = ask(&api, &token, Method::Get, "/events", None).await.1;
        let (before, after) = (events["items"].as_array().unwrap(), again["items"].as_array().unwrap());
        assert!(before.iter().all(|event| after.contains(event)), "events are forgotten");
    }));
}

#[test]
fn interrupted_tasks_are_taken_up_again() {
    let executor = Rc::new(LocalExecutor::new());
    smol::block_on(executor.run(async {
        let disk = Rc::new(Disk::default());
        let (api, token) = start_slow(&executor, &disk, 300).await;
        let machine = |name: &str| {
            let boot = json!({ "firmware": "direct", "kernel": "[datastore1] kernels/vmlinuz" });
            Some(json!({ "name": name, "vcpus": 1, "memory": 67_108_864, "boot": boot }))
        };
        assert_eq!(ask(&api, &token, Method::Post, "/vms", machine("first")).await.0, 202);
        while ask(&api, &token, Method::Get, "/vms", None).await.1["items"] == json!([]) {
            smol::Timer::after(Duration::from_millis(5)).await;
        }
        let id = ask(&api, &token, Method::Get, "/vms", None).await.1["items"][0]["id"]
            .as_str()
            .unwrap()
            .to_owned();
        assert_eq!(ask(&api, &token, Method::Post, &format!("/vms/{id}/start"), None).await.0, 202);
        let store = ask(&api, &token, Method::Get, "/datastores", None).await.1["items"][0]["id"].clone();
        let mut second = machine("second").unwrap();
        second["disks"] = json!([{ "datastore": store, "size": 1 << 30 }]);
        assert_eq!(ask(&api, &token, Method::Post, "/vms", Some(second)).await.0, 202);
        // What is kept now is what hostd finds that is started again.
        let kept = Rc::new(Disk::default());
        let content = disk.load().await.unwrap();
        let changes = content.into_iter().map(|(key, value)| Change::Put(key, value)).collect();
        kept.commit(changes).await.unwrap();
        let (api, token) = start(&executor, &kept).await;
        let mut last = Value::Null;
        for _ in 0..500 {
            last = ask(&api, &token, Method::Get, "/tasks", None).await.1;
            if last["items"].as_array().unwrap().iter().all(|task| !task["completed"].is_null()) {
                break;
            }
            smol::Timer::after(Duration::from_millis(5)).await;
        }
        let tasks = last["items"].as_array().unwrap();
        assert!(tasks.len() == 3 && tasks.iter().all(|task| task["state"] == "success"), "{last}");
        let machines = ask(&api, &token, Method::Get, "/vms", None).await.1;
        let states: Vec<_> = machines["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|vm| (vm["config"]["name"].as_str().unwrap(), vm["powerState"].as_str().unwrap()))
            .collect();
        assert_eq!(states, [("first", "poweredOn"), ("second", "poweredOff")]);
        assert!(
            kept.kept.load().await.unwrap().keys().all(|key| !key.starts_with("work/")),
            "what tasks needed is left behind"
        );
    }));
}

/// State that was kept before disks had controllers and cards had models.
#[test]
fn machines_of_older_state_have_virtio() {
    let executor = Rc::new(LocalExecutor::new());
    smol::block_on(executor.run(async {
        let disk = Rc::new(Disk::default());
        let (api, token) = start(&executor, &disk).await;
        let first = async |list: &str| ask(&api, &token, Method::Get, list, None).await.1["items"][0]["id"].clone();
        let (store, group) = (first("/datastores").await, first("/networks/port-groups").await);
        let machine = json!({
            "name": "one", "vcpus": 1, "memory": 67_108_864, "boot": { "firmware": "direct", "kernel": "[datastore1] kernels/vmlinuz" },
            "disks": [{ "datastore": store, "size": 1 << 30 }], "nics": [{ "network": group }],
        });
        assert_eq!(ask(&api, &token, Method::Post, "/vms", Some(machine)).await.0, 202);
        while first("/vms").await.is_null() {
            smol::Timer::after(Duration::from_millis(5)).await;
        }
        let key = format!("vm/{}", first("/vms").await.as_str().unwrap());
        let kept = String::from_utf8(disk.get(&key).unwrap()).unwrap();
        let old = kept.replace(",\"controller\":\"virtio\"", "").replace(",\"model\":\"virtio\"", "");
        assert!(!old.contains("controller") && !old.contains("model") && old != kept, "{kept}");
        disk.commit(vec![Change::Put(key, old.into_bytes())]).await.unwrap();
        drop(api);
        let (api, token) = start(&executor, &disk).await;
        let config = ask(&api, &token, Method::Get, "/vms", None).await.1["items"][0]["config"].clone();
        assert_eq!(
            (&config["disks"][0]["controller"], &config["nics"][0]["model"]),
            (&json!("virtio"), &json!("virtio")),
            "{config}"
        );
    }));
}
