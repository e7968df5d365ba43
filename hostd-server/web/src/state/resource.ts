/** One thing of the host for one page: fetched when the page opens, again when the host says that it changed, and on request. */
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { message } from "../api/client";
import { changes } from "./inventory";

export interface Resource<T> {
  data: T | undefined;
  error: string | null;
  reload: () => Promise<void>;
}

export function useResource<T>(
  load: () => Promise<T>,
  on: unknown[],
  { kind, seconds }: { kind?: string; seconds?: number } = {},
): Resource<T> {
  const [data, setData] = useState<T>();
  const [error, setError] = useState<string | null>(null);
  const turn = useRef(0);
  const version = kind ? changes.value[kind] : 0;
  // biome-ignore lint/correctness/useExhaustiveDependencies: `on` names what `load` depends on
  const reload = useCallback(async () => {
    const mine = ++turn.current;
    try {
      const next = await load();
      // An answer that was overtaken by a later one is old.
      if (mine === turn.current) {
        setData(() => next);
        setError(null);
      }
    } catch (failure) {
      if (mine === turn.current) setError(message(failure));
    }
  }, on);
  // biome-ignore lint/correctness/useExhaustiveDependencies: a change is a reason to fetch again
  useEffect(() => {
    void reload();
  }, [reload, version]);
  useEffect(() => {
    if (!seconds) return;
    const timer = setInterval(() => !document.hidden && void reload(), seconds * 1000);
    return () => clearInterval(timer);
  }, [reload, seconds]);
  return { data, error, reload };
}
