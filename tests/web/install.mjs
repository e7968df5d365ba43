// Installs Debian from its installer's CD image in the browser alone: uploads it, makes the machine, types at the boot loader and answers the first questions at its screen, and has a file of answers for the later ones. Then sets up nginx in the installed system and fetches its page from outside.
//
//     node tests/web/install.mjs --url https://127.0.0.1:8443 --password PASSWORD --iso FILE --mirror http://deb.debian.org/debian --kept FOLDER --page http://127.0.0.1:8080/ --screenshots FOLDER
import { basename } from "node:path";
import { parseArgs } from "node:util";
import { check, launch, logIn, open, visit } from "./browser.mjs";
import { button, isDialog, machines, timed } from "./machine.mjs";
import { mirror } from "./mirror.mjs";

const { values } = parseArgs({
  options: {
    url: { type: "string" },
    user: { type: "string", default: "root" },
    password: { type: "string" },
    iso: { type: "string" },
    firmware: { type: "string", default: "bios" },
    suite: { type: "string", default: "trixie" },
    mirror: { type: "string" },
    kept: { type: "string" },
    page: { type: "string" },
    memory: { type: "string" },
    // A machine that was installed already, whose page alone is wanted.
    installed: { type: "string" },
    minutes: { type: "string", default: "180" },
    screenshots: { type: "string" },
  },
});
/** This machine, as guests see it. */
const HOST = "10.0.2.2";
/** Root's in the installed system. */
const PASSWORD = "tessera";

/** Partitions for UEFI: the installer's own recipe leaves a disk of 8 GiB no room for swap and then fails. */
const WITH_UEFI =
  "system :: 512 512 512 free $iflabel{ gpt } $reusemethod{ } method{ efi } format{ } . 2000 10000 -1 ext4 $primary{ } method{ format } format{ } use_filesystem{ } filesystem{ ext4 } mountpoint{ / } .";

/** Answers to what comes behind the first questions. */
const answers = (port) => `
d-i mirror/country string manual
d-i mirror/protocol select http
d-i mirror/http/hostname string ${HOST}:${port}
d-i mirror/http/directory string /debian
d-i mirror/http/proxy string
d-i mirror/suite string ${values.suite}
d-i mirror/udeb/suite string installer
d-i debian-installer/allow_unauthenticated boolean true
d-i passwd/make-user boolean false
d-i passwd/root-password password ${PASSWORD}
d-i passwd/root-password-again password ${PASSWORD}
d-i clock-setup/utc boolean true
d-i clock-setup/ntp boolean false
d-i time/zone string UTC
d-i partman-auto/disk string /dev/vda
d-i partman-auto/method string regular
${values.firmware === "uefi" ? `d-i partman-auto/expert_recipe string ${WITH_UEFI}` : "d-i partman-auto/choose_recipe select atomic"}
d-i partman-partitioning/confirm_write_new_label boolean true
d-i partman/choose_partition select finish
d-i partman/confirm boolean true
d-i partman/confirm_nooverwrite boolean true
d-i partman-basicfilesystems/no_swap boolean false
d-i base-installer/install-recommends boolean false
d-i base-installer/initramfs-tools/driver-policy select dep
d-i apt-setup/services-select multiselect
d-i apt-setup/cdrom/set-first boolean false
d-i apt-setup/disable-cdrom-entries boolean true
d-i apt-setup/enable-source-repositories boolean false
d-i pkgsel/run_tasksel boolean false
d-i pkgsel/upgrade select none
d-i pkgsel/update-policy select none
popularity-contest popularity-contest/participate boolean false
d-i grub-installer/only_debian boolean true
d-i grub-installer/with_other_os boolean false
d-i grub-installer/bootdev string /dev/vda
d-i finish-install/reboot_in_progress note
d-i cdrom-detect/eject boolean false
d-i preseed/late_command string wget -q -O /dev/null http://${HOST}:${port}/event/installed
`;

const browser = await launch();
const { page, problems } = await open(browser);
const { sees, settles, shot, upload, start, look, focus, powerOff } = machines(page, values);
const packages = await mirror({ upstream: values.mirror, folder: values.kept, suite: values.suite, answers });
const { firmware } = values;

/** What is typed with Shift on the American keyboard that a firmware knows: Playwright sends the key without it. */
const SHIFTED = { ":": ";", "&": "7", "<": ",", ">": ".", _: "-", '"': "'" };

/** Types as people do. */
async function slowly(text) {
  for (const character of text) {
    const key = character === "\n" ? "Enter" : SHIFTED[character];
    if (SHIFTED[character]) await page.keyboard.down("Shift");
    await page.keyboard.press(key ?? character, { delay: 30 });
    if (SHIFTED[character]) await page.keyboard.up("Shift");
    await page.waitForTimeout(40);
  }
}

/** Whether something is so within so many seconds. */
const within = (seconds, promise) => Promise.race([promise.then(() => true), page.waitForTimeout(seconds * 1000).then(() => false)]);

