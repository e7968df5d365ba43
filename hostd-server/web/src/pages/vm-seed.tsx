/** What a guest's cloud-init finds at its first start: the form, for a machine that is there and in the wizard. */
import { useState } from "preact/hooks";
import { api } from "../api";
import type { Seed, Vm } from "../api/types";
import { t } from "../i18n";
import { refresh } from "../state/inventory";
import { Notice } from "../ui/basic";
import { FormDialog, toast } from "../ui/dialog";
import { AreaField, SelectField, TextField } from "../ui/form";
import { whole } from "./whole";

export interface SeedDraft {
  /** Fields for an account, or user-data as it is. */
  kind: "account" | "own";
  /** Empty: named like the machine. */
  hostName: string;
  user: string;
  keys: string;
  password: string;
  userData: string;
  network: "dhcp" | "static";
  address: string;
  prefixLength: string;
  gateway: string;
  nameServers: string;
}

export const emptySeed: SeedDraft = {
  kind: "account",
  hostName: "",
  user: "admin",
  keys: "",
  password: "",
  userData: "#cloud-config\n",
  network: "dhcp",
  address: "",
  prefixLength: "24",
  gateway: "",
  nameServers: "",
};

/** A machine's name as a guest may have it (RFC 1123). */
export const hostNameOf = (name: string): string =>
  name
    .replace(/[^A-Za-z0-9-]+/g, "-")
    .replace(/^-+/, "")
    .slice(0, 63)
    .replace(/-+$/, "") || "guest";

const words = (text: string, between: RegExp): string[] =>
  text
    .split(between)
    .map((word) => word.trim())
    .filter((word) => word !== "");

const isAddress = (text: string): boolean => /^(\d{1,3}\.){3}\d{1,3}$/.test(text) && text.split(".").every((part) => Number(part) < 256);

