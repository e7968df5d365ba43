// @vitest-environment node
import { readFileSync, readdirSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { en } from "../src/i18n/en";
import { zhCN } from "../src/i18n/zh-CN";

const source = readdirSync("src", { recursive: true, encoding: "utf8" })
  .filter((name) => /\.tsx?$/.test(name) && !name.startsWith("i18n"))
  .map((name) => readFileSync(`src/${name}`, "utf8"))
  .join("\n");
const parameters = (message: string) => [...new Set([...message.matchAll(/\{(\w+)/g)].map((match) => match[1]))].sort();

describe("the catalogues", () => {
  it("have the same messages", () => {
    expect(Object.keys(zhCN).sort()).toEqual(Object.keys(en).sort());
  });

  it("take the same parameters, and say something", () => {
    for (const [key, message] of Object.entries(en)) {
      const other = zhCN[key as keyof typeof en];
      expect(parameters(other), key).toEqual(parameters(message));
      expect(message.trim() && other.trim(), key).toBeTruthy();
    }
  });

  it("are translated, but for names", () => {
    const same = Object.entries(en).filter(([key, message]) => zhCN[key as keyof typeof en] === message);
    for (const [key] of same)
      expect(key).toMatch(/^(os\.|cpu$|chart\.cpu|counter\.cpu|nic\.speed|vm\.boot\.(bios|uefi)|vm\.(controller|model)\.|group\.vlan$)/);
  });

  it("have no message that no page uses", () => {
    // Families are looked up by a value of the host, or by a template.
    const families = [...source.matchAll(/(?:tOr\("|t\(`)(\w+(?:\.\w+)*)(?=["`.$])/g)].map((match) => `${match[1]!.replace(/\.$/, "")}.`);
    const templates = ["maintenance.", "lockdown."];
    const unused = Object.keys(en).filter(
      (key) => !source.includes(`"${key}"`) && ![...families, ...templates].some((family) => key.startsWith(family)),
    );
    expect(unused).toEqual([]);
  });
});
