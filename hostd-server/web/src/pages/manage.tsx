/** What the host is set to: time, names, services, autostart, certificate, modes, licences. */
import { useEffect, useRef, useState } from "preact/hooks";
import { api } from "../api";
import { ApiError, may } from "../api/client";
import type { Autostart, DnsConfig, Licence, Service, TimeConfig, Vm } from "../api/types";
import { dateTime, number } from "../format";
import { t, tOr } from "../i18n";
import { path, href } from "../router";
import { host, refresh, refreshAll, vms } from "../state/inventory";
import { useResource } from "../state/resource";
import { Badge, Button, Card, Empty, Facts, Notice, PageHead, Spinner, Tabs } from "../ui/basic";
import { FormDialog, ask, attempt, toast } from "../ui/dialog";
import { CheckField, TextField } from "../ui/form";
import { saveText } from "../ui/save";
import { type Column, Table } from "../ui/table";
import { powerOff } from "./overview";
import { shownState } from "./vm-actions";

const words = (text: string): string[] => text.split(/[\s,;]+/).filter(Boolean);

/** Saves what was read and changed; somebody else's change in between is told and read. */
async function save(act: () => Promise<unknown>, reload: () => Promise<void>): Promise<void> {
  await attempt(t("save"), async () => {
    try {
      await act();
      toast("ok", t("saved"));
    } catch (failure) {
      if (failure instanceof ApiError && failure.status === 412) throw new Error(t("error.changedMeanwhile"));
      throw failure;
    } finally {
      await reload();
    }
  });
}

function Time() {
  const { data, error, reload } = useResource(() => api.time(), [], { seconds: 10 });
  const [edit, setEdit] = useState<{ servers: string; enabled: boolean; etag: string | null } | null>(null);
  useEffect(() => {
    if (data && !edit) setEdit({ servers: data.data.servers.join("\n"), enabled: data.data.enabled, etag: data.etag });
  }, [data, edit]);
  if (error && !data) return <Notice tone="danger">{error}</Notice>;
  if (!data || !edit) return <Spinner />;
  const time: TimeConfig = data.data;
  return (
    <div class="grid">
      <Card title={t("time.title")} class="w7">
        <form
          class="stack"
          onSubmit={(event) => {
            event.preventDefault();
            void save(() => api.setTime({ servers: words(edit.servers), enabled: edit.enabled }, edit.etag), reload).then(() =>
              setEdit(null),
            );
          }}
        >
          <CheckField label={t("time.enabled")} value={edit.enabled} onInput={(enabled) => setEdit({ ...edit, enabled })} />
          <TextField
            label={t("time.servers")}
            hint={t("time.serversHint")}
            value={edit.servers.replaceAll("\n", ", ")}
            onInput={(servers) => setEdit({ ...edit, servers })}
          />
          <div>
            <Button submit kind="primary" disabled={!may("Host.Config")}>
              {t("save")}
            </Button>
          </div>
        </form>
      </Card>
      <Card title={t("time.now")} class="w5">
        <Facts
          items={[
            [t("host.time"), dateTime(time.now)],
            [
              t("state"),
              <Badge key="s" tone={time.synchronized ? "ok" : "warn"} dot>
                {t(time.synchronized ? "time.synchronized" : "time.notSynchronized")}
              </Badge>,
            ],
            [t("time.server"), time.server ?? "–"],
            [t("time.drift"), time.driftPpm == null ? "–" : `${number(time.driftPpm, 2)} ppm`],
            [t("time.offset"), time.offsetSeconds == null ? "–" : `${number(time.offsetSeconds * 1000, 2)} ms`],
            [t("time.browser"), `${number((Date.now() - Date.parse(time.now)) / 1000, 0)} s`],
          ]}
        />
      </Card>
    </div>
  );
}

