//! Tasks: long work, with progress, that can be cancelled and is known after a restart.

use super::{Api, ApiError, Call};
use crate::{
    model::{Fault, Severity, Task, TaskState},
    time::rfc3339,
};
use alloc::{boxed::Box, format, rc::Rc, string::String};
use core::future::Future;
use serde_json::Value;

/// Tasks that may wait or run at once.
const MOST_RUNNING: usize = 64;

/// A running task, as its work sees it.
#[derive(Clone)]
pub(super) struct Progress {
    pub(super) api: Rc<Api>,
    number: u64,
}

impl Progress {
    pub(super) fn set(&self, percent: u64) {
        if let Some(task) = self.api.data.borrow_mut().tasks.get_mut(&self.number) {
            task.progress = Some(u32::try_from(percent.min(100)).unwrap_or(100));
        }
        self.api.tell("task", &format!("task-{}", self.number), "updated");
    }

    /// Stops the work here if somebody cancelled it.
    pub(super) fn check(&self) -> Result<(), ApiError> {
        if self.api.cancelled.borrow().contains(&self.number) {
            return Err(ApiError::new(
                409,
                "cancelled",
                "The task was cancelled",
                "Start it again if you want it.",
            ));
        }
        Ok(())
    }
}

/// Begins work. The task is kept before this is ready; the work tells what it made, if anything.
pub(super) async fn begin<F>(
    call: &Call,
    name: &str,
    target: Option<(&str, &str)>,
    cancelable: bool,
    work: impl FnOnce(Progress) -> F + 'static,
) -> Result<super::route::Accepted, ApiError>
where
    F: Future<Output = Result<Option<String>, ApiError>> + 'static,
{
    begin_kept(call, name, target, cancelable, None, work).await
}

/// The same, with what it takes to go on after a restart.
pub(super) async fn begin_kept<F>(
    call: &Call,
    name: &str,
    target: Option<(&str, &str)>,
    cancelable: bool,
    kept: Option<Value>,
    work: impl FnOnce(Progress) -> F + 'static,
) -> Result<super::route::Accepted, ApiError>
where
    F: Future<Output = Result<Option<String>, ApiError>> + 'static,
{
    let api = &call.api;
    let running = api.data.borrow().tasks.values().filter(|task| task.completed.is_none()).count();
    if running >= MOST_RUNNING {
        return Err(ApiError::new(
            503,
            "tooManyTasks",
            format!("{running} tasks are running already"),
            "Wait until some have ended.",
        ));
    }
    let now = rfc3339(api.now());
    let (task, changes, number) = {
        let mut data = api.data.borrow_mut();
        let number = data.number();
        let task = Task {
            id: format!("task-{number}"),
            name: name.into(),
            target: target.map(|(id, _)| id.into()),
            target_name: target.map(|(_, name)| name.into()),
            user: call.user(),
            state: TaskState::Running,
            progress: Some(0),
            cancelable,
            queued: now.clone(),
            started: Some(now),
            completed: None,
            error: None,
            result: None,
        };
        let mut changes = data.keep_task(number, task.clone());
        if let Some(kept) = kept {
            changes.push(data.keep_work(number, kept));
        }
        (task, changes, number)
    };
    api.commit(changes).await?;
    api.tell("task", &task.id, "created");
    run(api, number, work(Progress { api: api.clone(), number }));
    Ok(super::route::Accepted(task))
}

/// Works on a task until it ends.
fn run(api: &Rc<Api>, number: u64, work: impl Future<Output = Result<Option<String>, ApiError>> + 'static) {
    let weak = Rc::downgrade(api);
    api.platform.spawn(Box::pin(async move {
        let outcome = work.await;
        if let Some(api) = weak.upgrade() {
            end(&api, number, outcome).await;
        }
    }));
}

