// A host for component tests: it answers like one, and keeps nothing.
const MIB = 1024 * 1024;
const PRIVILEGES = [
  "Authorization.Manage",
  "Datastore.Browse",
  "Datastore.Config",
  "Datastore.FileManagement",
  "Global.CancelTask",
  "Global.Diagnostics",
  "Host.Config",
  "Host.Maintenance",
  "Host.Power",
  "Network.Config",
  "System.Read",
  "VirtualMachine.Config",
  "VirtualMachine.Console",
  "VirtualMachine.Create",
  "VirtualMachine.Delete",
  "VirtualMachine.Power",
  "VirtualMachine.Snapshot",
];
const GIB = 1024 * MIB;
const ago = (seconds) => new Date(Date.now() - seconds * 1000).toISOString();

export function host() {
  const wave = (period) => (1 + Math.sin(Date.now() / period)) / 2;
  return {
    id: "host-1",
    name: "tessera-01",
    product: { name: "Tessera", version: "0.1.0" },
    hardware: {
      vendor: "QEMU",
      model: "Q35",
      cpuModel: "QEMU TCG CPU version 2.5+",
      sockets: 1,
      cores: 4,
      threads: 8,
      cpuMhz: 2400,
      virtualization: "AMD-V",
      memory: 32 * GIB,
    },
    usage: {
      cpuMhz: 4200 + 3000 * wave(9000),
      cpuCapacityMhz: 19200,
      memory: (18 + 2 * wave(20000)) * GIB,
      memoryCapacity: 32 * GIB,
      storage: 410 * GIB,
      storageCapacity: 1024 * GIB,
    },
    uptimeSeconds: 275_430,
    time: ago(0),
    health: "green",
    maintenanceMode: false,
    lockdownMode: false,
    statePersistent: true,
    managementAddresses: ["10.0.2.15", "fec0::5054:ff:fe12:3456"],
  };
}

export function machine(index) {
  const on = index % 3 !== 1;
  return {
    id: `vm-${index + 10}`,
    powerState: on ? "poweredOn" : index % 6 === 1 ? "suspended" : "poweredOff",
    guestState: on ? (index === 8 ? "standby" : "running") : "notRunning",
    health: index === 3 ? "yellow" : "green",
    alarms: index === 3 ? [{ kind: "guestPanicked", count: 2, time: new Date().toISOString() }] : [],
    config: {
      name: `${["web", "db", "cache", "build", "mail"][index % 5]}-${String(index + 1).padStart(2, "0")}`,
      guestOs: ["debian12", "alpine", "ubuntu", "other"][index % 4],
      vcpus: 1 + (index % 4),
      memory: (1 + (index % 4)) * GIB,
      cpuShares: 1000,
      cpuReservationMhz: 0,
      cpuLimitMhz: null,
      disks: [
        {
          id: "disk-1",
          datastore: "datastore-1",
          path: `vm${index}/disk.vdisk`,
          size: 16 * GIB,
          controller: index % 2 ? "ahci" : "virtio",
        },
      ],
      nics: [
        {
          id: "nic-1",
          network: "network-1",
          mac: `02:54:00:00:00:${(16 + (index % 200)).toString(16)}`,
          connected: true,
          model: index % 2 ? "e1000e" : "virtio",
        },
      ],
      cdrom: null,
      boot: {
        firmware: "direct",
        kernel: "[datastore1] kernels/vmlinuz",
        initramfs: "[datastore1] kernels/initramfs.cpio",
        commandLine: "console=ttyS0",
      },
      watchdog: index === 3 ? "reset" : "none",
      onPanic: index === 3 ? "powerOff" : "none",
      autostart: index % 2 === 0,
      notes: "",
    },
    usage: {
      cpuMhz: on ? 300 + ((index * 397) % 1900) : 0,
      memory: on ? 700 * MIB : 0,
      diskBytes: 3 * GIB,
      uptimeSeconds: on ? 86_400 + index * 977 : 0,
    },
    addresses: on ? [`10.0.3.${10 + (index % 200)}`] : [],
    snapshotCount: index === 0 ? 3 : 0,
  };
}

