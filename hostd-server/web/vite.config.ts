import { defineConfig } from "vitest/config";

import { licences } from "./scripts/licences.mjs";

export default defineConfig({
  plugins: [licences()],
  base: "/",
  build: {
    target: "es2021",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    rollupOptions: { output: { manualChunks: undefined } },
    reportCompressedSize: false,
  },
  esbuild: { jsx: "automatic", jsxImportSource: "preact", legalComments: "none" },
  server: { proxy: { "/api": { target: process.env.TESSERA_HOST ?? "https://127.0.0.1:8443", secure: false, ws: true } } },
  test: { environment: "happy-dom", include: ["test/**/*.test.{ts,tsx}"] },
});
