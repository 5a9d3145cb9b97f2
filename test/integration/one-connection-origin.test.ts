/** An origin that serves each client one connection at a time (nginx: limit_conn), and a file long enough for several. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import { startSupernode } from "../../src/supernode/supernode.ts";
import { supernodeConfig } from "./lib/supernode-config.ts";
import { log, MIB, startPeer, temporaryFolder } from "./lib/peers.ts";

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
  const supernode = await startSupernode(supernodeConfig(temporaryFolder(t)), { log });
  t.after(() => supernode.close());
  const node = await startPeer(t, supernode);
  const { signal } = new AbortController();
  let receivedBytes = 0;
  const opened = await node.open({ source: { url: `http://127.0.0.1:${(web.address() as AddressInfo).port}/f`, headers: {} }, backToSource: true }, signal);
  for await (const chunk of opened.read({ startByte: 0, endByte: undefined }, signal)) receivedBytes += chunk.length;
  assert.equal(receivedBytes, content.length);
});