const task = (id, name, targetName, state, progress) => ({
  id,
  name,
  target: "vm-10",
  targetName,
  user: "root",
  state,
  progress,
  cancelable: state === "running",
  queued: ago(300),
  started: ago(299),
  completed: state === "running" ? null : ago(200),
  error: state === "error" ? { message: "the datastore is full" } : null,
});

function samples(base, swing) {
  const now = Math.floor(Date.now() / 20_000) * 20;
  return Array.from({ length: 180 }, (_, index) => ({
    time: now - (180 - index) * 20,
    value: Math.max(0, base + swing * Math.sin(index / 9) + swing * 0.5 * Math.sin(index * 1.7)),
  }));
}

const lists = (count) => ({
  "/vms": () => Array.from({ length: count }, (_, index) => machine(index)),
  "/datastores": () => [
    { id: "datastore-1", name: "datastore1", kind: "tessera", capacity: 512 * GIB, free: 240 * GIB, device: "nvme0", accessible: true },
    { id: "datastore-2", name: "archive", kind: "tessera", capacity: 512 * GIB, free: 60 * GIB, device: "ahci1", accessible: true },
  ],
  "/storage/devices": () => [
    {
      id: "device-1",
      name: "nvme0",
      model: "QEMU NVMe Ctrl",
      kind: "NVMe",
      size: 512 * GIB,
      sectorSize: 4096,
      health: "green",
      datastore: "datastore-1",
    },
    {
      id: "device-2",
      name: "ahci2",
      model: "QEMU HARDDISK",
      kind: "AHCI",
      size: 64 * GIB,
      sectorSize: 512,
      health: "green",
      datastore: null,
    },
  ],
  "/datastores/datastore-1/files": () => [
    { name: "kernels", kind: "folder", size: 0, modified: ago(90_000) },
    { name: "iso", kind: "folder", size: 0, modified: ago(80_000) },
    { name: "debian-12.iso", kind: "iso", size: 631 * MIB, modified: ago(7000) },
    { name: "vmlinuz", kind: "kernel", size: 8 * MIB, modified: ago(6000) },
    { name: "web-01.vdisk", kind: "disk", size: 16 * GIB, modified: ago(60) },
  ],
  "/networks/switches": () => [{ id: "switch-0", name: "vSwitch0", mtu: 1500, uplinks: ["nic-0", "nic-1"], ports: 128, usedPorts: 14 }],
  "/networks/port-groups": () => [
    {
      id: "network-1",
      name: "VM Network",
      switch: "switch-0",
      vlan: 0,
      security: { promiscuous: false, macChanges: false, forgedTransmits: false },
      vms: Array.from({ length: 9 }, (_, index) => `vm-${index + 10}`),
      hostInterfaces: [],
    },
    {
      id: "network-2",
      name: "Storage",
      switch: "switch-0",
      vlan: 20,
      security: { promiscuous: false, macChanges: false, forgedTransmits: false },
      vms: ["vm-11"],
      hostInterfaces: [],
    },
    {
      id: "network-3",
      name: "Management Network",
      switch: "switch-0",
      vlan: 0,
      security: { promiscuous: false, macChanges: false, forgedTransmits: false },
      vms: [],
      hostInterfaces: ["vmk0"],
    },
  ],
  "/networks/nics": () => [
    { id: "nic-0", name: "vmnic0", driver: "e1000e", mac: "52:54:00:12:34:56", linkUp: true, speedMbps: 1000, switch: "switch-0" },
    { id: "nic-1", name: "vmnic1", driver: "igb", mac: "52:54:00:12:34:57", linkUp: false, speedMbps: 0, switch: "switch-0" },
  ],
  "/networks/interfaces": () => [
    {
      id: "vmk0",
      name: "vmk0",
      portGroup: "network-3",
      mac: "52:54:00:aa:00:01",
      dhcp: true,
      ipv4: "10.0.2.15",
      netmask: "255.255.255.0",
      gateway: "10.0.2.2",
      ipv6: ["fe80::5054:ff:feaa:1"],
    },
  ],
  "/tasks": () => [
    task("task-9", "vm.clone", "web-01", "running", 42),
    task("task-8", "vm.start", "db-02", "success", 100),
    task("task-7", "vm.snapshot", "web-01", "error", 60),
    task("task-6", "vm.create", "cache-03", "success", 100),
  ],
  "/events": () => [
    {
      id: "event-3",
      time: ago(20),
      severity: "info",
      kind: "vm.poweredOn",
      message: "db-02 was powered on",
      user: "root",
      target: "vm-11",
    },
    {
      id: "event-2",
      time: ago(120),
      severity: "warning",
      kind: "login.failed",
      message: "Three log-ins as admin failed from 10.0.2.2",
      user: null,
      target: null,
    },
    {
      id: "event-1",
      time: ago(900),
      severity: "error",
      kind: "task.failed",
      message: "The snapshot of web-01 failed: the datastore is full",
      user: "root",
      target: "vm-10",
    },
  ],
  "/vms/vm-10/snapshots": () => [
    {
      id: "snapshot-1",
      name: "installed",
      description: "fresh",
      created: ago(500_000),
      size: 400 * MIB,
      withMemory: false,
      current: false,
      children: [
        {
          id: "snapshot-2",
          name: "before upgrade",
          description: "",
          created: ago(200_000),
          size: 100 * MIB,
          withMemory: true,
          current: true,
          children: [],
        },
        {
          id: "snapshot-3",
          name: "experiment",
          description: "",
          created: ago(100_000),
          size: 20 * MIB,
          withMemory: false,
          current: false,
          children: [],
        },
      ],
    },
  ],
  "/counters": () => [
    { entity: "host-1", counter: "cpu.usage", unit: "MHz", interval: 20, samples: samples(5000, 2400) },
    { entity: "host-1", counter: "mem.usage", unit: "bytes", interval: 20, samples: samples(18 * GIB, 2 * GIB) },
    { entity: "host-1", counter: "disk.read", unit: "bytesPerSecond", interval: 20, samples: samples(20 * MIB, 18 * MIB) },
    { entity: "host-1", counter: "disk.write", unit: "bytesPerSecond", interval: 20, samples: samples(9 * MIB, 8 * MIB) },
    { entity: "host-1", counter: "net.received", unit: "bytesPerSecond", interval: 20, samples: samples(3 * MIB, 2 * MIB) },
    { entity: "host-1", counter: "net.transmitted", unit: "bytesPerSecond", interval: 20, samples: samples(MIB, MIB) },
    { entity: "host-1", counter: "exits", unit: "perSecond", interval: 20, samples: samples(21_000, 9000) },
  ],
  "/users": () => [
    { name: "root", description: "Administrator", role: "admin", enabled: true },
    { name: "viewer", description: "Looks only", role: "readOnly", enabled: true },
  ],
  "/roles": () => [
    { id: "admin", name: "admin", builtIn: true, privileges: ["host.configure", "vm.create", "vm.power"] },
    { id: "readOnly", name: "readOnly", builtIn: true, privileges: ["system.read"] },
    { id: "noAccess", name: "noAccess", builtIn: true, privileges: [] },
    { id: "role-1", name: "operators", builtIn: false, privileges: ["vm.power", "vm.console"] },
  ],
  "/privileges": () => PRIVILEGES,
  "/sessions": () => [
    { id: "session-1", user: "root", address: "10.0.2.2", created: ago(4000), lastUsed: ago(1), current: true },
    { id: "session-2", user: "viewer", address: "10.0.2.9", created: ago(900), lastUsed: ago(60), current: false },
  ],
  "/host/sensors": () => [
    { name: "CPU temperature", reading: "47 °C", health: "green" },
    { name: "Fan 2", reading: "0 rpm", health: "yellow" },
  ],
  "/servers/storage/capabilities": () => [
    { name: "disks", kind: "IoPorts", rights: "rw", object: 91, size: 8 },
    { name: "", kind: "Frame", rights: "rw", object: 112, size: 512 },
  ],
  "/permissions": () => [{ id: "permission-1", user: "viewer", entity: "vm-10", role: "role-1", propagate: true }],
  "/api-keys": () => [{ id: "key-1", name: "backup", user: "root", created: ago(90_000), expires: null }],
  "/services": () => [
    { id: "ntp", name: "ntp", description: "Keeps the clock", running: true, policy: "on", required: false },
    { id: "hostd", name: "hostd", description: "Management of the host", running: true, policy: "on", required: true },
    { id: "syslog", name: "syslog", description: "Sends the logs on", running: false, policy: "off", required: false },
  ],
  "/licences": () => [
    { component: "smoltcp", version: "0.14.0", licence: "0BSD" },
    { component: "rustls", version: "0.23.0", licence: "Apache-2.0 OR MIT" },
  ],
  "/logs": () =>
    Array.from({ length: 60 }, (_, index) => ({
      time: ago(600 - index * 10),
      source: ["kernel", "init", "hostd", "storage"][index % 4],
      level: index % 17 === 5 ? "warn" : index % 29 === 9 ? "error" : "info",
      message: `line ${index}: the machine goes on`,
    })),
});

