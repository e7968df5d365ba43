// What people do with a host, from an empty one on, as they do it: by its pages alone. A host with `files` (kernel and initramfs) boots them;
// the developer's server has a simulated machine whose console repeats what is typed.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { axe, check, logIn, open, until, visit } from "./browser.mjs";

const MIB = 1024 * 1024;
const NAME = "web-test";

const button = (page, name) => page.getByRole("button", { name, exact: true });
/** Waits until a task of that machine or file is done, as the panel along the bottom tells. */
async function finished(page, text, seconds = 60) {
  const row = page.locator(".tasks .tbody [role=row]", { hasText: text }).first();
  await row.locator(".badge", { hasText: /Completed|Failed/ }).waitFor({ timeout: seconds * 1000 });
  check(!(await row.textContent()).includes("Failed"), `task failed: ${await row.textContent()}`);
}

async function openDatastore(page, url) {
  await visit(page, url, "/storage");
  await page.locator("main").getByRole("link", { name: "Browse files" }).first().click();
  await button(page, "Upload").waitFor();
}

const flows = {
  async "a wrong password is refused, and says so"({ page, host }) {
    await page.goto(host.url);
    await page.locator("input[name=user]").fill("nobody");
    await page.locator("input[name=password]").fill("not the password");
    await button(page, "Log in").click();
    await page.getByRole("alert").waitFor();
  },

  async "log in"({ page, host }) {
    await logIn(page, host);
    await page.getByRole("meter", { name: "Memory" }).waitFor();
  },

  async "make a datastore, where there is none"({ page, host }) {
    const known = await page.evaluate(async () => (await (await fetch("/api/v1/datastores")).json()).items.length);
    if (known > 0) return;
    await visit(page, host.url, "/storage");
    await button(page, "New datastore").first().click();
    await page.locator("dialog").getByLabel("Name", { exact: true }).fill("main");
    await page.locator("dialog").getByRole("button", { name: "Create" }).click();
    await page.locator("dialog").waitFor({ state: "detached" });
    await page.locator("main").getByRole("link", { name: "Browse files" }).first().waitFor();
  },

  async "upload a kernel and an ISO, chosen and dropped"({ page, host, things }) {
    await openDatastore(page, host.url);
    things.datastore = decodeURIComponent(page.url().split("/").pop());
    const upload = async (name, buffer) => {
      await page.locator("input[type=file]").setInputFiles({ name, mimeType: "application/octet-stream", buffer });
      await page.locator("main [role=table] [role=row]", { hasText: name }).waitFor({ timeout: 180_000 });
    };
    await upload("test-kernel", host.files ? readFileSync(host.files.kernel) : Buffer.alloc(3 * MIB, 7));
    if (host.files) await upload("test-initramfs", readFileSync(host.files.initramfs));
    const dropped = await page.evaluateHandle((size) => {
      const transfer = new DataTransfer();
      transfer.items.add(new File([new Uint8Array(size)], "test.iso"));
      return transfer;
    }, 2 * MIB);
    await page.dispatchEvent(".drop", "dragenter", { dataTransfer: dropped });
    check(await page.locator(".drop.over").isVisible(), "the page does not show that files can be dropped");
    await page.dispatchEvent(".drop", "drop", { dataTransfer: dropped });
    // It is listed while it comes, and grows.
    await page.locator("main [role=table] [role=row]", { hasText: /test\.iso.*2 MiB/ }).waitFor();
    await page.getByRole("progressbar", { name: "test.iso" }).waitFor();
  },

  async "make a folder, move a file, delete it"({ page }) {
    await button(page, "New folder").click();
    await page.getByLabel("Name", { exact: true }).fill("test-folder");
    await button(page, "Create").click();
    await page.locator("main [role=row]", { hasText: "test-folder" }).waitFor();
    await page.getByRole("checkbox", { name: "Select test.iso" }).check();
    await page.locator("main").getByRole("button", { name: "Actions" }).click();
    await page.getByRole("menuitem", { name: "Move or rename" }).click();
    await page.getByLabel("New path").fill("test-folder/moved.iso");
    await page.locator("dialog").getByRole("button", { name: "Move or rename" }).click();
    await page.locator("main [role=row]", { hasText: "test.iso" }).waitFor({ state: "detached" });
    await button(page, "test-folder").click();
    await page.getByRole("checkbox", { name: "Select moved.iso" }).check();
    await page.locator("main").getByRole("button", { name: "Actions" }).click();
    await page.getByRole("menuitem", { name: "Delete" }).click();
    await page.locator("dialog").getByRole("button", { name: "Delete" }).click();
    await page.locator("main [role=row]", { hasText: "moved.iso" }).waitFor({ state: "detached" });
  },

  async "create a machine with the wizard, by the keyboard alone"({ page, host }) {
    await visit(page, host.url, "/vms");
    await button(page, "New virtual machine").first().focus();
    await page.keyboard.press("Enter");
    await page.locator("dialog[open]").waitFor();
    // Types into the field that has the focus after so many tabs; finds fields by their label, as a reader of the screen would.
    const to = async (label) => {
      for (let presses = 0; presses < 60; presses++) {
        const here = await page.evaluate(() => {
          const element = document.activeElement;
          return element?.labels?.[0]?.textContent ?? element?.getAttribute("aria-label") ?? element?.textContent ?? "";
        });
        if (here === label) return;
        await page.keyboard.press("Tab");
      }
      throw new Error(`the keyboard does not come to ${label}`);
    };
    const step = (name) => page.locator("dialog h3", { hasText: name }).waitFor();
    await step("Name and guest OS");
    check((await axe(page)).length === 0, (await axe(page)).join("\n"));
    await to("Name");
    // Without a name it does not go on.
    await page.keyboard.press("Enter");
    await page.locator("dialog [role=alert]").waitFor();
    await page.keyboard.type(NAME);
    await page.keyboard.press("Enter");
    await step("Compute");
    await to("Virtual CPUs");
    await page.keyboard.press("ArrowUp");
    await page.keyboard.press("Enter");
    await step("Storage");
    await to("Next");
    await page.keyboard.press("Enter");
    await step("Network");
    check((await axe(page)).length === 0, (await axe(page)).join("\n"));
    await to("Next");
    await page.keyboard.press("Enter");
    await step("Options");
    await to(await page.locator("dialog label.choice", { hasText: "BIOS" }).first().textContent());
    // Past UEFI to the kernel.
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("ArrowDown");
    await to("Browse for Kernel");
    await page.keyboard.press("Enter");
    await page.locator("dialog").last().getByRole("button", { name: "test-kernel" }).focus();
    await page.keyboard.press("Enter");
    if (host.files) {
      await to("Browse for Initial RAM disk");
      await page.keyboard.press("Enter");
      await page.locator("dialog").last().getByRole("button", { name: "test-initramfs" }).focus();
      await page.keyboard.press("Enter");
    }
    await to("Next");
    await page.keyboard.press("Enter");
    await step("Summary");
    check((await page.locator("dialog .facts").textContent()).includes("2 vCPU"), "the summary does not show two processors");
    await to("Finish");
    await page.keyboard.press("Enter");
    await page.locator("main").getByRole("link", { name: NAME }).waitFor();
  },

  async "start it"({ page, things }) {
    await page.locator("main").getByRole("link", { name: NAME }).click();
    things.vm = decodeURIComponent(page.url().split("/").pop());
    await button(page, "Power on").click();
    await page.locator(".page-head .badge", { hasText: "Powered on" }).waitFor();
  },

  async "use its console"({ page, host }) {
    await page.locator("main").getByRole("link", { name: "Console" }).click();
    await page.locator(".badge", { hasText: "Connected" }).waitFor();
    await page.locator(".console").click();
    if (host.files) {
      await page.locator(".xterm-rows", { hasText: "Type commands" }).waitFor({ timeout: 120_000 });
      // The answer stands in nothing that was typed.
      await page.keyboard.type("uname -sm; echo $((6 * 7)) answers\n");
      await page.locator(".xterm-rows", { hasText: "Linux x86_64" }).waitFor();
      await page.locator(".xterm-rows", { hasText: "42 answers" }).waitFor();
    } else {
      await page.keyboard.type("hello from the browser\n");
      await page.locator(".xterm-rows", { hasText: "hello from the browser" }).waitFor();
    }
    await page.keyboard.press("Control+Shift+Escape");
    check(await page.evaluate(() => !document.activeElement?.closest(".console")), "the keyboard does not leave the console");
  },

  async "see its charts move"({ page }) {
    await page.locator("main").getByRole("link", { name: "Performance" }).click();
    // The host takes a sample each 20 seconds; a line needs two.
    await page.locator(".chart canvas").first().waitFor({ timeout: 75_000 });
    const value = () => page.locator("main .legend").allTextContents();
    const before = JSON.stringify(await value());
    await until(
      page,
      (old) => JSON.stringify([...document.querySelectorAll("main .legend")].map((one) => one.textContent)) !== old,
      before,
      60,
    );
  },

  async "take a snapshot and revert to it"({ page }) {
    await page.locator("main").getByRole("link", { name: "Snapshots" }).click();
    await button(page, "Take snapshot").click();
    await page.locator("dialog").getByLabel("Name").fill("before");
    await page.locator("dialog").getByRole("button", { name: "Take snapshot" }).click();
    await page
      .locator(".tree")
      .getByRole("button", { name: /before/ })
      .click();
    await page.locator("main").getByRole("button", { name: "Revert" }).click();
    await page.locator("dialog").getByRole("button", { name: "Revert" }).click();
    await page.locator("dialog").waitFor({ state: "detached" });
    await finished(page, /[Rr]evert/);
  },

  async "shut it off and change its memory"({ page }) {
    const head = page.locator(".page-head");
    if (!(await head.getByText("Powered off").isVisible())) {
      await head.getByRole("button", { name: "Actions" }).click();
      await page.getByRole("menuitem", { name: "Power off" }).click();
      await page.locator("dialog").getByRole("button", { name: "Power off" }).click();
      await head.getByText("Powered off").waitFor();
    }
    await head.getByRole("button", { name: "Edit" }).click();
    await page.locator("dialog").getByLabel("Memory", { exact: true }).fill("768");
    await page.locator("dialog").getByLabel("Memory", { exact: true }).press("Tab");
    await page.locator("dialog").getByRole("button", { name: "Save" }).click();
    await page.locator("dialog").waitFor({ state: "detached" });
    await page.locator("main").getByRole("link", { name: "Summary" }).click();
    await page.locator("main .simple", { hasText: "768 MiB" }).waitFor();
  },

  async "give it PCI devices of the host, and take them back"({ page, host, things }) {
    const devices = await page.evaluate(async () => (await (await fetch("/api/v1/host/pci-devices")).json()).items);
    const own = () => page.evaluate(async (vm) => (await (await fetch(`/api/v1/vms/${vm}`)).json()).config.passthrough, things.vm);
    const dialog = page.locator("dialog");
    const box = ({ address }) => dialog.getByRole("checkbox", { name: address });
    const edit = () => page.locator(".page-head").getByRole("button", { name: "Edit" }).click();
    const save = async () => {
      await dialog.getByRole("button", { name: "Save" }).click();
      await dialog.waitFor({ state: "detached" });
    };
    await edit();
    for (const device of devices) await box(device).waitFor();
    // What no machine can have cannot be chosen, and the page says why.
    for (const device of devices.filter(({ problem }) => problem)) {
      check(await box(device).isDisabled(), `${device.address} can be chosen`);
      await dialog.locator(".field", { hasText: device.address }).getByText(device.problem).waitFor();
    }
    check((await axe(page)).length === 0, (await axe(page)).join("\n"));
    const several = devices.find(({ problem, together }) => !problem && together.length > 0);
    if (several) {
      const all = [several.address, ...several.together].sort();
      await box(several).check();
      for (const address of all) check(await box({ address }).isChecked(), `${address} is not chosen with its device`);
      await save();
      for (const address of all) await page.locator("main .simple", { hasText: address }).waitFor();
      check(JSON.stringify((await own()).sort()) === JSON.stringify(all), `the machine has ${await own()}`);
      await edit();
      await box(several).uncheck();
      await save();
      for (const address of all) await page.locator("main .simple", { hasText: address }).waitFor({ state: "detached" });
    } else {
      await dialog.getByRole("button", { name: "Cancel" }).click();
    }
    check((await own()).length === 0, `the machine has ${await own()}`);
    await visit(page, host.url, "/monitor/health");
    for (const { address } of devices) await page.locator("main .simple tr", { hasText: address }).waitFor();
    await visit(page, host.url, `/vms/${things.vm}`);
  },

  async "create a machine that sets itself up with cloud-init, and change what it is told"({ page, host, things }) {
    const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDummyDummyDummy admin@desk";
    await visit(page, host.url, "/vms");
    await button(page, "New virtual machine").first().click();
    const dialog = page.locator("dialog");
    const next = () => dialog.getByRole("button", { name: "Next", exact: true }).click();
    await dialog.getByLabel("Name", { exact: true }).fill("web.seeded");
    for (let step = 0; step < 4; step++) await next();
    await dialog.getByLabel("Set up the guest with cloud-init").check();
    // Nobody could log in.
    await next();
    await dialog.getByText("Without a password and a key nobody could log in").waitFor();
    await dialog.getByLabel("SSH public keys").fill(`${key}\n`);
    await dialog.getByLabel("Password").fill("correct horse");
    await dialog.getByLabel("First network adapter").selectOption("static");
    await next();
    await dialog.getByText("An IPv4 address such as 192.0.2.10").first().waitFor();
    await dialog.getByLabel("IPv4 address").fill("192.0.2.10");
    await dialog.getByLabel("Gateway").fill("192.0.2.1");
    await dialog.getByLabel("DNS servers").fill("192.0.2.2, 192.0.2.3");
    check((await axe(page)).length === 0, (await axe(page)).join("\n"));
    await next();
    await dialog.getByRole("button", { name: "Finish" }).click();
    await dialog.waitFor({ state: "detached" });
    await finished(page, "Make cloud-init image");
    const image = () =>
      page.evaluate(
        async ([datastore]) => {
          const answer = await fetch(`/api/v1/datastores/${datastore}/files/web.seeded/seed.iso`);
          return answer.ok ? new TextDecoder("latin1").decode(await answer.arrayBuffer()) : `${answer.status}`;
        },
        [things.datastore],
      );
    const made = await image();
    for (const part of [
      '"hostname": "web-seeded"',
      '"name": "admin"',
      key,
      '"passwd": "$6$',
      "192.0.2.10/24",
      '"via": "192.0.2.1"',
      "192.0.2.3",
    ])
      check(made.includes(part), `the image has no ${part}`);
    check(!made.includes("correct horse"), "the image has the password as it was typed");
    await page.locator("main").getByRole("link", { name: "web.seeded" }).click();
    await page.locator("main .simple", { hasText: "seed.iso" }).waitFor();
    await page.locator(".page-head").getByRole("button", { name: "Actions" }).click();
    await page.getByRole("menuitem", { name: "Cloud-init" }).click();
    await dialog.getByText("takes the place of").waitFor();
    await dialog.getByLabel("What it sets up").selectOption("own");
    await dialog.getByLabel("User-data").fill("#!/bin/sh\necho seen > /root/seen\n");
    check((await axe(page)).length === 0, (await axe(page)).join("\n"));
    await dialog.getByRole("button", { name: "Make image" }).click();
    await dialog.waitFor({ state: "detached" });
    await finished(page, "Make cloud-init image");
    check((await image()).includes("echo seen > /root/seen"), "the image has no user-data of one's own");
    await page.locator(".page-head").getByRole("button", { name: "Actions" }).click();
    await page.getByRole("menuitem", { name: "Delete virtual machine" }).click();
    await dialog.getByRole("button", { name: "Delete" }).click();
    await finished(page, "Delete virtual machine");
  },

  async "draw it in the network"({ page, host }) {
    await visit(page, host.url, "/networking");
    await page.locator(".drawing svg text", { hasText: NAME }).first().waitFor();
    await button(page, "New port group").click();
    await page.locator("dialog").getByLabel("Name").fill("test-group");
    await page.locator("dialog").getByLabel("VLAN").fill("77");
    await page.locator("dialog").getByRole("button", { name: "Create" }).click();
    await page.locator(".drawing svg text", { hasText: "VLAN 77" }).waitFor();
    await visit(page, host.url, "/networking/groups");
    await button(page, "Remove test-group").click();
    await page.locator("dialog").getByRole("button", { name: "Delete" }).click();
    await page.locator("main [role=row]", { hasText: "test-group" }).waitFor({ state: "detached" });
  },

  async "set NTP and DNS"({ page, host }) {
    await visit(page, host.url, "/manage/dns");
    await page.getByLabel("Take the DNS servers from DHCP").uncheck();
    await page.getByLabel("DNS servers", { exact: true }).fill(host.nameServer);
    await button(page, "Save").click();
    await page.getByText("Saved").waitFor();
    await page.reload();
    check((await page.getByLabel("DNS servers", { exact: true }).inputValue()) === host.nameServer, "the name servers were not kept");
    await visit(page, host.url, "/manage/time");
    await page.getByLabel("Set the clock from NTP servers").check();
    await page.getByLabel("NTP servers", { exact: true }).fill(host.timeServers);
    await button(page, "Save").click();
    await page.getByText("Saved").waitFor();
    await page.reload();
    await page.getByLabel("NTP servers", { exact: true }).waitFor();
    check((await page.getByLabel("NTP servers", { exact: true }).inputValue()) === host.timeServers, "the time servers were not kept");
    // A server that answers is followed, by the name that the name server gave.
    if (host.clockFollows) await page.locator("main .badge", { hasText: /^Synchronized/ }).waitFor({ timeout: 60_000 });
  },

  async "add a user who may only read"({ page, host }) {
    await visit(page, host.url, "/security");
    await button(page, "New user").click();
    const dialog = page.locator("dialog");
    await dialog.getByLabel("User name").fill("reader");
    await dialog.getByLabel("Role").selectOption({ label: "Read-only" });
    await dialog.getByLabel("New password").fill("reads-only-9");
    await dialog.getByLabel("Repeat the password").fill("reads-only-9");
    await dialog.getByRole("button", { name: "Create" }).click();
    await page.locator("main [role=row]", { hasText: "reader" }).waitFor();
  },

  async "who then reads and does nothing else"({ browser, host, things }) {
    const { context, page } = await open(browser);
    await logIn(page, { ...host, user: "reader", password: "reads-only-9" });
    await visit(page, host.url, `/vms/${things.vm}`);
    const start = button(page, "Power on");
    if (await start.isEnabled()) {
      await start.click();
      await page.locator(".toast.danger").waitFor();
    }
    check(await page.locator(".page-head", { hasText: "Powered off" }).isVisible(), "a reader started a machine");
    const refused = await page.evaluate(
      async (vm) =>
        (await fetch(`/api/v1/vms/${vm}`, { method: "DELETE", headers: { "X-CSRF-Token": sessionStorage.getItem("tessera.csrf") ?? "" } }))
          .status,
      things.vm,
    );
    check(refused === 403, `deleting as a reader was answered by ${refused}`);
    await context.close();
  },

  async "change the language and the look"({ page, host }) {
    await visit(page, host.url, "/");
    await button(page, "Language").click();
    await page.getByRole("menuitemradio", { name: "简体中文" }).click();
    await page.getByRole("link", { name: "概览" }).waitFor();
    check((await page.evaluate(() => document.documentElement.lang)) === "zh-CN", "the page does not say its language");
    await button(page, "语言").click();
    await page.getByRole("menuitemradio", { name: "English" }).click();
    await button(page, "Appearance").click();
    await page.getByRole("menuitemradio", { name: "Dark" }).click();
    check((await page.evaluate(() => document.documentElement.dataset.theme)) === "dark", "the page is not dark");
  },

  async "log out"({ page }) {
    await button(page, "Account").click();
    await page.getByRole("menuitem", { name: "Log out" }).click();
    await page.locator("input[name=password]").waitFor();
    check((await page.evaluate(async () => (await fetch("/api/v1/vms")).status)) === 401, "the session goes on after the log-out");
  },
};

/** Runs them in order in one session; each goes on where the one before ended. What they made is in `things`. */
export async function runFlows(browser, host, report, screenshots) {
  const { context, page, problems } = await open(browser);
  const things = {};
  for (const [name, flow] of Object.entries(flows)) {
    await report(
      name,
      async () => {
        await flow({ browser, page, host, things });
        check(problems.length === 0, problems.join("\n"));
        if (screenshots) await page.screenshot({ path: join(screenshots, `flow-${name.replaceAll(/[^a-z0-9]+/gi, "-")}.png`) });
      },
      page,
    );
  }
  await context.close();
  return things;
}
