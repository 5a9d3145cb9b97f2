import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { type TestContext, test } from "node:test";
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

interface Call {
  /** Arguments of Node itself. */
  readonly nodeArgs?: readonly string[];
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
}

/** A folder, and in it the socket of a daemon that has a file of five bytes. */
async function place(t: TestContext): Promise<string> {
  const directory = mkdtempSync(join(tmpdir(), "dfget-start-"));
  mkdirSync(join(directory, "cache"));
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
  await once(daemon.listen(join(directory, "d.sock")), "listening");
  return directory;
}

/** Runs dfget there. @returns what it and the runtime wrote on stderr */
async function dfget(directory: string, { nodeArgs = [], args, env = {} }: Call): Promise<string> {
  const command = [...nodeArgs, join(import.meta.dirname, "dfget.ts"), ...args];
  const child = spawn(process.execPath, command, { env: { ...process.env, XDG_CACHE_HOME: join(directory, "cache"), ...env } });
  const [stderr, [code]] = await Promise.all([text(child.stderr), once(child, "exit") as Promise<[number]>]);
  assert.equal(code, 0, stderr);
  return stderr;
}

function download(directory: string): readonly string[] {
  return ["http://o.example/f", "-O", join(directory, "out"), "--force", "--socket", join(directory, "d.sock"), "--quiet", "--json"];
}

// On a small core every download pays for what is loaded (on-demand.ts).
test("dfget through a daemon loads no schema library and no YAML reader, whatever it is to say of the download", async (t) => {
  const directory = await place(t);
  const hook = `data:text/javascript,${encodeURIComponent(REPORT_PACKAGES)}`;
  const stderr = await dfget(directory, { nodeArgs: ["--import", hook], args: download(directory) });
  assert.equal(readFileSync(join(directory, "out"), "utf8"), "bytes");
  assert.equal(stderr, "commander picocolors");
});

test("dfget keeps its compiled code, and the next one takes it from there", async (t) => {
  const directory = await place(t);
  const env = { NODE_DEBUG_NATIVE: "COMPILE_CACHE" };
  assert.doesNotMatch(await dfget(directory, { args: download(directory), env }), /dfget-transfer.* was accepted/);
  assert.match(await dfget(directory, { args: download(directory), env }), /dfget-transfer.* was accepted/);
});
