/** What the host says, by the names of its API. Times are RFC 3339, sizes bytes, clock rates MHz unless the name says otherwise. */

export type Health = "green" | "yellow" | "red" | "gray";
export type GuestState = "notRunning" | "running" | "standby";
export type PowerState = "poweredOff" | "poweredOn" | "suspended";

export interface Host {
  id: string;
  name: string;
  product: { name: string; version: string; build: string };
  hardware: {
    vendor: string;
    model: string;
    serial: string;
    cpuModel: string;
    sockets: number;
    cores: number;
    threads: number;
    cpuMhz: number;
    virtualization: string;
    memory: number;
  };
  usage: { cpuMhz: number; cpuCapacityMhz: number; memory: number; memoryCapacity: number; storage: number; storageCapacity: number };
  uptimeSeconds: number;
  time: string;
  health: Health;
  maintenanceMode: boolean;
  lockdownMode: boolean;
  statePersistent: boolean;
  managementAddresses: string[];
}

export type DiskController = "virtio" | "ahci";
export type NicModel = "virtio" | "e1000e";
export interface VmDisk {
  id: string;
  datastore: string;
  path: string;
  size: number;
  readOnly?: boolean;
  controller: DiskController;
}
export interface VmNic {
  id: string;
  network: string;
  mac?: string;
  connected: boolean;
  model: NicModel;
}
export interface Boot {
  firmware: "direct" | "bios" | "uefi";
  kernel?: string | null;
  initramfs?: string | null;
  commandLine?: string | null;
  order?: string[] | null;
  menuSeconds?: number | null;
}
export type IncidentAction = "none" | "reset" | "powerOff";
/** What a guest's cloud-init is told: an account, or user-data of one's own. */
export interface Seed {
  hostName: string;
  user?: string;
  sshKeys?: string[];
  password?: string;
  userData?: string;
  network?: { address: string; prefixLength: number; gateway?: string; nameServers: string[] };
}
export interface VmAlarm {
  kind: "guestPanicked" | "watchdogExpired";
  count: number;
  time: string;
}
export interface VmConfig {
  name: string;
  guestOs: string;
  vcpus: number;
  memory: number;
  cpuShares: number;
  cpuReservationMhz: number;
  cpuLimitMhz: number | null;
  disks: VmDisk[];
  nics: VmNic[];
  /** Addresses of the PCI functions of the host that it has for itself. */
  passthrough: string[];
  cdrom: string | null;
  boot: Boot;
  watchdog: IncidentAction;
  onPanic: IncidentAction;
  autostart: boolean;
  notes: string;
}
export interface Vm {
  id: string;
  powerState: PowerState;
  guestState: GuestState;
  health: Health;
  alarms: VmAlarm[];
  config: VmConfig;
  usage: { cpuMhz: number; memory: number; diskBytes: number; uptimeSeconds: number };
  addresses: string[];
  snapshotCount: number;
}

/** A network card or a disk that a machine is to have: with `id`, one that it has. */
export interface NicInput {
  id?: string;
  network: string;
  mac?: string;
  connected?: boolean;
  model?: NicModel;
}
export interface DiskInput {
  id?: string;
  datastore: string;
  path?: string;
  size?: number;
  controller?: DiskController;
}
export interface VmCreate extends Omit<VmConfig, "disks" | "nics"> {
  disks: DiskInput[];
  nics: NicInput[];
}
export type VmPatch = Partial<VmCreate>;
export interface Autostart {
  enabled: boolean;
  delaySeconds: number;
  order: string[];
}
export interface PciDevice {
  address: string;
  vendorId: string;
  deviceId: string;
  classId: string;
  name: string;
  confined: boolean;
  interruptsConfined: boolean;
  server: string | null;
  vm: string | null;
  configured: string[];
  together: string[];
  problem: string | null;
}
export interface Sensor {
  name: string;
  reading: string;
  health: Health;
}

export interface Snapshot {
  id: string;
  name: string;
  description: string;
  created: string;
  size: number;
  withMemory: boolean;
  current: boolean;
  children: Snapshot[];
}

