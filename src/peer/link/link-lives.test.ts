/** How links come about between two hosts, which of two stays, and what ends them. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingMessage } from "node:http";
import { type AddressInfo, connect, createServer as createRawServer, type Socket } from "node:net";
import { Duplex } from "node:stream";
import { test, type TestContext } from "node:test";
import { encodeDataHeader, LINK_PROTOCOL } from "../../protocol/link-frames.ts";
import type { PeerId } from "../../protocol/ids.ts";
import { LinkTable } from "./link-table.ts";

interface Clock {
  nowMs: number;
}

interface Host {
  readonly table: LinkTable;
  readonly port: number;
  /** What the driver is told, a line each. */
  readonly heard: string[];
}

const LOCAL = "127.0.0.1";

/** @param isLimited its download limit holds all payload back */
async function openHost(t: TestContext, name: string, clock: Clock = { nowMs: 0 }, isLimited = false): Promise<Host> {
  const none = (): undefined => undefined;
  const heard: string[] = [];
  const table = new LinkTable({
    handshake: { token: "secret", ownPeerId: name as PeerId, randomBytes },
    nowMs: () => clock.nowMs,
    uploadLimit: { pass: none, cancel: none, chunkBytes: () => Infinity },
    downloadLimit: { readBytes: () => Infinity, pay: () => !isLimited, count: none },
    events: {
      opened: (_link, peerId) => heard.push(`opened ${peerId}`),
      closed: (_link, peerId, why) => heard.push(`closed ${peerId}: ${why}`),
      unreachable: (peerId, why) => heard.push(`unreachable ${peerId}: ${why}`),
      frame: none, payloadTarget: none, payload: none,
    },
  });
  const server = createServer();
  server.on("upgrade", (request: IncomingMessage, socket: Socket, head: Buffer) => table.accept(request, socket, head));
  await new Promise<void>((resolve) => void server.listen(0, LOCAL, resolve));
  t.after(() => {
    table.close();
    server.close();
  });
  return { table, port: (server.address() as AddressInfo).port, heard };
}

async function until(isSo: () => boolean): Promise<void> {
  const endMs = performance.now() + 20_000;
  while (!isSo()) {
    assert.ok(performance.now() < endMs, "it never is");
    // oxlint-disable-next-line no-await-in-loop -- until it is so
    await new Promise(setImmediate);
  }
}

function linkTo(host: Host, name: string): ReturnType<LinkTable["get"]> {
  return host.table.get(name as PeerId);
}

test("who is not the one that was dialled is told of, and may be dialled again", async (t) => {
  const [a, b] = [await openHost(t, "a"), await openHost(t, "b")];
  for (let round = 0; round < 2; round++) {
    a.table.dial("c" as PeerId, LOCAL, b.port);
    // oxlint-disable-next-line no-await-in-loop -- one after the other
    await until(() => a.heard.length > round);
  }
  assert.deepEqual(a.heard, ["unreachable c: it is b, not c", "unreachable c: it is b, not c"]);
  assert.equal(a.table.count, 0);
});

test("a link that has ended is nobody's any more, and the same host may be dialled again", async (t) => {
  const [a, b] = [await openHost(t, "a"), await openHost(t, "b")];
  a.table.dial("b" as PeerId, LOCAL, b.port);
  await until(() => a.heard.length === 1 && b.heard.length === 1);
  const link = linkTo(a, "b") ?? assert.fail("no link");
  assert.equal(a.table.byId(link.linkId), link);
  link.close("for a test");
  await until(() => b.heard.length === 2);
  assert.deepEqual([a.heard, b.heard], [["opened b", "closed b: for a test"], ["opened a", "closed a: the other side closed it"]]);
  assert.deepEqual([a.table.byId(link.linkId), a.table.count, b.table.count], [undefined, 0, 0]);
  a.table.dial("b" as PeerId, LOCAL, b.port);
  await until(() => a.heard.length === 3);
  assert.equal(a.heard[2], "opened b");
});

test("of two links that both dialled, the one of the smaller id stays, on both sides", async (t) => {
  for (const order of [0, 1]) {
    // oxlint-disable-next-line no-await-in-loop -- one after the other
    const [a, b] = [await openHost(t, "a"), await openHost(t, "b")];
    const dials = [() => a.table.dial("b" as PeerId, LOCAL, b.port), () => b.table.dial("a" as PeerId, LOCAL, a.port)];
    for (const dial of order === 0 ? dials : dials.toReversed()) dial();
    const isSettled = (): boolean => linkTo(a, "b")?.dialled === true && linkTo(b, "a")?.dialled === false;
    // oxlint-disable-next-line no-await-in-loop -- likewise
    await until(isSettled);
    for (let turn = 0; turn < 100; turn++) {
      // oxlint-disable-next-line no-await-in-loop -- what still comes
      await new Promise(setImmediate);
    }
    assert.ok(isSettled());
    for (const host of [a, b]) assert.equal(host.heard.filter((line) => line.startsWith("unreachable")).length, 0);
  }
});

