// Every page and every dialog: it opens, its scripts do not fail, axe finds nothing, it fits the screen; in each look.
import { join } from "node:path";
import { axe, check, logIn, looks, messages, open, visit } from "./browser.mjs";

/** Names and fragments of all pages; those of one machine and one datastore are found on the host. */
export function allPages({ vm, datastore }) {
  return {
    overview: "/",
    vms: "/vms",
    ...(vm && {
      vm: `/vms/${vm}`,
      "vm-screen": `/vms/${vm}/screen`,
      "vm-console": `/vms/${vm}/console`,
      "vm-performance": `/vms/${vm}/performance`,
      "vm-snapshots": `/vms/${vm}/snapshots`,
      "vm-events": `/vms/${vm}/events`,
    }),
    storage: "/storage",
    devices: "/storage/devices",
    ...(datastore && { datastore: `/storage/datastores/${datastore}` }),
    topology: "/networking",
    "port-groups": "/networking/groups",
    nics: "/networking/nics",
    interfaces: "/networking/interfaces",
    performance: "/monitor",
    health: "/monitor/health",
    tasks: "/monitor/tasks",
    events: "/monitor/events",
    logs: "/monitor/logs",
    support: "/monitor/support",
    system: "/manage",
    time: "/manage/time",
    dns: "/manage/dns",
    services: "/manage/services",
    autostart: "/manage/autostart",
    licences: "/manage/licences",
    users: "/security",
    roles: "/security/roles",
    permissions: "/security/permissions",
    keys: "/security/keys",
    sessions: "/security/sessions",
    servers: "/servers",
    nothing: "/there-is-no-such-page",
    "no-machine": "/vms/vm-999999",
  };
}

/** A machine and a datastore of the host, where the flows made none. */
export async function findThings(browser, host) {
  const { context, page } = await open(browser);
  await logIn(page, host);
  // One that runs has more to show.
  const first = (kind) =>
    page.evaluate(async (path) => {
      const { items } = await (await fetch(`/api/v1/${path}`)).json();
      return (items.find((one) => one.powerState === "poweredOn") ?? items[0])?.id;
    }, kind);
  const things = { vm: await first("vms"), datastore: await first("datastores") };
  await context.close();
  return things;
}

