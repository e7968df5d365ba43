/** What the host has: kept here, refreshed when the host says that it changed, and every few seconds in case it cannot say so. */
import { computed, signal } from "@preact/signals";
import { api } from "../api";
import { user } from "../api/client";
import { listen } from "../api/stream";
import type { Datastore, Host, HostEvent, PortGroup, Task, Vm } from "../api/types";
import { t, tOr } from "../i18n";
import { toast } from "../ui/dialog";

export const host = signal<Host | null>(null);
export const vms = signal<Vm[]>([]);
export const vmsLoaded = signal(false);
export const datastores = signal<Datastore[]>([]);
export const portGroups = signal<PortGroup[]>([]);
export const tasks = signal<Task[]>([]);
export const events = signal<HostEvent[]>([]);
/** The last two minutes of the host's load, one value each time that it was asked. */
export const history = signal<{ cpu: number[]; memory: number[] }>({ cpu: [], memory: [] });
/** Counts up at each change that the host tells of a kind, so that pages fetch again. */
export const changes = signal<Record<string, number>>({});

export const runningTasks = computed(() => tasks.value.filter((task) => task.state === "running" || task.state === "queued"));
export const vmById = computed(() => new Map(vms.value.map((vm) => [vm.id, vm])));

const RECENT = 100;

export const taskName = (task: Task): string => tOr("task", task.name);

const loaders: Record<string, () => Promise<void>> = {
  host: async () => {
    const now = await api.host();
    host.value = now;
    const keep = (values: number[], value: number) => [...values, value].slice(-60);
    history.value = { cpu: keep(history.value.cpu, now.usage.cpuMhz), memory: keep(history.value.memory, now.usage.memory) };
  },
  vm: async () => {
    vms.value = await api.vms();
    vmsLoaded.value = true;
  },
  datastore: async () => {
    datastores.value = await api.datastores();
  },
  network: async () => {
    portGroups.value = await api.portGroups();
  },
  task: async () => {
    const before = new Map(tasks.value.map((task) => [task.id, task.state]));
    tasks.value = await api.tasks(RECENT);
    // What this user began and what then went wrong is not left to the panel along the bottom alone.
    for (const task of tasks.value) {
      const was = before.get(task.id);
      if (task.state === "error" && (was === "running" || was === "queued") && task.user === user.value)
        toast("danger", t("failed", { what: `${taskName(task)} ${task.targetName ?? ""}`.trim() }), task.error?.message);
    }
  },
  event: async () => {
    events.value = await api.events(RECENT);
  },
};

const pending = new Map<string, Promise<void>>();
const again = new Set<string>();

/** Fetches what is kept of a kind; several requests while one is under way become one more. */
export function refresh(kind: string): Promise<void> {
  const load = loaders[kind];
  if (!load || !user.value) return Promise.resolve();
  const running = pending.get(kind);
  if (running) {
    again.add(kind);
    return running;
  }
  const run = load()
    .catch(() => undefined)
    .finally(() => {
      pending.delete(kind);
      if (again.delete(kind)) void refresh(kind);
    });
  pending.set(kind, run);
  return run;
}

export const refreshAll = (): Promise<unknown> => Promise.all(Object.keys(loaders).map(refresh));

let timers: number[] = [];
let stop: (() => void) | null = null;

export function startInventory(): void {
  stopInventory();
  void refreshAll();
  stop = listen((kind) => {
    changes.value = { ...changes.value, [kind]: (changes.value[kind] ?? 0) + 1 };
    void refresh(kind);
  });
  const every = (seconds: number, ...kinds: string[]) =>
    timers.push(
      window.setInterval(() => {
        if (!document.hidden) for (const kind of kinds) void refresh(kind);
      }, seconds * 1000),
    );
  every(2, "host");
  every(5, "vm", "task");
  every(15, "datastore", "network", "event");
}

export function stopInventory(): void {
  for (const timer of timers) clearInterval(timer);
  timers = [];
  stop?.();
  stop = null;
}

export function forget(): void {
  stopInventory();
  host.value = null;
  vms.value = [];
  vmsLoaded.value = false;
  tasks.value = [];
  events.value = [];
  history.value = { cpu: [], memory: [] };
}
