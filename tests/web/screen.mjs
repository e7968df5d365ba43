// Boots a machine from a CD image in the browser alone: uploads it, makes the machine, opens its screen, and answers an installer's first question by the keyboard.
//
//     node tests/web/screen.mjs --url https://127.0.0.1:8443 --password PASSWORD --iso FILE [--firmware bios,uefi] [--minutes 10] --screenshots FOLDER
import { mkdirSync } from "node:fs";
import { basename, join } from "node:path";
import { parseArgs } from "node:util";
import { check, launch, logIn, open, visit } from "./browser.mjs";

const { values } = parseArgs({
  options: {
    url: { type: "string" },
    user: { type: "string", default: "root" },
    password: { type: "string" },
    iso: { type: "string" },
    firmware: { type: "string", default: "bios,uefi" },
    minutes: { type: "string", default: "10" },
    screenshots: { type: "string" },
  },
});
const patience = Number(values.minutes) * 60_000;
const button = (page, name) => page.getByRole("button", { name, exact: true });

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

/** Waits until the screen's colours are as wanted. */
async function sees(page, what, holds) {
  let last = null;
  for (const end = Date.now() + patience; Date.now() < end; await page.waitForTimeout(1000)) {
    last = await colours(page);
    if (last && holds(last)) return last;
  }
  throw new Error(`after ${values.minutes} minutes the screen does not show ${what}: ${JSON.stringify(last)}`);
}

async function shot(page, name) {
  if (values.screenshots) await page.screenshot({ path: join(values.screenshots, `${name}.png`) });
}

async function upload(page) {
  await visit(page, values.url, "/storage");
  await page.locator("main").getByRole("link", { name: "Browse files" }).first().click();
  await button(page, "Upload").waitFor();
  await page.locator("input[type=file]").setInputFiles(values.iso);
  await page.locator("main [role=table] [role=row]", { hasText: basename(values.iso) }).waitFor({ timeout: patience });
}

/** By the wizard: answers with the machine's identifier. */
async function make(page, firmware) {
  await visit(page, values.url, "/vms");
  await button(page, "New virtual machine").first().click();
  const dialog = page.locator("dialog[open]").first();
  const next = () => dialog.getByRole("button", { name: "Next", exact: true }).click();
  await dialog.getByLabel("Name", { exact: true }).fill(`pc-${firmware}`);
  await next();
  // With less the installer asks for nothing but its memory.
  await dialog.getByLabel("Memory", { exact: true }).fill("1024");
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
  await shot(page, `${firmware}-0-wizard`);
  await next();
  await dialog.getByRole("button", { name: "Finish", exact: true }).click();
  await page
    .locator("main")
    .getByRole("link", { name: `pc-${firmware}` })
    .click();
  await button(page, "Power on").waitFor();
  return decodeURIComponent(page.url().split("/").pop());
}

async function boot(page, firmware) {
  const vm = await make(page, firmware);
  await button(page, "Power on").click();
  await page.locator(".page-head .badge", { hasText: "Powered on" }).waitFor({ timeout: 120_000 });
  await visit(page, values.url, `/screen/${vm}`);
  await page.locator(".badge", { hasText: "Connected" }).waitFor({ timeout: 60_000 });
  await sees(page, "anything", (seen) => seen.black < 0.999 && seen.black > 0.5);
  await shot(page, `${firmware}-1-first`);
  const before = await sees(page, "the installer", (seen) => seen.blue > 0.15 && seen.grey > 0.15);
  // The last of it may still be on its way.
  await page.waitForTimeout(3000);
  await shot(page, `${firmware}-2-installer`);
  await page.locator(".console canvas").click({ position: { x: 5, y: 5 } });
  await page.keyboard.press("ArrowDown");
  const moved = await sees(page, "the chosen line moving", (seen) => seen.sum !== before.sum);
  await page.waitForTimeout(2000);
  await shot(page, `${firmware}-3-next-language`);
  await page.keyboard.press("ArrowUp");
  await page.waitForTimeout(2000);
  await page.keyboard.press("Enter");
  await sees(page, "the next question", (seen) => seen.sum !== before.sum && seen.sum !== moved.sum && seen.grey > 0.1);
  await page.waitForTimeout(5000);
  await shot(page, `${firmware}-4-location`);
  await visit(page, values.url, `/vms/${vm}`);
  await page.waitForTimeout(5000);
  await shot(page, `${firmware}-5-machine`);
  await page.locator(".page-head").getByRole("button", { name: "Actions" }).click();
  await page.getByRole("menuitem", { name: "Power off" }).click();
  await page.locator("dialog[open]").getByRole("button", { name: "Power off" }).click();
  await page.locator(".page-head .badge", { hasText: "Powered off" }).waitFor({ timeout: 60_000 });
}

if (values.screenshots) mkdirSync(values.screenshots, { recursive: true });
const browser = await launch();
const { page, problems } = await open(browser);
try {
  await logIn(page, values);
  const timed = async (what, does) => {
    const begin = Date.now();
    await does();
    console.log(`  ok    ${what} (${((Date.now() - begin) / 1000).toFixed(1)} s)`);
  };
  await timed("upload", () => upload(page));
  for (const firmware of values.firmware.split(","))
    await timed(`${firmware}: the installer on the screen answers to the keyboard`, () => boot(page, firmware));
  check(problems.length === 0, `the pages' scripts complain: ${problems.join("; ")}`);
} catch (failure) {
  await shot(page, "failed");
  console.log(`  FAIL  ${failure.message}`);
  process.exitCode = 1;
} finally {
  await browser.close();
}
