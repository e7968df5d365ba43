/** The servers of the host and the messages between them, as they are now: who may call whom is what the boot manifest grants, and who does. */
import { useState } from "preact/hooks";
import { api } from "../api";
import type { Capability, ServerGraph, ServerNode } from "../api/types";
import { bytes, number } from "../format";
import { t, tOr } from "../i18n";
import { useResource } from "../state/resource";
import { Badge, Button, Card, Empty, Facts, Notice, PageHead, Spinner } from "../ui/basic";
import { ask } from "../ui/dialog";
import { type Column, Table } from "../ui/table";
import { Performance } from "./performance";

const BOX = { width: 172, height: 58 };
const STEP = { x: 214, y: 122 };

interface Placed {
  node: ServerNode;
  x: number;
  y: number;
}

/** Callers above, those they call below; within a row, near to what they speak with. */
export function layout(graph: ServerGraph): { placed: Map<string, Placed>; width: number; height: number } {
  const names = new Set(graph.servers.map((node) => node.name));
  const edges = graph.edges.filter((edge) => names.has(edge.from) && names.has(edge.to) && edge.from !== edge.to);
  const depth = new Map(graph.servers.map((node) => [node.name, 0]));
  // Longest way from a caller; a circle ends it after as many rounds as there are servers.
  for (let round = 0; round < Math.min(graph.servers.length, 8); round++) {
    let moved = false;
    for (const { from, to } of edges) {
      const wanted = Math.min(depth.get(from)! + 1, 6);
      if (wanted > depth.get(to)!) {
        depth.set(to, wanted);
        moved = true;
      }
    }
    if (!moved) break;
  }
  const used = [...new Set(depth.values())].sort((a, b) => a - b);
  const rows: ServerNode[][] = used.flatMap((level) => {
    const row = graph.servers.filter((node) => depth.get(node.name) === level);
    const parts = [];
    for (let at = 0; at < row.length; at += 6) parts.push(row.slice(at, at + 6));
    return parts;
  });
  const width = Math.max(1, ...rows.map((row) => row.length)) * STEP.x;
  const placed = new Map<string, Placed>();
  rows.forEach((row, level) => {
    const near = (node: ServerNode) => {
      const others = edges
        .flatMap(({ from, to }) => (from === node.name ? [to] : to === node.name ? [from] : []))
        .flatMap((name) => placed.get(name) ?? []);
      return others.length ? others.reduce((sum, one) => sum + one.x, 0) / others.length : width / 2;
    };
    const ordered = [...row].sort((a, b) => near(a) - near(b) || a.name.localeCompare(b.name));
    const left = (width - row.length * STEP.x) / 2;
    ordered.forEach((node, index) =>
      placed.set(node.name, { node, x: left + index * STEP.x + STEP.x / 2, y: level * STEP.y + BOX.height / 2 + 12 }),
    );
  });
  return { placed, width, height: rows.length * STEP.y - (STEP.y - BOX.height) + 24 };
}

function Graph({ graph, chosen, onChoose }: { graph: ServerGraph; chosen: string | null; onChoose: (name: string | null) => void }) {
  const { placed, width, height } = layout(graph);
  const pairs = new Map<string, { from: Placed; to: Placed; rate: number }>();
  for (const edge of graph.edges) {
    const [from, to] = [placed.get(edge.from), placed.get(edge.to)];
    if (!from || !to || from === to) continue;
    const key = `${edge.from}\n${edge.to}`;
    pairs.set(key, { from, to, rate: (pairs.get(key)?.rate ?? 0) + edge.messagesPerSecond });
  }
  const touches = (name: string) =>
    !chosen ||
    chosen === name ||
    [...pairs.values()].some(
      ({ from, to }) => (from.node.name === chosen && to.node.name === name) || (to.node.name === chosen && from.node.name === name),
    );
  return (
    <div class="drawing" tabIndex={0} role="group" aria-label={t("servers.drawing")}>
      <svg
        viewBox={`0 0 ${width} ${height}`}
        style={{ minWidth: `${Math.min(width, 720)}px`, maxWidth: `${width * 1.15}px`, maxHeight: "560px", margin: "0 auto" }}
      >
        <g aria-hidden="true">
          {[...pairs.entries()].map(([key, { from, to, rate }]) => {
            const level = Math.abs(from.y - to.y) < 1;
            const down = to.y > from.y;
            const [y1, y2] = level
              ? [from.y - BOX.height / 2, to.y - BOX.height / 2]
              : down
                ? [from.y + BOX.height / 2, to.y - BOX.height / 2]
                : [from.y - BOX.height / 2, to.y + BOX.height / 2];
            const bend = level ? -34 : (y2 - y1) / 2;
            const faded = chosen !== null && from.node.name !== chosen && to.node.name !== chosen;
            return (
              <g key={key}>
                <path
                  class={`edge ${rate > 0 ? "active" : ""} ${faded ? "faded" : ""}`}
                  d={`M${from.x} ${y1}C${from.x} ${y1 + bend} ${to.x} ${y2 - (level ? -bend : bend)} ${to.x} ${y2}`}
                  stroke-width={Math.min(4, 1.2 + Math.log10(1 + rate) * 0.8)}
                />
                {!faded && chosen && rate > 0 && (
                  <text class="quiet" x={(from.x + to.x) / 2 + 6} y={(y1 + y2) / 2}>
                    {number(rate)}/s
                  </text>
                )}
              </g>
            );
          })}
        </g>
        {[...placed.values()].map(({ node, x, y }) => (
          <g
            key={node.name}
            class={`node ${node.kind} ${chosen === node.name ? "selected" : ""} ${touches(node.name) ? "" : "faded"}`}
            transform={`translate(${x - BOX.width / 2} ${y - BOX.height / 2})`}
            role="button"
            tabIndex={0}
            aria-pressed={chosen === node.name}
            aria-label={`${node.name}, ${tOr("serverState", node.state)}`}
            onClick={() => onChoose(chosen === node.name ? null : node.name)}
            onKeyDown={(event) => {
              if (event.key !== "Enter" && event.key !== " ") return;
              event.preventDefault();
              onChoose(chosen === node.name ? null : node.name);
            }}
          >
            <rect width={BOX.width} height={BOX.height} rx={9} />
            <circle cx={18} cy={21} r={4.5} fill={node.state === "running" ? "var(--ok)" : "var(--danger)"} />
            <text x={31} y={26} font-weight="600" font-size="14">
              {node.name.length > 18 ? `${node.name.slice(0, 17)}…` : node.name}
            </text>
            <text class="quiet" x={14} y={46}>
              {bytes(node.memory)} · {number(node.cpuPercent, 1)} %
            </text>
          </g>
        ))}
      </svg>
    </div>
  );
}

