/** Pieces over HTTP count as upload; who may have them, test/integration/swarm.test.ts says. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { test, type TestContext } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import type { TaskId } from "../protocol/ids.ts";
import { servePieces } from "./piece-http.ts";
import { RateGate } from "./rate-gate.ts";
import type { TaskSession } from "./task-session.ts";

const TASK = "a".repeat(64) as TaskId;
const LENGTH_BYTES = 100_000;

/** A task whose only piece is here, and whose tickets are all good. */
function sessionOf(gate: RateGate): TaskSession {
  const session = {
    lengthBytes: LENGTH_BYTES,
    pieceLengthBytes: LENGTH_BYTES,
    uploadFlow: gate.flow("normal"),
    tickets: { verify: () => undefined },
    stored: {
      have: { has: (piece: number) => piece === 0 },
      proofOf: () => undefined,
      read: (offset: number, into: Uint8Array) => Promise.resolve(void into.fill(7 + offset)),
    },
  };
  return session as unknown as TaskSession;
}

const headers = { authorization: "Bearer any", "x-dragonfly-peer": "host-1-00000000" };

async function serve(t: TestContext, session: TaskSession, gate: RateGate): Promise<number> {
  const server = createServer((request, response) => servePieces(request, response, { find: () => Promise.resolve(session), limit: gate }));
  t.after(() => {
    gate.close();
    server.closeAllConnections();
    server.close();
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  return (server.address() as AddressInfo).port;
}

test("a piece asked for over HTTP waits for the host's upload limit, like any other, and counts", { timeout: 20_000 }, async (t) => {
  const gate = new RateGate(10);
  const port = await serve(t, sessionOf(gate), gate);
  for (const path of ["pieces/0", "content"]) {
    gate.setRate(10);
    const before = gate.passedBytes;
    const asked = fetch(`http://127.0.0.1:${port}/v1/tasks/${TASK}/${path}`, { headers }).then(async (answer) => [answer.status, (await answer.arrayBuffer()).byteLength]);
    while (gate.waitingCount === 0) await turn();
    assert.ok(gate.passedBytes - before < 1000, "at ten bytes per second hardly any");
    gate.setRate(undefined);
    assert.deepEqual(await asked, [200, LENGTH_BYTES]);
    assert.equal(gate.passedBytes - before, LENGTH_BYTES);
  }
});

test("a long answer is cut when its ticket runs out", { timeout: 20_000 }, async (t) => {
  const gate = new RateGate(undefined);
  let looks = 0;
  const session = Object.assign(sessionOf(gate), {
    lengthBytes: 1 << 20, pieceLengthBytes: 1 << 20,
    tickets: { verify: () => void (++looks > 3 && assert.fail("it has run out")) },
  });
  const port = await serve(t, session, gate);
  const answer = await fetch(`http://127.0.0.1:${port}/v1/tasks/${TASK}/pieces/0`, { headers });
  assert.equal(answer.status, 200);
  await assert.rejects(answer.arrayBuffer());
  assert.equal(gate.passedBytes, 2 * 256 * 1024);
});

test("content of which a piece is missing is not begun, were it the last byte's", { timeout: 20_000 }, async (t) => {
  const gate = new RateGate(undefined);
  const session = Object.assign(sessionOf(gate), { lengthBytes: LENGTH_BYTES + 1 });
  const port = await serve(t, session, gate);
  const ask = async (range: string): Promise<number> => (await fetch(`http://127.0.0.1:${port}/v1/tasks/${TASK}/content`, { headers: { ...headers, range } })).status;
  assert.deepEqual([await ask(`bytes=0-${LENGTH_BYTES - 1}`), await ask(`bytes=0-${LENGTH_BYTES}`)], [206, 404]);
});

test("who hangs up while the limit makes him wait leaves the queue", { timeout: 20_000 }, async (t) => {
  const gate = new RateGate(10);
  const port = await serve(t, sessionOf(gate), gate);
  const gone = new AbortController();
  const asked = fetch(`http://127.0.0.1:${port}/v1/tasks/${TASK}/pieces/0`, { headers, signal: gone.signal }).then((answer) => answer.arrayBuffer());
  while (gate.waitingCount === 0) await turn();
  gone.abort();
  await assert.rejects(asked);
  while (gate.waitingCount > 0) await turn();
});
