import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { DaemonStream } from "./daemon-stream.ts";

test("a daemon that takes the connection and says nothing is none: another way is tried", async (t) => {
  const directory = mkdtempSync(join(tmpdir(), "daemon-stream-"));
  const path = join(directory, "d.sock");
  const connected = Promise.withResolvers<void>();
  const server = createServer((socket) => void socket.on("error", () => undefined).once("data", () => connected.resolve()));
  await new Promise<void>((resolve) => void server.listen(path, resolve));
  t.after(() => {
    server.close();
    rmSync(directory, { recursive: true });
  });
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const request = { requestId: "r", source: { url: "http://h/f", headers: {} }, backToSource: true };
  const opened = assert.rejects(DaemonStream.open(path, request, new AbortController().signal), { code: "DAEMON_UNREACHABLE", message: /does not answer/ });
  await connected.promise;
  t.mock.timers.tick(10_000);
  await opened;
});
