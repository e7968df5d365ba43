import { beforeEach, describe, expect, it, vi } from "vitest";
import { ApiError, list, message, send, setCsrf } from "../src/api/client";
import type { PciDevice, ServerGraph } from "../src/api/types";
import { bytes, span } from "../src/format";
import { language, setLanguage, t } from "../src/i18n";
import { align, formatUnit } from "../src/pages/performance";
import { layout } from "../src/pages/servers";
import { toPatch } from "../src/pages/vm-edit";
import { chosen, functionNote } from "../src/pages/vm-functions";
import { type SeedDraft, emptySeed, hostNameOf, seedProblems, toSeed } from "../src/pages/vm-seed";
import { type Draft, problems, validName } from "../src/pages/wizard";

const GIB = 1024 ** 3;
beforeEach(() => {
  language.value = "en";
});

describe("numbers", () => {
  it("are written with binary units", () => {
    expect([0, 1023, 1024, 1536, 16 * GIB, 1.25 * GIB, 2 ** 52].map(bytes)).toEqual([
      "0 B",
      "1,023 B",
      "1 KiB",
      "1.5 KiB",
      "16 GiB",
      "1.25 GiB",
      "4 PiB",
    ]);
    expect([null, undefined, Number.NaN].map(bytes)).toEqual(["–", "–", "–"]);
    expect(formatUnit("bytesPerSecond")(2048)).toBe("2 KiB/s");
  });

  it("of time show the two largest units", () => {
    expect([0, 59, 3600, 3661, 90_061].map(span)).toEqual(["0 sec", "59 sec", "1 hr", "1 hr 1 min", "1 day 1 hr"]);
  });
});

describe("messages", () => {
  it("take their words by number", () => {
    expect([0, 1, 2].map((count) => t("table.count", { count }))).toEqual(["0 items", "1 item", "2 items"]);
  });
});

describe("PCI functions", () => {
  const device = (change: Partial<PciDevice>): PciDevice => ({
    address: "0000:04:00.0",
    vendorId: "10de",
    deviceId: "2204",
    classId: "030000",
    name: "NVIDIA VGA controller",
    confined: true,
    interruptsConfined: true,
    server: null,
    vm: null,
    configured: [],
    together: [],
    problem: null,
    ...change,
  });

  it("come and go with those of the same device", () => {
    const both = device({ together: ["0000:04:00.1"] });
    expect(chosen(["0000:02:00.0"], both, true)).toEqual(["0000:02:00.0", "0000:04:00.0", "0000:04:00.1"]);
    expect(chosen(["0000:04:00.1", "0000:02:00.0", "0000:04:00.0"], both, false)).toEqual(["0000:02:00.0"]);
  });

  it("say why a machine cannot have them", () => {
    expect(functionNote(device({}), "web")).toEqual({ blocked: false, text: "" });
    expect(functionNote(device({ problem: "it is an uplink" }), "web")).toEqual({ blocked: true, text: "It is an uplink." });
    expect(functionNote(device({ vm: "db", configured: ["db"] }), "web").blocked).toBe(true);
    expect(functionNote(device({ vm: "web", configured: ["web"] }), "web")).toEqual({ blocked: false, text: "" });
    const text = functionNote(device({ server: "storage", configured: ["db", "web"], together: ["0000:04:00.1"] }), "web").text;
    for (const part of ["storage", "db", "0000:04:00.1"]) expect(text).toContain(part);
    expect(text).not.toContain("web");
  });
});

