import assert from "node:assert/strict";
import dns from "node:dns";
import { syncBuiltinESMExports } from "node:module";
import { createServer, type AddressInfo, type Socket } from "node:net";
import { test, type TestContext } from "node:test";
import { failure } from "./local-server.test.ts";
import { openTunnel } from "./tunnel.ts";

/** Says who connects. */
async function listen(t: TestContext): Promise<{ readonly port: number; readonly connected: Socket[] }> {
  const connected: Socket[] = [];
  const server = createServer((socket) => void connected.push(socket.on("error", () => {})));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    for (const socket of connected) socket.destroy();
    server.close();
  });
  return { port: (server.address() as AddressInfo).port, connected };
}

/** Lets every name lead to where `addresses` says. */
function resolveTo(t: TestContext, addresses: readonly string[]): void {
  t.mock.method(dns, "lookup", (_host: string, options: { readonly all?: boolean }, callback: (...answer: unknown[]) => void) =>
    options.all === true ? callback(null, addresses.map((address) => ({ address, family: 4 }))) : callback(null, addresses[0], 4));
  syncBuiltinESMExports();
  t.after(() => {
    t.mock.restoreAll();
    syncBuiltinESMExports();
  });
}

test("an address that may not be reached is not, by its name or by itself, were it one of several", async (t) => {
  const { port, connected } = await listen(t);
  const mayReach = (address: string): boolean => address !== "127.0.0.1";
  const open = (host: string) => openTunnel({ host, port, timeoutMs: 5_000, mayReach });
  const addresses = ["127.0.0.1"];
  resolveTo(t, addresses);
  await failure(open("one.test"), "ORIGIN_FORBIDDEN");
  await failure(open("127.0.0.1"), "ORIGIN_FORBIDDEN");
  addresses.unshift("203.0.113.7");
  await failure(open("several.test"), "ORIGIN_FORBIDDEN");
  assert.equal(connected.length, 0);
  addresses.shift();
  const socket = await openTunnel({ host: "free.test", port, timeoutMs: 5_000, mayReach: () => true });
  socket.destroy();
});

test("what a server says in one packet with its proxy's answer is not lost", async (t) => {
  const server = createServer((socket) => void socket.once("data", () => socket.write("HTTP/1.1 200 OK\r\n\r\nfirst words")));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => server.close());
  const proxy = new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  const socket = await openTunnel({ host: "server.test", port: 443, proxy, timeoutMs: 5_000 });
  const words = await new Promise((resolve) => void socket.once("data", (chunk: Buffer) => resolve(chunk.toString())));
  assert.equal(words, "first words");
  socket.destroy();
});
