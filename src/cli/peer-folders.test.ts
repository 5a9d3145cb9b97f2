import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { makePeerFolder } from "./peer-folders.ts";

test("folders of dfgets that were killed go; those of dfgets that run, and of whom nobody knows, stay", async (t) => {
  const parent = mkdtempSync(join(tmpdir(), "peers-"));
  t.after(() => rmSync(parent, { recursive: true }));
  const peerIn = async (name: string): Promise<{ end(): Promise<void> }> => {
    const cache = join(parent, name, "cache");
    mkdirSync(cache, { recursive: true });
    writeFileSync(join(cache, "piece"), "x");
    const program = `
      const { StoreLock } = await import(${JSON.stringify(join(import.meta.dirname, "../peer/store/lock.ts"))});
      const lock = await StoreLock.take(${JSON.stringify(cache)});
      console.log("locked");
      setInterval(() => lock, 1000);`;
    const child = spawn(process.execPath, ["--input-type=module", "-e", program], { stdio: ["ignore", "pipe", "inherit"] });
    t.after(() => child.kill("SIGKILL"));
    await once(child.stdout, "data");
    return {
      end: async () => {
        child.kill("SIGKILL");
        await once(child, "exit");
      },
    };
  };
  const killed = await peerIn(".dfget-peer-killed");
  await killed.end();
  const running = await peerIn(".dfget-peer-running");
  mkdirSync(join(parent, ".dfget-peer-begins", "cache"), { recursive: true });
  const made = await makePeerFolder(parent);
  rmSync(made, { recursive: true });
  assert.deepEqual(readdirSync(parent), [".dfget-peer-begins", ".dfget-peer-running"]);
  assert.deepEqual(readdirSync(join(parent, ".dfget-peer-running", "cache")), ["lock", "lock.owner", "piece"]);
  await running.end();
  rmSync(await makePeerFolder(parent), { recursive: true });
  assert.deepEqual(readdirSync(parent), [".dfget-peer-begins"]);
});

test("in a folder for all nothing is removed that leads elsewhere, or that others may write to", async (t) => {
  const parent = mkdtempSync(join(tmpdir(), "peers-"));
  t.after(() => rmSync(parent, { recursive: true }));
  const own = join(parent, "own");
  mkdirSync(own);
  writeFileSync(join(own, "lock.owner"), "");
  for (const name of ["linked", "open"]) mkdirSync(join(parent, `.dfget-peer-${name}`));
  symlinkSync(own, join(parent, ".dfget-peer-linked", "cache"));
  symlinkSync(join(parent, ".dfget-peer-linked"), join(parent, ".dfget-peer-link"));
  mkdirSync(join(parent, ".dfget-peer-open", "cache"));
  writeFileSync(join(parent, ".dfget-peer-open", "cache", "lock.owner"), "");
  chmodSync(join(parent, ".dfget-peer-open"), 0o777);
  rmSync(await makePeerFolder(parent), { recursive: true });
  assert.deepEqual(readdirSync(parent), [".dfget-peer-link", ".dfget-peer-linked", ".dfget-peer-open", "own"]);
  assert.deepEqual(readdirSync(own), ["lock.owner"]);
});
