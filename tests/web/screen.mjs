// Boots a machine from a CD image in the browser alone: uploads it, makes the machine, opens its screen, and answers an installer's first question by the keyboard.
//
//     node tests/web/screen.mjs --url https://127.0.0.1:8443 --password PASSWORD --iso FILE [--firmware bios,uefi] [--minutes 10] --screenshots FOLDER
import { parseArgs } from "node:util";
import { check, launch, logIn, open, visit } from "./browser.mjs";
import { machines, timed } from "./machine.mjs";

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

async function boot(page, { sees, shot, start, focus, powerOff }, firmware) {
  const vm = await start(firmware);
  const before = await sees("the installer", (seen) => seen.blue > 0.15 && seen.grey > 0.15);
  // The last of it may still be on its way.
  await page.waitForTimeout(3000);
  await shot(`${firmware}-2-installer`);
  await focus();
  await page.keyboard.press("ArrowDown");
  const moved = await sees("the chosen line moving", (seen) => seen.sum !== before.sum);
  await page.waitForTimeout(2000);
  await shot(`${firmware}-3-next-language`);
  await page.keyboard.press("ArrowUp");
  await page.waitForTimeout(2000);
  await page.keyboard.press("Enter");
  await sees("the next question", (seen) => seen.sum !== before.sum && seen.sum !== moved.sum && seen.grey > 0.1);
  await page.waitForTimeout(5000);
  await shot(`${firmware}-4-location`);
  await visit(page, values.url, `/vms/${vm}`);
  await page.waitForTimeout(5000);
  await shot(`${firmware}-5-machine`);
  await powerOff(vm);
}

const browser = await launch();
const { page, problems } = await open(browser);
const all = machines(page, values);
try {
  await logIn(page, values);
  await timed("upload", all.upload);
  for (const firmware of values.firmware.split(","))
    await timed(`${firmware}: the installer on the screen answers to the keyboard`, () => boot(page, all, firmware));
  check(problems.length === 0, `the pages' scripts complain: ${problems.join("; ")}`);
} catch (failure) {
  await all.shot("failed");
  console.log(`  FAIL  ${failure.message}`);
  process.exitCode = 1;
} finally {
  await browser.close();
}
