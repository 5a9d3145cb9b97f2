/** Hosts with labels on real sockets: what crosses into a rack, as the downloads' own explanations say. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { test, type TestContext } from "node:test";
import { DaemonClient } from "../../src/cli/daemon-client.ts";
import { type Explanation, readExplanation } from "../../src/protocol/explanation.ts";
import { startSite, type SiteOptions, type TestHost } from "./site.test.ts";

const CONTENT = randomBytes(12 * 1024 * 1024);
const RACK_SIZE = 3;
/** Slow enough for all to be at it at the same time. */
const UPLOAD_BYTES_PER_SECOND = 4 * 1024 * 1024;

async function startOrigin(t: TestContext): Promise<string> {
  const server = createServer((request, response) => {
    response.writeHead(200, { "content-length": CONTENT.length, etag: '"1"' });
    response.end(request.method === "HEAD" ? undefined : CONTENT);
  });
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/file`;
}

async function download(host: TestHost, url: string): Promise<Explanation> {
  const { signal } = new AbortController();
  const content = await new DaemonClient(host.socketPath, { startByte: 0, unordered: false, readExplanation }).open({ source: { url, headers: {} }, backToSource: false }, signal);
  const chunks: Uint8Array[] = [];
  for await (const chunk of content.read({ startByte: 0, endByte: undefined }, signal)) chunks.push(chunk);
  assert.ok(Buffer.concat(chunks).equals(CONTENT));
  const explanation = content.explanation();
  content.close();
  assert.ok(explanation !== undefined);
  return explanation;
}

const rackOf = (host: number): number => Math.floor(host / RACK_SIZE);
/** Under this name or another. */
const labelled = (label: string): Partial<SiteOptions> => ({ labelsOf: (host) => ({ [label]: `rack-${rackOf(host)}` }) });

/** Two racks of three and a seed in neither. @returns copies of the file that came into each from outside */
async function copiesIntoRacks(t: TestContext, known: Partial<SiteOptions>): Promise<readonly number[]> {
  const site = await startSite(t, { hosts: 2 * RACK_SIZE, uploadBytesPerSecond: UPLOAD_BYTES_PER_SECOND, ...known });
  const { peers } = (await (await fetch(`http://127.0.0.1:${site.supernode.address.port}/v1/peers`)).json()) as { peers: { peerId: string; port: number }[] };
  const rackByPeer = new Map(site.hosts.map(({ peerPort }, host) => [peers.find(({ port }) => port === peerPort)?.peerId, rackOf(host)]));
  const url = await startOrigin(t);
  const told = await Promise.all(site.hosts.map((host) => download(host, url)));
  const outside = [0, 0];
  for (const [host, { neighbours }] of told.entries()) {
    for (const { peerId, bytes } of neighbours) if (rackByPeer.get(peerId) !== rackOf(host)) outside[rackOf(host)] = (outside[rackOf(host)] as number) + bytes;
  }
  return outside.map((bytes) => bytes / CONTENT.length);
}

function assertOnce(t: TestContext, copies: readonly number[]): void {
  t.diagnostic(`copies into the racks: ${copies.map((count) => count.toFixed(2)).join(", ")}`);
  for (const count of copies) assert.ok(count >= 1 && count <= 1.15, `${count} copies came into a rack`);
}

test("hosts that say in which rack they stand bring each piece into it about once; of others it is not known", { timeout: 90_000 }, async (t) => {
  assertOnce(t, await copiesIntoRacks(t, labelled("rack")));
  const unknown = await copiesIntoRacks(t, labelled("room"));
  t.diagnostic(`of whom it is not known: ${unknown.map((copies) => copies.toFixed(2)).join(", ")}`);
  assert.ok(Math.max(...unknown) > 1.3, `${unknown.join(", ")} copies: nothing is shown`);
});

test("hosts that say nothing do the same where the supernode knows the racks' networks", { timeout: 90_000 }, async (t) => {
  const networkLabels = [0, 1].map((rack) => ({ network: `127.0.${rack + 2}.0/24`, labels: { rack: `rack-${rack}` } }));
  assertOnce(t, await copiesIntoRacks(t, { networkLabels, addressOf: (host) => `127.0.${rackOf(host) + 2}.${host + 1}` }));
});
