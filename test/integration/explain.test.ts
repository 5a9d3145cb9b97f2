/** What downloads were bound by, where one thing is slow on purpose: supernode, dfdaemons and origin on real sockets. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { createServer, request as httpRequest } from "node:http";
import { text } from "node:stream/consumers";
import type { AddressInfo } from "node:net";
import { test, type TestContext } from "node:test";
import { setTimeout as sleepFor } from "node:timers/promises";
import { DaemonClient } from "../../src/cli/daemon-client.ts";
import type { Explanation } from "../../src/protocol/explanation.ts";
import { startSite, type TestHost, type TestSite } from "./site.test.ts";

const CONTENT = randomBytes(6 * 1024 * 1024);
const RATE = 2 * 1024 * 1024;

/** @param bytesPerSecond undefined: as fast as it goes */
async function startOrigin(t: TestContext, bytesPerSecond?: number): Promise<string> {
  const server = createServer((request, response) => {
    response.writeHead(200, { "content-length": CONTENT.length, etag: '"1"' });
    if (request.method === "HEAD") return void response.end();
    const send = async (): Promise<void> => {
      const step = 256 * 1024;
      for (let at = 0; at < CONTENT.length; at += step) {
        if (bytesPerSecond !== undefined) await sleepFor((step * 1000) / bytesPerSecond);
        response.write(CONTENT.subarray(at, at + step));
      }
      response.end();
    };
    void send();
  });
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/file-${randomBytes(4).toString("hex")}`;
}

/** As dfget does. */
async function download(host: TestHost, url: string, limitBytesPerSecond?: number): Promise<Explanation> {
  const { signal } = new AbortController();
  const content = await new DaemonClient(host.socketPath, { startByte: 0, unordered: false }).open({ source: { url, headers: {} }, backToSource: false, limitBytesPerSecond }, signal);
  let lengthBytes = 0;
  for await (const chunk of content.read({ startByte: 0, endByte: undefined }, signal)) lengthBytes += chunk.length;
  assert.equal(lengthBytes, CONTENT.length);
  content.close();
  const explanation = content.explanation();
  assert.ok(explanation !== undefined, "the daemon explains every download");
  return explanation;
}

function assertBound(explanation: Explanation, bound: string): void {
  assert.equal(explanation.boundBy, bound, JSON.stringify(explanation));
  const told = Object.values(explanation.spentMs).reduce((sum, each) => sum + each, 0);
  // To a ms or so for each turn: nothing is left out, nothing counted twice.
  assert.ok(Math.abs(told - explanation.tookMs) <= Math.max(30, explanation.tookMs * 0.05), JSON.stringify(explanation));
}

/** The log's lines, once there are so many. They are written when the last piece is counted: who reads may have it before. */
async function finishedTasks({ lines }: TestSite, count: number): Promise<readonly Explanation[]> {
  const told = (): readonly string[] => lines.filter((line) => line.includes('"a task is complete"'));
  // oxlint-disable-next-line no-await-in-loop -- polls
  while (told().length < count) await sleepFor(10);
  return told().map((line) => JSON.parse(line) as Explanation);
}

async function ask(host: TestHost | TestSite["supernode"], method: string, path: string, body?: object): Promise<unknown> {
  const where = "socketPath" in host ? { socketPath: host.socketPath } : { host: "127.0.0.1", port: host.address.port };
  const headers = body === undefined ? {} : { "content-type": "application/json" };
  const answer = await new Promise<string>((resolve, reject) => {
    const sent = httpRequest({ ...where, method, path, headers }, (response) => void text(response).then(resolve, reject));
    sent.on("error", reject).end(body === undefined ? undefined : JSON.stringify(body));
  });
  return JSON.parse(answer);
}

test("a slow origin, then what is here already: said by daemon, supernode and log alike", { timeout: 60_000 }, async (t) => {
  const site = await startSite(t, { hosts: 1 });
  const [host] = site.hosts as readonly [TestHost];
  const cold = await download(host, await startOrigin(t, RATE));
  assertBound(cold, "origin");
  assert.ok(cold.firstByteMs !== null && cold.firstByteMs < cold.tookMs && cold.firstByteMs >= cold.openedMs, JSON.stringify(cold));
  assert.deepEqual([cold.bytes.seedBytes, cold.bytes.cacheBytes, cold.neighbours.length], [CONTENT.length, 0, 1]);
  assert.ok(cold.pieces.offered > 0);

  const { tasks } = (await ask(host, "GET", "/v1/tasks")) as { tasks: { taskId: string; complete: boolean; explanation: Explanation }[] };
  const [task] = tasks;
  assert.deepEqual([tasks.length, task?.complete, task?.explanation.boundBy], [1, true, "origin"]);
  let told: Explanation | undefined;
  while (told === undefined) {
    // oxlint-disable-next-line no-await-in-loop -- the supernode hears of it once the last piece is counted
    const { members } = (await ask(site.supernode, "GET", `/v1/tasks/${task?.taskId ?? ""}`)) as { members: { explanation: Explanation | null }[] };
    told = members.find(({ explanation }) => explanation !== null)?.explanation ?? undefined;
  }
  assert.equal(told.boundBy, "origin");
  const finished = await finishedTasks(site, 1);
  assert.deepEqual(finished.map(({ boundBy }) => boundBy), ["origin"], "one line for each task that has come");
});

test("--limit-rate is the download's own limit, not a slow neighbour", { timeout: 60_000 }, async (t) => {
  const site = await startSite(t, { hosts: 1 });
  const [host] = site.hosts as readonly [TestHost];
  assertBound(await download(host, await startOrigin(t), RATE), "downlink");
});

test("the host's limit is what several downloads wait for that share it, whichever of them is held up", { timeout: 60_000 }, async (t) => {
  const site = await startSite(t, { hosts: 1 });
  const [host] = site.hosts as readonly [TestHost];
  await ask(host, "PUT", "/v1/limits", { downloadBytesPerSecond: 2 * RATE });
  const urls = await Promise.all([startOrigin(t), startOrigin(t), startOrigin(t)]);
  for (const explanation of await Promise.all(urls.map((url) => download(host, url)))) assertBound(explanation, "downlink");
});

test("a slow seed, and slow neighbours, are told apart", { timeout: 60_000 }, async (t) => {
  const site = await startSite(t, { hosts: 5 });
  const [first, second, third, ...others] = site.hosts as readonly [TestHost, TestHost, TestHost, ...TestHost[]];
  await ask(site.supernode, "PUT", "/v1/limits", { uploadBytesPerSecond: RATE });
  const url = await startOrigin(t);
  assertBound(await download(first, url), "seed");

  for (const host of [second, ...others]) await download(host, url);
  await ask(site.supernode, "PUT", "/v1/limits", { uploadBytesPerSecond: 64 * 1024 });
  // Four of them: the seed, which has its share of what is waited for, and eight pieces under way as each of them, is one of five.
  for (const host of [first, second, ...others]) await ask(host, "PUT", "/v1/limits", { uploadBytesPerSecond: RATE / 4 });
  const fromNeighbours = await download(third, url);
  assertBound(fromNeighbours, "neighbours");
  const { peerBytes } = fromNeighbours.bytes;
  assert.ok(peerBytes > CONTENT.length * 0.8, JSON.stringify(fromNeighbours));
  const hosts = fromNeighbours.neighbours.filter(({ seed }) => !seed);
  assert.equal(hosts.reduce((sum, { bytes }) => sum + bytes, 0), peerBytes);
  assert.equal(fromNeighbours.neighbours[0]?.seed, false, "who gave most comes first");

  const again = await download(third, url);
  assert.equal(again.bytes.cacheBytes, CONTENT.length);
  assert.ok(["reader", "disk", "waiting"].includes(again.boundBy ?? ""), JSON.stringify(again));
});

test("what a finished task is said to have come from adds up to the file, also when the last pieces came together", { timeout: 60_000 }, async (t) => {
  const site = await startSite(t, { hosts: 3 });
  for (let round = 0; round < 20; round++) {
    const url = await startOrigin(t);
    // oxlint-disable-next-line no-await-in-loop -- few at a time, so that pieces come fast
    for (const host of site.hosts) await download(host, url);
  }
  const finished = await finishedTasks(site, 20 * 3);
  assert.equal(finished.length, 20 * 3);
  for (const { bytes, neighbours } of finished) {
    assert.equal(bytes.seedBytes + bytes.peerBytes + bytes.originBytes, CONTENT.length);
    assert.equal(neighbours.reduce((sum, neighbour) => sum + neighbour.bytes, 0), CONTENT.length);
  }
});