const things = {
  "/session": () => ({
    user: "root",
    csrfToken: "token",
    token: null,
    expires: ago(-3600),
    mustChangePassword: false,
    privileges: PRIVILEGES,
  }),
  "/autostart": () => ({ enabled: true, delaySeconds: 5, order: ["vm-12", "vm-10"] }),
  "/host/backup": () => ({ format: 1, state: [] }),
  "/host": host,
  "/host/time": () => ({ servers: ["pool.ntp.org"], enabled: true, now: ago(0), synchronized: true, offsetSeconds: 0.0021 }),
  "/host/dns": () => ({ hostName: "tessera-01", domain: "example.org", servers: ["10.0.2.3"], searchDomains: ["example.org"], dhcp: true }),
  "/host/certificate": () => ({
    subject: "CN=tessera-01",
    issuer: "CN=tessera-01",
    notBefore: ago(90_000),
    notAfter: ago(-90_000_000),
    fingerprint: "3F:2A:90:11:AC:44:10:7E:55:0B:9D:3F:2A:90:11:AC:44:10:7E:55:0B:9D:3F:2A:90:11:AC:44:10:7E:55:0B",
    selfSigned: true,
  }),
  "/servers": () => ({
    servers: ["hostd", "shell", "init", "storage", "net", "vmx-web", "vmm-web", "vmx-db", "vmm-db"]
      .map((name, index) => ({
        name,
        kind: name.startsWith("vm") ? "vm" : "server",
        state: "running",
        memory: (index + 1) * 3 * MIB,
        cpuPercent: (index * 1.7) % 9,
        threads: 1 + (index % 3),
        restarts: index === 3 ? 1 : 0,
        lastEnd: index === 3 ? "page fault at 0x10" : "",
      }))
      .concat({ name: "kernel", kind: "kernel", state: "running", memory: 90_000, cpuPercent: 2.1, threads: 2, restarts: 0 }),
    edges: [
      ["hostd", "init", "supervisor"],
      ["hostd", "init", "vm_manager"],
      ["hostd", "storage", "storage"],
      ["hostd", "net", "host_port"],
      ["shell", "init", "supervisor"],
      ["shell", "storage", "storage"],
      ["vmm-web", "storage", "storage"],
      ["vmm-web", "net", "guest_net"],
      ["vmm-web", "vmx-web", "console"],
      ["vmm-db", "storage", "storage"],
      ["vmm-db", "net", "guest_net"],
      ["vmm-db", "vmx-db", "console"],
      ["init", "kernel", "supervise"],
      ["storage", "kernel", "notify"],
    ].map(([from, to, name], index) => ({ from, to, interface: name, messagesPerSecond: index % 4 === 1 ? 0 : (index * 173) % 800 })),
  }),
};

/** What the host answers: a status and a body. */
export function answer(method, url, count = 14) {
  const path = new URL(url, "http://host").pathname.replace("/api/v1", "");
  if (method !== "GET")
    return [
      path === "/session" ? 200 : 202,
      path === "/session" ? things["/session"]() : task("task-10", "vm.create", "new", "running", 0),
    ];
  if (things[path]) return [200, things[path]()];
  const list = lists(count)[path];
  if (list) return [200, { items: list(), next: null }];
  const one = /^\/vms\/(vm-\d+)$/.exec(path);
  if (one) return [200, machine(Number(one[1].slice(3)) - 10)];
  return [404, { code: "notFound", message: `there is no ${path}`, hint: "" }];
}
