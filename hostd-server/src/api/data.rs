//! What hostd keeps: records in memory, each under its key in the state.

use crate::{
    auth::{PasswordHash, built_in_roles},
    model::{Event, Role, Severity, Task, VmConfig},
    state::Change,
    time::rfc3339,
};
use alloc::{collections::BTreeMap, format, string::String, vec, vec::Vec};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct UserRecord {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) enabled: bool,
    pub(crate) must_change: bool,
    pub(crate) password: PasswordHash,
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct KeyRecord {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) user: String,
    pub(crate) digest: String,
    pub(crate) created_ms: u64,
    pub(crate) expires_ms: Option<u64>,
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct SnapshotRecord {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) created_ms: u64,
    pub(crate) parent: Option<String>,
    pub(crate) memory: bool,
    pub(crate) config: VmConfig,
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct VmRecord {
    pub(crate) id: String,
    pub(crate) version: u64,
    pub(crate) config: VmConfig,
    pub(crate) snapshots: Vec<SnapshotRecord>,
    pub(crate) current: Option<String>,
    /// The host has it of itself: it is not kept, and not to be changed.
    #[serde(skip)]
    pub(crate) fixed: bool,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Settings {
    pub(crate) version: u64,
    pub(crate) maintenance: bool,
    pub(crate) lockdown: bool,
    pub(crate) lockdown_exceptions: Vec<String>,
    pub(crate) time_servers: Vec<String>,
    pub(crate) time_enabled: bool,
    pub(crate) host_name: String,
    pub(crate) domain: String,
    pub(crate) dns_servers: Vec<String>,
    pub(crate) search: Vec<String>,
    pub(crate) dns_dhcp: bool,
    pub(crate) autostart: bool,
    pub(crate) autostart_delay: u64,
    pub(crate) autostart_order: Vec<String>,
    /// Policies of services that are not the usual.
    pub(crate) policies: BTreeMap<String, crate::model::ServicePolicy>,
    /// Switches and port groups, once they were changed here: the network server forgets them with the host's restart.
    pub(crate) networks: Option<Networks>,
}

/// Switches and port groups of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Networks {
    pub(crate) switches: Vec<crate::host::SwitchSpec>,
    pub(crate) groups: Vec<crate::host::PortGroupSpec>,
    /// Port groups and switches that were removed, which the image may bring back.
    pub(crate) removed: Vec<String>,
}

impl Settings {
    /// The host's name with its domain.
    pub(crate) fn full_name(&self) -> String {
        if self.domain.is_empty() {
            self.host_name.clone()
        } else {
            format!("{}.{}", self.host_name, self.domain)
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            version: 1,
            maintenance: false,
            lockdown: false,
            lockdown_exceptions: Vec::new(),
            time_servers: Vec::new(),
            time_enabled: false,
            host_name: "tessera".into(),
            domain: String::new(),
            dns_servers: Vec::new(),
            search: Vec::new(),
            dns_dhcp: true,
            autostart: true,
            autostart_delay: 0,
            autostart_order: Vec::new(),
            policies: BTreeMap::new(),
            networks: None,
        }
    }
}

#[derive(Default)]
pub(crate) struct Data {
    pub(crate) next: u64,
    pub(crate) users: BTreeMap<String, UserRecord>,
    pub(crate) roles: BTreeMap<String, Role>,
    pub(crate) permissions: BTreeMap<String, crate::model::Permission>,
    pub(crate) keys: BTreeMap<String, KeyRecord>,
    pub(crate) vms: BTreeMap<String, VmRecord>,
    pub(crate) tasks: BTreeMap<u64, Task>,
    /// What tasks need to be taken up again after a restart.
    pub(crate) work: BTreeMap<u64, Value>,
    pub(crate) events: BTreeMap<u64, Event>,
    pub(crate) settings: Settings,
    /// Identifiers of what the host names: `datastore/NAME` to `datastore-3`.
    pub(crate) ids: BTreeMap<String, String>,
}

/// Tasks and events that are kept.
const MOST_TASKS: usize = 500;
const MOST_EVENTS: usize = 1000;

pub(crate) fn put(key: String, value: &impl Serialize) -> Change {
    Change::Put(key, serde_json::to_vec(value).unwrap_or_default())
}

/// Part of a record's key that sorts as the number does.
fn padded(number: u64) -> String {
    format!("{number:012}")
}

