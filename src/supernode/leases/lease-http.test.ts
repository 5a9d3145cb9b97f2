/** Who may bring a piece, and how much of one: over HTTP, before a desk that takes anything. */
import assert from "node:assert/strict";
import { createServer, request } from "node:http";
import type { AddressInfo } from "node:net";
import { test, type TestContext } from "node:test";
import { AppError } from "../../base/errors.ts";
import { SigningKey } from "../../peer/membership/credentials.ts";
import type { PeerId, TaskId } from "../../protocol/ids.ts";
import { LeaseHttp } from "./lease-http.ts";

const TASK = "a".repeat(64) as TaskId;
const OTHER_TASK = "b".repeat(64) as TaskId;
const PEER = "host-1" as PeerId;
const PIECE_BYTES = 1000;

interface Answer {
  readonly status: number | undefined;
  readonly body: { readonly code?: string; readonly digest?: string; readonly signature?: string };
  readonly connection: string | undefined;
}

interface Bring {
  readonly ticket?: string;
  readonly peerId?: string;
  readonly path?: string;
  readonly method?: string;
  readonly bytes?: Buffer;
}

async function lab(t: TestContext) {
  const key = SigningKey.generate();
  const taken: { leaseId: number; peerId: PeerId; piece: number; lengthBytes: number }[] = [];
  const leases = new LeaseHttp(
    {
      expectedBytes: (_taskId, leaseId) => {
        if (leaseId !== 7) throw new AppError("TICKET_REFUSED", "not lent");
        return PIECE_BYTES;
      },
      take: (_taskId, leaseId, peerId, piece, bytes) => {
        taken.push({ leaseId, peerId, piece, lengthBytes: bytes.length });
        return Promise.resolve({ digest: Buffer.from("digest"), signature: Buffer.from("signature") });
      },
    },
    key,
  );
  const server = createServer((asked, response) => {
    if (!leases.handleRequest(asked, response)) response.writeHead(404).end("{}");
  });
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const ticketFor = (taskId: TaskId, peerId: PeerId, expiresUnixMs = Date.now() + 60_000, by = key): string => by.signTicket({ taskId, peerId, expiresUnixMs, outageUnixMs: expiresUnixMs });
  const bring = ({ ticket, peerId = PEER, path = `/v1/tasks/${TASK}/leases/7/pieces/3`, method = "PUT", bytes = Buffer.alloc(PIECE_BYTES) }: Bring): Promise<Answer> =>
    new Promise((resolve, reject) => {
      const headers = { "x-dragonfly-peer": peerId, ...(ticket === undefined ? {} : { authorization: `Bearer ${ticket}` }) };
      const asked = request({ host: "127.0.0.1", port: (server.address() as AddressInfo).port, method, path, headers }, (response) => {
        const chunks: Buffer[] = [];
        response.on("data", (chunk: Buffer) => chunks.push(chunk));
        response.on("end", () => resolve({ status: response.statusCode, body: JSON.parse(Buffer.concat(chunks).toString()) as Answer["body"], connection: response.headers.connection }));
      });
      asked.on("error", reject).end(bytes);
    });
  return { key, taken, ticketFor, bring };
}

test("a piece with its peer's ticket is taken, and its proof is the answer", async (t) => {
  const { taken, ticketFor, bring } = await lab(t);
  const { status, body } = await bring({ ticket: ticketFor(TASK, PEER) });
  assert.equal(status, 200);
  assert.deepEqual(body, { digest: Buffer.from("digest").toString("base64"), signature: Buffer.from("signature").toString("base64") });
  assert.deepEqual(taken, [{ leaseId: 7, peerId: PEER, piece: 3, lengthBytes: PIECE_BYTES }]);
});

test("without a ticket of this site, for this task and peer, that is still good, nothing is taken", async (t) => {
  const { taken, ticketFor, bring } = await lab(t);
  const refused: readonly Bring[] = [
    {},
    { ticket: "x.y" },
    { ticket: ticketFor(OTHER_TASK, PEER) },
    { ticket: ticketFor(TASK, "host-2" as PeerId) },
    { ticket: ticketFor(TASK, PEER), peerId: "host-2" },
    { ticket: ticketFor(TASK, PEER), peerId: "no peer id" },
    { ticket: ticketFor(TASK, PEER, Date.now() - 1) },
    { ticket: ticketFor(TASK, PEER, undefined, SigningKey.generate()) },
    { ticket: ticketFor(TASK, PEER), path: `/v1/tasks/${TASK}/leases/8/pieces/3` },
  ];
  for (const [index, attempt] of refused.entries()) {
    const { status, body, connection } = await bring(attempt);
    assert.deepEqual([status, body.code, connection], [403, "TICKET_REFUSED", "close"], `attempt ${index}`);
  }
  assert.deepEqual(taken, []);
});

test("a piece has exactly its bytes", async (t) => {
  const { taken, ticketFor, bring } = await lab(t);
  const ticket = ticketFor(TASK, PEER);
  assert.equal((await bring({ ticket, bytes: Buffer.alloc(PIECE_BYTES + 1) })).body.code, "MESSAGE_TOO_LARGE");
  assert.equal((await bring({ ticket, bytes: Buffer.alloc(PIECE_BYTES - 1) })).body.code, "PROTOCOL_VIOLATION");
  assert.deepEqual(taken, []);
});

test("another method, and what only looks like the path, is somebody else's", async (t) => {
  const { taken, ticketFor, bring } = await lab(t);
  const ticket = ticketFor(TASK, PEER);
  const others: readonly Bring[] = [{ method: "POST" }, { path: `/v1/tasks/${TASK}/leases/7/pieces/x` }, { path: `/v1/tasks/${TASK.slice(1)}/leases/7/pieces/3` }];
  for (const other of others) assert.equal((await bring({ ticket, ...other })).status, 404);
  assert.deepEqual(taken, []);
});
