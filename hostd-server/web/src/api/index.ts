/** The host's operations that the pages use, each in one place. */
import { type Session, enter, get, list, patch, post, put, remove, send, setCsrf, user } from "./client";
import type * as Api from "./types";

const id = encodeURIComponent;

export const api = {
  login: async (name: string, password: string) => {
    enter(await post<Session>("/session", { user: name, password }));
  },
  session: () => get<Session>("/session"),
  logout: async () => {
    await remove("/session").catch(() => undefined);
    setCsrf("");
    user.value = null;
  },
  changePassword: (current: string, password: string) => post("/session/password", { current, password }),

  host: () => get<Api.Host>("/host"),
  hostPower: (action: "reboot" | "shutdown") => post<Api.Task>(`/host/${action}`),
  pciDevices: () => list<Api.PciDevice>("/host/pci-devices"),
  sensors: () => list<Api.Sensor>("/host/sensors"),
  autostart: () => send<Api.Autostart>("GET", "/autostart"),
  setAutostart: (autostart: Api.Autostart, etag: string | null) => put("/autostart", autostart, etag),
  backup: () => get<unknown>("/host/backup"),
  restore: (backup: unknown) => put("/host/backup", backup),
  maintenance: (enabled: boolean) => put("/host/maintenance-mode", { enabled }),
  lockdown: (enabled: boolean) => put("/host/lockdown-mode", { enabled }),

  vms: () => list<Api.Vm>("/vms", { query: { limit: 1000 } }),
  vm: (vm: string) => send<Api.Vm>("GET", `/vms/${id(vm)}`),
  createVm: (config: Api.VmCreate) => post<Api.Task>("/vms", config),
  editVm: (vm: string, config: Api.VmPatch, etag: string | null) => patch<Api.Task>(`/vms/${id(vm)}`, config, etag),
  clearAlarms: (vm: string) => remove<void>(`/vms/${id(vm)}/alarms`),
  deleteVm: (vm: string) => remove<Api.Task>(`/vms/${id(vm)}`),
  cloneVm: (vm: string, name: string) => post<Api.Task>(`/vms/${id(vm)}/clone`, { name }),
  seedVm: (vm: string, seed: Api.Seed) => post<Api.Task>(`/vms/${id(vm)}/seed`, seed),
  power: (vm: string, action: PowerAction) => post<Api.Task>(`/vms/${id(vm)}/${action}`),
  screen: (vm: string) => post<Api.ScreenTicket>(`/vms/${id(vm)}/screen`),
  typeAtScreen: (vm: string, typing: { keys?: string[]; text?: string }) => post(`/vms/${id(vm)}/type`, typing),
  snapshots: (vm: string) => list<Api.Snapshot>(`/vms/${id(vm)}/snapshots`),
  takeSnapshot: (vm: string, snapshot: { name: string; description: string; withMemory: boolean; quiesce: boolean }) =>
    post<Api.Task>(`/vms/${id(vm)}/snapshots`, snapshot),
  revert: (vm: string, snapshot: string) => post<Api.Task>(`/vms/${id(vm)}/snapshots/${id(snapshot)}/revert`),
  deleteSnapshot: (vm: string, snapshot: string) => remove<Api.Task>(`/vms/${id(vm)}/snapshots/${id(snapshot)}`),

  datastores: () => list<Api.Datastore>("/datastores"),
  createDatastore: (name: string, device: string) => post<Api.Task>("/datastores", { name, device }),
  deleteDatastore: (datastore: string) => remove<Api.Task>(`/datastores/${id(datastore)}`),
  growDatastore: (datastore: string) => post<Api.Task>(`/datastores/${id(datastore)}/grow`),
  devices: () => list<Api.StorageDevice>("/storage/devices"),
  files: (datastore: string, path: string) =>
    list<Api.DatastoreFile>(`/datastores/${id(datastore)}/files`, { query: { path, limit: 1000 } }),
  makeFolder: (datastore: string, path: string) => post(`/datastores/${id(datastore)}/folders`, { path }),
  moveFile: (datastore: string, from: string, to: string) => post<Api.Task>(`/datastores/${id(datastore)}/move`, { from, to }),
  copyFile: (datastore: string, from: string, to: string) => post<Api.Task>(`/datastores/${id(datastore)}/copy`, { from, to }),
  deleteFile: (datastore: string, path: string) => remove(`/datastores/${id(datastore)}/files`, { query: { path } }),

  switches: () => list<Api.VirtualSwitch>("/networks/switches"),
  createSwitch: (name: string, mtu: number, uplinks: string[]) => post("/networks/switches", { name, mtu, uplinks }),
  editSwitch: (which: string, change: Partial<Api.VirtualSwitch>) => patch(`/networks/switches/${id(which)}`, change),
  deleteSwitch: (which: string) => remove(`/networks/switches/${id(which)}`),
  portGroups: () => list<Api.PortGroup>("/networks/port-groups"),
  createPortGroup: (group: Partial<Api.PortGroup>) => post("/networks/port-groups", group),
  editPortGroup: (which: string, change: Partial<Api.PortGroup>) => patch(`/networks/port-groups/${id(which)}`, change),
  deletePortGroup: (which: string) => remove(`/networks/port-groups/${id(which)}`),
  nics: () => list<Api.PhysicalNic>("/networks/nics"),
  interfaces: () => list<Api.HostInterface>("/networks/interfaces"),
  editInterface: (which: string, change: Partial<Api.HostInterface>) => patch(`/networks/interfaces/${id(which)}`, change),

  tasks: async (most: number) => (await get<{ items: Api.Task[] }>("/tasks", { query: { limit: most } })).items,
  task: (task: string) => get<Api.Task>(`/tasks/${id(task)}`),
  cancel: (task: string) => post(`/tasks/${id(task)}/cancel`),
  events: async (most: number) => (await get<{ items: Api.HostEvent[] }>("/events", { query: { limit: most } })).items,
  counters: (entity: string, counters: string[], period: string) =>
    list<Api.CounterSeries>("/counters", { query: { entity, counters: counters.join(","), period } }),
  graph: () => get<Api.ServerGraph>("/servers"),
  capabilities: (server: string) => list<Api.Capability>(`/servers/${id(server)}/capabilities`),
  restartServer: (name: string) => post(`/servers/${id(name)}/restart`),
  logs: (source: string) => list<Api.LogLine>("/logs", { query: { source, limit: 1000 } }, 2000),

  sessions: () => list<Api.SessionInfo>("/sessions"),
  endSession: (session: string) => remove(`/sessions/${id(session)}`),
  users: () => list<Api.User>("/users"),
  createUser: (made: { name: string; password: string; description: string; role: string }) => post("/users", made),
  editUser: (name: string, change: { description?: string; role?: string; enabled?: boolean; password?: string }) =>
    patch(`/users/${id(name)}`, change),
  deleteUser: (name: string) => remove(`/users/${id(name)}`),
  roles: () => list<Api.Role>("/roles"),
  privileges: () => list<string>("/privileges"),
  createRole: (role: { name: string; privileges: string[] }) => post("/roles", role),
  editRole: (role: string, change: { name?: string; privileges: string[] }) => patch(`/roles/${id(role)}`, change),
  deleteRole: (role: string) => remove(`/roles/${id(role)}`),
  permissions: () => list<Api.Permission>("/permissions"),
  createPermission: (made: Omit<Api.Permission, "id">) => post("/permissions", made),
  deletePermission: (which: string) => remove(`/permissions/${id(which)}`),
  apiKeys: () => list<Api.ApiKey>("/api-keys"),
  createApiKey: (name: string) => post<Api.ApiKey>("/api-keys", { name }),
  deleteApiKey: (key: string) => remove(`/api-keys/${id(key)}`),

  time: () => send<Api.TimeConfig>("GET", "/host/time"),
  setTime: (time: { servers: string[]; enabled: boolean }, etag: string | null) => put("/host/time", time, etag),
  dns: () => send<Api.DnsConfig>("GET", "/host/dns"),
  setDns: (dns: Api.DnsConfig, etag: string | null) => put("/host/dns", dns, etag),
  resolve: (name: string) => post<{ addresses: string[] }>("/host/dns/resolve", { name }),
  services: () => list<Api.Service>("/services"),
  serviceAction: (service: string, action: "start" | "stop" | "restart") => post(`/services/${id(service)}/${action}`),
  servicePolicy: (service: string, policy: string) => patch(`/services/${id(service)}`, { policy }),
  certificate: () => get<Api.Certificate>("/host/certificate"),
  replaceCertificate: (certificate: string, key: string) => put("/host/certificate", { certificate, key }),
  licences: () => list<Api.Licence>("/licences"),
  supportBundle: () => post<Api.Task>("/support-bundle"),
};

export type PowerAction = "start" | "stop" | "shutdown" | "reset" | "suspend" | "resume";
