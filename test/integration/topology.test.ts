/** Hosts with labels on real sockets: what crosses into a rack, as the downloads' own explanations say. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test, type TestContext } from "node:test";
import { DaemonClient } from "../../src/cli/daemon-client.ts";
import type { Explanation } from "../../src/protocol/explanation.ts";
import { serveContent } from "./lib/peers.ts";
import { startSite, type SiteOptions, type TestHost } from "./site.test.ts";

const CONTENT = randomBytes(12 * 1024 * 1024);
const RACK_SIZE = 3;
/** Slow enough for all to be at it at the same time. */
const UPLOAD_BYTES_PER_SECOND = 4 * 1024 * 1024;

async function download(host: TestHost, url: string): Promise<Explanation> {
  const { signal } = new AbortController();
  const content = await new DaemonClient(host.socketPath, { startByte: 0, unordered: false }).open({ source: { url, headers: {} }, backToSource: false }, signal);
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

interface Copies {
  /** Of the file, that came into each group from hosts outside of it. */
  readonly entered: readonly number[];
  /** As far as they came from the supernode. */
  readonly fromSeed: readonly number[];
}

/** All hosts fetch one file at once. @param groupOf of a host, by its number */
async function copiesInto(t: TestContext, hosts: number, groupOf: (host: number) => number, known: Partial<SiteOptions>): Promise<Copies> {
  const site = await startSite(t, { hosts, uploadBytesPerSecond: UPLOAD_BYTES_PER_SECOND, ...known });
  const { peers } = (await (await fetch(`http://127.0.0.1:${site.supernode.address.port}/v1/peers`)).json()) as { peers: { peerId: string; port: number }[] };
  const groupByPeer = new Map(site.hosts.map(({ peerPort }, host) => [peers.find(({ port }) => port === peerPort)?.peerId, groupOf(host)]));
  const url = await serveContent(t, CONTENT);
  const told = await Promise.all(site.hosts.map((host) => download(host, url)));
  const groupCount = groupOf(hosts - 1) + 1;
  const [entered, fromSeed] = [Array.from({ length: groupCount }, () => 0), Array.from({ length: groupCount }, () => 0)];
  for (const [host, { neighbours }] of told.entries()) {
    const group = groupOf(host);
    for (const { peerId, bytes, seed } of neighbours) {
      if (groupByPeer.get(peerId) !== group) entered[group] = (entered[group] as number) + bytes;
      if (seed) fromSeed[group] = (fromSeed[group] as number) + bytes;
    }
  }
  const copies = (bytes: readonly number[]): readonly number[] => bytes.map((count) => count / CONTENT.length);
  return { entered: copies(entered), fromSeed: copies(fromSeed) };
}

/** Two racks of three and a seed in neither. */
const copiesIntoRacks = async (t: TestContext, known: Partial<SiteOptions>): Promise<readonly number[]> => (await copiesInto(t, 2 * RACK_SIZE, rackOf, known)).entered;

function assertOnce(t: TestContext, copies: readonly number[]): void {
  t.diagnostic(`copies that came in: ${copies.map((count) => count.toFixed(2)).join(", ")}`);
  for (const count of copies) assert.ok(count >= 1 && count <= 1.15, `${count} copies came in`);
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

test("a supernode in a third region is read about once per region, and each rack in them about once from outside", { timeout: 90_000 }, async (t) => {
  const regionOf = (host: number): number => host >> 2;
  const known: Partial<SiteOptions> = {
    supernodeLabels: { region: "far" },
    labelsOf: (host) => ({ region: `region-${regionOf(host)}`, rack: `rack-${host >> 1}` }),
  };
  const regions = await copiesInto(t, 8, regionOf, known);
  assertOnce(t, regions.entered);
  const fromSeed = regions.fromSeed.reduce((sum, copies) => sum + copies, 0);
  t.diagnostic(`from the supernode into both: ${fromSeed.toFixed(2)}`);
  assert.ok(fromSeed <= 2 * 1.15, `${fromSeed} copies left the supernode`);
  assertOnce(t, (await copiesInto(t, 8, (host) => host >> 1, known)).entered);
});
