/** A site's budget for an origin: a real supernode, several hosts, a real origin that counts. Bounds are loose. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout } from "node:timers/promises";
import { pino } from "pino";
import { HttpOrigin } from "../../src/origin/http-origin.ts";
import { BudgetedOrigin } from "../../src/origin/origin-budget.ts";
import { PeerNode } from "../../src/peer/peer-node.ts";
import { startSupernode } from "../../src/supernode/supernode.ts";
import { cacheIn, NO_LIMITS, supernodeConfig } from "./lib/supernode-config.ts";

const log = pino({ level: "silent" });

test("no number of hosts asks an origin more often, or reads it faster, than the site's budget says", { timeout: 90_000 }, async (t) => {
  const counted = { requests: 0, bytes: 0 };
  const block = Buffer.alloc(16 * 1024, 1);
  const web = createServer((request, response) => {
    counted.requests++;
    if (request.method === "HEAD") return void response.writeHead(200, { "content-length": 5, "accept-ranges": "bytes" }).end();
    const more = (): void => {
      while (!response.destroyed && response.write(block));
    };
    response.on("drain", more);
    more();
  });
  await new Promise<void>((resolve) => void web.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${(web.address() as AddressInfo).port}/file`;
  const folder = mkdtempSync(join(tmpdir(), "dragonfly-budget-"));
  const cache = (name: string) => cacheIn(join(folder, name));
  const originBudgets = [{ host: "127.0.0.1", bytesPerSecond: 2_000_000, requestsPerSecond: 20 }];
  const supernode = await startSupernode(supernodeConfig(join(folder, "supernode"), { originBudgets }), { log });
  const origin = new HttpOrigin();
  const nodes: PeerNode[] = [];
  for (let i = 0; i < 5; i++) {
    const config = {
      program: "dfdaemon" as const,
      version: "1",
      supernodes: [{ ...supernode.address, weight: 1 }],
      joinToken: undefined,
      peerListen: { host: "127.0.0.1", port: 0 },
      advertiseHost: undefined,
      cache: cache(`host${i}`),
      limits: NO_LIMITS,
      labels: {},
    };
    nodes.push(await PeerNode.start(config, { origin, log }));
  }
  const stop = new AbortController();
  t.after(async () => {
    stop.abort();
    await Promise.all(nodes.map((node) => node.close()));
    await origin.close();
    await supernode.close();
    web.closeAllConnections();
    web.close();
    rmSync(folder, { recursive: true, force: true });
  });
  while (!nodes.every((node) => node.ready)) await setTimeout(20);

  const hosts = nodes.map((node) => new BudgetedOrigin(origin, node.originBudget));
  const asking = hosts.map(async (host) => {
    while (!stop.signal.aborted) await host.stat({ url, headers: {} }, stop.signal).catch(() => undefined);
  });
  await setTimeout(1000);
  const [fromMs, from] = [performance.now(), counted.requests];
  await setTimeout(3000);
  const perSecond = ((counted.requests - from) * 1000) / (performance.now() - fromMs);
  assert.ok(perSecond > 5 && perSecond < 24, `${perSecond} requests per second of 20`);

  let received = 0;
  const reading = hosts.map(async (host) => {
    const { body } = await host.open({ url, headers: {} }, { startByte: 0, endByte: undefined }, undefined, stop.signal);
    for await (const chunk of body as AsyncIterable<Uint8Array>) received += chunk.length;
  });
  await setTimeout(2000);
  const [readFromMs, readFrom] = [performance.now(), received];
  await setTimeout(3000);
  const rate = ((received - readFrom) * 1000) / (performance.now() - readFromMs);
  assert.ok(rate > 500_000 && rate < 2_300_000, `${rate} bytes per second of 2000000`);
  stop.abort();
  await Promise.allSettled([...asking, ...reading]);
});