/// What a task does, for people who read events.
fn in_words(task: &str) -> &str {
    match task {
        "vm.create" | "datastore.create" => "create",
        "vm.delete" | "datastore.delete" => "delete",
        "vm.unregister" => "unregister",
        "vm.edit" => "change of settings",
        "vm.clone" => "clone",
        "vm.seed" => "cloud-init image",
        "vm.start" => "power on",
        "vm.stop" => "power off",
        "vm.shutdown" => "shutdown",
        "vm.reset" => "reset",
        "vm.suspend" => "suspend",
        "vm.resume" => "resume",
        "vm.snapshot" => "snapshot",
        "vm.revert" => "revert to snapshot",
        "vm.removeSnapshot" => "removal of a snapshot",
        "datastore.grow" => "grow",
        "file.copy" => "copy",
        "file.move" => "move",
        "host.reboot" => "restart of the host",
        "host.shutdown" => "shutdown of the host",
        "supportBundle.create" => "support bundle",
        other => other,
    }
}

async fn end(api: &Rc<Api>, number: u64, outcome: Result<Option<String>, ApiError>) {
    let Some(mut task) = api.data.borrow().tasks.get(&number).cloned() else {
        return;
    };
    task.completed = Some(rfc3339(api.now()));
    task.cancelable = false;
    match outcome {
        Ok(result) => (task.state, task.progress, task.result) = (TaskState::Success, Some(100), result),
        Err(error) if error.code == "cancelled" => task.state = TaskState::Cancelled,
        Err(error) => (task.state, task.error) = (TaskState::Error, Some(Fault { message: error.message })),
    }
    api.cancelled.borrow_mut().retain(|other| *other != number);
    let what = in_words(&task.name);
    let (severity, message) = match &task.error {
        Some(fault) => (Severity::Error, format!("{what} failed: {}", fault.message)),
        None if task.state == TaskState::Cancelled => (Severity::Warning, format!("{what} was cancelled")),
        None => (Severity::Info, format!("{what} done")),
    };
    let (kind, user, target) = (task.name.clone(), task.user.clone(), task.target.clone());
    let message = task
        .target_name
        .as_ref()
        .map_or(message.clone(), |name| format!("{name}: {message}"));
    let mut changes = api.data.borrow_mut().keep_task(number, task);
    changes.extend(api.data.borrow_mut().forget_work(number));
    // Whoever waits hears of the end even if it could not be kept; after a restart the task counts as interrupted.
    let _ = api.commit(changes).await;
    api.tell("task", &format!("task-{number}"), "updated");
    api.event(severity, &kind, message, Some(&user), target.as_deref()).await;
}

/// A machine whose change of name was interrupted after it was kept is known to the host under its old name too.
async fn forget_old_name(api: &Rc<Api>, number: u64) {
    let Some(task) = api.data.borrow().tasks.get(&number).cloned() else {
        return;
    };
    let Some(name) = task.target_name.filter(|_| task.name == "vm.edit") else {
        return;
    };
    if !api.data.borrow().vms.values().any(|vm| vm.config.name == name && !vm.fixed) {
        // If it runs it stays until it is stopped.
        let _ = api.host.forget_vm(&name).await;
    }
}

/// After a restart: makes the host's machines what the inventory says, goes on with the tasks that can be taken up again, and ends the others.
pub(super) async fn resume(api: &Rc<Api>) {
    let open: alloc::vec::Vec<u64> = api
        .data
        .borrow()
        .tasks
        .iter()
        .filter(|(_, task)| task.completed.is_none())
        .map(|(number, _)| *number)
        .collect();
    // What starts with the host finds its networks, and the cards that are no uplinks, as they are to be.
    super::operations::network::apply_networks(api).await;
    super::operations::vms::take_in(api).await;
    super::operations::system::apply_settings(api).await;
    for number in open {
        forget_old_name(api, number).await;
        let (task, kept) = {
            let data = api.data.borrow();
            (data.tasks.get(&number).cloned(), data.work.get(&number).cloned())
        };
        let progress = Progress { api: api.clone(), number };
        if let Some(work) = task.and_then(|task| super::operations::vms::again(progress, &task, kept)) {
            run(api, number, work);
            continue;
        }
        end(
            api,
            number,
            Err(ApiError::new(
                409,
                "interrupted",
                "hostd was restarted meanwhile; look at the object and start it again if need be",
                "",
            )),
        )
        .await;
    }
}
