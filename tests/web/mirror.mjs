// A mirror of Debian's packages for an installer, at 127.0.0.1: what it is asked for it fetches from another mirror and keeps. It serves the answers to the installer's questions as well, and is told by the machine how far it is.
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { dirname, join } from "node:path";

/** Sources with their versions in an earlier point release: a mirror may have those components of the installer where it lacks what its list names. */
const EARLIER = {
  busybox: "1.37.0-6+b8",
  e2fsprogs: "1.47.2-3+b11",
  expat: "2.7.1-2",
  "glib2.0": "2.84.4-3~deb13u3",
  glibc: "2.41-12+deb13u3",
  gnupg2: "2.4.7-21+deb13u1+b4",
  libcap2: "2.75-10+deb13u1+b1",
  "ntfs-3g": "2022.10.3-5+deb13u1",
  openssl: "3.5.6-1~deb13u2",
  pcre2: "10.46-1~deb13u1",
  "util-linux": "2.41-5",
  xfsprogs: "6.13.0-2+b1",
};
const COMPONENTS = "main/debian-installer/binary-amd64/Packages";
/** The most that a package may have. */
const MOST = 1 << 30;

const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");

/** Begins to serve. `answers` makes the file of answers from the mirror's port. `folder` keeps what was fetched. */
export async function mirror({ upstream, folder, suite, answers }) {
  const events = new Map();
  const told = (name) => {
    const event = events.get(name) ?? deferred();
    events.set(name, event);
    return event;
  };
  let requests = 0;
  const missing = [];

  /** A file of the mirror; null: it has none. Lists are fetched once for each mirror, packages once. */
  const lists = new Map();
  async function file(path) {
    if (lists.has(path)) return lists.get(path);
    const kept = join(folder, path);
    if (path.startsWith("pool/") && existsSync(kept)) return readFileSync(kept);
    const answer = await fetch(`${upstream}/${path.split("/").map(encodeURIComponent).join("/")}`);
    if (!answer.ok || Number(answer.headers.get("content-length")) > MOST) return null;
    const bytes = Buffer.from(await answer.arrayBuffer());
    if (path.startsWith("pool/")) {
      mkdirSync(dirname(kept), { recursive: true });
      writeFileSync(`${kept}.part`, bytes);
      renameSync(`${kept}.part`, kept);
    } else {
      lists.set(path, bytes);
    }
    return bytes;
  }

  /** An entry of the list, of a file that is there where that is known. */
  async function present(entry) {
    const listed = entry.match(/^Filename: (pool\/[^/]*\/[^/]*\/([^/]*)\/[^_]*)_[^_]*(_.*)$/m);
    const version = listed && EARLIER[listed[2]];
    if (!version || (await file(listed[0].slice(10)))) return entry;
    const path = `${listed[1]}_${version}${listed[3]}`;
    const bytes = await file(path);
    if (!bytes) return entry;
    return entry
      .replace(/^Version: .*$/m, `Version: ${version}`)
      .replace(/^Filename: .*$/m, `Filename: ${path}`)
      .replace(/^Size: .*$/m, `Size: ${bytes.length}`)
      .replace(/^MD5sum: .*$/m, `MD5sum: ${createHash("md5").update(bytes).digest("hex")}`)
      .replace(/^SHA256: .*$/m, `SHA256: ${sha256(bytes)}`);
  }

  /** The list of the installer's components with those that are there, as a suite of its own: the suite's own stays as it is signed. */
  async function components() {
    const packed = await file(`dists/${suite}/${COMPONENTS}.xz`);
    if (!packed) throw new Error(`${upstream} has no suite ${suite}`);
    const entries = execFileSync("xz", ["-dc"], { input: packed, maxBuffer: 1 << 26 })
      .toString()
      .split("\n\n");
    const list = [];
    for (const entry of entries) list.push(await present(entry));
    const bytes = Buffer.from(list.join("\n\n"));
    const release = `Origin: Debian\nSuite: installer\nCodename: installer\nComponents: main\nSHA256:\n ${sha256(bytes)} ${bytes.length} ${COMPONENTS}\n`;
    lists.set("dists/installer/Release", Buffer.from(release));
    lists.set(`dists/installer/${COMPONENTS}`, bytes);
  }

  async function answer(path) {
    if (path === "/answers") {
      told("answers").resolve();
      return Buffer.from(answers(server.address().port));
    }
    const event = path.match(/^\/event\/([a-z]+)$/);
    if (event) {
      told(event[1]).resolve();
      return Buffer.alloc(0);
    }
    // Nothing but names: no way out of the folder.
    const name = path.match(/^\/debian\/((?:[A-Za-z0-9+~:_-][A-Za-z0-9.+~:_-]*\/)*[A-Za-z0-9+~:_-][A-Za-z0-9.+~:_-]*)$/);
    return name ? await file(name[1]) : null;
  }

  await components();
  const server = createServer((request, response) => {
    requests += 1;
    answer(decodeURIComponent(new URL(request.url, "http://mirror").pathname))
      .catch(() => null)
      .then((bytes) => {
        if (!bytes) missing.push(request.url);
        response.writeHead(bytes ? 200 : 404, { "content-length": bytes?.length ?? 0 });
        response.end(request.method === "HEAD" ? undefined : bytes);
      });
  });
  await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
  return {
    port: server.address().port,
    /** Whether the machine told of something, or has fetched its `answers`. */
    event: (name) => told(name).promise,
    requests: () => requests,
    /** What it was asked for and has not. */
    missing: () => missing,
    close: () => server.close(),
  };
}

function deferred() {
  const made = {};
  made.promise = new Promise((resolve) => {
    made.resolve = resolve;
  });
  return made;
}
