// A machine with firmware as people make one in the browser: its CD image uploaded, the machine made, its screen looked at.
import { mkdirSync } from "node:fs";
import { basename, join } from "node:path";
import { visit } from "./browser.mjs";

export const button = (page, name) => page.getByRole("button", { name, exact: true });

/** Shares of the screen's pixels that are black, blue, and light grey, and a number made of all of them. */
function colours(page) {
  return page.evaluate(() => {
    const canvas = document.querySelector(".console canvas");
    if (!canvas?.width) return null;
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    const count = { black: 0, blue: 0, grey: 0, width: canvas.width, height: canvas.height, sum: 0 };
    for (let at = 0; at < data.length; at += 4) {
      const [red, green, blue] = [data[at], data[at + 1], data[at + 2]];
      if (red + green + blue < 24) count.black += 1;
      else if (blue > 120 && red < 60 && green < 60) count.blue += 1;
      else if (red > 140 && Math.abs(red - green) < 16 && Math.abs(green - blue) < 16) count.grey += 1;
      count.sum = (Math.imul(count.sum, 31) + (red << 16) + (green << 8) + blue) | 0;
    }
    for (const name of ["black", "blue", "grey"]) count[name] /= data.length / 4;
    return count;
  });
}

/** Of a dialog of Debian's installer as text. */
export const isDialog = (seen) => seen.blue > 0.15 && seen.grey > 0.1;

/** But for a cursor that blinks. */
const isSame = (one, other) => ["black", "blue", "grey"].every((name) => Math.abs(one[name] - other[name]) < 0.0001);

/** What a test does with machines; `values` are its options. */
export function machines(page, values) {
  const patience = Number(values.minutes) * 60_000;

  /** Waits until the screen's colours are as wanted. */
  async function sees(what, holds) {
    let last = null;
    for (const end = Date.now() + patience; Date.now() < end; await page.waitForTimeout(1000)) {
      last = await colours(page);
      if (last && holds(last)) return last;
    }
    throw new Error(`after ${values.minutes} minutes the screen does not show ${what}: ${JSON.stringify(last)}`);
  }

  /** Waits until the screen has been the same for so many seconds, `most` at most: answers with what it shows, or null. */
  async function settles(seconds, most) {
    let [last, since] = [null, Date.now()];
    for (const end = since + most * 1000; Date.now() < end; await page.waitForTimeout(500)) {
      const seen = await colours(page);
      if (!seen || !last || !isSame(seen, last)) [last, since] = [seen, Date.now()];
      else if (Date.now() - since >= seconds * 1000) return seen;
    }
    return null;
  }

  async function shot(name) {
    if (values.screenshots) await page.screenshot({ path: join(values.screenshots, `${name}.png`) });
  }

  async function upload() {
    await visit(page, values.url, "/storage");
    await page.locator("main").getByRole("link", { name: "Browse files" }).first().click();
    await button(page, "Upload").waitFor();
    await page.locator("input[type=file]").setInputFiles(values.iso);
    await page.locator("main [role=table] [role=row]", { hasText: basename(values.iso) }).waitFor({ timeout: patience });
  }

  /** By the wizard: answers with the machine's identifier. */
  async function make(firmware) {
    await visit(page, values.url, "/vms");
    await button(page, "New virtual machine").first().click();
    const dialog = page.locator("dialog[open]").first();
    const next = () => dialog.getByRole("button", { name: "Next", exact: true }).click();
    await dialog.getByLabel("Name", { exact: true }).fill(`pc-${firmware}`);
    await next();
    // With less the installer asks for nothing but its memory, and saves some where it can.
    await dialog.getByLabel("Memory", { exact: true }).fill(values.memory ?? "1024");
    await next();
    await button(page, "Browse for CD-ROM image").click();
    await page
      .locator("dialog")
      .last()
      .getByRole("button", { name: basename(values.iso) })
      .click();
    await next();
    await next();
    await dialog.getByRole("radio", { name: firmware === "bios" ? /^BIOS/ : /^UEFI/ }).check();
    await shot(`${firmware}-0-wizard`);
    await next();
    await dialog.getByRole("button", { name: "Finish", exact: true }).click();
    await page
      .locator("main")
      .getByRole("link", { name: `pc-${firmware}` })
      .click();
    await button(page, "Power on").waitFor();
    return decodeURIComponent(page.url().split("/").pop());
  }

  /** Makes a machine, starts it, and looks at its screen: answers with its identifier. */
  async function start(firmware) {
    const vm = await make(firmware);
    await button(page, "Power on").click();
    await page.locator(".page-head .badge", { hasText: "Powered on" }).waitFor({ timeout: 120_000 });
    await look(vm);
    await sees("anything", (seen) => seen.black < 0.999 && seen.black > 0.5);
    await shot(`${firmware}-1-first`);
    return vm;
  }

  async function look(vm) {
    await visit(page, values.url, `/screen/${vm}`);
    await page.locator(".badge", { hasText: "Connected" }).waitFor({ timeout: 60_000 });
  }

  async function powerOff(vm) {
    await visit(page, values.url, `/vms/${vm}`);
    await page.locator(".page-head").getByRole("button", { name: "Actions" }).click();
    await page.getByRole("menuitem", { name: "Power off" }).click();
    await page.locator("dialog[open]").getByRole("button", { name: "Power off" }).click();
    await page.locator(".page-head .badge", { hasText: "Powered off" }).waitFor({ timeout: 60_000 });
  }

  /** The keyboard is the screen's. */
  const focus = () => page.locator(".console canvas").click({ position: { x: 5, y: 5 } });

  if (values.screenshots) mkdirSync(values.screenshots, { recursive: true });
  return { sees, settles, shot, upload, start, look, focus, powerOff };
}

/** Says how long something took. */
export async function timed(what, does) {
  const begin = Date.now();
  const answer = await does();
  console.log(`  ok    ${what} (${((Date.now() - begin) / 1000).toFixed(1)} s)`);
  return answer;
}
