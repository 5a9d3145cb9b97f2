import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingMessage } from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";
import { test, type TestContext } from "node:test";
import { encodeFrame, LINK_PROTOCOL, type LinkFrame } from "../../protocol/link-frames.ts";
import type { PeerId } from "../../protocol/ids.ts";
import { LinkTable } from "./link-table.ts";

interface Lab {
  readonly port: number;
  /** What reached the driver. */
  readonly heard: (PeerId | LinkFrame["type"])[];
  /** Our end of the next connection. */
  readonly accepted: () => Promise<Socket>;
}

/** A host that takes links of those who know its token. */
async function openLab(t: TestContext): Promise<Lab> {
  const none = (): undefined => undefined;
  const heard: (PeerId | LinkFrame["type"])[] = [];
  const table = new LinkTable({
    handshake: { token: "secret", ownPeerId: "us" as PeerId, randomBytes },
    nowMs: () => performance.now(),
    uploadLimit: { pass: none, cancel: none, chunkBytes: () => Infinity },
    downloadLimit: { readBytes: () => Infinity, pay: () => true, count: none },
    events: {
      opened: (_link, peerId) => heard.push(peerId),
      frame: (_link, { type }) => heard.push(type),
      closed: none, unreachable: none, payloadTarget: none, payload: none,
    },
  });
  const server = createServer();
  server.on("upgrade", (request: IncomingMessage, socket: Socket, head: Buffer) => table.accept(request, socket, head));
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    table.close();
    server.close();
  });
  return { port: (server.address() as AddressInfo).port, heard, accepted: async () => ((await once(server, "connection")) as [Socket])[0] };
}

function asksFor(protocol: string): string {
  return `GET /v1/link HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: ${protocol}\r\n\r\n`;
}

test("a stranger who is refused and resets his connection ends his connection, and not the process", async (t) => {
  const { port, accepted } = await openLab(t);
  const [ours, socket] = [accepted(), connect(port, "127.0.0.1").on("error", () => undefined)];
  socket.write(asksFor("websocket"));
  socket.once("data", () => socket.resetAndDestroy());
  const closed = await ours;
  // Without a listener of the table's its error is nobody's, and fails this test.
  await new Promise((resolve) => void closed.once("close", resolve));
});

test("what follows a refused handshake in the same packet reaches nobody", async (t) => {
  const { port, heard } = await openLab(t);
  const socket = connect(port, "127.0.0.1").on("error", () => undefined);
  socket.write(asksFor(LINK_PROTOCOL));
  await once(socket, "data");
  socket.write(Buffer.concat([encodeFrame({ type: "ping" }), encodeFrame({ type: "want", channel: 1, pieces: [1] })]));
  await once(socket, "close");
  assert.deepEqual(heard, []);
});
