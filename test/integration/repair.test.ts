/** A host whose disk loses pieces of a file that all have had for long: no seed takes part in it any more. Real parts, one process. */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { openSync, closeSync, writeSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { PeerNode } from "../../src/peer/peer-node.ts";
import { startSupernode, type Supernode } from "../../src/supernode/supernode.ts";
import { supernodeConfig } from "./lib/supernode-config.ts";
import { log, MIB, startPeer, temporaryFolder } from "./lib/peers.ts";

async function startSite(t: TestContext): Promise<Supernode> {
  const supernode = await startSupernode(supernodeConfig(temporaryFolder(t)), { log, scheduler: { emptyTaskMs: 200, disconnectedPeerMs: 200 } });
  t.after(() => supernode.close());
  return supernode;
}

test("a piece that a resting holder finds damaged comes from the seed, which is called back for it", { timeout: 60_000 }, async (t) => {
  const content = randomBytes(8 * MIB);
  const requests: string[] = [];
  const web = createServer((request, response) => {
    requests.push(request.method ?? "");
    response.writeHead(200, { etag: '"v1"', "content-length": content.length });
    response.end(request.method === "HEAD" ? undefined : content);
  });
  await new Promise<void>((resolve) => void web.listen(0, "127.0.0.1", resolve));
  t.after(() => void web.close());
  const url = `http://127.0.0.1:${(web.address() as AddressInfo).port}/file`;
  const source = { url, headers: {}, digest: `sha256:${createHash("sha256").update(content).digest("hex")}` };
  const supernode = await startSite(t);
  const directory = temporaryFolder(t);
  const { signal } = new AbortController();
  const openAt = (node: PeerNode) => node.open({ source, backToSource: false }, signal);
  const readAll = async (opened: Awaited<ReturnType<typeof openAt>>, startByte: number, endByte: number | undefined): Promise<Buffer> => {
    const chunks: Uint8Array[] = [];
    for await (const chunk of opened.read({ startByte, endByte }, signal)) chunks.push(chunk);
    return Buffer.concat(chunks);
  };

  const first = await startPeer(t, supernode, directory);
  const opened = await openAt(first);
  assert.ok((await readAll(opened, 0, undefined)).equals(content));
  const { taskId } = opened.info;
  opened.close();
  await first.close();
  const readCount = (): number => requests.filter((method) => method === "GET").length;
  const readBefore = readCount();

  const file = openSync(join(directory, "cache/tasks", String(taskId).slice(0, 2), String(taskId), "data"), "r+");
  writeSync(file, Buffer.from([(content[7 * MIB] as number) ^ 1]), 0, 1, 7 * MIB);
  closeSync(file);
  // What was on disk at the start is looked at when it is first read.
  const holder = await startPeer(t, supernode, directory);
  const again = await openAt(holder);
  assert.ok((await readAll(again, 0, MIB)).equals(content.subarray(0, MIB)));
  const seedIsAtIt = async (): Promise<boolean> => {
    const { tasks } = (await (await fetch(`http://127.0.0.1:${supernode.address.port}/v1/tasks`)).json()) as { tasks: unknown[] };
    return tasks.length > 0;
  };
  while (await seedIsAtIt()) await new Promise((resolve) => setTimeout(resolve, 20));
  assert.ok((await readAll(again, MIB, undefined)).equals(content.subarray(MIB)));
  again.close();
  assert.equal(readCount(), readBefore, "the origin was read again");
  assert.equal(holder.tasks()[0]?.complete, true);
});
