import assert from "node:assert/strict";
import { connect, createServer, type AddressInfo, type Socket } from "node:net";
import { test, type TestContext } from "node:test";
import { pino } from "pino";
import { eventually } from "../mirror/lab.test.ts";
import { ProxyMetrics, ProxyRecord } from "./proxy-record.ts";
import { Tunnels } from "./tunnels.ts";

/** Two connected sockets; the second stands for what we accepted or opened. */
async function pair(t: TestContext): Promise<readonly [far: Socket, near: Socket]> {
  const { promise, resolve } = Promise.withResolvers<Socket>();
  const server = createServer({ allowHalfOpen: true }, resolve);
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  const far = connect({ port: (server.address() as AddressInfo).port, host: "127.0.0.1", allowHalfOpen: true });
  const near = await promise;
  for (const socket of [far, near]) socket.on("error", () => {});
  t.after(() => {
    far.destroy();
    near.destroy();
    server.close();
  });
  return [far, near];
}

async function joined(t: TestContext, idleMsMax?: number) {
  const [client, clientNear] = await pair(t);
  const [server, serverNear] = await pair(t);
  const record = new ProxyRecord({ log: pino({ level: "silent" }), metrics: new ProxyMetrics() }, "tunnel", { method: "CONNECT", url: "https://x" });
  const tunnels = new Tunnels(idleMsMax);
  let isOver = false;
  const over = tunnels.join(clientNear, serverNear, record).then(() => (isOver = true));
  return { client, server, record, tunnels, over, isOver: () => isOver };
}

test("a side that has said all still hears the other, and the tunnel is over when both have", async (t) => {
  const { client, server, record, tunnels, over } = await joined(t);
  client.end("question");
  let asked = "";
  server.on("data", (chunk: Buffer) => (asked += chunk.toString()));
  await new Promise((resolve) => server.once("end", resolve));
  assert.equal(asked, "question");
  let answer = "";
  client.on("data", (chunk: Buffer) => (answer += chunk.toString()));
  server.end("a long answer");
  await over;
  assert.equal(answer, "a long answer");
  assert.deepEqual([record.receivedBytes, record.sentBytes, tunnels.size], [8, 13, 0]);
});

test("a side that breaks takes the other with it", async (t) => {
  const { client, server, over } = await joined(t);
  server.resume();
  const ended = new Promise((resolve) => server.once("end", resolve));
  client.resetAndDestroy();
  await over;
  await ended;
});

test("a client who is gone before his server is reached leaves nothing open", async (t) => {
  const [, client] = await pair(t);
  const [far, server] = await pair(t);
  const gone = new Promise((resolve) => client.once("close", resolve));
  client.destroy();
  await gone;
  const ended = new Promise((resolve) => far.resume().once("end", resolve));
  const tunnels = new Tunnels();
  await tunnels.join(client, server, new ProxyRecord({ log: pino({ level: "silent" }), metrics: new ProxyMetrics() }, "tunnel", { method: "CONNECT", url: "https://x" }));
  await ended;
  assert.equal(tunnels.size, 0);
});

test("a slow reader holds up the sender, not our memory", async (t) => {
  const { client, server } = await joined(t);
  const chunk = Buffer.alloc(1 << 20);
  let sent = 0;
  while (sent < 64 && server.write(chunk)) sent++;
  for (; sent < 64; sent++) server.write(chunk);
  const before = server.writableLength;
  assert.ok(before > 32 << 20, `only ${before} bytes wait where they came from`);
  client.resume();
  await eventually(() => server.writableLength === 0, "all of it read");
});

test("a tunnel on which nothing moves is cut", async (t) => {
  const { client, server, over, isOver } = await joined(t, 200);
  for (const socket of [client, server]) socket.resume();
  client.write("x");
  assert.equal(isOver(), false);
  await over;
});

test("all that stand still are cut at the end, and then the rest", async (t) => {
  const { client, server, tunnels, over } = await joined(t);
  server.resume();
  client.write("x");
  await eventually(() => server.bytesRead === 1, "a byte through");
  tunnels.cut(60_000);
  assert.equal(tunnels.size, 1);
  tunnels.cut(0);
  await over;
});