function Names() {
  const { data, error, reload } = useResource(() => api.dns(), []);
  const [edit, setEdit] = useState<{ dns: DnsConfig; servers: string; search: string; etag: string | null } | null>(null);
  const [asked, setAsked] = useState("");
  const [found, setFound] = useState<string | null>(null);
  useEffect(() => {
    if (data)
      setEdit({ dns: data.data, servers: data.data.servers.join(", "), search: data.data.searchDomains.join(", "), etag: data.etag });
  }, [data]);
  if (error && !data) return <Notice tone="danger">{error}</Notice>;
  if (!edit) return <Spinner />;
  const set = (change: Partial<DnsConfig>) => setEdit({ ...edit, dns: { ...edit.dns, ...change } });
  return (
    <div class="grid">
      <Card title={t("dns.title")} class="w7">
        <form
          class="stack"
          onSubmit={(event) => {
            event.preventDefault();
            void save(
              () => api.setDns({ ...edit.dns, servers: words(edit.servers), searchDomains: words(edit.search) }, edit.etag),
              reload,
            ).then(() => refresh("host"));
          }}
        >
          <div class="fields">
            <TextField label={t("dns.hostName")} value={edit.dns.hostName} onInput={(hostName) => set({ hostName })} />
            <TextField label={t("dns.domain")} value={edit.dns.domain} onInput={(domain) => set({ domain })} />
          </div>
          <CheckField label={t("dns.dhcp")} value={edit.dns.dhcp} onInput={(dhcp) => set({ dhcp })} />
          <TextField
            label={t("dns.servers")}
            hint={t("dns.serversHint")}
            value={edit.servers}
            onInput={(servers) => setEdit({ ...edit, servers })}
          />
          <TextField label={t("dns.search")} value={edit.search} onInput={(search) => setEdit({ ...edit, search })} />
          <div>
            <Button submit kind="primary" disabled={!may("Host.Config")}>
              {t("save")}
            </Button>
          </div>
        </form>
      </Card>
      <Card title={t("dns.test")} class="w5">
        <form
          class="stack"
          onSubmit={(event) => {
            event.preventDefault();
            void attempt(t("dns.test"), async () => setFound((await api.resolve(asked.trim())).addresses.join(", ") || t("dns.nothing")));
          }}
        >
          <TextField label={t("dns.name")} value={asked} onInput={setAsked} />
          <div>
            <Button submit disabled={!asked.trim()}>
              {t("dns.resolve")}
            </Button>
          </div>
          <output class="mono">{found}</output>
        </form>
      </Card>
    </div>
  );
}

function Services() {
  const { data, error, reload } = useResource(() => api.services(), [], { seconds: 10 });
  const act = (service: Service, action: "start" | "stop" | "restart") => () =>
    void attempt(`${t(`service.${action}`)} ${service.name}`, () => api.serviceAction(service.id, action)).then(reload);
  const columns: Column<Service>[] = [
    { key: "name", name: t("name"), width: "minmax(120px, 1fr)", sort: (one) => one.name, cell: (one) => <strong>{one.name}</strong> },
    { key: "description", name: t("description"), wide: true, width: "minmax(160px, 2fr)", cell: (one) => one.description },
    {
      key: "state",
      name: t("state"),
      width: "120px",
      cell: (one) => (
        <Badge tone={one.running ? "ok" : "off"} dot>
          {t(one.running ? "service.running" : "service.stopped")}
        </Badge>
      ),
    },
    {
      key: "policy",
      name: t("service.policy"),
      wide: true,
      width: "190px",
      cell: (one) => (
        <select
          aria-label={`${t("service.policy")} ${one.name}`}
          value={one.policy}
          disabled={one.required}
          style={{ minHeight: "30px", padding: "2px 8px" }}
          onChange={(event) => void attempt(t("service.policy"), () => api.servicePolicy(one.id, event.currentTarget.value)).then(reload)}
        >
          {(["on", "off", "automatic"] as const).map((policy) => (
            <option key={policy} value={policy} selected={one.policy === policy}>
              {t(`service.policy.${policy}`)}
            </option>
          ))}
        </select>
      ),
    },
    {
      key: "act",
      name: "",
      width: "130px",
      cell: (one) => (
        <span class="row tight">
          {one.running ? (
            <Button
              icon="stop"
              kind="plain"
              disabled={one.required}
              label={`${t("service.stop")} ${one.name}`}
              onClick={act(one, "stop")}
            />
          ) : (
            <Button icon="play" kind="plain" label={`${t("service.start")} ${one.name}`} onClick={act(one, "start")} />
          )}
          <Button
            icon="reset"
            kind="plain"
            disabled={!one.running}
            label={`${t("service.restart")} ${one.name}`}
            onClick={act(one, "restart")}
          />
        </span>
      ),
    },
  ];
  return (
    <Card title={t("manage.services")} flush>
      {error && <Notice tone="danger">{error}</Notice>}
      {data ? (
        <Table
          label={t("manage.services")}
          rows={data}
          columns={columns}
          rowKey={(one) => one.id}
          rowHeight={44}
          empty={<Empty icon="service" title={t("service.none")} />}
        />
      ) : (
        !error && <Spinner />
      )}
    </Card>
  );
}

