// Tests the Host Client in a real browser.
//
//     node tests/web/run.mjs [--url https://127.0.0.1:8443 --password PASSWORD] [--user root] [--screenshots FOLDER] [--only flows|pages]
//         [--kernel FILE --initramfs FILE] [--name-server ADDRESS] [--time-servers NAMES --clock-follows] [--looks light,dark,phone,chinese]
//
// Without --url it starts the developer's server (`tessera-hostd-dev`, which has a simulated host) and ends it afterwards. A host that runs machines
// boots the kernel, whose initramfs has to give a shell that says "Type commands" (build/guests/initramfs.cpio).
import { spawn } from "node:child_process";
import { mkdirSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { launch, repository } from "./browser.mjs";
import { runFlows } from "./flows.mjs";
import { findThings, makeThings, testDialogs, testFirstLoad, testPages, testThousand } from "./pages.mjs";

const { values } = parseArgs({
  options: {
    url: { type: "string" },
    user: { type: "string", default: "root" },
    password: { type: "string" },
    screenshots: { type: "string" },
    only: { type: "string" },
    kernel: { type: "string" },
    initramfs: { type: "string" },
    "name-server": { type: "string", default: "192.0.2.53" },
    "time-servers": { type: "string", default: "192.0.2.1, ntp.example.org" },
    "clock-follows": { type: "boolean", default: false },
    looks: { type: "string", default: "light,dark,phone,chinese" },
  },
});

const freePort = () =>
  new Promise((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });

/** Starts the developer's server on a free port; answers once it does. */
async function startServer() {
  const port = await freePort();
  const password = "only-for-the-tests-1";
  const program = process.env.TESSERA_HOSTD_DEV ?? join(repository, process.env.CARGO_TARGET_DIR ?? "target", "debug/tessera-hostd-dev");
  const child = spawn(program, ["--port", String(port), "--password", password, "--web", join(repository, "hostd-server/web/dist")], {
    stdio: ["ignore", "inherit", "inherit"],
  });
  const failed = new Promise((_, reject) => {
    child.on("error", reject);
    child.on("exit", (code) => reject(new Error(`${program} ended with ${code}`)));
  });
  failed.catch(() => undefined);
  // The certificate is the server's own, made when it started.
  process.removeAllListeners("warning");
  process.env.NODE_TLS_REJECT_UNAUTHORIZED = "0";
  for (let attempt = 0; ; attempt++) {
    for (const scheme of ["https", "http"]) {
      const url = `${scheme}://127.0.0.1:${port}`;
      const response = await Promise.race([fetch(`${url}/`).catch(() => null), failed]);
      if (response?.ok) return { url, password, stop: () => child.kill() };
    }
    if (attempt > 100) throw new Error(`${program} does not answer`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

let failures = 0;
async function report(name, test, page) {
  const begin = Date.now();
  try {
    const more = await test();
    console.log(`  ok    ${name} (${((Date.now() - begin) / 1000).toFixed(1)} s)${more ? `: ${more}` : ""}`);
  } catch (failure) {
    failures += 1;
    console.log(`  FAIL  ${name}\n${String(failure.message ?? failure).replace(/^/gm, "        ")}`);
    if (page && values.screenshots) await page.screenshot({ path: join(values.screenshots, `failed-${failures}.png`) });
  }
}

if (values.screenshots) mkdirSync(values.screenshots, { recursive: true });
const server = values.url
  ? { url: values.url.replace(/\/$/, ""), password: values.password ?? "", stop: () => undefined }
  : await startServer();
const host = {
  url: server.url,
  user: values.user,
  password: server.password,
  files: values.kernel && values.initramfs ? { kernel: values.kernel, initramfs: values.initramfs } : null,
  nameServer: values["name-server"],
  timeServers: values["time-servers"],
  clockFollows: values["clock-follows"],
};
const browser = await launch();
try {
  const made = values.only === "pages" ? {} : await runFlows(browser, host, report, values.screenshots);
  if (values.only !== "flows") {
    if (!made.vm && !values.url) await makeThings(browser, host);
    const things = { ...(await findThings(browser, host)), ...made };
    await report("the first load is small and asks nobody else", () => testFirstLoad(browser, host));
    await report("1,000 machines are drawn within a second", () => testThousand(browser, host));
    await report("every page, in each look", () => testPages(browser, host, things, values.looks.split(","), values.screenshots));
    await report("every dialog, in each look", () => testDialogs(browser, host, things, values.looks.split(","), values.screenshots));
  }
} finally {
  await browser.close();
  server.stop();
}
console.log(failures === 0 ? "The Host Client holds." : `${failures} failed.`);
process.exitCode = failures === 0 ? 0 : 1;