/** Has a host without machines make some, so that the pages have something to show: one that runs, one that is suspended, one that is off. */
export async function makeThings(browser, host) {
  const { context, page } = await open(browser);
  await logIn(page, host);
  await page.evaluate(async () => {
    const ask = async (method, path, body) => {
      const answer = await fetch(`/api/v1${path}`, {
        method,
        headers: { "X-CSRF-Token": sessionStorage.getItem("tessera.csrf"), "Content-Type": "application/json" },
        body: body && JSON.stringify(body),
      });
      if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${await answer.text()}`);
      return answer.json();
    };
    const done = async (started) => {
      for (;;) {
        const task = await ask("GET", `/tasks/${(await started).id}`);
        if (task.state === "error") throw new Error(JSON.stringify(task));
        if (task.state === "success") return task.result;
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
    };
    const [datastore, network] = await Promise.all(
      ["/datastores", "/networks/port-groups"].map(async (path) => (await ask("GET", path)).items[0].id),
    );
    const machine = (name, more) =>
      done(
        ask("POST", "/vms", {
          name,
          vcpus: 1,
          memory: 512 << 20,
          disks: [{ datastore, size: 2 ** 33 }],
          nics: [{ network }],
          boot: { firmware: "bios" },
          ...more,
        }),
      );
    const web = await machine("web-1", { guestOs: "debian12", watchdog: "reset", onPanic: "powerOff", notes: "Serves the intranet." });
    await done(ask("POST", `/vms/${web}/start`));
    await done(ask("POST", `/vms/${web}/snapshots`, { name: "before the update", description: "As it was on Monday" }));
    await done(ask("POST", `/vms/${web}/snapshots`, { name: "after" }));
    const database = await machine("database-of-the-accounting-department", {
      guestOs: "ubuntu",
      boot: { firmware: "uefi", order: ["nic", "disk"] },
    });
    await done(ask("POST", `/vms/${database}/start`));
    await done(ask("POST", `/vms/${database}/suspend`));
    await machine("spare", { guestOs: "alpine" });
  });
  await context.close();
}

/** Looks at a page as it is: what is wrong with it goes to `wrong`. */
function looker(page, problems, wrong, screenshots) {
  return async (name) => {
    if (screenshots) await page.screenshot({ path: join(screenshots, `${name}.png`) });
    wrong.push(...(await axe(page)).map((one) => `${name}: ${one}`), ...problems.splice(0).map((one) => `${name}: ${one}`));
    // What is wider than the screen, or than the dialog, cannot be read on a phone.
    const wide = await page.evaluate(() =>
      [document.documentElement, ...document.querySelectorAll("dialog[open], dialog[open] > form, dialog[open] .page")]
        .filter((one) => one.scrollWidth > one.clientWidth + 1)
        .map((one) => `${one.tagName.toLowerCase()} is wider than its place by ${one.scrollWidth - one.clientWidth}`),
    );
    wrong.push(...wide.map((one) => `${name}: ${one}`));
  };
}

/** Has the host tell of alarms of a machine, of each kind. */
async function withAlarms(page, id, does) {
  const machines = /\/api\/v1\/vms(\?.*)?$/;
  const time = new Date().toISOString();
  const kinds = ["guestPanicked", "watchdogExpired"];
  await page.route(machines, async (route) => {
    const response = await route.fetch();
    const body = await response.json();
    const alarms = kinds.map((kind, index) => ({ kind, count: index + 1, time }));
    body.items = body.items.map((vm) => (vm.id === id ? { ...vm, alarms, health: "yellow" } : vm));
    await route.fulfill({ response, json: body });
  });
  await page.reload();
  await does();
  await page.unroute(machines);
  await page.reload();
}

export async function testPages(browser, host, things, kinds, screenshots) {
  const wrong = [];
  for (const kind of kinds) {
    const { context, page, problems } = await open(browser, looks[kind]);
    const look = looker(page, problems, wrong, screenshots);
    await page.goto(host.url);
    await page.locator("input[name=password]").waitFor();
    await look(`login-${kind}`);
    await logIn(page, host);
    const lookAt = async (name, fragment) => {
      await visit(page, host.url, fragment);
      // Thumbnails, charts and pictures come a moment after their page.
      await page.waitForTimeout(400);
      await look(`${name}-${kind}`);
      for (const alert of await page.locator("main [role=alert]").allTextContents()) wrong.push(`${name}-${kind}: says "${alert}"`);
    };
    for (const [name, fragment] of Object.entries(allPages(things))) await lookAt(name, fragment);
    if (things.vm)
      await withAlarms(page, things.vm, async () => {
        await lookAt("vms-alarms", "/vms");
        await page.locator("main [role=row] .alarmed").waitFor();
        await page.locator("main [role=row] .alarmed").locator("xpath=ancestor::*[@role='row']").locator("a").first().click();
        await page.locator("main .notice li").nth(1).waitFor();
        await look(`vm-alarms-${kind}`);
      });
    await context.close();
  }
  check(wrong.length === 0, wrong.join("\n"));
}

/** Dialogs, and the steps of the wizard. */
export async function testDialogs(browser, host, { vm }, kinds, screenshots) {
  const wrong = [];
  for (const kind of kinds) {
    const { context, page, problems } = await open(browser, looks[kind]);
    const text = messages(looks[kind].locale);
    const look = looker(page, problems, wrong, screenshots);
    const dialog = page.locator("dialog[open]");
    const press = (place, key) => place.getByRole("button", { name: text[key], exact: true }).first().click();
    const lookAndClose = async (name) => {
      await dialog.last().locator("h2").waitFor();
      await page.locator("dialog .spinner").waitFor({ state: "detached" });
      await look(`dialog-${name}-${kind}`);
      const before = await dialog.count();
      await page.keyboard.press("Escape");
      await dialog.nth(before - 1).waitFor({ state: "detached" });
    };
    await logIn(page, host);
    const main = page.locator("main");
    for (const [fragment, keys] of Object.entries({
      "/networking": ["group.new", "switch.new"],
      "/security": ["user.new"],
      "/security/roles": ["role.new"],
      "/security/permissions": ["permission.new"],
      "/security/keys": ["key.new"],
      "/storage": ["datastore.new"],
      "/manage": ["certificate.replace"],
    })) {
      await visit(page, host.url, fragment);
      for (const key of keys) {
        await press(main, key);
        await lookAndClose(key.replace(".", "-"));
      }
    }
    if (vm) {
      await visit(page, host.url, `/vms/${vm}`);
      await press(main, "edit");
      // Both ends of a form that is longer than the screen.
      await dialog.locator("form").waitFor();
      await look(`dialog-edit-${kind}`);
      await dialog.locator("form > :last-child").scrollIntoViewIfNeeded();
      await lookAndClose("edit-end");
      for (const key of ["vm.clone", "snapshot.take"]) {
        await press(main, "actions");
        await page.getByRole("menuitem", { name: text[key], exact: true }).click();
        await lookAndClose(key.replace(".", "-"));
      }
      const off = await page.evaluate(async () => {
        const { items } = await (await fetch("/api/v1/vms")).json();
        return items.find((one) => one.powerState === "poweredOff" && one.config.boot.firmware !== "direct")?.id;
      });
      if (off) {
        await visit(page, host.url, `/vms/${off}`);
        await press(main, "actions");
        await page.getByRole("menuitem", { name: text["seed.title"], exact: true }).click();
        await dialog.locator("button[type=submit]").click();
        await dialog.locator(".field [role=alert]").waitFor();
        await look(`dialog-seed-${kind}`);
        await dialog.locator("form .field select").first().selectOption("own");
        await dialog.locator("form .field select").last().selectOption("static");
        await lookAndClose("seed-own");
      }
    }
    await visit(page, host.url, "/vms");
    await press(main, "vm.new");
    for (const step of ["name", "compute", "storage", "network", "options", "summary"]) {
      await dialog.locator("h3", { hasText: text[`wizard.${step}`] }).waitFor();
      if (step === "name") await dialog.locator("form input").first().fill("looked-at");
      await look(`wizard-${step}-${kind}`);
      if (step === "options") {
        await dialog.locator("form > :last-child").scrollIntoViewIfNeeded();
        await dialog.locator("form > .stack > :last-child").scrollIntoViewIfNeeded();
        await look(`wizard-options-end-${kind}`);
        await dialog.getByRole("radio").last().check();
        await dialog.locator("button[type=submit]").click();
        await dialog.getByRole("alert").scrollIntoViewIfNeeded();
        await look(`wizard-options-direct-${kind}`);
        await dialog.getByRole("radio").first().check();
        await dialog.getByText(text["seed.use"]).click();
        await dialog.locator("fieldset.card textarea").scrollIntoViewIfNeeded();
        await look(`wizard-options-seed-${kind}`);
        await dialog.getByText(text["seed.use"]).click();
      }
      if (step !== "summary") await dialog.locator("button[type=submit]").click();
    }
    await context.close();
  }
  check(wrong.length === 0, wrong.join("\n"));
}

/** A list of 1,000 machines, each like the one that there is, is drawn in less than a second. */
export async function testThousand(browser, host) {
  const { context, page } = await open(browser);
  await logIn(page, host);
  const one = await page.evaluate(async () => (await (await fetch("/api/v1/vms?limit=1")).json()).items[0]);
  const body = JSON.stringify({
    items: Array.from({ length: 1000 }, (_, index) => ({
      ...one,
      id: `vm-${100_000 + index}`,
      name: `many-${index}`,
      config: { ...one.config, name: `many-${index}` },
    })),
    next: null,
  });
  await page.route(/\/api\/v1\/vms(\?.*)?$/, (route) => route.fulfill({ contentType: "application/json", body }));
  await page.reload();
  await page.locator(".nav .count", { hasText: "1000" }).waitFor();
  const took = await page.evaluate(async () => {
    const begin = performance.now();
    location.hash = "#/vms";
    while (!document.querySelector("[role=table][aria-rowcount='1001'] [role=row] a")) await new Promise(requestAnimationFrame);
    await new Promise(requestAnimationFrame);
    return performance.now() - begin;
  });
  // Sorting and going to the end are as quick.
  const moved = await page.evaluate(async () => {
    const begin = performance.now();
    const table = document.querySelector("main [role=table]");
    table.querySelector(".thead button").click();
    table.scrollTop = table.scrollHeight;
    while (!document.querySelector("main [aria-rowindex='1001']")) await new Promise(requestAnimationFrame);
    return performance.now() - begin;
  });
  await context.close();
  check(took < 1000 && moved < 1000, `1,000 machines took ${Math.round(took)} ms, sorting and scrolling ${Math.round(moved)} ms`);
  return `${Math.round(took)} ms, sorting and scrolling ${Math.round(moved)} ms`;
}

/** What the browser fetches until the log-in page stands. */
export async function testFirstLoad(browser, host) {
  const { context, page } = await open(browser);
  const client = await context.newCDPSession(page);
  await client.send("Network.enable");
  let bytes = 0;
  client.on("Network.loadingFinished", (event) => {
    bytes += event.encodedDataLength;
  });
  const outside = [];
  page.on("request", (request) => {
    if (!request.url().startsWith(host.url) && !request.url().startsWith("data:")) outside.push(request.url());
  });
  await logIn(page, host);
  await page.waitForTimeout(500);
  await context.close();
  check(outside.length === 0, `the pages asked others than the host: ${outside.join(" ")}`);
  check(bytes < 300 * 1024, `the first load takes ${bytes} bytes`);
  return `${Math.ceil(bytes / 1024)} KiB`;
}
