import assert from "node:assert/strict";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, realpathSync, rmSync, statSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { clientFolder, folderForCode } from "./compiled-code.ts";
import { cacheHome, type Machine } from "./machine.ts";

function place(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), "dragonfly-compiled-"));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

function machine(facts: Partial<Machine>): Machine {
  return { env: {}, isRoot: false, home: "/home/u", canWrite: () => true, ...facts };
}

test("compiled code has a private folder of this version; those of others go", (t) => {
  const data = join(place(t), "data");
  mkdirSync(join(data, "compiled/0.9/x"), { recursive: true });
  chmodSync(data, 0o700);
  assert.equal(folderForCode(data, "1.0"), join(data, "compiled/1.0"));
  assert.deepEqual(readdirSync(join(data, "compiled")), ["1.0"]);
  assert.equal(statSync(join(data, "compiled/1.0")).mode & 0o777, 0o700);
});

test("nothing is executed that somebody else could have put there", (t) => {
  for (const shared of ["", "compiled", "compiled/1.0"]) {
    const data = place(t);
    mkdirSync(join(data, "compiled/1.0"), { recursive: true, mode: 0o700 });
    chmodSync(join(data, shared), 0o770);
    assert.equal(folderForCode(data, "1.0"), undefined, shared);
  }
  const [data, elsewhere] = [place(t), place(t)];
  symlinkSync(elsewhere, join(data, "compiled"));
  assert.equal(folderForCode(data, "1.0"), undefined, "a link");
});

test("a command's compiled code lies in its user's cache folder", (t) => {
  const home = realpathSync(place(t));
  assert.equal(clientFolder(machine({ home }), "1.0"), join(home, ".cache/dragonfly/compiled/1.0"));
});

test("a cache folder that somebody else can replace is not used, and nothing is made there or deleted", (t) => {
  const home = place(t);
  mkdirSync(join(home, "shared/cache"), { recursive: true });
  chmodSync(join(home, "shared"), 0o777);
  symlinkSync(join(home, "shared/cache"), join(home, ".cache"));
  for (const facts of [{ home }, { env: { XDG_CACHE_HOME: join(home, "shared/cache") } }]) {
    assert.equal(clientFolder(machine(facts), "1.0"), undefined);
  }
  assert.deepEqual(readdirSync(join(home, "shared/cache")), []);
  chmodSync(join(home, "shared"), 0o1777);
  assert.notEqual(clientFolder(machine({ home }), "1.0"), undefined, "as in /tmp, only the owner may rename it");
});

test("root makes no folder above its own", (t) => {
  const missing = join(place(t), "missing");
  assert.throws(() => clientFolder(machine({ isRoot: true, env: { XDG_CACHE_HOME: missing } }), "1.0"), { code: "ENOENT" });
  assert.equal(existsSync(missing), false);
});

test("the cache folder is the system's for root, whose HOME may be somebody else's; without a home there is none", () => {
  assert.equal(cacheHome(machine({ isRoot: true })), "/var/cache");
  assert.equal(cacheHome(machine({ env: { XDG_CACHE_HOME: "/c" } })), "/c");
  assert.equal(cacheHome(machine({ env: { XDG_CACHE_HOME: "c" } })), "/home/u/.cache");
  assert.equal(cacheHome(machine({ home: "" })), undefined);
});
