/** Pieces over HTTP count as upload; who may have them, test/integration/swarm.test.ts says. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
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

test("a piece asked for over HTTP waits for the host's upload limit, like any other, and counts", { timeout: 20_000 }, async (t) => {
  const gate = new RateGate(10);
  const session = sessionOf(gate);
  const server = createServer((request, response) => servePieces(request, response, { find: () => Promise.resolve(session), limit: gate }));
  t.after(() => {
    gate.close();
    server.closeAllConnections();
    server.close();
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  const { port } = server.address() as AddressInfo;
  const headers = { authorization: "Bearer any", "x-dragonfly-peer": "host-1-00000000" };
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