export interface Datastore {
  id: string;
  name: string;
  kind: string;
  capacity: number;
  free: number;
  provisioned: number;
  device: string;
  accessible: boolean;
  problem: string;
}
export interface DatastoreFile {
  name: string;
  path: string;
  kind: "folder" | "file" | "disk" | "iso" | "kernel" | "log";
  size: number;
  allocated: number;
  modified: string;
}
export interface StorageDevice {
  id: string;
  name: string;
  model: string;
  kind: string;
  size: number;
  sectorSize: number;
  health: Health;
  datastore: string | null;
}

export interface VirtualSwitch {
  id: string;
  name: string;
  mtu: number;
  uplinks: string[];
  ports: number;
  usedPorts: number;
}
export interface PortGroup {
  id: string;
  name: string;
  switch: string;
  vlan: number;
  security: { promiscuous: boolean; macChanges: boolean; forgedTransmits: boolean };
  vms: string[];
  hostInterfaces: string[];
}
export interface PhysicalNic {
  id: string;
  name: string;
  driver: string;
  mac: string;
  linkUp: boolean;
  speedMbps: number;
  switch: string | null;
}
export interface HostInterface {
  id: string;
  name: string;
  portGroup: string;
  mac: string;
  dhcp: boolean;
  ipv4: string | null;
  netmask: string | null;
  gateway: string | null;
  ipv6: string[];
}

export interface Task {
  id: string;
  name: string;
  target: string | null;
  targetName: string | null;
  user: string;
  state: "queued" | "running" | "success" | "error" | "cancelled";
  progress: number | null;
  cancelable: boolean;
  queued: string;
  started: string | null;
  completed: string | null;
  error: { message: string } | null;
  result: string | null;
}
export interface HostEvent {
  id: string;
  time: string;
  severity: "info" | "warning" | "error";
  kind: string;
  message: string;
  user: string | null;
  target: string | null;
}

export interface SessionInfo {
  id: string;
  user: string;
  address: string;
  created: string;
  lastUsed: string;
  current: boolean;
}
export interface User {
  name: string;
  description: string;
  role: string;
  enabled: boolean;
}
export interface Role {
  id: string;
  name: string;
  builtIn: boolean;
  privileges: string[];
}
export interface Permission {
  id: string;
  user: string;
  entity: string;
  role: string;
  propagate: boolean;
}
export interface ApiKey {
  id: string;
  name: string;
  user: string;
  created: string;
  expires: string | null;
  key?: string;
}

export interface TimeConfig {
  servers: string[];
  enabled: boolean;
  now: string;
  synchronized: boolean;
  offsetSeconds: number | null;
  server: string | null;
  driftPpm: number | null;
}
export interface DnsConfig {
  hostName: string;
  domain: string;
  servers: string[];
  searchDomains: string[];
  dhcp: boolean;
}
export interface Service {
  id: string;
  name: string;
  description: string;
  running: boolean;
  policy: "on" | "off" | "automatic";
  required: boolean;
}
export interface Certificate {
  subject: string;
  issuer: string;
  notBefore: string;
  notAfter: string;
  fingerprint: string;
  selfSigned: boolean;
}
export interface Licence {
  component: string;
  version: string;
  licence: string;
}

export interface CounterSeries {
  entity: string;
  counter: string;
  unit: string;
  interval: number;
  samples: { time: number; value: number }[];
}

export interface ServerNode {
  name: string;
  kind: "kernel" | "server" | "vm";
  state: string;
  memory: number;
  cpuPercent: number;
  threads: number;
  restarts: number;
  lastEnd: string;
}
export interface Capability {
  name: string;
  kind: string;
  rights: string;
  object: number;
  size: number;
}
export interface ServerEdge {
  from: string;
  to: string;
  interface: string;
  messagesPerSecond: number;
}
export interface ServerGraph {
  servers: ServerNode[];
  edges: ServerEdge[];
}
export interface LogLine {
  time: string;
  source: string;
  level: string;
  message: string;
}

/** Lets one viewer of a screen in, once. */
export interface ScreenTicket {
  ticket: string;
  expires: string;
}