/** Types the kernel's line at GRUB, as one who has answers for an installer does. */
async function typeAtLoader() {
  await sees("the boot loader's menu", (seen) => seen.grey > 0.02 && seen.blue < 0.05);
  await settles(2, 20);
  await shot(`${firmware}-2-loader`);
  await focus();
  await page.keyboard.press("c");
  await settles(2, 30);
  await slowly(`linux /linux vga=normal fb=false hostname=installed domain= url=http://${HOST}:${packages.port}/answers --- quiet\n`);
  await settles(3, 60);
  await slowly("initrd /initrd.gz\n");
  await settles(3, 60);
  await shot(`${firmware}-3-typed`);
  await slowly("boot\n");
}

/** Answers what is asked at the screen, until the machine has fetched the other answers. */
async function answerQuestions() {
  await sees("the installer", isDialog);
  for (let question = 1; !(await within(0.1, packages.event("answers"))); ) {
    const seen = await settles(8, 60);
    if (!seen || !isDialog(seen)) continue;
    check(question < 20, "the installer asks more than it should");
    await shot(`${firmware}-4-question-${question}`);
    await page.keyboard.press("Enter");
    question += 1;
    await within(5, packages.event("answers"));
  }
}

/** Waits for the end of the installation, with a picture whenever the screen is another after some minutes. */
async function install(vm) {
  const done = packages.event("installed");
  for (let picture = 1; !(await within(120, done)); picture += 1) {
    check(
      picture * 2 < Number(values.minutes),
      `the installation has not ended after ${values.minutes} minutes; the mirror was asked ${packages.requests()} times and has not: ${packages.missing().join(" ")}`,
    );
    await shot(`${firmware}-5-installing-${String(picture).padStart(2, "0")}`);
    if (picture === 6) await takeOutMedium(vm);
  }
  await shot(`${firmware}-6-installed`);
}

/** Takes the CD image out while the machine runs, and looks at what it does meanwhile. */
async function takeOutMedium(vm) {
  await visit(page, values.url, `/vms/${vm}`);
  await button(page, "Eject").click();
  await page.getByText("The drive is empty").waitFor({ timeout: 60_000 });
  await shot(`${firmware}-5-machine`);
  await page
    .getByRole("link", { name: "Monitor" })
    .or(page.getByRole("tab", { name: "Monitor" }))
    .first()
    .click();
  await page.waitForTimeout(10_000);
  await shot(`${firmware}-5-monitor`);
  await look(vm);
}

const pageFromOutside = async () => {
  try {
    const answer = await fetch(values.page, { signal: AbortSignal.timeout(10_000) });
    return answer.ok ? await answer.text() : null;
  } catch {
    return null;
  }
};

/** Logs in at the screen of the installed system and sets up nginx, until its page is there. A system that starts stands still now and then long before it asks who is there, so whoever types too early types again. */
async function setUpNginx(vm) {
  await look(vm);
  await sees("a text console", (seen) => seen.black > 0.8 && seen.blue < 0.05);
  let text = null;
  for (let attempt = 1; !text; attempt += 1) {
    check(attempt <= 10, "nobody could log in and set up nginx");
    await settles(20, 300);
    await shot(`${firmware}-7-booted-${attempt}`);
    await focus();
    await slowly("root\n");
    // A login that waits for longer than a minute begins anew.
    await settles(6, 30);
    await slowly(`${PASSWORD}\n`);
    await settles(6, 60);
    await shot(`${firmware}-8-logged-in-${attempt}`);
    await slowly("apt-get update; apt-get install -y nginx-light\n");
    for (const end = Date.now() + 3 * 60_000; !text && Date.now() < end; await page.waitForTimeout(5000)) text = await pageFromOutside();
  }
  await settles(5, 60);
  await shot(`${firmware}-9-nginx`);
  check(text.includes("nginx"), `the page that nginx serves is ${text}`);
}

async function installAnew() {
  await timed(`upload of ${basename(values.iso)}`, upload);
  const vm = await timed("a machine made and started", () => start(firmware));
  await timed("the boot loader's command line", typeAtLoader);
  await timed("the first questions", answerQuestions);
  await timed("the installation", () => install(vm));
  return vm;
}

async function startAgain() {
  await visit(page, values.url, "/vms");
  await page.locator("main").getByRole("link", { name: values.installed }).click();
  await button(page, "Power on").click();
  await page.locator(".page-head .badge", { hasText: "Powered on" }).waitFor({ timeout: 120_000 });
  return decodeURIComponent(page.url().split("/").pop());
}

try {
  await logIn(page, values);
  const vm = values.installed ? await startAgain() : await installAnew();
  await timed("the installed system and its nginx", () => setUpNginx(vm));
  await visit(page, values.url, `/vms/${vm}`);
  await page.waitForTimeout(5000);
  await shot(`${firmware}-10-machine`);
  await powerOff(vm);
  check(problems.length === 0, `the pages' scripts complain: ${problems.join("; ")}`);
} catch (failure) {
  console.log(`  FAIL  ${failure.message}; the mirror has not: ${packages.missing().join(" ")}`);
  process.exitCode = 1;
  await shot("failed");
} finally {
  packages.close();
  await browser.close();
}
