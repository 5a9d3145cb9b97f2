/** Strangers who are refused an upgrade, or speak plain HTTP to TLS, and do not hang up: they cost no descriptor for long, and hold up no end. */
import assert from "node:assert/strict";
import { readdirSync, readlinkSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { type TestContext, test } from "node:test";
import { startSupernode } from "../../src/supernode/supernode.ts";
import { supernodeConfig } from "./lib/supernode-config.ts";
import { log, temporaryFolder } from "./lib/peers.ts";

/** Longer than an answer is given to arrive. */
const WAIT_MS = 1_500;

/** Connected or listening; files come and go beside them. */
function socketCount(): number {
  return readdirSync("/proc/self/fd").filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).startsWith("socket:");
    } catch {
      // The one by which the folder was read.
      return false;
    }
  }).length;
}

async function lab(t: TestContext, changes = {}) {
  const directory = temporaryFolder(t);
  return await startSupernode(supernodeConfig(directory, changes), { log });
}

async function strangers(port: number, count: number, text: string): Promise<{ sockets: Socket[]; answers: string[] }> {
  const answers: string[] = [];
  const sockets = await Promise.all(Array.from({ length: count }, () => new Promise<Socket>((resolve) => {
    // Reads, and never ends its side.
    const socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true }, () => socket.write(text));
    socket.on("error", () => {});
    socket.once("data", (data) => { answers.push(String(data).split("\r\n", 1)[0] as string); resolve(socket); });
  })));
  return { sockets, answers };
}

const wait = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
const upgrade = (path: string, protocol: string): string => `GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: ${protocol}\r\n\r\n`;

for (const [name, text, tls] of [
  ["another path", upgrade("/nowhere", "x"), false],
  ["another control protocol", upgrade("/v1/control", "other/9"), false],
  ["another link protocol", upgrade("/v1/link", "other/9"), false],
  ["plain HTTP at a TLS port", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", true],
] as const) {
  test(`a refused stranger who does not hang up is let go of: ${name}`, { timeout: 30_000 }, async (t) => {
    const supernode = await lab(t, tls ? { tls: { kind: "token" }, joinToken: { kind: "given", token: "x".repeat(40) } } : {});
    const before = socketCount();
    const { sockets, answers } = await strangers(supernode.address.port, 20, text);
    await wait(WAIT_MS);
    // Our own end of each is in this process too.
    const held = socketCount() - before - sockets.filter((socket) => !socket.destroyed).length;
    const closing = supernode.close().then(() => "closed");
    const outcome = await Promise.race([closing, wait(4_000).then(() => "still closing after 4 s")]);
    for (const socket of sockets) socket.destroy();
    await closing;
    assert.deepEqual({ answer: answers[0], held, outcome }, { answer: answers[0], held: 0, outcome: "closed" });
  });
}
