/** Recent tasks and events along the bottom. */
import { useEffect, useRef, useState } from "preact/hooks";
import { api } from "../api";
import type { HostEvent, Task } from "../api/types";
import { clock, shortTime } from "../format";
import { t, tOr } from "../i18n";
import { events, runningTasks, taskName, tasks } from "../state/inventory";
import { Badge, Button, Progress, type Tone } from "../ui/basic";
import { attempt } from "../ui/dialog";
import { Icon } from "../ui/icon";
import { type Column, Table } from "../ui/table";

export const TASK_TONES: Record<Task["state"], Tone> = {
  queued: "off",
  running: "info",
  success: "ok",
  error: "danger",
  cancelled: "warn",
};
const EVENT_TONES: Record<HostEvent["severity"], Tone> = { info: "info", warning: "warn", error: "danger" };

export const taskColumns = (): Column<Task>[] => [
  { key: "name", name: t("task.name"), width: "minmax(130px, 1.4fr)", sort: taskName, cell: taskName },
  {
    key: "target",
    name: t("task.target"),
    width: "minmax(90px, 1fr)",
    sort: (task) => task.targetName ?? "",
    cell: (task) => task.targetName ?? "–",
  },
  { key: "user", name: t("user"), wide: true, width: "minmax(70px, 0.6fr)", sort: (task) => task.user, cell: (task) => task.user },
  {
    key: "state",
    name: t("task.state"),
    width: "minmax(130px, 1.2fr)",
    sort: (task) => task.state,
    cell: (task) =>
      task.state === "running" ? (
        <span class="row">
          <span class="grow">
            <Progress value={task.progress} label={taskName(task)} />
          </span>
          {task.progress != null && <span class="num">{Math.round(task.progress)} %</span>}
          {task.cancelable && (
            <Button
              icon="close"
              kind="plain"
              label={t("task.cancel")}
              onClick={() => void attempt(t("task.cancel"), () => api.cancel(task.id))}
            />
          )}
        </span>
      ) : (
        <span class="row" title={task.error?.message}>
          <Badge tone={TASK_TONES[task.state]}>{tOr("taskState", task.state)}</Badge>
          {task.error && <span class="muted ellipsis">{task.error.message}</span>}
        </span>
      ),
  },
  {
    key: "queued",
    name: t("task.started"),
    wide: true,
    width: "minmax(150px, 0.9fr)",
    sort: (task) => task.queued,
    cell: (task) => shortTime(task.started ?? task.queued),
  },
  {
    key: "completed",
    name: t("task.completed"),
    wide: true,
    width: "minmax(90px, 0.6fr)",
    sort: (task) => task.completed ?? "",
    cell: (task) => clock(task.completed),
  },
];

export const eventColumns = (): Column<HostEvent>[] => [
  { key: "time", name: t("time"), width: "minmax(138px, 0.7fr)", sort: (event) => event.time, cell: (event) => shortTime(event.time) },
  {
    key: "severity",
    name: t("event.severity"),
    width: "110px",
    wide: true,
    sort: (event) => event.severity,
    cell: (event) => <Badge tone={EVENT_TONES[event.severity]}>{tOr("severity", event.severity)}</Badge>,
  },
  {
    key: "message",
    name: t("event.message"),
    width: "minmax(200px, 3fr)",
    cell: (event) => (
      <>
        <span class={`dot ${EVENT_TONES[event.severity]} phone-only`} role="img" aria-label={tOr("severity", event.severity)} />
        <span title={event.message}>{event.message}</span>
      </>
    ),
  },
  {
    key: "user",
    name: t("user"),
    wide: true,
    width: "minmax(80px, 0.5fr)",
    sort: (event) => event.user ?? "",
    cell: (event) => event.user ?? "–",
  },
];

const STORED = "tessera.tasks";

export function TaskPanel() {
  const [tab, setTab] = useState<"tasks" | "events">("tasks");
  const [open, setOpen] = useState(
    () => (localStorage.getItem(STORED) ?? (window.innerHeight > 640 && window.innerWidth > 860 ? "open" : "closed")) === "open",
  );
  const bar = useRef<HTMLDivElement>(null);
  useEffect(() => {
    if (window.innerWidth > 860) localStorage.setItem(STORED, open ? "open" : "closed");
  }, [open]);
  const running = runningTasks.value.length;
  const latest = tasks.value[0];
  const choose = (which: "tasks" | "events") => {
    setTab(which);
    setOpen(true);
  };
  const keys = (event: KeyboardEvent) => {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    const other = tab === "tasks" ? "events" : "tasks";
    setTab(other);
    bar.current?.querySelector<HTMLButtonElement>(`#tab-${other}`)?.focus();
  };
  return (
    <section class="tasks" aria-label={t("tasks.title")}>
      <div class="bar">
        <div class="row tight" role="tablist" aria-label={t("tasks.title")} ref={bar} onKeyDown={keys}>
          {(["tasks", "events"] as const).map((which) => (
            <button
              key={which}
              type="button"
              role="tab"
              id={`tab-${which}`}
              aria-selected={tab === which}
              aria-controls={open ? "tasks-list" : undefined}
              tabIndex={tab === which ? 0 : -1}
              onClick={() => choose(which)}
            >
              <Icon name={which === "tasks" ? "tasks" : "event"} small />
              {t(which === "tasks" ? "tasks.recent" : "events.recent")}
              {which === "tasks" && running > 0 && <Badge tone="info">{running}</Badge>}
            </button>
          ))}
        </div>
        {!open && latest && (
          <span class="latest ellipsis">
            {taskName(latest)} {latest.targetName} · {tOr("taskState", latest.state)}
          </span>
        )}
        <button
          type="button"
          class="toggle"
          aria-expanded={open}
          aria-label={open ? t("tasks.hide") : t("tasks.show")}
          onClick={() => setOpen(!open)}
        >
          <Icon name={open ? "down" : "up"} />
        </button>
      </div>
      {open && (
        <div class="list" id="tasks-list" role="tabpanel" aria-labelledby={`tab-${tab}`}>
          {tab === "tasks" ? (
            <Table
              label={t("tasks.recent")}
              rows={tasks.value}
              columns={taskColumns()}
              rowKey={(task) => task.id}
              rowHeight={32}
              maxHeight="100%"
              empty={<p class="empty">{t("tasks.none")}</p>}
            />
          ) : (
            <Table
              label={t("events.recent")}
              rows={events.value}
              columns={eventColumns()}
              rowKey={(event) => event.id}
              rowHeight={32}
              maxHeight="100%"
              empty={<p class="empty">{t("events.none")}</p>}
            />
          )}
        </div>
      )}
    </section>
  );
}
