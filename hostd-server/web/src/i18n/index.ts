/** The languages: English is part of the first load, others are fetched when they are chosen. */
import { signal } from "@preact/signals";
import { en } from "./en";

export type MessageKey = keyof typeof en;
export type Messages = Record<MessageKey, string>;
export type Language = "en" | "zh-CN";
export const LANGUAGES: Record<Language, string> = { en: "English", "zh-CN": "简体中文" };

const STORED = "tessera.language";
export const language = signal<Language>("en");
const messages = signal<Messages>(en);

function preferred(): Language {
  const stored = localStorage.getItem(STORED);
  if (stored === "en" || stored === "zh-CN") return stored;
  return navigator.languages.some((name) => /^zh\b/i.test(name)) && !/^en\b/i.test(navigator.language) ? "zh-CN" : "en";
}

export async function setLanguage(next: Language, keep = true): Promise<void> {
  messages.value = next === "zh-CN" ? (await import("./zh-CN")).zhCN : en;
  language.value = next;
  document.documentElement.lang = next;
  if (keep) localStorage.setItem(STORED, next);
}

export const startLanguage = (): Promise<void> => setLanguage(preferred(), false);

/** The message in the chosen language; `{name}` in it is replaced by the parameter of that name, `{name|one|many}` by the word that its number takes. */
export function t(key: MessageKey, parameters?: Record<string, string | number>): string {
  const message = messages.value[key];
  if (!parameters) return message;
  return message.replace(/\{(\w+)(?:\|([^|}]*)\|([^}]*))?\}/g, (whole, name: string, one?: string, many?: string) => {
    const value = parameters[name];
    if (one === undefined || many === undefined) return String(value ?? whole);
    return new Intl.PluralRules(language.value).select(Number(value)) === "one" ? one : many;
  });
}

/** The message named `prefix.value` where the catalogue has one; otherwise the value itself, for what a newer host may say. */
export function tOr(prefix: string, value: string): string {
  const key = `${prefix}.${value}`;
  return key in messages.value ? messages.value[key as MessageKey] : value;
}
