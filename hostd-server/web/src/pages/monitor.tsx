/** Watching the host: charts, health, tasks, events, logs, the support bundle. */
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { api } from "../api";
import { BASE } from "../api/client";
import { bytes, clock, span } from "../format";
import { eventColumns, taskColumns } from "../frame/tasks";
import { t, tOr } from "../i18n";
import { path } from "../router";
import { events, host, refresh, tasks } from "../state/inventory";
import { useResource } from "../state/resource";
import { Badge, Button, Card, Empty, Facts, Notice, PageHead, Spinner, Tabs } from "../ui/basic";
import { attempt, toast } from "../ui/dialog";
import { Icon } from "../ui/icon";
import { saveText } from "../ui/save";
import { Table } from "../ui/table";
import { HEALTH_TONES } from "./overview";
import { Performance } from "./performance";
import { FunctionsCard } from "./vm-functions";

const SOURCES = ["all", "kernel", "init", "hostd", "storage", "net", "vmm"];

function Logs() {
  const [source, setSource] = useState("all");
  const [filter, setFilter] = useState("");
  const { data, error } = useResource(() => api.logs(source), [source], { seconds: 5 });
  const place = useRef<HTMLPreElement>(null);
  const lines = useMemo(
    () => (data ?? []).filter((line) => !filter || `${line.source} ${line.message}`.toLowerCase().includes(filter.toLowerCase())),
    [data, filter],
  );
  // biome-ignore lint/correctness/useExhaustiveDependencies: new lines are followed
  useEffect(() => {
    const element = place.current;
    if (element) element.scrollTop = element.scrollHeight;
  }, [lines.length]);
  const save = () => {
    const text = lines.map((line) => `${line.time} ${line.source} ${line.level} ${line.message}`).join("\n");
    saveText(text, `${host.value?.name ?? "host"}-${source}.log`, "text/plain");
  };
  return (
    <Card
      title={t("monitor.logs")}
      flush
      actions={
        <>
          <select
            aria-label={t("log.source")}
            value={source}
            style={{ width: "auto" }}
            onChange={(event) => setSource(event.currentTarget.value)}
          >
            {SOURCES.map((name) => (
              <option key={name} value={name}>
                {name === "all" ? t("all") : name}
              </option>
            ))}
          </select>
          <label class="search">
            <Icon name="search" small />
            <span class="visually-hidden">{t("search")}</span>
            <input type="search" placeholder={t("search")} value={filter} onInput={(event) => setFilter(event.currentTarget.value)} />
          </label>
          <Button icon="download" label={t("download")} onClick={save} />
        </>
      }
    >
      {error && <Notice tone="danger">{error}</Notice>}
      <pre class="log" tabIndex={0} ref={place} aria-label={t("monitor.logs")} role="log">
        {lines.map((line, index) => (
          <div key={`${line.time}${index}`} class={line.level}>
            <span class="time">{clock(line.time)}</span> {line.source.padEnd(8)} {line.message}
          </div>
        ))}
        {data && lines.length === 0 && t("log.none")}
      </pre>
    </Card>
  );
}

function Support() {
  const bundle = tasks.value.find((task) => task.name === "supportBundle" || task.name === "supportBundle.create");
  return (
    <Card title={t("support.title")}>
      <div class="stack">
        <p>{t("support.text")}</p>
        <div class="row">
          <Button
            kind="primary"
            icon="bundle"
            disabled={bundle?.state === "running"}
            onClick={() =>
              void attempt(t("support.make"), async () => {
                await api.supportBundle();
                toast("info", t("support.started"));
                await refresh("task");
              })
            }
          >
            {t("support.make")}
          </Button>
          {bundle?.state === "success" && (
            <Button icon="download" href={`${BASE}/support-bundle`}>
              {t("support.download")}
            </Button>
          )}
        </div>
      </div>
    </Card>
  );
}

function Hardware() {
  const it = host.value;
  const sensors = useResource(() => api.sensors(), [], { seconds: 20 });
  if (!it) return <Spinner />;
  const { hardware } = it;
  return (
    <div class="grid">
      <Card title={t("monitor.health")} class="w6">
        <Facts
          items={[
            [
              t("state"),
              <Badge key="h" tone={HEALTH_TONES[it.health]} dot>
                {tOr("health", it.health)}
              </Badge>,
            ],
            [t("host.uptime"), span(it.uptimeSeconds)],
            [t("hardware.machine"), `${hardware.vendor} ${hardware.model}`],
            [t("host.state"), it.statePersistent ? t("host.kept") : t("host.notKeptShort")],
          ]}
        />
      </Card>
      <Card title={t("hardware")} class="w6">
        <Facts
          items={[
            [t("hardware.processor"), hardware.cpuModel],
            [
              t("hardware.processors"),
              t("hardware.cores", { sockets: hardware.sockets, cores: hardware.cores, threads: hardware.threads }),
            ],
            [t("hardware.virtualization"), hardware.virtualization],
            [t("memory"), bytes(hardware.memory)],
          ]}
        />
      </Card>
      {sensors.data && sensors.data.length > 0 && (
        <Card title={t("monitor.sensors")} flush>
          <Table
            label={t("monitor.sensors")}
            rows={sensors.data}
            rowKey={(one) => one.name}
            columns={[
              { key: "name", name: t("name"), sort: (one) => one.name, cell: (one) => one.name },
              { key: "reading", name: t("vm.value"), cell: (one) => one.reading },
              {
                key: "health",
                name: t("state"),
                sort: (one) => one.health,
                cell: (one) => (
                  <Badge tone={HEALTH_TONES[one.health]} dot>
                    {tOr("health", one.health)}
                  </Badge>
                ),
              },
            ]}
          />
        </Card>
      )}
      <FunctionsCard />
    </div>
  );
}

export function Monitor() {
  const tab = path.value[1] ?? "performance";
  const it = host.value;
  return (
    <>
      <PageHead icon="chart" title={t("nav.monitor")} sub={it?.name} />
      <Tabs
        label={t("nav.monitor")}
        current={tab}
        items={(["performance", "health", "tasks", "events", "logs", "support"] as const).map((name) => [
          name,
          t(`monitor.${name}`),
          name === "performance" ? "#/monitor" : `#/monitor/${name}`,
        ])}
      />
      {tab === "performance" && (it ? <Performance entity={it.id} /> : <Spinner />)}
      {tab === "health" && <Hardware />}
      {tab === "tasks" && (
        <Card title={t("monitor.tasks")} flush>
          <Table
            label={t("monitor.tasks")}
            rows={tasks.value}
            columns={taskColumns()}
            rowKey={(task) => task.id}
            empty={<Empty icon="tasks" title={t("tasks.none")} />}
            foot
          />
        </Card>
      )}
      {tab === "events" && (
        <Card title={t("monitor.events")} flush>
          <Table
            label={t("monitor.events")}
            rows={events.value}
            columns={eventColumns()}
            rowKey={(event) => event.id}
            empty={<Empty icon="event" title={t("events.none")} />}
            foot
          />
        </Card>
      )}
      {tab === "logs" && <Logs />}
      {tab === "support" && <Support />}
    </>
  );
}
