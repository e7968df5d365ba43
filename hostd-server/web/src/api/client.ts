/** How the pages speak to the host: JSON over HTTP, a session in a cookie that scripts cannot read, and a token that proves each write is ours. */
import { signal } from "@preact/signals";
import { t, tOr } from "../i18n";

export const BASE = "/api/v1";

/** What the host answered when it refused, in its own words. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    text: string,
    readonly hint?: string,
  ) {
    super(text);
  }
}

export interface Session {
  user: string;
  csrfToken: string;
  mustChangePassword: boolean;
  privileges: string[];
}

const STORED = "tessera.csrf";
/** The token outlives a reload of the page, as the cookie does, and ends with the tab. */
let csrf = sessionStorage.getItem(STORED) ?? "";
/** Who is logged in; null when nobody is, undefined until the host has said. */
export const user = signal<string | null | undefined>(undefined);
/** What they may do to the whole host; single things may allow more or less. */
export const privileges = signal<ReadonlySet<string>>(new Set());
/** Whether they may do it to the host. (What they may do to one machine alone, the host says when it is asked.) */
export const may = (privilege: string): boolean => privileges.value.has(privilege);
/** The password was given by somebody else and has to be replaced. */
export const mustChangePassword = signal(false);

/** A session has begun, or was found again. */
export function enter(session: Session): void {
  if (session.csrfToken) setCsrf(session.csrfToken);
  privileges.value = new Set(session.privileges);
  mustChangePassword.value = session.mustChangePassword;
  user.value = session.user;
}

/** Whether the host answered the last time. */
export const reachable = signal(true);

export function setCsrf(token: string): void {
  csrf = token;
  if (token) sessionStorage.setItem(STORED, token);
  else sessionStorage.removeItem(STORED);
}

export const csrfToken = (): string => csrf;

export interface Options {
  body?: unknown;
  /** The version that the change was made from (`If-Match`). */
  etag?: string | null;
  signal?: AbortSignal;
  query?: Record<string, string | number | boolean | undefined>;
}

export function url(path: string, query: Options["query"] = {}): string {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) if (value !== undefined && value !== "") search.set(name, String(value));
  const text = search.toString();
  return `${BASE}${path}${text ? `?${text}` : ""}`;
}

export interface Answer<T> {
  data: T;
  etag: string | null;
  status: number;
}

export async function refusal(response: Response): Promise<ApiError> {
  const body = (await response.json().catch(() => null)) as { code?: string; message?: string; hint?: string } | null;
  return new ApiError(
    response.status,
    body?.code ?? "unknown",
    body?.message ?? t("error.status", { status: response.status }),
    body?.hint,
  );
}

export async function send<T>(method: string, path: string, options: Options = {}): Promise<Answer<T>> {
  const headers: Record<string, string> = { Accept: "application/json" };
  if (options.body !== undefined) headers["Content-Type"] = "application/json";
  if (options.etag) headers["If-Match"] = options.etag;
  if (method !== "GET" && csrf) headers["X-CSRF-Token"] = csrf;
  let response: Response;
  try {
    response = await fetch(url(path, options.query), {
      method,
      headers,
      body: options.body === undefined ? undefined : JSON.stringify(options.body),
      signal: options.signal,
      credentials: "same-origin",
      cache: "no-store",
    });
  } catch (failure) {
    if (failure instanceof DOMException && failure.name === "AbortError") throw failure;
    reachable.value = false;
    throw new ApiError(0, "unreachable", t("error.unreachable"));
  }
  reachable.value = true;
  if (response.status === 401 && user.value) {
    setCsrf("");
    user.value = null;
  }
  if (!response.ok) throw await refusal(response);
  const text = await response.text();
  return { data: (text ? JSON.parse(text) : undefined) as T, etag: response.headers.get("ETag"), status: response.status };
}

export const get = async <T>(path: string, options?: Options): Promise<T> => (await send<T>("GET", path, options)).data;
export const post = async <T>(path: string, body: unknown = {}, options?: Options): Promise<T> =>
  (await send<T>("POST", path, { ...options, body })).data;
export const put = async <T>(path: string, body: unknown, etag?: string | null): Promise<T> =>
  (await send<T>("PUT", path, { body, etag })).data;
export const patch = async <T>(path: string, body: unknown, etag?: string | null): Promise<T> =>
  (await send<T>("PATCH", path, { body, etag })).data;
export const remove = async <T>(path: string, options?: Options): Promise<T> => (await send<T>("DELETE", path, options)).data;

interface Page<T> {
  items: T[];
  next: string | null;
}

/** Every item of a list that comes in pages, at most `most`. */
export async function list<T>(path: string, options: Options = {}, most = 10_000): Promise<T[]> {
  const items: T[] = [];
  let cursor: string | undefined;
  do {
    const page = await get<Page<T>>(path, { ...options, query: { ...options.query, cursor } });
    items.push(...page.items);
    cursor = page.next ?? undefined;
  } while (cursor && items.length < most);
  return items;
}

/** What to tell the user about a failure. */
export function message(failure: unknown): string {
  if (failure instanceof ApiError) {
    // What to do is said in the user's language where the kind of problem is known, else in the host's words.
    const known = tOr("problem", failure.code);
    const hint = known === failure.code ? failure.hint : known;
    return hint ? `${failure.message.replace(/[^.!?。]$/, "$&.")} ${hint}` : failure.message;
  }
  return failure instanceof Error ? failure.message : String(failure);
}
