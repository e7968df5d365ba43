//! PCI functions that machines have for themselves, over a simulated host: who may have which, and what of a machine that has one cannot be done.

mod common;

use common::{ask, log_in};
use serde_json::{Value, json};
use smol::LocalExecutor;
use std::{rc::Rc, time::Duration};
use tessera_hostd::{api::Api, host::Host as _, http::Method, state::MemoryStore};
use tessera_hostd_dev::{platform::Machine, simulated::Simulated};

/// A network card that the host uses for nothing, a disk that nobody drives, both functions of a graphics card.
const CARD: &str = "0000:02:00.0";
const DISK: &str = "0000:03:00.0";
const GRAPHICS: [&str; 2] = ["0000:04:00.0", "0000:04:00.1"];

struct Host {
    api: Rc<Api>,
    machines: Rc<Simulated>,
    token: String,
}

impl Host {
    /// Another host each time, with what `store` kept.
    async fn start(executor: &Rc<LocalExecutor<'static>>, store: &Rc<MemoryStore>) -> Self {
        let machines = Rc::new(Simulated::new(Duration::from_millis(1)));
        let machine = Rc::new(Machine::new(executor.clone()));
        let api = Api::start(machines.clone(), machine, store.clone(), Some("correct horse"))
            .await
            .unwrap();
        let token = log_in(&api, "root", "correct horse").await;
        Self { api, machines, token }
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        ask(&self.api, &self.token, method, path, body).await
    }

    /// What is refused, and why.
    async fn refused(&self, method: Method, path: &str, body: Option<Value>, status: u16, why: &str) {
        let (answered, answer) = self.ask(method, path, body).await;
        assert_eq!(answered, status, "{path}: {answer}");
        assert!(
            answer["message"].as_str().unwrap().contains(why),
            "{path} is refused for {answer}, not for {why}"
        );
    }

    /// Long work, and how it ended.
    async fn done(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        let (status, answer) = self.ask(method, path, body).await;
        assert_eq!(status, 202, "{path}: {answer}");
        let task = format!("/tasks/{}", answer["id"].as_str().unwrap());
        for _ in 0..500 {
            let (_, now) = self.ask(Method::Get, &task, None).await;
            if !now["completed"].is_null() {
                return now;
            }
            smol::Timer::after(Duration::from_millis(2)).await;
        }
        panic!("{path} did not end");
    }

    async fn make(&self, name: &str, functions: &[&str]) -> String {
        let made = self.done(Method::Post, "/vms", Some(machine(name, functions))).await;
        assert_eq!(made["state"], "success", "{made}");
        format!("/vms/{}", made["result"].as_str().unwrap())
    }

    async fn functions_of(&self, path: &str) -> Value {
        self.ask(Method::Get, path, None).await.1["config"]["passthrough"].clone()
    }

    /// A function as the list has it.
    async fn device(&self, address: &str) -> Value {
        let (_, all) = self.ask(Method::Get, "/host/pci-devices", None).await;
        let items = all["items"].as_array().unwrap();
        items.iter().find(|one| one["address"] == address).unwrap().clone()
    }
}

fn machine(name: &str, functions: &[&str]) -> Value {
    let boot = json!({ "firmware": "direct", "kernel": "[datastore1] kernels/vmlinuz" });
    json!({ "name": name, "vcpus": 1, "memory": 67_108_864, "boot": boot, "passthrough": functions })
}