impl Data {
    pub(super) fn read(state: &BTreeMap<String, Vec<u8>>) -> Self {
        fn all<T: DeserializeOwned>(state: &BTreeMap<String, Vec<u8>>, prefix: &str) -> BTreeMap<String, T> {
            let records = state.range(String::from(prefix)..).take_while(|(key, _)| key.starts_with(prefix));
            records
                .filter_map(|(key, value)| Some((key[prefix.len()..].into(), serde_json::from_slice(value).ok()?)))
                .collect()
        }
        let numbered = |(key, value): (String, _)| Some((key.parse::<u64>().ok()?, value));
        let mut data = Self {
            next: 1,
            users: all(state, "user/"),
            roles: all(state, "role/"),
            permissions: all(state, "permission/"),
            keys: all(state, "key/"),
            vms: all(state, "vm/"),
            tasks: all::<Task>(state, "task/")
                .into_iter()
                .filter_map(|(key, value)| Some((key.parse().ok()?, value)))
                .collect(),
            work: all::<Value>(state, "work/")
                .into_iter()
                .filter_map(|(key, value)| Some((key.parse().ok()?, value)))
                .collect(),
            events: all::<Event>(state, "event/").into_iter().filter_map(numbered).collect(),
            settings: state
                .get("settings")
                .and_then(|value| serde_json::from_slice(value).ok())
                .unwrap_or_default(),
            ids: all(state, "id/"),
        };
        let number = |id: &String| id.rsplit('-').next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0);
        let snapshots = data.vms.values().flat_map(|vm| vm.snapshots.iter().map(|snapshot| &snapshot.id));
        let names = data
            .roles
            .keys()
            .chain(data.permissions.keys())
            .chain(data.keys.keys())
            .chain(data.vms.keys())
            .chain(data.ids.values())
            .chain(snapshots);
        let highest = names
            .map(number)
            .chain(data.tasks.keys().copied())
            .chain(data.events.keys().copied())
            .max()
            .unwrap_or(0);
        data.next = highest + 1;
        for (id, name, privileges) in built_in_roles() {
            data.roles.insert(
                id.into(),
                Role {
                    id: id.into(),
                    name: name.into(),
                    built_in: true,
                    privileges,
                },
            );
        }
        data
    }

    /// Makes a record what it is in the state, after a change of it was not kept. How tasks ended and what happened stays known until a restart.
    pub(super) fn put_back(&mut self, key: &str, kept: Option<&[u8]>) {
        fn put_back<K: Ord, T: DeserializeOwned>(records: &mut BTreeMap<K, T>, key: K, kept: Option<&[u8]>) {
            match kept.and_then(|kept| serde_json::from_slice(kept).ok()) {
                Some(record) => records.insert(key, record),
                None => records.remove(&key),
            };
        }
        let Some((kind, name)) = key.split_once('/') else {
            if key == "settings" {
                self.settings = kept.and_then(|kept| serde_json::from_slice(kept).ok()).unwrap_or_default();
            }
            return;
        };
        let name = String::from(name);
        match kind {
            "user" => put_back(&mut self.users, name, kept),
            "role" => put_back(&mut self.roles, name, kept),
            "permission" => put_back(&mut self.permissions, name, kept),
            "key" => put_back(&mut self.keys, name, kept),
            "vm" => put_back(&mut self.vms, name, kept),
            "id" => put_back(&mut self.ids, name, kept),
            "task" if kept.is_none() => {
                name.parse().ok().and_then(|number: u64| self.tasks.remove(&number));
            }
            "work" if kept.is_none() => {
                name.parse().ok().and_then(|number: u64| self.work.remove(&number));
            }
            _ => {}
        }
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    pub(super) fn add_root(&mut self, password: PasswordHash, must_change: bool) -> Vec<Change> {
        let user = UserRecord {
            name: "root".into(),
            description: "Administrator".into(),
            enabled: true,
            must_change,
            password,
        };
        let permission = self.grant("root", "host-1", "admin", true);
        let change = vec![put("user/root".into(), &user), permission];
        self.users.insert("root".into(), user);
        change
    }

    /// Sets an account's role on an object; there is one for each pair.
    pub(crate) fn grant(&mut self, user: &str, entity: &str, role: &str, propagate: bool) -> Change {
        let earlier = self
            .permissions
            .values()
            .find(|one| one.user == user && one.entity == entity)
            .map(|one| one.id.clone());
        let id = earlier.unwrap_or_else(|| format!("permission-{}", self.number()));
        let permission = crate::model::Permission {
            id: id.clone(),
            user: user.into(),
            entity: entity.into(),
            role: role.into(),
            propagate,
        };
        let change = put(format!("permission/{id}"), &permission);
        self.permissions.insert(id, permission);
        change
    }

    /// The role of an account on an object: the one that was given there, else the one on the host if it goes down.
    fn role(&self, user: &str, object: &str) -> Option<&Role> {
        let on = |entity: &str| self.permissions.values().find(|one| one.user == user && one.entity == entity);
        let permission = on(object).or_else(|| on("host-1").filter(|one| one.propagate || object == "host-1"))?;
        self.roles.get(&permission.role)
    }

    pub(crate) fn may(&self, user: &str, privilege: &str, object: &str) -> bool {
        self.role(user, object)
            .is_some_and(|role| role.privileges.iter().any(|own| own == privilege))
    }

    pub(crate) fn role_id(&self, user: &str) -> String {
        self.role(user, "host-1").map_or_else(|| "noAccess".into(), |role| role.id.clone())
    }

    pub(crate) fn privileges(&self, user: &str) -> Vec<String> {
        self.role(user, "host-1").map_or_else(Vec::new, |role| role.privileges.clone())
    }

    pub(super) fn add_event(
        &mut self,
        now: u64,
        severity: Severity,
        kind: &str,
        message: String,
        user: Option<&str>,
        target: Option<&str>,
    ) -> (String, Vec<Change>) {
        let number = self.number();
        let id = format!("event-{number}");
        let event = Event {
            id: id.clone(),
            time: rfc3339(now),
            severity,
            kind: kind.into(),
            message,
            user: user.map(Into::into),
            target: target.map(Into::into),
        };
        let mut change = vec![put(format!("event/{}", padded(number)), &event)];
        self.events.insert(number, event);
        while self.events.len() > MOST_EVENTS {
            if let Some((old, _)) = self.events.pop_first() {
                change.push(Change::Remove(format!("event/{}", padded(old))));
            }
        }
        (id, change)
    }

    pub(crate) fn keep_task(&mut self, number: u64, task: Task) -> Vec<Change> {
        let mut change = vec![put(format!("task/{}", padded(number)), &task)];
        self.tasks.insert(number, task);
        while self.tasks.len() > MOST_TASKS {
            if let Some((old, _)) = self.tasks.pop_first() {
                change.push(Change::Remove(format!("task/{}", padded(old))));
            }
        }
        change
    }

    pub(crate) fn keep_work(&mut self, task: u64, work: Value) -> Change {
        let change = put(format!("work/{}", padded(task)), &work);
        self.work.insert(task, work);
        change
    }

    pub(crate) fn forget_work(&mut self, task: u64) -> Option<Change> {
        self.work.remove(&task).map(|_| Change::Remove(format!("work/{}", padded(task))))
    }

    pub(crate) fn keep_settings(&mut self) -> Vec<Change> {
        self.settings.version += 1;
        vec![put("settings".into(), &self.settings)]
    }

    pub(crate) fn keep_vm(&mut self, mut vm: VmRecord) -> Change {
        vm.version += 1;
        let change = put(format!("vm/{}", vm.id), &vm);
        self.vms.insert(vm.id.clone(), vm);
        change
    }

    /// The identifier of something that the host names; a new one is to be kept with the changes that come back.
    pub(crate) fn id(&mut self, kind: &str, name: &str, changes: &mut Vec<Change>) -> String {
        let key = format!("{kind}/{name}");
        if let Some(id) = self.ids.get(&key) {
            return id.clone();
        }
        let id = format!("{kind}-{}", self.number());
        changes.push(put(format!("id/{key}"), &id));
        self.ids.insert(key, id.clone());
        id
    }

    /// The host's name of something.
    pub(crate) fn name(&self, kind: &str, id: &str) -> Option<String> {
        let prefix = format!("{kind}/");
        self.ids
            .iter()
            .find(|(key, own)| own.as_str() == id && key.starts_with(&prefix))
            .map(|(key, _)| key[prefix.len()..].into())
    }

    /// What a backup holds: keys and values.
    pub(super) fn export(&self) -> Vec<(String, String)> {
        fn add<T: Serialize>(all: &mut Vec<(String, String)>, prefix: &str, records: impl Iterator<Item = (String, T)>) {
            all.extend(records.map(|(key, value)| (format!("{prefix}{key}"), serde_json::to_string(&value).unwrap_or_default())));
        }
        let mut all = Vec::new();
        add(&mut all, "user/", self.users.clone().into_iter());
        add(&mut all, "role/", self.roles.clone().into_iter().filter(|(_, role)| !role.built_in));
        add(&mut all, "permission/", self.permissions.clone().into_iter());
        add(&mut all, "key/", self.keys.clone().into_iter());
        add(&mut all, "vm/", self.vms.clone().into_iter().filter(|(_, vm)| !vm.fixed));
        add(&mut all, "id/", self.ids.clone().into_iter());
        add(&mut all, "settings", core::iter::once((String::new(), self.settings.clone())));
        all
    }

    /// Takes a backup's records instead of its own; what the host does not know any more is removed.
    pub(super) fn import(&mut self, state: BTreeMap<String, Vec<u8>>) -> Result<Vec<Change>, String> {
        let mut new = Self::read(&state);
        let administrator = new
            .users
            .values()
            .any(|user| user.enabled && new.may(&user.name, "Authorization.Manage", "host-1"));
        if !administrator {
            return Err("The backup has no administrator who could log in".into());
        }
        let old: Vec<String> = self.export().into_iter().map(|(key, _)| key).collect();
        let mut changes: Vec<Change> = old.into_iter().filter(|key| !state.contains_key(key)).map(Change::Remove).collect();
        changes.extend(state.into_iter().map(|(key, value)| Change::Put(key, value)));
        new.next = new.next.max(self.next);
        new.settings.version = self.settings.version + 1;
        new.tasks = core::mem::take(&mut self.tasks);
        new.events = core::mem::take(&mut self.events);
        new.work = core::mem::take(&mut self.work);
        *self = new;
        Ok(changes)
    }
}
