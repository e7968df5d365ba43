/** The bar along the top: whose host this is, how it looks, who is logged in. */
import { useState } from "preact/hooks";
import { api } from "../api";
import { mustChangePassword, user } from "../api/client";
import { LANGUAGES, type Language, language, setLanguage, t } from "../i18n";
import { host } from "../state/inventory";
import { type Theme, dark, setTheme, theme } from "../state/theme";
import { Menu, type MenuItem, Notice } from "../ui/basic";
import { FormDialog, toast } from "../ui/dialog";
import { TextField } from "../ui/form";
import { Icon, type IconName } from "../ui/icon";

export function LookMenus() {
  const themes: [Theme, IconName][] = [
    ["system", "host"],
    ["light", "sun"],
    ["dark", "moon"],
  ];
  return (
    <>
      <Menu
        button=""
        label={t("language")}
        items={(Object.keys(LANGUAGES) as Language[]).map(
          (name): MenuItem => ({ name: LANGUAGES[name], checked: language.value === name, act: () => void setLanguage(name) }),
        )}
      >
        <Icon name="language" />
      </Menu>
      <Menu
        button=""
        label={t("theme")}
        items={themes.map(
          ([name, icon]): MenuItem => ({
            name: t(`theme.${name}` as "theme.light"),
            icon,
            checked: theme.value === name,
            act: () => setTheme(name),
          }),
        )}
      >
        <Icon name={dark.value ? "moon" : "sun"} />
      </Menu>
    </>
  );
}

export function Head({ navigating, onNavigate }: { navigating: boolean; onNavigate: () => void }) {
  const [changing, setChanging] = useState(false);
  return (
    <header class="head">
      <button type="button" class="menu-button" aria-label={t("nav.title")} aria-expanded={navigating} onClick={onNavigate}>
        <Icon name="menu" />
      </button>
      <a class="brand" href="#/">
        <img src="/favicon.svg" alt="" />
        <span>Tessera</span>
        <small class="ellipsis">{host.value?.name ?? t("hostClient")}</small>
      </a>
      <LookMenus />
      <Menu
        button=""
        label={t("account")}
        items={[
          { name: t("password.change"), icon: "key", act: () => setChanging(true) },
          "line",
          { name: t("logout"), icon: "logout", act: () => void api.logout() },
        ]}
      >
        <Icon name="user" />
        <span class="label">{user.value}</span>
        <Icon name="down" small />
      </Menu>
      {(changing || mustChangePassword.value) && (
        <ChangePassword
          forced={mustChangePassword.value}
          onClose={() => {
            setChanging(false);
            mustChangePassword.value = false;
          }}
        />
      )}
    </header>
  );
}

function ChangePassword({ forced, onClose }: { forced: boolean; onClose: () => void }) {
  const [current, setCurrent] = useState("");
  const [password, setPassword] = useState("");
  const [repeated, setRepeated] = useState("");
  return (
    <FormDialog
      title={t("password.change")}
      submit={t("save")}
      valid={current !== "" && password.length >= 8 && password === repeated}
      onClose={onClose}
      act={async () => {
        await api.changePassword(current, password);
        toast("ok", t("password.changed"));
      }}
    >
      {forced && <Notice tone="warn">{t("password.must")}</Notice>}
      <TextField
        label={t("password.current")}
        type="password"
        value={current}
        onInput={setCurrent}
        input={{ autocomplete: "current-password" }}
      />
      <TextField
        label={t("password.new")}
        type="password"
        value={password}
        onInput={setPassword}
        hint={t("password.hint")}
        input={{ autocomplete: "new-password" }}
      />
      <TextField
        label={t("password.repeat")}
        type="password"
        value={repeated}
        onInput={setRepeated}
        error={repeated && repeated !== password ? t("password.differ") : null}
        input={{ autocomplete: "new-password" }}
      />
    </FormDialog>
  );
}
