/** The way in. */
import { useState } from "preact/hooks";
import { api } from "../api";
import { message, reachable } from "../api/client";
import { LookMenus } from "../frame/head";
import { t } from "../i18n";
import { Notice } from "../ui/basic";
import { TextField } from "../ui/form";

/** Tiles, as the thing that the product is named after was one. */
function Mosaic() {
  const tiles = [];
  for (let row = 0; row < 14; row++)
    for (let column = 0; column < 16; column++) {
      const random = Math.abs(Math.sin(row * 12.9898 + column * 78.233) * 43758.5453) % 1;
      const near = Math.max(0, 1 - Math.hypot(column - 10.5, row - 4.5) / 9);
      if (random < 0.25) continue;
      tiles.push(
        <rect
          x={column * 52 + 3}
          y={row * 52 + 3}
          width={46}
          height={46}
          rx={7}
          fill={random > 0.9 ? "#2dd4bf" : random > 0.55 ? "#38bdf8" : "#4b88b8"}
          opacity={(0.04 + near * 0.5 * random).toFixed(3)}
        />,
      );
    }
  return (
    <svg viewBox="0 0 832 728" preserveAspectRatio="xMidYMid slice" aria-hidden="true">
      {tiles}
    </svg>
  );
}

export function Login() {
  const [name, setName] = useState("root");
  const [password, setPassword] = useState("");
  const [error, setError] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const send = async (event: Event) => {
    event.preventDefault();
    if (busy) return;
    setBusy(true);
    setError(null);
    try {
      await api.login(name.trim(), password);
    } catch (failure) {
      setError(message(failure));
      setPassword("");
      setBusy(false);
    }
  };
  return (
    <div class="login">
      <div class="art" role="banner">
        <Mosaic />
        <h1>{t("login.claim")}</h1>
        <p>{t("login.text")}</p>
      </div>
      <main style={{ display: "grid", position: "relative" }}>
        <div class="corner">
          <LookMenus />
        </div>
        <form onSubmit={send} aria-label={t("login")}>
          <div class="brand">
            <img src="/favicon.svg" alt="" />
            Tessera
          </div>
          <p class="muted">{t("login.host", { host: location.host })}</p>
          {!reachable.value && <Notice tone="danger">{t("error.unreachable")}</Notice>}
          {error && <Notice tone="danger">{error}</Notice>}
          <TextField
            label={t("login.user")}
            value={name}
            onInput={setName}
            input={{ autocomplete: "username", autocapitalize: "none", required: true, name: "user" }}
          />
          <TextField
            label={t("login.password")}
            type="password"
            value={password}
            onInput={setPassword}
            input={{ autocomplete: "current-password", required: true, name: "password", autofocus: true }}
          />
          <button type="submit" class="button primary" disabled={busy}>
            {busy ? t("login.busy") : t("login")}
          </button>
          <p class="muted">{t("login.first")}</p>
        </form>
      </main>
    </div>
  );
}
