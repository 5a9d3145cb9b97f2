import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { freePort } from "../demo/programs.ts";
import { isInstalled } from "../lab/command.ts";
import { startNginx } from "./nginx.ts";

test("nginx is closed when it has ended, and does nothing more in its folder", { skip: isInstalled("nginx") ? false : "nginx is not installed" }, async (t) => {
  const directory = mkdtempSync(join(tmpdir(), "dragonfly-nginx-"));
  t.after(() => rmSync(directory, { recursive: true }));
  const nginx = await startNginx(directory, await freePort(), await freePort());
  // It writes its pid after it listens, and before it answers.
  await (await fetch(`http://127.0.0.1:${nginx.port}/nginx.conf`)).text();
  const pidFile = join(directory, "nginx.pid");
  const pid = Number(readFileSync(pidFile, "utf8"));
  // Held, so that it ends no sooner than it is looked at.
  process.kill(pid, "SIGSTOP");
  let isClosed = false;
  const closing = nginx.close().then(() => (isClosed = true));
  await turn();
  assert.equal(isClosed, false);
  process.kill(pid, "SIGCONT");
  await closing;
  assert.equal(existsSync(pidFile), false, "it removes that file at its end");
});
