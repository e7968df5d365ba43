// Every page: it opens, its scripts do not fail, axe finds nothing, in each look.
import { join } from "node:path";
import { axe, check, logIn, looks, open, visit } from "./browser.mjs";

/** Names and fragments of all pages; those of one machine and one datastore are found on the host. */
export function allPages({ vm, datastore }) {
  return {
    overview: "/",
    vms: "/vms",
    ...(vm && {
      vm: `/vms/${vm}`,
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
  };
}

/** A machine and a datastore of the host, where the flows made none. */
export async function findThings(browser, host) {
  const { context, page } = await open(browser);
  await logIn(page, host);
  const first = (kind) => page.evaluate(async (path) => (await (await fetch(`/api/v1/${path}`)).json()).items[0]?.id, kind);
  const things = { vm: await first("vms"), datastore: await first("datastores") };
  await context.close();
  return things;
}

export async function testPages(browser, host, things, kinds, screenshots) {
  const wrong = [];
  const look = async (page, problems, name) => {
    if (screenshots) await page.screenshot({ path: join(screenshots, `${name}.png`) });
    wrong.push(...(await axe(page)).map((one) => `${name}: ${one}`), ...problems.splice(0).map((one) => `${name}: ${one}`));
    // A page that is wider than the screen cannot be read on a phone.
    if (await page.evaluate(() => document.documentElement.scrollWidth > window.innerWidth + 1))
      wrong.push(`${name}: is wider than the screen`);
    for (const alert of await page.locator("main [role=alert]").allTextContents()) wrong.push(`${name}: says "${alert}"`);
  };
  for (const kind of kinds) {
    const { context, page, problems } = await open(browser, looks[kind]);
    await page.goto(host.url);
    await page.locator("input[name=password]").waitFor();
    await look(page, problems, `login-${kind}`);
    await logIn(page, host);
    for (const [name, fragment] of Object.entries(allPages(things))) {
      await visit(page, host.url, fragment);
      await page.waitForTimeout(400);
      await look(page, problems, `${name}-${kind}`);
    }
    await context.close();
  }
  check(wrong.length === 0, wrong.join("\n"));
}

/** Dialogs too. */
export async function testDialogs(browser, host, { vm }, screenshots) {
  const { context, page, problems } = await open(browser);
  const wrong = [];
  const look = async (name) => {
    await page.locator("dialog[open]").waitFor();
    if (screenshots) await page.screenshot({ path: join(screenshots, `dialog-${name}.png`) });
    wrong.push(...(await axe(page)).map((one) => `${name}: ${one}`), ...problems.splice(0).map((one) => `${name}: ${one}`));
    await page.keyboard.press("Escape");
    await page.locator("dialog[open]").waitFor({ state: "detached" });
  };
  await logIn(page, host);
  for (const [fragment, buttons] of Object.entries({
    "/networking": ["New port group", "New switch"],
    "/security": ["New user"],
    "/security/roles": ["New role"],
    "/security/permissions": ["New permission"],
    "/security/keys": ["New API key"],
    "/storage": ["New datastore"],
    "/manage": ["Replace certificate"],
    [`/vms/${vm}`]: ["Edit"],
  })) {
    await visit(page, host.url, fragment);
    for (const name of buttons) {
      await page.locator("main").getByRole("button", { name, exact: true }).click();
      await look(name.toLowerCase().replaceAll(" ", "-"));
    }
  }
  await context.close();
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
