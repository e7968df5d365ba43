/** The frame around every page, and which page stands in it. */
import type { ComponentType } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { api } from "./api";
import { ApiError, enter, reachable, user } from "./api/client";
import { Head } from "./frame/head";
import { Navigator } from "./frame/navigator";
import { TaskPanel } from "./frame/tasks";
import { t } from "./i18n";
import { Login } from "./pages/login";
import { Overview } from "./pages/overview";
import { VmPage } from "./pages/vm";
import { Vms } from "./pages/vms";
import { path } from "./router";
import { forget, startInventory } from "./state/inventory";
import { Notice, PageHead, Spinner } from "./ui/basic";
import { Asked, Toasts } from "./ui/dialog";

/** Pages that are fetched when they are first opened. */
function lazy(load: () => Promise<ComponentType>): ComponentType {
  let loaded: ComponentType | null = null;
  return function Lazy() {
    const [, drawn] = useState(loaded !== null);
    const [failed, setFailed] = useState(false);
    // biome-ignore lint/correctness/useExhaustiveDependencies: it is fetched once
    useEffect(() => {
      if (loaded) return;
      load().then(
        (page) => {
          loaded = page;
          drawn(true);
        },
        () => setFailed(true),
      );
    }, []);
    if (failed) return <Notice tone="danger">{t("error.unreachable")}</Notice>;
    const Page = loaded;
    return Page ? <Page /> : <Spinner />;
  };
}

const PAGES: Record<string, ComponentType> = {
  host: Overview,
  storage: lazy(() => import("./pages/storage").then((module) => module.Storage)),
  networking: lazy(() => import("./pages/networking").then((module) => module.Networking)),
  monitor: lazy(() => import("./pages/monitor").then((module) => module.Monitor)),
  manage: lazy(() => import("./pages/manage").then((module) => module.Manage)),
  security: lazy(() => import("./pages/security").then((module) => module.Security)),
  servers: lazy(() => import("./pages/servers").then((module) => module.Servers)),
};
const ConsoleWindow = lazy(() => import("./pages/console").then((module) => module.ConsoleWindow));
const ScreenWindow = lazy(() => import("./pages/screen").then((module) => module.ScreenWindow));

function Page() {
  const [section = "host", which] = path.value;
  if (section === "vms") return which ? <VmPage key={which} id={which} /> : <Vms />;
  const Found = PAGES[section];
  return Found ? <Found key={section} /> : <PageHead icon="search" title={t("error.noPage")} />;
}

export function App() {
  const main = useRef<HTMLElement>(null);
  const [navigating, setNavigating] = useState(false);
  const who = user.value;
  const here = path.value.slice(0, 2).join("/");

  useEffect(() => {
    api.session().then(enter, (failure) => {
      user.value = null;
      reachable.value = failure instanceof ApiError && failure.status !== 0;
    });
  }, []);
  useEffect(() => {
    if (who) startInventory();
    else forget();
  }, [who]);
  // biome-ignore lint/correctness/useExhaustiveDependencies: a new page begins at its top, and readers of the screen begin there too
  useEffect(() => {
    setNavigating(false);
    main.current?.scrollTo(0, 0);
    main.current?.focus({ preventScroll: true });
  }, [here]);

  if (who === undefined) return <Spinner />;
  if (who === null)
    return (
      <>
        <Login />
        <Toasts />
      </>
    );
  if (path.value[0] === "console")
    return (
      <>
        <ConsoleWindow />
        <Toasts />
      </>
    );
  if (path.value[0] === "screen")
    return (
      <>
        <ScreenWindow />
        <Toasts />
      </>
    );
  return (
    <div class="frame">
      <a
        class="skip"
        href="#main"
        onClick={(event) => {
          event.preventDefault();
          main.current?.focus();
        }}
      >
        {t("skip")}
      </a>
      <Head navigating={navigating} onNavigate={() => setNavigating(!navigating)} />
      <Navigator open={navigating} />
      {navigating && <button type="button" class="scrim" aria-label={t("close")} onClick={() => setNavigating(false)} />}
      <main class="main" id="main" tabIndex={-1} ref={main}>
        {!reachable.value && (
          <div style={{ marginBottom: "16px" }}>
            <Notice tone="danger">{t("error.unreachable")}</Notice>
          </div>
        )}
        <Page />
      </main>
      <TaskPanel />
      <Asked />
      <Toasts />
    </div>
  );
}