function Capabilities({ server }: { server: string }) {
  const { data, error } = useResource(() => api.capabilities(server), [server], { seconds: 10 });
  const columns: Column<Capability>[] = [
    { key: "name", name: t("name"), width: "minmax(110px, 1.5fr)", sort: (one) => one.name, cell: (one) => one.name || "–" },
    { key: "kind", name: t("kind"), sort: (one) => one.kind, cell: (one) => one.kind },
    { key: "rights", name: t("servers.rights"), cell: (one) => <code>{one.rights}</code> },
    { key: "object", name: t("servers.object"), end: true, wide: true, sort: (one) => one.object, cell: (one) => one.object },
    { key: "size", name: t("size"), end: true, wide: true, sort: (one) => one.size, cell: (one) => number(one.size) },
  ];
  return (
    <Card title={t("servers.capabilities", { name: server })} flush>
      {error && <Notice tone="danger">{error}</Notice>}
      {data && (
        <Table
          label={t("servers.capabilities", { name: server })}
          rows={data.map((one, index) => ({ ...one, index }))}
          columns={columns}
          rowKey={(one) => String((one as { index?: number }).index)}
          maxHeight="420px"
          rowHeight={36}
          foot
        />
      )}
    </Card>
  );
}

export function Servers() {
  const { data, error, reload } = useResource(() => api.graph(), [], { seconds: 2 });
  const [chosen, setChosen] = useState<string | null>(null);
  const node = data?.servers.find((one) => one.name === chosen);
  const edges = (data?.edges ?? []).filter((edge) => !chosen || edge.from === chosen || edge.to === chosen);
  const columns: Column<ServerGraph["edges"][number]>[] = [
    { key: "from", name: t("servers.from"), sort: (one) => one.from, cell: (one) => one.from },
    { key: "to", name: t("servers.to"), sort: (one) => one.to, cell: (one) => one.to },
    { key: "interface", name: t("servers.interface"), sort: (one) => one.interface, cell: (one) => <code>{one.interface}</code> },
    {
      key: "rate",
      name: t("servers.rate"),
      end: true,
      sort: (one) => one.messagesPerSecond,
      cell: (one) => number(one.messagesPerSecond, 1),
    },
  ];
  return (
    <>
      <PageHead icon="graph" title={t("nav.servers")} sub={t("servers.text")} />
      {error && <Notice tone="danger">{error}</Notice>}
      {!data ? (
        !error && <Spinner />
      ) : data.servers.length === 0 ? (
        <Empty icon="graph" title={t("servers.none")} />
      ) : (
        <div class="grid">
          <Card title={t("servers.graph")} class={node ? "w8" : ""}>
            <Graph graph={data} chosen={chosen} onChoose={setChosen} />
          </Card>
          {node && (
            <Card
              title={node.name}
              class="w4"
              actions={<Button icon="close" kind="plain" label={t("close")} onClick={() => setChosen(null)} />}
            >
              <div class="stack">
                <Facts
                  items={[
                    [
                      t("state"),
                      <Badge key="s" tone={node.state === "running" ? "ok" : "danger"} dot>
                        {tOr("serverState", node.state)}
                      </Badge>,
                    ],
                    [t("memory"), bytes(node.memory)],
                    [t("cpu"), `${number(node.cpuPercent, 1)} %`],
                    [t("servers.threads"), node.threads],
                    [t("servers.restarts"), node.restarts],
                    ...(node.lastEnd ? [[t("servers.lastEnd"), node.lastEnd] as [string, string]] : []),
                  ]}
                />
                {node.kind === "server" && (
                  <Button
                    icon="reset"
                    danger
                    onClick={() =>
                      ask({
                        title: t("servers.restart"),
                        text: t("servers.restartAsk", { name: node.name }),
                        submit: t("servers.restart"),
                        danger: true,
                        act: () => api.restartServer(node.name).then(reload),
                      })
                    }
                  >
                    {t("servers.restart")}
                  </Button>
                )}
              </div>
            </Card>
          )}
          {node && node.kind !== "kernel" && (
            <>
              <div>
                <Performance key={node.name} entity={`server-${node.name}`} />
              </div>
              <Capabilities key={node.name} server={node.name} />
            </>
          )}
          <Card title={t("servers.messages")} flush>
            <Table
              label={t("servers.messages")}
              rows={edges}
              columns={columns}
              rowKey={(one) => `${one.from} ${one.to} ${one.interface}`}
              initialSort={["rate", -1]}
              maxHeight="420px"
              rowHeight={36}
              empty={<Empty icon="graph" title={t("servers.noMessages")} />}
            />
          </Card>
        </div>
      )}
    </>
  );
}
