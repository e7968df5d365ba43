/** Icons, drawn for a field of 24 by 24 as strokes. They say nothing by themselves: the text beside them, or the button's label, does. */
const PATHS = {
  host: "M4 4h16v7H4zM4 13h16v7H4zM8 7.5h.01M8 16.5h.01M13 7.5h4M13 16.5h4",
  vm: "M3 4h18v12H3zM8 20h8M12 16v4M10 8l4 2-4 2z",
  storage: "M4 6c0-4 16-4 16 0s-16 4-16 0zM4 6v12c0 4 16 4 16 0V6M4 12c0 4 16 4 16 0",
  network: "M9 3h6v5H9zM3 16h6v5H3zM15 16h6v5h-6zM12 8v4M6 16v-4h12v4",
  chart: "M4 4v16h16M8 15l3-4 3 2 5-6",
  manage:
    "M12 9a3 3 0 1 0 0 6 3 3 0 0 0 0-6zM12 3v3M12 18v3M3 12h3M18 12h3M5.6 5.6l2.2 2.2M16.2 16.2l2.2 2.2M18.4 5.6l-2.2 2.2M7.8 16.2l-2.2 2.2",
  user: "M12 4a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM4 21c0-8 16-8 16 0",
  users: "M9 5a3.5 3.5 0 1 0 0 7 3.5 3.5 0 0 0 0-7zM2 20c0-7 14-7 14 0M16 5.5a3.5 3.5 0 0 1 0 6.5M18 14c3 .5 4 3 4 6",
  key: "M8 11a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM11 12l9-9M16 7l3 3",
  clock: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18zM12 7v5l3 3",
  globe: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18zM3 12h18M12 3c-5 5-5 13 0 18 5-5 5-13 0-18z",
  log: "M6 3h9l4 4v14H6zM15 3v4h4M9 12h7M9 16h7",
  graph: "M6 4a2 2 0 1 0 0 4 2 2 0 0 0 0-4zM18 10a2 2 0 1 0 0 4 2 2 0 0 0 0-4zM6 16a2 2 0 1 0 0 4 2 2 0 0 0 0-4zM8 7l8 4M8 17l8-4M6 8v8",
  tasks: "M4 6l2 2 3-4M4 13l2 2 3-4M4 20l2 2 3-4M13 6h8M13 13h8M13 20h8",
  event: "M6 17V11a6 6 0 0 1 12 0v6l2 2H4zM10 21h4",
  play: "M7 4l12 8-12 8z",
  stop: "M6 6h12v12H6z",
  pause: "M8 5v14M16 5v14",
  reset: "M20 12a8 8 0 1 1-3-6.2M20 3v5h-5",
  console: "M3 4h18v16H3zM7 9l3 3-3 3M12 15h5",
  camera: "M3 7h4l2-3h6l2 3h4v13H3zM12 10a3.5 3.5 0 1 0 0 7 3.5 3.5 0 0 0 0-7z",
  edit: "M4 20l1-4L16 5l3 3L8 19zM14 7l3 3",
  plus: "M12 5v14M5 12h14",
  trash: "M4 7h16M9 7V4h6v3M6 7l1 14h10l1-14M10 11v6M14 11v6",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  move: "M4 12h15M14 7l5 5-5 5",
  upload: "M12 16V4M7 9l5-5 5 5M4 16v4h16v-4",
  download: "M12 4v12M7 11l5 5 5-5M4 16v4h16v-4",
  folder: "M3 6h6l2 2h10v11H3z",
  folderPlus: "M3 6h6l2 2h10v11H3zM12 11v5M9.500 13.500h5",
  file: "M6 3h9l4 4v14H6zM15 3v4h4",
  disc: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18zM12 10a2 2 0 1 0 0 4 2 2 0 0 0 0-4z",
  disk: "M4 5h16v14H4zM4 14h16M16 16.500h.01",
  cpu: "M7 7h10v10H7zM10 10h4v4h-4zM10 3v4M14 3v4M10 17v4M14 17v4M3 10h4M3 14h4M17 10h4M17 14h4",
  memory: "M3 8h18v9H3zM7 8v5M12 8v5M17 8v5M6 17v2M18 17v2",
  search: "M11 4a7 7 0 1 0 0 14 7 7 0 0 0 0-14zM16 16l5 5",
  more: "M12 5.500h.01M12 12h.01M12 18.500h.01",
  down: "M6 9l6 6 6-6",
  up: "M6 15l6-6 6 6",
  right: "M9 6l6 6-6 6",
  left: "M15 6l-6 6 6 6",
  close: "M6 6l12 12M18 6L6 18",
  check: "M5 12l5 5L20 7",
  warn: "M12 3L2 20h20zM12 10v4M12 17h.01",
  info: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18zM12 11v6M12 7.500h.01",
  menu: "M4 6h16M4 12h16M4 18h16",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.500 1.500M17.500 17.500L19 19M19 5l-1.500 1.500M6.500 17.500L5 19",
  moon: "M20 14A8.500 8.500 0 0 1 10 4a8.500 8.500 0 1 0 10 10z",
  language: "M4 5h9M8.500 3v2M11 5c-1 4-4 7-7 8M6 8c1 3 4 5 6 5.500M12 21l4.500-11L21 21M13.500 17.500h6",
  logout: "M14 4H5v16h9M10 12h11M17 8l4 4-4 4",
  power: "M12 3v9M6.500 7a8 8 0 1 0 11 0",
  shield: "M12 3l8 3v6c0 5-4 8-8 9-4-1-8-4-8-9V6z",
  service: "M4 4h7v7H4zM13 4h7v7h-7zM4 13h7v7H4zM16.500 13v7M13 16.500h7",
  bundle: "M4 8l8-4 8 4v9l-8 4-8-4zM4 8l8 4 8-4M12 12v9",
  popout: "M14 4h6v6M20 4l-9 9M18 14v6H4V6h6",
  refresh: "M20 12a8 8 0 1 1-3-6.200M20 3v5h-5",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name, small }: { name: IconName; small?: boolean }) {
  return (
    <svg class={small ? "icon small" : "icon"} viewBox="0 0 24 24" aria-hidden="true">
      <path d={PATHS[name]} />
    </svg>
  );
}
