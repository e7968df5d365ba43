//! Tasks: long work, with progress, that can be cancelled and is known after a restart.

use super::{Api, ApiError, Call};
use crate::{
    model::{Fault, Severity, Task, TaskState},
    time::rfc3339,
};
use alloc::{boxed::Box, format, rc::Rc, string::String};
use core::future::Future;

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
        let changes = data.keep_task(number, task.clone());
        (task, changes, number)
    };
    api.commit(changes).await?;
    api.tell("task", &task.id, "created");
    let progress = Progress { api: api.clone(), number };
    let weak = Rc::downgrade(api);
    let future = work(progress);
    api.platform.spawn(Box::pin(async move {
        let outcome = future.await;
        if let Some(api) = weak.upgrade() {
            end(&api, number, outcome).await;
        }
    }));
    Ok(super::route::Accepted(task))
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
    let (severity, message) = match &task.error {
        Some(fault) => (Severity::Error, format!("{} failed: {}", task.name, fault.message)),
        None if task.state == TaskState::Cancelled => (Severity::Warning, format!("{} was cancelled", task.name)),
        None => (Severity::Info, format!("{} done", task.name)),
    };
    let (kind, user, target) = (task.name.clone(), task.user.clone(), task.target.clone());
    let message = task
        .target_name
        .as_ref()
        .map_or(message.clone(), |name| format!("{name}: {message}"));
    let changes = api.data.borrow_mut().keep_task(number, task);
    // Whoever waits hears of the end even if it could not be kept; after a restart the task counts as interrupted.
    let _ = api.commit(changes).await;
    api.tell("task", &format!("task-{number}"), "updated");
    api.event(severity, &kind, message, Some(&user), target.as_deref()).await;
}

/// After a restart: makes the host's machines what the inventory says, and ends tasks that nobody works on any more.
pub(super) async fn resume(api: &Rc<Api>) {
    let open: alloc::vec::Vec<u64> = api
        .data
        .borrow()
        .tasks
        .iter()
        .filter(|(_, task)| task.completed.is_none())
        .map(|(number, _)| *number)
        .collect();
    super::operations::vms::take_in(api).await;
    super::operations::system::apply_settings(api).await;
    for number in open {
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
