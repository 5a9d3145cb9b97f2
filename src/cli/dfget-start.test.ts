import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { test } from "node:test";
import { encodeLocalBytesHeader, encodeLocalFrame } from "../protocol/local-frames.ts";

const REPORT_PACKAGES = `
  import { registerHooks } from "node:module";
  const packages = new Set();
  registerHooks({ load: (url, context, next) => {
    const name = /node_modules\\/([^/]+)/.exec(url)?.[1];
    if (name !== undefined) packages.add(name);
    return next(url, context);
  } });
  process.on("exit", () => process.stderr.write([...packages].sort().join(" ")));`;

// On a small core every download pays for what is loaded (on-demand.ts).
test("dfget through a daemon loads no schema library and no YAML reader, whatever it is to say of the download", async (t) => {
  const directory = mkdtempSync(join(tmpdir(), "dfget-start-"));
  t.after(() => rmSync(directory, { recursive: true }));
  const frame = (type: "info" | "end", value: unknown): Uint8Array => encodeLocalFrame(type, Buffer.from(JSON.stringify(value)));
  const sources = { seedBytes: 0, peerBytes: 0, originBytes: 0, cacheBytes: 5 };
  const daemon = createServer((socket) => {
    socket.once("data", () => {
      const answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n";
      socket.end(Buffer.concat([Buffer.from(answer), frame("info", { lengthBytes: 5, headers: {} }), encodeLocalBytesHeader(0, 5), Buffer.from("bytes"), frame("end", { sources })]));
    });
  });
  t.after(() => daemon.close());
  const socketPath = join(directory, "d.sock");
  await once(daemon.listen(socketPath), "listening");

  const output = join(directory, "out");
  const hook = `data:text/javascript,${encodeURIComponent(REPORT_PACKAGES)}`;
  const dfget = spawn(process.execPath, ["--import", hook, join(import.meta.dirname, "dfget.ts"), "http://o.example/f", "-O", output, "--socket", socketPath, "--quiet", "--json"]);
  const [stderr, [code]] = await Promise.all([text(dfget.stderr), once(dfget, "exit") as Promise<[number]>]);
  assert.deepEqual([code, readFileSync(output, "utf8")], [0, "bytes"], stderr);
  assert.equal(stderr, "commander picocolors");
});