test("a host that comes back takes the place of its old link", async (t) => {
  const [a, b] = [await openHost(t, "a"), await openHost(t, "b")];
  a.table.dial("b" as PeerId, LOCAL, b.port);
  await until(() => b.heard.length === 1);
  const before = linkTo(b, "a");
  const again = await openHost(t, "a");
  again.table.dial("b" as PeerId, LOCAL, b.port);
  await until(() => b.heard.length === 3);
  assert.deepEqual(b.heard, ["opened a", "closed a: a newer link took its place", "opened a"]);
  assert.equal(before?.closed, true);
  assert.equal(b.table.count, 1);
});

test("a link that says nothing is asked after 2 s and dead after 6; who answers stays", async (t) => {
  t.mock.timers.enable({ apis: ["setInterval", "setTimeout"] });
  const clock = { nowMs: 0 };
  const [a, b] = [await openHost(t, "a", clock), await openHost(t, "b")];
  a.table.dial("b" as PeerId, LOCAL, b.port);
  await until(() => a.heard.length === 1 && b.heard.length === 1);
  const link = linkTo(a, "b") ?? assert.fail("no link");
  for (clock.nowMs = 1_000; clock.nowMs <= 20_000; clock.nowMs += 1_000) {
    const isAsked = clock.nowMs - link.heardMs >= 2_000;
    t.mock.timers.tick(1_000);
    // oxlint-disable-next-line no-await-in-loop -- one after the other
    if (isAsked) await until(() => link.heardMs === clock.nowMs);
  }
  assert.deepEqual(a.heard, ["opened b"], "answers in time, and no timer of the handshake is left");
  clock.nowMs = link.heardMs + 5_999;
  t.mock.timers.tick(1_000);
  assert.equal(link.closed, false);
  clock.nowMs = link.heardMs + 6_000;
  t.mock.timers.tick(1_000);
  assert.deepEqual(a.heard, ["opened b", "closed b: it was silent for 6000 ms"]);
});

test("who does not go on with his handshake is let go of after 5 s, and with the host that stops", async (t) => {
  t.mock.timers.enable({ apis: ["setInterval", "setTimeout"] });
  const host = await openHost(t, "a");
  const knock = async (): Promise<Socket> => {
    const socket = connect(host.port, LOCAL).on("error", () => undefined);
    socket.write(`GET /v1/link HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: ${LINK_PROTOCOL}\r\n\r\n`);
    await once(socket, "data");
    return socket.resume();
  };
  const slow = await knock();
  t.mock.timers.tick(5_000);
  await once(slow, "close");
  const other = await knock();
  host.table.close();
  await once(other, "close");
  assert.deepEqual(host.heard, []);
});

test("an answer that never comes to an end is not read for ever", async (t) => {
  const server = createRawServer((socket) => {
    socket.on("error", () => undefined);
    socket.write("HTTP/1.1 101 Switching Protocols\r\n" + "X: y\r\n".repeat(2_000));
  });
  await new Promise<void>((resolve) => void server.listen(0, LOCAL, resolve));
  t.after(() => server.close());
  const a = await openHost(t, "a");
  a.table.dial("b" as PeerId, LOCAL, (server.address() as AddressInfo).port);
  await until(() => a.heard.length > 0);
  assert.deepEqual(a.heard, ["unreachable b: its answer is no HTTP"]);
});

test("a link that our own limit holds back is not taken for silent, and hears from us", async (t) => {
  t.mock.timers.enable({ apis: ["setInterval", "setTimeout"] });
  const clock = { nowMs: 0 };
  const [a, b] = [await openHost(t, "a", clock, true), await openHost(t, "b", clock)];
  a.table.dial("b" as PeerId, LOCAL, b.port);
  await until(() => a.heard.length === 1 && b.heard.length === 1);
  const [link, theirs] = [linkTo(a, "b") ?? assert.fail("no link"), linkTo(b, "a") ?? assert.fail("no link")];
  link.received(Buffer.concat([encodeDataHeader(1, 0, 0, 100), new Uint8Array(100)]));
  assert.equal(link.isHeld, true);
  for (clock.nowMs = 1_000; clock.nowMs <= 20_000; clock.nowMs += 1_000) {
    t.mock.timers.tick(1_000);
    // oxlint-disable-next-line no-await-in-loop -- one after the other
    await until(() => theirs.heardMs === clock.nowMs);
  }
  assert.deepEqual([a.heard, b.heard], [["opened b"], ["opened a"]]);
});

test("4,096 links are taken at a time; one more is told to come later, and can when one has gone", async (t) => {
  t.mock.timers.enable({ apis: ["setInterval", "setTimeout"] });
  const host = await openHost(t, "a");
  const accept = (): { readonly socket: Duplex; readonly said: () => string } => {
    let said = "";
    const write = (chunk: Buffer, _encoding: string, done: () => void): void => {
      said += chunk.toString("latin1");
      done();
    };
    const socket = Object.assign(new Duplex({ read: () => undefined, write }), { setNoDelay: () => undefined, connecting: false, _handle: null });
    host.table.accept({ headers: { upgrade: LINK_PROTOCOL } } as IncomingMessage, socket as unknown as Socket, new Uint8Array(0));
    return { socket, said: () => said };
  };
  const first = accept();
  for (let count = 1; count < 4_096; count++) accept();
  assert.match(accept().said(), /^HTTP\/1\.1 503 /);
  first.socket.destroy();
  await once(first.socket, "close");
  assert.match(accept().said(), /^HTTP\/1\.1 101 /);
  assert.match(accept().said(), /^HTTP\/1\.1 503 /);
});