/** What is wrong with it, by field. */
export function seedProblems(draft: SeedDraft, name: string): Record<string, string> {
  const found: Record<string, string> = {};
  if (!/^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$/.test(draft.hostName.trim() || hostNameOf(name)))
    found.hostName = t("seed.hostNameHint");
  if (draft.kind === "own") {
    if (!/^(#|Content-Type:|MIME-Version:)/.test(draft.userData) || draft.userData.length < 2) found.userData = t("seed.userDataHint");
  } else {
    if (!/^[a-z_][a-z0-9._-]{0,31}$/.test(draft.user)) found.user = t("seed.userHint");
    const keys = words(draft.keys, /\n/);
    if (keys.some((key) => !/^(ssh|ecdsa|sk-ssh|sk-ecdsa)-[a-z0-9@.-]+ [A-Za-z0-9+/]+=*( [ -~]*)?$/.test(key)))
      found.keys = t("seed.keysBad");
    if (draft.password !== "" && draft.password.length < 8) found.password = t("seed.passwordShort");
    else if (draft.password === "" && keys.length === 0) found.password = t("seed.noWayIn");
  }
  if (draft.network === "static") {
    const bits = whole(draft.prefixLength);
    if (!isAddress(draft.address.trim())) found.address = t("seed.addressBad");
    if (bits < 1 || bits > 32) found.prefixLength = t("seed.prefixRange");
    if (draft.gateway.trim() !== "" && !isAddress(draft.gateway.trim())) found.gateway = t("seed.addressBad");
    const servers = words(draft.nameServers, /[\s,]+/);
    if (servers.length > 3 || !servers.every(isAddress)) found.nameServers = t("seed.nameServersBad");
  }
  return found;
}

/** As the host takes it. */
export function toSeed(draft: SeedDraft, name: string): Seed {
  return {
    hostName: draft.hostName.trim() || hostNameOf(name),
    ...(draft.kind === "own"
      ? { userData: draft.userData }
      : { user: draft.user, sshKeys: words(draft.keys, /\n/), ...(draft.password !== "" && { password: draft.password }) }),
    ...(draft.network === "static" && {
      network: {
        address: draft.address.trim(),
        prefixLength: whole(draft.prefixLength),
        ...(draft.gateway.trim() !== "" && { gateway: draft.gateway.trim() }),
        nameServers: words(draft.nameServers, /[\s,]+/),
      },
    }),
  };
}

interface Fields {
  draft: SeedDraft;
  /** Of the machine. */
  name: string;
  onChange: (draft: SeedDraft) => void;
  problems: Record<string, string>;
}

export function SeedFields({ draft, name, onChange, problems }: Fields) {
  const set = (change: Partial<SeedDraft>) => onChange({ ...draft, ...change });
  return (
    <div class="fields">
      <TextField
        label={t("seed.hostName")}
        value={draft.hostName}
        onInput={(hostName) => set({ hostName })}
        error={problems.hostName}
        hint={t("seed.hostNameHint")}
        input={{ placeholder: hostNameOf(name), maxLength: 63 }}
      />
      <SelectField
        label={t("seed.kind")}
        value={draft.kind}
        onInput={(kind) => set({ kind: kind as SeedDraft["kind"] })}
        options={[
          ["account", t("seed.kind.account")],
          ["own", t("seed.kind.own")],
        ]}
      />
      {draft.kind === "own" ? (
        <AreaField
          full
          label={t("seed.userData")}
          value={draft.userData}
          onInput={(userData) => set({ userData })}
          error={problems.userData}
          hint={t("seed.userDataHint")}
          rows={10}
        />
      ) : (
        <>
          <TextField
            label={t("seed.user")}
            value={draft.user}
            onInput={(user) => set({ user })}
            error={problems.user}
            hint={t("seed.userHint")}
            input={{ autocomplete: "off", maxLength: 32 }}
          />
          <TextField
            label={t("seed.password")}
            type="password"
            value={draft.password}
            onInput={(password) => set({ password })}
            error={problems.password}
            hint={t("seed.passwordHint")}
            input={{ autocomplete: "new-password", maxLength: 128 }}
          />
          <AreaField
            full
            label={t("seed.keys")}
            value={draft.keys}
            onInput={(keys) => set({ keys })}
            error={problems.keys}
            hint={t("seed.keysHint")}
            rows={3}
          />
        </>
      )}
      <SelectField
        label={t("seed.network")}
        value={draft.network}
        onInput={(network) => set({ network: network as SeedDraft["network"] })}
        options={[
          ["dhcp", t("seed.network.dhcp")],
          ["static", t("seed.network.static")],
        ]}
      />
      {draft.network === "static" && (
        <>
          <TextField label={t("seed.address")} value={draft.address} onInput={(address) => set({ address })} error={problems.address} />
          <TextField
            label={t("seed.prefixLength")}
            type="number"
            value={draft.prefixLength}
            onInput={(prefixLength) => set({ prefixLength })}
            error={problems.prefixLength}
            input={{ min: 1, max: 32 }}
          />
          <TextField label={t("seed.gateway")} value={draft.gateway} onInput={(gateway) => set({ gateway })} error={problems.gateway} />
          <TextField
            label={t("seed.nameServers")}
            value={draft.nameServers}
            onInput={(nameServers) => set({ nameServers })}
            error={problems.nameServers}
            hint={t("seed.nameServersHint")}
          />
        </>
      )}
    </div>
  );
}

export function SeedVm({ vm, onClose }: { vm: Vm; onClose: () => void }) {
  const { name, cdrom } = vm.config;
  const [draft, setDraft] = useState(emptySeed);
  const [tried, setTried] = useState(false);
  const wrong = seedProblems(draft, name);
  return (
    <FormDialog
      title={t("seed.of", { name })}
      submit={t("seed.make")}
      onClose={onClose}
      act={async () => {
        if (Object.keys(wrong).length > 0) {
          setTried(true);
          throw new Error(t("seed.incomplete"));
        }
        await api.seedVm(vm.id, toSeed(draft, name));
        toast("info", t("seed.making", { name }));
        await Promise.all([refresh("vm"), refresh("task")]);
      }}
    >
      <p>{t("seed.text")}</p>
      {cdrom && <Notice tone="warn">{t("seed.replaces", { path: cdrom })}</Notice>}
      <SeedFields draft={draft} name={name} onChange={setDraft} problems={tried ? wrong : {}} />
    </FormDialog>
  );
}