function AutostartPage() {
  const { data, error, reload } = useResource(() => api.autostart(), [], { kind: "vm" });
  if (error && !data) return <Notice tone="danger">{error}</Notice>;
  if (!data) return <Spinner />;
  const { enabled, delaySeconds, order } = data.data;
  const put = (change: Partial<Autostart>) =>
    void save(() => api.setAutostart({ ...data.data, ...change }, data.etag), reload).then(() => refresh("vm"));
  const place = (id: string) => (order.includes(id) ? order.indexOf(id) + 1 : null);
  const move = (id: string, by: number) => {
    const next = order.filter((one) => one !== id);
    next.splice(Math.max(0, order.indexOf(id) + by), 0, id);
    put({ order: next });
  };
  const rows = [...vms.value].sort((a, b) => (place(a.id) ?? 1e9) - (place(b.id) ?? 1e9) || a.config.name.localeCompare(b.config.name));
  const columns: Column<Vm>[] = [
    { key: "order", name: t("autostart.order"), width: "90px", end: true, cell: (vm) => place(vm.id) ?? "–" },
    { key: "name", name: t("name"), width: "minmax(150px, 2fr)", cell: (vm) => <a href={href("vms", vm.id)}>{vm.config.name}</a> },
    { key: "state", name: t("state"), wide: true, cell: (vm) => tOr("power", shownState(vm)) },
    {
      key: "autostart",
      name: t("vm.autostart"),
      width: "120px",
      cell: (vm) => (
        <input
          type="checkbox"
          aria-label={`${t("vm.autostart")} ${vm.config.name}`}
          checked={place(vm.id) !== null}
          onChange={(event) => put({ order: event.currentTarget.checked ? [...order, vm.id] : order.filter((one) => one !== vm.id) })}
        />
      ),
    },
    {
      key: "move",
      name: "",
      width: "120px",
      cell: (vm) =>
        place(vm.id) !== null && (
          <span class="row tight">
            <Button
              icon="up"
              kind="plain"
              disabled={place(vm.id) === 1}
              label={t("autostart.earlier", { name: vm.config.name })}
              onClick={() => move(vm.id, -1)}
            />
            <Button
              icon="down"
              kind="plain"
              disabled={place(vm.id) === order.length}
              label={t("autostart.later", { name: vm.config.name })}
              onClick={() => move(vm.id, 1)}
            />
          </span>
        ),
    },
  ];
  return (
    <div class="stack">
      <Card>
        <div class="fields">
          <CheckField label={t("autostart.enabled")} value={enabled} onInput={(on) => put({ enabled: on })} />
          <TextField
            label={t("autostart.delay")}
            type="number"
            value={String(delaySeconds)}
            onInput={() => undefined}
            input={{
              min: 0,
              max: 3600,
              onChange: (event) => put({ delaySeconds: Math.min(3600, Math.max(0, event.currentTarget.valueAsNumber || 0)) }),
            }}
          />
        </div>
      </Card>
      <Card title={t("manage.autostart")} flush>
        <Table
          label={t("manage.autostart")}
          rows={rows}
          rowKey={(vm) => vm.id}
          columns={columns}
          empty={<Empty icon="vm" title={t("vm.none")} />}
        />
      </Card>
    </div>
  );
}

function Backup() {
  const input = useRef<HTMLInputElement>(null);
  const restore = async (file: File | undefined) => {
    if (!file) return;
    let backup: unknown;
    try {
      backup = JSON.parse(await file.text());
    } catch {
      return toast("danger", t("backup.bad"), file.name);
    }
    ask({
      title: t("backup.restore"),
      text: t("backup.restoreAsk", { name: file.name }),
      submit: t("backup.restore"),
      danger: true,
      act: async () => {
        await api.restore(backup);
        toast("ok", t("backup.restored"));
        await refreshAll();
      },
    });
  };
  return (
    <Card title={t("backup.title")} class="w6">
      <div class="stack">
        <p class="muted">{t("backup.text")}</p>
        <div class="row">
          <Button
            icon="download"
            onClick={() =>
              void attempt(t("backup.save"), async () =>
                saveText(JSON.stringify(await api.backup(), null, 1), `${host.value?.name ?? "host"}-backup.json`),
              )
            }
          >
            {t("backup.save")}
          </Button>
          <Button icon="upload" onClick={() => input.current?.click()}>
            {t("backup.restore")}
          </Button>
          <input
            ref={input}
            type="file"
            accept=".json"
            hidden
            aria-label={t("backup.restore")}
            onChange={(event) => {
              void restore(event.currentTarget.files?.[0]);
              event.currentTarget.value = "";
            }}
          />
        </div>
      </div>
    </Card>
  );
}

function ReplaceCertificate({ onClose, done }: { onClose: () => void; done: () => Promise<void> }) {
  const [certificate, setCertificate] = useState("");
  const [key, setKey] = useState("");
  const area = (label: string, value: string, set: (value: string) => void, id: string) => (
    <div class="field">
      <label for={id}>{label}</label>
      <textarea
        id={id}
        class="mono"
        rows={7}
        spellcheck={false}
        value={value}
        placeholder="-----BEGIN …"
        onInput={(event) => set(event.currentTarget.value)}
      />
    </div>
  );
  return (
    <FormDialog
      title={t("certificate.replace")}
      submit={t("certificate.replace")}
      danger
      valid={certificate.includes("-----BEGIN") && key.includes("-----BEGIN")}
      onClose={onClose}
      act={() => api.replaceCertificate(certificate, key).then(done)}
    >
      {area(t("certificate.chain"), certificate, setCertificate, "certificate-chain")}
      {area(t("certificate.key"), key, setKey, "certificate-key")}
    </FormDialog>
  );
}

