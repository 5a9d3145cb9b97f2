/** An origin that serves each client one connection at a time (nginx: limit_conn), and a file long enough for several. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { pino } from "pino";
import { HttpOrigin } from "../../src/origin/http-origin.ts";
import { PeerNode } from "../../src/peer/peer-node.ts";
import { startSupernode } from "../../src/supernode/supernode.ts";
import { cacheIn, NO_LIMITS, supernodeConfig } from "./lib/supernode-config.ts";

const log = pino({ level: process.env["TEST_LOG"] ?? "silent" });
const MIB = 1 << 20;

function folder(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), "dragonfly-test-"));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

test("a long file comes from an origin that serves one connection at a time", { timeout: 90_000 }, async (t) => {
  const content = randomBytes(96 * MIB);
  let active = 0;
  const web = createServer((request, response) => {
    const [, start = "0", end = ""] = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "") ?? [];
    const from = Number(start);
    const to = end === "" ? content.length : Number(end) + 1;
    const head = { etag: '"v1"', "accept-ranges": "bytes", "content-length": to - from };
    if (request.method === "HEAD") return void response.writeHead(200, head).end();
    if (active >= 1) {
      return void response.writeHead(503, { "content-length": 0 }).end();
    }
    active++;
    response.on("close", () => void active--);
    response.writeHead(206, { ...head, "content-range": `bytes ${from}-${to - 1}/${content.length}` });
    let at = from;
    const timer = setInterval(() => {
      if (at < to && !response.destroyed) response.write(content.subarray(at, Math.min(to, (at += 256 * 1024))));
      else {
        clearInterval(timer);
        response.end();
      }
    }, 10);
  });
  await new Promise<void>((resolve) => void web.listen(0, "127.0.0.1", resolve));
  t.after(() => void (web.closeAllConnections(), web.close()));
  const supernode = await startSupernode(supernodeConfig(folder(t)), { log });
  t.after(() => supernode.close());
  const origin = new HttpOrigin({ userAgent: "peer" });
  const node = await PeerNode.start(
    { program: "dfdaemon", version: "0", supernodes: [{ ...supernode.address, weight: 1 }], joinToken: undefined, peerListen: { host: "127.0.0.1", port: 0 }, advertiseHost: "127.0.0.1", cache: cacheIn(folder(t)), limits: NO_LIMITS, labels: {} },
    { origin, log },
  );
  t.after(async () => {
    await node.close();
    await origin.close();
  });
  const { signal } = new AbortController();
  let receivedBytes = 0;
  const opened = await node.open({ source: { url: `http://127.0.0.1:${(web.address() as AddressInfo).port}/f`, headers: {} }, backToSource: true }, signal);
  for await (const chunk of opened.read({ startByte: 0, endByte: undefined }, signal)) receivedBytes += chunk.length;
  assert.equal(receivedBytes, content.length);
});