describe("the wizard", () => {
  const draft = (change: Partial<Draft>): Draft => ({
    name: "web",
    guestOs: "debian12",
    vcpus: 1,
    memory: GIB,
    cpuShares: 1000,
    cpuReservationMhz: 0,
    disks: [],
    cdrom: "",
    nics: [],
    passthrough: [],
    firmware: "bios",
    kernel: "",
    initramfs: "",
    commandLine: "",
    order: [],
    menuSeconds: 0,
    watchdog: "none",
    onPanic: "none",
    autostart: false,
    seed: null,
    notes: "",
    ...change,
  });
  const wrong = (change: Partial<Draft>) => Object.values(problems(draft(change), ["db"])).flatMap((step) => Object.keys(step));

  it("lets a complete machine through", () => {
    expect(wrong({})).toEqual([]);
  });

  it("finds what is missing, in its step", () => {
    expect(wrong({ name: "" })).toEqual(["name"]);
    expect(wrong({ name: "db" })).toEqual(["name"]);
    expect(wrong({ vcpus: 0, memory: 1 })).toEqual(["vcpus", "memory"]);
    expect(wrong({ disks: [{ key: 7, size: 0, datastore: "datastore-1", existing: null, controller: "virtio" }] })).toEqual(["disk7"]);
    expect(wrong({ disks: [{ key: 7, size: 0, datastore: "datastore-1", existing: "", controller: "virtio" }] })).toEqual(["disk7"]);
    expect(wrong({ firmware: "direct" })).toEqual(["kernel"]);
  });

  it("takes names as the host does, and none that could be a path", () => {
    expect(["web-01", "DB.2", "x"].every(validName)).toBe(true);
    expect(["", "../etc", "a/b", "-x", "x".repeat(65), "a\nb", "a b"].some(validName)).toBe(false);
  });
});

describe("the editor", () => {
  it("sends what a disk or card was to the guest, and what a new one is to be", () => {
    const disk = { datastore: "datastore-1", path: "web/disk-1.vdisk", size: GIB, controller: "ahci" as const };
    const nic = { network: "network-1", mac: "02:54:00:00:00:01", connected: true, model: "e1000e" as const };
    const patch = toPatch({
      disks: [
        { id: "disk-1", ...disk },
        { id: "new-1", ...disk },
      ],
      nics: [
        { id: "nic-1", ...nic },
        { id: "new-2", ...nic },
      ],
    });
    expect(patch).toEqual({
      disks: [
        { id: "disk-1", ...disk },
        { datastore: "datastore-1", size: GIB, controller: "ahci" },
      ],
      nics: [
        { id: "nic-1", ...nic },
        { network: "network-1", connected: true, model: "e1000e" },
      ],
    });
  });
});

describe("the form for cloud-init", () => {
  const key = "ssh-ed25519 AAAAC3Nz admin@desk";
  const draft = (change: Partial<SeedDraft>): SeedDraft => ({ ...emptySeed, keys: key, ...change });
  const wrong = (change: Partial<SeedDraft>) => Object.keys(seedProblems(draft(change), "web.1"));

  it("finds what the host would refuse, in its field", () => {
    expect(wrong({})).toEqual([]);
    expect(wrong({ hostName: "-a" })).toEqual(["hostName"]);
    expect(wrong({ user: "Root" })).toEqual(["user"]);
    expect(wrong({ keys: `${key}\nnothing` })).toEqual(["keys"]);
    expect(wrong({ keys: "" })).toEqual(["password"]);
    expect(wrong({ password: "short" })).toEqual(["password"]);
    expect(wrong({ kind: "own", user: "", userData: "nothing" })).toEqual(["userData"]);
    expect(wrong({ network: "static" })).toEqual(["address"]);
    expect(
      wrong({ network: "static", address: "10.0.0.256", prefixLength: "33", gateway: "x", nameServers: "1.1.1.1 2.2.2.2 3.3.3.3 4.4.4.4" }),
    ).toEqual(["address", "prefixLength", "gateway", "nameServers"]);
  });

  it("becomes what the host takes", () => {
    expect(toSeed(draft({ keys: `${key}\n\n` }), "web.1")).toEqual({ hostName: "web-1", user: "admin", sshKeys: [key] });
    expect(toSeed(draft({ hostName: "a", kind: "own", userData: "#!/bin/sh" }), "web")).toEqual({ hostName: "a", userData: "#!/bin/sh" });
    const network = toSeed(
      draft({ network: "static", address: "10.0.0.5 ", prefixLength: "8", nameServers: "10.0.0.1, 10.0.0.2" }),
      "web",
    ).network;
    expect(network).toEqual({ address: "10.0.0.5", prefixLength: 8, nameServers: ["10.0.0.1", "10.0.0.2"] });
    expect(["web.1", "..", "a".repeat(64), "x-"].map(hostNameOf)).toEqual(["web-1", "guest", "a".repeat(63), "x"]);
  });
});