fn run(test: impl AsyncFnOnce(Rc<LocalExecutor<'static>>)) {
    let executor = Rc::new(LocalExecutor::new());
    smol::block_on(executor.run(test(executor.clone())));
}

#[test]
fn what_the_host_needs_and_what_is_not_there_is_refused() {
    run(async |executor| {
        let host = Host::start(&executor, &Rc::default()).await;
        let reader = json!({ "name": "reader", "password": "long enough" });
        assert_eq!(host.ask(Method::Post, "/users", Some(reader)).await.0, 201);
        let reader = log_in(&host.api, "reader", "long enough").await;
        let (status, all) = ask(&host.api, &reader, Method::Get, "/host/pci-devices", None).await;
        assert_eq!((status, all["items"].as_array().unwrap().len()), (200, 6));
        let card = host.device(CARD).await;
        assert_eq!(
            (&card["name"], &card["vendorId"], &card["deviceId"], &card["classId"]),
            (
                &json!("Intel Ethernet controller"),
                &json!("8086"),
                &json!("10d3"),
                &json!("020000")
            )
        );
        assert_eq!((&card["server"], &card["problem"]), (&json!("net"), &Value::Null));
        let path = host.make("one", &[]).await;
        let patch = |functions: Value| Some(json!({ "passthrough": functions }));
        let (status, _) = ask(&host.api, &reader, Method::Patch, &path, patch(json!([CARD]))).await;
        assert_eq!(status, 403, "a reader gives a machine a function");
        for (function, why) in [
            ("0000:00:1f.2", "it cannot be reset by itself"),
            ("0000:01:00.0", "the datastore datastore1 is on its disk"),
            ("0000:09:00.0", "This host has no PCI function 0000:09:00.0"),
            (GRAPHICS[0], "goes with 0000:04:00.1 of the same device only"),
        ] {
            host.refused(Method::Post, "/vms", Some(machine("two", &[function])), 409, why)
                .await;
            host.refused(Method::Patch, &path, patch(json!([function])), 409, why).await;
        }
        for wrong in [
            "",
            "02:00.0",
            "0000:02:20.0",
            "0000:02:00.8",
            "0000:02:00.0 ",
            "000g:02:00.0",
            "8086:10d3",
        ] {
            assert_eq!(host.ask(Method::Patch, &path, patch(json!([wrong]))).await.0, 400, "{wrong}");
        }
        assert_eq!(host.ask(Method::Patch, &path, patch(json!(vec![CARD; 5]))).await.0, 400, "five");
        host.refused(Method::Patch, &path, patch(json!([CARD, CARD])), 400, "is there twice")
            .await;
        assert_eq!(host.functions_of(&path).await, json!([]));
        let made = host.done(Method::Patch, &path, patch(json!(GRAPHICS))).await;
        assert_eq!(made["state"], "success", "{made}");
        assert_eq!(host.machines.vm_spec("one").await.unwrap().passthrough, GRAPHICS);
        assert_eq!(host.device(GRAPHICS[1]).await["configured"], json!(["one"]));
    });
}

#[test]
fn functions_are_kept_and_stay_with_their_machine() {
    run(async |executor| {
        let store = Rc::new(MemoryStore::default());
        let host = Host::start(&executor, &store).await;
        let path = host.make("one", &[CARD, DISK]).await;
        let other = host.make("two", &[CARD]).await;
        drop(host);
        let host = Host::start(&executor, &store).await;
        assert_eq!(host.functions_of(&path).await, json!([CARD, DISK]));
        assert_eq!(host.machines.vm_spec("one").await.unwrap().passthrough, [CARD, DISK]);
        assert_eq!(host.device(CARD).await["configured"], json!(["one", "two"]));
        assert_eq!(host.done(Method::Post, &format!("{path}/start"), None).await["state"], "success");
        let card = host.device(CARD).await;
        assert_eq!((&card["vm"], &card["server"]), (&json!("one"), &Value::Null));
        // Only one of them can run, and nobody else gets it meanwhile.
        let failed = host.done(Method::Post, &format!("{other}/start"), None).await;
        assert_eq!(failed["state"], "error", "{failed}");
        assert!(failed.to_string().contains("virtual machine one has it"), "{failed}");
        let third = Some(machine("three", &[CARD]));
        host.refused(Method::Post, "/vms", third, 409, "is one's, which runs").await;
        // What one that has it already says again is no change.
        let same = Some(json!({ "passthrough": [CARD], "memory": 134_217_728 }));
        assert_eq!(host.done(Method::Patch, &other, same).await["state"], "success");
        // What a function knows cannot be kept.
        let why = format!("one has the PCI function {CARD} of the host");
        host.refused(Method::Post, &format!("{path}/suspend"), None, 409, &why).await;
        let memory = Some(json!({ "name": "now", "withMemory": true }));
        host.refused(Method::Post, &format!("{path}/snapshots"), memory, 409, &why).await;
        assert_eq!(host.ask(Method::Get, &path, None).await.1["powerState"], "poweredOn");
        let disks = Some(json!({ "name": "now" }));
        assert_eq!(
            host.done(Method::Post, &format!("{path}/snapshots"), disks).await["state"],
            "success"
        );
        let copy = host
            .done(Method::Post, &format!("{path}/clone"), Some(json!({ "name": "copy" })))
            .await;
        let copy = format!("/vms/{}", copy["result"].as_str().unwrap());
        assert_eq!(host.functions_of(&copy).await, json!([]), "a clone has them too");
        // Gone with the next change.
        assert_eq!(host.done(Method::Post, &format!("{path}/stop"), None).await["state"], "success");
        let none = Some(json!({ "passthrough": [] }));
        assert_eq!(host.done(Method::Patch, &path, none).await["state"], "success");
        assert_eq!(host.device(CARD).await["configured"], json!(["two"]));
    });
}
