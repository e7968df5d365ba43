// The browser that the pages are tested in, and what the tests need of it.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

const require = createRequire(new URL("../../hostd-server/web/package.json", import.meta.url));
const { chromium } = require("playwright-core");
const { default: AxeBuilder } = require("@axe-core/playwright");

export const repository = fileURLToPath(new URL("../..", import.meta.url));

/** What a test says when something is not as it must be. */
export function check(right, what) {
  if (!right) throw new Error(what);
}

/** Waits until `holds` does in the page. (Playwright's own wait makes code out of text, which the pages' policy forbids.) */
export async function until(page, holds, argument, seconds = 15) {
  for (const end = Date.now() + seconds * 1000; Date.now() < end; ) {
    if (await page.evaluate(holds, argument)) return;
    await page.waitForTimeout(50);
  }
  throw new Error(`after ${seconds} s this does not hold: ${holds}`);
}

export function launch() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    // A container has neither what the sandbox needs nor a large /dev/shm; the pages come from a server of the test itself.
    args: ["--no-sandbox", "--disable-dev-shm-usage"],
  });
}

export const looks = {
  light: { viewport: { width: 1360, height: 850 }, locale: "en-US", colorScheme: "light" },
  dark: { viewport: { width: 1360, height: 850 }, locale: "en-US", colorScheme: "dark" },
  phone: { viewport: { width: 390, height: 844 }, locale: "en-US", colorScheme: "light", hasTouch: true },
  chinese: { viewport: { width: 1360, height: 850 }, locale: "zh-CN", colorScheme: "light" },
};

/** The pages' texts in a language, by their keys. */
export function messages(locale) {
  const file = `${repository}/hostd-server/web/src/i18n/${locale.startsWith("zh") ? "zh-CN" : "en"}.ts`;
  const found = readFileSync(file, "utf8").matchAll(/^ {2}"?([\w.]+)"?:\s+("(?:[^"\\]|\\.)*")/gm);
  return Object.fromEntries([...found].map(([, key, text]) => [key, JSON.parse(text)]));
}

/** A page in a session of its own; what goes wrong in its scripts is collected in `problems`. */
export async function open(browser, look = looks.light) {
  const context = await browser.newContext({
    ...look,
    ignoreHTTPSErrors: true,
    reducedMotion: "reduce",
    permissions: ["clipboard-read", "clipboard-write"],
  });
  const page = await context.newPage();
  const problems = [];
  page.on("pageerror", (error) => problems.push(error.message));
  page.on("console", (message) => {
    // The browser reports each refused request itself; refusals are answers that the tests ask for.
    if (message.type() === "error" && !/Failed to load resource|WebSocket connection/.test(message.text())) problems.push(message.text());
  });
  page.setDefaultTimeout(15_000);
  return { context, page, problems };
}

export async function logIn(page, { url, user, password }) {
  await page.goto(url);
  await page.locator("input[name=user]").fill(user);
  await page.locator("input[name=password]").fill(password);
  await page.keyboard.press("Enter");
  await page.locator(".frame").waitFor();
}

/** Goes to a page by its fragment and waits until it has its data. */
export async function visit(page, url, fragment) {
  await page.goto(`${url}/#${fragment}`);
  await page.locator("h1").first().waitFor();
  await until(page, () => !document.querySelector("main .spinner"));
}

/** What axe finds wrong with the page as it is. */
export async function axe(page) {
  const { violations } = await new AxeBuilder({ page }).analyze();
  return violations.flatMap(({ id, nodes }) => nodes.map((node) => `${id}: ${node.target.join(" ")} ${node.html.slice(0, 120)}`));
}
