import assert from "node:assert/strict";
import { type IncomingMessage, request } from "node:http";
import { type AddressInfo, createServer } from "node:net";
import { Duplex } from "node:stream";
import { test } from "node:test";
import { Tunnels } from "./tunnels.ts";
import type { ProxyRecord } from "./proxy-record.ts";
import { forwardUpgrade } from "./upgrade.ts";
import type { Upstreams } from "./upstreams.ts";

test("a server that takes a request to speak another protocol and never answers is given up, and its client told", async (t) => {
  const server = createServer((socket) => void socket.on("error", () => {}).resume());
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
  t.after(() => server.close());
  const { port } = server.address() as AddressInfo;
  const target = { host: "127.0.0.1", port, isTls: false };
  // In place of ten minutes.
  const upstreams = { request: (_target, method, path, headers) => request({ host: "127.0.0.1", port, method, path, headers, timeout: 50 }) } as Partial<Upstreams> as Upstreams;
  const said: string[] = [];
  const client = new Duplex({
    read: () => {},
    write: (chunk: Buffer, _encoding, done) => {
      said.push(chunk.toString());
      done();
    },
  });
  const record = { status: 0 } as ProxyRecord;
  const asked = { method: "GET", headers: { upgrade: "websocket" }, rawHeaders: ["Host", "x"] } as Partial<IncomingMessage> as IncomingMessage;
  await forwardUpgrade({ upstreams, pseudonym: "dfdaemon", tunnels: new Tunnels() }, asked, client, Buffer.alloc(0), { target, path: "/", host: undefined }, record);
  assert.match(said.join(""), /^HTTP\/1\.1 50\d /);
  client.destroy();
});