describe("charts", () => {
  it("put series of different times side by side", () => {
    const of = (counter: string, samples: [number, number][]) => ({
      entity: "host-1",
      counter,
      unit: "MHz",
      interval: 20,
      samples: samples.map(([time, value]) => ({ time, value })),
    });
    expect(
      align([
        of("a", [
          [20, 1],
          [40, 2],
        ]),
        of("b", [
          [40, 3],
          [60, 4],
        ]),
      ]),
    ).toEqual({
      times: [20, 40, 60],
      values: [
        [1, 2, null],
        [null, 3, 4],
      ],
    });
  });
});

describe("the drawing of the servers", () => {
  const graph = (edges: [string, string][]): ServerGraph => ({
    servers: [...new Set(edges.flat())].map((name) => ({
      name,
      kind: "server",
      state: "running",
      memory: 0,
      cpuPercent: 0,
      threads: 1,
      restarts: 0,
      lastEnd: "",
    })),
    edges: edges.map(([from, to]) => ({ from, to, interface: "x", messagesPerSecond: 1 })),
  });

  it("puts callers above what they call, none over another, all inside", () => {
    const { placed, width, height } = layout(
      graph([
        ["hostd", "init"],
        ["shell", "init"],
        ["init", "kernel"],
        ["hostd", "storage"],
      ]),
    );
    const at = (name: string) => placed.get(name)!;
    expect(at("hostd").y).toBeLessThan(at("init").y);
    expect(at("init").y).toBeLessThan(at("kernel").y);
    expect(new Set([...placed.values()].map(({ x, y }) => `${x} ${y}`)).size).toBe(placed.size);
    for (const { x, y } of placed.values()) expect(x > 0 && x < width && y > 0 && y < height).toBe(true);
  });

  it("ends where servers call each other in a circle, and knows no server that is not there", () => {
    const circle = graph([
      ["a", "b"],
      ["b", "c"],
      ["c", "a"],
    ]);
    circle.edges.push({ from: "a", to: "gone", interface: "x", messagesPerSecond: 1 });
    expect(layout(circle).placed.size).toBe(3);
  });
});

describe("the client", () => {
  const answer = (status: number, body: unknown, headers = {}) => Promise.resolve(new Response(JSON.stringify(body), { status, headers }));

  it("proves its writes and says from which version they were made", async () => {
    const asked = vi.fn((_url: string, _init: RequestInit) => answer(200, {}, { ETag: '"2"' }));
    vi.stubGlobal("fetch", asked);
    setCsrf("secret");
    expect((await send("PATCH", "/vms/vm-1", { body: { vcpus: 2 }, etag: '"1"' })).etag).toBe('"2"');
    await send("GET", "/vms");
    const headers = asked.mock.calls.map(([, init]) => init.headers as Record<string, string>);
    expect(headers[0]).toMatchObject({ "If-Match": '"1"', "X-CSRF-Token": "secret", "Content-Type": "application/json" });
    expect(headers[1]).not.toHaveProperty("X-CSRF-Token");
  });

  it("follows a list to its end", async () => {
    const pages: Record<string, unknown> = { null: { items: [1, 2], next: "b" }, b: { items: [3], next: null } };
    vi.stubGlobal("fetch", (url: string) => answer(200, pages[String(new URL(url, "http://host").searchParams.get("cursor"))]));
    expect(await list("/vms")).toEqual([1, 2, 3]);
  });

  it("hands on what the host says when it refuses", async () => {
    vi.stubGlobal("fetch", () => answer(409, { code: "inUse", message: "The disk is in use.", hint: "Power the machine off first." }));
    const failure = await send("DELETE", "/x").catch((one: unknown) => one);
    expect(failure).toBeInstanceOf(ApiError);
    expect(failure).toMatchObject({ status: 409, code: "inUse", message: "The disk is in use.", hint: "Power the machine off first." });
    expect(message(failure)).toBe("The disk is in use. Power the machine off first.");
    await setLanguage("zh-CN", false);
    expect(message(new ApiError(503, "unavailable", "storage does not answer", "Try again."))).toBe(
      "storage does not answer. 服务暂不可用，请稍后重试。",
    );
    await setLanguage("en", false);
  });
});
