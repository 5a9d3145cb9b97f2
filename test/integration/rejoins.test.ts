/** A supernode that registers its peers and goes away before it answers, time and again: each time it is asked once per open task. */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { pino } from "pino";
import { HttpOrigin } from "../../src/origin/http-origin.ts";
import { PeerNode } from "../../src/peer/peer-node.ts";
import { ControlServer } from "../../src/supernode/control-server.ts";
import { PeerTable } from "../../src/supernode/peer-table.ts";
import { PlaceMap } from "../../src/supernode/place-map.ts";
import { startSupernode } from "../../src/supernode/supernode.ts";
import { cacheIn, NO_LIMITS, supernodeConfig } from "./lib/supernode-config.ts";
import type { PeerId } from "../../src/protocol/ids.ts";
import { SigningKey } from "../../src/peer/membership/credentials.ts";

const log = pino({ level: "silent" });

test("a supernode that goes away time and again is asked once per open task, each time", { timeout: 40_000 }, async (t) => {
  const folder = (): string => {
    const directory = mkdtempSync(join(tmpdir(), "dragonfly-test-"));
    t.after(() => rmSync(directory, { recursive: true, force: true }));
    return directory;
  };
  const content = randomBytes(1 << 20);
  const web = createServer((request, response) => {
    response.writeHead(200, { etag: '"v1"', "content-length": content.length });
    response.end(request.method === "HEAD" ? undefined : content);
  });
  await new Promise<void>((resolve) => void web.listen(0, "127.0.0.1", resolve));
  t.after(() => void web.close());
  const url = `http://127.0.0.1:${(web.address() as AddressInfo).port}/file`;
  const supernode = await startSupernode(supernodeConfig(folder()), { log });
  const origin = new HttpOrigin({ userAgent: "peer" });
  const node = await PeerNode.start(
    { program: "dfdaemon", version: "0", supernodes: [{ ...supernode.address, weight: 1 }], joinToken: undefined, peerListen: { host: "127.0.0.1", port: 0 }, advertiseHost: "127.0.0.1", cache: cacheIn(folder()), limits: NO_LIMITS, labels: {} },
    { origin, log },
  );
  t.after(async () => {
    await node.close();
    await origin.close();
  });
  const { signal } = new AbortController();
  const opened = await node.open({ source: { url, headers: {}, digest: `sha256:${createHash("sha256").update(content).digest("hex")}` }, backToSource: false }, signal);
  for await (const _ of opened.read({ startByte: 0, endByte: undefined }, signal)) { /* to the end */ }
  await supernode.close();

  // A supernode on the same port that registers its peers, hears their joins, and dies 200 ms later.
  const perConnection: number[] = [];
  const peers = new PeerTable(() => performance.now());
  const control = new ControlServer({
    token: undefined, ownPeerId: "seed-1" as PeerId, publicKey: SigningKey.generate().publicKey, peers, placeMap: new PlaceMap([]), keepers: [], log, connectionCountMax: 10,
    onConnected: ({ channel }) => {
      perConnection.push(0);
      setTimeout(() => channel.close(), 200);
    },
    onDisconnected: () => {},
    onMessage: (_peer, message) => {
      if (message.type === "join") perConnection[perConnection.length - 1]!++;
    },
  });
  const server = createServer();
  server.on("upgrade", (request, socket, head) => void (control.handleUpgrade(request, socket, head) || socket.destroy()));
  await new Promise<void>((resolve) => server.listen(supernode.address.port, "127.0.0.1", resolve));
  t.after(() => void (control.close(), server.close()));
  while (perConnection.length < 15) await new Promise((resolve) => setTimeout(resolve, 50));
  opened.close();
  assert.ok((perConnection[13] as number) <= 1, `${perConnection[13]} joins`);
});