function System() {
  const it = host.value;
  const { data, error, reload } = useResource(() => api.certificate(), []);
  const [replacing, setReplacing] = useState(false);
  if (!it) return <Spinner />;
  const mode = (name: "maintenance" | "lockdown", on: boolean) =>
    ask({
      title: t(`${name}.title`),
      text: t(on ? `${name}.leaveAsk` : `${name}.enterAsk`),
      submit: t(on ? "turnOff" : "turnOn"),
      danger: !on,
      act: () => api[name](!on).then(() => refresh("host")),
    });
  return (
    <div class="grid">
      <Card title={t("manage.modes")} class="w6">
        <div class="stack">
          {(["maintenance", "lockdown"] as const).map((name) => {
            const on = name === "maintenance" ? it.maintenanceMode : it.lockdownMode;
            return (
              <div class="row spread" key={name} style={{ flexWrap: "nowrap" }}>
                <div>
                  <strong>{t(`${name}.title`)}</strong> <Badge tone={on ? "warn" : "off"}>{t(on ? "on" : "off")}</Badge>
                  <p class="muted">{t(`${name}.text`)}</p>
                </div>
                <Button onClick={() => mode(name, on)}>{t(on ? "turnOff" : "turnOn")}</Button>
              </div>
            );
          })}
        </div>
      </Card>
      <Card title={t("host.power")} class="w6">
        <div class="stack">
          <p class="muted">{t("host.powerText")}</p>
          <div class="row">
            <Button icon="reset" danger disabled={!may("Host.Power")} onClick={() => powerOff("reboot")}>
              {t("host.reboot")}
            </Button>
            <Button icon="power" danger disabled={!may("Host.Power")} onClick={() => powerOff("shutdown")}>
              {t("host.shutdown")}
            </Button>
          </div>
        </div>
      </Card>
      <Backup />
      <Card
        class="w6"
        title={t("certificate.title")}
        actions={<Button onClick={() => setReplacing(true)}>{t("certificate.replace")}</Button>}
      >
        {error && <Notice tone="danger">{error}</Notice>}
        {data && (
          <Facts
            items={[
              [t("certificate.subject"), data.subject],
              [
                t("certificate.issuer"),
                <span key="i" class="row">
                  {data.issuer}
                  {data.selfSigned && <Badge tone="warn">{t("certificate.selfSigned")}</Badge>}
                </span>,
              ],
              [t("certificate.valid"), `${dateTime(data.notBefore)} – ${dateTime(data.notAfter)}`],
              [t("certificate.fingerprint"), <code key="f">{data.fingerprint}</code>],
            ]}
          />
        )}
      </Card>
      {replacing && <ReplaceCertificate done={reload} onClose={() => setReplacing(false)} />}
    </div>
  );
}

function Licences() {
  const { data, error } = useResource(() => api.licences(), []);
  const columns: Column<Licence>[] = [
    { key: "component", name: t("licence.component"), sort: (one) => one.component, cell: (one) => one.component },
    { key: "version", name: t("licence.version"), wide: true, cell: (one) => one.version },
    { key: "licence", name: t("licence.licence"), sort: (one) => one.licence, cell: (one) => one.licence },
  ];
  return (
    <Card title={t("manage.licences")} flush>
      {error && <Notice tone="danger">{error}</Notice>}
      {data ? (
        <Table
          label={t("manage.licences")}
          rows={data}
          columns={columns}
          rowKey={(one) => `${one.component} ${one.version}`}
          foot
          empty={<Empty icon="log" title={t("licence.none")} />}
        />
      ) : (
        !error && <Spinner />
      )}
    </Card>
  );
}

const TABS = { system: System, time: Time, dns: Names, services: Services, autostart: AutostartPage, licences: Licences };

export function Manage() {
  const tab = path.value[1] ?? "system";
  const Found = TABS[tab as keyof typeof TABS];
  return (
    <>
      <PageHead icon="manage" title={t("nav.manage")} sub={host.value?.name} />
      <Tabs
        label={t("nav.manage")}
        current={tab}
        items={(Object.keys(TABS) as (keyof typeof TABS)[]).map((name) => [
          name,
          t(`manage.${name}`),
          name === "system" ? "#/manage" : `#/manage/${name}`,
        ])}
      />
      {Found ? <Found /> : <Empty icon="search" title={t("error.noPage")} />}
    </>
  );
}
